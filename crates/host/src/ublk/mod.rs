//! ublk: block devices, `/dev/ublkbN`, whose requests the kernel hands to this process through io_uring.
//!
//! ```text
//!  /dev/ublkbN ──► slot of the queue ──Op::Ublk completes──► engine ──Op::Ublk answers and waits for the next──► slot
//! ```
//! [`Control`] makes, finds and ends devices; [`Queue`] is what the engine's [`Ring`](crate::ring::Ring) works on. A device has
//! one queue, because one thread serves it.
//!
//! The device outlives the daemon: it is made with `UBLK_F_USER_RECOVERY` and `UBLK_F_USER_RECOVERY_REISSUE`. When the daemon
//! dies, the kernel holds all requests back, those that were handed over and not answered included; a new daemon takes the
//! device over ([`Control::begin_recovery`], a new [`Queue`], [`Control::end_recovery`]) and gets all of them. One that was
//! carried out before is a write of the same bytes to the same place whose sender has not been told, so doing it again is harmless.
//!
//! Own code and not a library: the one at hand generates its bindings with libclang at build time and brings its own loop, and
//! a slot's operation has to be one of our ring's. Kernel 6.0 has ublk, 6.5 everything that is used here.
//!
//! Source: `include/uapi/linux/ublk_cmd.h`, `Documentation/block/ublk.rst`, `drivers/block/ublk_drv.c` of the Linux kernel.

mod abi;
mod control;
mod queue;

pub use control::{Control, Info, Spec, State};
pub(crate) use queue::encode;
pub use queue::{Command, Queue, Request};

use std::path::PathBuf;
use std::time::Duration;

/// Requests of a device under way at most; more wait in the kernel.
pub const DEPTH: u16 = 128;

/// The largest read or write, in bytes.
pub const TRANSFER_MAX: u32 = 256 << 10;

/// The largest range that is zeroed or discarded at once, in bytes.
pub const ZERO_MAX: u32 = 32 << 20;

/// How often the kernel looks whether the server of a request that takes long is alive. Until Linux 6.15 this is the only way in
/// which it notices the death of one that had taken a request from every slot.
const LOOK: Duration = Duration::from_millis(500);

/// `/dev/ublkbN`.
#[must_use]
pub fn path(id: u32) -> PathBuf {
    PathBuf::from(format!("/dev/ublkb{id}"))
}

/// The number under which a device is known to be of the owner `name`: FNV-1a, 64 bits.
#[must_use]
pub fn identity(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_those_of_the_published_function() {
        assert_eq!(identity(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(identity("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn devices_are_named_by_their_number() {
        assert_eq!(path(7).as_os_str(), "/dev/ublkb7");
    }
}
