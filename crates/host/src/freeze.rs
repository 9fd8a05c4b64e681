//! Freezes a file system, and lets it run again.
//!
//! Both write, and wait for it: not in a process that serves the blocks of the file system's device.
#![allow(unsafe_code, reason = "FIFREEZE and FITHAW have no safe wrappers")]

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Opcode};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// `linux/fs.h`: `_IOWR('X', 119, int)`.
const FIFREEZE: Opcode = 0xc004_5877;
/// `linux/fs.h`: `_IOWR('X', 120, int)`.
const FITHAW: Opcode = 0xc004_5878;

/// Freezes the file system of `directory`. It waits for writers, and nothing interrupts it.
///
/// # Errors
/// When it is frozen already, cannot be, or this process may not: then it runs as before.
pub fn freeze(directory: impl AsFd) -> io::Result<()> {
    // JUSTIFICATION: rustix has no wrapper for FIFREEZE.
    // SAFETY: the opcode takes an integer that the kernel ignores.
    let request = unsafe { IntegerSetter::<FIFREEZE>::new_usize(0) };
    // JUSTIFICATION: as above.
    // SAFETY: as above; on any descriptor the opcode means this or nothing.
    unsafe { rustix::ioctl::ioctl(directory, request) }.map_err(io::Error::from)
}

/// Thaws the file system of `directory`; true if it was frozen. It may write, and so hang as long as its device does.
///
/// # Errors
/// When it stays frozen, or this process may not.
pub fn thaw_open(directory: impl AsFd) -> io::Result<bool> {
    // JUSTIFICATION: rustix has no wrapper for FITHAW.
    // SAFETY: the opcode takes an integer that the kernel ignores.
    let request = unsafe { IntegerSetter::<FITHAW>::new_usize(0) };
    // JUSTIFICATION: as above.
    // SAFETY: as above; on any descriptor the opcode means this or nothing.
    match unsafe { rustix::ioctl::ioctl(directory, request) } {
        Ok(()) => Ok(true),
        // It is not frozen, or cannot be.
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOTTY) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// [`thaw_open`] by the path of a directory.
///
/// # Errors
/// When there is no such directory, or as above.
pub fn thaw(target: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    thaw_open(rustix::fs::open(target, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_goes_on() {
        assert!(!thaw(&std::env::temp_dir()).unwrap());
        assert!(thaw(Path::new("/no/such/place")).is_err());
    }
}
