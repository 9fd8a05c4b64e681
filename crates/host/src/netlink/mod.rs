//! A small netlink requester: links and addresses ([`route`]), the batches of the address gate ([`crate::nft`]), and commands
//! of the generic families (the kernel's NBD devices).
//!
//! Own code rather than a crate: the gate's renewal needs raw nftables batches, for which the crates at hand are either
//! under the GPL or run `nft`; with its message builder there, links and addresses are 150 lines more, against four
//! crates of a general netlink stack. Everything is checked for length; the kernel's answers are parsed, not trusted.

mod generic;
mod message;
pub mod route;

pub(crate) use generic::Generic;

pub(crate) use message::{Message, attributes};

use message::Reply;
use rustix::io::Errno;
use rustix::net::netlink::{GENERIC, NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The kernel answers at once; a longer wait means that the answer was lost.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Receive buffer in bytes. The kernel's dump messages are at most 32 KiB each.
const BUFFER_BYTES: usize = 64 * 1024;
/// Most answers read for one request. More means that the kernel talks nonsense.
const ANSWERS_MAX: usize = 65_536;

/// Which part of the kernel a socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Links, addresses.
    Route,
    /// nftables.
    Netfilter,
    /// Families that are found by name.
    Generic,
}

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket failed.
    #[error("cannot {doing} a netlink socket")]
    Socket {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The kernel refused the request.
    #[error("the kernel refused to {doing}")]
    Refused {
        /// What was asked.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The answer is cut short or senseless.
    #[error("the kernel's answer is malformed")]
    Malformed,
    /// There is no such interface.
    #[error("there is no interface {name}")]
    NoInterface {
        /// Its name or address.
        name: String,
    },
}

impl NetlinkError {
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { source, .. } => Errno::from_io_error(source),
            Self::Socket { .. } | Self::Malformed | Self::NoInterface { .. } => None,
        }
    }
}

/// One netlink socket, of the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    pub(crate) fn open(family: Family) -> Result<Self, NetlinkError> {
        let fail = |doing| {
            move |e: Errno| NetlinkError::Socket {
                doing,
                source: e.into(),
            }
        };
        let protocol = match family {
            // Protocol 0 (NETLINK_ROUTE).
            Family::Route => None,
            Family::Netfilter => Some(NETFILTER),
            Family::Generic => Some(GENERIC),
        };
        let flags = SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)
            .map_err(fail("open"))?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0)).map_err(fail("bind"))?;
        set_socket_timeout(&fd, Timeout::Recv, Some(ANSWER_LIMIT)).map_err(fail("set up"))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Sends one request and waits for its acknowledgement.
    pub(crate) fn change(
        &mut self,
        doing: &'static str,
        message: Message,
    ) -> Result<(), NetlinkError> {
        let sequence = self.send(vec![message.acknowledged()])?;
        self.answers(doing, sequence, |_| Ok(())).map(drop)
    }

    /// Sends one request and hands each message of the answer to `take`, until it is acknowledged.
    pub(crate) fn ask(
        &mut self,
        doing: &'static str,
        message: Message,
        take: impl FnMut(&[u8]) -> Result<(), NetlinkError>,
    ) -> Result<(), NetlinkError> {
        let sequence = self.send(vec![message.acknowledged()])?;
        self.answers(doing, sequence, take).map(drop)
    }

    /// Sends one request for a list and hands each message of the answer to `take`.
    pub(crate) fn dump(
        &mut self,
        doing: &'static str,
        message: Message,
        take: impl FnMut(&[u8]) -> Result<(), NetlinkError>,
    ) -> Result<(), NetlinkError> {
        let sequence = self.send(vec![message.dump()])?;
        self.answers(doing, sequence, take).map(drop)
    }

    /// Sends several messages in one system call, so that the kernel takes them as one batch, and waits for the
    /// acknowledgement of the last but one (the last ends the batch and is not acknowledged).
    pub(crate) fn batch(
        &mut self,
        doing: &'static str,
        messages: Vec<Message>,
    ) -> Result<(), NetlinkError> {
        let end = self.send(messages)?;
        self.answers(doing, end.wrapping_sub(1), |_| Ok(()))
            .map(drop)
    }

    /// Gives the messages consecutive numbers; returns the last one's.
    fn send(&mut self, messages: Vec<Message>) -> Result<u32, NetlinkError> {
        let mut bytes = Vec::new();
        for message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            bytes.extend(message.finish(self.sequence));
        }
        self.drain();
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.fd, &bytes, SendFlags::empty(), &kernel).map_err(|e| {
            NetlinkError::Socket {
                doing: "write to",
                source: e.into(),
            }
        })?;
        Ok(self.sequence)
    }

    /// Throws away what is left of earlier answers: a failed batch gives several errors, and the first ends its request.
    fn drain(&self) {
        let mut scrap = [0; 16];
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        while rustix::net::recv(&self.fd, &mut scrap[..], flags).is_ok() {}
    }

    /// Reads answers until the one that ends request `last`; an error of any message of the same batch counts.
    fn answers(
        &mut self,
        doing: &'static str,
        last: u32,
        mut take: impl FnMut(&[u8]) -> Result<(), NetlinkError>,
    ) -> Result<(), NetlinkError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        for _ in 0..ANSWERS_MAX {
            let (length, _) =
                match rustix::net::recv(&self.fd, buffer.as_mut_slice(), RecvFlags::empty()) {
                    Ok(received) => received,
                    Err(Errno::INTR) => continue,
                    Err(e) => {
                        return Err(NetlinkError::Socket {
                            doing: "read from",
                            source: e.into(),
                        });
                    }
                };
            for reply in message::replies(&buffer[..length]) {
                match reply.ok_or(NetlinkError::Malformed)? {
                    Reply::Error { errno, .. } => {
                        return Err(NetlinkError::Refused {
                            doing,
                            source: errno.into(),
                        });
                    }
                    Reply::Done { sequence } if sequence == last => return Ok(()),
                    Reply::Data { sequence, body } if sequence == last => take(body)?,
                    Reply::Done { .. } | Reply::Data { .. } => {}
                }
            }
        }
        Err(NetlinkError::Malformed)
    }
}
