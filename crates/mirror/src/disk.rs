//! Local disk operations under way: which, since when, what for.

use crate::io::{BufId, IoId, RequestId};
use crate::machine::{FlushId, JobId};
use std::collections::BTreeMap;
use wire::mutant::{self, Bug, Mutant};
use wire::{ByteRange, Duration, Time};

/// What a disk operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A superblock write.
    Super,
    /// An intent log write.
    Intent,
    /// A write of this block of the bitmap.
    Bitmap(u64),
    /// A read of the front end, of this activation.
    Read {
        request: RequestId,
        buf: BufId,
        range: ByteRange,
        activation: u64,
        /// The place could not be read before, and was written anew.
        again: bool,
    },
    /// The local part of a write, or the read of a resync chunk.
    Job(JobId),
    /// The local part of a flush while active.
    Flush(FlushId),
    /// A flush that the active asked for.
    PeerFlush(JobId),
    /// A part behind the volume is cleared.
    Clear,
    /// While active: what was cleared becomes durable, for this step of a growth.
    GainFlush(u64),
}

#[derive(Debug, Default)]
pub(crate) struct Disk {
    next: u64,
    /// By id, which is by start time.
    under_way: BTreeMap<IoId, (Time, Purpose)>,
}

impl Disk {
    pub(crate) const fn starting_at(next: u64) -> Self {
        Self {
            next,
            under_way: BTreeMap::new(),
        }
    }

    pub(crate) fn begin(&mut self, now: Time, purpose: Purpose) -> IoId {
        let io = IoId(self.next);
        self.next += 1;
        self.under_way.insert(io, (now, purpose));
        io
    }

    /// None for an operation that is not under way.
    pub(crate) fn end(&mut self, io: IoId) -> Option<Purpose> {
        self.under_way.remove(&io).map(|(_, purpose)| purpose)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    pub(crate) fn len(&self) -> u64 {
        u64::try_from(self.under_way.len()).unwrap_or(u64::MAX)
    }

    /// The process stood still for `gap` (stopped, or its machine was): the disk is not to blame for that time.
    pub(crate) fn forgive(&mut self, gap: Duration) {
        for (since, _) in self.under_way.values_mut() {
            *since += gap;
        }
    }

    /// When the oldest operation counts as hung.
    pub(crate) fn hung_at(&self, io_timeout: Duration) -> Option<Time> {
        let (_, (since, _)) = self.under_way.first_key_value()?;
        Some(*since + io_timeout)
    }
}

/// Never, but for deliberate defects: a failure of such an operation counts as success.
pub(crate) fn is_overlooked(purpose: Purpose) -> bool {
    match purpose {
        Purpose::Flush(_) | Purpose::PeerFlush(_) | Purpose::GainFlush(_) => {
            mutant::on(Mutant::FlushRetried)
        }
        Purpose::Intent | Purpose::Bitmap(_) => mutant::has(Bug::FailedLogIgnored),
        Purpose::Job(_) => mutant::has(Bug::FailedWriteIgnored),
        Purpose::Super | Purpose::Read { .. } | Purpose::Clear => false,
    }
}
