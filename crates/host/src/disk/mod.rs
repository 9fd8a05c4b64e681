//! The backing disk of a replica: a block device or a file, opened exclusively and past the page cache.
//!
//! A [`Disk`] is used through a [`Ring`](crate::ring::Ring). Its metadata may be on a device of its own: then both are one
//! address space, the disk first, rounded down to 4 KiB ([`wire::external`]). A flush makes both durable, the data first,
//! so that a disk that fails is not followed by anything; the metadata's own writes are durable one by one. In a lab a shim ([`fault`]) sits between
//! the ring and the kernel: it can break the disk on command and remembers what a power failure may undo.

mod busy;
pub mod fault;
mod name;
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
use std::sync::Arc;
use wire::External;
use wire::units::BLOCK_BYTES;

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
    fault: Option<Arc<FaultShim>>,
    name: Option<String>,
    /// What lies behind it in the address space. It has no such device itself.
    metadata: Option<Box<Self>>,
}

/// Where a byte of the address space is.
#[derive(Debug)]
pub(crate) struct Spot<'a> {
    pub(crate) file: &'a File,
    /// In that file.
    pub(crate) offset: u64,
    /// Bytes from there on that are in that file, or would be.
    pub(crate) room: u64,
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

impl Access {
    /// The same, counted from `start`; none if it begins before.
    const fn behind(self, start: u64) -> Option<Self> {
        match self {
            Self::Read { offset, len } if offset >= start => Some(Self::Read {
                offset: offset - start,
                len,
            }),
            Self::Write {
                offset,
                len,
                durable,
            } if offset >= start => Some(Self::Write {
                offset: offset - start,
                len,
                durable,
            }),
            Self::Zero { offset, len } if offset >= start => Some(Self::Zero {
                offset: offset - start,
                len,
            }),
            Self::Read { .. } | Self::Write { .. } | Self::Zero { .. } | Self::Flush => None,
        }
    }
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

