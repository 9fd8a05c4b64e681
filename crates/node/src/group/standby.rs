//! Settling, following, and becoming active in place of another.

use super::{AfterFence, Around, Group, Out, Pending, Starting, State, Taking};
use cluster::register::RegisterInput;
use mirror::control::Command;
use std::collections::BTreeMap;
use wire::control::Obstacle;
use wire::event::{Act, Because, Phase, Rule, Seen, What};
use wire::layout::ReplicaState;
use wire::mutant::{self, Mutant};
use wire::record::Intent;
use wire::{Duration, Epoch, NodeId, Record, Sync, Time, Version};

impl Group {
    /// Leaves `Settling` once the mirrors are attached and a record is known or may be made.
    pub(super) fn try_settle(&mut self, cx: Around<'_>) {
        let ready = |r: &super::Replica| r.failed || r.attached.is_some();
        if !self.replicas.iter().all(ready) || self.pending.is_some() {
            return;
        }
        if !self.asked_majority && !mutant::on(Mutant::OldRecordTrusted) {
            // R14: the own copy may be as old as the disk; only the newest record tells.
            if self.register.is_idle() {
                self.tell_register(cx, RegisterInput::Read);
            }
            return;
        }
        let Some(record) = self.register.confirmed().cloned() else {
            self.try_bootstrap(cx);
            return;
        };
        self.seen = record.version;
        self.compare_generations(&record);
        self.note_out(cx.now, &record);
        self.change_state(cx.now, State::Standby);
        if record.active != self.me {
            if self.instance_open && !mutant::on(Mutant::InstanceIgnored) {
                let seen = vec![Seen::AtEpoch(record.epoch)];
                self.journal
                    .decide(cx.now, Act::StepDown, Rule::Deposed, seen, Vec::new());
                self.leave(cx);
            } else {
                self.enter_standby(cx, &record);
            }
            return;
        }
        match record.intent {
            Intent::Hold(_) => self.enter_held(cx),
            // R6: whether it was served after the handover, an earlier life may have known.
            Intent::Handover { .. } | Intent::Serve => self.resume(cx),
        }
    }

    /// The first record: only a node whose disks hold the origin may make it, and only as version 1.
    fn try_bootstrap(&mut self, cx: Around<'_>) {
        let origin = |r: &super::Replica| {
            r.attached.is_some_and(|a| a.state == ReplicaState::Origin) && !r.failed
        };
        if self.replicas.is_empty() || !self.replicas.iter().all(origin) {
            return;
        }
        // A restarted grantor supports nobody for a while, itself included (R8).
        if self.lease.takeover_obstacle(cx.now, self.me).is_some() {
            return;
        }
        let me = self.me;
        let generation = self.generation();
        let members: BTreeMap<NodeId, wire::Member> = (self.config.members.iter())
            .map(|&id| {
                let sync = if id == me { Sync::InSync } else { Sync::Out };
                let generation = if id == me {
                    generation
                } else {
                    wire::Generation(0)
                };
                (
                    id,
                    wire::Member {
                        sync,
                        generation,
                        failed: false,
                    },
                )
            })
            .collect();
        let nonce = self.next_nonce();
        let record = Record {
            version: Version(1),
            epoch: Epoch(1),
            active: me,
            members,
            intent: Intent::Serve,
            nonce,
        };
        self.journal.begin(cx.now);
        self.journal.decide(
            cx.now,
            Act::Bootstrap,
            Rule::FirstRecord,
            Vec::new(),
            Vec::new(),
        );
        self.change_state(cx.now, State::Starting(Starting::Barrier { solo: false }));
        self.propose(cx, record, Pending::Bootstrap);
    }

    /// Follows the record's active.
    pub(super) fn enter_standby(&mut self, cx: Around<'_>, record: &Record) {
        self.mates.clear();
        self.growing = None;
        self.sets_sent = None;
        self.change_state(cx.now, State::Standby);
        self.tell_lease(cx.now, Time::ZERO);
        self.give_up_old_disks();
        let mine = record.members.get(&self.me);
        self.tell_mirrors(&Command::Follow {
            epoch: record.epoch,
            active: record.active,
            cut_off: mine.is_some_and(|mine| mine.sync == Sync::CutOff),
        });
    }

