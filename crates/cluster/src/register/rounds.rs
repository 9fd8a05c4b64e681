//! The proposer at work: goals, rounds, retries.

use super::{MALFORMED, NOT_OURS, Outcome, Register, SKIPPED, TOO_MANY, UNRESOLVED_MAX};
use crate::acceptor;
use crate::lease::Lease;
use crate::proposer::{self, Attempt, Goal, Next, Phase, Prospect, Refusals};
use std::collections::{BTreeMap, BTreeSet};
use wire::control::{Message, Purpose, Refusal};
use wire::mutant::{self, Mutant};
use wire::record::Intent;
use wire::{Ballot, NodeId, Nonce, Record, Time};

/// Nothing decided for so many retries: no majority answers.
const PATIENCE_RETRIES: u32 = 3;
/// The back-off grows with up to so many failures in a row.
const BACK_OFF_DOUBLINGS_MAX: u32 = 4;

const NO_BALLOT: &str = "no higher ballot is left";

impl Register {
    pub(super) fn on_propose(
        &mut self,
        now: Time,
        record: Record,
        purpose: Purpose,
        lease: &Lease,
    ) {
        if self.proposal() == Some(&record) {
            return;
        }
        self.read_wanted |= matches!(
            &self.attempt,
            Some(Attempt {
                goal: Goal::Read,
                ..
            })
        );
        self.drop_attempt();
        if let Some(objection) = self.objection(now, &record, lease) {
            self.tell(objection);
            self.follow_up(now);
            return;
        }
        // The active that hands over stopped already, and it says so only in the record: no lease is asked at the prepare.
        let purpose = match record.intent {
            Intent::Handover { .. } => Purpose::Keep,
            Intent::Serve | Intent::Hold(_) => purpose,
        };
        let sent = self.open(&record);
        let goal = Goal::Change {
            record: record.clone(),
            purpose,
        };
        self.begin(now, goal, sent);
        if self.must_surrender(now, &record, lease) {
            self.surrender_first(now, record);
        } else {
            self.start_round(now);
        }
    }

    pub(super) fn on_read(&mut self, now: Time) {
        if !self.config.voting {
            self.tell(Outcome::NoMajority);
            return;
        }
        self.read_wanted = true;
        if self.is_idle() {
            self.follow_up(now);
        }
    }

    /// Timers.
    pub(super) fn tick(&mut self, now: Time, lease: &Lease) {
        match &mut self.phase {
            Phase::Preparing {
                resend_at,
                refusals,
                ..
            }
            | Phase::Accepting {
                resend_at,
                refusals,
                ..
            } => {
                let retry = *resend_at <= now;
                let freed = refusals.first_end().is_some_and(|end| end <= now);
                refusals.expire(now);
                if retry {
                    *resend_at = now + self.config.retry;
                    self.on_late(now);
                } else if freed {
                    self.resend();
                }
            }
            Phase::Waiting { until } if *until <= now => self.start_round(now),
            Phase::Surrendering { .. } if lease.held(now).is_none() => self.start_round(now),
            Phase::Surrendering { recheck_at, .. } => {
                *recheck_at = (*recheck_at).max(now + self.config.retry);
            }
            Phase::Idle | Phase::Waiting { .. } => {}
        }
        if let Some(attempt) = &mut self.attempt
            && attempt.patience.is_some_and(|until| until <= now)
        {
            attempt.patience = None;
            if mutant::on(Mutant::UnchangedResolves)
                && let Some(known) = self.durable.confirmed.clone()
            {
                self.durable.unresolved.clear();
                self.attempt = None;
                self.phase = Phase::Idle;
                self.tell(Outcome::Superseded(known));
                return;
            }
            self.tell(Outcome::NoMajority);
        }
    }

