//! Watches one running program: its end by a pidfd, its health by the monitor command.

use super::shared::{Shared, lock};
use crate::config::model::Exec;
use crate::failure::Failure;
use crate::run::daemon::ResourceEvent;
use host::process::{self, Ended, Launch, Process};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How often a failure is told again. The node drops what it hears while it restarts something else.
const REPEAT: Duration = Duration::from_millis(200);
/// Longest wait without a monitor; the pidfd ends it early.
const IDLE: Duration = Duration::from_secs(3600);

/// How the program does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It runs, and its monitor, if it has one, last said that it is well.
    Well,
    /// It runs, and its monitor says that it is not well: why.
    Unwell(String),
    /// It ended.
    Over(Ended),
}

/// A watched program. Dropping it ends the watch, not the program.
#[derive(Debug)]
pub(super) struct Watch {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    process: Process,
    health: Mutex<Health>,
    /// Readable once the watch is to end.
    stop: OwnedFd,
    /// Set under the lock of `health`, so that nothing is told after [`Watch::end`].
    stopped: Mutex<bool>,
}

impl Watch {
    /// Watches `process`, which runs as resource `index` of the group.
    ///
    /// # Errors
    /// When the system is out of descriptors or threads.
    pub(super) fn begin(
        shared: &Arc<Shared>,
        index: u8,
        exec: &Exec,
        process: Process,
    ) -> io::Result<Self> {
        let inner = Arc::new(Inner {
            process,
            health: Mutex::new(Health::Well),
            stop: eventfd(0, EventfdFlags::CLOEXEC)?,
            stopped: Mutex::new(false),
        });
        let watcher = Watcher {
            shared: Arc::clone(shared),
            index,
            exec: exec.clone(),
            inner: Arc::clone(&inner),
        };
        thread::Builder::new()
            .name(format!("watch {}", exec.name))
            .spawn(move || watcher.run())?;
        Ok(Self { inner })
    }

    pub(super) fn process(&self) -> &Process {
        &self.inner.process
    }

    pub(super) fn health(&self) -> Health {
        lock(&self.inner.health).clone()
    }

    /// The monitor said otherwise since.
    pub(super) fn set_well(&self) {
        *lock(&self.inner.health) = Health::Well;
    }

    /// Tells nothing any more.
    pub(super) fn end(&self) {
        *lock(&self.inner.stopped) = true;
        rustix::io::write(&self.inner.stop, &1_u64.to_ne_bytes()).ok();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

struct Watcher {
    shared: Arc<Shared>,
    index: u8,
    exec: Exec,
    inner: Arc<Inner>,
}

impl Watcher {
    fn run(&self) {
        loop {
            let over = matches!(*lock(&self.inner.health), Health::Over(_));
            let pause = match (&self.exec.monitor, over) {
                (_, true) => REPEAT,
                (Some(_), false) => self.exec.monitor_interval,
                (None, false) => IDLE,
            };
            match self.wait(pause, over) {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, program = self.exec.name, "the program cannot be watched");
                    thread::sleep(REPEAT);
                }
            }
            if !over && let Some(health) = self.look() {
                self.change(health);
            }
            self.tell();
        }
    }

