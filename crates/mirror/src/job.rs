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
use crate::intent::Period;
use crate::io::{BufId, ConnId, DiskOp, RequestId};
use crate::machine::{JobId, Machine};
use crate::nodes::NodeSet;
use crate::role::Role;
use std::ops::Range;
use wire::mutant::{self, Mutant};
use wire::{ByteRange, NodeId};

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
    /// A resync to `node`: sent when read.
    Resync { node: NodeId, conn: ConnId },
    /// An activation: what an earlier life wrote is read, and written anew.
    Renewal,
    /// Somebody who is gone.
    Nobody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AppWrite {
    pub(crate) request: RequestId,
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
            Stage::Waiting => false,
        }
    }

    pub(crate) const fn app(&self) -> Option<&AppWrite> {
        match &self.origin {
            Origin::App(app) => Some(app),
            Origin::Peer { .. } | Origin::Resync { .. } | Origin::Renewal | Origin::Nobody => None,
        }
    }

    pub(crate) const fn app_mut(&mut self) -> Option<&mut AppWrite> {
        match &mut self.origin {
            Origin::App(app) => Some(app),
            Origin::Peer { .. } | Origin::Resync { .. } | Origin::Renewal | Origin::Nobody => None,
        }
    }

    const fn needs_intent(&self) -> bool {
        match self.origin {
            Origin::App(_) => true,
            Origin::Peer { resync, .. } => !resync,
            Origin::Resync { .. } | Origin::Renewal | Origin::Nobody => false,
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
        let lock_first = job.app().is_none();
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
        if self.locks.ask(id, range) || mutant::on(Mutant::OverlapUnordered) {
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
        if let Origin::Resync { node, conn } = origin
            && !self.is_session(node, conn)
        {
            return self.end_job(id);
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
            let added = self.intent.pin(regions);
            if let Some(job) = self.jobs.get_mut(&id) {
                job.pinned = true;
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
    fn try_start(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let logged =
            !job.needs_intent() || job.pinned && self.intent.is_logged(Self::regions_of(job.range));
        let logged = logged || mutant::on(Mutant::WriteBeforeIntent);
        if job.locked && logged && job.stage == Stage::Waiting && self.failed.is_none() {
            self.logging.retain(|waiting| *waiting != id);
            self.start(id);
        }
    }

    /// Makes room in the intent log for `wanted`, now or by what it sets in motion.
    fn make_room(&mut self, wanted: &Range<u32>) {
        let standby = matches!(self.role, Role::Standby(_));
        // A standby's log may overflow into its bitmap: the active decides what is clean.
        let clean = if standby || mutant::on(Mutant::IntentDroppedEarly) {
            Period(u64::MAX)
        } else {
            self.clean
        };
        let mut gone = Vec::new();
        for region in self.intent.idle(clean) {
            if wanted.contains(&region) {
                continue;
            }
            if self.intent.has_room(wanted) {
                break;
            }
            if standby {
                self.bitmap.mark_region(region);
            }
            if self.evict(region) {
                gone.push(region);
            }
        }
        self.announce_cold(&gone);
        if !standby && !self.intent.has_room(wanted) && self.intent.wants_flush(self.clean) {
            self.begin_internal_flush();
        }
    }

    /// Keeps some room ahead of need, so that few writes have to wait for a flush.
    fn relieve(&mut self) {
        if self.active().is_none() || !self.intent.is_crowded() {
            return;
        }
        let mut gone = Vec::new();
        let clean = if mutant::on(Mutant::IntentDroppedEarly) {
            Period(u64::MAX)
        } else {
            self.clean
        };
        for region in self.intent.idle(clean) {
            if self.intent.is_roomy() {
                break;
            }
            if self.evict(region) {
                gone.push(region);
            }
        }
        self.announce_cold(&gone);
        if self.intent.is_crowded() && self.intent.wants_flush(self.clean) {
            self.begin_internal_flush();
        }
    }

    /// Takes an idle region out of the log if its marks are durable; else has them written.
    pub(crate) fn evict(&mut self, region: u32) -> bool {
        if self.bitmap.covers(region) {
            return self.intent.evict(region);
        }
        self.bitmap.want(region);
        false
    }

    /// Everything that must come before is durable: to the disk, and (the front end's writes) to the peers.
    fn start(&mut self, id: JobId) {
        self.replicate(id);
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let (range, fua) = (job.range, job.fua);
        let op = match (job.action, job.buf) {
            (Action::Write, Some(buf)) => DiskOp::Write { range, buf, fua },
            (Action::Write | Action::Zero, _) => DiskOp::Zero { range, fua },
            (Action::Fetch, _) => DiskOp::Read {
                range,
                buf: self.alloc(range.len()),
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
    }

    /// The local part is done.
    pub(crate) fn on_job_done(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let (origin, range) = (job.origin, job.range);
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
            Origin::Resync { node, conn } => {
                let buf = job.buf;
                self.send_chunk(node, conn, range, buf);
                self.end_job(id);
            }
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
