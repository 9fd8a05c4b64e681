//! The node's knowledge for the API, and its events for the log.

use crate::api::view::{
    AddressCondition, AddressState, GroupState, MirrorCondition, MirrorState, NodeState,
    ResourceState, Snapshot, VerifyView,
};
use crate::config::model::{Config, Resource};
use crate::engine::Engine;
use crate::eventlog::EventLog;
use crate::failure::Failure;
use crate::render::names::Names;
use crate::run::resources::Resources;
use mirror::control::{Figures, VerifyFigures};
use mirror::runs::Places;
use node::Node;
use node::view::{GroupView, View};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;
use wire::control::{Obstacle, Role};
use wire::event::Event;
use wire::record::Intent;
use wire::units::REGION_BYTES;
use wire::{ByteCount, Duration, GroupId, NodeId, Time};

/// Between two snapshots.
const PAUSE: Duration = Duration::from_millis(20);

/// Gives the node's knowledge to whoever asks.
#[derive(Debug)]
pub(super) struct Publisher {
    config: Arc<Config>,
    names: Arc<Names>,
    log: EventLog,
    sender: watch::Sender<Snapshot>,
    due: Time,
}

impl Publisher {
    pub(super) const fn new(
        config: Arc<Config>,
        names: Arc<Names>,
        log: EventLog,
        sender: watch::Sender<Snapshot>,
    ) -> Self {
        Self {
            config,
            names,
            log,
            sender,
            due: Time::ZERO,
        }
    }

    /// An event of the node, for the log.
    pub(super) fn event(&self, event: &Event) -> Result<(), Failure> {
        tracing::info!(event = ?event.what, group = ?event.group, incident = event.incident);
        self.log.append(event.clone());
        Ok(())
    }

    /// A new snapshot, if the last one is not fresh any more.
    pub(super) fn publish(
        &mut self,
        node: &Node,
        engines: &BTreeMap<(GroupId, u8), Engine>,
        resources: &Resources,
        now: Time,
    ) {
        if now < self.due {
            return;
        }
        self.due = now + PAUSE;
        let view = node.view(now);
        let figures = engines
            .iter()
            .map(|(id, engine)| (*id, engine.figures()))
            .collect();
        let mut fresh = snapshot(&self.config, &self.names, &view, &figures, now);
        for (group, state) in view.groups.iter().zip(&mut fresh.groups) {
            mark_failed(resources, group.id, state);
            mark_front_ends(resources, group.id, state);
        }
        self.sender.send_replace(fresh);
    }
}

/// The node knows what it ordered; what became of it meanwhile, only the resources know.
fn mark_failed(resources: &Resources, group: GroupId, state: &mut GroupState) {
    for (index, state) in (0..=u8::MAX).zip(&mut state.resources) {
        let is_settled = matches!(state, ResourceState::Running | ResourceState::Stopped);
        if is_settled && resources.failure(group, index).is_some() {
            *state = ResourceState::Failed;
        }
    }
}

/// How programs reach a mirror is chosen by the resources, too.
fn mark_front_ends(resources: &Resources, group: GroupId, state: &mut GroupState) {
    for (index, mirror) in (0..=u8::MAX).zip(&mut state.mirrors) {
        if let Some((kind, why)) = resources.front_end(group, index) {
            (mirror.front_end, mirror.front_end_why) = (Some(kind), why);
        }
    }
}

type AllFigures = BTreeMap<(GroupId, u8), Figures>;

/// What the node knows, in the API's form.
pub(super) fn snapshot(
    config: &Config,
    names: &Arc<Names>,
    view: &View,
    figures: &AllFigures,
    now: Time,
) -> Snapshot {
    let nodes = config.nodes_by_id().map(|(id, node)| {
        let known = view.nodes.get(&id);
        NodeState {
            witness: !node.is_data(),
            up: known.is_some_and(|n| n.up),
            rtt: known.and_then(|n| n.rtt),
        }
    });
    let groups = view
        .groups
        .iter()
        .map(|group| group_state(config, view, group, figures));
    Snapshot {
        taken: now,
        names: Arc::clone(names),
        profile: config.profile.name().into(),
        me: view.me,
        nodes: nodes.collect(),
        register_kind: "embedded".into(),
        register_reachable: view.register_reachable,
        groups: groups.collect(),
        problems: view.problems.iter().cloned().collect(),
    }
}

fn group_state(
    config: &Config,
    view: &View,
    group: &GroupView,
    figures: &AllFigures,
) -> GroupState {
    let role = group.roles.get(&view.me).copied().unwrap_or(Role::Settling);
    let record = group.record.as_ref();
    let resources = config
        .group(group.id)
        .map(|g| g.resources.as_slice())
        .unwrap_or_default();
    let mirrors = resources.iter().filter_map(|resource| match resource {
        Resource::Mirror(mirror) => Some(mirror.name.clone()),
        Resource::Filesystem(_) | Resource::Exec(_) | Resource::Address(_) => None,
    });
    let mirrors = (0..=u8::MAX).zip(mirrors);
    let state_of = |index: u8| resource_state(group, role, index);
    let addresses = (0..=u8::MAX)
        .zip(resources)
        .filter_map(|(index, resource)| match resource {
            Resource::Address(address) => Some(address_state(
                view.me,
                group,
                role,
                address,
                state_of(index),
            )),
            Resource::Mirror(_) | Resource::Filesystem(_) | Resource::Exec(_) => None,
        });
    GroupState {
        recorded: record.map(|r| r.active),
        serving: group.serving,
        epoch: record.map(|r| r.epoch),
        in_sync: record
            .map(|r| r.promotable().into_iter().collect())
            .unwrap_or_default(),
        role,
        held: record.is_some_and(|r| matches!(r.intent, Intent::Hold(_))),
        can_fail_over: group.can_fail_over,
        why_not: group.why_not,
        resources: (0..=u8::MAX)
            .zip(resources)
            .map(|(index, _)| state_of(index))
            .collect(),
        mirrors: mirrors
            .map(|(index, name)| {
                let figures = figures.get(&(group.id, index));
                mirror_state(name, (view.me, index), group, role, figures)
            })
            .collect(),
        addresses: addresses.collect(),
    }
}

