//! Who is heard: signs of life per node and per heartbeat link.
//!
//! A link is *down* and a node is *suspect* after [`LinksConfig::suspect`] of silence: the link's own, or that of all the
//! node's links together. Suspicion is a reason to ask the register for a takeover, never a right to it.
//!
//! A process that did not run for a while (stopped, starved, suspended) heard nobody because it did not listen. Its own
//! pause is not counted as a peer's silence: see [`Links::poll_change`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wire::control::{Beat, LinkId};
use wire::{Duration, NodeId, SessionId, Time};

/// Earlier lives of a peer that are remembered, so that a late datagram of one is not taken for another restart.
const LIVES_MAX: usize = 4;

/// What [`Links`] watches.
#[derive(Clone, Debug)]
pub struct LinksConfig {
    /// This node.
    pub me: NodeId,
    /// Every other node and the heartbeat links that lead to it.
    pub peers: BTreeMap<NodeId, Vec<LinkId>>,
    /// Time between two beats on one link.
    pub beat: Duration,
    /// Silence after which a link is down, and a node silent on all links is suspect. Several beats long.
    pub suspect: Duration,
}

/// What changed in who is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// A node is heard (again).
    NodeUp(NodeId),
    /// A node was silent on every link for the suspicion time; how long it has been silent. Said also of a node that was
    /// never heard since the start.
    NodeSuspect(NodeId, Duration),
    /// A link carries signs of life (again).
    LinkUp(NodeId, LinkId),
    /// A link was silent for the suspicion time.
    LinkDown(NodeId, LinkId),
    /// A node's process life changed: it restarted.
    Restarted(NodeId),
}

/// What was last said to the caller of a node or link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// Nothing yet.
    Nothing,
    Up,
    Down,
}

/// One heartbeat link to one peer.
#[derive(Clone, Debug)]
struct Path {
    heard: Option<Time>,
    said: Said,
    /// The newest beat of the peer's present life: its `sent`, and when it came.
    newest: Option<(Time, Time)>,
    /// The newest of this node's own beats that the peer echoed here.
    echoed: Option<Time>,
    rtt: Option<Duration>,
}

/// One other node.
#[derive(Clone, Debug)]
struct Peer {
    life: Option<SessionId>,
    /// Earlier lives, oldest first; at most [`LIVES_MAX`].
    past: VecDeque<SessionId>,
    restarted: bool,
    heard: Option<Time>,
    said: Said,
    hears: Option<BTreeSet<NodeId>>,
    paths: BTreeMap<LinkId, Path>,
}

/// Signs of life of every peer.
#[derive(Clone, Debug)]
pub struct Links {
    config: LinksConfig,
    peers: BTreeMap<NodeId, Peer>,
    due: Time,
    start: Time,
    /// Silence counts from here at the earliest: the start, or the end of this process's own last pause.
    awake_since: Time,
    polled: Time,
}

impl Links {
    /// Nobody was heard yet; suspicion counts from `now`.
    #[must_use]
    pub fn new(config: LinksConfig, now: Time) -> Self {
        let peers = config
            .peers
            .iter()
            .map(|(node, links)| (*node, Peer::new(links)))
            .collect();
        Self {
            config,
            peers,
            due: now,
            start: now,
            awake_since: now,
            polled: now,
        }
    }

    /// A beat came: a sign of life, an echo for the round-trip time, and whom the peer hears.
    pub fn on_beat(&mut self, now: Time, from: NodeId, link: LinkId, life: SessionId, beat: &Beat) {
        let start = self.start;
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if !peer.on_heard(now, link, life) {
            return;
        }
        let Some(path) = peer.paths.get_mut(&link) else {
            return;
        };
        if path.on_beat(now, start, beat) {
            peer.hears = Some(beat.hears.clone());
        }
    }

