//! The data path of one mirror: one thread that moves bytes between front ends, disk and peer, as its
//! [`mirror::Replica`] says.
//!
//! Everything of a mirror happens in its thread, one completion after the other, without locks: the ring brings disk
//! completions and readiness of sockets, orders come in by a queue with an eventfd. Map: [`thread`](self) the loop,
//! `buffers` the machine's buffer names, `disk` its disk operations, `undo` the undo log, `peers` connections and frames, `nbd` the socket's
//! clients (the kernel's NBD device among them), `fuse` and `ublk` the other devices, `front` what front ends have in common.

mod aside;
mod buffers;
mod disk;
mod figures;
mod frames;
mod front;
mod fuse;
mod nbd;
mod numbered;
mod pack;
mod peers;
mod sockets;
mod spool;
mod thread;
mod ublk;
pub(crate) mod undo;

pub(crate) use peers::{random, random_id};

use crate::failure::Failure;
use host::fuse::{Channel, Negotiated};
use host::pki::Tls;
use host::ublk::Queue;
use mirror::control::{Command, Figures, Report};
use mirror::io::{Errno, IoId, UndoAnswer};
use rustix::event::{EventfdFlags, eventfd};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use undo::UndoLog;
use wire::NodeId;
use wire::layout::PAIRS_MAX;

/// What an engine is made with.
#[derive(Debug)]
pub struct EngineConfig {
    /// The mirror's name: the NBD export's, and for logs.
    pub name: String,
    /// The replica's values. `disk_bytes` and `external` are filled in from the disk.
    pub replica: mirror::Config,
    /// The backing disk.
    pub disk: PathBuf,
    /// How to open it.
    pub open: host::disk::OpenOptions,
    /// Where to listen for peers.
    pub listen: SocketAddr,
    /// The other replicas: name and mirror address.
    pub peers: BTreeMap<NodeId, (String, SocketAddr)>,
    /// TLS on the mirror link; none: plain, by explicit choice.
    pub tls: Option<Arc<Tls>>,
    /// Content is packed for the way to the peers.
    pub compress: bool,
    /// The NBD socket.
    pub nbd_socket: PathBuf,
    /// Where writes that a failover cut off are put aside.
    pub aside: PathBuf,
    /// Where the spool of an asynchronous mirror is made; its name is gone right after.
    pub spool: PathBuf,
    /// The undo log of resyncs to this replica, and the most bytes that it may take; none: resyncs have no way back.
    pub undo: Option<(PathBuf, u64)>,
}

impl EngineConfig {
    fn own_ip(&self) -> IpAddr {
        self.listen.ip()
    }
}

/// From an engine to the daemon.
#[derive(Clone, Debug)]
pub enum EngineEvent {
    /// The replica handled the commands up to this serial number: they are in force.
    Taken {
        /// Of [`node::Output::Mirror`].
        serial: u64,
    },
    /// The replica reports.
    Report(Report),
    /// The engine cannot go on.
    Failed {
        /// Why, for people.
        why: String,
    },
}

/// What the daemon wants of an engine.
#[derive(Debug)]
pub(crate) enum Order {
    /// From the node.
    Command { serial: u64, command: Command },
    /// Front ends are served (or not any more: their clients are cut off).
    Serve(bool),
    /// A FUSE file is served, fresh or adopted.
    AttachFuse {
        channel: Channel,
        negotiated: mpsc::Sender<Negotiated>,
    },
    /// What was to be put aside is, or cannot be.
    PutAside(std::io::Result<()>),
    /// An operation of the undo log ended.
    Undo {
        io: IoId,
        result: Result<UndoAnswer, Errno>,
    },
    /// The FUSE connection is dropped. What is under way on it stays unanswered.
    DetachFuse,
    /// A ublk device is served, made or taken over.
    AttachUblk { queue: Arc<Queue> },
    /// Every request of the ublk device fails, those under way included.
    FailUblk,
    /// The kernel's NBD device is served: our end of its connection.
    AttachNbd { socket: UnixStream, size: u64 },
    /// The process ends.
    End,
}

