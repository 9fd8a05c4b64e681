//! Changes of the sets while active: who must hold a write before it is acknowledged (R1, R5, R7, R10).

use super::{Around, Group, Pending, Starting, State};
use mirror::control::{Command, Report};
use std::collections::{BTreeMap, BTreeSet};
use wire::event::{Act, Because, Found, ReplicaLoss, Rule, Seen, What};
use wire::mutant::{self, Mutant};
use wire::{ByteCount, Epoch, Generation, NodeId, Record, Sync};

/// What the active's mirrors say of one other node's replicas, by the mirror's index (R13: in sync means all of them).
#[derive(Debug, Default)]
pub(crate) struct Mate {
    /// Mirrors that lost it, and did not get it back.
    lost: BTreeMap<u8, ReplicaLoss>,
    /// Mirrors whose replica committed a resync: it may be counted.
    synced: BTreeMap<u8, Generation>,
    /// Its generation, by the mirror that got it back last.
    back: Option<Generation>,
    /// Mirrors that count it since the sets that contain it were told: it holds everything that was ever acknowledged.
    counted: BTreeSet<u8>,
}

impl Mate {
    /// Why it is lost, if it is.
    pub(crate) fn lost(&self) -> Option<ReplicaLoss> {
        self.lost.values().next().copied()
    }

    /// True if every mirror has it and nobody counts it yet.
    fn is_synced(&self, mirrors: u8) -> bool {
        let needed = if mutant::on(Mutant::AnyMirrorInSync) {
            1
        } else {
            usize::from(mirrors)
        };
        self.synced.len() >= needed
    }

    fn is_counted(&self, mirrors: u8) -> bool {
        let needed = if mutant::on(Mutant::AnyMirrorInSync) {
            1
        } else {
            usize::from(mirrors)
        };
        self.counted.len() >= needed
    }

    fn generation(&self) -> Generation {
        self.synced.values().copied().min().unwrap_or_default()
    }
}

impl Group {
    /// R1: the promotable members of the known set, of every unresolved proposed set, and who is about to be proposed.
    pub(super) fn required(&self) -> BTreeSet<NodeId> {
        // R11: an eligible member counts as one in sync does; what that means for a reply is the mirror's.
        let mut required = if mutant::on(Mutant::AckKnownSetOnly) {
            self.register
                .confirmed()
                .map(Record::promotable)
                .unwrap_or_default()
        } else {
            self.register.could_be_promoted()
        };
        if let Some(joiner) = self.growing
            && !mutant::on(Mutant::GrowLate)
            && !(mutant::on(Mutant::AckKnownSetOnly) && self.pending.is_some())
        {
            required.insert(joiner);
        }
        required
    }

    pub(super) fn tell_sets(&mut self, record: &Record) {
        let mut required = self.required();
        if mutant::on(Mutant::AckBeforeShrink) {
            required.retain(|id| !self.is_lost(*id));
        }
        let sets: (Epoch, BTreeSet<NodeId>) = (record.epoch, required);
        if self.sets_sent.as_ref() == Some(&sets) {
            return;
        }
        self.sets_sent = Some(sets.clone());
        self.tell_mirrors(&Command::Sets {
            epoch: sets.0,
            required: sets.1,
        });
    }

    /// True if a mirror lost the node's replica.
    pub(super) fn is_lost(&self, node: NodeId) -> bool {
        self.mates
            .get(&node)
            .is_some_and(|mate| mate.lost().is_some())
    }

    /// True if all of the node's replicas hold everything.
    pub(super) fn is_counted(&self, node: NodeId) -> bool {
        let mate = self.mates.get(&node);
        mate.is_some_and(|mate| mate.is_counted(self.config.mirrors))
    }

    /// The node's replicas count as lost from here on.
    pub(super) fn lose(&mut self, node: NodeId, why: ReplicaLoss) {
        let mate = self.mates.entry(node).or_default();
        for mirror in 0..self.config.mirrors {
            mate.lost.entry(mirror).or_insert(why);
        }
    }

