//! The attached replica: its state, and where each input goes.
//!
//! Inputs are handled by `on_…` functions in the module that owns the matter; then [`Machine::advance`] moves on whatever
//! only waited for a condition (something durable, something empty, a point in time). Nothing ever waits inside a function.

use crate::activate::Active;
use crate::aside::Aside;
use crate::bits::Bits;
use crate::config::Config;
use crate::control::{Figures, Report, VerifyResult};
use crate::disk::{Disk, Purpose, is_overlooked};
use crate::flush::FlushOp;
use crate::follower::{Kept, Spool};
use crate::gain::Gain;
use crate::growing::Growths;
use crate::intent::{Intent, Period};
use crate::io::{BufId, ConnId, DiskOp, Errno, Input, IoId, Output, Payload, Request, RequestId};
use crate::job::Job;
use crate::nodes::NodeSet;
use crate::pace::Pace;
use crate::peer::Peer;
use crate::planes::Planes;
use crate::ranges::Locks;
use crate::request::Frozen;
use crate::role::Role;
use crate::superblock::{Super, Ticket};
use crate::undo::Undo;
use crate::verify::Verify;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wire::layout::Layout;
use wire::mirror_frame::Header;
use wire::{ByteCount, Epoch, Generation, NodeId, Time};

/// One local write, zeroing, chunk read or ordered request of the peer; numbered in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct JobId(pub(crate) u64);

/// One flush while active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlushId(pub(crate) u64);

/// How the local disk failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// An operation ended with this error.
    Error(Errno),
    /// An operation does not end.
    Hang,
}

/// The state of an attached replica.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) config: Config,
    pub(crate) now: Time,
    pub(crate) out: VecDeque<Output>,
    pub(crate) role: Role,
    /// Set once, for good: no disk operation starts after it (G4, R7).
    pub(crate) failed: Option<Failure>,

    pub(crate) layout: Layout,
    pub(crate) superblock: Super,
    pub(crate) intent: Intent,
    /// One against each other replica that the superblock remembers.
    pub(crate) planes: Planes,
    /// Generation before this attach.
    pub(crate) before: Generation,
    /// The machine did not lose power since the last attach.
    pub(crate) volatile_kept: bool,
    /// Sessions of an older epoch than this are refused (R4). Invariant: at least the superblock's.
    pub(crate) floor: Epoch,

    pub(crate) disk: Disk,
    pub(crate) locks: Locks,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    pub(crate) jobs_made: u64,
    /// Jobs that wait for room in the intent log, in order.
    pub(crate) cold: VecDeque<JobId>,
    /// Jobs with room in the intent log that have not started, in order.
    pub(crate) logging: VecDeque<JobId>,
    pub(crate) bufs_made: u64,

    /// Counts activations, so that a late read of an earlier one answers nobody.
    pub(crate) activation: u64,
    /// The front end is answered before this time only (R8).
    pub(crate) lease: Time,
    /// No activation is coming for the front end's requests: they are refused.
    pub(crate) closed: bool,
    /// Requests without a reply.
    pub(crate) pending: BTreeSet<RequestId>,
    /// Requests that came before serving.
    pub(crate) held: VecDeque<Request>,
    /// Reads that wait for a lease.
    pub(crate) frozen: VecDeque<Frozen>,
    pub(crate) flushes: BTreeMap<FlushId, FlushOp>,
    pub(crate) flushes_made: u64,
    /// What settles now counts to this period.
    pub(crate) period: Period,
    /// Everything that settled up to this period is durable on all required replicas.
    pub(crate) clean: Period,
    /// Every region that may leave the intent log up to this period has left it: only a later flush lets more go.
    pub(crate) relieved: Option<Period>,
    /// While active: the other replicas.
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    /// Of these: whose acknowledgements count (R10).
    pub(crate) live: NodeSet,
    pub(crate) resync_sent: u64,
    /// Where the front end's last write ended, in bytes.
    pub(crate) stream_end: u64,
    /// Writes of the front end whose regions were not in the intent log.
    pub(crate) cold_writes: u64,
    pub(crate) pace: Pace,
    /// A verification that is going on.
    pub(crate) verify: Option<Verify>,
    /// What the last one that ended found.
    pub(crate) verified: Option<VerifyResult>,
    pub(crate) verifies: u64,
    pub(crate) gain: Gain,
    pub(crate) growths: Growths,
    /// Buffers of frames that wait for followers.
    pub(crate) kept: BTreeMap<BufId, Kept>,
    pub(crate) spool: Spool,
    /// Asynchronous: the nodes that this one does not wait for.
    pub(crate) apart: NodeSet,
    pub(crate) aside: Aside,
    /// The active for which that was judged.
    pub(crate) aside_for: Option<NodeId>,
    /// A forced promotion may have left behind what this replica has.
    pub(crate) cut_off: bool,
    /// What leads back from a resync.
    pub(crate) undo: Undo,
}

