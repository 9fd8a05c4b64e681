//! Starting and ending the nodes of a lab.

use std::process::{Command, Stdio};
use std::thread;

use rustix::thread::UnshareFlags;

use super::init;
use super::state::{Condition, Lab};
use super::topology::Node;
use super::{cgroup, network, process, tools};
use crate::failure::Failure;

/// Gives a node its namespaces and starts its first process.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn start(lab: &mut Lab, node: Node) -> Result<(), Failure> {
    network::add_node(&lab.id, node)?;
    cgroup::create(&lab.id, node)?;
    tools::make_dir(&lab.state_dir(node))?;
    let pid = spawn_init(lab, node)?;
    if let Some(state) = lab.node_mut(node) {
        state.pid = Some(pid);
        state.condition = Condition::Up;
    }
    lab.save()
}

/// Starts `lab-init` as PID 1 of new namespaces; gives its PID as seen here.
fn spawn_init(lab: &Lab, node: Node) -> Result<i32, Failure> {
    let failed = |cause: String| Failure::new(format!("cannot start {node}")).cause(cause);
    let exe = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(lab.log(node))
        .map_err(|error| failed(error.to_string()))?;
    let mut command = Command::new(exe);
    command
        .arg("lab-init")
        .arg("--config")
        .arg(lab.config())
        .args(["--node", node.name()])
        .arg("--state-dir")
        .arg(lab.state_dir(node))
        .arg("--log")
        .arg(lab.log(node))
        .args(["--cgroup", &cgroup::node_group(&lab.id, node)])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let netns = lab.id.node_netns(node);
    // The thread takes the namespaces with it when it ends; the child keeps them.
    let child = thread::scope(|scope| {
        let thread = scope.spawn(move || {
            tools::enter(&netns)?;
            unshare_for_children()?;
            command.spawn().map_err(|error| failed(error.to_string()))
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    i32::try_from(child.id()).map_err(|error| failed(error.to_string()))
}

#[expect(
    deprecated,
    reason = "only UnshareFlags::FILES is unsound; the safe call is enough here"
)]
fn unshare_for_children() -> Result<(), Failure> {
    rustix::thread::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWPID)
        .map_err(|error| Failure::new("cannot make mount and PID namespaces").cause(error))
}

/// Ends every process of a node at once. Its kernel still closes the connections, as the kernel of a server does whose
/// processes are killed; then it is gone, too.
///
/// # Errors
/// When something does not end.
pub(super) fn kill(lab: &mut Lab, node: Node) -> Result<(), Failure> {
    end_processes(lab, node)?;
    network::unplug_node(&lab.id, node)?;
    remove(lab, node)
}

/// Takes a node's power away: first its plugs, so that no last word gets out, then every process at once.
///
/// # Errors
/// When something does not end.
pub(super) fn cut_power(lab: &mut Lab, node: Node) -> Result<(), Failure> {
    network::unplug_node(&lab.id, node)?;
    end_processes(lab, node)?;
    remove(lab, node)
}

/// Removes what is left of a node without processes.
fn remove(lab: &mut Lab, node: Node) -> Result<(), Failure> {
    network::remove_node(&lab.id, node)?;
    cgroup::remove_node(&lab.id, node)?;
    if let Some(state) = lab.node_mut(node) {
        state.pid = None;
        state.condition = Condition::Killed;
    }
    lab.save()
}

/// Kills PID 1 of the node, which takes everything in its PID namespace with it, then whatever else is in its network.
///
/// The node's mounts are held until all its processes are gone. Else the kernel unmounts the file system while the last
/// process ends, and if that is the daemon, the file system waits for ever for the FUSE file that only the daemon serves.
fn end_processes(lab: &Lab, node: Node) -> Result<(), Failure> {
    let pid = lab.live_pid(node);
    let mounts = pid.map(|pid| format!("/proc/{}/ns/mnt", pid.as_raw_nonzero()));
    let mounts = mounts.and_then(|path| std::fs::File::open(path).ok());
    if let Some(pid) = pid {
        process::kill_all(&[pid])?;
    }
    process::kill_all(&process::in_netns(&lab.id.node_netns(node)))?;
    drop(mounts);
    Ok(())
}

/// The node's daemon, as seen here.
pub(super) fn daemon_pid(lab: &Lab, node: Node) -> Option<rustix::process::Pid> {
    let file = lab.state_dir(node).join(init::DAEMON_PID_FILE);
    let inner = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    process::with_inner_pid(&process::in_netns(&lab.id.node_netns(node)), inner)
}
