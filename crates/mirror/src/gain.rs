//! What every replica does for a volume that grows while it is served: it says how much room there is, makes what lies
//! behind the volume zero, and takes the new size.
//!
//! Nobody uses what lies behind the volume, so it is made ready before anything changes: zeros on the disk and blocks in
//! the bitmaps, durable and noted in the superblock. A replica that is ready may become larger at any moment by its
//! superblock alone, and what it gains is equal on all that are.

use crate::bitmap;
use crate::control::Ungrown;
use crate::disk::Purpose;
use crate::io::{ConnId, DiskOp, Output};
use crate::machine::Machine;
use crate::superblock::Ticket;
use wire::layout::Layout;
use wire::mirror_frame::{FLAG_CRAMPED, FLAG_STRANDED, Header, Kind};
use wire::mutant::{self, Bug};
use wire::units::BLOCK_BYTES;
use wire::{ByteRange, SessionId};

/// Largest part that is made zero at once, in bytes; volumes of tests have several, too.
pub(crate) const CLEAR_MAX: u64 = if cfg!(test) { 256 << 10 } else { 4 << 20 };

/// How large the volume may become on one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) most: u64,
    /// The disk is larger than when it was opened, and its metadata still lies where its end was.
    pub(crate) stranded: bool,
    /// The disk has room for more, but the metadata's device has none for larger bitmaps.
    pub(crate) cramped: bool,
}

impl Room {
    /// Of the frame that says it.
    fn flags(self) -> u8 {
        let stranded = if self.stranded { FLAG_STRANDED } else { 0 };
        let cramped = if self.cramped { FLAG_CRAMPED } else { 0 };
        stranded | cramped
    }
}

/// What this replica knows and does of it.
#[derive(Debug, Default)]
pub(crate) struct Gain {
    /// Size of the disk, when it was last asked for; without the metadata's device.
    measured: Option<u64>,
    /// Who waits for that.
    asked: Option<(ConnId, u64)>,
    /// The metadata's device begins that much farther back than when it was opened.
    shift: u64,
    /// The volume became smaller, and its bitmaps' blocks behind that are not as they were laid.
    spoilt: bool,
    clearing: Option<Clearing>,
    /// Everything behind the volume up to here was cleared for this growth.
    cleared: u64,
}

/// A part behind the volume that is being cleared.
#[derive(Clone, Copy, Debug)]
struct Clearing {
    range: ByteRange,
    by: By,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// This replica, while active.
    Own,
    /// The active, on a standby.
    Active { conn: ConnId, seq: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Zeroing,
    /// The bitmaps' blocks for it are written.
    Laying,
}

impl Machine {
    /// True while a part behind the volume is being cleared, for whomever.
    pub(crate) const fn is_clearing(&self) -> bool {
        self.gain.clearing.is_some()
    }

    /// A session or a growth begins: everything behind the volume is to be cleared again, even what is noted as ready. The disk may
    /// have been smaller meanwhile, and zeros over zeros do no harm.
    pub(crate) const fn begin_clearing(&mut self) {
        self.gain.cleared = self.layout.data_bytes;
        self.gain.asked = None;
    }

    /// The operation with offsets of metadata as the driver counts them.
    pub(crate) fn as_opened(&self, mut op: DiskOp) -> DiskOp {
        if let DiskOp::MetaWrite { offset, .. } = &mut op {
            *offset = offset.saturating_sub(self.gain.shift);
        }
        op
    }

    /// Asks how large the disk is now.
    pub(crate) fn measure(&mut self) {
        self.out.push_back(Output::Measure);
    }

    pub(crate) fn on_measured(&mut self, disk_bytes: u64) {
        self.gain.measured = Some(disk_bytes / BLOCK_BYTES * BLOCK_BYTES);
        if let Some((conn, seq)) = self.gain.asked.take() {
            let room = self.room();
            let header = Header {
                range: ByteRange::new(0, room.most).unwrap_or_else(|| unreachable!("from 0 on")),
                flags: room.flags(),
                ..Header::bare(Kind::Room, self.floor, SessionId(0), seq)
            };
            self.answer(conn, header, None, None);
        }
        self.on_room_here();
    }

