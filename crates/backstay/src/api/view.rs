//! What status shows: [`Snapshot`] is the daemon's knowledge in ids, [`Status`] the document in names and words.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wire::control::{Obstacle, Role};
use wire::problem::Problem;
use wire::{Epoch, GroupId, NodeId, Time};

pub use super::mirror::{
    GrowthView, HeldView, MirrorCondition, MirrorState, MirrorView, ReplicaCondition, ReplicaView,
    VerifyView,
};
use crate::exit::Exit;
use crate::output::Lang;
use crate::render::amount;
use crate::render::names::Names;
use crate::render::problem::ProblemView;
use crate::render::words::Words;

/// Schema of the status document.
pub const STATUS_SCHEMA: &str = "backstay.status/1";

/// What one node knows of the cluster at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// When it was taken, on the node's own clock.
    pub taken: Time,
    /// Names of the ids.
    pub names: Arc<Names>,
    /// The profile, such as `lan`.
    pub profile: String,
    /// This node.
    pub me: NodeId,
    /// Nodes by [`NodeId`].
    pub nodes: Vec<NodeState>,
    /// Kind of the register, such as `embedded`.
    pub register_kind: String,
    /// A majority of the register answers.
    pub register_reachable: bool,
    /// Groups by [`GroupId`].
    pub groups: Vec<GroupState>,
    /// What stands against readiness.
    pub problems: Vec<Problem>,
}

/// What is known of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// True for a node without replicas.
    pub witness: bool,
    /// Heard within the suspicion time; true for this node.
    pub up: bool,
    /// Round trip over the best link; none for this node and for silent ones.
    pub rtt: Option<Duration>,
}

/// What is known of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupState {
    /// The node that the record names; none before there is a record.
    pub recorded: Option<NodeId>,
    /// The node that serves, if it is known that one does.
    pub serving: Option<NodeId>,
    /// Epoch of the record.
    pub epoch: Option<Epoch>,
    /// Nodes that hold every acknowledged write, or (asynchronous) all but what the bound allows, by the record: any may take over.
    pub in_sync: Vec<NodeId>,
    /// What this node does for the group.
    pub role: Role,
    /// A person or the restart limit keeps it stopped.
    pub held: bool,
    /// Another node could take over now.
    pub can_fail_over: bool,
    /// If not: the closest candidate and what stands against it.
    pub why_not: Option<(NodeId, Obstacle)>,
    /// State of each resource, in the order of the configuration.
    pub resources: Vec<ResourceState>,
    /// Mirrors, in the order of the configuration.
    pub mirrors: Vec<MirrorState>,
    /// Addresses, in the order of the configuration.
    pub addresses: Vec<AddressState>,
}

/// State of a resource as this node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResourceState {
    /// Runs here.
    Running,
    /// Is being started here.
    Starting,
    /// Is being stopped here.
    Stopping,
    /// Failed here and is to be restarted.
    Failed,
    /// Not running here, and the group is served nowhere that is known.
    Stopped,
    /// Not running here; another node serves the group and knows more.
    Elsewhere,
}

/// An address as this node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressState {
    /// The address.
    pub ip: IpAddr,
    /// The node that has it.
    pub holder: Option<NodeId>,
    /// How the network learns it.
    pub driver: &'static str,
    /// How it stands here.
    pub condition: AddressCondition,
}

/// How an address stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressCondition {
    /// On an interface of this node, and its gate is open.
    Held,
    /// On an interface of this node, but silent: the lease is not confirmed.
    Gated,
    /// Another node has it.
    Elsewhere,
    /// Nobody has it.
    Released,
    /// It could not be put on the interface.
    Failed,
}

/// The status document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`STATUS_SCHEMA`].
    pub schema: String,
    /// Every group can fail over now.
    pub ready: bool,
    /// What stands against it, and what else is wrong.
    pub problems: Vec<ProblemView>,
    /// The cluster.
    pub cluster: Option<String>,
    /// The node that answered.
    pub node: Option<String>,
    /// The profile.
    pub profile: Option<String>,
    /// All nodes.
    pub nodes: Vec<NodeView>,
    /// Age of the answering node's picture, in milliseconds.
    pub view_age_ms: Option<f64>,
    /// The register.
    pub register: RegisterView,
    /// All groups.
    pub groups: Vec<GroupView>,
    /// Tunnels; empty in this release.
    pub vpn: Vec<serde_json::Value>,
}

/// A node in the status document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// `active` (of any group), `standby`, `witness`, or `frozen`: active by the record, but answering nothing.
    pub role: String,
    /// Heard by the answering node.
    pub up: bool,
    /// Round trip in milliseconds; null for the answering node.
    pub rtt_ms: Option<f64>,
}

/// The register in the status document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterView {
    /// Such as `embedded`; null when not known.
    pub kind: Option<String>,
    /// A majority answers.
    pub reachable: bool,
}

/// How a group is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// A node serves it.
    Active,
    /// A node is starting or stopping it.
    Changing,
    /// Its active answers nothing, because no lease is confirmed.
    Frozen,
    /// Kept stopped.
    Held,
    /// Nobody is known to serve it.
    Down,
}

/// A group in the status document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupView {
    /// Its name.
    pub name: String,
    /// The node that serves it.
    pub active: Option<String>,
    /// The node that the record names, whether it serves or not.
    #[serde(default)]
    pub recorded: Option<String>,
    /// How it is served.
    pub state: Service,
    /// Epoch of its record.
    pub epoch: Option<u64>,
    /// Nodes that hold every acknowledged write.
    pub in_sync: Vec<String>,
    /// Another node could take over now.
    pub can_fail_over: bool,
    /// If not: why, in words.
    pub why_not: Option<String>,
    /// Resources in order.
    pub resources: Vec<ResourceView>,
    /// Mirrors in order.
    pub mirrors: Vec<MirrorView>,
    /// Addresses in order.
    pub addresses: Vec<AddressView>,
}

