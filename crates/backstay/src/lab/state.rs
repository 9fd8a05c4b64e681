//! `lab.json`: what a lab consists of and what is broken in it, so that any later command can go on from there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::cut::Cut;
use super::topology::{LabId, Node, Outsider};
use super::{init, process};
use crate::failure::Failure;

/// Version of the file.
const SCHEMA: &str = "backstay.lab-state/1";

/// How the lab was asked to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Replication.
    pub mode: Mode,
    /// Nodes with a replica: 2, and a witness with them, or 3.
    #[serde(default = "two")]
    pub replicas: u8,
    /// Size of the mirrored volume in bytes.
    pub size_bytes: u64,
    /// Encryption of the mirror link.
    pub tls: Switch,
    /// Timing.
    pub profile: Profile,
    /// What runs in the group.
    pub workload: Workload,
    /// How programs reach the mirrored volume; none: by what suits the workload.
    #[serde(default)]
    pub front_end: Option<FrontEnd>,
    /// The file system on it, if there is one.
    #[serde(default)]
    pub fstype: FileSystem,
    /// What goes over the mirror link is packed.
    #[serde(default)]
    pub compress: bool,
    /// The first sync copies used blocks only; the disks are full of rubbish before.
    #[serde(default)]
    pub used_only: bool,
    /// The mirror's metadata is on a device of its own.
    #[serde(default)]
    pub external: bool,
    /// Each data node has an undo log.
    #[serde(default)]
    pub undo: bool,
    /// For measurements.
    #[serde(default)]
    pub bench: Bench,
}

const fn two() -> u8 {
    2
}

/// What a measurement wants otherwise than a lab to break.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bench {
    /// The disks are files without a fault shim before them: their faults and `power` do nothing.
    pub plain_disks: bool,
    /// When a write is complete; none: as the configuration's default says.
    #[serde(default)]
    pub ack: Option<Ack>,
    /// How late each frame of a slow link is, in microseconds; none: as late as the fault says.
    #[serde(default)]
    pub slow_us: Option<u32>,
}

impl Bench {
    /// Nothing.
    pub const NONE: Self = Self {
        plain_disks: false,
        ack: None,
        slow_us: None,
    };
}

/// When a synchronous mirror's write is complete, as in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Ack {
    /// Once both nodes have it
    Write,
    /// Once it is here and sent; a flush, once everything before is durable on both
    Flush,
}

/// Front ends, as in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FrontEnd {
    /// The best block device that this kernel has
    Auto,
    /// A ublk device
    Ublk,
    /// A device of the kernel's NBD client
    Nbd,
    /// A loop device on a FUSE file
    FuseLoop,
    /// No block device, only the NBD socket
    NbdSocket,
}

/// File systems on the mirrored volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FileSystem {
    /// Needs 32 MiB at least
    #[default]
    Ext4,
    /// Needs 300 MiB at least
    Xfs,
}

/// Replication mode of the mirror.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// A write is acknowledged once both nodes have it
    #[default]
    Sync,
    /// A write is acknowledged once the active node has it
    Async,
}

/// On or off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Switch {
    /// Yes
    #[default]
    On,
    /// No
    Off,
}

/// Time limits of the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Suspect after 500 ms, lease 1 s
    #[default]
    Lan,
    /// Suspect after 100 ms, lease 250 ms
    Fast,
    /// Suspect after 2 s, lease 4 s
    Cloud,
}

/// What runs in the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Nothing: no mount, the NBD socket is the mirror's only user
    #[default]
    None,
    /// The embedded ledger of numbered rows
    Ledger,
    /// A PostgreSQL server on the mirrored file system
    Postgres,
}

/// The word that stands for a value on the command line and in the configuration.
pub fn word(value: impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}

/// How a node is kept from working.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// It runs.
    Up,
    /// Everything was killed and its plugs are pulled.
    Killed,
    /// Every process has got SIGSTOP.
    Stopped,
    /// Its control group is frozen.
    Paused,
}

/// One node of the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Which.
    pub node: Node,
    /// Its first process, as seen outside.
    pub pid: Option<i32>,
    /// The process beside it that holds its mounts.
    #[serde(default)]
    pub holder: Option<i32>,
    /// Whether it works.
    pub condition: Condition,
}

/// A lab: its options and what was done to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lab {
    schema: String,
    /// Names its namespaces.
    pub id: LabId,
    /// Holds all of its files; absolute.
    pub dir: PathBuf,
    /// True if `lab up` made the directory, so that `lab down` removes it.
    pub owns_dir: bool,
    /// As asked for.
    pub options: Options,
    /// One per node.
    pub nodes: Vec<NodeState>,
    /// Broken links.
    pub cuts: Vec<Cut>,
}

impl Lab {
    /// A lab in which nothing runs yet.
    pub fn new(dir: PathBuf, owns_dir: bool, options: Options) -> Self {
        let nodes = Node::of_lab(options.replicas)
            .map(|node| NodeState {
                node,
                pid: None,
                holder: None,
                condition: Condition::Killed,
            })
            .to_vec();
        let id = LabId::of_dir(&dir);
        Self {
            schema: SCHEMA.to_owned(),
            id,
            dir,
            owns_dir,
            options,
            nodes,
            cuts: Vec::new(),
        }
    }