    /// The largest volume that the disk has place for.
    pub(crate) fn room(&self) -> Room {
        let own = &self.layout;
        let measured = self.gain.measured.unwrap_or(0);
        let external = self.superblock.get().external.as_ref();
        let (most, stranded, ends) = match external {
            None => (
                Layout::for_disk(own.disk_bytes, own.intent_blocks),
                measured > own.disk_bytes,
                None,
            ),
            Some(disk) => {
                let device = own.disk_bytes.saturating_sub(disk.disk_bytes);
                let begins = disk.disk_bytes.max(measured);
                let end = begins.saturating_add(device);
                let most = Layout::for_external(begins, end, own.intent_blocks);
                (most, false, Some(begins))
            }
        };
        let most = most.filter(|layout| layout.regions() <= u64::from(u32::MAX));
        let most = most.map_or(own.data_bytes, |layout| layout.data_bytes);
        Room {
            most: most.max(own.data_bytes),
            stranded,
            cramped: ends.is_some_and(|ends| most < ends),
        }
    }

    /// Where everything lies once the volume has this size; none if it does not fit.
    pub(crate) fn layout_of(&self, data_bytes: u64) -> Option<Layout> {
        let own = &self.layout;
        match self.superblock.get().external.as_ref() {
            None => Layout::with_data(own.disk_bytes, data_bytes, own.intent_blocks),
            Some(disk) => {
                let begins = disk.disk_bytes.max(self.gain.measured.unwrap_or(0));
                let end = own.disk_bytes + (begins - disk.disk_bytes);
                Layout::with_data(end, data_bytes, own.intent_blocks)?.beside(begins)
            }
        }
    }

    /// The volume has the layout's size from here on, in memory: what is to be in the superblock follows.
    pub(crate) fn lay_out(&mut self, layout: Layout) {
        self.gain.shift += layout.disk_bytes.saturating_sub(self.layout.disk_bytes);
        self.gain.spoilt = !self.planes.resize(&layout);
        self.intent.cut(layout.regions());
        self.layout = layout;
        if let Some(verify) = &mut self.verify {
            verify.result.total = wire::ByteCount(layout.data_bytes);
        }
    }

    /// Has the size of [`Machine::lay_out`] written. What was written behind a smaller one's end stays there, and is not zero.
    pub(crate) fn note_size(&mut self, data_bytes: u64) -> Ticket {
        let begins = self.gain.measured.unwrap_or(0);
        let as_laid = !self.gain.spoilt;
        self.superblock.change(|s| {
            if let Some(disk) = s.external.as_mut().filter(|_| data_bytes != s.data_bytes) {
                disk.disk_bytes = disk.disk_bytes.max(begins);
            }
            if data_bytes < s.settled_bytes || data_bytes < s.data_bytes && !as_laid {
                s.ready_bytes = data_bytes;
            }
            s.ready_bytes = s.ready_bytes.max(data_bytes);
            s.settled_bytes = s.settled_bytes.min(data_bytes);
            s.data_bytes = data_bytes;
        })
    }

    /// All of the volume may be written to from now on.
    pub(crate) fn note_settled(&mut self) -> Ticket {
        self.superblock.change(|s| s.settled_bytes = s.data_bytes)
    }

    /// The volume gets a size for which this replica is ready.
    pub(crate) fn resize(&mut self, data_bytes: u64) -> Ticket {
        if let Some(layout) = self.layout_of(data_bytes) {
            self.lay_out(layout);
        }
        self.note_size(data_bytes)
    }

    /// Clears a part behind the volume; true if that is done already.
    pub(crate) fn clear(&mut self, range: ByteRange, by: By) -> bool {
        if range.end() <= self.gain.cleared {
            return true;
        }
        let step = Step::Zeroing;
        self.gain.clearing = Some(Clearing { range, by, step });
        if mutant::has(Bug::GainNotCleared) {
            self.on_clear_step();
        } else {
            self.start_disk(Purpose::Clear, DiskOp::Zero { range, fua: false });
        }
        false
    }

