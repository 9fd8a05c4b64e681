//! What status shows: a picture of the node's knowledge at one moment. Names and texts are the edge's.

use crate::group::Group;
use crate::machine::Node;
use std::collections::{BTreeMap, BTreeSet};
use wire::control::{LinkId, Obstacle, Role};
use wire::problem::Problem;
use wire::{ByteCount, Duration, GroupId, NodeId, Record, Time};

/// The whole picture.
#[derive(Clone, Debug)]
pub struct View {
    /// Who draws it.
    pub me: NodeId,
    /// All nodes.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// All groups.
    pub groups: Vec<GroupView>,
    /// What stands against readiness.
    pub problems: BTreeSet<Problem>,
    /// A majority of the register was heard within the suspicion time.
    pub register_reachable: bool,
}

/// One node.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// Heard on any link within the suspicion time.
    pub up: bool,
    /// Smoothed round trip over the best link; none for this node.
    pub rtt: Option<Duration>,
    /// Each link and whether it is heard.
    pub links: Vec<(LinkId, bool)>,
}

/// One group.
#[derive(Clone, Debug)]
pub struct GroupView {
    /// Which.
    pub id: GroupId,
    /// The record known here.
    pub record: Option<Record>,
    /// Each node's role, as it said last; this node's own is exact.
    pub roles: BTreeMap<NodeId, Role>,
    /// The node that serves, if it is known that one does.
    pub serving: Option<NodeId>,
    /// Another node could take over right now.
    pub can_fail_over: bool,
    /// If not: the closest standby and what stands against it.
    pub why_not: Option<(NodeId, Obstacle)>,
    /// Other nodes that hold back what a failover cut off in one of the mirrors, and how much.
    pub held_back: BTreeMap<NodeId, ByteCount>,
    /// What this node's replicas hold back, by the mirror's number.
    pub held_here: BTreeMap<u8, ByteCount>,
    /// For how long, at least, the record has this node's replicas out; none while they may be promoted.
    pub out_for: Option<Duration>,
    /// Resources that run on this node, by index.
    pub running: BTreeSet<u8>,
    /// A resource that is being started or stopped on this node.
    pub changing: Option<u8>,
}

impl Node {
    /// The picture at `now`.
    #[must_use]
    pub fn view(&self, now: Time) -> View {
        let nodes: BTreeMap<NodeId, NodeView> = self
            .config
            .nodes
            .keys()
            .map(|id| (*id, self.node_view(now, *id)))
            .collect();
        let heard = nodes.values().filter(|n| n.up).count();
        View {
            me: self.config.me,
            register_reachable: heard * 2 > nodes.len(),
            groups: self
                .groups
                .iter()
                .map(|g| self.group_view(now, g))
                .collect(),
            problems: self.find_problems(now),
            nodes,
        }
    }

    fn node_view(&self, now: Time, id: NodeId) -> NodeView {
        if id == self.config.me {
            return NodeView {
                up: true,
                rtt: None,
                links: Vec::new(),
            };
        }
        let links = self.config.links.get(&id).cloned().unwrap_or_default();
        NodeView {
            up: self.links.is_up(now, id),
            rtt: self.links.rtt(id),
            links: links
                .into_iter()
                .map(|l| (l, self.links.link_up(now, id, l)))
                .collect(),
        }
    }

    fn group_view(&self, now: Time, group: &Group) -> GroupView {
        let mut roles: BTreeMap<NodeId, Role> = (group.peers.iter())
            .filter(|(id, _)| self.links.is_up(now, **id))
            .map(|(id, (_, beat))| (*id, beat.role))
            .collect();
        roles.insert(self.config.me, group.role());
        let record = group.register.confirmed().cloned();
        let active = record.as_ref().map(|r| r.active);
        let serving = active.filter(|id| roles.get(id) == Some(&Role::Active));
        let why_not = self.no_standby(now, group);
        let (running, changing) = group.resources_running();
        let held_back = self.held_back(now, group);
        GroupView {
            id: group.id(),
            can_fail_over: record.is_some() && why_not.is_none(),
            record,
            roles,
            serving,
            why_not,
            held_back,
            held_here: group.held_here(),
            out_for: group.out_since.map(|since| now.since(since)),
            running,
            changing,
        }
    }

    /// A beat names the first obstacle of the group, and so at most one amount.
    fn held_back(&self, now: Time, group: &Group) -> BTreeMap<NodeId, ByteCount> {
        let heard = (group.peers.iter()).filter(|(id, _)| self.links.is_up(now, **id));
        let said = heard.filter_map(|(id, (_, beat))| Some((*id, beat.obstacle?)));
        said.filter_map(|(id, obstacle)| Some((id, obstacle.held_back()?)))
            .collect()
    }
}