/// A resource in the status document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceView {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Its state, as the answering node knows it.
    pub state: ResourceState,
}

/// An address in the status document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressView {
    /// The address.
    pub ip: IpAddr,
    /// The node that has it.
    pub holder: Option<String>,
    /// How the network learns it.
    pub driver: String,
    /// How it stands, as the answering node knows it.
    pub state: AddressCondition,
}

impl Snapshot {
    /// The status document at `now`, on the clock of [`Snapshot::taken`].
    pub fn status(&self, lang: Lang, now: Time) -> Status {
        let words = Words {
            lang,
            names: &self.names,
        };
        let groups: Vec<GroupView> = (0..=u8::MAX)
            .zip(&self.groups)
            .map(|(id, group)| group.view(&words, GroupId(id)))
            .collect();
        let ids = (0..=NodeId::MAX.0).map(NodeId);
        Status {
            schema: STATUS_SCHEMA.into(),
            ready: !groups.is_empty() && groups.iter().all(|group| group.exit() == Exit::Ready),
            problems: self
                .problems
                .iter()
                .map(|one| ProblemView::new(&words, one))
                .collect(),
            cluster: Some(self.names.cluster.clone()),
            node: Some(self.names.node(self.me)),
            profile: Some(self.profile.clone()),
            nodes: ids
                .zip(&self.nodes)
                .map(|(id, node)| self.node_view(id, *node))
                .collect(),
            view_age_ms: Some(amount::ms(now.since(self.taken))),
            register: RegisterView {
                kind: Some(self.register_kind.clone()),
                reachable: self.register_reachable,
            },
            groups,
            vpn: Vec::new(),
        }
    }

    fn node_view(&self, id: NodeId, node: NodeState) -> NodeView {
        let role = if node.witness {
            "witness"
        } else if self.groups.iter().any(|group| group.serving == Some(id)) {
            "active"
        } else if id == self.me && self.groups.iter().any(|group| group.role == Role::Frozen) {
            "frozen"
        } else {
            "standby"
        };
        let rtt_ms = node.rtt.map(amount::ms);
        NodeView {
            name: self.names.node(id),
            role: role.into(),
            up: node.up,
            rtt_ms,
        }
    }
}

impl GroupState {
    fn service(&self) -> Service {
        if self.held {
            return Service::Held;
        }
        if self.serving.is_some() {
            return Service::Active;
        }
        match self.role {
            Role::Frozen => Service::Frozen,
            Role::Promoting | Role::Demoting => Service::Changing,
            Role::Witness | Role::Settling | Role::Standby | Role::Active | Role::Held => {
                Service::Down
            }
        }
    }

    fn view(&self, words: &Words<'_>, id: GroupId) -> GroupView {
        let names = words.names;
        let why_not = match self.why_not {
            Some((node, obstacle)) => {
                Some(format!("{} {}", names.node(node), words.obstacle(obstacle)))
            }
            None if !self.can_fail_over => Some(words.plain("status.why-unknown")),
            None => None,
        };
        let known = names.groups.get(usize::from(id.0));
        let resource_names = known
            .map(|group| group.resources.as_slice())
            .unwrap_or_default();
        GroupView {
            name: names.group(id),
            active: self.serving.map(|node| names.node(node)),
            recorded: self.recorded.map(|node| names.node(node)),
            state: self.service(),
            epoch: self.epoch.map(|epoch| epoch.0),
            in_sync: self.in_sync.iter().map(|node| names.node(*node)).collect(),
            can_fail_over: self.can_fail_over,
            why_not,
            resources: resource_names
                .iter()
                .zip(&self.resources)
                .map(|(resource, state)| ResourceView {
                    name: resource.name.clone(),
                    kind: resource.kind.clone(),
                    state: *state,
                })
                .collect(),
            mirrors: self.mirrors.iter().map(|one| one.view(names)).collect(),
            addresses: self
                .addresses
                .iter()
                .map(|address| address.view(names))
                .collect(),
        }
    }
}

impl AddressState {
    fn view(&self, names: &Names) -> AddressView {
        AddressView {
            ip: self.ip,
            holder: self.holder.map(|node| names.node(node)),
            driver: self.driver.into(),
            state: self.condition,
        }
    }
}

impl GroupView {
    /// This group's part in the exit code of `status`.
    pub const fn exit(&self) -> Exit {
        match self.state {
            Service::Active if self.can_fail_over => Exit::Ready,
            Service::Active => Exit::Degraded,
            Service::Changing | Service::Frozen | Service::Held | Service::Down => Exit::Down,
        }
    }
}

impl Status {
    /// The document when nobody answers: nothing is known, and it says so.
    pub fn unknown(problem: ProblemView) -> Self {
        Self {
            schema: STATUS_SCHEMA.into(),
            ready: false,
            problems: vec![problem],
            cluster: None,
            node: None,
            profile: None,
            nodes: Vec::new(),
            view_age_ms: None,
            register: RegisterView {
                kind: None,
                reachable: false,
            },
            groups: Vec::new(),
            vpn: Vec::new(),
        }
    }

    /// The exit code of `status`: the worst group's; unknown when no group is known.
    pub fn exit(&self) -> Exit {
        self.groups
            .iter()
            .map(GroupView::exit)
            .max()
            .unwrap_or(Exit::Unknown)
    }
}