    pub(super) fn on_peer_report(&mut self, cx: Around<'_>, mirror: u8, report: Report) {
        match report {
            Report::PeerLost { node, why } => self.on_peer_lost(cx, mirror, node, why),
            Report::PeerBehind { node, .. } => {
                self.on_peer_lost(cx, mirror, node, ReplicaLoss::Behind);
            }
            Report::PeerWithin { node, generation } => {
                let mate = self.mates.entry(node).or_default();
                mate.lost.remove(&mirror);
                mate.synced.insert(mirror, generation);
            }
            Report::PeerBack { node, generation } => {
                let mate = self.mates.entry(node).or_default();
                mate.lost.remove(&mirror);
                mate.back = Some(generation);
                mate.counted.insert(mirror);
            }
            Report::PeerSynced {
                node,
                generation,
                sent,
            } => {
                self.journal.push(cx.now, What::ResyncDone { node, sent });
                let mate = self.mates.entry(node).or_default();
                mate.lost.remove(&mirror);
                mate.synced.insert(mirror, generation);
            }
            Report::ResyncStarted {
                node,
                dirty,
                discarded,
            } => {
                self.mates.entry(node).or_default().lost.remove(&mirror);
                self.journal
                    .push(cx.now, What::ResyncStarted { node, dirty });
                if discarded != ByteCount(0) && self.deposed.take() == Some(node) {
                    let at_most = discarded;
                    self.journal.push(cx.now, What::Discarded { node, at_most });
                }
            }
            Report::Verified { node, result } => {
                let found = Found {
                    checked: result.checked,
                    different: result.different,
                    unreadable: result.unreadable,
                    repaired: result.repaired,
                };
                let what = What::Verified {
                    mirror,
                    node,
                    found,
                };
                self.journal.push(cx.now, what);
            }
            Report::Attached { .. }
            | Report::UndoLost { .. }
            | Report::Unreadable { .. }
            | Report::AttachFailed { .. }
            | Report::Fenced
            | Report::Serving { .. }
            | Report::Following { .. }
            | Report::PutAside { .. }
            | Report::HeldBack { .. }
            | Report::LetGo(_)
            | Report::CannotFollow { .. }
            | Report::LocalFailed { .. }
            | Report::Grown { .. }
            | Report::NotGrown { .. }
            | Report::Drained
            | Report::Closed => {}
        }
    }

    fn on_peer_lost(&mut self, cx: Around<'_>, mirror: u8, node: NodeId, why: ReplicaLoss) {
        self.journal.push(cx.now, What::ReplicaLost { node, why });
        let ignored = mutant::on(Mutant::StuckPeerKept) && why == ReplicaLoss::Silent;
        let serving = self.is_serving() || self.ends_in_order().is_some();
        let mate = self.mates.entry(node).or_default();
        mate.synced.remove(&mirror);
        mate.counted.remove(&mirror);
        if serving && !ignored {
            mate.lost.insert(mirror, why);
        }
        if self.growing == Some(node) && self.pending.is_none() {
            self.growing = None;
        }
    }

    /// Proposes what the mirrors' reports make necessary, one change at a time.
    pub(super) fn drive_sets(&mut self, cx: Around<'_>) {
        let Some(record) = self.register.confirmed().cloned() else {
            return;
        };
        if self.pending.is_none() && cx.now >= self.retry_at {
            let counted = record.promotable();
            let gone: Vec<NodeId> = counted.into_iter().filter(|id| self.is_lost(*id)).collect();
            if gone.is_empty() {
                self.drive_grow(cx, &record);
                self.refresh(cx, &record);
            } else {
                self.growing = None;
                self.shrink(cx, &record, &gone);
            }
        }
        if let Some(record) = self.register.confirmed().cloned() {
            self.tell_sets(&record);
        }
    }

    /// While the group ends in order, whoever goes is taken out as while it serves, or the end would wait for it; but not the one
    /// that it ends for.
    pub(super) fn shed(&mut self, cx: Around<'_>, heir: Option<NodeId>) {
        let Some(record) = self.register.confirmed().cloned() else {
            return;
        };
        if self.pending.is_none() && cx.now >= self.retry_at {
            let mut gone: Vec<NodeId> = record.promotable().into_iter().collect();
            gone.retain(|id| self.is_lost(*id) && Some(*id) != heir);
            if !gone.is_empty() {
                self.growing = None;
                self.shrink(cx, &record, &gone);
            }
        }
        if let Some(record) = self.register.confirmed().cloned() {
            self.tell_sets(&record);
        }
    }

