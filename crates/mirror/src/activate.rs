//! Becoming the active, changes of the sets, and the orderly end.

use crate::aside::Aside;
use crate::common::Common;
use crate::control::{Command, Report};
use crate::io::Payload;
use crate::machine::{FlushId, Machine};
use crate::nodes::NodeSet;
use crate::peer::{Peer, Phase};
use crate::renew::Renewal;
use crate::role::Role;
use crate::superblock::Ticket;
use std::collections::BTreeSet;
use wire::layout::ReplicaState;
use wire::mirror_frame::{Header, Kind, Refuse, encode_payload};
use wire::mutant::{self, Bug, Mutant};
use wire::{Epoch, NodeId};

/// Most other replicas: the layout has room for so many bitmaps.
const PEERS_MAX: usize = wire::layout::PAIRS_MAX;

#[derive(Debug)]
pub(crate) struct Active {
    /// Frames carry it.
    pub(crate) epoch: Epoch,
    /// R1: the other nodes that must hold a write before it is acknowledged.
    pub(crate) required: NodeSet,
    /// Asynchronous: other nodes that may be promoted, and so must be within their bound (R11). Nobody waits for them.
    pub(crate) eligible: NodeSet,
    pub(crate) stage: Stage,
    pub(crate) renewal: Renewal,
    pub(crate) common: Common,
    /// Common points that this activation began.
    pub(crate) commons_made: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    /// The epoch is not durable yet.
    Opening(Ticket),
    /// A required peer is not equal yet (R9), or an earlier life's writes may not be durable here.
    Reconciling,
    Serving,
    Draining(Drain),
}

/// The orderly end, step by step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Drain {
    /// Requests under way end.
    Requests,
    /// The last flush.
    Flush(FlushId),
    /// The intent log empties.
    Forget,
}

impl Active {
    pub(crate) const fn is_serving(&self) -> bool {
        matches!(self.stage, Stage::Serving)
    }

    /// True while the orderly end is under way.
    pub(crate) const fn is_draining(&self) -> bool {
        matches!(self.stage, Stage::Draining(_))
    }

    /// True if a session with the peer is wanted, once peers may hear of the epoch. An eligible follower without one lacks
    /// what others were told, and a copy would make it a mixture: it is taken out of the set first. But at the orderly end
    /// it is waited for, whatever that takes.
    pub(crate) const fn dials_to(&self, node: NodeId) -> bool {
        let open = !matches!(self.stage, Stage::Opening(_));
        open && (self.is_draining() || !self.eligible.contains(node))
    }
}

impl Machine {
    /// Becomes the active, out of [`Role::Idle`].
    pub(crate) fn activate(&mut self, command: Command) {
        let Command::Activate {
            epoch,
            required,
            peers,
        } = command
        else {
            return;
        };
        if self.failed.is_some() {
            return self.report_failure();
        }
        let own = self.config.node;
        let others: BTreeSet<NodeId> = required.union(&peers).copied().collect();
        let others: Vec<NodeId> = others.into_iter().filter(|n| *n != own).collect();
        if let Some(reason) = self.unfit(epoch, others.len()) {
            let wrong = None;
            return self.report(Report::AttachFailed { reason, wrong });
        }
        self.activation += 1;
        self.aside = Aside::Unknown;
        self.cut_off = false;
        self.closed = false;
        self.floor = self.floor.max(epoch);
        let (now, backoff) = (self.now, self.config.redial_min);
        let (required, eligible) = self.sort_out(&required);
        let mut keep = NodeSet::EMPTY;
        others.iter().for_each(|node| keep.insert(*node));
        for node in others {
            self.remember(node, keep);
            let lacks = !required.contains(node);
            self.peers.insert(node, Peer::new(now, backoff, lacks));
        }
        self.intent.all_settled_in(self.period);
        let mirror = self.config.new_mirror;
        self.bump_generation();
        self.note_size(self.layout.data_bytes);
        let ticket = self.superblock.change(|s| {
            s.epoch = s.epoch.max(epoch);
            s.mirror = s.mirror.or(Some(mirror));
            s.led = true;
            s.settled_bytes = s.data_bytes;
            s.state = ReplicaState::Consistent;
            s.seed = None;
        });
        self.role = Role::Active(Active {
            epoch,
            required,
            eligible,
            stage: Stage::Opening(ticket),
            renewal: Renewal::of(&self.intent, &self.layout),
            common: Common::None,
            commons_made: 0,
        });
        self.mark_hot(self.paired().without(required));
    }

