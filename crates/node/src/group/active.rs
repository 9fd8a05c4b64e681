//! Serving: the lease, the freeze, failing resources and failing disks.

use super::{Around, Group, Out, Starting, State, StopWhy, within};
use crate::io::ResourceAct;
use std::collections::BTreeSet;
use wire::control::{Message, Obstacle};
use wire::event::{Act, Because, Rule, Seen, What};
use wire::mutant::{self, Mutant};
use wire::{NodeId, Record, Time};

impl Group {
    // ---- the lease ----------------------------------------------------------------------------------------------

    /// True while this node serves or is about to: then it asks for its lease with every beat.
    pub(super) const fn wants_lease(&self) -> bool {
        match &self.state {
            State::Starting(_) | State::Active { .. } => true,
            State::Stopping { why, step } => {
                !matches!(why, StopWhy::DiskFailed { .. })
                    && matches!(
                        step,
                        super::Stopping::Resource { .. }
                            | super::Stopping::Abandoning
                            | super::Stopping::Mirrors { .. }
                    )
            }
            State::Settling
            | State::Standby
            | State::Taking(_)
            | State::Leaving { .. }
            | State::Held
            | State::Broken => false,
        }
    }

    pub(super) fn request_lease(&mut self, cx: Around<'_>) {
        let Some(epoch) = self.register.confirmed().map(|r| r.epoch) else {
            return;
        };
        let request = self.next_nonce();
        let term = self.lease.request(cx.now, request);
        let group = self.id();
        let to = self.members.iter().copied().filter(|id| *id != self.me);
        for node in to {
            let message = Message::LeaseRequest {
                group,
                request,
                term,
                epoch,
            };
            self.out.push_back(Out::Send(node, message));
        }
    }

    /// Other members that could be promoted: by the known record, by an open proposal, or by the one being prepared.
    fn others(&self) -> BTreeSet<NodeId> {
        let mut others = self.register.could_be_promoted();
        if mutant::on(Mutant::EndlessLeaseWhileGrowing) {
            others = self
                .register
                .confirmed()
                .map(Record::promotable)
                .unwrap_or_default();
        } else {
            others.extend(self.growing);
        }
        others.remove(&self.me);
        others
    }

    /// Until when this node may answer (R8).
    pub(super) fn lease_until(&self) -> Time {
        let active = self
            .register
            .confirmed()
            .is_some_and(|r| r.active == self.me);
        if !active {
            return Time::ZERO;
        }
        let others = self.others();
        if others.is_empty() {
            return Time::MAX;
        }
        self.lease.until(&others).unwrap_or(Time::ZERO)
    }

    /// Keeps gate and device in step with the lease, and notices its end.
    pub(super) fn drive_lease(&mut self, cx: Around<'_>) {
        let serving = self.is_serving() || self.is_stopping_resources();
        if !serving {
            return;
        }
        let until = self.lease_until();
        // A finite lease is never told shorter than it was, except when an endless one becomes finite (R8).
        if until > self.lease_told || self.lease_told == Time::MAX {
            self.lease.hold(until);
            self.tell_lease(cx.now, until);
        }
        let frozen = self.lease_told <= cx.now;
        if frozen == self.frozen {
            return;
        }
        self.frozen = frozen;
        self.frozen_at = cx.now;
        if frozen {
            self.on_frozen(cx);
        } else {
            self.on_thawed(cx);
        }
    }

    /// True if a service is frozen. A start is without a lease for a moment, which is nobody's problem.
    pub(crate) fn is_frozen_for_long(&self, now: Time) -> bool {
        let serves = matches!(self.state, State::Active { .. });
        self.frozen && (serves || now.since(self.frozen_at) >= self.timing.suspect)
    }

    const fn is_stopping_resources(&self) -> bool {
        matches!(
            self.state,
            State::Stopping {
                why: StopWhy::HandOver { .. } | StopWhy::Hold(_),
                step: super::Stopping::Resource { .. }
                    | super::Stopping::Abandoning
                    | super::Stopping::Mirrors { .. },
            }
        )
    }

