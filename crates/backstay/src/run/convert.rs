//! The configuration file's content as the node's core wants it.

use crate::config::model::{Config, Group, Resource};
use crate::config::profile::Profile;
use node::{GroupConfig, NodeRole, ResourceConfig, ResourceKind, Timing};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::control::LinkId;
use wire::{GroupId, NodeId, SessionId};

/// Failures of a resource without a budget of its own: the first one already moves the group.
const NO_RESTARTS: (u32, Duration) = (0, Duration::from_secs(60));

/// What the core is told at birth. `life` and `seed` are random.
pub(super) fn node_config(
    config: &Config,
    me: NodeId,
    voting: bool,
    life: SessionId,
    seed: u64,
) -> node::Config {
    let role = |node: &crate::config::model::Node| {
        if node.is_data() {
            NodeRole::Data
        } else {
            NodeRole::Witness
        }
    };
    let nodes: BTreeMap<NodeId, NodeRole> = config
        .nodes_by_id()
        .map(|(id, node)| (id, role(node)))
        .collect();
    let links = config
        .nodes_by_id()
        .filter(|(id, _)| *id != me)
        .map(|(id, node)| (id, (0..).map(LinkId).take(node.heartbeat.len()).collect()))
        .collect();
    let members: BTreeSet<NodeId> = nodes
        .iter()
        .filter(|(_, role)| **role == NodeRole::Data)
        .map(|(id, _)| *id)
        .collect();
    let groups = config
        .groups_by_id()
        .map(|(id, group)| group_config(config, id, group, &members));
    node::Config {
        me,
        groups: groups.collect(),
        nodes,
        links,
        timing: timing(config.profile),
        life,
        seed,
        voting,
    }
}

const fn timing(profile: Profile) -> Timing {
    match profile {
        Profile::Lan => Timing::LAN,
        Profile::Fast => Timing::FAST,
        Profile::Cloud => Timing::CLOUD,
    }
}

fn group_config(
    config: &Config,
    id: GroupId,
    group: &Group,
    members: &BTreeSet<NodeId>,
) -> GroupConfig {
    let mut mirrors = 0;
    let resources = group.resources.iter().map(|resource| {
        let (kind, (restarts, window)) = match resource {
            Resource::Mirror(_) => {
                mirrors += 1;
                (ResourceKind::Mirror(mirrors - 1), NO_RESTARTS)
            }
            Resource::Exec(exec) => (ResourceKind::Plain, (exec.restart, exec.restart_window)),
            Resource::Filesystem(_) | Resource::Address(_) => (ResourceKind::Plain, NO_RESTARTS),
        };
        ResourceConfig {
            kind,
            restarts,
            window,
        }
    });
    let resources = resources.collect();
    GroupConfig {
        id,
        members: members.clone(),
        apart: group
            .mirrors()
            .flat_map(|mirror| mirror.apart(config))
            .collect(),
        mirrors,
        resources,
    }
}
