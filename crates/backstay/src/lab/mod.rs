//! `backstay lab`: a whole cluster on this machine, to break.
//!
//! Each node is a network, mount and PID namespace of its own with `lab-init` as PID 1, which runs the real daemon; the networks
//! are bridges in a switch namespace; disks are files behind a fault shim. Demo and end-to-end tests stand on it.

pub mod api;
mod cgroup;
mod config;
pub mod cut;
mod devices;
pub mod fault;
mod fuse;
pub mod holder;
pub mod init;
pub mod interrupt;
pub mod lifecycle;
mod loops;
mod network;
mod node;
pub mod process;
pub mod slow;
pub mod state;
pub mod status;
pub mod tools;
pub mod topology;
mod workload;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;
use cut::LinkFault;
use fault::{NodeFault, Target};
use state::{Ack, Bench, FileSystem, FrontEnd, Lab, Mode, Options, Profile, Switch, Workload};

/// `backstay lab`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Directory of the lab [default: backstay-lab in memory]
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Start a lab and return when its cluster is ready
    Up(Up),
    /// Show nodes, links and what is broken
    Status,
    /// Run a command in a node's network and mounts
    Exec {
        /// node-a, node-b or witness
        node: topology::Node,
        /// Command and arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Break a node or a link
    Break {
        /// node-a, node-b, node-c, witness, or a link: hb1, node-a:mirror, node-a/node-b
        target: Target,
        /// kill, stop, pause, power, disk-error, disk-hang, disk-slow, disk-full, disk-spots, daemon, app; for links cut, one-way, slow, lossy
        fault: String,
    },
    /// Heal a node, a link, or all
    Heal {
        /// all, a node or a link
        target: String,
    },
    /// End the lab and leave nothing behind
    Down,
}

#[derive(Clone, Debug, clap::Args)]
struct Up {
    /// Number of data nodes: 2, and a witness with them, or 3
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=3))]
    nodes: u8,
    /// Where the cluster keeps its record
    #[arg(long, default_value = "embedded")]
    register: Register,
    /// Replication; of three replicas `async` makes the third one asynchronous
    #[arg(long, default_value = "sync")]
    mode: Mode,
    /// Size of the mirrored volume
    #[arg(long, default_value = "256M", value_parser = parse_size)]
    size: u64,
    /// Encryption of the mirror link
    #[arg(long, default_value = "on")]
    tls: Switch,
    /// What is built
    #[arg(long, default_value = "pair")]
    topology: Topology,
    /// Time limits of the cluster
    #[arg(long, default_value = "lan")]
    profile: Profile,
    /// What runs in the group
    #[arg(long, default_value = "none")]
    workload: Workload,
    /// Leave the fault shim out: disks cannot be broken, and cost what a disk costs
    #[arg(long, hide = true)]
    plain_disks: bool,
    /// When a write is complete
    #[arg(long, hide = true)]
    ack: Option<Ack>,
    /// How late frames of slow links are, in microseconds
    #[arg(long, hide = true, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    slow_us: Option<u32>,
    /// How programs reach the volume [default: a block device for a workload, else the NBD socket]
    #[arg(long)]
    front_end: Option<FrontEnd>,
    /// The file system of a workload
    #[arg(long, default_value = "ext4")]
    fstype: FileSystem,
    /// Pack what goes over the mirror link
    #[arg(long)]
    compress: bool,
    /// Fill the disks with rubbish before, and let the first sync copy only what an ext4 on them uses
    #[arg(long)]
    used_only: bool,
    /// Put the mirror's metadata on a device of its own
    #[arg(long)]
    external: bool,
    /// Keep an undo log on each data node, so that `mirror rollback` leads an unfinished resync back
    #[arg(long)]
    undo: bool,
}

/// Registers that a lab can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Register {
    /// Among the nodes and the witness
    Embedded,
}

/// Shapes that a lab can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Topology {
    /// Two nodes with one mirrored disk, and a witness
    Pair,
}

/// Runs `backstay lab …`.
///
/// # Errors
/// What went wrong and what to do.
pub fn run(args: &Args, ui: &Ui) -> Outcome {
    let dir = args.dir.clone().unwrap_or_else(lifecycle::default_dir);
    match &args.command {
        Command::Up(up) => {
            interrupt::listen()?;
            let lab = lifecycle::up(&dir, up.options(), false)?;
            show(&lab, ui)
        }
        Command::Status => show(&Lab::load(&canonical(&dir))?, ui),
        Command::Exec { node, command } => Err(exec(&Lab::load(&canonical(&dir))?, *node, command)),
        Command::Break { target, fault } => {
            let mut lab = Lab::load(&canonical(&dir))?;
            break_target(&mut lab, *target, fault)?;
            show(&lab, ui)
        }
        Command::Heal { target } => {
            let mut lab = Lab::load(&canonical(&dir))?;
            heal_target(&mut lab, target)?;
            show(&lab, ui)
        }
        Command::Down => {
            lifecycle::down(&dir)?;
            ui.talk(format_args!("lab in {} is gone", dir.display()));
            Ok(Exit::Ready)
        }
    }
}

