//! The slots of a ublk device: requests of the kernel's block layer.

use super::front::{Origin, Wanted};
use host::ring::{Buf, Completion, Frozen, Op as RingOp, Ring};
use host::ublk::{Command, DEPTH, Queue, Request, TRANSFER_MAX};
use mirror::io::{Errno, Op};
use std::collections::VecDeque;
use std::sync::Arc;
use wire::ByteRange;

/// Payloads up to this many bytes are copied out of the slot's buffer; larger ones take it with them.
const COPY_MAX: usize = 64 << 10;

/// Who has a slot's buffer.
#[derive(Debug)]
enum Slot {
    /// The kernel: the slot waits for a request.
    Away,
    /// We: its request is in work.
    Here(Buf),
    /// Nobody: the device was stopped.
    Over,
}

/// The device while there is one.
#[derive(Debug)]
pub(super) struct Front {
    queue: Arc<Queue>,
    /// Tells the requests and tokens of this device from those of one before it.
    serial: u64,
    /// Invariant: one per slot of the queue.
    slots: Vec<Slot>,
    /// Slots whose request waits for room. Invariant: each of them is [`Slot::Here`].
    waiting: VecDeque<u16>,
    over: u16,
    /// Requests fail, those in work and those to come.
    broken: bool,
}

impl Front {
    /// Serves a device that was made or is taken over. `serial` differs from that of every device before it.
    pub(super) fn new(queue: Arc<Queue>, serial: u64, ring: &mut Ring) -> Self {
        let mut front = Self {
            queue,
            serial,
            slots: (0..DEPTH).map(|_| Slot::Over).collect(),
            waiting: VecDeque::new(),
            over: 0,
            broken: false,
        };
        for tag in 0..DEPTH {
            front.submit(ring, tag, Command::Fetch, fresh());
        }
        front
    }

    /// The slot whose operation has this token.
    pub(super) fn slot(&self, token: u64) -> Option<u16> {
        let (serial, tag) = (token >> 16 & u64::from(u32::MAX), token & 0xffff);
        (serial == self.serial & u64::from(u32::MAX))
            .then(|| u16::try_from(tag).ok())
            .flatten()
    }

    /// A slot has a request, or has ended.
    pub(super) fn complete(&mut self, ring: &mut Ring, tag: u16, completion: Completion) {
        let Some(slot) = self.slots.get_mut(usize::from(tag)) else {
            return;
        };
        match (completion.result, completion.buf) {
            (Ok(0), Some(buf)) => {
                *slot = Slot::Here(buf);
                match self.broken {
                    true => self.give(ring, tag, failure(Errno::IO)),
                    false => self.waiting.push_back(tag),
                }
            }
            (result, _) => {
                // The device was stopped; what else could go wrong ends the slot as well.
                tracing::debug!(tag, ?result, "a ublk slot has ended");
                *slot = Slot::Over;
                self.over += 1;
            }
        }
    }

    /// The requests for which there is room. Called once per turn of the loop.
    pub(super) fn turn(&mut self, ring: &mut Ring, room: bool, wanted: &mut Vec<Wanted>) {
        while room && let Some(tag) = self.waiting.pop_front() {
            match self.translate(tag) {
                Some(request) => wanted.push(request),
                None => {
                    tracing::warn!(tag, request = ?self.queue.request(tag), "ublk asks for what makes no sense");
                    self.give(ring, tag, failure(Errno::INVALID));
                }
            }
        }
    }

    /// Every slot has ended: the device can be dropped.
    pub(super) fn is_over(&self) -> bool {
        self.over == DEPTH
    }

