//! The reactor of an engine thread: disk I/O and readiness of descriptors, by io_uring or by a few threads.
//!
//! Buffers are owned: an [`Op`] takes them, its [`Completion`] gives them back, so the kernel never sees memory that
//! somebody else may free or change. Submissions are batched: [`Ring::submit`] only queues, [`Ring::wait`] hands all of
//! them to the kernel in the same call that waits.
//!
//! An operation completes in full or with an error: partial reads and writes are continued here, and zeroing falls back
//! from deallocation to writing zeros. Operations of one ring are not ordered; whoever needs order waits.

mod buf;
mod op;
mod threads;
mod uring;
mod watch;

pub use buf::{BUF_ALIGN, BUF_MAX, Buf, Frozen};
pub use op::{Completion, Descriptor, Interest, Op};
pub use watch::Watch;

use crate::clock;
use crate::disk::fault::{Gate, RECHECK};
use op::{Flight, Next};
use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use threads::Threads;
use uring::Uring;
use wire::{Duration, Time};

/// Operations that are handed to the kernel in one call at most; more are handed over in several.
const BATCH_MAX: u32 = 256;

/// Waits in a row that may leave what is queued to the next one.
const PUT_OFF_MAX: u32 = 8;

/// A wait that is expected to be shorter than this is spent looking again and again, because going to sleep and waking up
/// take about as long. Whoever else wants the processor gets it.
const LINGER: Duration = Duration::from_micros(80);
/// After a wait of this length, with the sleep that it may have been, the next one is expected to be short.
const BRISK: Duration = Duration::from_micros(150);

/// What zeroing by writing writes at once, in bytes.
const ZEROS_LEN: usize = 1 << 20;

/// How operations reach the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// io_uring.
    Uring,
    /// Plain system calls on a few threads, for kernels or policies that forbid io_uring.
    Threads,
}

enum Core {
    Uring(Box<Uring>),
    Threads(Threads),
}

/// A flight that the fault shim holds back.
struct Held {
    flight: Flight,
    until: Time,
}

/// The reactor. It belongs to the thread that made it.
pub struct Ring {
    core: Core,
    zeros: Frozen,
    held: Vec<Held>,
    over: VecDeque<Completion>,
    finished: Vec<(Flight, io::Result<u32>)>,
    /// What is done here, by the next wait: what its owner sends meanwhile is on its way first.
    immediate: Vec<Flight>,
    /// Waits in a row that left what is queued to the next one.
    put_off: u32,
    /// The last wait was so short that the next one is expected to be.
    brisk: bool,
    in_flight: usize,
    /// The kernel ties a ring to the thread that first used it.
    _not_send: PhantomData<*const ()>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let in_flight = self.in_flight;
        write!(
            f,
            "Ring({:?}, {in_flight} in flight, {} held)",
            self.backend(),
            self.held.len()
        )
    }
}

impl Ring {
    /// A ring of the wished kind; with `None`, io_uring where the kernel lets us, else threads.
    ///
    /// # Errors
    /// When the wished backend is forbidden or unknown here, or the process is out of descriptors or memory.
    pub fn new(wish: Option<Backend>) -> io::Result<Self> {
        let zeros = Buf::zeroed(ZEROS_LEN).freeze();
        let core = match wish {
            Some(Backend::Uring) => Core::Uring(Box::new(Uring::new(BATCH_MAX)?)),
            Some(Backend::Threads) => Core::Threads(Threads::new(&zeros)?),
            None => match Uring::new(BATCH_MAX) {
                Ok(uring) => Core::Uring(Box::new(uring)),
                Err(why) => {
                    tracing::info!(%why, "io_uring is not available, using threads");
                    Core::Threads(Threads::new(&zeros)?)
                }
            },
        };
        Ok(Self {
            core,
            zeros,
            held: Vec::new(),
            over: VecDeque::new(),
            finished: Vec::new(),
            immediate: Vec::new(),
            put_off: 0,
            brisk: false,
            in_flight: 0,
            _not_send: PhantomData,
        })
    }

    /// Which backend works.
    #[must_use]
    pub fn backend(&self) -> Backend {
        match self.core {
            Core::Uring(_) => Backend::Uring,
            Core::Threads(_) => Backend::Threads,
        }
    }

    /// Operations that have not been returned by [`Ring::wait`].
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Queues an operation; it reaches the kernel with the next [`Ring::wait`].
    pub fn submit(&mut self, token: u64, op: Op) {
        self.in_flight += 1;
        self.admit(Flight::new(token, op));
    }

    /// Ends every waiting [`Op::Ready`] with this token; it completes with `ECANCELED`, or as ready if it already was.
    pub fn cancel_ready(&mut self, token: u64) {
        match &mut self.core {
            Core::Uring(uring) => uring.cancel_ready(token),
            Core::Threads(threads) => threads.cancel_ready(token),
        }
    }

