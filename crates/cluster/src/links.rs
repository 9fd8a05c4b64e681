//! Who is heard: signs of life per node and link.

use std::collections::{BTreeMap, BTreeSet};
use wire::control::{Beat, LinkId};
use wire::{Duration, NodeId, SessionId, Time};

/// What [`Links`] watches.
#[derive(Clone, Debug)]
pub struct LinksConfig {
    /// This node.
    pub me: NodeId,
    /// Every other node and the heartbeat links that lead to it.
    pub peers: BTreeMap<NodeId, Vec<LinkId>>,
    /// Time between two beats on one link.
    pub beat: Duration,
    /// Silence after which a link is down, and a node silent on all links is suspect.
    pub suspect: Duration,
}

/// What changed in who is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// A node is heard (again).
    NodeUp(NodeId),
    /// A node was silent on every link for the suspicion time; how long it has been silent.
    NodeSuspect(NodeId, Duration),
    /// A link carries signs of life (again).
    LinkUp(NodeId, LinkId),
    /// A link was silent for the suspicion time.
    LinkDown(NodeId, LinkId),
    /// A node's process life changed: it restarted.
    Restarted(NodeId),
}

/// Signs of life of every peer.
#[derive(Clone, Debug)]
pub struct Links {
    config: LinksConfig,
    due: Time,
}

impl Links {
    /// Nobody was heard yet; suspicion counts from `now`.
    #[must_use]
    pub fn new(config: LinksConfig, now: Time) -> Self {
        Self { config, due: now }
    }

    /// A beat came.
    pub fn on_beat(&mut self, now: Time, from: NodeId, link: LinkId, life: SessionId, beat: &Beat) {
        let _ = (now, from, link, life, beat);
    }

    /// Any authenticated datagram counts as a sign of life.
    pub fn on_heard(&mut self, now: Time, from: NodeId, link: LinkId, life: SessionId) {
        let _ = (now, from, link, life);
    }

    /// The next beat to `to` over `link`; the caller fills in the groups.
    #[must_use]
    pub fn head(&self, now: Time, to: NodeId, link: LinkId) -> Beat {
        let _ = (to, link);
        Beat {
            sent: now,
            echo: None,
            hears: self.hears(now),
            groups: Vec::new(),
        }
    }

    /// When the next beats are due.
    #[must_use]
    pub const fn due(&self) -> Time {
        self.due
    }

    /// The beats due were sent to everyone.
    pub fn beat_sent(&mut self, now: Time) {
        self.due = now + self.config.beat;
    }

    /// True if `node` was heard within the suspicion time. This node itself always is.
    #[must_use]
    pub fn is_up(&self, now: Time, node: NodeId) -> bool {
        let _ = (now, node);
        false
    }

    /// How long `node` has been silent on every link; since the start if it was never heard.
    #[must_use]
    pub fn silent(&self, now: Time, node: NodeId) -> Duration {
        let _ = (now, node);
        Duration::ZERO
    }

    /// Smoothed round-trip time to `node`, over its fastest link; none before the first echo.
    #[must_use]
    pub fn rtt(&self, node: NodeId) -> Option<Duration> {
        let _ = node;
        None
    }

    /// The peers heard within the suspicion time.
    #[must_use]
    pub fn hears(&self, now: Time) -> BTreeSet<NodeId> {
        let _ = now;
        BTreeSet::new()
    }

    /// Whom `node` said it hears, in its latest beat.
    #[must_use]
    pub fn heard_by(&self, node: NodeId) -> Option<&BTreeSet<NodeId>> {
        let _ = node;
        None
    }

    /// True if `node` was heard over `link` within the suspicion time.
    #[must_use]
    pub fn link_up(&self, now: Time, node: NodeId, link: LinkId) -> bool {
        let _ = (now, node, link);
        false
    }

    /// The next change, if any; call until it answers none.
    pub fn poll_change(&mut self, now: Time) -> Option<LinkChange> {
        let _ = now;
        None
    }

    /// When to call [`Links::poll_change`] or send beats next.
    #[must_use]
    pub fn wake_at(&self) -> Time {
        self.due
    }
}