impl Up {
    const fn options(&self) -> Options {
        Options {
            replicas: self.nodes,
            mode: self.mode,
            size_bytes: self.size,
            tls: self.tls,
            profile: self.profile,
            workload: self.workload,
            bench: Bench {
                plain_disks: self.plain_disks,
                ack: self.ack,
                slow_us: self.slow_us,
            },
            front_end: self.front_end,
            fstype: self.fstype,
            compress: self.compress,
            used_only: self.used_only,
            external: self.external,
            undo: self.undo,
        }
    }
}

/// The path under which the lab knows itself; one that does not exist is reported by whoever reads it.
fn canonical(dir: &std::path::Path) -> PathBuf {
    std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned())
}

fn show(lab: &Lab, ui: &Ui) -> Outcome {
    let document = status::document(lab);
    ui.document(&document, |ui| status::table(&document, ui))?;
    Ok(Exit::Ready)
}

/// Becomes the command, inside the node; returns only if that fails.
fn exec(lab: &Lab, node: topology::Node, command: &[OsString]) -> Failure {
    if let Err(failure) = known(lab, node) {
        return failure;
    }
    let Some(pid) = lab.live_pid(node) else {
        return Failure::new(format!("cannot run a command in {node}"))
            .cause(format!("{node} is down"))
            .hint(format!("start it with `backstay lab heal {node}`"));
    };
    let error = std::process::Command::new("nsenter")
        .arg(format!("--target={}", pid.as_raw_nonzero()))
        .args(["--net", "--mount", "--pid", "--"])
        .args(command)
        .exec();
    Failure::new("cannot run nsenter")
        .cause(error)
        .hint("apt-get install util-linux")
}

fn break_target(lab: &mut Lab, target: Target, fault: &str) -> Result<(), Failure> {
    match target {
        Target::Node(node) => {
            known(lab, node)?;
            let fault =
                NodeFault::from_str(fault, false).map_err(|_| no_such_fault::<NodeFault>(fault))?;
            fault::break_node(lab, node, fault, seed_of_now())
        }
        Target::Link(link) => {
            link.nodes().try_for_each(|node| known(lab, node))?;
            let fault =
                LinkFault::from_str(fault, false).map_err(|_| no_such_fault::<LinkFault>(fault))?;
            fault::break_link(lab, link, fault)
        }
    }
}

/// # Errors
/// When this lab does not have the node.
fn known(lab: &Lab, node: topology::Node) -> Result<(), Failure> {
    if lab.node(node).is_some() {
        return Ok(());
    }
    let names: Vec<&str> = lab.members().map(topology::Node::name).collect();
    Err(Failure::new(format!("this lab has no {node}"))
        .hint(format!("it has {}", names.join(", ")))
        .exit(Exit::Usage))
}

fn no_such_fault<F: ValueEnum>(fault: &str) -> Failure {
    let known: Vec<String> = F::value_variants()
        .iter()
        .map(|fault| state::word(fault.clone()))
        .collect();
    Failure::new(format!("there is no fault '{fault}' for this target"))
        .hint(format!("use one of {}", known.join(", ")))
        .exit(Exit::Usage)
}

/// A power loss by hand is a different one each time.
fn seed_of_now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| u64::from(since.subsec_nanos()) ^ since.as_secs())
}

fn heal_target(lab: &mut Lab, target: &str) -> Result<(), Failure> {
    if target == "all" {
        return fault::heal_all(lab);
    }
    let parsed = target.parse().map_err(|error| {
        Failure::new(format!("cannot heal '{target}'"))
            .cause(error)
            .exit(Exit::Usage)
    })?;
    match parsed {
        Target::Node(node) => known(lab, node).and_then(|()| fault::heal_node(lab, node)),
        Target::Link(link) => {
            link.nodes().try_for_each(|node| known(lab, node))?;
            fault::heal_link(lab, link)
        }
    }
}

/// Reads a size such as `256M` (binary units, at least 32M).
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match text[digits.len()..]
        .trim_end_matches("iB")
        .trim_end_matches('B')
    {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        _ => return Err("not a size; write for example 256M or 1G".to_owned()),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "not a size; write for example 256M".to_owned())?;
    let bytes = number
        .checked_mul(1 << shift)
        .ok_or("more bytes than there are")?;
    if bytes < config::SIZE_MIN_BYTES || bytes % 4096 != 0 {
        return Err(format!(
            "at least {}M, in steps of 4K",
            config::SIZE_MIN_BYTES >> 20
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_and_bounded() {
        assert_eq!(parse_size("256M"), Ok(256 << 20));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        for text in ["", "M", "1M", "33554433", "99999999999G", "256X", "-1M"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
