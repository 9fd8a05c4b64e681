//! One client's connection as a pure state machine.
//!
//! ```text
//! Greeted ──client flags──▶ Negotiating ──go / export name──▶ Transmitting ⇄ Payload
//!    └──────────┬───────────────┴─────────────────┬─────────────────┘
//!               ▼ garbage                         ▼ abort, disconnect
//!             Ended ◀─────────────────────────────┘
//! ```

use super::cursor::Cursor;
use super::handshake::{Agreed, Export, Handshake, Offer, Verdict, reply};
use super::proto::{self, ErrorCode};
use super::request::{self, HEADER_LEN, Kind, Parsed, Request};
use crate::disk::Extent;

/// The id under which `base:allocation` is reported.
pub(super) const ALLOCATION_ID: u32 = 1;

/// Data of one option, in bytes; more is skipped and refused.
const OPTION_MAX: u32 = 64 << 10;

/// Data of one option that is skipped at all, in bytes; more ends the connection.
const OPTION_SKIP_MAX: u32 = 1 << 20;

/// Options of one negotiation; more end the connection.
const OPTIONS_MAX: u32 = 1000;

/// Runs in one block-status reply; the client asks again for the rest.
const EXTENTS_MAX: usize = 1024;

/// What a connection has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Negotiation is over: requests follow.
    Ready,
    /// A request. After a [`Kind::Write`] nothing more comes until its payload was taken.
    Request(Request),
    /// The end; nothing more comes.
    Closed(Closed),
}

/// Why a connection ended from the protocol's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The client said so.
    ByClient,
    /// The export was refused to a client that can only be told so by closing.
    Refused,
    /// The client is gone without a word.
    Vanished,
    /// What came was not NBD.
    Garbage(&'static str),
}

#[derive(Debug)]
enum State {
    /// The greeting is out; the client's flags are awaited.
    Greeted(Handshake),
    Negotiating {
        handshake: Handshake,
        options: u32,
    },
    Transmitting(Export),
    /// The payload of a write is awaited.
    Payload {
        export: Export,
        left: u32,
    },
    Ended,
}

/// The header of a reply: bytes to be sent before the payload, if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header(Vec<u8>);

impl Header {
    /// The bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// A connection. Feed it by [`Connection::input`], then drain [`Connection::poll`].
#[derive(Debug)]
pub struct Connection {
    state: State,
    /// What was negotiated; replies to the last requests need it after the end, too.
    agreed: Agreed,
    input: Vec<u8>,
    /// Bytes of `input` that are used up.
    used: usize,
    /// Bytes to be dropped: the payload of what was refused.
    skip: u32,
    output: Vec<u8>,
}

impl Connection {
    /// A new connection; its greeting is in [`Connection::take_output`].
    #[must_use]
    pub fn new(offer: Offer) -> Self {
        let mut output = proto::GREETING.to_be_bytes().to_vec();
        output.extend(proto::OPTION_MAGIC.to_be_bytes());
        output.extend((proto::FLAG_FIXED_NEWSTYLE | proto::FLAG_NO_ZEROES).to_be_bytes());
        let state = State::Greeted(Handshake::new(offer));
        let agreed = Agreed::default();
        Self {
            state,
            agreed,
            input: Vec::new(),
            used: 0,
            skip: 0,
            output,
        }
    }

    /// A connection to a client that needs no negotiation, because it was told everything otherwise: the kernel's.
    #[must_use]
    pub fn negotiated(export: Export) -> Self {
        Self {
            state: State::Transmitting(export),
            agreed: Agreed::default(),
            input: Vec::new(),
            used: 0,
            skip: 0,
            output: Vec::new(),
        }
    }

    /// Bytes from the client. Everything that is complete has to be polled before the next input, so that no more than
    /// one read is ever buffered.
    pub fn input(&mut self, bytes: &[u8]) {
        self.input.drain(..self.used);
        self.used = 0;
        self.input.extend_from_slice(bytes);
    }

    /// Bytes for the client: negotiation, and replies that need no engine.
    #[must_use]
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// What follows from the input so far.
    pub fn poll(&mut self) -> Option<Event> {
        loop {
            self.drop_skipped();
            if self.skip > 0 {
                return None;
            }
            let event = match std::mem::replace(&mut self.state, State::Ended) {
                State::Greeted(handshake) => self.on_client_flags(handshake)?,
                State::Negotiating { handshake, options } => self.on_option(handshake, options)?,
                State::Transmitting(export) => self.on_request(export)?,
                State::Payload { export, left: 0 } => {
                    self.state = State::Transmitting(export);
                    None
                }
                waiting @ State::Payload { .. } => {
                    self.state = waiting;
                    return None;
                }
                State::Ended => return None,
            };
            if event.is_some() {
                return event;
            }
        }
    }

