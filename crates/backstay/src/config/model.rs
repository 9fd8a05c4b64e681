//! A checked configuration. Everything here is consistent; see `check` for what that means.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use std::collections::BTreeSet;
use wire::{ByteCount, GroupId, NodeId};

use super::profile::{Profile, Timings};

/// A whole cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of the cluster.
    pub cluster: String,
    /// How fast failures are detected.
    pub profile: Profile,
    /// TLS on the mirror link.
    pub tls: bool,
    /// Ports, the same on every node.
    pub ports: Ports,
    /// Nodes; a [`NodeId`] is a place in this list. Invariant: two data nodes and at most one witness.
    pub nodes: Vec<Node>,
    /// Where the record is kept.
    pub register: Register,
    /// Groups; a [`GroupId`] is a place in this list. Never empty.
    pub groups: Vec<Group>,
    /// What only labs use.
    pub lab: Lab,
}

/// Ports of every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// UDP: heartbeats, leases, register messages.
    pub heartbeat: u16,
    /// TCP: session handshakes.
    pub control: u16,
    /// TCP: mirrored writes.
    pub mirror: u16,
    /// TCP on loopback: metrics and health checks.
    pub api: u16,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name; unique.
    pub name: String,
    /// What it does, with the addresses that this needs.
    pub role: NodeRole,
    /// What fails together.
    pub zone: Option<String>,
    /// One address per heartbeat link. Invariant: as many on every node, at least one.
    pub heartbeat: Vec<IpAddr>,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeRole {
    /// Holds a replica and may be active.
    Data {
        /// Address on the service network.
        service: IpAddr,
        /// Address on the mirror network.
        mirror: IpAddr,
    },
    /// Only votes.
    Witness,
}

/// Where the record is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Among the nodes.
    Embedded,
}

/// What fails over together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Name; unique.
    pub name: String,
    /// Resources in the order in which they start. Never empty.
    pub resources: Vec<Resource>,
}

/// One resource of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A replicated volume.
    Mirror(Mirror),
    /// A file system on a mirror.
    Filesystem(Filesystem),
    /// A program.
    Exec(Exec),
    /// An address.
    Address(Address),
}

/// A replicated volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Name; unique in the cluster.
    pub name: String,
    /// The disk on each data node, by [`NodeId`]. Invariant: one entry per data node.
    pub disks: Vec<(NodeId, PathBuf)>,
    /// The device of the disk's metadata, on each data node where that is not at the disk's end.
    pub metadata: Vec<(NodeId, PathBuf)>,
    /// The undo log of resyncs, on each data node that has one.
    pub undo: Vec<(NodeId, PathBuf)>,
    /// Most bytes of it.
    pub undo_bound: ByteCount,
    /// When a write is acknowledged.
    pub mode: Mode,
    /// Only for [`Mode::Sync`]: the data node whose replica nobody waits for. Of three one may be such.
    pub async_node: Option<String>,
    /// Only for [`Mode::Sync`]: what an acknowledged plain write is worth.
    pub ack: Ack,
    /// Only for asynchronous replicas: most bytes that the standby may lack before it is brought back by resync.
    pub max_lag: ByteCount,
    /// Only for asynchronous replicas: longest time that the standby may lack a write.
    pub max_lag_time: Duration,
    /// Size of the volume; none: what fits on the smaller disk.
    pub size: Option<ByteCount>,
    /// How programs reach it.
    pub front_end: FrontEnd,
    /// Most bytes that are resynchronised after a crash of the active.
    pub intent_bound: ByteCount,
    /// What is sent to the other replicas is packed with LZ4.
    pub compress: bool,
}

/// What an acknowledged plain write of a synchronous mirror is worth; flushes and writes with FUA are worth the same in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// Every replica in sync has it.
    Write,
    /// It is local, and sent to every replica in sync.
    Flush,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// When every replica in sync has it.
    Sync,
    /// When the active has it.
    Async,
}

/// How programs reach a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontEnd {
    /// The best block device that this kernel has, if the group needs one, and the NBD socket.
    Auto,
    /// A ublk device, and the NBD socket.
    Ublk,
    /// A device of the kernel's NBD client, and the NBD socket.
    Nbd,
    /// A loop device over a FUSE file, and the NBD socket.
    FuseLoop,
    /// Only the NBD socket.
    NbdSocket,
}

impl FrontEnd {
    /// As in the configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ublk => "ublk",
            Self::Nbd => "nbd",
            Self::FuseLoop => "fuse-loop",
            Self::NbdSocket => "nbd-socket",
        }
    }
}

/// A file system on a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// Name of the mirror; it is in the same group and earlier.
    pub mirror: String,
    /// Where it is mounted; absolute.
    pub mount: PathBuf,
    /// Its type, such as `ext4`.
    pub fstype: String,
    /// Mount options, as in fstab; empty for none.
    pub options: String,
}

/// A program that is started, watched and stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Name; unique in the group.
    pub name: String,
    /// Program and arguments; stays in the foreground.
    pub start: Vec<String>,
    /// Asks it to stop; none: SIGTERM.
    pub stop: Option<Vec<String>>,
    /// Ends with 0 while it is healthy; none: it is healthy while it runs.
    pub monitor: Option<Vec<String>>,
    /// User to run as; none: the daemon's.
    pub user: Option<String>,
    /// Between two monitor runs; also a run's time limit.
    pub monitor_interval: Duration,
    /// Restarts here within `restart_window` before failing over.
    pub restart: u32,
    /// Restarts are counted in it.
    pub restart_window: Duration,
    /// Longest start.
    pub start_timeout: Duration,
    /// Longest stop before SIGKILL.
    pub stop_timeout: Duration,
}

