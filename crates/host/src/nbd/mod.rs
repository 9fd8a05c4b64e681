//! The NBD server's side of the protocol, over byte buffers.
//!
//! [`Connection`] is a pure state machine: bytes in, requests and bytes out; it knows no socket and can be fuzzed.
//! [`Stream`] joins it to a non-blocking Unix socket and moves payloads without a second copy.
//!
//! Spoken: fixed newstyle negotiation with structured replies and the `base:allocation` context, and the commands read,
//! write, flush, trim, write-zeroes, cache and block-status. Source: the NBD protocol description (`proto.md`) of the
//! NetworkBlockDevice project.

mod connection;
mod cursor;
mod handshake;
mod proto;
mod request;
mod stream;

pub use connection::{Closed, Connection, Event, Header};
pub use handshake::{Export, Offer, Refusal};
pub use proto::ErrorCode;
pub use request::{Kind, Request};
pub use stream::{Incoming, Stream};

/// The largest payload of one read or write, in bytes; advertised, and larger requests are refused.
pub const PAYLOAD_MAX: u32 = 32 << 20;

/// Requests of one connection that are being worked on; more wait in the socket.
pub const REQUESTS_MAX: usize = 128;

const _: () = assert!(PAYLOAD_MAX as usize <= crate::ring::BUF_MAX);

#[cfg(test)]
mod tests;
