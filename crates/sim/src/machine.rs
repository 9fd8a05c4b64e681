//! A machine: what survives its processes (disks, member file, kernel state), and the daemon that runs on it.

use crate::clock::{Clock, Moment};
use crate::disk::Disk;
use crate::instance::Instance;
use crate::queue::ToProcess;
use mirror::io::{BufId, RequestId};
use node::Node;
use std::collections::{BTreeMap, VecDeque};
use wire::durable::Durable;
use wire::{Epoch, NodeId, Time};

/// One machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) id: NodeId,
    pub(crate) clock: Clock,
    /// False while it is switched off.
    pub(crate) up: bool,
    /// It stands still, its clock too.
    pub(crate) frozen: bool,
    /// Rises with every boot.
    pub(crate) boot: u64,
    /// One per mirror; none on the witness.
    pub(crate) disks: Vec<Disk>,
    /// The member file's content.
    pub(crate) file: Vec<u8>,
    /// The address passes before this time of the machine's clock: the kernel's set with its timeout (R12).
    pub(crate) gate: Time,
    pub(crate) instance: Option<Instance>,
    /// Acts on resources under way.
    pub(crate) acts: BTreeMap<u64, Act>,
    pub(crate) process: Option<Process>,
    /// The supervisor will start the daemon.
    pub(crate) starting: bool,
    /// Writing the member file takes this many times as long; 0 like 1.
    pub(crate) slow_file: u32,
    /// The next write of the member file fails, which ends the process.
    pub(crate) file_fails: bool,
    /// A replica reported that its disk failed; only a restart makes it try again.
    pub(crate) disk_failed: bool,
    /// Nothing can be put aside.
    pub(crate) no_room: bool,
    /// Starts of the application fail.
    pub(crate) app_broken: bool,
    /// Stops of the application hang until the shell gives up.
    pub(crate) stop_hangs: bool,
}

/// An act on a resource, under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Act {
    pub(crate) life: u64,
    pub(crate) instance: u64,
    pub(crate) token: u64,
    pub(crate) resource: u8,
    pub(crate) start: bool,
    /// It fails at the latest then.
    pub(crate) deadline: Moment,
}

/// One life of the daemon.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) life: u64,
    pub(crate) node: Node,
    pub(crate) engines: Vec<Engine>,
    /// Stopped by a signal, since then nothing is handled.
    pub(crate) paused: bool,
    /// What came meanwhile.
    pub(crate) deferred: VecDeque<ToProcess>,
    pub(crate) wake: Option<Moment>,
    /// States of the member file to be written, the first one under way.
    pub(crate) writing: Option<(u64, Durable)>,
    pub(crate) to_write: Option<(u64, Durable)>,
    /// Wakes in a row that were due at once.
    pub(crate) spins: u32,
}

/// Drives one replica.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) replica: mirror::Replica,
    pub(crate) bufs: BTreeMap<BufId, Vec<u8>>,
    pub(crate) next_buf: u64,
    pub(crate) next_request: u64,
    /// The application's requests that the replica has, by its name for them.
    pub(crate) requests: BTreeMap<RequestId, Given>,
    pub(crate) wake: Option<Moment>,
    /// When the latest command arrives, and the latest report: both keep their order.
    pub(crate) commands_until: Moment,
    pub(crate) reports_until: Moment,
    /// By the latest command handled: the end of the lease, and the epoch of the activation.
    pub(crate) lease: Time,
    pub(crate) epoch: Option<Epoch>,
    /// Its activation may serve: it said so, and was not told to stop.
    pub(crate) serving: bool,
    pub(crate) spins: u32,
    /// The spool's content, by offset.
    pub(crate) spool: BTreeMap<u64, Vec<u8>>,
}

/// A request that a replica has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given {
    pub(crate) op: crate::oracle::OpId,
    pub(crate) buf: Option<BufId>,
}

impl Machine {
    /// Its own time.
    pub(crate) fn local(&self, now: Moment) -> Time {
        self.clock.local(now)
    }

    /// The process of this life, if it still runs.
    pub(crate) fn process(&mut self, life: u64) -> Option<&mut Process> {
        self.process.as_mut().filter(|process| process.life == life)
    }

    /// The life of the process that runs.
    pub(crate) fn life(&self) -> Option<u64> {
        self.process.as_ref().map(|process| process.life)
    }

    /// True if the address is up here and its gate lets traffic pass.
    pub(crate) fn answers(&self, address: u8, now: Moment) -> bool {
        let has = self
            .instance
            .as_ref()
            .is_some_and(|i| i.running.contains(&address));
        self.up && !self.frozen && has && self.local(now) < self.gate
    }
}