fn resource_state(group: &GroupView, role: Role, index: u8) -> ResourceState {
    if group.changing == Some(index) {
        return if role == Role::Demoting {
            ResourceState::Stopping
        } else {
            ResourceState::Starting
        };
    }
    if group.running.contains(&index) {
        ResourceState::Running
    } else if group.serving.is_some() {
        ResourceState::Elsewhere
    } else {
        ResourceState::Stopped
    }
}

fn address_state(
    me: NodeId,
    group: &GroupView,
    role: Role,
    address: &crate::config::model::Address,
    state: ResourceState,
) -> AddressState {
    let (holder, condition) = match (state, role) {
        (ResourceState::Running, Role::Frozen) => (None, AddressCondition::Gated),
        (ResourceState::Running, _) => (Some(me), AddressCondition::Held),
        (ResourceState::Elsewhere, _) => (group.serving, AddressCondition::Elsewhere),
        (
            ResourceState::Starting
            | ResourceState::Stopping
            | ResourceState::Failed
            | ResourceState::Stopped,
            _,
        ) => (None, AddressCondition::Released),
    };
    AddressState {
        ip: address.ip,
        holder,
        driver: "l2",
        condition,
    }
}

/// Who holds writes of this mirror back. What another node holds may be of another mirror of the group: its beats do not say.
fn held_back(group: &GroupView, (me, mirror): (NodeId, u8)) -> Vec<(NodeId, ByteCount)> {
    let others = group.held_back.iter().map(|(node, bytes)| (*node, *bytes));
    let here = group.held_here.get(&mirror).map(|bytes| (me, *bytes));
    others.chain(here).collect()
}

fn mirror_state(
    name: String,
    (me, number): (NodeId, u8),
    group: &GroupView,
    role: Role,
    figures: Option<&Figures>,
) -> MirrorState {
    let held_back = held_back(group, (me, number));
    let Some(figures) = figures else {
        return MirrorState {
            name,
            condition: MirrorCondition::Detached,
            lag: ByteCount(0),
            lag_time: Duration::ZERO,
            out_of_sync: ByteCount(0),
            intent: ByteCount(0),
            resync_sent: ByteCount(0),
            cold_writes: 0,
            verify: None,
            growth: None,
            front_end: None,
            front_end_why: None,
            replica: None,
            differing: Places::default(),
            held_back,
            out_for: group.out_for,
        };
    };
    let out_of_sync = ByteCount(figures.out_of_sync.iter().map(|(_, bytes)| bytes.0).sum());
    let record = group.record.as_ref();
    // An asynchronous standby is as whole as it can be while it may be promoted.
    let all = record.is_some_and(|r| r.promotable().len() == r.members.len());
    let active = record.is_some_and(|r| r.active == me);
    let follower_up = group
        .roles
        .iter()
        .any(|(id, role)| *id != me && *role == Role::Standby);
    // With a wrong disk nothing is brought up to date.
    let wrong = matches!(group.why_not, Some((_, Obstacle::WrongDisk(_))));
    let condition = match (active, all, role) {
        (true, true, Role::Promoting) => MirrorCondition::Reconciling,
        (_, true, _) => MirrorCondition::InSync,
        (true, false, _) if follower_up && !wrong => MirrorCondition::Resyncing,
        (true, false, _) => MirrorCondition::Alone,
        (false, false, _) => MirrorCondition::Disconnected,
    };
    MirrorState {
        name,
        condition,
        lag: figures.lag,
        lag_time: figures.lag_age,
        out_of_sync,
        intent: ByteCount(figures.hot_regions * REGION_BYTES),
        resync_sent: figures.resync_sent,
        cold_writes: figures.cold_writes,
        verify: figures.verify.as_ref().map(verify_state),
        growth: figures.growth,
        front_end: None,
        front_end_why: None,
        replica: figures.replica.clone(),
        differing: figures.differing.clone(),
        held_back,
        out_for: group.out_for,
    }
}

fn verify_state(figures: &VerifyFigures) -> VerifyView {
    let result = &figures.result;
    VerifyView {
        number: figures.number,
        running: figures.running,
        total_bytes: result.total.0,
        checked_bytes: result.checked.0,
        different_bytes: result.different.0,
        unreadable_bytes: result.unreadable.0,
        repaired_bytes: result.repaired.0,
        ranges: result
            .ranges
            .iter()
            .map(|range| (range.offset(), range.len()))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_shows_what_its_own_replica_holds_back() {
        let (me, other) = (NodeId(0), NodeId(1));
        let group = GroupView {
            id: GroupId(0),
            record: None,
            roles: [].into(),
            serving: None,
            can_fail_over: false,
            why_not: None,
            held_back: [(other, ByteCount(4096))].into(),
            held_here: [(1, ByteCount(8192))].into(),
            out_for: None,
            running: [].into(),
            changing: None,
        };
        let theirs = (other, ByteCount(4096));
        assert_eq!(held_back(&group, (me, 0)), [theirs]);
        assert_eq!(held_back(&group, (me, 1)), [theirs, (me, ByteCount(8192))]);
    }
}