    pub(super) fn on_promise(
        &mut self,
        now: Time,
        from: NodeId,
        ballot: Ballot,
        accepted: Option<(Ballot, Record)>,
        lease: &mut Lease,
    ) {
        let members = &self.config.members;
        let Phase::Preparing {
            ballot: current,
            base,
            promises,
            refusals,
            ..
        } = &mut self.phase
        else {
            return;
        };
        if *current != ballot || !members.contains(&from) {
            return;
        }
        refusals.forget(from);
        promises.insert(from, accepted);
        let majority = crate::majority(members.len());
        if promises.len() < majority {
            return;
        }
        let Some(attempt) = &self.attempt else {
            return;
        };
        match proposer::next(&attempt.goal, base.as_ref(), promises, majority) {
            Next::Empty => self.end(now, Outcome::Read(None)),
            Next::Decided(record) => self.finish(now, record, lease),
            Next::Write(record) => self.write(now, ballot, record, lease),
            Next::Alarm(what) => self.on_doubt(now, what),
        }
    }

    pub(super) fn on_accepted(
        &mut self,
        now: Time,
        from: NodeId,
        ballot: Ballot,
        lease: &mut Lease,
    ) {
        let members = &self.config.members;
        let Phase::Accepting {
            ballot: current,
            value,
            accepted,
            refusals,
            ..
        } = &mut self.phase
        else {
            return;
        };
        if *current != ballot || !members.contains(&from) {
            return;
        }
        refusals.forget(from);
        accepted.insert(from);
        if accepted.len() < crate::majority(members.len()) {
            return;
        }
        let record = value.clone();
        self.gossip(&record);
        self.finish(now, record, lease);
    }

    pub(super) fn on_refused(&mut self, now: Time, from: NodeId, ballot: Ballot, why: Refusal) {
        if !self.config.members.contains(&from) {
            return;
        }
        if let Refusal::Ballot(promised) = why {
            self.round = self.round.max(promised.round);
        }
        match &mut self.phase {
            Phase::Preparing {
                ballot: current,
                promises,
                refusals,
                ..
            } if *current == ballot && !promises.contains_key(&from) => {
                refusals.add(now, from, why);
            }
            Phase::Accepting {
                ballot: current,
                accepted,
                refusals,
                ..
            } if *current == ballot && !accepted.contains(&from) => {
                refusals.add(now, from, why);
            }
            Phase::Idle
            | Phase::Preparing { .. }
            | Phase::Accepting { .. }
            | Phase::Waiting { .. }
            | Phase::Surrendering { .. } => return,
        }
        self.follow_prospect(now, false);
    }

    /// Drops the attempt. A proposal that cannot have been sent is withdrawn; any other stays unresolved (R2).
    pub(super) fn drop_attempt(&mut self) {
        self.phase = Phase::Idle;
        let Some(Attempt {
            goal: Goal::Change { record, .. },
            sent: false,
            ..
        }) = self.attempt.take()
        else {
            return;
        };
        self.durable
            .unresolved
            .retain(|open| open.nonce != record.nonce);
        self.dirty = true;
    }

    /// Starts the read that was asked for meanwhile.
    pub(super) fn follow_up(&mut self, now: Time) {
        if self.read_wanted {
            self.read_wanted = false;
            self.begin(now, Goal::Read, false);
            self.start_round(now);
        }
    }

    /// Why a proposal is not even begun.
    fn objection(&self, now: Time, record: &Record, lease: &Lease) -> Option<Outcome> {
        let me = self.config.me;
        if !self.config.voting {
            return Some(Outcome::NoMajority);
        }
        if record.fault().is_some() {
            return Some(Outcome::Alarm(MALFORMED));
        }
        if let Some(known) = self
            .confirmed()
            .filter(|known| known.version >= record.version)
        {
            let known = known.clone();
            let won = known == *record;
            return Some(if won {
                Outcome::Won(known)
            } else {
                Outcome::Superseded(known)
            });
        }
        if record.version != self.confirmed_version().next() {
            return Some(Outcome::Alarm(SKIPPED));
        }
        let active = self.confirmed().map(|known| known.active);
        let hands_over = record.intent == Intent::Handover { from: me };
        if record.active != me && active.is_some_and(|known| known != record.active) && !hands_over
        {
            return Some(Outcome::Alarm(NOT_OURS));
        }
        let is_open = |open: &Record| same_but_nonce(open, record);
        let open = &self.durable.unresolved;
        if open.len() >= UNRESOLVED_MAX && !open.iter().any(is_open) {
            return Some(Outcome::Alarm(TOO_MANY));
        }
        let takes_over = record.active == me && active != Some(me);
        let obstacle = takes_over
            .then(|| lease.obstacle_to(now, me, record))
            .flatten();
        obstacle.map(|(holder, left)| Outcome::Leased { holder, left })
    }