    /// Bytes of the current write's payload that have not been taken.
    #[must_use]
    pub fn payload_left(&self) -> u32 {
        match self.state {
            State::Payload { left, .. } => left,
            State::Greeted(_)
            | State::Negotiating { .. }
            | State::Transmitting(_)
            | State::Ended => 0,
        }
    }

    /// Moves payload that came with earlier input into `target`; returns how much.
    pub fn take_payload(&mut self, target: &mut [u8]) -> usize {
        let left = usize::try_from(self.payload_left()).unwrap_or(0);
        let from = &self.input[self.used..];
        let count = left.min(from.len()).min(target.len());
        target[..count].copy_from_slice(&from[..count]);
        self.used += count;
        self.payload_received(count);
        count
    }

    /// Payload that was read from the client past this buffer. Only allowed while no input is buffered.
    ///
    /// # Panics
    /// If it is more than [`Connection::payload_left`].
    pub fn payload_received(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        let State::Payload { left, .. } = &mut self.state else {
            panic!("payload of {count} bytes that nobody asked for");
        };
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        assert!(
            count <= *left,
            "payload of {count} bytes where {left} are left"
        );
        *left -= count;
    }

    /// The reply to a request that succeeded and has no data.
    #[must_use]
    pub const fn done(&self, cookie: u64) -> [u8; SIMPLE_REPLY_BYTES] {
        simple_reply(0, cookie)
    }

    /// What goes before the data of a read that succeeded.
    #[must_use]
    pub fn data(&self, cookie: u64, offset: u64, len: u32) -> Header {
        if !self.agreed.structured {
            return Header(simple_reply(0, cookie).to_vec());
        }
        let mut bytes = chunk(proto::CHUNK_OFFSET_DATA, cookie, len.saturating_add(8));
        bytes.extend(offset.to_be_bytes());
        Header(bytes)
    }

    /// The reply to a request that failed; `text` reaches the client where structured replies were negotiated.
    #[must_use]
    pub fn error(&self, request: &Request, error: ErrorCode, text: &str) -> Header {
        let read = matches!(request.kind, Kind::Read { .. } | Kind::BlockStatus { .. });
        Header(self.error_bytes(request.cookie, read, error, text))
    }

    /// The reply to a block-status request: runs from its offset on, at least one.
    #[must_use]
    pub fn block_status(&self, cookie: u64, extents: &[Extent]) -> Header {
        let extents = &extents[..extents.len().min(EXTENTS_MAX)];
        let mut body = ALLOCATION_ID.to_be_bytes().to_vec();
        for extent in extents {
            let state = if extent.hole {
                proto::STATE_HOLE | proto::STATE_ZERO
            } else {
                0
            };
            body.extend(u32::try_from(extent.len).unwrap_or(u32::MAX).to_be_bytes());
            body.extend(state.to_be_bytes());
        }
        let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let mut bytes = chunk(proto::CHUNK_BLOCK_STATUS, cookie, len);
        bytes.extend(body);
        Header(bytes)
    }

