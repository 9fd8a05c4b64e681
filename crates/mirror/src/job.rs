//! One write on its way to the local disk: range lock → intent log → disk. The same path for the front end's writes, for
//! the active's writes on a standby, and (without the log) for resync chunks on both sides.
//!
//! The lock comes first and in order of arrival, so overlapping writes start in one order; a write is sent to the peers
//! at the moment it starts here, so that order is theirs too.

use crate::disk::Purpose;
use crate::intent::Period;
use crate::io::{BufId, ConnId, DiskOp, RequestId};
use crate::machine::{JobId, Machine};
use crate::nodes::NodeSet;
use crate::role::Role;
use std::ops::Range;
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
        /// Part of a resync: the source's bitmap stands for it, so it needs no intent.
        resync: bool,
    },
    /// A resync to `node`: sent when read.
    Resync { node: NodeId, conn: ConnId },
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
    /// For its range, or for room in the intent log.
    Waiting,
    /// For its regions to be durable in the intent log.
    Logging,
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
            Stage::Waiting | Stage::Logging => false,
        }
    }

    pub(crate) const fn app(&self) -> Option<&AppWrite> {
        match &self.origin {
            Origin::App(app) => Some(app),
            Origin::Peer { .. } | Origin::Resync { .. } | Origin::Nobody => None,
        }
    }

    pub(crate) const fn app_mut(&mut self) -> Option<&mut AppWrite> {
        match &mut self.origin {
            Origin::App(app) => Some(app),
            Origin::Peer { .. } | Origin::Resync { .. } | Origin::Nobody => None,
        }
    }

    const fn needs_intent(&self) -> bool {
        match self.origin {
            Origin::App(_) => true,
            Origin::Peer { resync, .. } => !resync,
            Origin::Resync { .. } | Origin::Nobody => false,
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
            pinned: false,
        };
        self.jobs.insert(id, job);
        if self.locks.ask(id, range) {
            self.on_locked(id);
        }
        id
    }

    /// The range is the job's.
    fn on_locked(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        if let Origin::Resync { node, conn } = job.origin
            && !self.is_session(node, conn)
        {
            return self.end_job(id);
        }
        if job.needs_intent() {
            self.cold.push_back(id);
            self.admit();
        } else {
            self.start(id);
        }
    }

    /// Lets jobs into the intent log, in order, as far as there is room.
    pub(crate) fn admit(&mut self) {
        while let Some(id) = self.cold.front().copied() {
            let Some(job) = self.jobs.get_mut(&id) else {
                self.cold.pop_front();
                continue;
            };
            let regions = Self::regions_of(job.range);
            if !self.intent.has_room(&regions) {
                self.make_room(&regions);
                if !self.intent.has_room(&regions) {
                    return;
                }
            }
            self.cold.pop_front();
            let added = self.intent.pin(regions.clone());
            let logged = self.intent.is_logged(regions);
            if let Some(job) = self.jobs.get_mut(&id) {
                job.pinned = true;
                job.stage = Stage::Logging;
            }
            if !added.is_empty() {
                self.announce_hot(&added);
                self.relieve();
            }
            if logged {
                self.start(id);
            } else {
                self.logging.push_back(id);
            }
        }
    }

    pub(crate) fn on_intent_written(&mut self) {
        self.intent.written();
        for id in std::mem::take(&mut self.logging) {
            let Some(job) = self.jobs.get(&id) else {
                continue;
            };
            if self.intent.is_logged(Self::regions_of(job.range)) {
                self.start(id);
            } else {
                self.logging.push_back(id);
            }
        }
    }

    /// Makes room in the intent log for `wanted`, now or by what it sets in motion.
    fn make_room(&mut self, wanted: &Range<u32>) {
        let standby = matches!(self.role, Role::Standby(_));
        // A standby's log may overflow into its bitmap: the active decides what is clean.
        let clean = if standby {
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
        for region in self.intent.idle(self.clean) {
            if !self.intent.is_crowded() {
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
        if self.failed.is_some() {
            return;
        }
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
            Origin::Nobody => self.end_job(id),
        }
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
    fn end_job(&mut self, id: JobId) {
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