/// An address that follows the active node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Length of its prefix; at most 32 (IPv4) or 128 (IPv6).
    pub prefix: u8,
    /// How the network learns where it is.
    pub driver: AddressDriver,
    /// Interface; none: the one that has the node's service address.
    pub interface: Option<String>,
}

/// How the network learns where an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressDriver {
    /// Gratuitous ARP or neighbour advertisements in one subnet.
    L2,
}

/// What only labs use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lab {
    /// Puts the fault shim below the engine's disk I/O.
    pub fault_shim: bool,
}

impl Config {
    /// Time limits of the profile.
    pub const fn timings(&self) -> Timings {
        self.profile.timings()
    }

    /// The id of the node with this name.
    pub fn node_id(&self, name: &str) -> Option<NodeId> {
        let index = self.nodes.iter().position(|node| node.name == name)?;
        u8::try_from(index).ok().map(NodeId)
    }

    /// The id of the group with this name.
    pub fn group_id(&self, name: &str) -> Option<GroupId> {
        let index = self.groups.iter().position(|group| group.name == name)?;
        u8::try_from(index).ok().map(GroupId)
    }

    /// The node with this id, if there is one.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(usize::from(id.0))
    }

    /// The group with this id, if there is one.
    pub fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(usize::from(id.0))
    }

    /// All nodes with their ids.
    pub fn nodes_by_id(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        (0..=NodeId::MAX.0).map(NodeId).zip(&self.nodes)
    }

    /// All groups with their ids.
    pub fn groups_by_id(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        (0..=u8::MAX).map(GroupId).zip(&self.groups)
    }

    /// The node that owns one of these addresses: how a machine finds itself in the file.
    pub fn node_with_address(&self, local: &[IpAddr]) -> Option<NodeId> {
        self.nodes_by_id()
            .find(|(_, node)| node.addresses().any(|address| local.contains(&address)))
            .map(|(id, _)| id)
    }
}

impl Node {
    /// True for a node that holds replicas.
    pub const fn is_data(&self) -> bool {
        matches!(self.role, NodeRole::Data { .. })
    }

    /// Every address of the node; one that serves several networks comes more than once.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let of_role = match self.role {
            NodeRole::Data { service, mirror } => [Some(service), Some(mirror)],
            NodeRole::Witness => [None, None],
        };
        of_role
            .into_iter()
            .flatten()
            .chain(self.heartbeat.iter().copied())
    }
}

impl Group {
    /// The mirrors of the group, in order.
    pub fn mirrors(&self) -> impl Iterator<Item = &Mirror> {
        self.resources.iter().filter_map(|resource| match resource {
            Resource::Mirror(mirror) => Some(mirror),
            Resource::Filesystem(_) | Resource::Exec(_) | Resource::Address(_) => None,
        })
    }
}

impl Mirror {
    /// True if a replica may be behind.
    #[must_use]
    pub const fn has_followers(&self) -> bool {
        matches!(self.mode, Mode::Async) || self.async_node.is_some()
    }

    /// The nodes whose replicas the others do not wait for.
    #[must_use]
    pub fn apart(&self, config: &Config) -> BTreeSet<NodeId> {
        let named =
            |name: &str| self.mode == Mode::Async || self.async_node.as_deref() == Some(name);
        let data = config.nodes_by_id().filter(|(_, node)| node.is_data());
        data.filter(|(_, node)| named(&node.name))
            .map(|(id, _)| id)
            .collect()
    }

    /// The disk on a node; none on a witness.
    pub fn disk(&self, node: NodeId) -> Option<&PathBuf> {
        on(&self.disks, node)
    }

    /// The device of its metadata on a node; none if that is at the disk's end.
    pub fn metadata(&self, node: NodeId) -> Option<&PathBuf> {
        on(&self.metadata, node)
    }

    /// The undo log of resyncs to a node's replica, and the most bytes that it may take; none: they have no way back.
    #[must_use]
    pub fn undo(&self, node: NodeId) -> Option<(PathBuf, u64)> {
        Some((on(&self.undo, node)?.clone(), self.undo_bound.0))
    }
}

fn on(paths: &[(NodeId, PathBuf)], node: NodeId) -> Option<&PathBuf> {
    let found = paths.iter().find(|(id, _)| *id == node);
    found.map(|(_, path)| path)
}

impl Resource {
    /// Name in status and events: its own, or the mount point, or the address.
    pub fn name(&self) -> String {
        match self {
            Self::Mirror(mirror) => mirror.name.clone(),
            Self::Filesystem(filesystem) => filesystem.mount.display().to_string(),
            Self::Exec(exec) => exec.name.clone(),
            Self::Address(address) => address.ip.to_string(),
        }
    }

    /// Kind, as in the file.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Mirror(_) => "mirror",
            Self::Filesystem(_) => "filesystem",
            Self::Exec(_) => "exec",
            Self::Address(_) => "address",
        }
    }
}
