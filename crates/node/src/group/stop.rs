//! Stopping: in order and with a handover, or at once because this node was deposed.

use super::{Around, Group, Out, Pending, State, StopWhy, Stopping};
use crate::io::ResourceAct;
use mirror::control::Command;
use wire::control::Obstacle;
use wire::event::{Act, Phase, Rule, Seen};
use wire::mutant::{self, Mutant};
use wire::record::{Hold, Intent};
use wire::{NodeId, Record, Sync, Time};

impl Group {
    /// Begins an orderly stop: resources in reverse order, then the mirrors, then the record.
    pub(super) fn begin_stop(&mut self, cx: Around<'_>, why: StopWhy) {
        self.journal.begin(cx.now);
        if self.half_adopted && !mutant::on(Mutant::HalfAdopted) {
            // What the former process left running, and this one did not take over yet, is in no list.
            self.tear_down(cx, why);
        } else {
            self.stop_next(cx, why);
        }
    }

    /// Stops what runs here without regard to order.
    fn tear_down(&mut self, cx: Around<'_>, why: StopWhy) {
        self.running.clear();
        let step = Stopping::Abandoning;
        self.change_state(cx.now, State::Stopping { why, step });
        self.out.push_back(Out::Abandon);
    }

    fn stop_next(&mut self, cx: Around<'_>, why: StopWhy) {
        let Some(resource) = self.running.pop() else {
            self.stop_mirrors(cx, why, &Command::Drain);
            return;
        };
        let token = self.next_token();
        let step = Stopping::Resource { resource, token };
        self.change_state(cx.now, State::Stopping { why, step });
        self.out.push_back(Out::Resource {
            resource,
            act: ResourceAct::Stop,
            token,
        });
    }

    pub(super) fn on_stop_done(&mut self, cx: Around<'_>, token: u64, ok: bool) {
        let State::Stopping {
            why,
            step:
                Stopping::Resource {
                    resource,
                    token: mine,
                },
        } = self.state
        else {
            return;
        };
        if mine != token {
            return;
        }
        self.journal.phase(cx.now, Phase::Resource(resource));
        if ok {
            self.stop_next(cx, why);
        } else {
            self.tear_down(cx, why);
        }
    }

    fn stop_mirrors(&mut self, cx: Around<'_>, why: StopWhy, how: &Command) {
        let left = self.all_mirrors();
        self.change_state(
            cx.now,
            State::Stopping {
                why,
                step: Stopping::Mirrors { left },
            },
        );
        self.tell_mirrors(how);
    }

    /// The own disk failed: everything is torn down at once and the group goes to `to` (R7).
    pub(super) fn stop_for_disk(&mut self, cx: Around<'_>, to: NodeId) {
        self.running.clear();
        self.tell_lease(cx.now, Time::ZERO);
        self.stop_mirrors(cx, StopWhy::DiskFailed { to }, &Command::Abort);
        self.out.push_back(Out::Abandon);
    }

    pub(super) fn on_mirror_stopped(&mut self, mirror: u8) {
        if let State::Stopping {
            step: Stopping::Mirrors { left },
            ..
        } = &mut self.state
        {
            left.remove(&mirror);
        }
    }

    pub(super) fn on_mirror_closed(&mut self, mirror: u8) {
        match &mut self.state {
            State::Leaving { mirrors_open, .. } => {
                mirrors_open.remove(&mirror);
            }
            State::Stopping {
                step: Stopping::Mirrors { left },
                ..
            } => {
                left.remove(&mirror);
            }
            State::Settling
            | State::Standby
            | State::Taking(_)
            | State::Starting(_)
            | State::Active { .. }
            | State::Stopping { .. }
            | State::Held
            | State::Broken => {}
        }
    }

    /// The shell tore everything down.
    pub(crate) fn on_abandoned(&mut self, cx: Around<'_>) {
        self.half_adopted = false;
        match self.state.clone() {
            State::Leaving { mirrors_open, .. } => {
                self.state = State::Leaving {
                    mirrors_open,
                    abandoned: true,
                };
            }
            State::Stopping {
                why,
                step: Stopping::Abandoning,
            } => {
                self.stop_mirrors(cx, why, &Command::Drain);
            }
            State::Stopping {
                why: StopWhy::DiskFailed { .. },
                ..
            }
            | State::Broken => {
                self.instance_open = false;
            }
            State::Settling
            | State::Standby
            | State::Taking(_)
            | State::Starting(_)
            | State::Active { .. }
            | State::Stopping { .. }
            | State::Held => {}
        }
        self.drive(cx);
    }

