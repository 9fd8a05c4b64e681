//! The front end's side of the active: requests, replies, and the lease that lets replies out.

use crate::config::Ack;
use crate::disk::Purpose;
use crate::io::{BufId, DiskOp, Errno, Op, Output, Request, RequestId, Tell};
use crate::job::{Action, AppWrite, Origin, Stage};
use crate::machine::{JobId, Machine};
use crate::nodes::NodeSet;
use wire::mirror_frame::PAYLOAD_MAX;
use wire::mutant::{self, Bug};
use wire::{ByteRange, Time};

/// Largest piece of a zeroing, in bytes; larger ones go piece by piece, so that they fit the intent log.
pub(crate) const ZERO_PIECE_MAX: u64 = 4 << 20;

/// Smallest unit of offsets and lengths, in bytes; a disk may ask its front end for a larger one.
const SECTOR_BYTES: u64 = 512;

/// A read that is done and waits for a lease.
#[derive(Debug)]
pub(crate) struct Frozen {
    request: RequestId,
    buf: BufId,
}

impl Machine {
    pub(crate) fn on_request(&mut self, request: Request) {
        self.pending.insert(request.id);
        if self.is_preparing() || self.failed.is_some() {
            self.held.push_back(request);
        } else if self.active().is_some_and(|a| a.is_serving()) {
            self.begin(request);
        } else {
            self.refuse(request, Errno::IO);
        }
    }

    /// Starts a request while serving.
    pub(crate) fn begin(&mut self, request: Request) {
        let Request { id, op, range, buf } = request;
        let app = Origin::App(AppWrite {
            request: id,
            since: self.now,
            rest: None,
            sent: NodeSet::EMPTY,
            acked: NodeSet::EMPTY,
        });
        let fits = self.is_inside(range) && range.len() <= u64::from(PAYLOAD_MAX);
        match (op, buf) {
            (Op::Read, Some(buf)) if fits => {
                let activation = self.activation;
                let purpose = Purpose::Read {
                    request: id,
                    buf,
                    range,
                    activation,
                    again: false,
                };
                let tell = Tell::Nothing;
                self.start_disk(purpose, DiskOp::Read { range, buf, tell });
            }
            (Op::Write { fua }, Some(buf)) if fits => {
                self.submit(range, Action::Write, fua, Some(buf), app);
            }
            (Op::Zero { fua }, None) if self.is_inside(range) => self.zero(id, range, fua),
            (Op::Flush, None) => {
                self.begin_flush(Some(id));
            }
            (Op::Read | Op::Write { .. } | Op::Zero { .. } | Op::Flush, _) => {
                self.refuse(request, Errno::INVALID);
            }
        }
    }

    /// Zeroes the first piece of `range`; the rest follows it.
    fn zero(&mut self, request: RequestId, range: ByteRange, fua: bool) {
        let len = range.len().min(ZERO_PIECE_MAX);
        let piece = ByteRange::new(range.offset(), len).unwrap_or(range);
        let rest = ByteRange::new(piece.end(), range.len() - len).filter(|r| !r.is_empty());
        let app = Origin::App(AppWrite {
            request,
            since: self.now,
            rest,
            sent: NodeSet::EMPTY,
            acked: NodeSet::EMPTY,
        });
        self.submit(piece, Action::Zero, fua, None, app);
    }

    pub(crate) fn refuse(&mut self, request: Request, errno: Errno) {
        self.pending.remove(&request.id);
        self.reply(request.id, request.buf, Err(errno));
    }

    fn reply(&mut self, id: RequestId, buf: Option<BufId>, result: Result<(), Errno>) {
        self.out.push_back(Output::Reply { id, result });
        if let Some(buf) = buf {
            self.release(buf);
        }
    }

    /// True while the front end may be answered (R8).
    pub(crate) fn has_lease(&self) -> bool {
        self.now < self.lease
    }