    fn translate(&mut self, tag: u16) -> Option<Wanted> {
        let request = self.queue.request(tag)?;
        let (op, offset, len) = match request {
            Request::Read { offset, len } => (Op::Read, offset, len),
            Request::Write {
                offset,
                len,
                durable,
            } => (Op::Write { fua: durable }, offset, len),
            Request::Flush => (Op::Flush, 0, 0),
            Request::Zero {
                offset,
                len,
                durable,
                ..
            } => (Op::Zero { fua: durable }, offset, len),
        };
        let range = ByteRange::new(offset, u64::from(len))?;
        let payload = match op {
            Op::Write { .. } => Some(self.take_payload(tag, usize::try_from(len).ok()?)?),
            Op::Read | Op::Flush | Op::Zero { .. } => None,
        };
        let serial = self.serial;
        Some(Wanted {
            origin: Origin::Ublk { serial, tag },
            op,
            range,
            payload,
        })
    }

    fn take_payload(&mut self, tag: u16, len: usize) -> Option<Buf> {
        let Slot::Here(buf) = self.slots.get_mut(usize::from(tag))? else {
            return None;
        };
        if len <= COPY_MAX {
            return Some(Buf::copy_of(buf.get(..len)?));
        }
        let mut payload = std::mem::replace(buf, fresh());
        payload.set_len(len);
        Some(payload)
    }

    /// Answers a request, if it is one of this device.
    pub(super) fn answer(
        &mut self,
        ring: &mut Ring,
        (serial, tag): (u64, u16),
        result: Result<(), Errno>,
        data: Option<Frozen>,
    ) {
        if serial != self.serial || self.broken {
            return;
        }
        let given = match result {
            Ok(()) => self.done(tag, data),
            Err(errno) => {
                tracing::warn!(errno = errno.0, request = ?self.queue.request(tag), "a ublk request fails");
                failure(errno)
            }
        };
        self.give(ring, tag, given);
    }

    /// What the driver is told of a request that succeeded. The data of a read goes into the slot's buffer.
    fn done(&mut self, tag: u16, data: Option<Frozen>) -> i32 {
        let Some(Slot::Here(buf)) = self.slots.get_mut(usize::from(tag)) else {
            return failure(Errno::IO);
        };
        match (self.queue.request(tag), data) {
            (Some(Request::Read { len, .. }), Some(data)) => {
                let wanted = usize::try_from(len).unwrap_or(usize::MAX);
                if data.len() != wanted || buf.len() < wanted {
                    return failure(Errno::IO);
                }
                buf[..wanted].copy_from_slice(&data);
                i32::try_from(len).unwrap_or(failure(Errno::IO))
            }
            (Some(Request::Write { len, .. }), _) => {
                i32::try_from(len).unwrap_or(failure(Errno::IO))
            }
            (Some(Request::Flush | Request::Zero { .. }), _) => 0,
            (Some(Request::Read { .. }) | None, _) => failure(Errno::IO),
        }
    }

    /// Fails everything from here on, so that the device can be stopped whatever the replica waits for.
    pub(super) fn fail(&mut self, ring: &mut Ring) {
        self.broken = true;
        self.waiting.clear();
        for tag in 0..DEPTH {
            if matches!(self.slots.get(usize::from(tag)), Some(Slot::Here(_))) {
                self.give(ring, tag, failure(Errno::IO));
            }
        }
    }

    fn give(&mut self, ring: &mut Ring, tag: u16, result: i32) {
        let Some(slot) = self.slots.get_mut(usize::from(tag)) else {
            return;
        };
        if let Slot::Here(buf) = std::mem::replace(slot, Slot::Away) {
            self.submit(ring, tag, Command::Answer(result), buf);
        }
    }

    fn submit(&mut self, ring: &mut Ring, tag: u16, command: Command, buf: Buf) {
        if let Some(slot) = self.slots.get_mut(usize::from(tag)) {
            *slot = Slot::Away;
        }
        let queue = Arc::clone(&self.queue);
        let serial = self.serial & u64::from(u32::MAX);
        ring.submit(
            super::thread::UBLK | serial << 16 | u64::from(tag),
            RingOp::Ublk {
                queue,
                tag,
                command,
                buf,
            },
        );
    }
}

fn fresh() -> Buf {
    Buf::new(usize::try_from(TRANSFER_MAX).unwrap_or(0))
}

/// An error as the driver wants it: negative.
const fn failure(errno: Errno) -> i32 {
    -errno.0
}