/// What attaching found.
pub(crate) struct Parts {
    pub(crate) layout: Layout,
    pub(crate) superblock: Super,
    pub(crate) intent: Intent,
    pub(crate) planes: Planes,
    pub(crate) before: Generation,
    pub(crate) volatile_kept: bool,
    /// For the boot that it was attached in.
    pub(crate) ticket: Ticket,
    /// First unused operation name.
    pub(crate) next_io: u64,
}

impl Machine {
    pub(crate) fn new(config: Config, now: Time, parts: Parts) -> Self {
        let floor = parts.superblock.get().epoch;
        let pace = Pace::new(config.resync_chunks_max);
        let apart = config.apart();
        Self {
            config,
            now,
            out: VecDeque::new(),
            role: Role::Attaching(parts.ticket),
            failed: None,
            layout: parts.layout,
            superblock: parts.superblock,
            intent: parts.intent,
            planes: parts.planes,
            before: parts.before,
            volatile_kept: parts.volatile_kept,
            floor,
            disk: Disk::starting_at(parts.next_io),
            locks: Locks::default(),
            jobs: BTreeMap::new(),
            jobs_made: 0,
            cold: VecDeque::new(),
            logging: VecDeque::new(),
            bufs_made: 0,
            activation: 0,
            lease: Time::ZERO,
            closed: false,
            pending: BTreeSet::new(),
            held: VecDeque::new(),
            frozen: VecDeque::new(),
            flushes: BTreeMap::new(),
            flushes_made: 0,
            period: Period(1),
            clean: Period(0),
            relieved: None,
            peers: BTreeMap::new(),
            live: NodeSet::EMPTY,
            resync_sent: 0,
            stream_end: u64::MAX,
            cold_writes: 0,
            pace,
            verify: None,
            verified: None,
            verifies: 0,
            gain: Gain::default(),
            growths: Growths::default(),
            kept: BTreeMap::new(),
            spool: Spool::default(),
            apart,
            aside: Aside::Unknown,
            aside_for: None,
            cut_off: false,
            undo: Undo::default(),
        }
    }

    pub(crate) fn handle(&mut self, now: Time, input: Input) {
        self.pass_time(now);
        match input {
            Input::Command(command) => self.on_command(command),
            Input::Request(request) => self.on_request(request),
            Input::DiskDone { io, result } => self.on_disk_done(io, result),
            Input::SpoolDone { io, result } => self.on_spool_done(io, result),
            Input::UndoDone { io, result } => self.on_undo_done(io, result),
            Input::PutAside { result } => self.on_put_aside(result),
            Input::Measured { disk_bytes } => self.on_measured(disk_bytes),
            Input::Connected { conn, node, side } => self.on_connected(conn, node, side),
            Input::ConnectFailed { node } => self.on_connect_failed(node),
            Input::Frame {
                conn,
                header,
                payload,
            } => self.on_frame(conn, header, payload),
            Input::Disconnected { conn, why } => self.on_disconnected(conn, why),
            Input::Wake => {}
        }
        self.on_time();
        self.advance();
    }

    /// Moves on what waited for a condition.
    pub(crate) fn advance(&mut self) {
        if self.failed.is_none() {
            self.advance_undo();
            match &self.role {
                Role::Attaching(ticket) => self.advance_attaching(*ticket),
                Role::Active(_) => self.advance_active(),
                Role::Standby(_) => self.advance_standby(),
                Role::Idle | Role::Settling(_) => {}
            }
        }
        self.advance_settling();
        self.write_metadata();
    }

