//! A person promotes a replica that no rule would promote, because the active is gone for good (R17, G4).
//!
//! The person's word that the active is off stands for the fencing that nobody can do. Everything else is asked for as in any
//! takeover: a majority of the register, no lease that may run, a replica that is a point in the history. Who may hold what is
//! lost by it is noted in the record: that is put aside, or held back, when it returns.

use super::{AfterFence, Around, Group, Pending, State, Taking};
use cluster::register::RegisterInput;
use wire::control::{Obstacle, RequestFault};
use wire::event::{Act, Because, Rule, Seen};
use wire::mutant::{self, Mutant};
use wire::record::Intent;
use wire::{Duration, Epoch, NodeId, Record, Sync};

/// How long a person's word holds. The active may be switched on again later, and serve what nobody else then has.
const WORD_HOLDS: Duration = Duration::from_secs(5);

impl Group {
    /// Begins it, or says why not.
    pub(super) fn ask_promote(
        &mut self,
        cx: Around<'_>,
        node: NodeId,
        (off, epoch): (NodeId, Epoch),
    ) -> Result<(), RequestFault> {
        let Some(record) = self.register.confirmed().cloned() else {
            return Err(RequestFault::NoMajority);
        };
        if node != self.me {
            return Err(RequestFault::AskThere(node));
        }
        if record.active == self.me {
            return Err(RequestFault::Already);
        }
        if record.active != off {
            return Err(RequestFault::OtherActive(record.active));
        }
        if record.epoch != epoch {
            return Err(RequestFault::OtherRecord);
        }
        if self.state != State::Standby || self.pending.is_some() {
            return Err(RequestFault::Busy);
        }
        if let Some(fault) = self.fault_to_force(cx, &record) {
            return Err(fault);
        }
        self.begin_forced(cx, &record);
        Ok(())
    }

    fn fault_to_force(&self, cx: Around<'_>, record: &Record) -> Option<RequestFault> {
        let wanted = !matches!(record.intent, Intent::Hold(_));
        let promotable = wanted && self.obstacle().is_none();
        let promotable = promotable.then_some(RequestFault::Promotable(self.me));
        self.fault_while_forcing(cx, record).or(promotable)
    }

    /// What must not be so from the asking to the end.
    fn fault_while_forcing(&self, cx: Around<'_>, record: &Record) -> Option<RequestFault> {
        if self.is_heard_anywhere(cx, record.active) {
            return Some(RequestFault::Alive(record.active));
        }
        if !self.majority_heard(cx) {
            return Some(RequestFault::NoMajority);
        }
        if let Some(obstacle) = self.obstacle_to_force() {
            return Some(RequestFault::Target(self.me, obstacle));
        }
        if let Some(better) = self.better_alive(cx, record) {
            return Some(RequestFault::Better(better));
        }
        let waits = self.lease_may_run(cx, record) || cx.now < self.retry_at;
        waits.then_some(RequestFault::LeaseRunning)
    }

    /// Another member that counts for more by the record, and is alive. If its own replica is what stands against it, it is of no
    /// more use than one that is off.
    fn better_alive(&self, cx: Around<'_>, record: &Record) -> Option<NodeId> {
        let mine = record.members.get(&self.me)?.sync;
        let better = |id: NodeId, sync: Sync| sync.counts() && sync < mine && id != record.active;
        let alive = |id: NodeId| self.is_heard_anywhere(cx, id) && !self.has_bad_replica(id);
        let mut others = record.members.iter().map(|(id, member)| (*id, member.sync));
        let found = others.find(|(id, sync)| better(*id, *sync) && alive(*id));
        found.map(|(id, _)| id)
    }

    /// By the last that the node said of itself.
    fn has_bad_replica(&self, node: NodeId) -> bool {
        let said = self.peers.get(&node).and_then(|(_, beat)| beat.obstacle);
        said.is_some_and(|obstacle| match obstacle {
            Obstacle::Inconsistent
            | Obstacle::DiskFailed
            | Obstacle::RolledBack
            | Obstacle::WrongDisk(_) => true,
            Obstacle::OutOfSync
            | Obstacle::InstanceOpen
            | Obstacle::FailedHere
            | Obstacle::NotAttached
            | Obstacle::AsyncBehind
            | Obstacle::NoVote
            | Obstacle::NoRegister
            | Obstacle::Silent
            | Obstacle::HeldBack(_) => false,
        })
    }

