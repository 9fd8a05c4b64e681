//! One write on its way to the local disk. The same path serves the front end's writes, the active's writes on a standby,
//! and (without the log) resync chunks on both sides.
//!
//! ```text
//! front end:   room in the intent log ──► range lock ──► regions durable in the log ──► disk
//! standby:     range lock ──► room in the intent log ──► regions durable in the log ──► disk
//! chunk:       range lock ──► disk
//! ```
//! A write is sent to the peers at the moment it starts here, so the order of overlapping writes is the same everywhere; a
//! standby takes its locks in the order of arrival. The active takes the lock only when there is room in the log: room may
//! depend on a peer that is being reconciled, and its chunks need the lock.

use crate::disk::Purpose;
use crate::io::{BufId, ConnId, DiskOp, RequestId, Tell};
use crate::machine::{JobId, Machine};
use crate::mend::Mend;
use crate::nodes::NodeSet;
use wire::digest::Digest;
use wire::mutant::{self, Bug, Mutant};
use wire::{ByteRange, NodeId, Time};

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) range: ByteRange,
    pub(crate) action: Action,
    pub(crate) fua: bool,
    /// Invariant: none once it was released.
    pub(crate) buf: Option<BufId>,
    pub(crate) origin: Origin,
    pub(crate) stage: Stage,
    /// Its range is granted to it.
    locked: bool,
    /// Its regions are pinned in the intent log.
    pinned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Write,
    Zero,
    /// Reads a resync chunk.
    Fetch,
}

/// On whose behalf, and what follows the local part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The front end.
    App(AppWrite),
    /// The active, on a standby: acknowledged when done.
    Peer {
        conn: ConnId,
        seq: u64,
        /// Part of a resync of a mixture: the source's bitmap stands for it, so it needs no intent.
        resync: bool,
    },
    /// A resync to `node`: sent when read, or when it was compared and differs.
    Resync {
        node: NodeId,
        conn: ConnId,
        compare: bool,
    },
    /// A verification with `node`.
    Verify { node: NodeId, conn: ConnId },
    /// The active, on a standby: wants the content.
    PeerRead { conn: ConnId, seq: u64 },
    /// The active, on a standby: wants to know whether the content is this.
    PeerCompare {
        conn: ConnId,
        seq: u64,
        digest: Digest,
    },
    /// A place that could not be read, and is written anew from a peer.
    Mend(Mend),
    /// An activation: what an earlier life wrote is read, and written anew.
    Renewal,
    /// Somebody who is gone.
    Nobody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AppWrite {
    pub(crate) request: RequestId,
    /// When it came.
    pub(crate) since: Time,
    /// What is left of a large zeroing after this piece.
    pub(crate) rest: Option<ByteRange>,
    /// Peers that it was sent to in their present session.
    pub(crate) sent: NodeSet,
    /// Peers that have it.
    pub(crate) acked: NodeSet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// For its range, or for the intent log.
    Waiting,
    OnDisk,
    /// A peer was asked about the range.
    Asking,
    /// Done here, not yet by every required peer.
    Done,
    /// It met a disk that failed: it ends with an abort only.
    Lost,
}

impl Job {
    pub(crate) fn is_on_disk(&self) -> bool {
        self.stage == Stage::OnDisk
    }

    /// True once the local part and what the peers get of it were started.
    pub(crate) const fn is_started(&self) -> bool {
        match self.stage {
            Stage::OnDisk | Stage::Done | Stage::Lost => true,
            Stage::Waiting | Stage::Asking => false,
        }
    }

    pub(crate) const fn app(&self) -> Option<&AppWrite> {
        if let Origin::App(app) = &self.origin {
            Some(app)
        } else {
            None
        }
    }

    pub(crate) const fn app_mut(&mut self) -> Option<&mut AppWrite> {
        if let Origin::App(app) = &mut self.origin {
            Some(app)
        } else {
            None
        }
    }

    const fn needs_intent(&self) -> bool {
        match self.origin {
            Origin::App(_) | Origin::Mend(_) => true,
            Origin::Peer { resync, .. } => !resync,
            Origin::Resync { .. }
            | Origin::Verify { .. }
            | Origin::PeerRead { .. }
            | Origin::PeerCompare { .. }
            | Origin::Renewal
            | Origin::Nobody => false,
        }
    }

