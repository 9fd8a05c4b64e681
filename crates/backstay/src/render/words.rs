//! Words for the enumerations of events and problems.

use std::time::Duration;

use wire::control::{GroupRequest, Obstacle, RequestFault, Role, WrongDisk};
use wire::event::{Act, Because, Phase, ReplicaLoss, Rule, Seen, Ungrown};
use wire::record::Hold;
use wire::{GroupId, NodeId};

use super::amount;
use super::catalogue::fill;
use super::names::Names;
use crate::output::Lang;

/// Renders in one language with one set of names.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    /// The language.
    pub lang: Lang,
    /// The names.
    pub names: &'a Names,
}

impl Words<'_> {
    /// The text with this key, without arguments.
    pub fn plain(&self, key: &str) -> String {
        fill(self.lang, key, &[])
    }

    /// The text with this key and one node in it.
    fn with_node(&self, key: &str, node: NodeId) -> String {
        fill(self.lang, key, &[("node", self.names.node(node))])
    }

    /// A role, such as `standby`.
    pub fn role(&self, role: Role) -> String {
        self.plain(match role {
            Role::Witness => "role.witness",
            Role::Settling => "role.settling",
            Role::Standby => "role.standby",
            Role::Promoting => "role.promoting",
            Role::Active => "role.active",
            Role::Frozen => "role.frozen",
            Role::Demoting => "role.demoting",
            Role::Held => "role.held",
        })
    }

    /// What stands against a node: continues the node's name.
    pub fn obstacle(&self, obstacle: Obstacle) -> String {
        let amount = obstacle.held_back().map_or_else(String::new, amount::bytes);
        let key = format!("obstacle.{}", obstacle_key(obstacle));
        fill(self.lang, &key, &[("amount", amount)])
    }

    /// What a person can do about an obstacle.
    pub fn remedy(&self, group: GroupId, node: NodeId, obstacle: Obstacle) -> String {
        let args = [
            ("node", self.names.node(node)),
            ("group", self.names.group(group)),
        ];
        fill(
            self.lang,
            &format!("remedy.{}", obstacle_key(obstacle)),
            &args,
        )
    }

    /// Why a replica was lost.
    pub fn loss(&self, loss: ReplicaLoss) -> String {
        self.plain(match loss {
            ReplicaLoss::Closed => "loss.closed",
            ReplicaLoss::Silent => "loss.silent",
            ReplicaLoss::DiskFailed => "loss.disk-failed",
            ReplicaLoss::Protocol => "loss.protocol",
            ReplicaLoss::Refused => "loss.refused",
            ReplicaLoss::Behind => "loss.behind",
        })
    }

    /// Why a group is held.
    pub fn hold(&self, hold: Hold) -> String {
        self.plain(match hold {
            Hold::Stopped => "hold.stopped",
            Hold::FailedEverywhere => "hold.failed",
        })
    }

    /// An act: continues "decided to".
    pub fn act(&self, group: Option<GroupId>, act: Act) -> String {
        match act {
            Act::TakeOver(node) => self.with_node("act.take-over", node),
            Act::TakeHandover(node) => self.with_node("act.take-handover", node),
            Act::Wait => self.plain("act.wait"),
            Act::DropReplica(node) => self.with_node("act.drop-replica", node),
            Act::AddReplica(node) => self.with_node("act.add-replica", node),
            Act::HandOver(node) => self.with_node("act.hand-over", node),
            Act::RestartResource(index) => {
                let resource = self.resource(group, index);
                fill(self.lang, "act.restart-resource", &[("resource", resource)])
            }
            Act::Hold(Hold::Stopped) => self.plain("act.hold-stopped"),
            Act::Hold(Hold::FailedEverywhere) => self.plain("act.hold-failed"),
            Act::Freeze => self.plain("act.freeze"),
            Act::Thaw => self.plain("act.thaw"),
            Act::StepDown => self.plain("act.step-down"),
            Act::Resume => self.plain("act.resume"),
            Act::Bootstrap => self.plain("act.bootstrap"),
        }
    }

    /// A rule in words.
    pub fn rule(&self, rule: Rule) -> String {
        self.plain(&format!("rule.{}", rule_code(rule)))
    }

    /// An observation.
    pub fn seen(&self, group: Option<GroupId>, seen: Seen) -> String {
        let with = |key: &str, args: &[(&str, String)]| fill(self.lang, key, args);
        let node_and_time = |key: &str, node: NodeId, span: Duration| {
            with(
                key,
                &[
                    ("node", self.names.node(node)),
                    ("time", amount::time(span)),
                ],
            )
        };
        match seen {
            Seen::Silent(node, span) => node_and_time("seen.silent", node, span),
            Seen::Heard(node, span) => node_and_time("seen.heard", node, span),
            Seen::GrantsOver(span) => with("seen.grants-over", &[("time", amount::time(span))]),
            Seen::WitnessLease(node, span) => node_and_time("seen.witness-lease", node, span),
            Seen::AtEpoch(epoch) => with("seen.at-epoch", &[("epoch", epoch.to_string())]),
            Seen::OwnObstacle(obstacle) => with(
                "seen.own-obstacle",
                &[("obstacle", self.obstacle(obstacle))],
            ),
            Seen::ReplicaLost(node, why) => with(
                "seen.replica-lost",
                &[("node", self.names.node(node)), ("why", self.loss(why))],
            ),
            Seen::Failures(index, count) => with(
                "seen.failures",
                &[
                    ("resource", self.resource(group, index)),
                    ("count", count.to_string()),
                ],
            ),
        }
    }

    /// Why an alternative was rejected.
    pub fn because(&self, because: Because) -> String {
        match because {
            Because::NoMajority => self.plain("because.no-majority"),
            Because::LeaseRunning => self.plain("because.lease-running"),
            Because::NotPromotable(obstacle) => {
                let obstacle = self.obstacle(obstacle);
                fill(
                    self.lang,
                    "because.not-promotable",
                    &[("obstacle", obstacle)],
                )
            }
            Because::BudgetSpent => self.plain("because.budget-spent"),
            Because::WouldBlock => self.plain("because.would-block"),
            Because::WouldLose => self.plain("because.would-lose"),
            Because::FailedThere => self.plain("because.failed-there"),
        }
    }

    /// A phase of a transition; a resource's phase is named after it.
    pub fn phase(&self, group: Option<GroupId>, phase: Phase) -> String {
        match phase {
            Phase::Detect => self.plain("phase.detect"),
            Phase::Lease => self.plain("phase.lease"),
            Phase::Decide => self.plain("phase.decide"),
            Phase::Mirror => self.plain("phase.mirror"),
            Phase::Resource(index) => self.resource(group, index),
        }
    }

    /// Why a volume did not grow.
    pub fn ungrown(&self, why: Ungrown) -> String {
        match why {
            Ungrown::NotLarger { now } => {
                self.fill("grow.not-larger", &[("now", amount::bytes(now))])
            }
            Ungrown::Away(node) => self.with_node("grow.away", node),
            Ungrown::NoRoom { node, most } | Ungrown::Cramped { node, most } => {
                let key = if matches!(why, Ungrown::NoRoom { .. }) {
                    "grow.no-room"
                } else {
                    "grow.cramped"
                };
                let args = [
                    ("node", self.names.node(node)),
                    ("most", amount::bytes(most)),
                ];
                self.fill(key, &args)
            }
            Ungrown::Older(node) => self.with_node("grow.older", node),
            Ungrown::Stranded(node) => self.with_node("grow.stranded", node),
            Ungrown::Lost(node) => self.with_node("grow.lost", node),
            Ungrown::Unusable(node) => self.with_node("grow.unusable", node),
            Ungrown::Ended => self.plain("grow.ended"),
            Ungrown::Busy => self.plain("grow.busy"),
        }
    }

    /// What a person asked for: continues "asked to".
    pub fn request(&self, group: Option<GroupId>, request: GroupRequest) -> String {
        match request {
            GroupRequest::Move(None) => self.plain("request.move"),
            GroupRequest::Move(Some(node)) => self.with_node("request.move-to", node),
            GroupRequest::Start => self.plain("request.start"),
            GroupRequest::Stop => self.plain("request.stop"),
            GroupRequest::Verify { mirror, repair } => {
                let key = if repair {
                    "request.verify-repair"
                } else {
                    "request.verify"
                };
                self.fill(key, &[("mirror", self.mirror(group, mirror))])
            }
            GroupRequest::Grow { mirror, data } => {
                let key = if data.is_some() {
                    "request.grow-to"
                } else {
                    "request.grow"
                };
                let size = data.map(amount::bytes).unwrap_or_default();
                let mirror = self.mirror(group, mirror);
                self.fill(key, &[("mirror", mirror), ("size", size)])
            }
            GroupRequest::Resync { mirror, node, full } => {
                let key = match (node, full) {
                    (None, false) => "request.resync",
                    (None, true) => "request.resync-full",
                    (Some(_), false) => "request.resync-of",
                    (Some(_), true) => "request.resync-full-of",
                };
                let args = [
                    ("mirror", self.mirror(group, mirror)),
                    (
                        "node",
                        node.map(|id| self.names.node(id)).unwrap_or_default(),
                    ),
                ];
                self.fill(key, &args)
            }
            GroupRequest::Promote { node, off, .. } => {
                let args = [
                    ("node", self.names.node(node)),
                    ("off", self.names.node(off)),
                ];
                self.fill("request.promote", &args)
            }
            GroupRequest::Demote {
                mirror,
                node,
                bytes,
                ..
            } => {
                let args = [
                    ("mirror", self.mirror(group, mirror)),
                    ("node", self.names.node(node)),
                    ("amount", amount::bytes(bytes)),
                ];
                self.fill("request.demote", &args)
            }
        }
    }

    /// Why a request was not taken.
    pub fn fault(&self, fault: RequestFault) -> String {
        match fault {
            RequestFault::NoActive => self.plain("fault.no-active"),
            RequestFault::Target(node, obstacle) => {
                let args = [
                    ("node", self.names.node(node)),
                    ("obstacle", self.obstacle(obstacle)),
                ];
                fill(self.lang, "fault.target", &args)
            }
            RequestFault::NoTarget => self.plain("fault.no-target"),
            RequestFault::Busy => self.plain("fault.busy"),
            RequestFault::Already => self.plain("fault.already"),
            RequestFault::Unclear => self.plain("fault.unclear"),
            RequestFault::Silent(node) => self.with_node("fault.silent", node),
            RequestFault::Alive(node) => self.with_node("fault.alive", node),
            RequestFault::OtherActive(node) => self.with_node("fault.other-active", node),
            RequestFault::NoMajority => self.plain("fault.no-majority"),
            RequestFault::LeaseRunning => self.plain("fault.lease-running"),
            RequestFault::Promotable(node) => self.with_node("fault.promotable", node),
            RequestFault::NameOne => self.plain("fault.name-one"),
            RequestFault::NotHeldBack(node) => self.with_node("fault.not-held-back", node),
            RequestFault::OtherHeldBack(node, bytes) => {
                let args = [
                    ("node", self.names.node(node)),
                    ("amount", amount::bytes(bytes)),
                ];
                fill(self.lang, "fault.other-held-back", &args)
            }
            RequestFault::Better(node) => self.with_node("fault.better", node),
            RequestFault::AskThere(node) => self.with_node("fault.ask-there", node),
            RequestFault::OtherRecord => self.plain("fault.other-record"),
        }
    }

    /// A resource, such as `exec ledger`.
    pub fn resource(&self, group: Option<GroupId>, index: u8) -> String {
        let unknown = || format!("resource #{index}");
        group.map_or_else(unknown, |group| self.names.resource(group, index))
    }

    /// A mirror, by its number among the group's mirrors.
    pub fn mirror(&self, group: Option<GroupId>, number: u8) -> String {
        let known = group.and_then(|group| self.names.mirror(group, number));
        known.map_or_else(|| format!("mirror #{number}"), str::to_owned)
    }
}

