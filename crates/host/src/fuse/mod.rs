//! One mirror as one file: a FUSE file system with a single regular file, `volume`, of fixed size.
//!
//! A loop device on that file gives applications a block device without any kernel module of ours. [`Session`] is the
//! protocol as a pure state machine; [`Channel`] is `/dev/fuse`. Metadata is answered here; reads, writes, flushes and
//! deallocation go to the engine.
//!
//! The connection outlives the daemon: the keeper holds a copy of the descriptor together with the [`Negotiated`]
//! parameters. A restarted daemon adopts both and asks the kernel to send again what the dead one had not answered
//! (`FUSE_NOTIFY_RESEND`, Linux 6.9). A request that is sent again may have been carried out already; it is a write of
//! the same bytes to the same place, and whoever waited for it has not been told, so doing it twice is harmless.
//!
//! Source: `include/uapi/linux/fuse.h` of the Linux kernel, protocol 7.41.

mod abi;
mod channel;
mod session;

pub use channel::{Channel, Incoming};
pub use session::{Action, IoKind, IoRequest, Negotiated, Session};

/// The file's name in the mounted directory.
pub const FILE_NAME: &str = "volume";

/// The largest read or write, in bytes.
pub const TRANSFER_MAX: u32 = 1 << 20;

/// Requests that the kernel has outstanding at most.
const BACKGROUND_MAX: u16 = 256;

#[cfg(test)]
mod tests;