    /// True if it takes room in the intent log before it takes its range.
    const fn admits_first(&self) -> bool {
        matches!(self.origin, Origin::App(_) | Origin::Mend(_))
    }

    /// What it has to be told of what it reads: for a comparison; or because zeros need not be sent.
    const fn tell(&self) -> Tell {
        match self.origin {
            Origin::Resync { compare: false, .. } => Tell::Zeros,
            Origin::Resync { .. } | Origin::Verify { .. } | Origin::PeerCompare { .. } => {
                Tell::Digest
            }
            Origin::App(_)
            | Origin::Peer { .. }
            | Origin::PeerRead { .. }
            | Origin::Mend(_)
            | Origin::Renewal
            | Origin::Nobody => Tell::Nothing,
        }
    }
}

impl Origin {
    /// The session that it belongs to.
    pub(crate) const fn conn(&self) -> Option<ConnId> {
        match self {
            Self::Peer { conn, .. }
            | Self::Resync { conn, .. }
            | Self::Verify { conn, .. }
            | Self::PeerRead { conn, .. }
            | Self::PeerCompare { conn, .. }
            | Self::Mend(Mend { conn, .. }) => Some(*conn),
            Self::App(_) | Self::Renewal | Self::Nobody => None,
        }
    }
}

impl Machine {
    /// Takes a write (or a chunk read) on. `buf` is the content of a write.
    pub(crate) fn submit(
        &mut self,
        range: ByteRange,
        action: Action,
        fua: bool,
        buf: Option<BufId>,
        origin: Origin,
    ) -> JobId {
        let id = self.next_job();
        let job = Job {
            range,
            action,
            fua,
            buf,
            origin,
            stage: Stage::Waiting,
            locked: false,
            pinned: false,
        };
        let lock_first = !job.admits_first();
        self.jobs.insert(id, job);
        if lock_first {
            self.lock(id, range);
        } else {
            self.cold.push_back(id);
            self.admit();
        }
        id
    }

    fn lock(&mut self, id: JobId, range: ByteRange) {
        let granted = self.locks.ask(id, range);
        let is_fetch = |job: &Job| job.action == Action::Fetch;
        let barges = mutant::has(Bug::ChunkUnlocked) && self.jobs.get(&id).is_some_and(is_fetch);
        if granted || barges || mutant::on(Mutant::OverlapUnordered) {
            self.on_locked(id);
        }
    }

    /// The range is the job's.
    fn on_locked(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.locked = true;
        let (origin, wants_room) = (job.origin, job.needs_intent() && !job.pinned);
        if let Origin::Resync { node, conn, .. } | Origin::Verify { node, conn } = origin
            && !self.is_session(node, conn)
        {
            return self.abandon(id);
        }
        if wants_room {
            self.cold.push_back(id);
            self.admit();
        } else {
            self.try_start(id);
        }
    }

    /// Lets jobs into the intent log, in order, as far as there is room.
    pub(crate) fn admit(&mut self) {
        while let Some(id) = self.cold.front().copied() {
            let Some(job) = self.jobs.get_mut(&id) else {
                self.cold.pop_front();
                continue;
            };
            let (range, locked) = (job.range, job.locked);
            let regions = Self::regions_of(range);
            if !self.intent.has_room(&regions) {
                self.make_room(&regions);
                if !self.intent.has_room(&regions) {
                    return;
                }
            }
            self.cold.pop_front();
            let mut added = self.intent.pin(regions.clone());
            let cold = !self.intent.is_logged(regions.clone());
            let mut of_app = false;
            if let Some(job) = self.jobs.get_mut(&id) {
                job.pinned = true;
                of_app = job.app().is_some();
            }
            if of_app {
                self.cold_writes += u64::from(cold);
                self.look_ahead(range, &regions, &mut added);
            }
            if !added.is_empty() {
                self.announce_hot(&added);
                self.relieve();
            }
            self.logging.push_back(id);
            if locked {
                self.try_start(id);
            } else {
                self.lock(id, range);
            }
        }
    }

    pub(crate) fn on_intent_written(&mut self) {
        self.intent.written();
        for id in self.logging.clone() {
            self.try_start(id);
        }
    }