    /// Notes the proposal as unresolved. True if it, or one that differs only in its nonce, may have been sent before: they
    /// stand for each other, since only content and version matter to R1, R2 and R8.
    fn open(&mut self, record: &Record) -> bool {
        let open = &mut self.durable.unresolved;
        let before = open.len();
        open.retain(|other| !same_but_nonce(other, record));
        let sent = open.len() < before;
        open.push(record.clone());
        self.dirty = true;
        sent
    }

    fn begin(&mut self, now: Time, goal: Goal, sent: bool) {
        let patience = Some(now + self.config.retry.saturating_mul(PATIENCE_RETRIES));
        self.attempt = Some(Attempt {
            goal,
            sent,
            patience,
            failures: 0,
            doubt: false,
        });
    }

    fn must_surrender(&self, now: Time, record: &Record, lease: &Lease) -> bool {
        record.active != self.config.me && lease.held(now).is_some()
    }

    fn surrender_first(&mut self, now: Time, record: Record) {
        self.phase = Phase::Surrendering {
            record: record.clone(),
            recheck_at: now + self.config.retry,
        };
        self.tell(Outcome::Contested(record));
    }

    fn start_round(&mut self, now: Time) {
        let purpose = self.purpose();
        let promised = self
            .durable
            .acceptor
            .promised
            .map_or(0, |ballot| ballot.round);
        let Some(round) = self.round.max(promised).checked_add(1) else {
            self.end(now, Outcome::Alarm(NO_BALLOT));
            return;
        };
        self.round = round;
        let ballot = Ballot {
            round: self.round,
            node: self.config.me,
        };
        acceptor::reserve(&mut self.durable.acceptor, ballot);
        self.dirty = true;
        self.phase = Phase::Preparing {
            ballot,
            base: self.durable.confirmed.clone(),
            promises: BTreeMap::new(),
            refusals: Refusals::default(),
            resend_at: now + self.config.retry,
        };
        let group = self.config.group;
        for to in self.config.members.clone() {
            self.send(
                to,
                Message::Prepare {
                    group,
                    ballot,
                    purpose,
                },
            );
        }
    }

    /// Phase 2, with the own proposal or with what must be completed.
    fn write(&mut self, now: Time, ballot: Ballot, value: Record, lease: &Lease) {
        if self.must_surrender(now, &value, lease) {
            self.surrender_first(now, value);
            return;
        }
        if self
            .proposal()
            .is_some_and(|mine| mine.nonce == value.nonce)
            && let Some(attempt) = &mut self.attempt
        {
            attempt.sent = true;
        } else {
            // To complete another's proposal is to propose it: it counts as unresolved here too (R1, R2, R8).
            self.open(&value);
        }
        self.phase = Phase::Accepting {
            ballot,
            value: value.clone(),
            accepted: BTreeSet::new(),
            refusals: Refusals::default(),
            gate: self.gate(),
            resend_at: now + self.config.retry,
        };
        let (group, me) = (self.config.group, self.config.me);
        for to in self.config.members.clone() {
            let record = value.clone();
            let accept = Message::Accept {
                group,
                ballot,
                record,
            };
            // The own acceptor writes the same file: its reply waits for both.
            if to == me || mutant::on(Mutant::ProposalNotDurable) {
                self.send(to, accept)
            } else {
                self.send_durable(to, accept)
            }
        }
    }

    /// The retry time passed without a majority.
    fn on_late(&mut self, now: Time) {
        if self.follow_prospect(now, true) == Prospect::Open {
            self.resend();
        }
    }

    fn follow_prospect(&mut self, now: Time, late: bool) -> Prospect {
        let members = self.config.members.len();
        let prospect = match &self.phase {
            Phase::Preparing {
                promises, refusals, ..
            } => refusals.prospect(now, promises.len(), members, late),
            Phase::Accepting {
                accepted, refusals, ..
            } => refusals.prospect(now, accepted.len(), members, late),
            Phase::Idle | Phase::Waiting { .. } | Phase::Surrendering { .. } => Prospect::Open,
        };
        match prospect {
            Prospect::Open => {}
            Prospect::Outvoted => self.back_off(now),
            Prospect::Leased(holder, left) if self.writes_own() => {
                self.end(now, Outcome::Leased { holder, left });
            }
            Prospect::Leased(_, left) => self.phase = Phase::Waiting { until: now + left },
        }
        prospect
    }