    /// Hands everything queued to the kernel, then appends completions to `done`: at least `at_least`, or as many
    /// as there are at `deadline` (`CLOCK_BOOTTIME`; `None` waits without an end). `at_least` 0 does not wait.
    ///
    /// # Errors
    /// When the kernel refuses to wait at all; single operations fail in their completion.
    pub fn wait(
        &mut self,
        at_least: usize,
        deadline: Option<Time>,
        done: &mut Vec<Completion>,
    ) -> io::Result<()> {
        let goal = done.len().saturating_add(at_least);
        let mut first = true;
        loop {
            self.readmit_held();
            self.collect(done);
            let enough = done.len() >= goal;
            if enough && !(first && at_least == 0) {
                return self.poke_unless_soon(first);
            }
            if !enough && deadline.is_some_and(|at| at <= clock::now()) {
                return self.poke();
            }
            first = false;
            let want = if enough { 0 } else { 1 };
            let until = deadline.into_iter().chain(self.next_recheck()).min();
            self.wait_for_kernel(want, until)?;
        }
    }

    /// Waits for the kernel. A wait that is likely to be short is spent looking instead of sleeping.
    fn wait_for_kernel(&mut self, want: usize, until: Option<Time>) -> io::Result<()> {
        let uring = match &mut self.core {
            Core::Uring(uring) => uring,
            Core::Threads(threads) => return threads.wait(want, until, &mut self.finished),
        };
        let begun = clock::now();
        let linger_until = until.into_iter().chain([begun + LINGER]).min();
        while want > 0 && self.brisk && linger_until.is_some_and(|end| clock::now() < end) {
            uring.wait(0, None, &self.zeros, &mut self.finished)?;
            if !self.finished.is_empty() {
                return Ok(());
            }
            std::thread::yield_now();
        }
        uring.wait(want, until, &self.zeros, &mut self.finished)?;
        if want > 0 {
            self.brisk = clock::now().since(begun) < BRISK;
        }
        Ok(())
    }

    /// Starts what is queued. A caller that got something without the kernel comes back soon: then the call that waits next
    /// starts it, but not for long.
    fn poke_unless_soon(&mut self, without_kernel: bool) -> io::Result<()> {
        if without_kernel && self.put_off < PUT_OFF_MAX {
            self.put_off += 1;
            return Ok(());
        }
        self.put_off = 0;
        self.poke()
    }

    /// Starts what is queued, without waiting.
    fn poke(&mut self) -> io::Result<()> {
        match &mut self.core {
            Core::Uring(uring) => uring.submit(&self.zeros),
            Core::Threads(_) => Ok(()),
        }
    }

    fn collect(&mut self, done: &mut Vec<Completion>) {
        if let Core::Uring(uring) = &mut self.core {
            uring.reap(&mut self.finished);
        }
        // Until none is left: the next step of an immediate one is immediate, too.
        while !self.finished.is_empty() || !self.immediate.is_empty() {
            self.run_immediate();
            let mut finished = std::mem::take(&mut self.finished);
            for (flight, result) in finished.drain(..) {
                self.step_over(flight, result);
            }
            if self.finished.is_empty() {
                // Its memory is used again.
                self.finished = finished;
            }
        }
        self.in_flight -= self.over.len();
        done.extend(self.over.drain(..));
    }

    fn run_immediate(&mut self) {
        for mut flight in self.immediate.drain(..) {
            let result = threads::run(flight.step(&self.zeros)).map_err(Into::into);
            self.finished.push((flight, result));
        }
    }

    fn step_over(&mut self, mut flight: Flight, result: io::Result<u32>) {
        match flight.advance(result) {
            Next::Again => self.start(flight),
            Next::Over(result) => self.end(flight, result),
        }
    }

    fn end(&mut self, mut flight: Flight, result: io::Result<u32>) {
        let ticket = flight.ticket.take();
        let settled = match (ticket, flight.access()) {
            (Some(ticket), Some((disk, access))) => disk.settle(access, ticket, result.is_ok()),
            (None, _) | (_, None) => Ok(()),
        };
        let result = result.and_then(|count| settled.map(|()| count));
        self.over.push_back(flight.complete(result));
    }

    fn admit(&mut self, mut flight: Flight) {
        let gate = match flight.access() {
            None => Gate::Go(None),
            Some((disk, access)) => disk.gate(access, flight.was_delayed),
        };
        match gate {
            Gate::Go(ticket) => {
                flight.ticket = ticket;
                self.start(flight);
            }
            Gate::Fail(errno) => self.end(flight, Err(errno.into())),
            Gate::Hold { until } => {
                flight.was_delayed |= until.is_some();
                let until = until.unwrap_or_else(|| clock::now() + RECHECK);
                self.held.push(Held { flight, until });
            }
        }
    }

    fn start(&mut self, flight: Flight) {
        if flight.is_immediate() {
            // The kernel would hand it to a worker thread, which costs more than doing it.
            self.immediate.push(flight);
            return;
        }
        match &mut self.core {
            Core::Uring(uring) => uring.start(flight),
            Core::Threads(threads) => threads.start(flight),
        }
    }

    fn readmit_held(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let now = clock::now();
        let (due, later) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|h| h.until <= now);
        self.held = later;
        let due: Vec<Held> = due;
        for held in due {
            self.admit(held.flight);
        }
    }

    fn next_recheck(&self) -> Option<Time> {
        self.held.iter().map(|held| held.until).min()
    }
}

#[cfg(test)]
mod tests;
