//! The lab's broken disk: a shim below the engine's real I/O path.
//!
//! It is put in place explicitly ([`OpenOptions::fault_dir`](super::OpenOptions::fault_dir)) and never in production.
//! One directory per disk holds the [`control`] file, through which faults are injected while the daemon runs, and
//! the undo journal, from which [`power_loss`] makes what a power failure would have left on the medium.
//!
//! The model of the disk: it has a volatile cache of [`CACHE_MAX`] bytes. A completed write is in that cache
//! until a flush that was *submitted after the write completed* has completed; a FUA write is on the medium when
//! it completes. A power failure keeps any subset of the cached writes, some torn at 512 bytes.

pub mod control;
mod journal;
mod power;
mod spots;

pub use control::{Fault, Faults, FaultsError};
pub use journal::CACHE_MAX;
pub use power::{PowerLoss, power_loss};

use super::Access;
use control::Control;
use journal::Journal;
use rustix::io::Errno;
use spots::Spots;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use wire::{Duration, Time};

/// How often an access that hangs looks whether the disk was healed.
pub(crate) const RECHECK: Duration = Duration::from_millis(10);

/// The shim's verdict on an access.
#[derive(Debug)]
pub(crate) enum Gate {
    /// Do it; give the ticket back by [`Disk::settle`](super::Disk::settle).
    Go(Option<Ticket>),
    /// It failed.
    Fail(Errno),
    /// Ask again at `until` (then with `was_delayed`), or after [`RECHECK`].
    Hold { until: Option<Time> },
}

/// What the journal has to be told when an access ends.
#[derive(Debug)]
pub(crate) enum Ticket {
    /// A write or zeroing with this journal record.
    Write { record: u64, durable: bool },
    /// A flush that covers these records.
    Flush { covered: Vec<u64> },
}

/// The shim of one disk. Only the thread that owns the ring calls it, so its lock is never contended.
#[derive(Debug)]
pub(crate) struct FaultShim {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    control: Control,
    journal: Journal,
    spots: Spots,
}

impl FaultShim {
    /// Opens or creates the shim's directory; a journal that a killed process left is continued.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let state = State {
            control: Control::open(dir)?,
            journal: Journal::open(dir)?,
            spots: Spots::default(),
        };
        Ok(Self {
            state: Mutex::new(state),
        })
    }

    pub(crate) fn gate(&self, file: &File, access: Access, was_delayed: bool) -> Gate {
        let mut state = self.lock();
        let faults = state.control.read();
        if let Access::Write { offset, len, .. } | Access::Zero { offset, len } = access {
            state.spots.written(offset, len);
        }
        if faults.read != Fault::Spots {
            state.spots = Spots::default();
        }
        let fault = match access {
            Access::Read { .. } => faults.read,
            Access::Write { .. } | Access::Zero { .. } => faults.write,
            Access::Flush => faults.flush,
        };
        match fault {
            Fault::Error => Gate::Fail(Errno::IO),
            Fault::Full => Gate::Fail(Errno::NOSPC),
            Fault::Hang => Gate::Hold { until: None },
            Fault::Slow(delay) if !was_delayed => Gate::Hold {
                until: Some(crate::clock::now() + delay),
            },
            Fault::Spots if state.spots.spoil(access) => Gate::Fail(Errno::IO),
            Fault::None | Fault::Slow(_) | Fault::Spots => state.admit(file, access),
        }
    }

    pub(crate) fn settle(&self, ticket: Ticket, succeeded: bool) -> io::Result<()> {
        let journal = &mut self.lock().journal;
        match ticket {
            Ticket::Write { record, durable } => journal.written(record, durable && succeeded),
            Ticket::Flush { covered } if succeeded => journal.flushed(&covered),
            Ticket::Flush { .. } => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn admit(&mut self, file: &File, access: Access) -> Gate {
        let recorded = match access {
            Access::Read { .. } => return Gate::Go(None),
            Access::Flush => {
                return Gate::Go(Some(Ticket::Flush {
                    covered: self.journal.completed(),
                }));
            }
            Access::Write {
                offset,
                len,
                durable,
            } => self
                .journal
                .record(file, offset, len)
                .map(|record| (record, durable)),
            Access::Zero { len, .. } if len > journal::ZERO_MAX => return Gate::Go(None),
            Access::Zero { offset, len } => self
                .journal
                .record(file, offset, len)
                .map(|record| (record, false)),
        };
        match recorded {
            Ok((record, durable)) => Gate::Go(Some(Ticket::Write { record, durable })),
            Err(why) => {
                tracing::error!(%why, "fault shim cannot keep its undo journal");
                Gate::Fail(Errno::IO)
            }
        }
    }
}
