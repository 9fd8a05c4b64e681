//! The fallback backend: plain system calls on a few threads, readiness by `poll(2)` in the caller's thread.

use super::Frozen;
use super::op::{Flight, Op, Step};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::{Errno, IoSlice, ReadWriteFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use wire::Time;

/// Disk operations that run at the same time.
const WORKERS: usize = 4;

type Finished = Vec<(Flight, io::Result<u32>)>;

#[derive(Debug, Default)]
struct Queues {
    waiting: VecDeque<Flight>,
    finished: Finished,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    queues: Mutex<Queues>,
    work: Condvar,
    /// Readable while `finished` is not empty.
    wake: OwnedFd,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct Threads {
    shared: Arc<Shared>,
    timer: OwnedFd,
    polls: Vec<Flight>,
    /// Polls that were cancelled.
    ended: Vec<Flight>,
}

impl Threads {
    pub(super) fn new(zeros: &Frozen) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queues: Mutex::new(Queues::default()),
            work: Condvar::new(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        for _ in 0..WORKERS {
            let (shared, zeros) = (Arc::clone(&shared), zeros.clone());
            std::thread::Builder::new()
                .name("backstay-disk".to_owned())
                .spawn(move || work(&shared, &zeros))?;
        }
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        Ok(Self {
            shared,
            timer,
            polls: Vec::new(),
            ended: Vec::new(),
        })
    }

    pub(super) fn start(&mut self, flight: Flight) {
        if matches!(flight.op, Op::Ready { .. }) {
            self.polls.push(flight);
            return;
        }
        self.shared.lock().waiting.push_back(flight);
        self.shared.work.notify_one();
    }

    pub(super) fn cancel_ready(&mut self, token: u64) {
        self.ended
            .extend(self.polls.extract_if(.., |flight| flight.token == token));
    }

    /// Waits until `until` for `want` (0 or 1) operations to finish.
    pub(super) fn wait(
        &mut self,
        want: usize,
        until: Option<Time>,
        finished: &mut Finished,
    ) -> io::Result<()> {
        let cancelled = self
            .ended
            .drain(..)
            .map(|flight| (flight, Err(Errno::CANCELED.into())));
        finished.extend(cancelled);
        let block = want > 0 && finished.is_empty();
        if block {
            self.set_timer(until)?;
        }
        self.poll(block, finished)?;
        finished.append(&mut self.shared.lock().finished);
        Ok(())
    }

    /// Sets the timer that ends the wait; `None` stops it.
    fn set_timer(&self, until: Option<Time>) -> io::Result<()> {
        // A time of zero would stop the timer; one nanosecond after boot is over as well.
        let nanos = until.map_or(0, |at| at.as_nanos().max(1));
        let it_value = Timespec {
            tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(nanos % 1_000_000_000).unwrap_or(0),
        };
        let it_interval = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let setting = Itimerspec {
            it_interval,
            it_value,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &setting)?;
        Ok(())
    }

    fn poll(&mut self, block: bool, finished: &mut Finished) -> io::Result<()> {
        let mut fds = vec![
            PollFd::new(&self.shared.wake, PollFlags::IN),
            PollFd::new(&self.timer, PollFlags::IN),
        ];
        for flight in &self.polls {
            if let Op::Ready { fd, interest } = &flight.op {
                fds.push(PollFd::from_borrowed_fd(fd.as_fd(), interest.flags()));
            }
        }
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match poll(&mut fds, (!block).then_some(&timeout)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        let mut drained = [0; 8];
        for (fd, ready) in [&self.shared.wake, &self.timer].into_iter().zip(&ready) {
            if !ready.is_empty() {
                rustix::io::read(fd, &mut drained)?;
            }
        }
        let mut at = 2;
        let over = self.polls.extract_if(.., |_| {
            at += 1;
            !ready[at - 1].is_empty()
        });
        let over: Vec<Flight> = over.collect();
        let bits = ready[2..].iter().filter(|ready| !ready.is_empty());
        finished.extend(
            over.into_iter()
                .zip(bits.map(|ready| Ok(u32::from(ready.bits())))),
        );
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Workers end by themselves; one that hangs in the kernel owns its buffer, so nobody has to wait for it.
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
    }
}

fn work(shared: &Shared, zeros: &Frozen) {
    let mut queues = shared.lock();
    loop {
        if queues.closed {
            return;
        }
        let Some(mut flight) = queues.waiting.pop_front() else {
            queues = shared
                .work
                .wait(queues)
                .unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(queues);
        let result = run(flight.step(zeros));
        queues = shared.lock();
        queues.finished.push((flight, result.map_err(Into::into)));
        // A full counter still wakes; there is nothing else that could go wrong with an event descriptor.
        let _: rustix::io::Result<usize> = rustix::io::write(&shared.wake, &1_u64.to_ne_bytes());
    }
}

/// One system call, on the calling thread.
pub(super) fn run(step: Step<'_>) -> rustix::io::Result<u32> {
    let count = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    match step {
        Step::Read { file, offset, into } => rustix::io::pread(file, into, offset).map(count),
        Step::Write {
            file,
            offset,
            from,
            durable,
        } => {
            let flags = if durable {
                ReadWriteFlags::DSYNC
            } else {
                ReadWriteFlags::empty()
            };
            rustix::io::pwritev2(file, &[IoSlice::new(from)], offset, flags).map(count)
        }
        Step::Sync { file } => rustix::fs::fdatasync(file).map(|()| 0),
        Step::Allocate {
            file,
            offset,
            len,
            how,
        } => rustix::fs::fallocate(file, how, offset, len).map(|()| 0),
        Step::Poll { .. } => Err(Errno::INVAL),
        // Whoever serves such a queue has asked for the other backend.
        Step::Ublk { .. } => Err(Errno::OPNOTSUPP),
    }
}
