//! Seals and opens datagrams with the keys of a session: authenticated, encrypted, never accepted twice.
//!
//! ```text
//! 0     4         6          8        16         24              length - 16
//! | magic | version | reserved | key id | counter | sealed payload | tag |
//! ```
//! Integers are little-endian. The first 24 bytes are clear and authenticated with the payload. Each direction of a
//! session has its own key; the counter, which never repeats under a key, is the nonce. Nothing of the payload is looked
//! at before the tag was checked (ChaCha20-Poly1305, RFC 8439).

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use std::collections::VecDeque;
use std::fmt;
use wire::SessionId;
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Longest datagram, in bytes: fits an Ethernet frame with IPv6, UDP and a tunnel's header.
pub const DATAGRAM_MAX: usize = 1_400;
/// Longest payload, in bytes. A longer one is not sealed.
pub const PAYLOAD_MAX: usize = DATAGRAM_MAX - HEADER_BYTES - TAG_BYTES;
/// Version of the datagram's format.
pub const VERSION: u16 = 1;
/// How far back, in datagrams, one that arrives late is still accepted.
pub const WINDOW: u64 = 2_048;
/// Sessions that are kept per peer: the newest, which sends, and those before it. Two handshakes may cross when both
/// sides start at once, each on top of a session that still carries traffic; hence three.
pub const SESSIONS_MAX: usize = 3;

const MAGIC: [u8; 4] = *b"BKSD";
const HEADER_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
/// Far below where the cipher's bounds matter (RFC 8439 §2.8); beyond it a new handshake is due.
const COUNTER_MAX: u64 = 1 << 48;

const _: () = assert!(PAYLOAD_MAX >= wire::control::DATAGRAM_MAX);
const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    version: U16,
    reserved: U16,
    key: U64,
    counter: U64,
}

/// What two nodes agreed on in a handshake. Lives in memory only; `Debug` shows no key.
pub struct SessionKeys {
    /// Names the session on the wire.
    pub id: SessionId,
    /// The other node, as its certificate says.
    pub peer: String,
    send: [u8; KEY_BYTES],
    receive: [u8; KEY_BYTES],
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionKeys")
            .field("id", &self.id)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl SessionKeys {
    pub(crate) const fn new(
        id: SessionId,
        peer: String,
        send: [u8; KEY_BYTES],
        receive: [u8; KEY_BYTES],
    ) -> Self {
        Self {
            id,
            peer,
            send,
            receive,
        }
    }
}

/// A payload was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Longer than [`PAYLOAD_MAX`].
    #[error("a payload of {bytes} bytes does not fit in a datagram")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The session sent 2^48 datagrams: a new handshake is due.
    #[error("the session's counter is used up")]
    UsedUp,
    /// There is no session with the peer.
    #[error("there is no session with the peer")]
    NoSession,
}

/// A datagram was dropped. All are normal on a hostile network; count them, do not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Too short, too long, or not a datagram of ours.
    #[error("not a sealed datagram")]
    Malformed,
    /// Of another protocol version.
    #[error("sealed with protocol version {0}")]
    Version(u16),
    /// No session has this key id: this side or the peer restarted. Start a handshake, at a limited rate.
    #[error("sealed with an unknown key")]
    UnknownKey(SessionId),
    /// Seen before, or too old to tell.
    #[error("seen before or too old")]
    Replayed,
    /// The tag is wrong.
    #[error("not authentic")]
    Forged,
}

/// The key id in a datagram's clear header. Not authenticated: good only for finding the session.
///
/// # Errors
/// [`OpenError::Malformed`] or [`OpenError::Version`].
pub fn key_of(datagram: &[u8]) -> Result<SessionId, OpenError> {
    Ok(SessionId(parse_header(datagram)?.key.get()))
}

fn parse_header(datagram: &[u8]) -> Result<Header, OpenError> {
    if datagram.len() < HEADER_BYTES + TAG_BYTES || datagram.len() > DATAGRAM_MAX {
        return Err(OpenError::Malformed);
    }
    let (header, _) = Header::read_from_prefix(datagram).map_err(|_| OpenError::Malformed)?;
    if header.magic != MAGIC {
        return Err(OpenError::Malformed);
    }
    if header.version.get() != VERSION {
        return Err(OpenError::Version(header.version.get()));
    }
    Ok(header)
}

/// None only for a key of the wrong length, which the type excludes.
fn cipher(key: &[u8; KEY_BYTES]) -> Option<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, key)
        .ok()
        .map(LessSafeKey::new)
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Seals datagrams of one direction of one session.
pub struct Sealer {
    id: SessionId,
    key: LessSafeKey,
    /// Counter of the next datagram. Invariant: never used before under this key.
    next: u64,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("id", &self.id)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Sealer {
    fn new(id: SessionId, key: &[u8; KEY_BYTES]) -> Option<Self> {
        Some(Self {
            id,
            key: cipher(key)?,
            next: 0,
        })
    }

    /// Makes a datagram of `payload`. Each copy for another link is sealed by itself, with a counter of its own.
    ///
    /// # Errors
    /// [`SealError::TooLong`], [`SealError::UsedUp`].
    pub fn seal(&mut self, payload: &[u8]) -> Result<Vec<u8>, SealError> {
        if payload.len() > PAYLOAD_MAX {
            return Err(SealError::TooLong {
                bytes: payload.len(),
            });
        }
        if self.next >= COUNTER_MAX {
            return Err(SealError::UsedUp);
        }
        let counter = self.next;
        self.next += 1;
        let header = Header {
            magic: MAGIC,
            version: U16::new(VERSION),
            reserved: U16::ZERO,
            key: U64::new(self.id.0),
            counter: U64::new(counter),
        };
        let mut datagram = Vec::with_capacity(HEADER_BYTES + payload.len() + TAG_BYTES);
        datagram.extend_from_slice(header.as_bytes());
        datagram.extend_from_slice(payload);
        let aad = Aad::from(header.as_bytes());
        let body = &mut datagram[HEADER_BYTES..];
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(counter), aad, body);
        datagram.extend_from_slice(tag.map_err(|_| SealError::UsedUp)?.as_ref());
        Ok(datagram)
    }
}

