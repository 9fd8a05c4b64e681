//! The backing disk of a replica: a block device or a file, opened exclusively and past the page cache.
//!
//! A [`Disk`] is used through a [`Ring`](crate::ring::Ring). In a lab a shim ([`fault`]) sits between
//! the ring and the kernel: it can break the disk on command and remembers what a power failure may undo.

mod busy;
pub mod fault;
mod open;
mod view;

pub use open::{OpenError, OpenOptions};
pub use view::DiskView;

use crate::ring::{Buf, Frozen};
use fault::{FaultShim, Gate, Ticket};
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// Zeros that are written at once where nothing else makes them.
const ZEROS_BYTES: usize = 1 << 20;

/// An exclusively held backing device or file.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    file: File,
    size: u64,
    logical_block: u32,
    is_device: bool,
    in_memory: bool,
    fault: Option<FaultShim>,
}

/// One access to the disk, as the fault shim judges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reads change nothing.
    Read { offset: u64, len: u64 },
    /// `durable` is FUA: on the medium when it completes.
    Write {
        offset: u64,
        len: u64,
        durable: bool,
    },
    /// Reads zero afterwards.
    Zero { offset: u64, len: u64 },
    /// Completed writes become durable.
    Flush,
}

/// A run of bytes that is either allocated or a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of the run, at least 1.
    pub len: u64,
    /// Nothing is allocated: reads zero.
    pub hole: bool,
}

impl Disk {
    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Usable bytes, a multiple of the logical block.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The unit of offsets and lengths, in bytes: a power of two from 512 to 4096.
    #[must_use]
    pub fn logical_block(&self) -> u32 {
        self.logical_block
    }

    /// A block device, not a file.
    #[must_use]
    pub fn is_device(&self) -> bool {
        self.is_device
    }

    /// A file of a file system in memory: a system call on it copies, and never waits for a device.
    #[must_use]
    pub(crate) fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    /// Whether the lab's fault shim is in the path.
    #[must_use]
    pub fn has_fault_shim(&self) -> bool {
        self.fault.is_some()
    }

    /// The run of allocated bytes or hole at `offset`, cut at `end`. A block device is all allocated.
    ///
    /// # Errors
    /// What `lseek` reports, other than "beyond the end".
    pub fn extent_at(&self, offset: u64, end: u64) -> io::Result<Extent> {
        let end = end.min(self.size);
        if self.is_device {
            return Ok(Extent {
                len: end.saturating_sub(offset).max(1),
                hole: false,
            });
        }
        let data = seek(&self.file, SeekFrom::Data(offset))?.unwrap_or(end);
        if data > offset {
            return Ok(Extent {
                len: data.min(end).saturating_sub(offset).max(1),
                hole: true,
            });
        }
        let hole = seek(&self.file, SeekFrom::Hole(offset))?.unwrap_or(end);
        Ok(Extent {
            len: hole.min(end).saturating_sub(offset).max(1),
            hole: false,
        })
    }

    /// What happens to an access: it goes on, fails, or is held back. Always goes on without a shim.
    pub(crate) fn gate(&self, access: Access, was_delayed: bool) -> Gate {
        match &self.fault {
            None => Gate::Go(None),
            Some(shim) => shim.gate(&self.file, access, was_delayed),
        }
    }

    /// An access that went on with `ticket` has ended.
    pub(crate) fn settle(&self, ticket: Ticket, succeeded: bool) -> io::Result<()> {
        match &self.fault {
            None => Ok(()),
            Some(shim) => shim.settle(ticket, succeeded),
        }
    }

    /// Reads all of `buf` at `offset`, waiting for it: for start-up, where there is no ring yet.
    ///
    /// # Errors
    /// What the disk or the shim reports; `UnexpectedEof` beyond the end.
    pub fn read_now(&self, offset: u64, buf: &mut Buf) -> io::Result<()> {
        let access = Access::Read {
            offset,
            len: to_u64(buf.len()),
        };
        self.pass(access, || {
            let mut at = 0;
            while at < buf.len() {
                let done = rustix::io::pread(&self.file, &mut buf[at..], offset + to_u64(at))?;
                if done == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                at += done;
            }
            Ok(())
        })
    }

    /// Writes `data` at `offset` and makes it durable, waiting for it: for start-up and tools.
    ///
    /// # Errors
    /// What the disk or the shim reports.
    pub fn write_now(&self, offset: u64, data: &Frozen) -> io::Result<()> {
        let access = Access::Write {
            offset,
            len: to_u64(data.len()),
            durable: true,
        };
        self.pass(access, || {
            let mut at = 0;
            while at < data.len() {
                let done = rustix::io::pwrite(&self.file, &data[at..], offset + to_u64(at))?;
                if done == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                at += done;
            }
            Ok(rustix::fs::fdatasync(&self.file)?)
        })
    }

    /// Makes a part read as zeros, durably, waiting for it: for tools. It is deallocated where that reads as zeros too; either way
    /// the kernel vouches for it (`fallocate(2)`, on a device `blkdev_issue_zeroout`).
    ///
    /// # Errors
    /// What the disk or the shim reports.
    pub fn zero_now(&self, offset: u64, len: u64) -> io::Result<()> {
        self.pass(Access::Zero { offset, len }, || {
            for how in [PUNCH, ZERO_RANGE] {
                match rustix::fs::fallocate(&self.file, how, offset, len) {
                    Err(Errno::OPNOTSUPP) => {}
                    done => return Ok(done.and_then(|()| rustix::fs::fdatasync(&self.file))?),
                }
            }
            self.write_zeros(offset, len)
        })
    }

    fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        let zeros = Buf::zeroed(ZEROS_BYTES);
        let mut done = 0;
        while done < len {
            let now = usize::try_from(len - done).map_or(ZEROS_BYTES, |left| left.min(ZEROS_BYTES));
            match rustix::io::pwrite(&self.file, &zeros[..now], offset + done)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => done += to_u64(written),
            }
        }
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    fn pass(&self, access: Access, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut was_delayed = false;
        let ticket = loop {
            match self.gate(access, was_delayed) {
                Gate::Go(ticket) => break ticket,
                Gate::Fail(errno) => return Err(errno.into()),
                Gate::Hold { until } => {
                    was_delayed = until.is_some();
                    let pause = until.map_or(fault::RECHECK, |at| at.since(crate::clock::now()));
                    std::thread::sleep(pause);
                }
            }
        };
        let result = act();
        if let Some(ticket) = ticket {
            self.settle(ticket, result.is_ok())?;
        }
        result
    }
}

impl AsFd for Disk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Deallocates a range so that it reads zero.
pub(crate) const PUNCH: FallocateFlags =
    FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

/// Makes a range read zero and keeps it allocated.
pub(crate) const ZERO_RANGE: FallocateFlags =
    FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE);

fn seek(file: &File, to: SeekFrom) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, to) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// A length in memory as a length on disk; no machine has more bytes than `u64` counts.
pub(crate) fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