    /// Reads the lab in `dir`.
    ///
    /// # Errors
    /// When there is none, or its file cannot be understood.
    pub fn load(dir: &Path) -> Result<Self, Failure> {
        let path = state_file(dir);
        let text = fs::read_to_string(&path).map_err(|error| {
            Failure::new(format!("there is no lab in {}", dir.display()))
                .cause(format!("cannot read {}: {error}", path.display()))
                .hint("start one with `backstay lab up`")
        })?;
        let lab: Self = serde_json::from_str(&text).map_err(|error| {
            Failure::new(format!("cannot understand {}", path.display()))
                .cause(error)
                .hint("remove the lab with `backstay lab down`")
        })?;
        Ok(lab)
    }

    /// Writes `lab.json`; a crash leaves the old one or the new one.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn save(&self) -> Result<(), Failure> {
        let path = state_file(&self.dir);
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(format!("cannot write {}", path.display())).cause(error)
        };
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(&error))?;
        let fresh = path.with_extension("json.new");
        fs::write(&fresh, text).map_err(|error| failed(&error))?;
        fs::rename(&fresh, &path).map_err(|error| failed(&error))
    }

    /// Its nodes, in the order of the configuration.
    pub fn members(&self) -> impl Iterator<Item = Node> + use<> {
        Node::of_lab(self.options.replicas).into_iter()
    }

    /// Its nodes that hold a replica.
    pub fn data_nodes(&self) -> impl Iterator<Item = Node> + use<> {
        self.members().filter(|node| node.is_data())
    }

    /// The ports of its switch.
    pub fn ports(&self) -> BTreeSet<String> {
        let of_node = |node: Node| {
            node.networks()
                .iter()
                .map(move |network| node.port(*network))
        };
        let client = std::iter::once(Outsider::Client.port());
        self.members().flat_map(of_node).chain(client).collect()
    }

    /// A node's part of the state; none if this lab does not have it.
    pub fn node(&self, node: Node) -> Option<&NodeState> {
        self.nodes.iter().find(|state| state.node == node)
    }

    /// What the lab has done to a node. One that it does not have is down.
    pub fn condition(&self, node: Node) -> Condition {
        let state = self.node(node);
        state.map_or(Condition::Killed, |state| state.condition)
    }

    /// A node's part of the state, to change it.
    pub fn node_mut(&mut self, node: Node) -> Option<&mut NodeState> {
        self.nodes.iter_mut().find(|state| state.node == node)
    }

    /// The node's first process if it lives (and is not a later one that got the same number).
    pub fn live_pid(&self, node: Node) -> Option<Pid> {
        let pid = self.node(node)?.pid.and_then(Pid::from_raw)?;
        let line = process::command_line(pid);
        let ours = self.node_dir(node).display().to_string();
        (line.contains(init::COMMAND) && line.contains(&ours)).then_some(pid)
    }

    /// Directory of a node's files.
    pub fn node_dir(&self, node: Node) -> PathBuf {
        self.dir.join(node.name())
    }

    /// A node's backing disk, a file.
    pub fn disk(&self, node: Node) -> PathBuf {
        self.node_dir(node).join("disk")
    }

    /// The device of its metadata, a file, if that is not at the disk's end.
    pub fn metadata(&self, node: Node) -> Option<PathBuf> {
        let device = self.node_dir(node).join("metadata");
        self.options.external.then_some(device)
    }

    /// The undo log of resyncs to its disk, a file, if there is one.
    pub fn undo(&self, node: Node) -> Option<PathBuf> {
        let log = self.node_dir(node).join("undo");
        self.options.undo.then_some(log)
    }

    /// Where the fault shim of a node's disk is controlled.
    pub fn disk_fault_dir(&self, node: Node) -> PathBuf {
        self.state_dir(node)
            .join(format!("fault-{}", super::topology::MIRROR))
    }

    /// A node's state directory.
    pub fn state_dir(&self, node: Node) -> PathBuf {
        self.node_dir(node).join("state")
    }

    /// The socket of a node's API, reachable from everywhere on this machine.
    pub fn api_socket(&self, node: Node) -> PathBuf {
        self.state_dir(node).join("run/api.sock")
    }

    /// The socket of a node's NBD server.
    pub fn nbd_socket(&self, node: Node) -> PathBuf {
        self.state_dir(node)
            .join(format!("run/nbd-{}.sock", super::topology::MIRROR))
    }

    /// The event log of a node.
    pub fn event_log(&self, node: Node) -> PathBuf {
        self.state_dir(node).join("events/events.jsonl")
    }

    /// What the daemon of a node says.
    pub fn log(&self, node: Node) -> PathBuf {
        self.node_dir(node).join("daemon.log")
    }

    /// The cluster's configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.join("backstay.toml")
    }

    /// Where the active mounts the mirrored file system, in its own mount namespace.
    pub fn mount(&self) -> PathBuf {
        self.dir.join("mnt")
    }

    /// What the exec resource runs.
    pub fn start_script(&self) -> PathBuf {
        self.dir.join("start-app")
    }

    /// While this file exists, the workload ends as soon as it starts.
    pub fn app_fault_file(&self) -> PathBuf {
        self.dir.join("app-fails")
    }

    /// Names of the namespaces of the outsiders.
    pub fn outsider(&self, outsider: Outsider) -> String {
        self.id.outsider_netns(outsider)
    }
}

/// Path of the state file of the lab in `dir`.
pub fn state_file(dir: &Path) -> PathBuf {
    dir.join("lab.json")
}
