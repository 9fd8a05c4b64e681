//! The register's side: proposing a change, and acting upon what was decided.

use super::{Around, Group, Out, Pending, Starting, State, Stopping, Taking};
use cluster::register::{Outcome, RegisterInput, RegisterOutput};
use wire::control::Purpose;
use wire::event::{Act, Rule, Seen, What};
use wire::mutant::{self, Mutant};
use wire::record::Intent;
use wire::{Record, Time};

impl Group {
    pub(super) fn tell_register(&mut self, cx: Around<'_>, input: RegisterInput) {
        self.register.handle(cx.now, input, &mut self.lease);
        while let Some(output) = self.register.poll() {
            match output {
                RegisterOutput::Send { to, message } => self.out.push_back(Out::Send(to, message)),
                RegisterOutput::Persist(ticket) => self.out.push_back(Out::Persist(ticket)),
                RegisterOutput::Outcome(outcome) => self.on_outcome(cx, outcome),
            }
        }
    }

    pub(super) fn propose(&mut self, cx: Around<'_>, record: Record, pending: Pending) {
        assert!(self.pending.is_none(), "one proposal at a time");
        self.pending = Some(pending);
        // The proposal holds the generation of this life.
        for replica in &mut self.replicas {
            replica.joined = true;
        }
        let purpose = match pending {
            Pending::TakeOver | Pending::Force => Purpose::Takeover,
            Pending::Bootstrap
            | Pending::Barrier
            | Pending::Refresh
            | Pending::Shrink
            | Pending::Grow(_)
            | Pending::HandOver
            | Pending::Hold
            | Pending::Unhold => Purpose::Keep,
        };
        let blocked = pending.takes_over() && !mutant::on(Mutant::GrantWhileTaking);
        self.lease.block_grants(blocked);
        self.tell_register(cx, RegisterInput::Propose { record, purpose });
    }

    pub(super) fn on_outcome(&mut self, cx: Around<'_>, outcome: Outcome) {
        match outcome {
            Outcome::Won(_) | Outcome::Superseded(_) => {
                self.no_majority = false;
                self.pending = None;
                self.growing = None;
                self.on_confirmed(cx);
            }
            Outcome::Learned(_) => self.on_confirmed(cx),
            Outcome::Leased { holder, left } => self.on_refused(cx, holder, left),
            Outcome::Contested(_) => {
                self.lease.surrender(cx.now);
                self.tell_lease(cx.now, Time::ZERO);
            }
            Outcome::NoMajority => {
                self.no_majority = true;
                self.on_no_majority(cx);
            }
            Outcome::Read(_) => {
                self.no_majority = false;
                self.asked_majority = true;
            }
            Outcome::Alarm(what) => self.on_alarm(cx, what),
        }
        let proposed = self.pending.is_some_and(Pending::takes_over);
        let open = proposed || self.takeover_unresolved();
        self.lease
            .block_grants(open && !mutant::on(Mutant::GrantWhileTaking));
    }

    /// A promise of the register was broken. If that ended what was proposed, it may be proposed again later.
    pub(super) fn on_alarm(&mut self, cx: Around<'_>, what: &'static str) {
        self.alarm = Some(what);
        if self.register.is_idle() && self.pending.is_some() {
            self.growing = None;
            self.retry_later(cx, self.timing.suspect);
        }
    }

    pub(super) fn takeover_unresolved(&self) -> bool {
        let known = self.register.confirmed().map(|r| r.active);
        known != Some(self.me)
            && self
                .register
                .unresolved()
                .iter()
                .any(|r| r.active == self.me)
    }

    /// The confirmed record may be newer than what was acted upon: act upon it.
    pub(super) fn on_confirmed(&mut self, cx: Around<'_>) {
        let Some(record) = self.register.confirmed().cloned() else {
            return;
        };
        if record.version <= self.seen {
            return;
        }
        self.seen = record.version;
        self.no_majority = false;
        self.compare_generations(&record);
        self.note_out(cx.now, &record);
        self.journal.push(
            cx.now,
            What::RecordChanged {
                record: record.clone(),
            },
        );
        if self.witness {
            return;
        }
        if record.active == self.me {
            self.on_confirmed_active(cx, &record);
        } else {
            self.on_confirmed_other(cx, &record);
        }
    }

    pub(super) fn on_confirmed_active(&mut self, cx: Around<'_>, record: &Record) {
        match (&self.state, record.intent) {
            (State::Settling | State::Leaving { .. } | State::Broken, _) => {}
            (
                State::Stopping {
                    step: Stopping::Proposing,
                    ..
                },
                Intent::Hold(_),
            ) => {
                self.enter_held(cx);
            }
            (State::Standby | State::Held, Intent::Hold(_)) => self.enter_held(cx),
            (
                State::Stopping {
                    step: Stopping::Proposing,
                    ..
                },
                _,
            ) => self.reconsider_stop(cx),
            (State::Stopping { .. }, _) => self.tell_sets(record),
            (State::Standby, Intent::Handover { .. }) => self.take_handover(cx, record),
            (State::Standby, Intent::Serve) => self.resume(cx),
            (State::Held, Intent::Serve | Intent::Handover { .. }) => self.begin_start(cx),
            (State::Taking(Taking::Fencing { .. }), _) => {}
            (State::Taking(Taking::Proposing), _) => {
                self.journal.phase(cx.now, wire::event::Phase::Decide);
                self.begin_start(cx);
            }
            (State::Starting(Starting::Barrier { .. }), _) => {
                if self.pending.is_none() && !self.register.needs_barrier() {
                    self.begin_start(cx);
                }
            }
            (State::Starting(_) | State::Active { .. }, Intent::Hold(_)) => {}
            (State::Starting(_) | State::Active { .. }, _) => self.tell_sets(record),
        }
    }

    pub(super) fn on_confirmed_other(&mut self, cx: Around<'_>, record: &Record) {
        match &self.state {
            State::Settling | State::Leaving { .. } | State::Broken => {}
            State::Standby | State::Held | State::Taking(_)
                if !self.instance_open || mutant::on(Mutant::InstanceIgnored) =>
            {
                self.enter_standby(cx, record);
            }
            State::Stopping {
                step: Stopping::Proposing,
                ..
            } => {
                self.instance_open = false;
                self.journal.done(cx.now);
                self.enter_standby(cx, record);
            }
            State::Standby
            | State::Held
            | State::Taking(_)
            | State::Starting(_)
            | State::Active { .. }
            | State::Stopping { .. } => {
                let seen = vec![Seen::AtEpoch(record.epoch)];
                self.journal
                    .decide(cx.now, Act::StepDown, Rule::Deposed, seen, Vec::new());
                self.leave(cx);
            }
        }
    }

    /// By the last record known, this node is active and no other could have been promoted since.
    fn is_alone(&self) -> bool {
        let alone = |record: &Record| record.active == self.me && record.is_solo();
        self.register.confirmed().is_some_and(alone) && self.register.unresolved().is_empty()
    }

    pub(super) fn on_no_majority(&mut self, cx: Around<'_>) {
        // R6: nobody else could have been promoted since, so the confirmed record still holds.
        if self.state == State::Starting(Starting::Barrier { solo: true }) {
            self.begin_start(cx);
        } else if self.state == State::Settling && self.is_alone() {
            self.asked_majority = true;
        }
    }
}