    /// A step of clearing is done.
    pub(crate) fn on_clear_step(&mut self) {
        let Some(clearing) = self.gain.clearing.take() else {
            return;
        };
        let wanted = self.wants_cleared(clearing.by);
        let laid = bitmap::laid(&self.layout, clearing.range);
        if let (Step::Zeroing, true, Some((offset, bytes))) = (clearing.step, wanted, laid) {
            let step = Step::Laying;
            self.gain.clearing = Some(Clearing { step, ..clearing });
            self.start_disk(Purpose::Clear, DiskOp::MetaWrite { offset, bytes });
            return;
        }
        if !wanted {
            return;
        }
        self.gain.cleared = self.gain.cleared.max(clearing.range.end());
        match clearing.by {
            By::Own => self.on_cleared_here(),
            By::Active { conn, seq } => self.acknowledge(conn, seq, None),
        }
    }

    /// What lies behind the volume cannot be written to: a thin pool may be full. Nobody uses it, so whoever asked for it hears of it,
    /// and the volume stays as it is.
    pub(crate) fn cannot_clear(&mut self) {
        let Some(clearing) = self.gain.clearing.take() else {
            return;
        };
        if !self.wants_cleared(clearing.by) {
            return;
        }
        match clearing.by {
            By::Own => self.end_growth(Some(Ungrown::Unusable(self.config.node))),
            By::Active { conn, seq } => {
                let header = Header::bare(Kind::Unreadable, self.floor, SessionId(0), seq);
                self.answer(conn, header, None, None);
            }
        }
    }

    /// The disk failed: nobody hears of it.
    pub(crate) const fn drop_clearing(&mut self) {
        self.gain.clearing = None;
    }

    /// True if whoever asked for it is still there.
    fn wants_cleared(&self, by: By) -> bool {
        match by {
            By::Own => self.is_growing(),
            By::Active { conn, .. } => self.following().is_some_and(|f| f.conn == conn),
        }
    }

    /// What was cleared up to here is durable: it is noted.
    pub(crate) fn note_ready(&mut self, upto: u64) -> Ticket {
        self.superblock
            .change(|s| s.ready_bytes = s.ready_bytes.max(upto))
    }

    // ---- a standby ----------------------------------------------------------------------------------------------

    /// None: the frame breaks the protocol.
    pub(crate) fn on_peer_room(&mut self, header: Header) -> Option<()> {
        let conn = self.following()?.conn;
        if self.is_clearing() {
            return None;
        }
        self.begin_clearing();
        self.gain.asked = Some((conn, header.seq));
        self.measure();
        Some(())
    }

    /// None: the frame breaks the protocol. Never anything within the volume is cleared, nor anything but the next part.
    pub(crate) fn on_peer_clear(&mut self, header: Header) -> Option<()> {
        let range = header.range;
        let conn = self.following()?.conn;
        let aligned = range.offset().is_multiple_of(BLOCK_BYTES)
            && range.len().is_multiple_of(BLOCK_BYTES)
            && !range.is_empty();
        let behind = range.offset() >= self.layout.data_bytes;
        let next = range.offset() <= self.gain.cleared && range.len() <= CLEAR_MAX;
        if !(aligned && behind && next) || self.is_clearing() || range.end() > self.room().most {
            return None;
        }
        let seq = header.seq;
        if self.clear(range, By::Active { conn, seq }) {
            self.acknowledge(conn, seq, None);
        }
        Some(())
    }

    /// True if everything up to the end of a frame's range was cleared.
    pub(crate) const fn is_cleared_to(&self, end: u64) -> bool {
        end <= self.gain.cleared && !self.is_clearing()
    }

    /// True if the volume may end at the end of a frame's range: it is ready for it, or goes back to a smaller size.
    pub(crate) fn may_resize_to(&self, range: ByteRange) -> bool {
        let ready = range.end() <= self.superblock.get().ready_bytes;
        ready && range.offset() == 0 && self.layout_of(range.end()).is_some()
    }
}