    /// Any authenticated datagram counts as a sign of life. One of an earlier life of the peer, arriving late, does not.
    pub fn on_heard(&mut self, now: Time, from: NodeId, link: LinkId, life: SessionId) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.on_heard(now, link, life);
        }
    }

    /// The next beat to `to` over `link`; the caller fills in the groups.
    #[must_use]
    pub fn head(&self, now: Time, to: NodeId, link: LinkId) -> Beat {
        let newest = self
            .peers
            .get(&to)
            .and_then(|peer| peer.paths.get(&link))
            .and_then(|path| path.newest);
        Beat {
            sent: now,
            echo: newest.map(|(sent, came)| (sent, now.since(came))),
            hears: self.hears(now),
            groups: Vec::new(),
        }
    }

    /// When the next beats are due, on every link.
    #[must_use]
    pub const fn due(&self) -> Time {
        self.due
    }

    /// The beats due were sent on every link. Beats that were missed are not made up for.
    pub fn beat_sent(&mut self, now: Time) {
        let next = self.due + self.config.beat;
        self.due = if next > now {
            next
        } else {
            now + self.config.beat
        };
    }

    /// True if `node` was heard within the suspicion time. This node itself always is.
    #[must_use]
    pub fn is_up(&self, now: Time, node: NodeId) -> bool {
        node == self.config.me
            || self
                .peers
                .get(&node)
                .is_some_and(|peer| self.is_fresh(now, peer.heard))
    }

    /// How long `node` has been silent on every link; since the start if it was never heard.
    #[must_use]
    pub fn silent(&self, now: Time, node: NodeId) -> Duration {
        if node == self.config.me {
            return Duration::ZERO;
        }
        let heard = self.peers.get(&node).and_then(|peer| peer.heard);
        now.since(heard.unwrap_or(self.start))
    }

    /// Smoothed round-trip time to `node`, over its fastest link; none before the first echo.
    #[must_use]
    pub fn rtt(&self, node: NodeId) -> Option<Duration> {
        let paths = &self.peers.get(&node)?.paths;
        paths.values().filter_map(|path| path.rtt).min()
    }

    /// The peers heard within the suspicion time.
    #[must_use]
    pub fn hears(&self, now: Time) -> BTreeSet<NodeId> {
        self.peers
            .keys()
            .copied()
            .filter(|node| self.is_up(now, *node))
            .collect()
    }

    /// Whom `node` said it hears, in its latest beat; none before the first.
    #[must_use]
    pub fn heard_by(&self, node: NodeId) -> Option<&BTreeSet<NodeId>> {
        self.peers.get(&node)?.hears.as_ref()
    }

    /// True if `node` was heard over `link` within the suspicion time.
    #[must_use]
    pub fn link_up(&self, now: Time, node: NodeId, link: LinkId) -> bool {
        self.peers
            .get(&node)
            .and_then(|peer| peer.paths.get(&link))
            .is_some_and(|path| self.is_fresh(now, path.heard))
    }

    /// The next change, if any; call until it answers none. To be called at least every [`Links::wake_at`]: a longer gap
    /// than half the suspicion time is this process's own pause, and silence counts anew from its end.
    pub fn poll_change(&mut self, now: Time) -> Option<LinkChange> {
        if now.since(self.polled) > self.config.suspect / 2 {
            self.awake_since = now;
        }
        self.polled = self.polled.max(now);
        let silence = Silence {
            now,
            floor: self.awake_since,
            start: self.start,
            suspect: self.config.suspect,
        };
        self.peers
            .iter_mut()
            .find_map(|(node, peer)| peer.poll_change(*node, &silence))
    }

    /// When to call [`Links::poll_change`], or to send beats, next.
    #[must_use]
    pub fn wake_at(&self) -> Time {
        let limits = self.peers.values().flat_map(|peer| {
            let paths = peer.paths.values().map(|path| (path.said, path.heard));
            paths.chain([(peer.said, peer.heard)])
        });
        limits
            .filter(|(said, _)| *said != Said::Down)
            .map(|(_, heard)| heard.unwrap_or(self.start).max(self.awake_since))
            .map(|from| from + self.config.suspect)
            .fold(self.due, Time::min)
    }

    fn is_fresh(&self, now: Time, heard: Option<Time>) -> bool {
        heard.is_some_and(|at| now.since(at.max(self.awake_since)) < self.config.suspect)
    }
}