    /// Who is waited for, and who must be within the bound.
    fn sort_out(&self, members: &BTreeSet<NodeId>) -> (NodeSet, NodeSet) {
        let others = NodeSet::others(members, self.config.node);
        (others.without(self.apart), others.and(self.apart))
    }

    /// Why this replica cannot serve.
    fn unfit(&self, epoch: Epoch, others: usize) -> Option<String> {
        let own = self.superblock.get();
        match own.state {
            ReplicaState::Origin | ReplicaState::Consistent => {}
            ReplicaState::Blank => return Some("it holds no data yet".to_owned()),
            ReplicaState::Inconsistent if mutant::has(Bug::MixturePromoted) => {}
            ReplicaState::Inconsistent => {
                return Some("its data is a mixture: a resync was not finished".to_owned());
            }
        }
        if epoch < own.epoch {
            let known = own.epoch;
            return Some(format!(
                "epoch {epoch} is older than epoch {known}, which this disk took part in"
            ));
        }
        if others > PEERS_MAX {
            return Some(format!(
                "its metadata has room for {PEERS_MAX} other replicas"
            ));
        }
        None
    }

    /// Everything in the intent log may be missing at peers that are not required (any more).
    fn mark_hot(&mut self, others: NodeSet) {
        if mutant::has(Bug::HotUnmarked) {
            return;
        }
        let hot: Vec<u32> = self.intent.regions().collect();
        for region in hot {
            self.mark_region_against(others, region);
        }
    }

    /// The sets or the epoch changed.
    pub(crate) fn change_sets(&mut self, epoch: Epoch, required: &BTreeSet<NodeId>) {
        let own = self.config.node;
        let (new_required, new_eligible) = self.sort_out(required);
        let Role::Active(active) = &mut self.role else {
            return;
        };
        let old = active.required.or(active.eligible);
        let new = new_required.or(new_eligible);
        active.required = new_required;
        active.eligible = new_eligible;
        active.epoch = active.epoch.max(epoch);
        self.floor = self.floor.max(epoch);
        // Only for a later start of this disk: the register itself guards against older epochs.
        self.superblock.change(|s| s.epoch = s.epoch.max(epoch));
        let (now, backoff) = (self.now, self.config.redial_min);
        for node in required.iter().filter(|n| **n != own) {
            if self.peers.len() < PEERS_MAX && !self.peers.contains_key(node) {
                let mut keep = NodeSet::one(*node);
                self.peers.keys().for_each(|known| keep.insert(*known));
                self.remember(*node, keep);
                self.peers.insert(*node, Peer::new(now, backoff, true));
            }
        }
        let nodes: Vec<NodeId> = self.peers.keys().copied().collect();
        for node in nodes {
            match (old.contains(node), new.contains(node)) {
                (false, true) => self.count_in(node),
                (true, false) => self.count_out(node),
                (true, true) | (false, false) => {}
            }
        }
        self.settle_all();
    }

    /// R5: every reply from here on needs the peer. Its answer to a commit proves that it holds all the earlier ones.
    fn count_in(&mut self, node: NodeId) {
        let (now, asynchronous) = (self.now, self.apart.contains(node));
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        peer.lost = false;
        match peer.session().map(|s| &s.phase) {
            Some(Phase::Live) => {
                if !asynchronous {
                    self.live.remove(node);
                }
                self.commit(node, 0);
            }
            // Its commit will cover everything.
            Some(Phase::Naming { .. }) => {}
            // The commit on its way does not cover what was replied to since: another one does.
            Some(Phase::Committing { sent_bytes, .. } | Phase::Clearing { sent_bytes }) => {
                let sent_bytes = *sent_bytes;
                self.commit(node, sent_bytes);
            }
            Some(Phase::Copying(_)) => {}
            None => peer.missing_since = now,
        }
    }

