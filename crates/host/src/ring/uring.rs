//! The io_uring backend: one slab of what the kernel works on, one queue of what it has not been given yet.
#![allow(
    unsafe_code,
    reason = "submission queue entries carry raw pointers and descriptors"
)]

use super::Frozen;
use super::op::{Flight, Op, Step};
use crate::ublk;
use io_uring::squeue::Entry;
use io_uring::types::{CancelBuilder, Fd, FsyncFlags, SubmitArgs, TimeoutFlags, Timespec};
use io_uring::{IoUring, opcode};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};
use wire::Time;

/// How long a ring that is dropped waits for the kernel to let go of its buffers, before it leaks them.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// Completions whose slot number is this are of nobody's interest.
const NOBODY: u64 = u64::MAX;

/// What the kernel may still look at. Invariant: an entry stays in its slot from the time its submission entry is made
/// until its completion is reaped.
#[derive(Debug)]
enum Slot {
    Free { next: Option<usize> },
    Flight(Flight),
    Timer { at: Time, _spec: Box<Timespec> },
}

pub(super) struct Uring {
    ring: IoUring,
    slots: Vec<Slot>,
    free: Option<usize>,
    used: usize,
    /// Flights in slots whose submission entry has not been made.
    starting: VecDeque<usize>,
    /// Submission entries that wait for room in the kernel's queue.
    queue: VecDeque<Entry>,
    /// The earliest timer that is set.
    armed: Option<Time>,
}

impl Uring {
    pub(super) fn new(entries: u32) -> io::Result<Self> {
        let ring = build(entries, true).or_else(|why| match why.raw_os_error() {
            // Kernels before 6.1 lack deferred task work.
            Some(libc::EINVAL) => build(entries, false),
            _ => Err(why),
        })?;
        Ok(Self {
            ring,
            slots: Vec::new(),
            free: None,
            used: 0,
            starting: VecDeque::new(),
            queue: VecDeque::new(),
            armed: None,
        })
    }

    pub(super) fn start(&mut self, flight: Flight) {
        let slot = self.occupy(Slot::Flight(flight));
        self.starting.push_back(slot);
    }

    pub(super) fn cancel_ready(&mut self, token: u64) {
        for (number, slot) in self.slots.iter().enumerate() {
            if let Slot::Flight(flight) = slot
                && flight.token == token
                && matches!(flight.op, Op::Ready { .. })
            {
                let cancel = opcode::AsyncCancel::new(user_data(number)).build();
                // A flight that has not started yet is queued before its cancellation: see `submit`.
                self.queue.push_back(cancel.user_data(NOBODY));
            }
        }
    }

    /// Gives the kernel everything that is queued.
    pub(super) fn submit(&mut self, zeros: &Frozen) -> io::Result<()> {
        self.prepare(zeros);
        while self.fill() {
            self.enter(0)?;
        }
        Ok(())
    }

    /// Gives the kernel everything that is queued and waits for `want` (0 or 1) completions, or until `until`.
    pub(super) fn wait(
        &mut self,
        want: usize,
        until: Option<Time>,
        zeros: &Frozen,
        finished: &mut Vec<(Flight, io::Result<u32>)>,
    ) -> io::Result<()> {
        if want > 0
            && let Some(until) = until
        {
            self.arm(until);
        }
        self.prepare(zeros);
        self.fill();
        while !self.queue.is_empty() {
            self.enter(0)?;
            self.fill();
        }
        self.enter(want)?;
        self.reap(finished);
        Ok(())
    }

    /// Takes what the kernel has completed, without a system call.
    pub(super) fn reap(&mut self, finished: &mut Vec<(Flight, io::Result<u32>)>) {
        loop {
            let Some(entry) = self.ring.completion().next() else {
                return;
            };
            let Ok(number) = usize::try_from(entry.user_data()) else {
                continue;
            };
            if number >= self.slots.len() {
                continue;
            }
            let result = u32::try_from(entry.result())
                .map_err(|_| io::Error::from_raw_os_error(entry.result().saturating_neg()));
            match self.vacate(number) {
                Slot::Flight(flight) => finished.push((flight, result)),
                Slot::Timer { at, .. } if self.armed == Some(at) => self.armed = None,
                Slot::Timer { .. } | Slot::Free { .. } => {}
            }
        }
    }

    /// Sets a timer unless one goes off by then anyway. One that goes off too early only wakes us for nothing.
    fn arm(&mut self, until: Time) {
        if self.armed.is_some_and(|armed| armed <= until) {
            return;
        }
        let nanos = until.as_nanos();
        let spec = Timespec::new()
            .sec(nanos / 1_000_000_000)
            .nsec(u32::try_from(nanos % 1_000_000_000).unwrap_or(0));
        let spec = Box::new(spec);
        let flags = TimeoutFlags::ABS | TimeoutFlags::BOOTTIME;
        let entry = opcode::Timeout::new(&raw const *spec).flags(flags).build();
        let number = self.occupy(Slot::Timer {
            at: until,
            _spec: spec,
        });
        self.queue.push_back(entry.user_data(user_data(number)));
        self.armed = Some(until);
    }

    /// Makes the submission entries of the flights that have none.
    fn prepare(&mut self, zeros: &Frozen) {
        let cancels = self.queue.len();
        while let Some(number) = self.starting.pop_front() {
            if let Slot::Flight(flight) = &mut self.slots[number] {
                self.queue
                    .push_back(entry(flight.step(zeros)).user_data(user_data(number)));
            }
        }
        self.queue.rotate_left(cancels);
    }

