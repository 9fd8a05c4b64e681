//! The keeper's process.

use super::message::{Item, Lease, Overview, Reply, Request, Step, TornDown, VERSION};
use super::packet::{self, Received};
use super::{BLOB_MAX, ITEMS_MAX, NAME_MAX, STEPS_MAX, teardown};
use crate::{clock, memory};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
    sockopt,
};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use wire::Time;

/// Connections at the same time; more are closed at once.
const CONNECTIONS_MAX: usize = 8;

/// Why a keeper could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// There is one already.
    #[error("group {group} has a keeper already at {}", socket.display())]
    Second {
        /// The group.
        group: String,
        /// Its socket.
        socket: PathBuf,
    },
    /// The system refused.
    #[error("keeper of group {group} cannot {step}")]
    Io {
        /// The group.
        group: String,
        /// What it was about to do.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// What the keeper does when its timer goes off.
#[derive(Debug)]
enum State {
    /// No lease was set: nothing.
    Unset,
    /// Tears down at the lease's deadline.
    Guarding(Lease),
    /// It has done so.
    TornDown(TornDown),
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    /// It has said hello in our version.
    greeted: bool,
}

#[derive(Debug)]
struct Held {
    fd: OwnedFd,
    blob: Vec<u8>,
}

#[derive(Debug)]
struct Keeper {
    group: String,
    items: BTreeMap<String, Held>,
    steps: Vec<Step>,
    state: State,
    released: bool,
}

/// Runs the keeper of `group` on the Unix socket at `socket` until it is released.
///
/// It begins a session of its own, so that nothing that ends the daemon's session ends it. The caller starts it
/// with standard streams that nobody waits for.
///
/// # Errors
/// [`ServeError::Second`] when the group has a keeper already.
pub fn serve(group: &str, socket: &Path) -> Result<(), ServeError> {
    detach();
    guard(group, socket)
}

/// [`serve`] in the process as it is.
pub(super) fn guard(group: &str, socket: &Path) -> Result<(), ServeError> {
    let failed = |step| {
        let group = group.to_owned();
        move |source: io::Error| ServeError::Io {
            group,
            step,
            source,
        }
    };
    let Some(_lock) = lock(socket).map_err(failed("lock its socket"))? else {
        let (group, socket) = (group.to_owned(), socket.to_owned());
        return Err(ServeError::Second { group, socket });
    };
    let listener = listen_at(socket).map_err(failed("listen"))?;
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = timerfd_create(TimerfdClockId::Boottime, flags)
        .map_err(|errno| failed("make a timer")(errno.into()))?;
    tracing::info!(group, "keeper guards");
    let mut keeper = Keeper {
        group: group.to_owned(),
        items: BTreeMap::new(),
        steps: Vec::new(),
        state: State::Unset,
        released: false,
    };
    keeper.run(&listener, &timer).map_err(failed("wait"))?;
    std::fs::remove_file(socket).ok();
    tracing::info!(group, "keeper was released");
    Ok(())
}

/// Makes this process independent of the daemon that started it, and hard to disturb.
fn detach() {
    // Fails when it leads a session already, which is as good.
    rustix::process::setsid().ok();
    if let Err(why) = memory::lock_memory() {
        tracing::warn!(%why, "keeper's memory can be swapped out");
    }
    if let Err(why) = std::fs::write("/proc/self/oom_score_adj", "-1000") {
        tracing::debug!(%why, "keeper may be chosen when memory runs out");
    }
}

/// `None` when another keeper holds the lock.
fn lock(socket: &Path) -> io::Result<Option<OwnedFd>> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(Path::new(&path), flags, Mode::RUSR | Mode::WUSR)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR)?;
    listen(&socket, 16)?;
    Ok(socket)
}

impl Keeper {
    fn run(&mut self, listener: &OwnedFd, timer: &OwnedFd) -> io::Result<()> {
        let mut connections: Vec<Connection> = Vec::new();
        while !self.released {
            self.set_timer(timer)?;
            let mut fds = vec![
                PollFd::new(listener, PollFlags::IN),
                PollFd::new(timer, PollFlags::IN),
            ];
            fds.extend(
                connections
                    .iter()
                    .map(|c| PollFd::new(&c.socket, PollFlags::IN)),
            );
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            // The deadline comes first: a renewal that is late is late.
            self.on_time();
            let mut index = 2;
            connections.retain_mut(|connection| {
                index += 1;
                !ready[index - 1] || self.serve_connection(connection)
            });
            if ready[0] {
                accept_all(listener, &mut connections);
            }
        }
        Ok(())
    }