    /// True if the round is about the own proposal, not about completing another's.
    fn writes_own(&self) -> bool {
        let Some(mine) = self.proposal() else {
            return false;
        };
        match &self.phase {
            Phase::Accepting { value, .. } => value.nonce == mine.nonce,
            Phase::Idle
            | Phase::Preparing { .. }
            | Phase::Waiting { .. }
            | Phase::Surrendering { .. } => true,
        }
    }

    fn on_doubt(&mut self, now: Time, what: &'static str) {
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        if std::mem::replace(&mut attempt.doubt, true) {
            self.end(now, Outcome::Alarm(what));
        } else {
            self.back_off(now);
        }
    }

    fn back_off(&mut self, now: Time) {
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        attempt.failures = attempt.failures.saturating_add(1);
        let doublings = attempt.failures.min(BACK_OFF_DOUBLINGS_MAX);
        let spread = (self.config.retry / 4).saturating_mul(2_u32.pow(doublings));
        let until = now + self.config.retry / 16 + self.chance.below(spread);
        self.phase = Phase::Waiting { until };
    }

    /// The same ballot again, to those who did not answer.
    fn resend(&mut self) {
        let group = self.config.group;
        let (answered, message): (BTreeSet<NodeId>, Message) = match &self.phase {
            Phase::Preparing {
                ballot, promises, ..
            } => {
                let purpose = self.purpose();
                let prepare = Message::Prepare {
                    group,
                    ballot: *ballot,
                    purpose,
                };
                (promises.keys().copied().collect(), prepare)
            }
            Phase::Accepting {
                ballot,
                value,
                accepted,
                gate,
                ..
            } if *gate <= self.persisted => {
                let record = value.clone();
                let accept = Message::Accept {
                    group,
                    ballot: *ballot,
                    record,
                };
                (accepted.clone(), accept)
            }
            Phase::Idle
            | Phase::Accepting { .. }
            | Phase::Waiting { .. }
            | Phase::Surrendering { .. } => return,
        };
        let me = self.config.me;
        for to in self.config.members.clone() {
            if to != me && !answered.contains(&to) {
                self.send(to, message.clone());
            }
        }
    }

    fn purpose(&self) -> Purpose {
        match self.attempt.as_ref().map(|attempt| &attempt.goal) {
            Some(Goal::Change { purpose, .. }) => *purpose,
            Some(Goal::Read) | None => Purpose::Keep,
        }
    }

    /// A record is decided, by a round of this life.
    fn finish(&mut self, now: Time, record: Record, lease: &mut Lease) {
        let me = self.config.me;
        let was_active = self.confirmed().is_some_and(|known| known.active == me);
        self.confirm(&record, lease);
        let outcome = match self.proposal() {
            Some(mine) if *mine == record => {
                self.barrier_needed = false;
                if was_active && record.active == me {
                    lease.end_restart_wait();
                }
                Outcome::Won(record)
            }
            Some(_) => Outcome::Superseded(record),
            None => Outcome::Read(self.durable.confirmed.clone()),
        };
        self.end(now, outcome);
    }

    fn end(&mut self, now: Time, outcome: Outcome) {
        self.drop_attempt();
        self.tell(outcome);
        self.follow_up(now);
    }

    fn gossip(&mut self, record: &Record) {
        let (group, me) = (self.config.group, self.config.me);
        let everyone: BTreeSet<NodeId> = self
            .config
            .members
            .iter()
            .chain(record.members.keys())
            .copied()
            .collect();
        for to in everyone.into_iter().filter(|to| *to != me) {
            let record = record.clone();
            self.send(to, Message::Decided { group, record });
        }
    }
}

fn same_but_nonce(one: &Record, other: &Record) -> bool {
    let nonce: Nonce = other.nonce;
    Record {
        nonce,
        ..one.clone()
    } == *other
}
