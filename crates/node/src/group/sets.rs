//! Changes of the sets while active: who must hold a write before it is acknowledged (R1, R5, R7, R10).

use super::{Around, Group, Pending, Starting, State};
use mirror::control::{Command, Report};
use std::collections::BTreeSet;
use wire::event::{Act, Because, ReplicaLoss, Rule, Seen, What};
use wire::mutant::{self, Mutant};
use wire::{ByteCount, Epoch, NodeId, Record, Sync};

impl Group {
    /// R1: the in-sync members of the known set, of every unresolved proposed set, and who is about to be proposed.
    pub(super) fn required(&self) -> BTreeSet<NodeId> {
        let mut required = if mutant::on(Mutant::AckKnownSetOnly) {
            self.register
                .confirmed()
                .map(Record::in_sync)
                .unwrap_or_default()
        } else {
            self.register.required()
        };
        if let Some(joiner) = self.growing
            && !mutant::on(Mutant::GrowLate)
        {
            required.insert(joiner);
        }
        if self.config.asynchronous {
            required.retain(|id| *id == self.me);
        }
        required
    }

    pub(super) fn tell_sets(&mut self, record: &Record) {
        let mut required = self.required();
        if mutant::on(Mutant::AckBeforeShrink) {
            required.retain(|id| !self.lost.contains_key(id));
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

    pub(super) fn on_peer_report(&mut self, cx: Around<'_>, report: Report) {
        match report {
            Report::PeerLost { node, why } => {
                self.journal.push(cx.now, What::ReplicaLost { node, why });
                self.synced.remove(&node);
                let ignored = mutant::on(Mutant::StuckPeerKept) && why == ReplicaLoss::Silent;
                if self.is_serving() && !ignored {
                    self.lost.insert(node, why);
                }
                if self.growing == Some(node) && self.pending.is_none() {
                    self.growing = None;
                }
            }
            Report::PeerBack { node, .. } => {
                self.lost.remove(&node);
            }
            Report::PeerSynced {
                node,
                generation,
                sent,
            } => {
                self.journal.push(cx.now, What::ResyncDone { node, sent });
                self.lost.remove(&node);
                self.synced.insert(node, generation);
            }
            Report::ResyncStarted {
                node,
                dirty,
                discarded,
            } => {
                self.lost.remove(&node);
                self.journal
                    .push(cx.now, What::ResyncStarted { node, dirty });
                if discarded != ByteCount(0) {
                    let at_most = discarded;
                    self.journal.push(cx.now, What::Discarded { node, at_most });
                }
            }
            Report::Attached { .. }
            | Report::AttachFailed { .. }
            | Report::Fenced
            | Report::Serving { .. }
            | Report::Following { .. }
            | Report::LocalFailed { .. }
            | Report::Drained
            | Report::Closed => {}
        }
    }

    /// Proposes what the mirrors' reports make necessary, one change at a time.
    pub(super) fn drive_sets(&mut self, cx: Around<'_>) {
        let Some(record) = self.register.confirmed().cloned() else {
            return;
        };
        if self.pending.is_none() {
            let in_sync = record.in_sync();
            let gone: Vec<NodeId> = self
                .lost
                .keys()
                .copied()
                .filter(|id| in_sync.contains(id))
                .collect();
            if gone.is_empty() {
                self.drive_grow(cx, &record);
            } else {
                self.growing = None;
                self.shrink(cx, &record, &gone);
            }
        }
        if let Some(record) = self.register.confirmed().cloned() {
            self.tell_sets(&record);
        }
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
            let why = self.lost.get(node).copied().unwrap_or(ReplicaLoss::Closed);
            let rule = if why == ReplicaLoss::Silent && cx.links.is_up(cx.now, *node) {
                Rule::StuckPeer
            } else {
                Rule::GoSolo
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

    /// R5, R8: a synced replica counts, and a finite lease is held, before the grow is proposed.
    fn drive_grow(&mut self, cx: Around<'_>, record: &Record) {
        let in_sync = record.in_sync();
        self.synced.retain(|id, _| !in_sync.contains(id));
        if matches!(self.state, State::Starting(Starting::Mirrors { .. })) {
            return;
        }
        let Some((&node, &generation)) = self.synced.first_key_value() else {
            self.growing = None;
            return;
        };
        if self.config.asynchronous {
            return;
        }
        if self.growing != Some(node) {
            self.growing = Some(node);
            self.tell_sets(record);
            self.drive_lease(cx);
        }
        let leased = self.lease_until() > cx.now;
        if !leased || !self.all_taken() {
            return;
        }
        let nonce = self.next_nonce();
        let mine = self.generation();
        let mut next = record.successor(nonce);
        next.intent = wire::record::Intent::Serve;
        if let Some(member) = next.members.get_mut(&node) {
            member.sync = Sync::InSync;
            member.generation = generation;
        }
        if let Some(member) = next.members.get_mut(&self.me) {
            member.generation = mine;
        }
        let seen = vec![Seen::AtEpoch(record.epoch)];
        self.journal
            .decide(cx.now, Act::AddReplica(node), Rule::Grow, seen, Vec::new());
        self.synced.remove(&node);
        self.propose(cx, next, Pending::Grow(node));
    }
}