const fn obstacle_key(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::OutOfSync => "out-of-sync",
        Obstacle::Inconsistent => "inconsistent",
        Obstacle::DiskFailed => "disk-failed",
        Obstacle::RolledBack => "rolled-back",
        Obstacle::InstanceOpen => "instance-open",
        Obstacle::FailedHere => "failed-here",
        Obstacle::NotAttached => "not-attached",
        Obstacle::AsyncBehind => "async-behind",
        Obstacle::NoVote => "no-vote",
        Obstacle::NoRegister => "no-register",
        Obstacle::Silent => "silent",
        Obstacle::HeldBack(_) => "held-back",
        Obstacle::WrongDisk(why) => match why {
            WrongDisk::NoMirror => "wrong-disk.no-mirror",
            WrongDisk::OtherMirror => "wrong-disk.other-mirror",
            WrongDisk::OwnContent => "wrong-disk.own-content",
            WrongDisk::Shrunk => "wrong-disk.shrunk",
            WrongDisk::TooSmall => "wrong-disk.too-small",
            WrongDisk::Damaged => "wrong-disk.damaged",
            WrongDisk::Newer => "wrong-disk.newer",
            WrongDisk::OtherDisk => "wrong-disk.other-disk",
        },
    }
}

/// A rule's stable code, for JSON.
pub const fn rule_code(rule: Rule) -> &'static str {
    match rule {
        Rule::PromoteInSync => "promote-in-sync",
        Rule::Handover => "handover",
        Rule::GoSolo => "go-solo",
        Rule::Grow => "grow",
        Rule::DiskFailedHere => "disk-failed-here",
        Rule::StuckPeer => "stuck-peer",
        Rule::BeyondBound => "beyond-bound",
        Rule::NoLease => "no-lease",
        Rule::LeaseBack => "lease-back",
        Rule::Deposed => "deposed",
        Rule::RestartBudget => "restart-budget",
        Rule::BudgetSpent => "budget-spent",
        Rule::FailedEverywhere => "failed-everywhere",
        Rule::Asked => "asked",
        Rule::Barrier => "barrier",
        Rule::FirstRecord => "first-record",
        Rule::Forced => "forced",
    }
}