    fn set_timer(&self, timer: &OwnedFd) -> io::Result<()> {
        let at = match &self.state {
            State::Guarding(lease) if lease.until != Time::MAX => {
                lease.deadline().as_nanos().max(1)
            }
            State::Guarding(_) | State::Unset | State::TornDown(_) => 0,
        };
        let it_value = Timespec {
            tv_sec: i64::try_from(at / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(at % 1_000_000_000).unwrap_or(0),
        };
        let setting = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value,
        };
        timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &setting)?;
        Ok(())
    }

    fn on_time(&mut self) {
        let State::Guarding(lease) = self.state else {
            return;
        };
        let at = clock::now();
        if lease.until == Time::MAX || at < lease.deadline() {
            return;
        }
        tracing::error!(
            group = self.group,
            "lease ran out and was not renewed, tearing down"
        );
        let items = &mut self.items;
        let steps = teardown::run(self.steps.clone(), |name| {
            items.remove(name);
        });
        self.state = State::TornDown(TornDown { lease, at, steps });
    }

    /// One request; whether the connection is to be kept.
    fn serve_connection(&mut self, connection: &mut Connection) -> bool {
        let (request, fd) = match packet::receive::<Request>(&connection.socket) {
            Ok(Received::Message(request, fd)) => (request, fd),
            Ok(Received::Closed) => return false,
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return true,
            Err(why) => {
                tracing::warn!(%why, "keeper got a message that makes no sense");
                return false;
            }
        };
        let reply = match (connection.greeted, request) {
            (_, Request::Hello { version: VERSION }) => {
                connection.greeted = true;
                Reply::Overview(self.overview())
            }
            (_, Request::Hello { version }) => {
                Reply::Refused(format!("keeper speaks version {VERSION}, not {version}"))
            }
            (false, _) => Reply::Refused("say hello first".to_owned()),
            (true, request) => self.handle(request, fd),
        };
        let held = match &reply {
            Reply::Item(item) => self.items.get(&item.name).map(|held| held.fd.as_fd()),
            Reply::Done
            | Reply::Missing
            | Reply::Overview(_)
            | Reply::TornDown(_)
            | Reply::Refused(_) => None,
        };
        packet::send(&connection.socket, &reply, held).is_ok()
    }

    fn handle(&mut self, request: Request, fd: Option<OwnedFd>) -> Reply {
        match request {
            Request::Hello { .. } | Request::Overview => Reply::Overview(self.overview()),
            Request::Get { name } => match self.items.get(&name) {
                Some(held) => Reply::Item(Item {
                    name,
                    blob: held.blob.clone(),
                }),
                None => Reply::Missing,
            },
            Request::Forget { name } => match self.items.remove(&name) {
                Some(_) => Reply::Done,
                None => Reply::Missing,
            },
            Request::Reset => {
                self.steps.clear();
                self.state = State::Unset;
                Reply::Done
            }
            Request::Release => {
                self.released = true;
                Reply::Done
            }
            Request::Put(_) | Request::SetLease(_) | Request::EndLease | Request::SetSteps(_) => {
                match &self.state {
                    State::TornDown(torn_down) => Reply::TornDown(torn_down.clone()),
                    State::Unset | State::Guarding(_) => self.change(request, fd),
                }
            }
        }
    }

    /// What is refused after a teardown until the daemon has taken note of it.
    fn change(&mut self, request: Request, fd: Option<OwnedFd>) -> Reply {
        match request {
            Request::Put(item) => return self.put(item, fd),
            Request::SetLease(lease) => self.state = State::Guarding(lease),
            Request::EndLease => self.state = State::Unset,
            Request::SetSteps(steps) if steps.len() > STEPS_MAX => {
                return Reply::Refused(format!("more than {STEPS_MAX} steps"));
            }
            Request::SetSteps(steps) => self.steps = steps,
            Request::Hello { .. }
            | Request::Get { .. }
            | Request::Forget { .. }
            | Request::Overview
            | Request::Reset
            | Request::Release => {}
        }
        Reply::Done
    }

    fn put(&mut self, item: Item, fd: Option<OwnedFd>) -> Reply {
        let Some(fd) = fd else {
            return Reply::Refused(format!("item {} came without a descriptor", item.name));
        };
        if item.name.len() > NAME_MAX || item.blob.len() > BLOB_MAX {
            return Reply::Refused("name or blob is too long".to_owned());
        }
        if self.items.len() >= ITEMS_MAX && !self.items.contains_key(&item.name) {
            return Reply::Refused(format!("keeper holds {ITEMS_MAX} items already"));
        }
        self.items.insert(
            item.name,
            Held {
                fd,
                blob: item.blob,
            },
        );
        Reply::Done
    }

    fn overview(&self) -> Overview {
        let (lease, torn_down) = match &self.state {
            State::Unset => (None, None),
            State::Guarding(lease) => (Some(*lease), None),
            State::TornDown(torn_down) => (None, Some(torn_down.clone())),
        };
        Overview {
            pid: std::process::id(),
            group: self.group.clone(),
            items: self.items.keys().cloned().collect(),
            lease,
            steps: self.steps.clone(),
            torn_down,
        }
    }
}

fn accept_all(listener: &OwnedFd, connections: &mut Vec<Connection>) {
    while let Ok(socket) = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        let peer = sockopt::socket_peercred(&socket).map(|peer| peer.uid);
        if peer != Ok(rustix::process::geteuid()) {
            tracing::warn!(?peer, "keeper refused a connection of another user");
            continue;
        }
        if connections.len() >= CONNECTIONS_MAX {
            tracing::warn!("keeper has too many connections, closing the newest");
            continue;
        }
        connections.push(Connection {
            socket,
            greeted: false,
        });
    }
}
