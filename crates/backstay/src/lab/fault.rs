//! Breaking and healing: nodes, disks, processes and links.

use std::str::FromStr;

use clap::ValueEnum;
use host::disk::fault::{Fault as DiskFault, Faults, power_loss};
use rustix::process::{Signal, kill_process};
use wire::Duration;

use super::cut::{Cut, Link, LinkFault};
use super::state::{Condition, Lab};
use super::topology::{Node, SERVICE};
use super::{cgroup, network, node, process, slow, tools};
use crate::failure::Failure;

/// Delay of every access to a slow disk.
const DISK_DELAY: Duration = Duration::from_millis(50);

/// What is done to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NodeFault {
    /// Every process is killed at once
    Kill,
    /// Every process gets SIGSTOP
    Stop,
    /// Frozen as a hypervisor freezes a guest
    Pause,
    /// Off without a last word; what its disk had not flushed is lost or torn
    Power,
    /// The disk answers with errors
    DiskError,
    /// The disk does not answer
    DiskHang,
    /// Every access to the disk takes 50 ms longer
    DiskSlow,
    /// The disk has no space left
    DiskFull,
    /// A block in each MiB of the disk cannot be read until it is written
    DiskSpots,
    /// The daemon is killed; it starts again at once
    Daemon,
    /// The group's workload is killed
    App,
}

/// What can be broken or healed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A node.
    Node(Node),
    /// A link.
    Link(Link),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(node) = text.parse() {
            return Ok(Self::Node(node));
        }
        text.parse()
            .map(Self::Link)
            .map_err(|error| format!("{error}, and nodes node-a, node-b, witness"))
    }
}

/// Breaks a node.
///
/// # Errors
/// When the fault does not fit the node (a witness has no disk), or the kernel refuses.
pub fn break_node(lab: &mut Lab, target: Node, fault: NodeFault, seed: u64) -> Result<(), Failure> {
    match fault {
        NodeFault::Kill => node::kill(lab, target),
        NodeFault::Stop => {
            process::stop_all(&lab.id.node_netns(target))?;
            set_condition(lab, target, Condition::Stopped)
        }
        NodeFault::Pause => {
            cgroup::set_frozen(&lab.id, target, true)?;
            set_condition(lab, target, Condition::Paused)
        }
        NodeFault::Power => {
            node::cut_power(lab, target)?;
            lose_unflushed(lab, target, seed)
        }
        NodeFault::DiskError => set_disk(lab, target, Faults::all(DiskFault::Error)),
        NodeFault::DiskHang => set_disk(lab, target, Faults::all(DiskFault::Hang)),
        NodeFault::DiskSlow => set_disk(lab, target, Faults::all(DiskFault::Slow(DISK_DELAY))),
        NodeFault::DiskFull => set_disk(lab, target, Faults::all(DiskFault::Full)),
        NodeFault::DiskSpots => {
            let spots = Faults {
                read: DiskFault::Spots,
                ..Faults::NONE
            };
            set_disk(lab, target, spots)
        }
        NodeFault::Daemon => kill_daemon(lab, target),
        NodeFault::App => kill_app(lab, target),
    }
}

fn set_condition(lab: &mut Lab, target: Node, condition: Condition) -> Result<(), Failure> {
    if let Some(state) = lab.node_mut(target) {
        state.condition = condition;
    }
    lab.save()
}

fn set_disk(lab: &Lab, target: Node, faults: Faults) -> Result<(), Failure> {
    require_disk(target)?;
    faults.set(&lab.disk_fault_dir(target)).map_err(|error| {
        Failure::new(format!("cannot break the disk of {target}"))
            .cause(error)
            .hint("the daemon makes the fault shim's directory when it opens the disk")
    })
}

fn require_disk(target: Node) -> Result<(), Failure> {
    if target.is_data() {
        return Ok(());
    }
    Err(Failure::new(format!("{target} has no disk")).hint("break the disk of node-a or node-b"))
}

/// Plays what the disk of a node that lost power has forgotten.
fn lose_unflushed(lab: &Lab, target: Node, seed: u64) -> Result<(), Failure> {
    if !target.is_data() {
        return Ok(());
    }
    let shim = lab.disk_fault_dir(target);
    let metadata = lab
        .metadata(target)
        .map(|device| (device, shim.join("metadata")));
    let devices = [(lab.disk(target), shim)].into_iter().chain(metadata);
    devices
        .into_iter()
        .try_for_each(|(device, shim)| power_loss(&device, &shim, seed).map(drop))
        .map_err(|error| {
            Failure::new(format!(
                "cannot play the power loss of the disk of {target}"
            ))
            .cause(error)
        })
}

