//! `backstay lab-init`: PID 1 of a lab node.
//!
//! It prepares the node's mounts and control group, starts the daemon, starts it again soon after it ended (as systemd with
//! `Restart=always` does), and reaps orphans. When it is killed the kernel ends everything in the node at once and its mounts
//! vanish: that is how the lab takes a server's power away.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::process::{Pid, WaitOptions};

use super::cgroup;
use crate::failure::{Failure, Outcome};

/// Pause before an ended daemon is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(50);

/// The hidden command, by which its processes are found.
pub(super) const COMMAND: &str = "lab-init";

/// What `backstay lab-init` needs to know; given by `backstay lab up`.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Configuration file of the cluster
    #[arg(long)]
    pub config: PathBuf,
    /// Name of this node
    #[arg(long)]
    pub node: String,
    /// State directory of this node
    #[arg(long)]
    pub state_dir: PathBuf,
    /// Where the daemon's output goes
    #[arg(long)]
    pub log: PathBuf,
    /// Control group of this node below the root of cgroup2
    #[arg(long)]
    pub cgroup: String,
}

impl Args {
    /// The same as words of a command line.
    pub(super) fn words(&self) -> [&OsStr; 10] {
        [
            "--config".as_ref(),
            self.config.as_os_str(),
            "--node".as_ref(),
            self.node.as_ref(),
            "--state-dir".as_ref(),
            self.state_dir.as_os_str(),
            "--log".as_ref(),
            self.log.as_os_str(),
            "--cgroup".as_ref(),
            self.cgroup.as_ref(),
        ]
    }
}

/// Runs as PID 1 until killed.
///
/// # Errors
/// When the node's mounts cannot be prepared or the daemon cannot be started.
pub fn run(args: &Args) -> Outcome {
    if std::process::id() != 1 {
        return Err(Failure::new("lab-init is the first process of a lab node")
            .cause("it was not started in a PID namespace of its own")
            .hint("use `backstay lab up`"));
    }
    let _session = rustix::process::setsid();
    cgroup::enter_node(&args.cgroup)?;
    prepare_mounts()
        .map_err(|error| Failure::new("cannot prepare the node's mounts").cause(error))?;
    supervise(args)
}

/// Gives the node its own /proc, /sys and cgroup tree; its mounts do not reach the machine's.
fn prepare_mounts() -> rustix::io::Result<()> {
    // Slave, not private: a namespace file that the machine unmounts must go away here, too.
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None)?;
    // The machine's cgroup mounts below /sys would still be listed, though hidden. Whoever looks for cgroup2 must find ours.
    let has_cgroup = cgroup::is_available();
    unmount("/sys", UnmountFlags::DETACH)?;
    mount("sysfs", "/sys", "sysfs", flags, None)?;
    if has_cgroup {
        mount("cgroup2", "/sys/fs/cgroup", "cgroup2", flags, None)?;
    }
    detach_machine_names()
}

/// Other labs' namespace files are none of this node's business, and would keep those namespaces alive.
fn detach_machine_names() -> rustix::io::Result<()> {
    let listed = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for point in listed.lines().filter_map(|line| line.split(' ').nth(4)) {
        if point.starts_with("/run/netns/") {
            match unmount(point, UnmountFlags::DETACH) {
                // The other lab was just taken down, and its names with it.
                Ok(()) | Err(Errno::NOENT | Errno::INVAL) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn supervise(args: &Args) -> Outcome {
    loop {
        let daemon = start_daemon(args)?;
        wait_reaping(&daemon);
        thread::sleep(RESTART_PAUSE);
    }
}

fn start_daemon(args: &Args) -> Result<Child, Failure> {
    let failed = |error: std::io::Error| Failure::new("cannot start the daemon").cause(error);
    let log = open_log(&args.log).map_err(failed)?;
    let child = Command::new(std::env::current_exe().map_err(failed)?)
        .arg("--state")
        .arg(&args.state_dir)
        .arg("run")
        .arg("--config")
        .arg(&args.config)
        .args(["--node", &args.node])
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    let pid_file = args.state_dir.join(DAEMON_PID_FILE);
    // Only the lab reads it, to find the daemon that it is told to kill.
    fs::write(pid_file, child.id().to_string()).ok();
    Ok(child)
}

/// Holds the daemon's PID as seen inside the node.
pub const DAEMON_PID_FILE: &str = "lab-daemon.pid";

fn open_log(path: &Path) -> std::io::Result<File> {
    File::options().create(true).append(true).open(path)
}

/// Reaps whatever ends, until it was the daemon.
fn wait_reaping(daemon: &Child) {
    let daemon = i32::try_from(daemon.id()).ok().and_then(Pid::from_raw);
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if Some(pid) == daemon => return,
            Ok(_) | Err(Errno::INTR) => {}
            // No child is left, so the daemon is gone as well.
            Err(_) => return,
        }
    }
}
