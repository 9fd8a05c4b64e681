//! What a node is told at birth.

use cluster::links::LinksConfig;
use std::collections::{BTreeMap, BTreeSet};
use wire::control::LinkId;
use wire::{Duration, GroupId, NodeId, SessionId};

/// A node's configuration: the part of the file that decisions depend on.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub me: NodeId,
    /// All nodes, this one included. All are members of the register.
    pub nodes: BTreeMap<NodeId, NodeRole>,
    /// Heartbeat links to each other node.
    pub links: BTreeMap<NodeId, Vec<LinkId>>,
    /// The profile's times.
    pub timing: Timing,
    /// All groups.
    pub groups: Vec<GroupConfig>,
    /// This process's life: random, drawn by the shell.
    pub life: SessionId,
    /// Seed of everything that looks random (nonces, back-off): drawn by the shell.
    pub seed: u64,
    /// False if this member's file was lost or rolled back: it does not vote (design §3, backend 1).
    pub voting: bool,
}

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeRole {
    /// Holds replicas, may become active.
    Data,
    /// Votes only.
    Witness,
}

/// A profile's times (design §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two beats on each link.
    pub beat: Duration,
    /// Silence on all links after which a node is suspected.
    pub suspect: Duration,
    /// The lease's length `T`.
    pub lease: Duration,
    /// What a grantor adds to `T`: clock drift of 1 % and then some.
    pub margin: Duration,
    /// Between two tries of an unanswered register message.
    pub retry: Duration,
    /// How long a restarted active waits for a kept replica before taking it out.
    pub reconcile: Duration,
}

impl Timing {
    /// One rack or one data centre; the default.
    pub const LAN: Self = Self {
        beat: Duration::from_millis(100),
        suspect: Duration::from_millis(500),
        lease: Duration::from_millis(1_000),
        margin: Duration::from_millis(50),
        retry: Duration::from_millis(50),
        reconcile: Duration::from_millis(1_000),
    };
    /// Quiet machines on a quiet network.
    pub const FAST: Self = Self {
        beat: Duration::from_millis(20),
        suspect: Duration::from_millis(100),
        lease: Duration::from_millis(250),
        margin: Duration::from_millis(15),
        retry: Duration::from_millis(20),
        reconcile: Duration::from_millis(500),
    };
    /// Two availability zones.
    pub const CLOUD: Self = Self {
        beat: Duration::from_millis(200),
        suspect: Duration::from_millis(2_000),
        lease: Duration::from_millis(4_000),
        margin: Duration::from_millis(100),
        retry: Duration::from_millis(100),
        reconcile: Duration::from_millis(3_000),
    };
}

/// A group's configuration.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// Which group.
    pub id: GroupId,
    /// Nodes with a replica.
    pub members: BTreeSet<NodeId>,
    /// Members that nobody waits for: of two replicas of which one is named here the active one acknowledges before the other has a
    /// write. That other one is *eligible* while it is within its bound, and the group fails over to it by itself (R11) if none
    /// that holds everything can. Such a group has one mirror: the order of writes is kept per group (R13).
    pub apart: BTreeSet<NodeId>,
    /// Number of mirrors; all share the epoch and the sets (R13).
    pub mirrors: u8,
    /// In the order of starting.
    pub resources: Vec<ResourceConfig>,
}

/// A resource's configuration: what decisions depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceConfig {
    /// What it is.
    pub kind: ResourceKind,
    /// Failures within `window` that are answered by a restart; one more moves the group.
    pub restarts: u32,
    /// See `restarts`.
    pub window: Duration,
}

/// Kinds of resources, as far as decisions differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    /// The device of the mirror with this index.
    Mirror(u8),
    /// A filesystem, a service, an address: started, stopped and watched by the shell.
    Plain,
}

impl GroupConfig {
    /// True if these two replicas do not wait for each other.
    #[must_use]
    pub fn are_apart(&self, one: NodeId, other: NodeId) -> bool {
        self.apart.contains(&one) || self.apart.contains(&other)
    }
}

impl Config {
    /// The links' part.
    #[must_use]
    pub fn links_config(&self) -> LinksConfig {
        LinksConfig {
            me: self.me,
            peers: self.links.clone(),
            beat: self.timing.beat,
            suspect: self.timing.suspect,
        }
    }

    /// All members of the register.
    #[must_use]
    pub fn members(&self) -> BTreeSet<NodeId> {
        self.nodes.keys().copied().collect()
    }
}