    /// R14: what a disk restored from a snapshot holds is worth nothing to a follower; it says so durably, and takes
    /// everything from the active.
    fn give_up_old_disks(&mut self) {
        if !self.replicas.iter().any(|r| r.rolled_back) {
            return;
        }
        self.tell_mirrors(&Command::Distrust { node: self.me });
        for replica in &mut self.replicas {
            replica.rolled_back = false;
            replica.joined = true;
            replica.consistent = false;
        }
    }

    /// A restarted active: confirms its record by a barrier before it answers anything (R6).
    pub(super) fn resume(&mut self, cx: Around<'_>) {
        if let Some(obstacle) = self.unfit_to_serve() {
            self.cannot_resume(cx, obstacle);
            return;
        }
        let Some(record) = self.register.confirmed().cloned() else {
            return;
        };
        self.journal.begin(cx.now);
        let seen = vec![Seen::AtEpoch(record.epoch)];
        self.journal
            .decide(cx.now, Act::Resume, Rule::Barrier, seen, Vec::new());
        self.fence(cx, AfterFence::Barrier);
    }

    /// R6, R14: the barrier carries the generation of this life.
    fn begin_barrier(&mut self, cx: Around<'_>, record: &Record) {
        let solo = record.is_solo() && self.register.unresolved().is_empty();
        self.change_state(cx.now, State::Starting(Starting::Barrier { solo }));
        if mutant::on(Mutant::NoBarrier) {
            self.begin_start(cx);
            return;
        }
        self.propose_barrier(cx, record);
    }

    /// What stands against serving from this node's disks, even though the record names it.
    pub(super) fn unfit_to_serve(&self) -> Option<Obstacle> {
        self.obstacle().filter(|obstacle| {
            matches!(
                obstacle,
                Obstacle::RolledBack
                    | Obstacle::DiskFailed
                    | Obstacle::WrongDisk(_)
                    | Obstacle::Inconsistent
            )
        })
    }

    pub(super) fn propose_barrier(&mut self, cx: Around<'_>, record: &Record) {
        let nonce = self.next_nonce();
        let generation = self.generation();
        let mut next = record.successor(nonce);
        next.intent = Intent::Serve;
        if let Some(mine) = next.members.get_mut(&self.me) {
            mine.generation = generation;
        }
        self.propose(cx, next, Pending::Barrier);
    }

    /// The record names this node, but its disk must not be served: hand over to a replica that may, or stay down.
    fn cannot_resume(&mut self, cx: Around<'_>, obstacle: Obstacle) {
        let Some(record) = self.register.confirmed().cloned() else {
            return;
        };
        let other = record.heirs().into_iter().find(|id| *id != self.me);
        let seen = vec![Seen::OwnObstacle(obstacle)];
        let Some(to) = other else {
            self.journal
                .decide(cx.now, Act::Wait, Rule::DiskFailedHere, seen, Vec::new());
            self.change_state(cx.now, State::Broken);
            return;
        };
        self.journal.decide(
            cx.now,
            Act::HandOver(to),
            Rule::DiskFailedHere,
            seen,
            Vec::new(),
        );
        self.stop_for_disk(cx, to);
    }

    // ---- taking over ------------------------------------------------------------------------------------------

    /// The active is silent: take over if every rule allows it (R3, R8).
    pub(super) fn consider_takeover(&mut self, cx: Around<'_>) {
        let Some(record) = self.register.confirmed().cloned() else {
            return;
        };
        let wanted = matches!(record.intent, Intent::Serve | Intent::Handover { .. });
        let waits = self.pending.is_some() || cx.now < self.retry_at;
        if record.active == self.me || !wanted || waits {
            return;
        }
        if cx.links.is_up(cx.now, record.active) {
            self.journal.abandon();
            return;
        }
        let silent = cx.links.silent(cx.now, record.active);
        if silent < self.timing.suspect {
            return;
        }
        if self.obstacle().is_some() || self.lease_may_run(cx, &record) || !self.majority_heard(cx)
        {
            return;
        }
        // Of several that could, one that holds everything goes ahead, and the first in the configuration's order; the others
        // do if it does not.
        let patience =
            self.timing.suspect.saturating_mul(3) + self.timing.lease + self.timing.margin;
        let mine = record.members.get(&self.me).map(|member| member.sync);
        // One that may lack something waits for as long as another could serve with all of it.
        let patient = silent < patience || mine == Some(Sync::AsyncEligible);
        if patient && self.has_better_heir(cx, &record) {
            return;
        }
        self.begin_takeover(cx, &record, silent);
    }