    /// While resources and mirrors end in order: for whom, if for anybody.
    pub(super) fn ends_in_order(&self) -> Option<Option<NodeId>> {
        let State::Stopping { why, step } = &self.state else {
            return None;
        };
        match (step, why) {
            (Stopping::Yielding | Stopping::Proposing, _) | (_, StopWhy::DiskFailed { .. }) => None,
            (_, StopWhy::HandOver { to, .. }) => Some(Some(*to)),
            (_, StopWhy::Hold(_)) => Some(None),
        }
    }

    pub(super) fn continue_stop(&mut self, cx: Around<'_>) {
        let State::Stopping { why, step } = self.state.clone() else {
            return;
        };
        match step {
            Stopping::Mirrors { left } if left.is_empty() => {
                let disk = matches!(why, StopWhy::DiskFailed { .. });
                if disk && self.instance_open {
                    return;
                }
                self.journal.phase(cx.now, Phase::Mirror);
                self.lease.surrender(cx.now);
                self.tell_lease(cx.now, Time::ZERO);
                self.state = State::Stopping {
                    why,
                    step: Stopping::Yielding,
                };
                self.continue_stop(cx);
            }
            Stopping::Yielding
                if self.all_taken() && self.pending.is_none() && cx.now >= self.retry_at =>
            {
                if self.is_possible(why) {
                    self.propose_stop(cx, why);
                } else {
                    self.give_stop_up(cx, why);
                }
            }
            Stopping::Resource { .. }
            | Stopping::Abandoning
            | Stopping::Mirrors { .. }
            | Stopping::Yielding
            | Stopping::Proposing => {}
        }
    }

    /// The change of the record was refused for now.
    pub(super) fn stop_again(&mut self) {
        if let State::Stopping { step, .. } = &mut self.state {
            *step = Stopping::Yielding;
        }
    }

    fn propose_stop(&mut self, cx: Around<'_>, why: StopWhy) {
        let Some(record) = self.register.confirmed().cloned() else {
            return;
        };
        let (next, pending) = self.stop_record(&record, why);
        self.state = State::Stopping {
            why,
            step: Stopping::Proposing,
        };
        self.propose(cx, next, pending);
    }

    fn stop_record(&mut self, record: &Record, why: StopWhy) -> (Record, Pending) {
        let nonce = self.next_nonce();
        let generation = self.generation();
        let mut next = record.successor(nonce);
        if let Some(mine) = next.members.get_mut(&self.me) {
            mine.generation = generation.max(mine.generation);
            match why {
                StopWhy::HandOver { failed, .. } => mine.failed |= failed,
                StopWhy::DiskFailed { .. } => mine.sync = Sync::Out,
                StopWhy::Hold(Hold::FailedEverywhere) => mine.failed = true,
                StopWhy::Hold(Hold::Stopped) => {}
            }
        }
        self.label_anew(&mut next, why);
        match why {
            StopWhy::HandOver { to, .. } | StopWhy::DiskFailed { to } => {
                next.active = to;
                next.intent = Intent::Handover { from: self.me };
                (next, Pending::HandOver)
            }
            StopWhy::Hold(hold) => {
                next.intent = Intent::Hold(hold);
                (next, Pending::Hold)
            }
        }
    }

    /// Who may be promoted stands to the new active as the two stand to each other. The active is in sync with itself. An orderly
    /// end leaves everybody who counts with everything; after a failed disk an eligible one may still be behind.
    fn label_anew(&self, next: &mut Record, why: StopWhy) {
        let (to, in_order) = match why {
            StopWhy::HandOver { to, .. } => (to, true),
            StopWhy::DiskFailed { to } => (to, false),
            StopWhy::Hold(_) => return,
        };
        let cut_off = !in_order && self.config.are_apart(to, self.me);
        for (id, member) in &mut next.members {
            let apart = *id != to && self.config.are_apart(to, *id);
            let has_more = member.sync.counts() || *id == self.me;
            member.sync = match member.sync {
                _ if *id == to => Sync::InSync,
                _ if cut_off && has_more => Sync::CutOff,
                out @ (Sync::Out | Sync::CutOff) => out,
                Sync::InSync | Sync::AsyncEligible if apart => Sync::AsyncEligible,
                Sync::AsyncEligible if !in_order => Sync::Out,
                Sync::InSync | Sync::AsyncEligible => Sync::InSync,
            };
        }
    }

