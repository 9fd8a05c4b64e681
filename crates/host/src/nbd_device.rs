//! Block devices of the kernel's NBD client, `/dev/nbdN`: attached over netlink, served by this process through Unix sockets.
//!
//! A device outlives its server. When the sockets close, the kernel keeps requests for [`PATIENCE`], and a new server takes
//! the device over by [`reconnect`]; the kernel then sends again what was not answered. It looks for such requests only when
//! their timer goes off, so the timer is set to [`LOOK`].
//!
//! One connection, not several: with one and without a time limit the kernel never gives a connection up because an answer is
//! late, which with several it does. And one engine thread answers all of them anyway.
//!
//! Whose a device is says its backend identifier, which it shows in `/sys/block/nbdN/backend` (Linux 5.14).
//!
//! Source: `include/uapi/linux/nbd-netlink.h`, `drivers/block/nbd.c` of the Linux kernel.

use crate::netlink::{Generic, Message, NetlinkError};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

const FAMILY: &str = "nbd";
const VERSION: u8 = 1;

const CMD_CONNECT: u8 = 1;
const CMD_DISCONNECT: u8 = 2;
const CMD_RECONFIGURE: u8 = 3;

const ATTR_INDEX: u16 = 1;
const ATTR_SIZE_BYTES: u16 = 2;
const ATTR_BLOCK_SIZE_BYTES: u16 = 3;
const ATTR_TIMEOUT: u16 = 4;
const ATTR_SERVER_FLAGS: u16 = 5;
const ATTR_SOCKETS: u16 = 7;
const ATTR_DEAD_CONN_TIMEOUT: u16 = 8;
const ATTR_BACKEND_IDENTIFIER: u16 = 10;
const SOCK_ITEM: u16 = 1;
const SOCK_FD: u16 = 1;

/// `NBD_FLAG_HAS_FLAGS`, `…SEND_FLUSH`, `…SEND_FUA`, `…SEND_TRIM`, `…SEND_WRITE_ZEROES`.
const SERVER_FLAGS: u64 = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6;

/// How long a device without a server keeps its requests before it fails them. A group that is not served for so long is torn
/// down by its keeper long before.
pub const PATIENCE: Duration = Duration::from_secs(3600);

/// How often the kernel looks at a request that is not answered: if its connection was replaced, it is sent again.
const LOOK: Duration = Duration::from_millis(500);

/// What is attached.
#[derive(Clone, Copy, Debug)]
pub struct Spec<'a> {
    /// Whose it is.
    pub identity: &'a str,
    /// In bytes.
    pub size: u64,
    /// Smallest unit of reads and writes, in bytes.
    pub block: u32,
}

/// Whether this kernel can attach NBD devices, and shows whose they are. Loads nothing.
///
/// # Errors
/// The reason why not.
pub fn probe() -> io::Result<()> {
    open().map(drop)
}

/// Attaches a free device to the other end of `sockets`, which has to be in the transmission phase already; returns its number.
///
/// # Errors
/// When there is no NBD in this kernel, no device is free, or the kernel refuses the sockets.
pub fn connect(spec: Spec<'_>, sockets: &[BorrowedFd<'_>]) -> io::Result<u32> {
    let mut index = None;
    let fill = |message: Message| {
        let message = message
            .attribute(ATTR_SIZE_BYTES, &spec.size.to_ne_bytes())
            .attribute(ATTR_BLOCK_SIZE_BYTES, &u64::from(spec.block).to_ne_bytes())
            // Not: give a connection up when an answer is late.
            .attribute(ATTR_TIMEOUT, &0_u64.to_ne_bytes())
            .attribute(ATTR_DEAD_CONN_TIMEOUT, &PATIENCE.as_secs().to_ne_bytes())
            .attribute(ATTR_SERVER_FLAGS, &SERVER_FLAGS.to_ne_bytes())
            .text(ATTR_BACKEND_IDENTIFIER, spec.identity);
        with_sockets(message, sockets)
    };
    let mut netlink = open()?;
    let take = |kind, payload: &[u8]| {
        if kind == ATTR_INDEX {
            index = payload.try_into().ok().map(u32::from_ne_bytes);
        }
    };
    netlink
        .command("attach an NBD device", CMD_CONNECT, fill, take)
        .map_err(plain)?;
    let index = index.ok_or(io::ErrorKind::InvalidData)?;
    if let Err(error) = look_often(index) {
        tracing::warn!(%error, index, "requests of a daemon that died will wait for half a minute");
    }
    Ok(index)
}

/// Gives a device whose server is gone new sockets.
///
/// # Errors
/// When it is not attached, or is somebody else's.
pub fn reconnect(index: u32, identity: &str, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let fill = |message: Message| {
        let message = message
            .attribute(ATTR_INDEX, &index.to_ne_bytes())
            .text(ATTR_BACKEND_IDENTIFIER, identity);
        with_sockets(message, sockets)
    };
    let mut netlink = open()?;
    netlink
        .command("reconnect an NBD device", CMD_RECONFIGURE, fill, |_, _| {})
        .map_err(plain)
}

/// Detaches a device; what is under way on it, and what comes until its users are gone, fails. Fine if it is not attached.
///
/// # Errors
/// What the kernel says.
pub fn disconnect(index: u32) -> io::Result<()> {
    let fill = |message: Message| message.attribute(ATTR_INDEX, &index.to_ne_bytes());
    let mut netlink = open()?;
    netlink
        .command("detach an NBD device", CMD_DISCONNECT, fill, |_, _| {})
        .map_err(plain)
}

/// The attached devices with this identity.
///
/// # Errors
/// When `/sys/block` cannot be read.
pub fn find(identity: &str) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("nbd"));
        let Some(index) = number.and_then(|number| number.parse().ok()) else {
            continue;
        };
        let backend = fs::read_to_string(entry.path().join("backend")).unwrap_or_default();
        if backend.trim_end_matches('\n') == identity {
            found.push(index);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// `/dev/nbdN`.
#[must_use]
pub fn path(index: u32) -> PathBuf {
    PathBuf::from(format!("/dev/nbd{index}"))
}

fn open() -> io::Result<Generic> {
    Generic::open(FAMILY, VERSION).map_err(plain)
}

/// What the kernel said, without what was asked: the callers' names say that.
fn plain(error: NetlinkError) -> io::Error {
    match error.errno() {
        Some(errno) => errno.into(),
        None => io::Error::other(error),
    }
}

fn look_often(index: u32) -> io::Result<()> {
    let file = format!("/sys/block/nbd{index}/queue/io_timeout");
    fs::write(Path::new(&file), LOOK.as_millis().to_string())
}

fn with_sockets(message: Message, sockets: &[BorrowedFd<'_>]) -> Message {
    message.nested(ATTR_SOCKETS, |mut list| {
        for socket in sockets {
            // The kernel's type is u32, its use an int; a descriptor is never negative.
            let fd = socket.as_raw_fd().to_ne_bytes();
            list = list.nested(SOCK_ITEM, |item| item.attribute(SOCK_FD, &fd));
        }
        list
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_device_is_of_an_unknown_identity() {
        assert_eq!(find("backstay: nobody").unwrap(), Vec::<u32>::new());
        assert_eq!(path(3), Path::new("/dev/nbd3"));
    }
}