    /// True if a better member could take over as well.
    fn has_better_heir(&self, cx: Around<'_>, record: &Record) -> bool {
        let better = record.heirs().into_iter().take_while(|id| *id != self.me);
        let mut others = better.filter(|id| *id != record.active);
        others.any(|id| self.is_fit(cx, id))
    }

    /// True if nothing that is known here stands against the node's replicas.
    fn is_fit(&self, cx: Around<'_>, node: NodeId) -> bool {
        let beat = self.peers.get(&node);
        cx.links.is_up(cx.now, node) && beat.is_some_and(|(_, beat)| beat.obstacle.is_none())
    }

    /// True while somebody may still hold a lease that this node, or a node that it hears, granted (R8).
    pub(super) fn lease_may_run(&self, cx: Around<'_>, record: &Record) -> bool {
        let own = self.lease.takeover_obstacle(cx.now, self.me).is_some();
        if own && !mutant::on(Mutant::TakeoverBeforeGrantsEnd) {
            return true;
        }
        self.peers.iter().any(|(node, (at, beat))| {
            cx.links.is_up(cx.now, *node)
                && beat
                    .granted
                    .is_some_and(|(to, left)| to == record.active && cx.now.since(*at) < left)
        })
    }

    pub(super) fn majority_heard(&self, cx: Around<'_>) -> bool {
        let heard = cx.links.hears(cx.now).len() + 1;
        heard * 2 > self.members.len()
    }

    fn begin_takeover(&mut self, cx: Around<'_>, record: &Record, silent: Duration) {
        self.journal.begin(cx.now - silent);
        self.journal.phase(
            cx.now - silent + self.timing.suspect.min(silent),
            Phase::Detect,
        );
        self.journal.phase(cx.now, Phase::Lease);
        let seen = vec![
            Seen::Silent(record.active, silent),
            Seen::AtEpoch(record.epoch),
        ];
        let rejected = vec![(Act::Wait, Because::WouldBlock)];
        let act = Act::TakeOver(record.active);
        self.journal
            .decide(cx.now, act, Rule::PromoteInSync, seen, rejected);
        self.deposed = Some(record.active);
        self.fence(cx, AfterFence::Propose);
    }

    /// The former active gave the group to this node, after it had stopped.
    pub(super) fn take_handover(&mut self, cx: Around<'_>, record: &Record) {
        self.journal.begin(cx.now);
        let seen = vec![Seen::AtEpoch(record.epoch)];
        let act = match record.intent {
            Intent::Handover { from } => Act::TakeHandover(from),
            Intent::Serve | Intent::Hold(_) => Act::Resume,
        };
        self.journal
            .decide(cx.now, act, Rule::Handover, seen, Vec::new());
        self.fence(cx, AfterFence::Start);
    }

    pub(super) fn fence(&mut self, cx: Around<'_>, then: AfterFence) {
        let left = self.all_mirrors();
        self.change_state(cx.now, State::Taking(Taking::Fencing { left, then }));
        if mutant::on(Mutant::PromoteWithoutFence) {
            self.state = State::Taking(Taking::Fencing {
                left: [].into(),
                then,
            });
            return;
        }
        self.tell_mirrors(&Command::Fence);
    }

    pub(super) fn on_fenced(&mut self, mirror: u8) {
        if let Some(replica) = self.replicas.get_mut(usize::from(mirror)) {
            replica.bumped = true;
        }
        if let State::Taking(Taking::Fencing { left, .. }) = &mut self.state {
            left.remove(&mirror);
        }
    }