    /// Ends a write that is done here and that every required peer has (R1, R10). The lease counts at the same moment:
    /// a write that was held back by a freeze is answered only if the peers still have it after the thaw.
    pub(crate) fn settle_write(&mut self, id: JobId) {
        if !self.may_settle() {
            return;
        }
        let required = self.required();
        let Some(job) = self.jobs.get(&id).filter(|j| j.stage == Stage::Done) else {
            return;
        };
        let Some(app) = job.app().copied() else {
            return;
        };
        let (fua, bytes) = (job.fua, job.range.len());
        let everywhere = self.counts_for(&app, fua).and(self.live).covers(required);
        if !everywhere && !mutant::has(Bug::AckWithoutPeer) {
            return;
        }
        if !self.keeps_bound(app.acked, bytes) {
            return;
        }
        self.note_told(id, app.acked, bytes);
        self.pace.wrote(app.since, self.now);
        self.forget(id);
        match app.rest {
            Some(rest) => self.zero(app.request, rest, fua),
            None => self.finish(app.request),
        }
    }

    /// A closed front end takes no answer: nothing waits for a lease then, and a drain can end.
    pub(crate) fn may_settle(&self) -> bool {
        self.has_lease() || self.closed
    }

    /// Everything that the request asked for is done.
    pub(crate) fn finish(&mut self, request: RequestId) {
        if self.has_lease() {
            self.complete(request, None);
        } else {
            self.pending.remove(&request);
            self.reply(request, None, Err(Errno::IO));
        }
    }

    /// Peers that need not be waited for any more, as far as they are live. With [`Ack::Flush`] a plain write only has to be on
    /// its way: whatever flush comes later is behind it on the same connection.
    const fn counts_for(&self, app: &AppWrite, fua: bool) -> NodeSet {
        match self.config.ack {
            Ack::Flush if !fua => app.acked.or(app.sent),
            Ack::Sync | Ack::Flush => app.acked,
        }
    }

    pub(crate) fn on_read_done(&mut self, request: RequestId, buf: BufId, activation: u64) {
        if activation != self.activation || self.active().is_none() {
            self.release(buf);
        } else if self.has_lease() {
            self.complete(request, Some(buf));
        } else {
            self.frozen.push_back(Frozen { request, buf });
        }
    }

    /// The request is done, and there is a lease.
    pub(crate) fn complete(&mut self, request: RequestId, buf: Option<BufId>) {
        self.pending.remove(&request);
        self.reply(request, buf, Ok(()));
    }

    pub(crate) fn on_lease(&mut self, until: Time) {
        self.lease = until;
        if !self.has_lease() {
            return;
        }
        for Frozen { request, buf } in std::mem::take(&mut self.frozen) {
            self.complete(request, Some(buf));
        }
        self.settle_all();
    }

    /// The read cannot be served by anybody.
    pub(crate) fn refuse_read(&mut self, id: RequestId, buf: BufId, errno: Errno) {
        self.pending.remove(&id);
        self.reply(id, Some(buf), Err(errno));
    }

    /// Requests that came while the activation was prepared.
    pub(crate) fn begin_held(&mut self) {
        for request in std::mem::take(&mut self.held) {
            self.begin(request);
        }
    }

    /// Answers everything that has no reply yet with an error. Buffers of operations under way follow when these end.
    pub(crate) fn refuse_pending(&mut self) {
        for request in std::mem::take(&mut self.held) {
            self.refuse(request, Errno::IO);
        }
        for Frozen { request, buf } in std::mem::take(&mut self.frozen) {
            self.pending.remove(&request);
            self.reply(request, Some(buf), Err(Errno::IO));
        }
        for id in std::mem::take(&mut self.pending) {
            self.reply(id, None, Err(Errno::IO));
        }
    }

    /// True if the range is whole sectors within the volume, and not empty. An unaligned one would fail at the disk, and
    /// the disk would be blamed for it.
    pub(crate) const fn is_inside(&self, range: ByteRange) -> bool {
        let aligned =
            range.offset().is_multiple_of(SECTOR_BYTES) && range.len().is_multiple_of(SECTOR_BYTES);
        aligned && !range.is_empty() && range.end() <= self.layout.data_bytes
    }

    /// The regions that a range of the volume touches.
    pub(crate) fn regions_of(range: ByteRange) -> std::ops::Range<u32> {
        let cells = range.cells(wire::units::REGION_BYTES);
        let narrow = |region| u32::try_from(region).unwrap_or(u32::MAX);
        narrow(cells.start)..narrow(cells.end)
    }
}
