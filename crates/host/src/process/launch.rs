//! Starting a process by way of the launcher.
//!
//! ```text
//! daemon                                launcher = this binary, started with the hidden subcommand
//!   | --- posix_spawn ---------------------> |  standard input: one end of a socket pair
//!   | --- order (length, postcard) --------> |  joins the control group, new session, user, directory
//!   |                                        |  exec: becomes the service; the socket closes on exec
//!   | <-- end of stream = started ---------- |
//!   | <-- or a sentence = why not ---------- |
//! ```

use super::{Process, User};
use rustix::process::{Gid, Uid, setsid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where programs are looked for if the environment given has no `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Longest order, in bytes: arguments and environment.
const ORDER_MAX: usize = 1024 * 1024;
/// Longest answer of a launcher, in bytes.
const ANSWER_MAX: u64 = 4_096;
/// How long the launcher may take: it reads one program from disk.
const LAUNCH_LIMIT: Duration = Duration::from_secs(10);
/// A log longer than this is renamed to `….1` at the next start, in bytes; the one before is dropped.
const LOG_MAX: u64 = 16 * 1024 * 1024;

/// How to run this binary as a launcher.
#[derive(Clone, Debug)]
pub struct Launcher {
    program: PathBuf,
    arguments: Vec<String>,
}

impl Launcher {
    /// The running binary, with the hidden subcommand that calls [`super::run_launcher`].
    #[must_use]
    pub fn this_binary(arguments: &[&str]) -> Self {
        let arguments = arguments
            .iter()
            .map(|argument| (*argument).to_owned())
            .collect();
        Self {
            program: "/proc/self/exe".into(),
            arguments,
        }
    }
}

/// What to start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Program and arguments; the program is looked for in `PATH`.
    pub command: Vec<String>,
    /// The whole environment: nothing is inherited, only `PATH`, and `HOME`, `USER` and `LOGNAME` of another user, are set
    /// if they are missing.
    pub environment: Vec<(String, String)>,
    /// Working directory; `/` if none.
    pub directory: Option<PathBuf>,
    /// Under whom; as the daemon if none.
    pub user: Option<User>,
    /// The control group's directory; the daemon's if none.
    pub cgroup: Option<PathBuf>,
}

/// Where a started process writes.
#[derive(Debug)]
pub enum Streams {
    /// Standard output and error go to the end of this file (mode 0600).
    Log(PathBuf),
    /// Both go into this pipe.
    Pipe(OwnedFd),
}

/// A process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// No program was named.
    #[error("no command is given")]
    NoCommand,
    /// Arguments and environment are too long.
    #[error("command and environment take {bytes} bytes, at most {ORDER_MAX} are possible")]
    TooLong {
        /// Their length.
        bytes: usize,
    },
    /// The log cannot be written.
    #[error("cannot open the log {path}")]
    Log {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The program could not be run; the text says which step failed and why.
    #[error("{program}: {reason}")]
    Refused {
        /// The program.
        program: String,
        /// What the launcher said.
        reason: String,
    },
    /// The launcher itself failed.
    #[error("cannot {doing} the launcher of {program}")]
    Launcher {
        /// What was tried.
        doing: &'static str,
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
}

/// Starts a process; returns when it runs the program, or could not. Blocks for the time of two `exec`s, some
/// milliseconds; at most 10 s if the disk hangs.
///
/// # Errors
/// [`LaunchError`]; then nothing runs.
pub fn spawn(
    launcher: &Launcher,
    launch: &Launch,
    streams: Streams,
) -> Result<Process, LaunchError> {
    let program = launch
        .command
        .first()
        .ok_or(LaunchError::NoCommand)?
        .clone();
    let fail = |doing| {
        let program = program.clone();
        move |source| LaunchError::Launcher {
            doing,
            program,
            source,
        }
    };
    let order = encode(launch)?;
    let (out, err) = open_streams(streams)?;
    let (mut ours, theirs) = UnixStream::pair().map_err(fail("talk to"))?;
    let child = Command::new(&launcher.program)
        .args(&launcher.arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(test_environment())
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(out)
        .stderr(err)
        .spawn()
        .map_err(fail("start"))?;
    // An unreaped child keeps its id, so this cannot be another process.
    let process = Process::open(child.id()).map_err(fail("watch"))?;
    let process = process
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        .map_err(fail("watch"))?;
    let reason = match converse(&mut ours, &order) {
        Ok(reason) if reason.is_empty() => return Ok(process),
        Ok(reason) => Ok(reason),
        Err(e) => Err(e),
    };
    process
        .signal(rustix::process::Signal::KILL)
        .map_err(fail("stop"))?;
    process.wait(LAUNCH_LIMIT).map_err(fail("stop"))?;
    let reason = reason.map_err(fail("talk to"))?;
    Err(LaunchError::Refused { program, reason })
}

/// Gives the order and hears the answer; an empty one means that the program runs.
fn converse(socket: &mut UnixStream, order: &[u8]) -> io::Result<String> {
    socket.set_write_timeout(Some(LAUNCH_LIMIT))?;
    socket.set_read_timeout(Some(LAUNCH_LIMIT))?;
    socket.write_all(order)?;
    socket.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    socket.take(ANSWER_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// In tests the launcher is the test binary, told by a variable which of its tests to be.
fn test_environment() -> Option<(&'static str, &'static str)> {
    cfg!(test).then_some(("BACKSTAY_TEST_LAUNCHER", "1"))
}

fn encode(launch: &Launch) -> Result<Vec<u8>, LaunchError> {
    let mut complete = launch.clone();
    let mut add = |name: &str, value: &str| {
        if !launch.environment.iter().any(|(given, _)| given == name) {
            complete
                .environment
                .push((name.to_owned(), value.to_owned()));
        }
    };
    add("PATH", PATH);
    if let Some(user) = &launch.user {
        add("HOME", &user.home);
        add("USER", &user.name);
        add("LOGNAME", &user.name);
    }
    let order = postcard::to_stdvec(&complete).unwrap_or_default();
    if order.is_empty() || order.len() > ORDER_MAX {
        return Err(LaunchError::TooLong { bytes: order.len() });
    }
    Ok(order)
}

fn open_streams(streams: Streams) -> Result<(Stdio, Stdio), LaunchError> {
    let both = |fd: OwnedFd, path: &Path| {
        let fail = |source| LaunchError::Log {
            path: path.to_owned(),
            source,
        };
        let copy = fd.try_clone().map_err(fail)?;
        Ok((Stdio::from(fd), Stdio::from(copy)))
    };
    match streams {
        Streams::Pipe(fd) => both(fd, Path::new("pipe")),
        Streams::Log(path) => {
            let fail = |source| LaunchError::Log {
                path: path.clone(),
                source,
            };
            if fs::metadata(&path).is_ok_and(|found| found.len() > LOG_MAX) {
                let mut older = path.clone().into_os_string();
                older.push(".1");
                fs::rename(&path, older).map_err(fail)?;
            }
            let mut open = OpenOptions::new();
            let file = open
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&path)
                .map_err(fail)?;
            both(file.into(), &path)
        }
    }
}

/// The launcher's main function: reads an order from standard input and becomes the ordered process. Returns only if that
/// failed, after saying why through the socket.
///
/// Must be called from a process with a single thread, for nothing else: the hidden subcommand.
#[must_use]
pub fn become_the_ordered_process() -> std::process::ExitCode {
    let socket = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map(UnixStream::from);
    let Ok(mut socket) = socket else {
        return 126.into();
    };
    let reason = match obey(&mut socket) {
        Ok(never) => match never {},
        Err(reason) => reason,
    };
    // If nobody listens any more, the exit code remains.
    socket.write_all(reason.as_bytes()).ok();
    127.into()
}

/// Ends in `exec`, or with the step that failed.
fn obey(socket: &mut UnixStream) -> Result<std::convert::Infallible, String> {
    let step = |doing: &'static str| move |e: io::Error| format!("cannot {doing}: {e}");
    let mut order = Vec::new();
    let limit = u64::try_from(ORDER_MAX).unwrap_or(u64::MAX);
    socket
        .take(limit)
        .read_to_end(&mut order)
        .map_err(step("read the order"))?;
    let launch: Launch =
        postcard::from_bytes(&order).map_err(|_| "the order is malformed".to_owned())?;
    let (program, arguments) = launch
        .command
        .split_first()
        .ok_or_else(|| "no command is given".to_owned())?;
    close_on_exec().map_err(step("seal its descriptors"))?;
    if let Some(cgroup) = &launch.cgroup {
        fs::write(cgroup.join("cgroup.procs"), "0").map_err(step("join the control group"))?;
    }
    setsid().map_err(|e| step("start a session")(e.into()))?;
    if let Some(user) = &launch.user {
        change_user(user).map_err(step("change the user"))?;
    }
    let directory = launch
        .directory
        .as_deref()
        .unwrap_or_else(|| Path::new("/"));
    std::env::set_current_dir(directory).map_err(step("change the directory"))?;
    let failed = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .env_clear()
        .envs(launch.environment.iter().map(|(name, value)| (name, value)))
        .exec();
    Err(step("run it")(failed))
}

/// Marks every descriptor beyond the standard three, whoever leaked it, to be closed by `exec` (Linux 5.11).
fn close_on_exec() -> io::Result<()> {
    let flags = libc::c_int::try_from(libc::CLOSE_RANGE_CLOEXEC).map_err(io::Error::other)?;
    // JUSTIFICATION: neither std nor rustix has close_range.
    // SAFETY: with this flag the call closes nothing; it sets a flag on descriptors and touches no memory.
    #[expect(unsafe_code, reason = "see the justification")]
    let result = unsafe { libc::close_range(3, libc::c_uint::MAX, flags) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Changes this thread's user; `exec` from this thread makes it the process's.
fn change_user(user: &User) -> io::Result<()> {
    let groups: Vec<_> = user.groups.iter().map(|id| Gid::from_raw(*id)).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}