    pub(super) fn continue_taking(&mut self, cx: Around<'_>) {
        if self.pending == Some(Pending::Force) {
            return self.watch_forced(cx);
        }
        let State::Taking(Taking::Fencing { left, then }) = &self.state else {
            return;
        };
        let (ready, then) = (left.is_empty(), *then);
        let Some(record) = self.register.confirmed().cloned() else {
            return;
        };
        if self.pending.is_some() {
            return;
        }
        if then == AfterFence::Force {
            return self.continue_forced(cx, &record, ready);
        }
        let unfit = self.unfit_to_serve();
        match (then, unfit) {
            (AfterFence::Start | AfterFence::Barrier, Some(obstacle)) => {
                self.cannot_resume(cx, obstacle);
            }
            (AfterFence::Propose | AfterFence::Force, Some(_)) => {
                self.journal.abandon();
                self.enter_standby(cx, &record);
            }
            (_, None) if !ready => {}
            (AfterFence::Start, None) => self.begin_start(cx),
            (AfterFence::Barrier, None) => self.begin_barrier(cx, &record),
            (AfterFence::Propose | AfterFence::Force, None) => self.propose_takeover(cx, &record),
        }
    }

    fn propose_takeover(&mut self, cx: Around<'_>, record: &Record) {
        let alive = cx.links.is_up(cx.now, record.active);
        if alive || self.obstacle().is_some() {
            self.journal.abandon();
            self.enter_standby(cx, record);
            return;
        }
        let nonce = self.next_nonce();
        let (me, generation) = (self.me, self.generation());
        let mut next = record.successor(nonce);
        next.active = me;
        next.intent = Intent::Serve;
        let behind = self.config.are_apart(me, record.active);
        for (id, member) in &mut next.members {
            // R3: the new set is what is reconciled before this node serves (R9): this replica, and others that hold everything
            // acknowledged and are there. The former active comes back by a resync.
            let kept = member.sync == Sync::InSync && *id != record.active && self.is_fit(cx, *id);
            let kept = kept && !self.config.are_apart(me, *id);
            member.sync = if *id == me || kept {
                Sync::InSync
            } else if behind && member.sync.counts() {
                // R11: whoever counted may have what this node lacks.
                Sync::CutOff
            } else {
                member.sync.taken_out()
            };
            if *id == me {
                member.generation = generation;
            }
        }
        self.change_state(cx.now, State::Taking(Taking::Proposing));
        self.propose(cx, next, Pending::TakeOver);
    }

    /// A lease stands against a proposal, or a restarted grantor that does not know the newest record: tried again later.
    pub(super) fn on_refused(&mut self, cx: Around<'_>, holder: NodeId, left: Duration) {
        let seen = vec![Seen::WitnessLease(holder, left)];
        let rejected = vec![(Act::TakeOver(holder), Because::LeaseRunning)];
        self.journal
            .decide(cx.now, Act::Wait, Rule::PromoteInSync, seen, rejected);
        self.retry_later(cx, left.min(self.timing.lease));
    }

    /// What was proposed came to nothing: back to where it may be proposed again.
    pub(super) fn retry_later(&mut self, cx: Around<'_>, after: Duration) {
        self.retry_at = cx.now + after;
        match self.pending.take() {
            Some(Pending::Bootstrap) => self.change_state(cx.now, State::Settling),
            Some(Pending::TakeOver | Pending::Force) => {
                self.journal.abandon();
                if let Some(record) = self.register.confirmed().cloned() {
                    self.enter_standby(cx, &record);
                }
            }
            Some(Pending::HandOver | Pending::Hold) => self.stop_again(),
            // Their reasons last: they are proposed again when the time comes.
            Some(
                Pending::Barrier
                | Pending::Refresh
                | Pending::Shrink
                | Pending::Grow(_)
                | Pending::Unhold,
            )
            | None => {}
        }
    }

    pub(super) fn change_state(&mut self, now: Time, state: State) {
        let from = self.role();
        self.state = state;
        let to = self.role();
        if from != to {
            self.journal.push(now, What::RoleChanged { from, to });
        }
    }

    /// Lowers or raises the end of what gate and device may answer, in this order: device, then gate.
    pub(super) fn tell_lease(&mut self, _now: Time, until: Time) {
        if self.lease_told == until {
            return;
        }
        self.lease_told = until;
        self.tell_mirrors(&Command::Lease { until });
        let gate = if mutant::on(Mutant::GateIgnoresLease) && until != Time::ZERO {
            Time::MAX
        } else {
            until
        };
        self.out.push_back(Out::Lease(gate));
    }
}