    fn on_disk_done(&mut self, io: IoId, result: Result<Vec<u8>, Errno>) {
        let Some(purpose) = self.disk.end(io) else {
            return;
        };
        if let Err(errno) = result
            && !is_overlooked(purpose)
        {
            if self.failed.is_none() && self.survives(purpose) {
                return;
            }
            self.fail(Failure::Error(errno));
        }
        if self.failed.is_some() {
            return self.let_go(purpose);
        }
        let bytes = result.unwrap_or_default();
        match purpose {
            Purpose::Super => self.superblock.written(),
            Purpose::Intent => self.on_intent_written(),
            Purpose::Bitmap(index) => self.planes.written(index),
            Purpose::Read {
                request,
                buf,
                activation,
                ..
            } => self.on_read_done(request, buf, activation),
            Purpose::Job(job) => self.on_job_done(job, &bytes),
            Purpose::Flush(flush) => self.on_local_flush_done(flush),
            Purpose::PeerFlush(op) => self.on_peer_flush_done(op),
            Purpose::Clear => self.on_clear_step(),
            Purpose::GainFlush(step) => self.on_gain_flushed(step),
        }
    }

    /// An operation ended on a failed disk: only its buffer matters. The request stays pending until it is aborted.
    fn let_go(&mut self, purpose: Purpose) {
        match purpose {
            Purpose::Read { buf, .. } => self.release(buf),
            Purpose::Job(job) => self.on_job_lost(job),
            Purpose::Clear => self.drop_clearing(),
            Purpose::Super
            | Purpose::Intent
            | Purpose::Bitmap(_)
            | Purpose::Flush(_)
            | Purpose::PeerFlush(_)
            | Purpose::GainFlush(_) => {}
        }
    }

    /// The local disk is bad for good.
    pub(crate) fn fail(&mut self, failure: Failure) {
        if self.failed.is_some() {
            return;
        }
        self.failed = Some(failure);
        self.report_failure();
        self.refuse_for_failed_disk();
    }

    /// Tells the node that the disk failed.
    pub(crate) fn report_failure(&mut self) {
        let errno = match self.failed {
            Some(Failure::Error(errno)) => Some(errno.0),
            Some(Failure::Hang) => None,
            None => return,
        };
        let report = match self.role {
            Role::Attaching(_) => Report::AttachFailed {
                reason: "its metadata cannot be written".to_owned(),
                wrong: None,
            },
            Role::Idle | Role::Settling(_) | Role::Standby(_) | Role::Active(_) => {
                Report::LocalFailed { errno }
            }
        };
        self.report(report);
    }

    /// Starts a disk operation, unless the disk failed: then whatever waits for it waits until it is aborted.
    pub(crate) fn start_disk(&mut self, purpose: Purpose, op: DiskOp) -> bool {
        if self.failed.is_some() {
            return false;
        }
        let io = self.disk.begin(self.now, purpose);
        let op = self.as_opened(op);
        self.out.push_back(Output::Disk { io, op });
        true
    }

    /// Starts the metadata writes that are due.
    fn write_metadata(&mut self) {
        if self.failed.is_some() {
            return;
        }
        if let Some((offset, bytes)) = self.superblock.next_write(self.layout.disk_bytes) {
            self.start_disk(Purpose::Super, DiskOp::MetaWrite { offset, bytes });
        }
        if matches!(self.role, Role::Settling(_)) {
            return;
        }
        if let Some((offset, bytes)) = self.intent.next_write(&self.layout) {
            self.start_disk(Purpose::Intent, DiskOp::MetaWrite { offset, bytes });
        }
        // A bitmap counts from the baseline that is on the disk.
        if !self.superblock.is_settled() {
            return;
        }
        while let Some((index, offset, bytes)) = self.planes.next_write(&self.layout) {
            self.start_disk(Purpose::Bitmap(index), DiskOp::MetaWrite { offset, bytes });
        }
    }

    /// What the clock alone changes.
    fn on_time(&mut self) {
        let hung_at = self.disk.hung_at(self.config.io_timeout);
        if hung_at.is_some_and(|at| at <= self.now) {
            self.fail(Failure::Hang);
            self.failed = Some(Failure::Hang);
        }
        if self.failed.is_some() {
            return;
        }
        self.on_undo_time();
        match &self.role {
            Role::Active(_) => self.on_active_time(),
            Role::Standby(_) => self.on_standby_time(),
            Role::Attaching(_) | Role::Idle | Role::Settling(_) => {}
        }
    }