    fn error_bytes(&self, cookie: u64, read: bool, error: ErrorCode, text: &str) -> Vec<u8> {
        if !(read && self.agreed.structured) {
            return simple_reply(error.number(), cookie).to_vec();
        }
        let text = &text.as_bytes()[..text.len().min(200)];
        let len = u16::try_from(text.len()).unwrap_or(0);
        let mut bytes = chunk(proto::CHUNK_ERROR, cookie, u32::from(len) + 6);
        bytes.extend(error.number().to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes.extend(text);
        bytes
    }

    /// `None`: wait for more. `Some(None)`: go on.
    fn on_client_flags(&mut self, mut handshake: Handshake) -> Option<Option<Event>> {
        let Some(raw) = self.take::<4>() else {
            self.state = State::Greeted(handshake);
            return None;
        };
        let known = u32::from(proto::FLAG_FIXED_NEWSTYLE | proto::FLAG_NO_ZEROES);
        let flags = u32::from_be_bytes(raw);
        if flags & !known != 0 {
            return Some(Some(Event::Closed(Closed::Garbage("unknown client flags"))));
        }
        handshake.no_zeroes = flags & u32::from(proto::FLAG_NO_ZEROES) != 0;
        self.state = State::Negotiating {
            handshake,
            options: 0,
        };
        Some(None)
    }

    /// `None`: wait for more. `Some(None)`: go on.
    fn on_option(&mut self, mut handshake: Handshake, options: u32) -> Option<Option<Event>> {
        let garbage = |why| Some(Some(Event::Closed(Closed::Garbage(why))));
        let mut header = Cursor::new(&self.input[self.used..]);
        let (Some(magic), Some(code), Some(len)) = (header.u64(), header.u32(), header.u32())
        else {
            self.state = State::Negotiating { handshake, options };
            return None;
        };
        if magic != proto::OPTION_MAGIC {
            return garbage("wrong option magic");
        }
        if options >= OPTIONS_MAX || len > OPTION_SKIP_MAX {
            return garbage("negotiation is too long");
        }
        if len > OPTION_MAX {
            self.used += 16;
            self.skip = len;
            reply(
                &mut self.output,
                code,
                proto::REP_ERR_TOO_BIG,
                b"option is too long",
            );
            self.state = State::Negotiating {
                handshake,
                options: options + 1,
            };
            return Some(None);
        }
        let Some(data) = usize::try_from(len).ok().and_then(|len| header.bytes(len)) else {
            self.state = State::Negotiating { handshake, options };
            return None;
        };
        let verdict = handshake.on_option(code, data, &mut self.output);
        self.used += 16 + data.len();
        match verdict {
            Verdict::Continue => {
                self.state = State::Negotiating {
                    handshake,
                    options: options + 1,
                };
                Some(None)
            }
            Verdict::Transmit(export) => {
                self.agreed = handshake.agreed();
                self.state = State::Transmitting(export);
                Some(Some(Event::Ready))
            }
            Verdict::Close if code == 2 => Some(Some(Event::Closed(Closed::ByClient))),
            Verdict::Close => Some(Some(Event::Closed(Closed::Refused))),
        }
    }

    /// `None`: wait for more. `Some(None)`: go on.
    fn on_request(&mut self, export: Export) -> Option<Option<Event>> {
        let Some(header) = self.take::<HEADER_LEN>() else {
            self.state = State::Transmitting(export);
            return None;
        };
        let parsed = request::parse(&header, &export, self.agreed);
        self.state = match &parsed {
            Parsed::Request(Request {
                kind: Kind::Write { len, .. },
                ..
            }) => State::Payload { export, left: *len },
            Parsed::Disconnect | Parsed::Garbage(_) => State::Ended,
            Parsed::Request(_) | Parsed::Nothing { .. } | Parsed::Refused { .. } => {
                State::Transmitting(export)
            }
        };
        match parsed {
            Parsed::Request(request) => Some(Some(Event::Request(request))),
            Parsed::Nothing { cookie } => {
                self.output.extend(simple_reply(0, cookie));
                Some(None)
            }
            Parsed::Refused {
                cookie,
                read,
                skip,
                error,
                text,
            } => {
                self.skip = skip;
                let bytes = self.error_bytes(cookie, read, error, text);
                self.output.extend(bytes);
                Some(None)
            }
            Parsed::Disconnect => Some(Some(Event::Closed(Closed::ByClient))),
            Parsed::Garbage(why) => Some(Some(Event::Closed(Closed::Garbage(why)))),
        }
    }

    fn take<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        let taken = *self.input[self.used..].first_chunk()?;
        self.used += LEN;
        Some(taken)
    }

    fn drop_skipped(&mut self) {
        let buffered = self.input.len() - self.used;
        let count = usize::try_from(self.skip)
            .unwrap_or(usize::MAX)
            .min(buffered);
        self.used += count;
        self.skip -= u32::try_from(count).unwrap_or(0);
    }
}

/// Length of a reply without data.
const SIMPLE_REPLY_BYTES: usize = 16;

const fn simple_reply(error: u32, cookie: u64) -> [u8; SIMPLE_REPLY_BYTES] {
    let mut bytes = [0; SIMPLE_REPLY_BYTES];
    let (magic, rest) = bytes.split_at_mut(4);
    let (number, id) = rest.split_at_mut(4);
    magic.copy_from_slice(&proto::SIMPLE_REPLY_MAGIC.to_be_bytes());
    number.copy_from_slice(&error.to_be_bytes());
    id.copy_from_slice(&cookie.to_be_bytes());
    bytes
}

/// The header of the only chunk of a structured reply.
fn chunk(kind: u16, cookie: u64, len: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    bytes.extend(proto::STRUCTURED_REPLY_MAGIC.to_be_bytes());
    bytes.extend(proto::CHUNK_DONE.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes
}
