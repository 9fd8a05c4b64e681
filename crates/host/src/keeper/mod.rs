//! The guardian: a small process per group that outlives the daemon.
//!
//! It holds what must not close when the daemon dies (the `/dev/fuse` descriptor, with what was negotiated on it), and
//! it holds the lease's end. A daemon that dies comes back and takes its descriptors up again. A daemon that does not
//! come back, or hangs, cannot renew the lease: when it has run out and the grace with it, the keeper tears the group
//! down in the order that it was told (kill the processes, drop the address, break the device, unmount, detach), and
//! says so to whoever connects later.
//!
//! One thread, one loop over `poll(2)`, a timer on `CLOCK_BOOTTIME`, messages of one packet each over a Unix
//! socket (`SOCK_SEQPACKET`), only from processes of the same user. [`serve`] is the process, [`Client`] the daemon's side.
//!
//! The keeper does not protect the data (epochs do) nor the address by itself (the kernel's packet filter does, R12): it
//! ends what would otherwise hang on a node that has lost its right to serve.

mod client;
mod message;
mod packet;
mod server;
mod teardown;

pub use client::{Client, ClientError};
pub use message::{Item, Lease, Overview, Step, StepReport, TornDown};
pub use server::{ServeError, serve};

/// The longest name of an item, in bytes.
pub const NAME_MAX: usize = 200;

/// The largest blob beside a descriptor, in bytes.
pub const BLOB_MAX: usize = 16 << 10;

/// Items that one keeper holds; more are refused.
pub const ITEMS_MAX: usize = 64;

/// Steps of a teardown; more are refused.
pub const STEPS_MAX: usize = 64;

#[cfg(test)]
mod tests;
