//! Starting: the mirrors are made to serve, then the resources are started in order.

use super::{Around, Group, Out, Starting, State};
use crate::config::ResourceKind;
use crate::io::ResourceAct;
use mirror::control::Command;
use std::collections::BTreeSet;
use wire::event::{Phase, ReplicaLoss};
use wire::{NodeId, Sync};

impl Group {
    /// The confirmed record names this node: activates the mirrors.
    pub(super) fn begin_start(&mut self, cx: Around<'_>) {
        let Some(record) = self.register.confirmed().cloned() else {
            return;
        };
        self.journal.begin(cx.now);
        self.instance_open = true;
        self.running.clear();
        self.failed_waiting.clear();
        self.mates.clear();
        self.growing = None;
        self.frozen = false;
        self.frozen_at = cx.now;
        let left = self.all_mirrors();
        self.change_state(
            cx.now,
            State::Starting(Starting::Mirrors {
                left,
                since: cx.now,
            }),
        );
        let required = self.required();
        // What an eligible follower lacks, or has and this node lacks, is known only after a copy, which would make it a mixture:
        // it is taken out first, and comes back when it is equal (R9, R11).
        for id in &required {
            // The configuration may have changed since it was counted in.
            let label = record.members.get(id).map(|member| member.sync);
            let behind = label == Some(Sync::AsyncEligible) || self.config.are_apart(self.me, *id);
            if *id != self.me && behind {
                self.lose(*id, ReplicaLoss::Closed);
            }
        }
        let peers: BTreeSet<NodeId> = self
            .config
            .members
            .iter()
            .copied()
            .filter(|id| *id != self.me)
            .collect();
        self.sets_sent = Some((record.epoch, required.clone()));
        self.tell_mirrors(&Command::Activate {
            epoch: record.epoch,
            required,
            peers,
        });
        self.request_lease(cx);
    }

    pub(super) fn on_serving(&mut self, cx: Around<'_>, mirror: u8) {
        if let Some(replica) = self.replicas.get_mut(usize::from(mirror)) {
            replica.bumped = true;
            // What a person promoted is what counts.
            replica.held_back = None;
        }
        if let State::Starting(Starting::Mirrors { left, .. }) = &mut self.state {
            left.remove(&mirror);
            if left.is_empty() {
                self.journal.phase(cx.now, Phase::Mirror);
            }
        }
    }

    pub(super) fn continue_start(&mut self, cx: Around<'_>) {
        match &self.state {
            State::Starting(Starting::Barrier { .. }) => self.continue_barrier(cx),
            State::Starting(Starting::Mirrors { left, since }) => {
                if left.is_empty() {
                    self.start_resource(cx, 0);
                } else if cx.now.since(*since) >= self.timing.reconcile {
                    self.give_up_reconcile();
                }
            }
            State::Settling
            | State::Standby
            | State::Taking(_)
            | State::Starting(Starting::Resource { .. })
            | State::Active { .. }
            | State::Stopping { .. }
            | State::Leaving { .. }
            | State::Held
            | State::Broken => {}
        }
    }

    /// A barrier that met a newer record of this node's own making is proposed again on top of it.
    fn continue_barrier(&mut self, cx: Around<'_>) {
        if self.pending.is_some() || cx.now < self.retry_at {
            return;
        }
        let Some(record) = self.register.confirmed().cloned() else {
            return;
        };
        if record.active == self.me && self.register.needs_barrier() {
            self.propose_barrier(cx, &record);
        }
    }

    /// A kept replica does not come: it is taken out, so that the group can serve (R9).
    fn give_up_reconcile(&mut self) {
        for id in self.required() {
            // One that is equal already is not what is waited for.
            if id != self.me && !self.is_counted(id) {
                self.lose(id, ReplicaLoss::Silent);
            }
        }
    }

    /// Starts the resource `index`, or ends the transition behind the last one.
    pub(super) fn start_resource(&mut self, cx: Around<'_>, index: usize) {
        let Some(_) = self.config.resources.get(index) else {
            self.half_adopted = false;
            self.change_state(cx.now, State::Active { restarting: None });
            self.journal.done(cx.now);
            return;
        };
        let resource = u8::try_from(index).unwrap_or(u8::MAX);
        let token = self.next_token();
        self.change_state(
            cx.now,
            State::Starting(Starting::Resource { resource, token }),
        );
        self.out.push_back(Out::Resource {
            resource,
            act: ResourceAct::Start,
            token,
        });
    }

    /// A start or a stop ended.
    pub(crate) fn on_resource_done(&mut self, cx: Around<'_>, token: u64, ok: bool) {
        match self.state.clone() {
            State::Starting(Starting::Resource {
                resource,
                token: mine,
            }) if mine == token => {
                if ok {
                    self.running.push(resource);
                    self.journal.phase(cx.now, Phase::Resource(resource));
                    self.start_resource(cx, usize::from(resource) + 1);
                } else {
                    self.on_start_failed(cx, resource);
                }
            }
            State::Active {
                restarting: Some((resource, mine)),
            } if mine == token => {
                self.change_state(cx.now, State::Active { restarting: None });
                if ok {
                    self.journal.phase(cx.now, Phase::Resource(resource));
                    self.journal.done(cx.now);
                } else {
                    self.on_resource_failed(cx, resource);
                }
            }
            State::Stopping { .. } => self.on_stop_done(cx, token, ok),
            State::Settling
            | State::Standby
            | State::Taking(_)
            | State::Starting(_)
            | State::Active { .. }
            | State::Leaving { .. }
            | State::Held
            | State::Broken => {}
        }
        self.drive(cx);
    }

    fn on_start_failed(&mut self, cx: Around<'_>, resource: u8) {
        if self.spend_restart(cx, resource) {
            self.start_resource(cx, usize::from(resource));
        } else {
            self.give_group_up(cx, resource);
        }
    }

    /// True for a resource whose failures count; a mirror's are the disk's.
    pub(super) fn is_plain(&self, resource: u8) -> bool {
        let kind = self
            .config
            .resources
            .get(usize::from(resource))
            .map(|r| r.kind);
        kind == Some(ResourceKind::Plain)
    }
}