    /// Moves entries into the kernel's queue; whether there is anything in it.
    fn fill(&mut self) -> bool {
        let mut submission = self.ring.submission();
        while let Some(entry) = self.queue.front() {
            // JUSTIFICATION: io_uring has no other way to take an operation.
            // SAFETY: what the entry points to is owned by a slot (or by `Ring::zeros`) that is neither moved in memory
            // nor freed before the completion is reaped; the descriptor is kept open by the same slot.
            if unsafe { submission.push(entry) }.is_err() {
                break;
            }
            self.queue.pop_front();
        }
        !submission.is_empty()
    }

    fn enter(&mut self, want: usize) -> io::Result<()> {
        match self.ring.submit_and_wait(want) {
            Ok(_) => Ok(()),
            Err(why) => match why.raw_os_error() {
                // Interrupted, or completions have to be reaped first: the caller comes back.
                Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(why),
            },
        }
    }

    fn occupy(&mut self, slot: Slot) -> usize {
        self.used += 1;
        let Some(number) = self.free else {
            self.slots.push(slot);
            return self.slots.len() - 1;
        };
        if let Slot::Free { next } = std::mem::replace(&mut self.slots[number], slot) {
            self.free = next;
        }
        number
    }

    fn vacate(&mut self, number: usize) -> Slot {
        if let Slot::Free { .. } = self.slots[number] {
            // The late end of what `leave_ublk` has left.
            return Slot::Free { next: None };
        }
        let free = Slot::Free { next: self.free };
        let slot = std::mem::replace(&mut self.slots[number], free);
        self.free = Some(number);
        self.used -= 1;
        slot
    }

    /// Cancels and reaps everything; whether the kernel has let go of all of it.
    fn drain(&mut self) -> bool {
        let deadline = Instant::now() + DRAIN_MAX;
        for number in std::mem::take(&mut self.starting) {
            drop(self.vacate(number));
        }
        // Entries that the kernel has not seen, timers and polls among them, are forgotten with their slots.
        let unseen: Vec<u64> = self
            .queue
            .drain(..)
            .map(|entry| entry.get_user_data())
            .collect();
        for number in unseen
            .into_iter()
            .filter_map(|data| usize::try_from(data).ok())
        {
            if number < self.slots.len() {
                drop(self.vacate(number));
            }
        }
        self.leave_ublk();
        let mut finished = Vec::new();
        while self.used > 0 && Instant::now() < deadline {
            let cancel = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
            self.queue.push_back(cancel.user_data(NOBODY));
            self.fill();
            let pause = Timespec::new().nsec(20_000_000);
            drop(
                self.ring
                    .submitter()
                    .submit_with_args(2, &SubmitArgs::new().timespec(&pause)),
            );
            self.reap(&mut finished);
        }
        self.used == 0
    }
}

impl Uring {
    /// The kernel ends commands to a ublk queue only with the ring itself: their buffers are left to it.
    fn leave_ublk(&mut self) {
        for number in 0..self.slots.len() {
            let is_ublk = matches!(&self.slots[number], Slot::Flight(flight) if matches!(flight.op, Op::Ublk { .. }));
            if is_ublk {
                std::mem::forget(self.vacate(number));
            }
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if !self.drain() {
            tracing::error!(
                operations = self.used,
                "disk still holds buffers of a closed ring"
            );
            // The kernel may write to these buffers at any later time.
            std::mem::forget(std::mem::take(&mut self.slots));
        }
    }
}

fn build(entries: u32, deferred: bool) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .dontfork()
        .setup_clamp()
        .setup_cqsize(entries.saturating_mul(8));
    if deferred {
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag();
    }
    let ring = builder.build(entries)?;
    if ring.params().is_feature_nodrop() && ring.params().is_feature_ext_arg() {
        return Ok(ring);
    }
    // Before 5.11 completions could be lost and waits had no time limit.
    Err(io::ErrorKind::Unsupported.into())
}

fn user_data(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(NOBODY)
}

/// The largest part of a transfer that one entry asks for, in bytes; the rest follows as for any partial transfer.
const TRANSFER_MAX: u32 = 1 << 30;

fn entry(step: Step<'_>) -> Entry {
    match step {
        Step::Read { file, offset, into } => {
            let len = u32::try_from(into.len()).unwrap_or(TRANSFER_MAX);
            opcode::Read::new(fd(file), into.as_mut_ptr(), len)
                .offset(offset)
                .build()
        }
        Step::Write {
            file,
            offset,
            from,
            durable,
        } => {
            let len = u32::try_from(from.len()).unwrap_or(TRANSFER_MAX);
            let flags = if durable { libc::RWF_DSYNC } else { 0 };
            opcode::Write::new(fd(file), from.as_ptr(), len)
                .offset(offset)
                .rw_flags(flags)
                .build()
        }
        Step::Sync { file } => opcode::Fsync::new(fd(file))
            .flags(FsyncFlags::DATASYNC)
            .build(),
        Step::Allocate {
            file,
            offset,
            len,
            how,
        } => opcode::Fallocate::new(fd(file), len)
            .offset(offset)
            .mode(i32::try_from(how.bits()).unwrap_or(0))
            .build(),
        Step::Poll { fd: of, interest } => opcode::PollAdd::new(
            Fd(of.as_fd().as_raw_fd()),
            u32::from(interest.flags().bits()),
        )
        .build(),
        Step::Ublk {
            queue,
            tag,
            command,
            buf,
        } => {
            let address = buf.as_mut_ptr().expose_provenance();
            let address = u64::try_from(address).unwrap_or(0);
            let (code, content) = ublk::encode(tag, command, address);
            opcode::UringCmd16::new(fd(queue), code)
                .cmd(content)
                .build()
        }
    }
}

fn fd(of: &impl AsFd) -> Fd {
    Fd(of.as_fd().as_raw_fd())
}
