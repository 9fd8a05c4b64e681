//! Operations and their completions.

use super::{Buf, Frozen};
use crate::disk::fault::Ticket;
use crate::disk::{Access, Disk, PUNCH, ZERO_RANGE, to_u64};
use crate::ublk;
use rustix::event::PollFlags;
use rustix::fs::FallocateFlags;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Something with a file descriptor that stays open while an operation on it is under way.
pub type Descriptor = Arc<dyn AsFd + Send + Sync>;

/// An operation. What it owns comes back in its [`Completion`] or is dropped when it is over, never before.
pub enum Op {
    /// Fills the whole buffer from `offset`.
    Read {
        /// From here.
        disk: Arc<Disk>,
        /// In bytes, a multiple of the logical block, as is the buffer's length.
        offset: u64,
        /// Comes back in the completion.
        buf: Buf,
    },
    /// Writes all of `data` at `offset`.
    Write {
        /// To here.
        disk: Arc<Disk>,
        /// In bytes, a multiple of the logical block, as is the data's length.
        offset: u64,
        /// May be shared: it is only read.
        data: Frozen,
        /// Force unit access: on the medium when it completes.
        durable: bool,
    },
    /// Makes every write that completed before this was submitted durable.
    Flush {
        /// This disk.
        disk: Arc<Disk>,
    },
    /// Makes a range read zero, by the cheapest way that the disk has.
    Zero {
        /// On this disk.
        disk: Arc<Disk>,
        /// In bytes, a multiple of the logical block, as is `len`.
        offset: u64,
        /// In bytes.
        len: u64,
        /// The range may be deallocated.
        hole: bool,
    },
    /// Waits until a descriptor is ready, once.
    Ready {
        /// This one.
        fd: Descriptor,
        /// For what; errors and hang-ups are always reported.
        interest: Interest,
    },
    /// Waits for the next request in a slot of a ublk queue, and answers the one before. Needs [`Backend::Uring`](super::Backend).
    Ublk {
        /// The device's queue. Only the thread that first used it may do so.
        queue: Arc<ublk::Queue>,
        /// The slot.
        tag: u16,
        /// What is told to the driver.
        command: ublk::Command,
        /// The slot's buffer: what a read answers with, and what the next write brings. Comes back in the completion.
        buf: Buf,
    },
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { offset, buf, .. } => write!(f, "read {} at {offset}", buf.len()),
            Self::Write {
                offset,
                data,
                durable,
                ..
            } => {
                write!(f, "write {} at {offset}, durable: {durable}", data.len())
            }
            Self::Flush { .. } => f.write_str("flush"),
            Self::Zero {
                offset, len, hole, ..
            } => {
                write!(f, "zero {len} at {offset}, hole: {hole}")
            }
            Self::Ready { interest, .. } => write!(f, "ready {interest:?}"),
            Self::Ublk { tag, command, .. } => write!(f, "ublk slot {tag} {command:?}"),
        }
    }
}

/// What to wait for on a descriptor, and what it turned out to be ready for: bits of `poll(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest(PollFlags);

impl Interest {
    /// There are bytes to read, or a peer to accept.
    pub const READ: Self = Self(PollFlags::IN);
    /// There is room to write.
    pub const WRITE: Self = Self(PollFlags::OUT);
    /// Either.
    pub const BOTH: Self = Self(PollFlags::IN.union(PollFlags::OUT));

    pub(super) fn flags(self) -> PollFlags {
        self.0
    }

    /// Whether waiting for this also waits for `other`.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.0.contains(other.0)
    }

    /// The `result` of an [`Op::Ready`] as readiness.
    #[must_use]
    pub fn of_result(result: u32) -> Self {
        Self(PollFlags::from_bits_truncate(
            u16::try_from(result & 0xffff).unwrap_or(0),
        ))
    }

    /// A read would not block: bytes, end of stream or an error to collect.
    #[must_use]
    pub fn can_read(self) -> bool {
        self.0
            .intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
    }

    /// A write would not block.
    #[must_use]
    pub fn can_write(self) -> bool {
        self.0
            .intersects(PollFlags::OUT | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
    }
}

/// An operation has ended.
#[derive(Debug)]
pub struct Completion {
    /// What was given to [`Ring::submit`](super::Ring::submit).
    pub token: u64,
    /// Bytes for reads and writes (always all of them), readiness bits for [`Op::Ready`], else 0.
    pub result: io::Result<u32>,
    /// The buffer of an [`Op::Read`] or an [`Op::Ublk`].
    pub buf: Option<Buf>,
}

