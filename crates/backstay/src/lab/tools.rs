//! Running `ip`, `nft` and the like, and doing something inside a network namespace.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::interrupt;
use super::topology::netns_path;
use crate::failure::Failure;

/// How often a condition is looked at again while waiting for it.
const POLL: Duration = Duration::from_millis(5);

/// Programs that a lab needs, each with the Debian package that has it.
const PROGRAMS: [(&str, &str); 3] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("mkfs.ext4", "e2fsprogs"),
];

/// Refuses to start what could not work: not root, or a program is missing.
///
/// # Errors
/// Names what is missing and how to get it.
pub fn preflight() -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new("the lab makes network namespaces and mounts")
            .cause("not running as root")
            .hint("run the same command with sudo"));
    }
    for (program, package) in PROGRAMS {
        if find_program(program).is_none() {
            return Err(Failure::new(format!("the lab needs the program {program}"))
                .cause(format!("{program} is not in PATH"))
                .hint(format!("apt-get install {package}")));
        }
    }
    Ok(())
}

/// Looks a program up in `PATH`, and in the places where administration tools are.
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(Into::into))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// Runs a program to its end with `input` on its standard input, and gives its standard output.
///
/// # Errors
/// When it cannot be started or does not succeed; the cause is what it wrote on standard error.
pub fn run(program: &str, args: &[&str], input: &str) -> Result<String, Failure> {
    let failed = |cause: String| {
        Failure::new(format!("cannot run {program} {}", args.join(" "))).cause(cause)
    };
    let path = find_program(program).ok_or_else(|| failed("it is not in PATH".to_owned()))?;
    let mut child = Command::new(path)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(input.as_bytes())
            .map_err(|error| failed(error.to_string()))?;
    }
    let output = child
        .wait_with_output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failed(format!(
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}

/// Runs `work` in a thread of its own that has moved into a named network namespace.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn inside<T: Send>(netns: &str, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| enter(netns).map(|()| work()));
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Moves the calling thread, and what it starts, into a named network namespace for good.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn enter(netns: &str) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(format!("cannot enter network namespace {netns}"))
            .cause(error)
            .hint("is the lab up? see `backstay lab status`")
    };
    let file = File::open(netns_path(netns)).map_err(|error| failed(&error))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| failed(&error))
}

/// Waits until `look` finds something, at most `limit`.
///
/// # Errors
/// When nothing was found in time, or somebody pressed Ctrl-C; names what was waited for.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T, Failure> {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if interrupt::is_raised() {
            return Err(Failure::new(format!(
                "interrupted while waiting for {what}"
            )));
        }
        if started.elapsed() >= limit {
            return Err(Failure::new(format!(
                "{what} did not happen within {} s",
                limit.as_secs_f32()
            )));
        }
        thread::sleep(POLL);
    }
}

/// Writes a small file in one go.
///
/// # Errors
/// Names the file.
pub fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::new(format!("cannot write {}", path.display())).cause(error))
}

/// Makes a directory and its parents.
///
/// # Errors
/// Names the directory.
pub fn make_dir(path: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(path).map_err(|error| {
        Failure::new(format!("cannot make directory {}", path.display())).cause(error)
    })
}
