//! Starting and ending the nodes of a lab.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::process::{Command, Stdio};

use rustix::process::Pid;

use super::state::{Condition, Lab};
use super::topology::Node;
use super::{cgroup, devices, fuse, holder, init, network, process, tools};
use crate::failure::Failure;

/// Gives a node its namespaces and starts its first process.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn start(lab: &mut Lab, node: Node) -> Result<(), Failure> {
    network::add_node(&lab.id, node)?;
    cgroup::create(&lab.id, node)?;
    tools::make_dir(&lab.state_dir(node))?;
    let (holder, pid) = spawn(lab, node)
        .map_err(|error| Failure::new(format!("cannot start {node}")).cause(error))?;
    if let Some(state) = lab.node_mut(node) {
        state.pid = Some(pid);
        state.holder = Some(holder);
        state.condition = Condition::Up;
    }
    lab.save()
}

/// Starts a node through its holder; gives the PIDs of the holder and of the node's first process, as seen here.
fn spawn(lab: &Lab, node: Node) -> io::Result<(i32, i32)> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(lab.log(node))?;
    let init = init::Args {
        config: lab.config(),
        node: node.name().to_owned(),
        state_dir: lab.state_dir(node),
        log: lab.log(node),
        cgroup: cgroup::node_group(&lab.id, node),
    };
    let mut holder = Command::new(std::env::current_exe()?)
        .args([holder::COMMAND, "--netns", &lab.id.node_netns(node)])
        .args(init.words())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let mut line = String::new();
    if let Some(stdout) = holder.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    let pid = line.trim().parse().map_err(|_| {
        io::Error::other(format!(
            "its holder ended early; see {}",
            lab.log(node).display()
        ))
    })?;
    let holder = i32::try_from(holder.id()).map_err(io::Error::other)?;
    Ok((holder, pid))
}

/// Ends every process of a node at once. Its kernel still closes the connections, as the kernel of a server does whose
/// processes are killed; then it is gone, too.
///
/// # Errors
/// When something does not end.
pub(super) fn kill(lab: &mut Lab, node: Node) -> Result<(), Failure> {
    end_processes(lab, node)?;
    network::await_farewells(&lab.id, node)?;
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

/// Kills PID 1 of the node, which takes everything in its PID namespace with it, then whatever else is in its network, and
/// waits until the holder has let go of the node's mounts.
fn end_processes(lab: &Lab, node: Node) -> Result<(), Failure> {
    let holder = lab.node(node).and_then(|state| state.holder);
    let holder = holder.and_then(Pid::from_raw);
    let holder = holder.filter(|pid| process::command_line(*pid).contains(holder::COMMAND));
    let mut pids: Vec<Pid> = lab.live_pid(node).into_iter().collect();
    process::send_kill(&pids);
    if let Some(holder) = holder {
        fuse::abort_all(holder, &lab.dir);
    }
    devices::stop(lab, node)?;
    process::await_end(&pids)?;
    pids = process::in_netns(&lab.id.node_netns(node));
    process::send_kill(&pids);
    pids.extend(holder);
    process::await_end(&pids)
}

/// The node's daemon, as seen here.
pub(super) fn daemon_pid(lab: &Lab, node: Node) -> Option<Pid> {
    let file = lab.state_dir(node).join(init::DAEMON_PID_FILE);
    let inner = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    process::with_inner_pid(&process::in_netns(&lab.id.node_netns(node)), inner)
}