    /// R7: the peer is out by a confirmed change. It comes back as any other, by resync.
    fn count_out(&mut self, node: NodeId) {
        if self.apart.contains(node) {
            // It goes on following; nothing waits for it any more.
            return;
        }
        self.mark_hot(NodeSet::one(node));
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.lost = true;
            peer.lacks = true;
            if peer.conn().is_some() {
                self.lose(node, wire::event::ReplicaLoss::Closed);
            }
        }
    }

    pub(crate) fn advance_active(&mut self) {
        self.pump_clearing();
        let Some((stage, epoch, required)) = self.active().map(|a| (a.stage, a.epoch, a.required))
        else {
            return;
        };
        match stage {
            Stage::Opening(ticket) if self.superblock.is_durable(ticket) => {
                self.enter(Stage::Reconciling);
                return self.advance_active();
            }
            Stage::Opening(_) => return,
            Stage::Reconciling
                if self.advance_renewal()
                    && (self.live.covers(required.or(self.eligible()))
                        || mutant::on(Mutant::ServeBeforeReconcile)) =>
            {
                self.enter(Stage::Serving);
                self.report(Report::Serving { epoch });
                self.begin_held();
            }
            Stage::Reconciling | Stage::Serving => {}
            Stage::Draining(step) => self.advance_drain(step),
        }
        if !self.is_active() {
            return;
        }
        self.watch_bounds();
        self.dial();
        self.pump_resyncs();
        self.pump_verify();
        self.advance_growing();
        self.make_points();
        self.advance_common();
        self.pump_streams();
        self.admit();
    }

    fn enter(&mut self, stage: Stage) {
        if let Role::Active(active) = &mut self.role {
            active.stage = stage;
        }
    }

    pub(crate) fn on_drain(&mut self) {
        self.closed = true;
        // Requests that never started are answered now: the front end is closed.
        let held = std::mem::take(&mut self.held);
        for request in held {
            self.refuse(request, crate::io::Errno::IO);
        }
        self.enter(Stage::Draining(Drain::Requests));
        self.settle_all();
    }

    fn advance_drain(&mut self, step: Drain) {
        match step {
            Drain::Requests => {
                let answered = self.pending.len() == self.frozen.len();
                if answered && self.advance_renewal() && self.flushes.is_empty() {
                    let id = self.begin_flush(None);
                    self.enter(Stage::Draining(Drain::Flush(id)));
                }
            }
            Drain::Flush(id) => {
                if !self.flushes.contains_key(&id) {
                    self.enter(Stage::Draining(Drain::Forget));
                    self.advance_drain(Drain::Forget);
                }
            }
            Drain::Forget => {
                let idle = self.intent.idle(self.clean);
                let gone: Vec<u32> = idle.into_iter().filter(|r| self.evict(*r)).collect();
                self.announce_cold(&gone);
                let durable = self.intent.is_settled() && self.planes.is_settled();
                if self.intent.is_empty() && durable {
                    self.end_sessions();
                    self.stop();
                    self.settle_down(Some(Report::Drained), None);
                }
            }
        }
    }

    fn end_sessions(&mut self) {
        let header = self.header(Kind::Goodbye, 0);
        let sessions: Vec<_> = self
            .peers
            .values()
            .filter_map(|p| p.session())
            .map(|s| (s.conn, s.session))
            .collect();
        for (conn, session) in sessions {
            let bytes = encode_payload(&Refuse::Closing);
            let payload_len = u32::try_from(bytes.len()).unwrap_or(0);
            let header = Header {
                session,
                payload_len,
                ..header
            };
            self.send(conn, header, Payload::Bytes(bytes));
        }
    }
}