    fn on_frozen(&mut self, cx: Around<'_>) {
        // An activation that never had a lease yet has nothing to lose.
        if !matches!(self.state, State::Active { .. }) {
            return;
        }
        self.journal.begin(cx.now);
        self.journal.push(cx.now, What::LeaseLost);
        let silent = self
            .others()
            .into_iter()
            .map(|id| Seen::Silent(id, cx.links.silent(cx.now, id)));
        let rejected = vec![
            (Act::Wait, Because::LeaseRunning),
            (
                Act::DropReplica(self.others().first().copied().unwrap_or(self.me)),
                Because::NoMajority,
            ),
        ];
        self.journal.decide(
            cx.now,
            Act::Freeze,
            Rule::NoLease,
            silent.collect(),
            rejected,
        );
    }

    fn on_thawed(&mut self, cx: Around<'_>) {
        if !matches!(self.state, State::Active { .. }) {
            return;
        }
        self.journal.push(cx.now, What::LeaseGained);
        self.journal
            .decide(cx.now, Act::Thaw, Rule::LeaseBack, Vec::new(), Vec::new());
        self.journal.done(cx.now);
    }

    // ---- resources ----------------------------------------------------------------------------------------------

    /// A running resource's monitor says that it failed.
    pub(crate) fn on_monitor(&mut self, cx: Around<'_>, resource: u8) {
        if self.running.contains(&resource) && self.is_plain(resource) {
            self.on_resource_failed(cx, resource);
        }
        self.drive(cx);
    }

    pub(super) fn on_resource_failed(&mut self, cx: Around<'_>, resource: u8) {
        match self.state {
            // Without an answer from the disk everything fails; judged again once it answers.
            State::Active { restarting: None } if self.frozen => {
                self.failed_waiting.insert(resource);
            }
            State::Active { restarting: None } => self.restart(cx, resource),
            // Its own restart is the answer to it.
            State::Active {
                restarting: Some((other, _)),
            } if other != resource => {
                self.failed_waiting.insert(resource);
            }
            State::Starting(_) => {
                self.failed_waiting.insert(resource);
            }
            State::Settling
            | State::Standby
            | State::Taking(_)
            | State::Active { .. }
            | State::Stopping { .. }
            | State::Leaving { .. }
            | State::Held
            | State::Broken => {}
        }
    }

    /// Looks again at what failed while nothing could be done about it.
    pub(super) fn judge_waiting(&mut self, cx: Around<'_>) {
        if self.state == (State::Active { restarting: None })
            && !self.frozen
            && let Some(resource) = self.failed_waiting.pop_first()
        {
            self.restart(cx, resource);
        }
    }

    fn restart(&mut self, cx: Around<'_>, resource: u8) {
        self.journal.begin(cx.now);
        if self.spend_restart(cx, resource) {
            let token = self.next_token();
            self.state = State::Active {
                restarting: Some((resource, token)),
            };
            self.out.push_back(Out::Resource {
                resource,
                act: ResourceAct::Start,
                token,
            });
        } else {
            self.give_group_up(cx, resource);
        }
    }

    /// Counts a failure. True if the budget allows a restart.
    pub(super) fn spend_restart(&mut self, cx: Around<'_>, resource: u8) -> bool {
        let index = usize::from(resource);
        let Some(config) = self.config.resources.get(index).copied() else {
            return false;
        };
        let Some(failures) = self.failures.get_mut(index) else {
            return false;
        };
        failures.push_back(cx.now);
        let count = within(failures, cx.now, config.window);
        let restarts = u32::try_from(count).unwrap_or(u32::MAX);
        self.journal
            .push(cx.now, What::ResourceFailed { resource, restarts });
        if restarts > config.restarts {
            return false;
        }
        let seen = vec![Seen::Failures(resource, restarts)];
        let act = Act::RestartResource(resource);
        self.journal
            .decide(cx.now, act, Rule::RestartBudget, seen, Vec::new());
        true
    }