/// Opens datagrams of one direction of one session.
pub struct Opener {
    id: SessionId,
    key: LessSafeKey,
    seen: Window,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Opener {
    fn new(id: SessionId, key: &[u8; KEY_BYTES]) -> Option<Self> {
        Some(Self {
            id,
            key: cipher(key)?,
            seen: Window::new(),
        })
    }

    /// Opens a datagram in place and gives its payload.
    ///
    /// # Errors
    /// [`OpenError`]: the bytes must not be used then.
    pub fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<&'a [u8], OpenError> {
        let header = parse_header(datagram)?;
        if header.key.get() != self.id.0 {
            return Err(OpenError::UnknownKey(SessionId(header.key.get())));
        }
        let counter = header.counter.get();
        if !self.seen.is_new(counter) {
            return Err(OpenError::Replayed);
        }
        let aad = Aad::from(header.as_bytes());
        let body = &mut datagram[HEADER_BYTES..];
        let opened = self.key.open_in_place(nonce(counter), aad, body);
        let payload = opened.map_err(|_| OpenError::Forged)?;
        // Only an authentic counter may move the window.
        self.seen.mark(counter);
        Ok(payload)
    }
}

const WORDS: usize = 32;
const _: () = assert!(WORDS * 64 == 2_048 && WINDOW == 2_048);

/// Which counters were seen (the method of RFC 6479: whole words are cleared as the window moves).
#[derive(Debug)]
struct Window {
    /// The lowest counter that was not yet passed by the newest one seen.
    end: u64,
    /// Bit `counter % 2048` is set if a counter of the window was seen.
    seen: [u64; WORDS],
}

impl Window {
    const fn new() -> Self {
        Self {
            end: 0,
            seen: [0; WORDS],
        }
    }

    fn place(counter: u64) -> (usize, u64) {
        let bit = counter % WINDOW;
        (usize::try_from(bit / 64).unwrap_or(0), 1 << (bit % 64))
    }

    fn is_new(&self, counter: u64) -> bool {
        if counter >= COUNTER_MAX {
            return false;
        }
        if counter >= self.end {
            return true;
        }
        let (word, bit) = Self::place(counter);
        self.end - counter <= WINDOW && self.seen[word] & bit == 0
    }

    fn mark(&mut self, counter: u64) {
        let (word, bit) = Self::place(counter);
        if counter >= self.end {
            if counter - self.end >= WINDOW {
                self.seen = [0; WORDS];
            } else {
                for passed in self.end..=counter {
                    let (word, bit) = Self::place(passed);
                    self.seen[word] &= !bit;
                }
            }
            self.end = counter + 1;
        }
        self.seen[word] |= bit;
    }
}

#[derive(Debug)]
struct Session {
    sealer: Sealer,
    opener: Opener,
}

/// All sessions with one peer: the newest sends, all that are kept receive.
#[derive(Debug, Default)]
pub struct PeerSessions {
    /// Newest first; at most [`SESSIONS_MAX`].
    sessions: VecDeque<Session>,
}

impl PeerSessions {
    /// No session yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            sessions: VecDeque::new(),
        }
    }

    /// Starts to use the keys of a finished handshake; the oldest session falls out.
    pub fn install(&mut self, keys: &SessionKeys) {
        let sealer = Sealer::new(keys.id, &keys.send);
        let opener = Opener::new(keys.id, &keys.receive);
        let (Some(sealer), Some(opener)) = (sealer, opener) else {
            return;
        };
        self.sessions.push_front(Session { sealer, opener });
        self.sessions.truncate(SESSIONS_MAX);
    }

    /// True if there is a session to send with.
    #[must_use]
    pub fn ready(&self) -> bool {
        !self.sessions.is_empty()
    }

    /// True if this key id belongs to a session with this peer.
    #[must_use]
    pub fn knows(&self, key: SessionId) -> bool {
        self.sessions.iter().any(|session| session.opener.id == key)
    }

    /// Seals with the newest session.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(&mut self, payload: &[u8]) -> Result<Vec<u8>, SealError> {
        self.sessions
            .front_mut()
            .ok_or(SealError::NoSession)?
            .sealer
            .seal(payload)
    }

    /// Opens with the session that the datagram names.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<&'a [u8], OpenError> {
        let key = key_of(datagram)?;
        let session = self
            .sessions
            .iter_mut()
            .find(|session| session.opener.id == key);
        session
            .ok_or(OpenError::UnknownKey(key))?
            .opener
            .open(datagram)
    }
}

#[cfg(test)]
mod tests;