fn kill_daemon(lab: &Lab, target: Node) -> Result<(), Failure> {
    let Some(pid) = node::daemon_pid(lab, target) else {
        return Err(Failure::new(format!("cannot kill the daemon of {target}"))
            .cause("it does not run")
            .hint("see `backstay lab status`"));
    };
    send_kill(pid, &format!("the daemon of {target}"))
}

/// Kills the workload's processes: those that were started by the start script.
fn kill_app(lab: &Lab, target: Node) -> Result<(), Failure> {
    let mark = lab.start_script().display().to_string();
    let pids = process::in_netns(&lab.id.node_netns(target));
    let apps: Vec<_> = pids
        .into_iter()
        .filter(|pid| process::environment_has(*pid, super::workload::MARK, &mark))
        .collect();
    if apps.is_empty() {
        return Err(Failure::new(format!("cannot kill {SERVICE} on {target}"))
            .cause("it does not run there")
            .hint("see `backstay lab status` for the active node"));
    }
    apps.into_iter().try_for_each(|pid| send_kill(pid, SERVICE))
}

fn send_kill(pid: rustix::process::Pid, what: &str) -> Result<(), Failure> {
    match kill_process(pid, Signal::KILL) {
        // Ended by itself in this moment: as good.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(Failure::new(format!("cannot kill {what}")).cause(error)),
    }
}

/// Breaks a link; a link that is broken already gets the new fault.
///
/// # Errors
/// When the packet filter refuses.
pub fn break_link(lab: &mut Lab, link: Link, fault: LinkFault) -> Result<(), Failure> {
    lab.cuts.retain(|cut| cut.link != link);
    lab.cuts.push(Cut { link, fault });
    use_cuts(lab)
}

/// Heals a link.
///
/// # Errors
/// When the packet filter refuses.
pub fn heal_link(lab: &mut Lab, link: Link) -> Result<(), Failure> {
    lab.cuts.retain(|cut| cut.link != link);
    use_cuts(lab)
}

fn use_cuts(lab: &mut Lab) -> Result<(), Failure> {
    network::apply_cuts(&lab.id, &lab.cuts)?;
    slow::apply(lab)?;
    lab.save()
}

/// Heals a node: its disk, its processes, and if it was killed, starts it again.
///
/// # Errors
/// When the kernel refuses.
pub fn heal_node(lab: &mut Lab, target: Node) -> Result<(), Failure> {
    let disk_failed = disk_failed(lab, target);
    if target.is_data() && lab.disk_fault_dir(target).exists() {
        set_disk(lab, target, Faults::NONE)?;
    }
    match lab.condition(target) {
        Condition::Up if disk_failed && lab.live_pid(target).is_some() => {
            // A disk that failed is never trusted again in a daemon's life (R7): a good disk comes with a new one.
            kill_daemon(lab, target)
        }
        Condition::Up => restart_if_dead(lab, target),
        Condition::Killed => node::start(lab, target),
        Condition::Stopped => {
            process::continue_all(&lab.id.node_netns(target));
            set_condition(lab, target, Condition::Up)
        }
        Condition::Paused => {
            cgroup::set_frozen(&lab.id, target, false)?;
            set_condition(lab, target, Condition::Up)
        }
    }
}

/// True if the lab makes the node's disk fail or hang.
fn disk_failed(lab: &Lab, target: Node) -> bool {
    let control = lab.disk_fault_dir(target).join("control");
    let faults = std::fs::read_to_string(control).unwrap_or_default();
    ["error", "hang"].iter().any(|fault| faults.contains(fault))
}

/// A node that ended without the lab's doing is cleaned up and started again.
fn restart_if_dead(lab: &mut Lab, target: Node) -> Result<(), Failure> {
    if lab.live_pid(target).is_some() {
        return Ok(());
    }
    node::kill(lab, target)?;
    node::start(lab, target)
}

/// Heals everything: links first, then nodes, then the workload.
///
/// # Errors
/// When the kernel refuses.
pub fn heal_all(lab: &mut Lab) -> Result<(), Failure> {
    lab.cuts.clear();
    use_cuts(lab)?;
    for target in lab.members() {
        heal_node(lab, target)?;
    }
    set_app_fails(lab, false)
}

/// Makes the workload end whenever it starts, on every node, or lets it live again.
///
/// # Errors
/// When the lab's directory cannot be written.
pub fn set_app_fails(lab: &Lab, fails: bool) -> Result<(), Failure> {
    let file = lab.app_fault_file();
    if fails {
        return tools::write_file(&file, "");
    }
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::new(format!("cannot remove {}", file.display())).cause(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_nodes_or_links() {
        assert_eq!("node-a".parse(), Ok(Target::Node(Node::NodeA)));
        assert!(matches!("node-a:hb1".parse(), Ok(Target::Link(_))));
        let error = "node-d".parse::<Target>().unwrap_err();
        assert!(
            error.contains("node-d") && error.contains("witness"),
            "{error}"
        );
    }
}