    /// Usable bytes, a multiple of the logical block; with those of the metadata's device.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.metadata {
            None => self.size,
            Some(metadata) => self.seam() + whole_blocks(metadata.size),
        }
    }

    /// Which disk the metadata on a device of its own is of; none if it is at the disk's end.
    #[must_use]
    pub fn external(&self) -> Option<External> {
        let own = External::new(self.seam(), self.name.as_deref());
        self.metadata.as_ref().map(|_| own)
    }

    /// The disk without its metadata's device, as large as it may ever become: for the volume, which may grow beyond the size that
    /// the disk was opened with.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn volume(&self) -> io::Result<Self> {
        Ok(Self {
            path: self.path.clone(),
            file: self.file.try_clone()?,
            size: self.size,
            logical_block: self.logical_block,
            is_device: self.is_device,
            in_memory: self.in_memory,
            fault: self.fault.clone(),
            name: self.name.clone(),
            metadata: None,
        })
    }

    /// Bytes that the disk has now, without the metadata's device: it may have been enlarged since it was opened.
    ///
    /// # Errors
    /// What the system reports.
    pub fn measure(&self) -> io::Result<u64> {
        Ok(rustix::fs::seek(&self.file, SeekFrom::End(0))?)
    }

    /// Where the metadata's device begins, if there is one.
    fn seam(&self) -> u64 {
        whole_blocks(self.size)
    }

    /// Where a byte of the address space is.
    pub(crate) fn spot(&self, offset: u64) -> Spot<'_> {
        let behind = self.metadata.as_ref().map(|metadata| &metadata.file);
        Spot::of(offset, &self.file, self.size, behind)
    }

    /// Files that a flush makes durable, one after the other.
    pub(crate) fn file_count(&self) -> usize {
        1 + usize::from(self.metadata.is_some())
    }

    /// One of them.
    pub(crate) fn file(&self, index: usize) -> &File {
        match &self.metadata {
            Some(metadata) if index > 0 => &metadata.file,
            Some(_) | None => &self.file,
        }
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
        self.in_memory && self.metadata.as_ref().is_none_or(|m| m.in_memory)
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
        if let Some(metadata) = &self.metadata {
            if let Some(access) = access.behind(self.seam()) {
                return metadata.gate(access, was_delayed);
            }
            if access == Access::Flush {
                // Nothing completed is volatile there, so its journal has nothing to be told.
                match metadata.gate(access, was_delayed) {
                    Gate::Go(_) => {}
                    stop @ (Gate::Fail(_) | Gate::Hold { .. }) => return stop,
                }
            }
        }
        match &self.fault {
            None => Gate::Go(None),
            Some(shim) => shim.gate(&self.file, access, was_delayed),
        }
    }

    /// An access that went on with `ticket` has ended.
    pub(crate) fn settle(&self, access: Access, ticket: Ticket, succeeded: bool) -> io::Result<()> {
        if let (Some(metadata), Some(access)) = (&self.metadata, access.behind(self.seam())) {
            return metadata.settle(access, ticket, succeeded);
        }
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
                let spot = self.spot(offset + to_u64(at));
                let end = spot.end_of(at, buf.len());
                let done = rustix::io::pread(spot.file, &mut buf[at..end], spot.offset)?;
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
                let spot = self.spot(offset + to_u64(at));
                let end = spot.end_of(at, data.len());
                let done = rustix::io::pwrite(spot.file, &data[at..end], spot.offset)?;
                if done == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                rustix::fs::fdatasync(spot.file)?;
                at += done;
            }
            Ok(())
        })
    }

    /// Writes `data` at `offset` of the disk itself, waiting for it: for tools. [`Disk::sync_now`] makes that durable.
    ///
    /// # Errors
    /// What the disk or the shim reports.
    pub fn put_now(&self, offset: u64, data: &Frozen) -> io::Result<()> {
        let access = Access::Write {
            offset,
            len: to_u64(data.len()),
            durable: false,
        };
        self.pass(access, || {
            let mut at = 0;
            while at < data.len() {
                match rustix::io::pwrite(&self.file, &data[at..], offset + to_u64(at))? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    done => at += done,
                }
            }
            Ok(())
        })
    }

    /// Makes a part read as zeros, waiting for it: for tools. [`Disk::sync_now`] makes that durable. It is deallocated where that reads as zeros too; either way
    /// the kernel vouches for it (`fallocate(2)`, on a device `blkdev_issue_zeroout`).
    ///
    /// # Errors
    /// What the disk or the shim reports.
    pub fn zero_now(&self, offset: u64, len: u64) -> io::Result<()> {
        self.pass(Access::Zero { offset, len }, || {
            for how in [PUNCH, ZERO_RANGE] {
                match rustix::fs::fallocate(&self.file, how, offset, len) {
                    Err(Errno::OPNOTSUPP) => {}
                    done => return Ok(done?),
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
        Ok(())
    }

    /// Makes what was written so far durable, waiting for it: for tools. Not on a metadata device, where every write is.
    ///
    /// # Errors
    /// What the disk or the shim reports.
    pub fn sync_now(&self) -> io::Result<()> {
        self.pass(Access::Flush, || Ok(rustix::fs::fdatasync(&self.file)?))
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
            self.settle(access, ticket, result.is_ok())?;
        }
        result
    }
}

impl<'a> Spot<'a> {
    /// Of a disk of `size` bytes, and what may be behind it.
    fn of(offset: u64, file: &'a File, size: u64, behind: Option<&'a File>) -> Self {
        let seam = whole_blocks(size);
        let (file, offset, room) = match behind {
            None => (file, offset, u64::MAX),
            Some(behind) if offset >= seam => (behind, offset - seam, u64::MAX),
            Some(_) => (file, offset, seam - offset),
        };
        Self { file, offset, room }
    }

    /// Where a transfer of a buffer's bytes from `at` on ends, at most: a buffer is not transferred over the seam at once.
    pub(crate) fn end_of(&self, at: usize, len: usize) -> usize {
        let room = usize::try_from(self.room).unwrap_or(usize::MAX);
        at.saturating_add(room).min(len)
    }
}

const fn whole_blocks(bytes: u64) -> u64 {
    bytes / BLOCK_BYTES * BLOCK_BYTES
}

/// The disk itself, without its metadata's device.
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
