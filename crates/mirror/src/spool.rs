//! What waits to be sent to an asynchronous follower: in memory first, then on disk, in the order of the stream.
//!
//! ```text
//! a frame ──► sent at once, while the window has room
//!        └──► waits in memory ── too much there ──► written to the spool ──► read again when its turn is near ──► sent
//! ```
//! The spool is a ring of bounded size that holds nothing of value after the session: it is never read by another life, so
//! nothing of it has to be durable. This module decides places and order; the driver moves and checks the bytes.

use crate::config::Bound;
use crate::io::{BufId, IoId, Payload};
use std::collections::VecDeque;
use wire::mirror_frame::Header;

/// Frames that are sent and not answered.
const WINDOW_FRAMES: usize = 4_096;
/// Most frames that wait; beyond it the follower is given up and comes back by resync.
const FRAMES_MAX: usize = 131_072;
/// Bytes of the queue's front that are read back ahead of their turn; no more than a quarter of the memory that frames may wait in.
const AHEAD_BYTES: u64 = 1 << 20;
/// Offsets in the spool are multiples of this, for direct I/O.
const ALIGN: u64 = 4_096;
/// What a frame without content weighs.
pub(crate) const FRAME_BYTES: u64 = 64;

/// A frame that waits.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) header: Header,
    pub(crate) body: Body,
}

/// Where a frame's payload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// Small, or none.
    Here(Payload),
    /// In a buffer.
    Held(BufId),
    /// In a buffer, being written to the spool.
    Writing(IoId, Slot, BufId),
    /// In the spool.
    Spooled(Slot),
    /// Being read back.
    Reading(IoId, Slot, BufId),
}

impl Body {
    pub(crate) const fn buf(&self) -> Option<BufId> {
        match self {
            Self::Held(buf) | Self::Writing(_, _, buf) | Self::Reading(_, _, buf) => Some(*buf),
            Self::Here(_) | Self::Spooled(_) => None,
        }
    }

    const fn io(&self) -> Option<IoId> {
        match self {
            Self::Writing(io, _, _) | Self::Reading(io, _, _) => Some(*io),
            Self::Here(_) | Self::Held(_) | Self::Spooled(_) => None,
        }
    }
}

/// A place in the spool, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// The queue of one session.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Parcel>,
    /// Sent and not answered.
    flying_bytes: u64,
    flying_frames: usize,
    /// Content of waiting frames that is in memory.
    memory: u64,
    /// The highest request number that was sent.
    pub(crate) sent_seq: u64,
    /// Bytes of the front that are kept in memory.
    ahead: u64,
    window: u64,
    /// The part of the spool that is this follower's.
    pub(crate) ring: Ring,
}

/// What may be sent next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing: the window is full, nothing waits, or the front is not in memory yet.
    Nothing,
    /// This content has to be read back: its place in the queue, and where it is.
    Read(usize, Slot),
    /// The front of the queue.
    Send,
}

impl Outbox {
    /// Whose frames may take so much while they wait, and when they are sent. Each follower has a place of its own in the spool.
    pub(crate) fn new(bound: Bound, place: u64) -> Self {
        Self {
            ahead: AHEAD_BYTES.min(bound.memory_bytes / 4),
            window: bound.window_bytes,
            ring: Ring::of(place, bound.spool_bytes / ALIGN * ALIGN),
            ..Self::default()
        }
    }

    /// Operations of the spool that are under way for it, and where.
    pub(crate) fn under_way(&self) -> impl Iterator<Item = (IoId, u64)> {
        let one = |parcel: &Parcel| match parcel.body {
            Body::Writing(io, slot, _) | Body::Reading(io, slot, _) => Some((io, slot.offset)),
            Body::Here(_) | Body::Held(_) | Body::Spooled(_) => None,
        };
        self.queue.iter().filter_map(one)
    }

    /// True if one more frame may wait.
    pub(crate) fn has_place(&self) -> bool {
        self.queue.len() < FRAMES_MAX
    }

    /// Content of waiting frames that is in memory, in bytes.
    pub(crate) const fn memory(&self) -> u64 {
        self.memory
    }

    pub(crate) fn push(&mut self, parcel: Parcel) {
        if parcel.body.buf().is_some() {
            self.memory += weight(&parcel.header);
        }
        self.queue.push_back(parcel);
    }

    /// What is to be done now.
    pub(crate) fn next(&self) -> Next {
        let ready = |p: &Parcel| matches!(p.body, Body::Here(_) | Body::Held(_));
        if self.has_window() && self.queue.front().is_some_and(ready) {
            return Next::Send;
        }
        let mut ahead = 0;
        for (place, parcel) in self.queue.iter().enumerate() {
            if ahead > self.ahead {
                break;
            }
            ahead += weight(&parcel.header);
            if let Body::Spooled(slot) = parcel.body {
                return Next::Read(place, slot);
            }
        }
        Next::Nothing
    }

