//! Lets a file system run again that was frozen for a snapshot.
//!
//! Freezing itself is left to fsfreeze(8): it writes, and a process that serves the device's blocks must not wait for itself.
#![allow(unsafe_code, reason = "FITHAW has no safe wrapper")]

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Opcode};
use std::io;
use std::path::Path;

/// `linux/fs.h`: `_IOWR('X', 120, int)`.
const FITHAW: Opcode = 0xc004_5878;

/// Thaws the file system at `target`; true if it was frozen. It may write, and so hang as long as its device does.
///
/// # Errors
/// When there is no such directory, or this process may not.
pub fn thaw(target: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(target, flags, Mode::empty())?;
    // JUSTIFICATION: rustix has no wrapper for FITHAW.
    // SAFETY: the opcode takes an integer that the kernel ignores.
    let request = unsafe { IntegerSetter::<FITHAW>::new_usize(0) };
    // JUSTIFICATION: as above.
    // SAFETY: as above; on any descriptor the opcode means this or nothing.
    match unsafe { rustix::ioctl::ioctl(&directory, request) } {
        Ok(()) => Ok(true),
        // It is not frozen, or cannot be.
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOTTY) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
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
