//! The processes of a lab, found by the network namespace that they live in.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::tools;
use super::topology::netns_path;
use crate::failure::Failure;

/// Longest wait for killed or stopped processes to be so. A write that hangs in the kernel ends when its disk's server does.
const SETTLE: Duration = Duration::from_secs(10);

/// PIDs, as this process sees them, of everything in a named network namespace. Lowest first.
pub fn in_netns(netns: &str) -> Vec<Pid> {
    let Ok(wanted) = fs::metadata(netns_path(netns)) else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut pids: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|ns| ns.ino() == wanted.ino() && ns.dev() == wanted.dev())
        })
        .collect();
    pids.sort_unstable();
    pids.into_iter()
        .filter_map(Pid::from_raw)
        .filter(|pid| *pid != rustix::process::getpid())
        .collect()
}

/// Finds, among `pids`, the one that is called `inner` in its own PID namespace.
pub fn with_inner_pid(pids: &[Pid], inner: i32) -> Option<Pid> {
    pids.iter().copied().find(|pid| {
        let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
        let line = status.ok().and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("NSpid:").map(str::to_owned))
        });
        line.and_then(|line| line.split_whitespace().last()?.parse().ok()) == Some(inner)
    })
}

/// The command line of a process, arguments separated by spaces.
pub fn command_line(pid: Pid) -> String {
    let raw = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ")
}

/// Kills processes and waits until they are gone, and their memory, files and mounts with them.
///
/// # Errors
/// When one is still there after ten seconds.
pub fn kill_all(pids: &[Pid]) -> Result<(), Failure> {
    send_kill(pids);
    await_end(pids)
}

/// Sends SIGKILL; one that has ended by itself is as good.
pub fn send_kill(pids: &[Pid]) {
    for pid in pids {
        let _ = kill_process(*pid, Signal::KILL);
    }
}

/// Waits until processes are gone.
///
/// # Errors
/// When one is still there after ten seconds.
pub fn await_end(pids: &[Pid]) -> Result<(), Failure> {
    pids.iter().try_for_each(|pid| {
        let what = format!("the end of process {}", pid.as_raw_nonzero());
        tools::wait_for(&what, SETTLE, || is_gone(*pid).then_some(()))
    })
}

/// True once nothing of the process runs; reaps it if it was started by this one. (Whoever adopted it may be slow to.)
fn is_gone(pid: Pid) -> bool {
    let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    thread_states(pid)
        .iter()
        .all(|state| matches!(state, 'Z' | 'X'))
}

/// Stops everything in a network namespace, children that are being born included.
///
/// # Errors
/// When something still runs after ten seconds.
pub fn stop_all(netns: &str) -> Result<(), Failure> {
    tools::wait_for(&format!("a standstill of {netns}"), SETTLE, || {
        let running: Vec<_> = in_netns(netns)
            .into_iter()
            .filter(|pid| runs(*pid))
            .collect();
        for pid in &running {
            let _ = kill_process(*pid, Signal::STOP);
        }
        running.is_empty().then_some(())
    })
}

/// Continues everything in a network namespace.
pub fn continue_all(netns: &str) {
    for pid in in_netns(netns) {
        let _ = kill_process(pid, Signal::CONT);
    }
}

/// True unless every thread is stopped, dead, or asleep in the kernel where it stops before it returns.
fn runs(pid: Pid) -> bool {
    thread_states(pid)
        .iter()
        .any(|state| !matches!(state, 'T' | 't' | 'D' | 'Z' | 'X'))
}

/// The states of a process's threads, as in proc(5); none if it does not exist.
fn thread_states(pid: Pid) -> Vec<char> {
    let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()));
    tasks
        .into_iter()
        .flatten()
        .filter_map(|task| {
            let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            stat.rsplit_once(") ")?.1.chars().next()
        })
        .collect()
}

/// True if a process was started with `name=value` in its environment.
pub fn environment_has(pid: Pid, name: &str, value: &str) -> bool {
    let raw = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap_or_default();
    let wanted = format!("{name}={value}");
    raw.split(|byte| *byte == 0)
        .any(|entry| entry == wanted.as_bytes())
}

/// Processes of this program that were started for the lab in `dir`: daemons, keepers, workloads.
pub fn mentioning(dir: &Path) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let dir = format!("{}/", dir.display());
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter(|pid| *pid != rustix::process::getpid() && is_child_namespace(*pid))
        .filter(|pid| command_line(*pid).contains(&dir))
        .collect()
}

/// True if the process lives in another PID namespace than this one.
fn is_child_namespace(pid: Pid) -> bool {
    let own = fs::metadata("/proc/self/ns/pid");
    let its = fs::metadata(format!("/proc/{}/ns/pid", pid.as_raw_nonzero()));
    own.is_ok_and(|own| its.is_ok_and(|its| own.ino() != its.ino()))
}