/// The ways to make a range read zero, cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ZeroBy {
    Punch,
    ZeroRange,
    Write,
}

impl ZeroBy {
    const fn first(hole: bool) -> Self {
        if hole { Self::Punch } else { Self::ZeroRange }
    }

    /// The next way when the disk knows not this one.
    const fn next(self) -> Option<Self> {
        match self {
            Self::Punch => Some(Self::ZeroRange),
            Self::ZeroRange => Some(Self::Write),
            Self::Write => None,
        }
    }
}

/// Most bytes that are copied at once to or from a file in memory: while more are, another processor could help.
const IMMEDIATE_MAX: usize = 64 << 10;

/// So many times in a row an operation that the kernel never began is given to it again; then it is done here.
const UNBEGUN_MAX: u8 = 4;

/// An operation under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) token: u64,
    pub(super) op: Op,
    /// Bytes done by earlier steps; of a flush, files.
    done: u64,
    zero_by: ZeroBy,
    pub(super) ticket: Option<Ticket>,
    /// The fault shim has delayed it once.
    pub(super) was_delayed: bool,
    /// How often in a row the kernel gave a step back without having begun it.
    unbegun: u8,
}

/// The next system call of a flight.
pub(super) enum Step<'a> {
    Read {
        file: &'a File,
        offset: u64,
        into: &'a mut [u8],
    },
    Write {
        file: &'a File,
        offset: u64,
        from: &'a [u8],
        durable: bool,
    },
    Sync {
        file: &'a File,
    },
    Allocate {
        file: &'a File,
        offset: u64,
        len: u64,
        how: FallocateFlags,
    },
    Poll {
        fd: &'a Descriptor,
        interest: Interest,
    },
    Ublk {
        queue: &'a ublk::Queue,
        tag: u16,
        command: ublk::Command,
        buf: &'a mut [u8],
    },
}

/// Writes what of `data` is in one file.
fn write_step<'a>(disk: &'a Disk, offset: u64, data: &'a [u8], durable: bool) -> Step<'a> {
    let spot = disk.spot(offset);
    Step::Write {
        file: spot.file,
        offset: spot.offset,
        from: &data[..spot.end_of(0, data.len())],
        durable,
    }
}

/// What follows from the end of a step.
pub(super) enum Next {
    /// Another step.
    Again,
    /// The end.
    Over(io::Result<u32>),
}

impl Flight {
    pub(super) fn new(token: u64, op: Op) -> Self {
        let zero_by = ZeroBy::first(matches!(op, Op::Zero { hole: true, .. }));
        Self {
            token,
            op,
            done: 0,
            zero_by,
            ticket: None,
            was_delayed: false,
            unbegun: 0,
        }
    }

    /// How the fault shim sees it; `None` for what is not a disk's.
    pub(super) fn access(&self) -> Option<(&Disk, Access)> {
        match &self.op {
            Op::Read { disk, offset, buf } => {
                let (offset, len) = (*offset, to_u64(buf.len()));
                Some((disk, Access::Read { offset, len }))
            }
            Op::Write {
                disk,
                offset,
                data,
                durable,
            } => {
                let len = to_u64(data.len());
                Some((
                    disk,
                    Access::Write {
                        offset: *offset,
                        len,
                        durable: *durable,
                    },
                ))
            }
            Op::Flush { disk } => Some((disk, Access::Flush)),
            Op::Zero {
                disk, offset, len, ..
            } => Some((
                disk,
                Access::Zero {
                    offset: *offset,
                    len: *len,
                },
            )),
            Op::Ready { .. } | Op::Ublk { .. } => None,
        }
    }

    /// True if it is done by the thread of the ring: little of a file in memory, where that is less work than handing it over, and
    /// what the kernel does not begin.
    pub(super) fn is_immediate(&self) -> bool {
        if self.unbegun > UNBEGUN_MAX {
            return true;
        }
        let (disk, bytes) = match &self.op {
            Op::Read { disk, buf, .. } => (disk, buf.len()),
            Op::Write { disk, data, .. } => (disk, data.len()),
            Op::Flush { disk } => (disk, 0),
            Op::Zero { .. } | Op::Ready { .. } | Op::Ublk { .. } => return false,
        };
        bytes <= IMMEDIATE_MAX && disk.is_in_memory()
    }