/// What silence is measured against.
struct Silence {
    now: Time,
    floor: Time,
    start: Time,
    suspect: Duration,
}

impl Silence {
    /// What is to be said of something last heard at `heard`, if it differs from what was said.
    fn judge(&self, heard: Option<Time>, said: &mut Said) -> Option<Said> {
        let since = heard.unwrap_or(self.start).max(self.floor);
        let verdict = match heard {
            _ if self.now.since(since) >= self.suspect => Said::Down,
            Some(_) => Said::Up,
            None => Said::Nothing,
        };
        // What was said to be down stays so until it is heard: a pause of this process is no sign of life.
        let heard_since = heard.is_some_and(|at| self.now.since(at) < self.suspect);
        if verdict == *said || (*said == Said::Down && !heard_since) {
            return None;
        }
        *said = verdict;
        Some(verdict)
    }
}

impl Peer {
    fn new(links: &[LinkId]) -> Self {
        let path = Path {
            heard: None,
            said: Said::Nothing,
            newest: None,
            echoed: None,
            rtt: None,
        };
        Self {
            life: None,
            past: VecDeque::new(),
            restarted: false,
            heard: None,
            said: Said::Nothing,
            hears: None,
            paths: links.iter().map(|link| (*link, path.clone())).collect(),
        }
    }

    /// False if the datagram is of an earlier life and says nothing about the present one.
    fn on_heard(&mut self, now: Time, link: LinkId, life: SessionId) -> bool {
        if self.past.contains(&life) {
            return false;
        }
        if let Some(before) = self.life
            && before != life
        {
            self.on_restarted(before);
        }
        self.life = Some(life);
        self.heard = Some(now);
        if let Some(path) = self.paths.get_mut(&link) {
            path.heard = Some(now);
        }
        true
    }

    fn on_restarted(&mut self, before: SessionId) {
        if self.past.len() == LIVES_MAX {
            self.past.pop_front();
        }
        self.past.push_back(before);
        self.restarted = true;
        self.hears = None;
        for path in self.paths.values_mut() {
            path.newest = None;
        }
    }

    fn poll_change(&mut self, node: NodeId, silence: &Silence) -> Option<LinkChange> {
        if self.restarted {
            self.restarted = false;
            return Some(LinkChange::Restarted(node));
        }
        match silence.judge(self.heard, &mut self.said) {
            Some(Said::Up) => return Some(LinkChange::NodeUp(node)),
            Some(Said::Down) => {
                let silent = silence.now.since(self.heard.unwrap_or(silence.start));
                return Some(LinkChange::NodeSuspect(node, silent));
            }
            Some(Said::Nothing) | None => {}
        }
        self.paths.iter_mut().find_map(|(link, path)| {
            match silence.judge(path.heard, &mut path.said) {
                Some(Said::Up) => Some(LinkChange::LinkUp(node, *link)),
                Some(Said::Down) => Some(LinkChange::LinkDown(node, *link)),
                Some(Said::Nothing) | None => None,
            }
        })
    }
}

impl Path {
    /// False if the beat is older than one that came before it.
    fn on_beat(&mut self, now: Time, start: Time, beat: &Beat) -> bool {
        if self.newest.is_some_and(|(sent, _)| sent >= beat.sent) {
            return false;
        }
        self.newest = Some((beat.sent, now));
        if let Some((sent, kept)) = beat.echo
            && sent >= start
            && self.echoed.is_none_or(|before| sent > before)
            && let Some(rtt) = now.since(sent).checked_sub(kept)
        {
            self.echoed = Some(sent);
            // RFC 6298 §2: the smoothed time moves an eighth of the way to each new measurement.
            self.rtt = Some(self.rtt.map_or(rtt, |before| {
                (before.saturating_mul(7).saturating_add(rtt)) / 8
            }));
        }
        true
    }
}

#[cfg(test)]
mod tests;