    /// Takes the front: it is being sent.
    pub(crate) fn take(&mut self) -> Option<Parcel> {
        let parcel = self.queue.pop_front()?;
        self.count(&parcel.header);
        if parcel.body.buf().is_some() {
            self.memory -= weight(&parcel.header);
        }
        Some(parcel)
    }

    /// A frame is sent.
    pub(crate) fn count(&mut self, header: &Header) {
        self.flying_bytes += weight(header);
        self.flying_frames += 1;
        self.sent_seq = self.sent_seq.max(header.seq);
    }

    /// A frame of this weight was answered.
    pub(crate) const fn answered(&mut self, bytes: u64) {
        self.flying_bytes = self.flying_bytes.saturating_sub(bytes);
        self.flying_frames = self.flying_frames.saturating_sub(1);
    }

    /// True if a frame may go out without waiting.
    pub(crate) fn is_open(&self) -> bool {
        self.has_window() && self.queue.is_empty()
    }

    const fn has_window(&self) -> bool {
        self.flying_bytes < self.window && self.flying_frames < WINDOW_FRAMES
    }

    /// A frame's content is being read back.
    pub(crate) fn reading(&mut self, place: usize, io: IoId, slot: Slot, buf: BufId) {
        if let Some(parcel) = self.queue.get_mut(place) {
            parcel.body = Body::Reading(io, slot, buf);
            self.memory += weight(&parcel.header);
        }
    }

    /// An operation of the spool is done. Answers the place that is free again, and the buffer that is not needed any more; none if
    /// it is of an earlier session.
    pub(crate) fn done(&mut self, io: IoId) -> Option<(Option<Slot>, Option<BufId>)> {
        let place = self.queue.iter().position(|p| p.body.io() == Some(io))?;
        let before: u64 = (self.queue.iter().take(place))
            .map(|p| weight(&p.header))
            .sum();
        let parcel = self.queue.get_mut(place)?;
        match parcel.body {
            // Its turn is near: it stays in memory.
            Body::Writing(_, slot, buf) if before <= self.ahead => {
                parcel.body = Body::Held(buf);
                Some((Some(slot), None))
            }
            Body::Writing(_, slot, buf) => {
                parcel.body = Body::Spooled(slot);
                self.memory -= weight(&parcel.header);
                Some((None, Some(buf)))
            }
            Body::Reading(_, slot, buf) => {
                parcel.body = Body::Held(buf);
                Some((Some(slot), None))
            }
            Body::Here(_) | Body::Held(_) | Body::Spooled(_) => None,
        }
    }

    /// The session is over: the buffers that no operation uses.
    pub(crate) fn end(&mut self) -> Vec<BufId> {
        let idle = |p: &Parcel| p.body.buf().filter(|_| p.body.io().is_none());
        let bufs = self.queue.iter().filter_map(idle).collect();
        *self = Self::default();
        bufs
    }
}

/// What a frame takes of the window.
pub(crate) fn weight(header: &Header) -> u64 {
    FRAME_BYTES + u64::from(header.payload_len)
}

/// The places of the spool: handed out in a ring, given back in any order, free again in order.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    start: u64,
    end: u64,
    /// In the order of handing out; true once given back.
    slots: VecDeque<(Slot, bool)>,
}

impl Ring {
    /// The part at this place, of so many bytes, as all parts are.
    pub(crate) const fn of(place: u64, size: u64) -> Self {
        let start = place.saturating_mul(size);
        Self {
            start,
            end: start.saturating_add(size),
            slots: VecDeque::new(),
        }
    }

    /// True if an operation at this offset is in here.
    pub(crate) const fn has(&self, offset: u64) -> bool {
        self.start <= offset && offset < self.end
    }

    /// A place of at least `len` bytes; none if the ring is full.
    pub(crate) fn take(&mut self, len: u64) -> Option<Slot> {
        let room = len.div_ceil(ALIGN) * ALIGN;
        let offset = match (self.slots.front(), self.slots.back()) {
            (Some((first, _)), Some((last, _))) => {
                let end = last.offset + last.len.div_ceil(ALIGN) * ALIGN;
                if last.offset >= first.offset {
                    if end + room <= self.end {
                        end
                    } else if self.start + room < first.offset {
                        self.start
                    } else {
                        return None;
                    }
                } else if end + room < first.offset {
                    end
                } else {
                    return None;
                }
            }
            (None, _) | (_, None) if self.start + room <= self.end => self.start,
            (None, _) | (_, None) => return None,
        };
        let slot = Slot { offset, len };
        self.slots.push_back((slot, false));
        Some(slot)
    }