    /// Starts a job that has its range, and whose regions are durable in the intent log.
    pub(crate) fn try_start(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let logged =
            !job.needs_intent() || job.pinned && self.intent.is_logged(Self::regions_of(job.range));
        let logged = logged || mutant::on(Mutant::WriteBeforeIntent);
        if job.locked && logged && job.stage == Stage::Waiting && self.failed.is_none() {
            self.logging.retain(|waiting| *waiting != id);
            if self.may_overwrite(id) {
                self.start(id);
            }
        }
    }

    /// Everything that must come before is durable: to the disk, and (the front end's writes) to the peers.
    fn start(&mut self, id: JobId) {
        self.replicate(id);
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        if let Origin::Mend(mend) = job.origin {
            return self.ask_for_content(id, mend);
        }
        let (range, fua, tell) = (job.range, job.fua, job.tell());
        let op = match (job.action, job.buf) {
            (Action::Write, Some(buf)) => DiskOp::Write { range, buf, fua },
            (Action::Write | Action::Zero, _) => DiskOp::Zero { range, fua },
            (Action::Fetch, _) => DiskOp::Read {
                range,
                buf: self.alloc(range.len()),
                tell,
            },
        };
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.stage = Stage::OnDisk;
        if let DiskOp::Read { buf, .. } = &op {
            job.buf = Some(*buf);
        }
        self.start_disk(Purpose::Job(id), op);
        if mutant::has(Bug::BufferReleasedEarly)
            && let Some(buf) = self.jobs.get_mut(&id).and_then(|j| j.buf.take())
        {
            self.release(buf);
        }
    }

    /// The local part is done.
    pub(crate) fn on_job_done(&mut self, id: JobId, bytes: &[u8]) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let origin = job.origin;
        match origin {
            Origin::App(_) => {
                job.stage = Stage::Done;
                let buf = job.buf.take();
                if let Some(buf) = buf {
                    self.release(buf);
                }
                self.settle_write(id);
                self.unlock(id);
            }
            Origin::Peer { conn, seq, .. } => {
                self.end_job(id);
                self.acknowledge(conn, seq, Some(id));
            }
            Origin::Resync { .. } | Origin::Verify { .. } => self.on_chunk_read(id, bytes),
            Origin::PeerRead { .. } | Origin::PeerCompare { .. } => self.answer_fetch(id, bytes),
            Origin::Mend(mend) => self.on_mended(id, mend),
            Origin::Renewal => self.on_renewal_step(id),
            Origin::Nobody => self.end_job(id),
        }
    }

    /// Writes what a job has read, under the same lock; false if it has read nothing.
    pub(crate) fn write_back(&mut self, id: JobId) -> bool {
        let Some(job) = self.jobs.get_mut(&id).filter(|j| j.action == Action::Fetch) else {
            return false;
        };
        job.action = Action::Write;
        self.start(id);
        true
    }

    /// The local part met a failed disk.
    pub(crate) fn on_job_lost(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.stage = Stage::Lost;
        let buf = job.buf.take();
        if let Some(buf) = buf {
            self.release(buf);
        }
    }

    /// What the job does is nobody's concern any more; it ends without effect on anybody.
    pub(crate) fn disown(&mut self, id: JobId) -> Option<&Job> {
        let job = self.jobs.get_mut(&id)?;
        job.origin = Origin::Nobody;
        Some(job)
    }

    /// Forgets a job and lets go of its buffer, its regions and its range.
    pub(crate) fn end_job(&mut self, id: JobId) {
        self.forget(id);
        self.unlock(id);
    }

    /// As [`Machine::end_job`], where every other job that has not started is dropped too: nobody gets the range.
    pub(crate) fn drop_job(&mut self, id: JobId) {
        self.forget(id);
        self.locks.release(id);
    }

    /// Forgets a job that holds no range any more, or gives it up right after.
    pub(crate) fn forget(&mut self, id: JobId) {
        let Some(job) = self.jobs.remove(&id) else {
            return;
        };
        if let Some(buf) = job.buf {
            self.release(buf);
        }
        self.let_go_of_reader(job.origin);
        if job.pinned {
            self.intent.unpin(Self::regions_of(job.range), self.period);
        }
    }

    fn unlock(&mut self, id: JobId) {
        for next in self.locks.release(id) {
            self.on_locked(next);
        }
    }
}