    /// Forgets old failures: a person cleared the hold.
    pub(super) fn clear_failures(&mut self) {
        for failures in &mut self.failures {
            failures.clear();
        }
    }

    // ---- disks --------------------------------------------------------------------------------------------------

    /// The own disk failed, or hangs: if another replica is up to date, the group goes there (R7).
    pub(super) fn on_local_failed(&mut self, cx: Around<'_>, mirror: u8, errno: Option<i32>) {
        let Some(replica) = self.replicas.get_mut(usize::from(mirror)) else {
            return;
        };
        if replica.failed {
            return;
        }
        replica.failed = true;
        self.journal.push(cx.now, What::DiskFailed { errno });
        let serving = matches!(
            self.state,
            State::Starting(Starting::Mirrors { .. } | Starting::Resource { .. })
                | State::Active { .. }
                | State::Stopping { .. }
        );
        if !serving {
            return;
        }
        self.journal.begin(cx.now);
        let seen = vec![Seen::OwnObstacle(Obstacle::DiskFailed)];
        match self.best_target(cx) {
            Some(to) => {
                let rejected = vec![(Act::Wait, Because::WouldLose)];
                let act = Act::HandOver(to);
                self.journal
                    .decide(cx.now, act, Rule::DiskFailedHere, seen, rejected);
                self.stop_for_disk(cx, to);
            }
            None => {
                let rejected = self.why_no_target(cx);
                self.journal
                    .decide(cx.now, Act::Wait, Rule::DiskFailedHere, seen, rejected);
                self.tell_lease(cx.now, Time::ZERO);
                self.tell_mirrors(&mirror::control::Command::Abort);
                self.out.push_back(Out::Abandon);
                self.change_state(cx.now, State::Broken);
            }
        }
    }

    // ---- where else ---------------------------------------------------------------------------------------------

    /// Another node that could serve right now: in sync, heard, and nothing against it.
    pub(super) fn best_target(&self, cx: Around<'_>) -> Option<NodeId> {
        self.register
            .confirmed()?
            .heirs()
            .into_iter()
            .find(|id| self.target_fault(cx, *id).is_none())
    }

    /// What stands against moving the group to `node`; none if it could serve.
    pub(super) fn target_fault(&self, cx: Around<'_>, node: NodeId) -> Option<Obstacle> {
        let Some(record) = self.register.confirmed() else {
            return Some(Obstacle::NoRegister);
        };
        let member = record.members.get(&node);
        if node == self.me || !cx.links.is_up(cx.now, node) {
            return Some(Obstacle::Silent);
        }
        if member.is_none_or(|m| !m.sync.counts()) || self.is_lost(node) {
            return Some(self.out_of_set(node, self.me));
        }
        if member.is_some_and(|m| m.failed) {
            return Some(Obstacle::FailedHere);
        }
        match self.peers.get(&node) {
            None => Some(Obstacle::Silent),
            // What it says of itself may be a beat behind the record; only lasting obstacles count.
            Some((_, beat)) => (beat.obstacle).filter(|o| !is_of_the_set(*o)),
        }
    }

    pub(super) fn why_no_target(&self, cx: Around<'_>) -> Vec<(Act, Because)> {
        let others = self.config.members.iter().filter(|id| **id != self.me);
        others
            .map(|id| {
                let because = match self.target_fault(cx, *id) {
                    Some(Obstacle::FailedHere) => Because::FailedThere,
                    Some(obstacle) => Because::NotPromotable(obstacle),
                    None => Because::BudgetSpent,
                };
                (Act::HandOver(*id), because)
            })
            .collect()
    }
}

/// True for what a node says of itself because the record has it out of the set.
const fn is_of_the_set(obstacle: Obstacle) -> bool {
    matches!(
        obstacle,
        Obstacle::OutOfSync | Obstacle::AsyncBehind | Obstacle::HeldBack(_)
    )
}