    /// Waits until the program ends or `pause` is over; true if the watch is to end.
    fn wait(&self, pause: Duration, over: bool) -> io::Result<bool> {
        let deadline = Instant::now() + pause;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).unwrap_or_default();
            let mut polled = [
                PollFd::new(&self.inner.stop, PollFlags::IN),
                PollFd::new(&self.inner.process, PollFlags::IN),
            ];
            let polled = if over {
                &mut polled[..1]
            } else {
                &mut polled[..]
            };
            match poll(polled, Some(&timeout)) {
                Ok(_) => return Ok(*lock(&self.inner.stopped)),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn look(&self) -> Option<Health> {
        match self.inner.process.try_wait() {
            Ok(Some(ended)) => return Some(Health::Over(ended)),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, program = self.exec.name, "the program cannot be asked for its state");
            }
        }
        let calm = self.shared.freezer.calm()?;
        let verdict = monitor(&self.shared, &self.exec)?;
        if verdict.is_err() && self.shared.freezer.calm() != Some(calm) {
            // It waited for a file system that stands still for a snapshot, or did.
            return None;
        }
        // A monitor that failed because the program ended meanwhile is not the news.
        Some(match self.inner.process.try_wait() {
            Ok(Some(ended)) => Health::Over(ended),
            Ok(None) | Err(_) => verdict.map_or_else(Health::Unwell, |()| Health::Well),
        })
    }

    fn change(&self, health: Health) {
        let stopped = lock(&self.inner.stopped);
        if *stopped {
            return;
        }
        let mut known = lock(&self.inner.health);
        if *known != health {
            match &health {
                Health::Well => tracing::info!(program = self.exec.name, "program is well again"),
                Health::Unwell(why) => {
                    tracing::warn!(program = self.exec.name, why, "program is not well")
                }
                Health::Over(ended) => {
                    tracing::warn!(
                        program = self.exec.name,
                        how = describe(*ended),
                        "program ended"
                    );
                }
            }
        }
        let index = usize::from(self.index);
        match &health {
            Health::Well => self.shared.forget_failure(index),
            Health::Unwell(why) => self.shared.note_failure(index, &self.failure(why)),
            Health::Over(ended) => self
                .shared
                .note_failure(index, &self.failure(&describe(*ended))),
        }
        *known = health;
        drop((known, stopped));
    }

    fn failure(&self, why: &str) -> Failure {
        Failure::new(format!("{} is not well", self.exec.name)).cause(why)
    }

    fn tell(&self) {
        let stopped = lock(&self.inner.stopped);
        if !*stopped && *lock(&self.inner.health) != Health::Well {
            let (group, resource) = (self.shared.plan.id, self.index);
            self.shared.tell(ResourceEvent::Failed { group, resource });
        }
        drop(stopped);
    }
}

/// Runs the monitor once; none if the program has none. The error says what it said.
pub(super) fn monitor(shared: &Shared, exec: &Exec) -> Option<Result<(), String>> {
    let command = exec.monitor.clone()?;
    Some(run(shared, exec, command, exec.monitor_interval))
}

/// Runs a command of a program to its end, in the group's control group.
pub(super) fn run(
    shared: &Shared,
    exec: &Exec,
    command: Vec<String>,
    limit: Duration,
) -> Result<(), String> {
    let cgroup = shared.plan.command_cgroup().map_err(|e| one_line(&e))?;
    let user = exec.user.as_deref().map(process::User::find).transpose();
    let launch = Launch {
        command,
        environment: shared.plan.environment(&exec.name),
        directory: None,
        user: user.map_err(|e| e.to_string())?,
        cgroup: Some(cgroup.path().to_owned()),
    };
    let outcome = process::run(&shared.plan.launcher, &launch, limit).map_err(|e| e.to_string())?;
    if outcome.succeeded() {
        return Ok(());
    }
    let how = outcome.ended.map_or_else(
        || format!("took longer than {} ms and was killed", limit.as_millis()),
        describe,
    );
    let text = String::from_utf8_lossy(&outcome.output);
    match text.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(last) => Err(format!("{how}, saying: {last}")),
        None => Err(how),
    }
}

/// In words.
pub(super) fn describe(ended: Ended) -> String {
    match ended {
        Ended::Code(code) => format!("ended with code {code}"),
        Ended::Signal(signal) => format!("was ended by signal {signal}"),
        Ended::Unknown => "ended".to_owned(),
    }
}

/// A failure in one line, for the log.
pub(super) fn one_line(failure: &Failure) -> String {
    let texts: Vec<&str> = failure
        .lines()
        .filter(|(label, _)| *label != "hint")
        .map(|(_, text)| text)
        .collect();
    texts.join(": ")
}
