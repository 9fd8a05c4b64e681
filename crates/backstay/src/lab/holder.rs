//! `backstay lab-node`: the process beside a lab node that outlives it by a moment.
//!
//! It makes the node's namespaces, starts `lab-init` in them, and waits for its end. Two things depend on it. It holds the
//! node's mounts until every process of the node is gone, whoever killed them: otherwise the kernel would unmount the
//! file system while the last process ends, and if that is the one that serves its FUSE file, wait for ever. And it reaps
//! `lab-init` at once, so that a killed node is seen to be gone.

use std::fs::File;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::thread::UnshareFlags;

use super::{init, tools};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// The hidden command, by which its processes are found.
pub(super) const COMMAND: &str = "lab-node";

/// What `backstay lab-node` needs to know; given by `backstay lab up`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Name of the node's network namespace
    #[arg(long)]
    pub netns: String,
    /// What lab-init needs to know
    #[command(flatten)]
    pub init: init::Args,
}

/// Starts the node, prints the PID of its first process, and waits for the node's end.
///
/// # Errors
/// When the namespaces cannot be made.
pub fn run(args: &Args) -> Outcome {
    let _session = rustix::process::setsid();
    let mut node = start_init(args)?;
    let failed = |error: std::io::Error| {
        Failure::new(format!("cannot hold the mounts of {}", args.init.node)).cause(error)
    };
    let mounts = File::open(format!("/proc/{}/ns/mnt", node.id())).map_err(failed)?;
    writeln!(std::io::stdout().lock(), "{}", node.id()).map_err(failed)?;
    // PID 1 can be reaped only after everything else in its PID namespace is gone.
    node.wait().map_err(failed)?;
    drop(mounts);
    Ok(Exit::Ready)
}

/// Starts `lab-init` as PID 1 of new namespaces, in a thread that takes them with it when it ends.
fn start_init(args: &Args) -> Result<Child, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(format!("cannot start {}", args.init.node)).cause(error)
    };
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command
        .arg(init::COMMAND)
        .args(args.init.words())
        .current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            tools::enter(&args.netns)?;
            unshare_for_children()?;
            command.spawn().map_err(failed)
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[expect(
    deprecated,
    reason = "only UnshareFlags::FILES is unsound; the safe call is enough here"
)]
fn unshare_for_children() -> Result<(), Failure> {
    rustix::thread::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWPID)
        .map_err(|error| Failure::new("cannot make mount and PID namespaces").cause(error))
}