    /// R14: a replica that attached anew and counts is recorded with its new generation.
    fn refresh(&mut self, cx: Around<'_>, record: &Record) {
        let mut next = record.clone();
        for (id, member) in &mut next.members {
            let now = if *id == self.me {
                Some(self.generation())
            } else {
                self.mates.get(id).and_then(|mate| mate.back)
            };
            if let Some(now) = now.filter(|_| member.sync.counts()) {
                member.generation = member.generation.max(now);
            }
        }
        if self.pending.is_some() || self.growing.is_some() || next.members == record.members {
            return;
        }
        let nonce = self.next_nonce();
        let mut next = next.successor(nonce);
        next.intent = wire::record::Intent::Serve;
        self.propose(cx, next, Pending::Refresh);
    }

    /// R7: the standby is gone: it is taken out before anything is acknowledged alone.
    fn shrink(&mut self, cx: Around<'_>, record: &Record, gone: &[NodeId]) {
        let nonce = self.next_nonce();
        let generation = self.generation();
        let mut next = record.successor(nonce);
        next.intent = wire::record::Intent::Serve;
        for (id, member) in &mut next.members {
            if gone.contains(id) {
                member.sync = Sync::Out;
            }
            if *id == self.me {
                member.generation = generation;
            }
        }
        for node in gone {
            if let Some(mate) = self.mates.get_mut(node) {
                mate.synced.clear();
                mate.counted.clear();
            }
            let why = self
                .mates
                .get(node)
                .and_then(Mate::lost)
                .unwrap_or(ReplicaLoss::Closed);
            let rule = match why {
                ReplicaLoss::Behind => Rule::BeyondBound,
                ReplicaLoss::Silent if cx.links.is_up(cx.now, *node) => Rule::StuckPeer,
                ReplicaLoss::Silent
                | ReplicaLoss::Closed
                | ReplicaLoss::DiskFailed
                | ReplicaLoss::Protocol
                | ReplicaLoss::Refused => Rule::GoSolo,
            };
            let seen = vec![
                Seen::ReplicaLost(*node, why),
                Seen::Heard(*node, cx.links.silent(cx.now, *node)),
            ];
            let rejected = vec![(Act::Wait, Because::WouldBlock)];
            self.journal
                .decide(cx.now, Act::DropReplica(*node), rule, seen, rejected);
        }
        self.propose(cx, next, Pending::Shrink);
    }

    /// R5, R8: before the grow is proposed the joiner counts for every acknowledgement, holds everything that was
    /// acknowledged before it did, and a finite lease is held.
    fn drive_grow(&mut self, cx: Around<'_>, record: &Record) {
        let mirrors = self.config.mirrors;
        if matches!(self.state, State::Starting(Starting::Mirrors { .. })) {
            return;
        }
        let counted = record.promotable();
        let ready = |id: &NodeId, mate: &Mate| !counted.contains(id) && mate.is_synced(mirrors);
        let joiner = self
            .mates
            .iter()
            .find(|(id, mate)| ready(id, mate))
            .map(|(id, _)| *id);
        let Some(node) = joiner else {
            self.growing = None;
            return;
        };
        if self.growing != Some(node) {
            self.growing = Some(node);
            if let Some(mate) = self.mates.get_mut(&node) {
                mate.counted.clear();
            }
            self.tell_sets(record);
            self.drive_lease(cx);
        }
        let Some(mate) = self.mates.get(&node) else {
            return;
        };
        let counted = mate.is_counted(mirrors) || mutant::on(Mutant::GrowLate);
        let generation = mate.generation();
        if !counted || self.lease_until() <= cx.now || !self.all_taken() {
            return;
        }
        let next = self.grown(record, node, generation);
        let seen = vec![Seen::AtEpoch(record.epoch)];
        self.journal
            .decide(cx.now, Act::AddReplica(node), Rule::Grow, seen, Vec::new());
        self.propose(cx, next, Pending::Grow(node));
    }

    fn grown(&mut self, record: &Record, node: NodeId, generation: Generation) -> Record {
        let nonce = self.next_nonce();
        let mine = self.generation();
        let mut next = record.successor(nonce);
        next.intent = wire::record::Intent::Serve;
        let apart = self.config.are_apart(self.me, node);
        if let Some(member) = next.members.get_mut(&node) {
            member.sync = match apart {
                true => Sync::AsyncEligible,
                false => Sync::InSync,
            };
            member.generation = generation;
        }
        if let Some(member) = next.members.get_mut(&self.me) {
            member.generation = mine;
        }
        next
    }
}
