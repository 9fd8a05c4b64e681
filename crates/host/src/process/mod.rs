//! Processes that are no children at heart: a service runs on when the daemon dies, and the next daemon adopts it.
//!
//! A service is started by way of a short-lived copy of this binary (the *launcher*, [`run_launcher`]): it joins the group's
//! control group, starts a session of its own, changes user and directory, and becomes the service by `exec`. Nothing has
//! to be done between fork and exec in this process, whose threads and locked memory would make that slow and unsafe,
//! and no process of the service ever runs outside of its control group.

mod command;
mod launch;
mod user;

pub use command::{OUTPUT_MAX, Outcome, run};
pub use launch::{
    Launch, LaunchError, Launcher, Streams, become_the_ordered_process as run_launcher, spawn,
};
pub use user::{User, UserError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open,
    pidfd_send_signal, waitid,
};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Names one process of this boot for good: process ids are reused, start times with them are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The process id, in this PID namespace.
    pub pid: u32,
    /// When it started, in clock ticks since boot (`starttime` of proc(5)).
    pub started_ticks: u64,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It was adopted, so the system does not tell.
    Unknown,
}

/// A running, or not yet waited for, process. Dropping it leaves the process alone.
///
/// Its file descriptor (a pidfd) turns readable when the process ends.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    fd: OwnedFd,
}

impl Process {
    /// Takes hold of a process that another daemon started; none if it ended.
    ///
    /// # Errors
    /// What the system says, other than that the process is gone.
    pub fn adopt(id: ProcessId) -> io::Result<Option<Self>> {
        let Some(found) = Self::open(id.pid)? else {
            return Ok(None);
        };
        // The descriptor came first: if the start time fits, it is of the right process.
        Ok((found.id == id && !found.has_ended()?).then_some(found))
    }

    fn open(pid: u32) -> io::Result<Option<Self>> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let Some(raw) = raw else { return Ok(None) };
        let fd = match pidfd_open(raw, PidfdFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let Some(started_ticks) = started_ticks(pid)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            id: ProcessId { pid, started_ticks },
            fd,
        }))
    }

    /// Its lasting name, for [`Process::adopt`].
    #[must_use]
    pub const fn id(&self) -> ProcessId {
        self.id
    }

    /// Sends a signal to this process only. False if it ended.
    ///
    /// # Errors
    /// What the system says.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Sends a signal to its process group. Only while it is known not to have been waited for.
    fn signal_group(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.id.pid).ok().and_then(Pid::from_raw);
        let sent = pid.map(|pid| kill_process_group(pid, signal));
        // The process may not lead its group yet.
        self.signal(signal)?;
        match sent {
            Some(Err(e)) if e != Errno::SRCH => Err(e.into()),
            Some(_) | None => Ok(()),
        }
    }

    /// How it ended; none if it still runs. Reaps a child; asking again after that gives [`Ended::Unknown`].
    ///
    /// # Errors
    /// What the system says.
    pub fn try_wait(&self) -> io::Result<Option<Ended>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(self.fd.as_fd()), options) {
            Ok(None) | Err(Errno::AGAIN) => Ok(None),
            Ok(Some(status)) => Ok(Some(
                match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Ended::Code(code),
                    (None, Some(signal)) => Ended::Signal(signal),
                    (None, None) => Ended::Unknown,
                },
            )),
            Err(Errno::CHILD) => Ok(self.has_ended()?.then_some(Ended::Unknown)),
            Err(e) => Err(e.into()),
        }
    }

    /// Waits until it ends; none if `limit` passes first.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait(&self, limit: Duration) -> io::Result<Option<Ended>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(ended) = self.try_wait()? {
                return Ok(Some(ended));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.poll(left)?;
        }
    }

    fn has_ended(&self) -> io::Result<bool> {
        self.poll(Duration::ZERO)
    }

    fn poll(&self, limit: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(limit).unwrap_or_default();
        let mut polled = [PollFd::new(&self.fd, PollFlags::IN)];
        match poll(&mut polled, Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The start time of a process; none if there is none.
fn started_ticks(pid: u32) -> io::Result<Option<u64>> {
    let text = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(e) => return Err(e),
    };
    // The second field is the name in parentheses and may hold anything, also parentheses; starttime is the 22nd.
    let after_name = text.rsplit_once(')').map(|(_, rest)| rest);
    Ok(after_name.and_then(|rest| rest.split_whitespace().nth(19)?.parse().ok()))
}

#[cfg(test)]
mod tests;
