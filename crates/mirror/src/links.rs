//! The active's connections to its peers: opening them, giving them up, and the limits of time.

use crate::activate::Active;
use crate::control::Report;
use crate::follower::Standing;
use crate::io::Output;
use crate::machine::Machine;
use crate::peer::{Link, Peer, Phase};
use wire::event::ReplicaLoss;
use wire::{NodeId, Time};

impl Machine {
    /// Ends a peer's connection, whatever its state, and tells the node once.
    pub(crate) fn lose(&mut self, node: NodeId, why: ReplicaLoss) {
        let required = self.required().or(self.eligible()).contains(node);
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let conn = peer.conn();
        let was_up = peer.session().is_some();
        peer.lag.lost();
        peer.standing = Standing::Within;
        let outbox = peer.session_mut().map(|s| std::mem::take(&mut s.outbox));
        let fault = why != ReplicaLoss::Closed && why != ReplicaLoss::Silent;
        let tell = (was_up || required || fault) && !peer.lost;
        peer.lost |= tell;
        if was_up {
            peer.missing_since = self.now;
        }
        if let Some(conn) = conn {
            self.disconnect(conn);
        }
        if was_up {
            if let Some(plane) = self.plane_mut(node) {
                plane.cancel_point();
            }
            self.live.remove(node);
            for app in self.jobs.values_mut().filter_map(|j| j.app_mut()) {
                app.sent.remove(node);
                app.acked.remove(node);
            }
            for flush in self.flushes.values_mut() {
                flush.sent.remove(node);
                flush.acked.remove(node);
            }
        }
        self.redial_later(node);
        if let Some(outbox) = outbox {
            self.drop_outbox(outbox);
        }
        if let Some(conn) = conn {
            // After the link is down: what waited for their ranges may start.
            self.abandon_asked(conn);
        }
        if tell {
            self.report(Report::PeerLost { node, why });
        }
    }

    /// Ends a connection that never became a session, and tries again later.
    pub(crate) fn hang_up(&mut self, node: NodeId) {
        if let Some(conn) = self.peers.get(&node).and_then(Peer::conn) {
            self.disconnect(conn);
        }
        self.redial_later(node);
    }

    pub(crate) fn redial_later(&mut self, node: NodeId) {
        let (now, max) = (self.now, self.config.redial_max);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.link = Link::Down {
                redial_at: now + peer.backoff,
            };
            peer.backoff = peer.backoff.saturating_mul(2).min(max);
        }
    }

    /// A person does not want to wait for the next try.
    pub(crate) fn on_resync(&mut self, node: NodeId, full: bool) {
        let Some(active) = self.active().filter(|active| active.is_serving()) else {
            return;
        };
        let counted = active.required.or(active.eligible).contains(node);
        if full && !counted {
            self.doubt_all(node);
        }
        let (now, backoff) = (self.now, self.config.redial_min);
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if let Link::Down { redial_at } = &mut peer.link {
            *redial_at = now;
            peer.backoff = backoff;
        }
        if let Some(copying) = peer.copying_mut() {
            copying.retry_at = now;
        }
    }

    /// Limits of time that peers have passed.
    pub(crate) fn on_active_time(&mut self) {
        let (required, eligible) = (self.required(), self.eligible());
        let (ack, io) = (self.config.ack_timeout, self.config.io_timeout);
        let now = self.now;
        let late = |node: NodeId, peer: &Peer| {
            // One that is eligible and not there has to be taken out; one that is there is watched by its lag.
            let missing = eligible.contains(node) && peer.session().is_none();
            let deadline = peer.deadline(required.contains(node) || missing, ack, io);
            deadline.is_some_and(|at| at <= now)
        };
        let late: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(node, peer)| late(**node, peer))
            .map(|(node, _)| *node)
            .collect();
        for node in late {
            self.on_late(node);
        }
    }

    /// A peer without a session is only reported: the tries to connect go on.
    fn on_late(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let since = match &peer.link {
            Link::Greeting(greeting) => Some(greeting.since),
            Link::Up(_) => None,
            Link::Down { .. } | Link::Dialing => Some(self.now),
        };
        let still_trying = since.is_some_and(|at| at + self.config.io_timeout > self.now);
        if !still_trying {
            return self.lose(node, ReplicaLoss::Silent);
        }
        if !peer.lost {
            peer.lost = true;
            let why = ReplicaLoss::Silent;
            self.report(Report::PeerLost { node, why });
        }
    }

    pub(crate) fn active_wake_at(&self, active: &Active) -> Option<Time> {
        let (ack, io) = (self.config.ack_timeout, self.config.io_timeout);
        let of_peer = |(node, peer): (&NodeId, &Peer)| {
            let missing = active.eligible.contains(*node) && peer.session().is_none();
            let deadline = peer.deadline(active.required.contains(*node) || missing, ack, io);
            let next = match &peer.link {
                Link::Down { redial_at } => active.dials_to(*node).then_some(*redial_at),
                Link::Up(s) => match &s.phase {
                    Phase::Live => self.wants_point(*node).then_some(s.point_at),
                    Phase::Copying(copying) => {
                        let retry = copying.is_stuck().then_some(copying.retry_at);
                        retry.into_iter().chain(self.pace.wake_at()).min()
                    }
                    Phase::Naming { .. } | Phase::Committing { .. } | Phase::Clearing { .. } => {
                        None
                    }
                },
                Link::Dialing | Link::Greeting(_) => None,
            };
            deadline.into_iter().chain(next).min()
        };
        let others = [self.bounds_wake_at(), self.common_wake_at()];
        let peers = self.peers.iter().filter_map(of_peer);
        peers.chain(others.into_iter().flatten()).min()
    }

    /// Opens the connections that are due.
    pub(crate) fn dial(&mut self) {
        let now = self.now;
        let due: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, p)| matches!(p.link, Link::Down { redial_at } if redial_at <= now))
            .filter(|(node, _)| self.active().is_some_and(|a| a.dials_to(**node)))
            .map(|(node, _)| *node)
            .collect();
        for node in due {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.link = Link::Dialing;
            }
            self.out.push_back(Output::Connect { node });
        }
    }
}
