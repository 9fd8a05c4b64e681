//! `/dev/ublkcN`: the slots through which requests come.
#![allow(
    unsafe_code,
    reason = "the kernel describes requests in memory that it shares with this process"
)]

use super::abi::{self, IoCmd, IoDesc};
use super::{DEPTH, TRANSFER_MAX};
use rustix::fs::{Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::param::page_size;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};
use zerocopy::IntoBytes;

/// A request of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Fill the slot's buffer.
    Read {
        /// In bytes.
        offset: u64,
        /// In bytes, at most [`TRANSFER_MAX`].
        len: u32,
    },
    /// The slot's buffer holds the data.
    Write {
        /// In bytes.
        offset: u64,
        /// In bytes, at most [`TRANSFER_MAX`].
        len: u32,
        /// Force unit access.
        durable: bool,
    },
    /// Everything that was answered has to be durable.
    Flush,
    /// The range has to read zero.
    Zero {
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u32,
        /// Force unit access.
        durable: bool,
        /// It need not read zero, only be given back.
        discard: bool,
    },
}

/// The one queue of a device.
pub struct Queue {
    device: OwnedFd,
    descriptions: NonNull<IoDesc>,
    mapped: usize,
}

// JUSTIFICATION: a raw pointer is not `Send` by itself.
// SAFETY: the mapping belongs to the process, not to a thread, and is only read.
unsafe impl Send for Queue {}
// JUSTIFICATION: as above.
// SAFETY: as above; every read is a volatile one of memory that stays mapped as long as the value lives.
unsafe impl Sync for Queue {}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({:?})", self.device)
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl Queue {
    /// Opens the queue of device `id`. Nobody else may have it open.
    ///
    /// # Errors
    /// `ResourceBusy` while another process has it open; whatever opening and mapping say.
    pub fn open(id: u32) -> io::Result<Self> {
        let path = format!("/dev/ublkc{id}");
        let device = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let mapped = (usize::from(DEPTH) * size_of::<IoDesc>()).next_multiple_of(page_size());
        // JUSTIFICATION: the driver describes requests in shared memory.
        // SAFETY: a fresh mapping at an address of the kernel's choice; nothing else knows of it.
        let mapping = unsafe {
            mmap(
                std::ptr::null_mut(),
                mapped,
                ProtFlags::READ,
                MapFlags::SHARED | MapFlags::POPULATE,
                &device,
                0,
            )
        }?;
        let descriptions = NonNull::new(mapping.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            device,
            descriptions,
            mapped,
        })
    }

    /// The request in slot `tag`, after the operation on it has completed with success. `None` for one that makes no sense.
    #[must_use]
    pub fn request(&self, tag: u16) -> Option<Request> {
        if tag >= DEPTH {
            return None;
        }
        // The description was written before the completion was.
        fence(Ordering::Acquire);
        // JUSTIFICATION: as for `open`.
        // SAFETY: the mapping holds `DEPTH` descriptions and lives as long as `self`; any bits make a description. The kernel
        // writes it again only after the slot was given back.
        let description = unsafe { self.descriptions.add(usize::from(tag)).read_volatile() };
        parse(description)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // JUSTIFICATION: as for `open`.
        // SAFETY: the mapping is this value's, and no reference to it is ever given out.
        let unmapped = unsafe { munmap(self.descriptions.as_ptr().cast(), self.mapped) };
        if let Err(error) = unmapped {
            tracing::error!(%error, "a ublk queue stays mapped");
        }
    }
}

fn parse(description: IoDesc) -> Option<Request> {
    if description.op_flags & abi::OP_MASK == abi::OP_FLUSH {
        // Its place is none: the kernel writes -1.
        return Some(Request::Flush);
    }
    let offset = description.start_sector.checked_mul(512)?;
    let len = description.nr_sectors.checked_mul(512)?;
    let durable = description.op_flags & abi::IO_F_FUA != 0;
    let transfer = len > 0 && len <= TRANSFER_MAX;
    match description.op_flags & abi::OP_MASK {
        abi::OP_READ if transfer => Some(Request::Read { offset, len }),
        abi::OP_WRITE if transfer => Some(Request::Write {
            offset,
            len,
            durable,
        }),
        op @ (abi::OP_DISCARD | abi::OP_WRITE_ZEROES) if len > 0 => Some(Request::Zero {
            offset,
            len,
            durable,
            discard: op == abi::OP_DISCARD,
        }),
        _ => None,
    }
}

/// What is told to the driver about a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// It waits for its first request.
    Fetch,
    /// Its request was answered: bytes of a transfer or 0, or a negative error number. It waits for the next.
    Answer(i32),
}

/// Code and content of a command, with the slot's buffer at `address`.
pub(crate) fn encode(tag: u16, command: Command, address: u64) -> (u32, [u8; 16]) {
    let (op, result) = match command {
        Command::Fetch => (abi::io::FETCH_REQ, -1),
        Command::Answer(result) => (abi::io::COMMIT_AND_FETCH_REQ, result),
    };
    let command = IoCmd {
        q_id: 0,
        tag,
        result,
        addr: address,
    };
    let mut bytes = [0; 16];
    bytes.copy_from_slice(command.as_bytes());
    (op, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(op_flags: u32, nr_sectors: u32, start_sector: u64) -> Option<Request> {
        parse(IoDesc {
            op_flags,
            nr_sectors,
            start_sector,
            addr: 0,
        })
    }

    #[test]
    fn requests_are_understood() {
        let (offset, len) = (4096, 1024);
        let durable = true;
        let fua = abi::IO_F_FUA;
        assert_eq!(description(0, 2, 8), Some(Request::Read { offset, len }));
        let write = Request::Write {
            offset,
            len,
            durable,
        };
        assert_eq!(description(1 | fua, 2, 8), Some(write));
        assert_eq!(description(2, 0, u64::MAX), Some(Request::Flush));
        let zero = |discard, durable| Request::Zero {
            offset,
            len,
            durable,
            discard,
        };
        assert_eq!(description(3, 2, 8), Some(zero(true, false)));
        assert_eq!(description(5 | fua, 2, 8), Some(zero(false, true)));
    }

    #[test]
    fn nonsense_is_not() {
        assert_eq!(description(0, 0, 8), None, "empty");
        assert_eq!(description(1, TRANSFER_MAX / 512 + 1, 0), None, "too long");
        assert_eq!(description(0, 8, u64::MAX), None, "beyond any disk");
        assert_eq!(description(9, 8, 0), None, "unknown");
    }
}
