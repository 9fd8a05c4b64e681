//! The Linux edge: everything that touches the kernel, and all of the project's unsafe code.
//!
//! Each module wraps one facility in safe functions. None of them decides anything: decisions are the cores' task.

pub mod address;
pub mod cgroup;
pub mod clock;
pub mod disk;
pub mod freeze;
pub mod fuse;
pub mod handshake;
pub mod keeper;
pub mod lock;
pub mod loopdev;
pub mod memory;
pub mod mount;
pub mod nbd;
pub mod nbd_device;
pub mod netlink;
pub mod nft;
pub mod packet;
pub mod pki;
pub mod process;
pub mod ring;
pub mod seal;
pub mod slots;
pub mod tls;
pub mod ublk;

#[cfg(test)]
mod netns;
#[cfg(test)]
mod scratch;