    /// True if this node hears the other, or one does that it hears.
    fn is_heard_anywhere(&self, cx: Around<'_>, node: NodeId) -> bool {
        let heard = cx.links.hears(cx.now);
        let hears = |other: &NodeId| {
            let said = cx.links.heard_by(*other);
            said.is_some_and(|heard| heard.contains(&node))
        };
        heard.contains(&node) || heard.iter().any(hears)
    }

    fn begin_forced(&mut self, cx: Around<'_>, record: &Record) {
        self.journal.begin(cx.now);
        let silent = cx.links.silent(cx.now, record.active);
        let mut seen = vec![
            Seen::Silent(record.active, silent),
            Seen::AtEpoch(record.epoch),
        ];
        seen.extend(self.obstacle().map(Seen::OwnObstacle));
        let rejected = vec![(Act::Wait, Because::WouldBlock)];
        let act = Act::TakeOver(record.active);
        self.journal
            .decide(cx.now, act, Rule::Forced, seen, rejected);
        // What it has may have been acknowledged.
        self.deposed = None;
        self.forced_until = cx.now + WORD_HOLDS;
        self.fence(cx, AfterFence::Force);
    }

    /// Nothing of the old epoch is under way here any more, if `ready`.
    pub(super) fn continue_forced(&mut self, cx: Around<'_>, record: &Record, ready: bool) {
        if self.word_is_over(cx, record) {
            self.give_up_forced(cx, record);
        } else if ready {
            self.propose_forced(cx, record);
        }
    }

    /// It is proposed, and not decided.
    pub(super) fn watch_forced(&mut self, cx: Around<'_>) {
        let Some(record) = self.register.confirmed().cloned() else {
            return;
        };
        if self.word_is_over(cx, &record) {
            self.register.give_up();
            self.pending = None;
            // What was not sent yet is withdrawn on the disk, too.
            self.tell_register(cx, RegisterInput::Wake);
            self.give_up_forced(cx, &record);
        }
    }

    fn word_is_over(&self, cx: Around<'_>, record: &Record) -> bool {
        cx.now >= self.forced_until || self.fault_while_forcing(cx, record).is_some()
    }

    /// Follows again. What a voter accepted already can still be decided: it stays unresolved, and nobody gets a lease from here
    /// until that is known (R8).
    fn give_up_forced(&mut self, cx: Around<'_>, record: &Record) {
        let fault = self.fault_while_forcing(cx, record);
        let because = if let Some(RequestFault::Target(_, obstacle)) = fault {
            Because::NotPromotable(obstacle)
        } else if fault == Some(RequestFault::LeaseRunning) {
            Because::LeaseRunning
        } else if fault == Some(RequestFault::Alive(record.active)) {
            Because::WouldLose
        } else {
            Because::NoMajority
        };
        let silent = cx.links.silent(cx.now, record.active);
        let seen = vec![
            Seen::Silent(record.active, silent),
            Seen::AtEpoch(record.epoch),
        ];
        let rejected = vec![(Act::TakeOver(record.active), because)];
        self.journal
            .decide(cx.now, Act::Wait, Rule::Forced, seen, rejected);
        self.journal.abandon();
        let open = self.takeover_unresolved();
        self.lease
            .block_grants(open && !mutant::on(Mutant::GrantWhileTaking));
        self.enter_standby(cx, record);
    }

    /// R3: the new set is this replica alone. Any other may hold what it has not: who counted last, this node may never have been
    /// told.
    fn propose_forced(&mut self, cx: Around<'_>, record: &Record) {
        let nonce = self.next_nonce();
        let (me, generation) = (self.me, self.generation());
        let mut next = record.successor(nonce);
        next.active = me;
        next.intent = Intent::Serve;
        for (id, member) in &mut next.members {
            member.sync = if *id == me {
                Sync::InSync
            } else if mutant::on(Mutant::ForcedForgets) {
                member.sync.taken_out()
            } else {
                Sync::CutOff
            };
        }
        if let Some(mine) = next.members.get_mut(&me) {
            mine.generation = generation;
            mine.failed = false;
        }
        self.change_state(cx.now, State::Taking(Taking::Proposing));
        self.propose(cx, next, Pending::Force);
    }
}