/// A running engine.
#[derive(Debug)]
pub struct Engine {
    handle: Handle,
    figures: Arc<Mutex<Figures>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// A way to give orders to an engine.
#[derive(Clone, Debug)]
pub struct Handle {
    orders: mpsc::Sender<Order>,
    bell: Arc<OwnedFd>,
    logical_block: u32,
}

/// Where an engine's events go.
pub type Sink = Box<dyn Fn(EngineEvent) + Send>;

impl Engine {
    /// Opens the disk and starts the thread.
    ///
    /// # Errors
    /// When the disk cannot be used or a socket cannot be made: names the object and what to do.
    pub fn start(mut config: EngineConfig, sink: Sink) -> Result<Self, Failure> {
        let name = config.name.clone();
        let failed = |what: &str| Failure::new(format!("cannot {what} of mirror {name}"));
        let disk = host::disk::Disk::open(&config.disk, &config.open).map_err(|error| {
            let hint = error.hint();
            failed("open the disk").from_error(&error).hint(hint)
        })?;
        let disk = Arc::new(disk);
        let volume = if disk.external().is_some() {
            let volume = disk.volume();
            Arc::new(volume.map_err(|e| failed("open the disk once more").cause(e))?)
        } else {
            Arc::clone(&disk)
        };
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| failed("make the doorbell").cause(e))?;
        let bell = Arc::new(bell);
        let sockets = sockets::Sockets::open(&config)?;
        let (orders, inbox) = mpsc::channel();
        let figures = Arc::new(Mutex::new(Figures::default()));
        let logical_block = disk.logical_block();
        // Each follower has a place of its own in it; there is one for each other replica that is remembered.
        let followers = u64::try_from(PAIRS_MAX).unwrap_or(1);
        let spool_bytes = match &config.replica.apart {
            Some(apart) => apart.bound.spool_bytes.saturating_mul(followers),
            None => 0,
        };
        let spool = spool::Spool::open(&config.spool, spool_bytes)?;
        let handle = Handle {
            orders,
            bell: Arc::clone(&bell),
            logical_block,
        };
        let undo = start_undo(&mut config, &volume, &handle);
        let inside = thread::Inside {
            handle: handle.clone(),
            spool,
            undo,
            disk,
            volume,
            sockets,
            inbox,
            bell,
            figures: Arc::clone(&figures),
            sink,
        };
        let thread = std::thread::Builder::new()
            .name(format!("mirror {name}"))
            .spawn(move || thread::run(config, inside))
            .map_err(|e| failed("start the thread").cause(e))?;
        Ok(Self {
            handle,
            figures,
            thread: Some(thread),
        })
    }

    /// For giving orders from elsewhere.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Hands a command of the node over; answered by [`EngineEvent::Taken`].
    pub fn command(&self, serial: u64, command: Command) {
        self.handle.order(Order::Command { serial, command });
    }

    /// Figures for status, at most a tenth of a second old.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.figures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A log that cannot be used, or hangs, never keeps a mirror from running: resyncs have no way back, and say so.
fn start_undo(config: &mut EngineConfig, disk: &Arc<host::disk::Disk>, handle: &Handle) -> UndoLog {
    let Some((path, bound)) = config.undo.clone() else {
        return UndoLog::none();
    };
    config.replica.undo_bytes = Some(bound);
    let place = undo::Place { path, bound };
    UndoLog::start(place, Arc::clone(disk), handle.clone()).unwrap_or_else(|error| {
        tracing::error!(mirror = config.name, %error, "cannot start the thread of the undo log: no resync to this node can be undone");
        UndoLog::none()
    })
}

impl Handle {
    /// The smallest unit of reads and writes, in bytes.
    pub const fn logical_block(&self) -> u32 {
        self.logical_block
    }

    /// Lets front ends in, or cuts them off.
    pub fn serve(&self, on: bool) {
        self.order(Order::Serve(on));
    }

    /// Serves a FUSE file, freshly mounted or adopted. What a fresh one negotiates with the kernel is sent to `negotiated`:
    /// for the keeper.
    pub fn attach_fuse(&self, channel: Channel, negotiated: mpsc::Sender<Negotiated>) {
        self.order(Order::AttachFuse {
            channel,
            negotiated,
        });
    }

    /// Drops the FUSE connection. Without another holder of its descriptor the kernel fails what is under way on it.
    pub fn detach_fuse(&self) {
        self.order(Order::DetachFuse);
    }

    /// Serves a ublk device, which is made or taken over at the same time. It goes by itself when it is stopped.
    pub fn attach_ublk(&self, queue: Arc<Queue>) {
        self.order(Order::AttachUblk { queue });
    }

    /// Fails everything on the ublk device from here on, so that it can be stopped.
    pub fn fail_ublk(&self) {
        self.order(Order::FailUblk);
    }

    /// Serves the kernel's NBD client at the other end of `socket`, which knows of a volume of this size.
    pub fn attach_nbd(&self, socket: UnixStream, size: u64) {
        self.order(Order::AttachNbd { socket, size });
    }

    fn order(&self, order: Order) {
        // A closed queue means that the engine failed: that event ends the process.
        if self.orders.send(order).is_ok() {
            rustix::io::write(&self.bell, &1_u64.to_ne_bytes()).ok();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.handle.order(Order::End);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