    /// The next system call. `zeros` is what zeroing by writing writes.
    pub(super) fn step<'a>(&'a mut self, zeros: &'a Frozen) -> Step<'a> {
        let at = usize::try_from(self.done).unwrap_or(usize::MAX);
        match &mut self.op {
            Op::Read { disk, offset, buf } => {
                let spot = disk.spot(*offset + self.done);
                let end = spot.end_of(at, buf.len());
                Step::Read {
                    file: spot.file,
                    offset: spot.offset,
                    into: &mut buf[at..end],
                }
            }
            Op::Write {
                disk,
                offset,
                data,
                durable,
            } => write_step(disk, *offset + self.done, &data[at..], *durable),
            Op::Flush { disk } => Step::Sync {
                file: disk.file(at),
            },
            Op::Zero {
                disk, offset, len, ..
            } => {
                let (spot, left) = (disk.spot(*offset + self.done), *len - self.done);
                if left > spot.room {
                    // A hole is made in one file.
                    self.zero_by = ZeroBy::Write;
                }
                let how = match self.zero_by {
                    ZeroBy::Punch => PUNCH,
                    ZeroBy::ZeroRange => ZERO_RANGE,
                    ZeroBy::Write => {
                        let len = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
                        return write_step(disk, *offset + self.done, &zeros[..len], false);
                    }
                };
                Step::Allocate {
                    file: spot.file,
                    offset: spot.offset,
                    len: left,
                    how,
                }
            }
            Op::Ready { fd, interest } => Step::Poll {
                fd,
                interest: *interest,
            },
            Op::Ublk {
                queue,
                tag,
                command,
                buf,
            } => Step::Ublk {
                queue,
                tag: *tag,
                command: *command,
                buf,
            },
        }
    }

    /// Takes the result of a step.
    pub(super) fn advance(&mut self, result: io::Result<u32>) -> Next {
        let count = match result {
            Ok(count) => count,
            Err(why) => return self.failed(why),
        };
        self.unbegun = 0;
        let (wanted, nothing_is) = match &self.op {
            Op::Flush { disk } => {
                self.done += 1;
                return if self.done < to_u64(disk.file_count()) {
                    Next::Again
                } else {
                    Next::Over(Ok(0))
                };
            }
            Op::Ready { .. } | Op::Ublk { .. } => return Next::Over(Ok(count)),
            Op::Zero { .. } if self.zero_by != ZeroBy::Write => return Next::Over(Ok(0)),
            Op::Zero { len, .. } => (*len, io::ErrorKind::WriteZero),
            Op::Read { buf, .. } => (to_u64(buf.len()), io::ErrorKind::UnexpectedEof),
            Op::Write { data, .. } => (to_u64(data.len()), io::ErrorKind::WriteZero),
        };
        self.done += u64::from(count);
        if self.done >= wanted {
            let zeroed = matches!(self.op, Op::Zero { .. });
            let bytes = if zeroed {
                0
            } else {
                u32::try_from(wanted).unwrap_or(u32::MAX)
            };
            return Next::Over(Ok(bytes));
        }
        if count == 0 {
            Next::Over(Err(nothing_is.into()))
        } else {
            Next::Again
        }
    }

    fn failed(&mut self, why: io::Error) -> Next {
        if why.kind() == io::ErrorKind::Interrupted {
            return Next::Again;
        }
        let is_done_here = self.unbegun > UNBEGUN_MAX;
        let is_cancelled = why.raw_os_error() == Some(libc::ECANCELED);
        if is_cancelled && !is_done_here && self.access().is_some() {
            // Nobody here cancels what a disk does. The kernel hands what may block to worker threads, and when it can make none (a
            // limit of tasks or of memory, a signal in the middle of it) it cancels what waits for them, unbegun: io-wq.c,
            // io_acct_cancel_pending_work. So this says nothing about the disk, of a flush neither.
            self.unbegun += 1;
            return Next::Again;
        }
        let unsupported = why.raw_os_error() == Some(libc::EOPNOTSUPP);
        let next = self.zero_by.next();
        match (&self.op, next) {
            (Op::Zero { .. }, Some(next)) if unsupported => {
                self.zero_by = next;
                Next::Again
            }
            _ => Next::Over(Err(why)),
        }
    }

    pub(super) fn complete(self, result: io::Result<u32>) -> Completion {
        let buf = match self.op {
            Op::Read { buf, .. } | Op::Ublk { buf, .. } => Some(buf),
            Op::Write { .. } | Op::Flush { .. } | Op::Zero { .. } | Op::Ready { .. } => None,
        };
        Completion {
            token: self.token,
            result,
            buf,
        }
    }
}