    /// While the stop was proposed another record of this node's own making was confirmed.
    pub(super) fn reconsider_stop(&mut self, cx: Around<'_>) {
        let State::Stopping { why, .. } = self.state else {
            return;
        };
        if self.pending.is_some() {
            return;
        }
        if self.is_possible(why) {
            self.stop_again();
        } else {
            self.give_stop_up(cx, why);
        }
    }

    /// False if the node that the group was to go to was taken out meanwhile.
    fn is_possible(&self, why: StopWhy) -> bool {
        let record = self.register.confirmed();
        match why {
            StopWhy::HandOver { to, .. } | StopWhy::DiskFailed { to } => {
                record.is_some_and(|record| record.may_promote(to))
            }
            StopWhy::Hold(_) => true,
        }
    }

    /// Nobody can take the group: it goes on here, if its disk can.
    fn give_stop_up(&mut self, cx: Around<'_>, why: StopWhy) {
        match why {
            StopWhy::DiskFailed { .. } => {
                let seen = vec![Seen::OwnObstacle(Obstacle::DiskFailed)];
                let rejected = self.why_no_target(cx);
                self.journal
                    .decide(cx.now, Act::Wait, Rule::DiskFailedHere, seen, rejected);
                self.change_state(cx.now, State::Broken);
            }
            StopWhy::HandOver { .. } | StopWhy::Hold(_) => self.begin_start(cx),
        }
    }

    /// Deposed: the gate is shut, the device fails, everything is torn down (R15). Serving again needs a new activation.
    pub(super) fn leave(&mut self, cx: Around<'_>) {
        self.journal.begin(cx.now);
        self.running.clear();
        self.mates.clear();
        self.growing = None;
        self.sets_sent = None;
        self.lease.surrender(cx.now);
        self.tell_lease(cx.now, Time::ZERO);
        self.tell_mirrors(&Command::Abort);
        let mirrors_open = self.all_mirrors();
        self.change_state(
            cx.now,
            State::Leaving {
                mirrors_open,
                abandoned: false,
            },
        );
        self.out.push_back(Out::Abandon);
    }

    pub(super) fn continue_leaving(&mut self, cx: Around<'_>) {
        let State::Leaving {
            mirrors_open,
            abandoned,
        } = &self.state
        else {
            return;
        };
        if !mirrors_open.is_empty() || !abandoned {
            return;
        }
        self.instance_open = false;
        self.journal.done(cx.now);
        let Some(record) = self.register.confirmed().cloned() else {
            return;
        };
        self.seen = record.version;
        if record.active == self.me {
            self.change_state(cx.now, State::Settling);
            self.try_settle(cx);
        } else {
            self.enter_standby(cx, &record);
        }
    }

    pub(super) fn enter_held(&mut self, cx: Around<'_>) {
        self.tell_lease(cx.now, Time::ZERO);
        self.journal.done(cx.now);
        self.change_state(cx.now, State::Held);
        if self.instance_open {
            // Found running at start, or stopped in order: tearing down what is not there costs nothing.
            self.out.push_back(Out::Abandon);
            self.instance_open = false;
        }
    }

    /// The restart budget of a resource is spent: to another node, or hold.
    pub(super) fn give_group_up(&mut self, cx: Around<'_>, resource: u8) {
        let failures = self
            .failures
            .get(usize::from(resource))
            .map_or(0, |f| f.len());
        let seen = vec![Seen::Failures(
            resource,
            u32::try_from(failures).unwrap_or(u32::MAX),
        )];
        match self.best_target(cx) {
            Some(to) => {
                let act = Act::HandOver(to);
                self.journal
                    .decide(cx.now, act, Rule::BudgetSpent, seen, Vec::new());
                self.begin_stop(cx, StopWhy::HandOver { to, failed: true });
            }
            None => {
                let hold = Hold::FailedEverywhere;
                let rejected = self.why_no_target(cx);
                let act = Act::Hold(hold);
                self.journal
                    .decide(cx.now, act, Rule::FailedEverywhere, seen, rejected);
                self.begin_stop(cx, StopWhy::Hold(hold));
            }
        }
    }
}
