//! A daemon that the kernel writes back through must not wait for memory that only it could free.
#![allow(
    unsafe_code,
    reason = "prctl has no safe wrapper for PR_SET_IO_FLUSHER"
)]

use rustix::mm::{MlockAllFlags, mlockall};
use std::io;

/// `PR_SET_IO_FLUSHER` of `linux/prctl.h` (Linux 5.6).
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// Tells the kernel that this thread is on the way to a disk: its allocations never wait for writeback.
/// Threads that it starts inherit this.
///
/// # Errors
/// `EPERM` without `CAP_SYS_RESOURCE`.
pub fn become_io_flusher() -> io::Result<()> {
    let (on, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // JUSTIFICATION: rustix does not offer this option.
    // SAFETY: the option takes one integer and no pointers.
    let result = unsafe { libc::prctl(PR_SET_IO_FLUSHER, on, unused, unused, unused) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Keeps this process's memory, present and future, from being swapped out. Pages are locked once they are touched.
///
/// # Errors
/// `EPERM` or `ENOMEM` when the limit on locked memory is too low.
pub fn lock_memory() -> io::Result<()> {
    Ok(mlockall(
        MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT,
    )?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_root_process_can_prepare_itself() {
        if rustix::process::geteuid().is_root() {
            super::lock_memory().unwrap();
            // A container may withhold the right to it.
            let refused = super::become_io_flusher().err().map(|why| why.kind());
            assert!(matches!(
                refused,
                None | Some(std::io::ErrorKind::PermissionDenied)
            ));
        }
    }
}