    /// Gives a place back.
    pub(crate) fn give(&mut self, slot: Slot) {
        if let Some((_, free)) = self.slots.iter_mut().find(|(s, _)| *s == slot) {
            *free = true;
        }
        while self.slots.front().is_some_and(|(_, free)| *free) {
            self.slots.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::mirror_frame::Kind;
    use wire::{ByteRange, Epoch, SessionId};

    fn frame(seq: u64, len: u32) -> Header {
        Header {
            payload_len: len,
            range: ByteRange::new(0, u64::from(len)).unwrap(),
            ..Header::bare(Kind::Write, Epoch(1), SessionId(1), seq)
        }
    }

    const fn bound(memory_bytes: u64, window_bytes: u64) -> Bound {
        Bound {
            max_bytes: 1 << 20,
            max_time: wire::Duration::from_millis(1_000),
            window_bytes,
            memory_bytes,
            spool_bytes: 0,
        }
    }

    #[test]
    fn no_two_places_in_use_overlap() {
        let mut ring = Ring::of(1, 16 * ALIGN);
        let mut used: VecDeque<Slot> = VecDeque::new();
        let mut dice = 7_u64;
        let mut full = 0;
        for _ in 0..4_000 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let len = (dice >> 33) % (5 * ALIGN) + 1;
            match ring.take(len) {
                Some(slot) => {
                    assert!(slot.offset >= 16 * ALIGN && slot.offset + slot.len <= 32 * ALIGN);
                    let apart = |o: &Slot| {
                        slot.offset + slot.len <= o.offset || o.offset + o.len <= slot.offset
                    };
                    assert!(used.iter().all(apart), "{slot:?} in {used:?}");
                    used.push_back(slot);
                }
                None => {
                    full += 1;
                    let at = usize::try_from(dice >> 40).unwrap() % used.len();
                    ring.give(used.remove(at).unwrap());
                }
            }
        }
        assert!(full > 100, "the ring was never full");
        for slot in used {
            ring.give(slot);
        }
        assert!(ring.take(16 * ALIGN).is_some(), "everything is free again");
    }

    #[test]
    fn frames_leave_in_their_order_whatever_the_spool_does_first() {
        let mut outbox = Outbox::new(bound(4 * AHEAD_BYTES, 8 * AHEAD_BYTES), 0);
        let slot = |offset| Slot { offset, len: 10 };
        let (a, b, c) = (BufId(1), BufId(2), BufId(3));
        let far = u32::try_from(AHEAD_BYTES).unwrap();
        let parcel = |seq, len, body| Parcel {
            header: frame(seq, len),
            body,
        };
        outbox.push(parcel(1, far, Body::Writing(IoId(1), slot(0), a)));
        outbox.push(parcel(2, 10, Body::Writing(IoId(2), slot(10), b)));
        outbox.push(parcel(3, 10, Body::Held(c)));
        assert_eq!(outbox.next(), Next::Nothing);
        assert_eq!(outbox.done(IoId(2)), Some((None, Some(b))));
        assert_eq!(outbox.next(), Next::Nothing, "the front is not there yet");
        assert_eq!(outbox.done(IoId(1)), Some((Some(slot(0)), None)));
        assert_eq!(outbox.next(), Next::Send);
        assert_eq!(outbox.take().unwrap().header.seq, 1);
        assert_eq!(outbox.next(), Next::Read(0, slot(10)));
        outbox.reading(0, IoId(3), slot(10), b);
        assert_eq!(outbox.done(IoId(3)), Some((Some(slot(10)), None)));
        assert_eq!(outbox.take().unwrap().header.seq, 2);
        assert_eq!(outbox.take().unwrap().body, Body::Held(c));
        assert_eq!((outbox.memory(), outbox.queue.is_empty()), (0, true));
    }

    #[test]
    fn the_window_bounds_what_is_sent_and_not_answered() {
        let window = 3 << 20;
        let mut outbox = Outbox::new(bound(0, window), 0);
        let big = u32::try_from(window).unwrap();
        outbox.count(&frame(1, big));
        assert!(!outbox.is_open());
        outbox.push(Parcel {
            header: frame(2, 10),
            body: Body::Held(BufId(1)),
        });
        assert_eq!(outbox.next(), Next::Nothing);
        outbox.answered(window + FRAME_BYTES);
        assert_eq!(outbox.next(), Next::Send);
    }
}