    pub(crate) fn wake_at(&self) -> Option<Time> {
        let undo_at = self.undo.wake_at();
        let hung_at = self
            .disk
            .hung_at(self.config.io_timeout)
            .into_iter()
            .chain(self.look_at())
            .min();
        match self.failed {
            Some(Failure::Hang) => return None,
            Some(Failure::Error(_)) => return hung_at,
            None => {}
        }
        let of_role = match &self.role {
            Role::Active(active) => self.active_wake_at(active),
            Role::Standby(standby) => standby.wake_at(self.config.io_timeout),
            Role::Attaching(_) | Role::Idle | Role::Settling(_) => None,
        };
        hung_at.into_iter().chain(of_role).chain(undo_at).min()
    }

    pub(crate) fn figures(&self) -> Figures {
        let marked = |node: NodeId, peer: &Peer| {
            let todo = peer.todo().map_or(0, Bits::ones);
            let marked = self.plane(node).map_or(0, |plane| plane.base().ones());
            ByteCount(marked.max(todo) * wire::units::BLOCK_BYTES)
        };
        let oldest = self.peers.values().filter_map(Peer::lacks_since).min();
        Figures {
            out_of_sync: self
                .peers
                .iter()
                .map(|(n, p)| (*n, marked(*n, p)))
                .collect(),
            lag: ByteCount(self.peers.values().map(|peer| peer.lag.bytes()).sum()),
            lag_age: oldest.map_or(wire::Duration::ZERO, |at| self.now.since(at)),
            resync_sent: ByteCount(self.resync_sent),
            hot_regions: self.intent.len(),
            cold_writes: self.cold_writes,
            io_under_way: self.disk.len(),
            verify: self.verify_figures(),
            growth: self.growth_figures(),
            replica: Some(self.replica_figures()),
            differing: crate::runs::Places::default(),
        }
    }

    pub(crate) const fn active(&self) -> Option<&Active> {
        match &self.role {
            Role::Active(active) => Some(active),
            Role::Attaching(_) | Role::Idle | Role::Settling(_) | Role::Standby(_) => None,
        }
    }

    pub(crate) const fn active_mut(&mut self) -> Option<&mut Active> {
        match &mut self.role {
            Role::Active(active) => Some(active),
            Role::Attaching(_) | Role::Idle | Role::Settling(_) | Role::Standby(_) => None,
        }
    }

    /// Asynchronous: other nodes that may be promoted, and so must be within their bound (R11).
    pub(crate) fn eligible(&self) -> NodeSet {
        self.active().map_or(NodeSet::EMPTY, |a| a.eligible)
    }

    /// Other nodes that must hold a write before it is acknowledged; none while not active.
    pub(crate) fn required(&self) -> NodeSet {
        self.active().map_or(NodeSet::EMPTY, |a| a.required)
    }

    pub(crate) const fn next_job(&mut self) -> JobId {
        self.jobs_made += 1;
        JobId(self.jobs_made)
    }

    pub(crate) fn alloc(&mut self, len: u64) -> BufId {
        let buf = BufId(BufId::MACHINE + self.bufs_made);
        self.bufs_made += 1;
        self.out.push_back(Output::Alloc { buf, len });
        buf
    }

    pub(crate) fn release(&mut self, buf: BufId) {
        if let Some(kept) = self.kept.get_mut(&buf) {
            kept.unneeded = true;
            return;
        }
        self.out.push_back(Output::Release { buf });
    }

    pub(crate) fn release_payload(&mut self, payload: &Payload) {
        if let Payload::Buf(buf) = payload {
            self.release(*buf);
        }
    }

    pub(crate) fn send(&mut self, conn: ConnId, header: Header, payload: Payload) {
        self.out.push_back(Output::Send {
            conn,
            header,
            payload,
        });
    }

    pub(crate) fn disconnect(&mut self, conn: ConnId) {
        self.out.push_back(Output::Disconnect { conn });
    }

    pub(crate) fn report(&mut self, report: Report) {
        self.out.push_back(Output::Report(report));
    }
}
