//! Building and taking apart netlink messages (`include/uapi/linux/netlink.h`).

use rustix::io::Errno;

const HEADER_BYTES: usize = 16;
const ATTRIBUTE_BYTES: usize = 4;

const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_ACK: u16 = 0x004;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_FIRST: u16 = 16;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// A request under construction. Integers of the header are in the machine's order; payloads are the caller's affair.
#[derive(Debug)]
pub(crate) struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// A request of `kind`, with further `NLM_F_…` flags.
    pub(crate) const fn new(kind: u16, flags: u16) -> Self {
        Self {
            kind,
            flags: flags | NLM_F_REQUEST,
            body: Vec::new(),
        }
    }

    pub(crate) const fn acknowledged(mut self) -> Self {
        self.flags |= NLM_F_ACK;
        self
    }

    pub(super) const fn dump(mut self) -> Self {
        self.flags |= NLM_F_DUMP;
        self
    }

    /// Appends the family's own header.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.body.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Appends one attribute. Ours are short; one beyond 64 KiB would be cut off by the kernel's check and refused.
    pub(crate) fn attribute(mut self, kind: u16, payload: &[u8]) -> Self {
        let length = u16::try_from(ATTRIBUTE_BYTES + payload.len()).unwrap_or(0);
        self.body.extend_from_slice(&length.to_ne_bytes());
        self.body.extend_from_slice(&kind.to_ne_bytes());
        self.body.extend_from_slice(payload);
        self.pad();
        self
    }

    /// Appends a zero-terminated string.
    pub(crate) fn text(self, kind: u16, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Appends an attribute that consists of attributes.
    pub(crate) fn nested(self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let nest = inner(Self::new(0, 0));
        self.attribute(kind | NLA_F_NESTED, &nest.body)
    }

    pub(super) fn finish(self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + self.body.len()).unwrap_or(0);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.body.len());
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&self.kind.to_ne_bytes());
        bytes.extend_from_slice(&self.flags.to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&0_u32.to_ne_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }

    fn pad(&mut self) {
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }
}

/// One message of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    /// The request failed.
    Error { errno: Errno },
    /// The request is acknowledged, or its dump is complete.
    Done { sequence: u32 },
    /// Part of a dump.
    Data { sequence: u32, body: &'a [u8] },
}

/// The messages in one datagram of the kernel; a `None` among them is malformed and the last.
pub(super) fn replies(bytes: &[u8]) -> impl Iterator<Item = Option<Reply<'_>>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((reply, length)) = parse_reply(rest) else {
            rest = &[];
            return Some(None);
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Some(reply))
    })
}

fn parse_reply(bytes: &[u8]) -> Option<(Reply<'_>, usize)> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let kind = u16_at(bytes, 4)?;
    let sequence = u32_at(bytes, 8)?;
    let body = bytes.get(HEADER_BYTES..length)?;
    let reply = match kind {
        NLMSG_ERROR | NLMSG_DONE => match code(body).unwrap_or(0) {
            0 => Reply::Done { sequence },
            errno => Reply::Error {
                errno: Errno::from_raw_os_error(errno),
            },
        },
        // No-operation and overrun carry nothing.
        0..NLMSG_FIRST => Reply::Data {
            sequence: 0,
            body: &[],
        },
        NLMSG_FIRST.. => Reply::Data { sequence, body },
    };
    Some((reply, length))
}

/// The kernel's error number, positive.
fn code(body: &[u8]) -> Option<i32> {
    let raw = i32::from_ne_bytes(body.get(..4)?.try_into().ok()?);
    raw.checked_neg().filter(|errno| (0..4_096).contains(errno))
}

/// The attributes after a family's header: kind without flags, payload. Stops at the first that does not fit.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & NLA_TYPE_MASK;
        let payload = rest.get(ATTRIBUTE_BYTES..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, payload))
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_back_as_they_were_written() {
        let message = Message::new(20, 0)
            .raw(&[1, 2, 3, 4])
            .text(1, "eth0")
            .nested(2, |inner| inner.attribute(3, &[9]).attribute(4, &[]));
        let bytes = message.finish(7);
        let all: Vec<_> = replies(&bytes).collect();
        let [Some(Reply::Data { sequence: 7, body })] = all.as_slice() else {
            panic!("{all:?}")
        };
        let read: Vec<_> = attributes(&body[4..]).collect();
        assert_eq!(read[0], (1, b"eth0\0".as_slice()));
        let inner: Vec<_> = attributes(read[1].1).collect();
        assert_eq!(inner, [(3, [9].as_slice()), (4, [].as_slice())]);
    }

    #[test]
    fn no_truncation_or_bit_flip_of_an_answer_panics() {
        let bytes = Message::new(20, 0).raw(&[0; 8]).text(1, "eth0").finish(7);
        for end in 0..bytes.len() {
            for reply in replies(&bytes[..end]) {
                assert_eq!(reply, None);
            }
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            for reply in replies(&flipped).flatten() {
                if let Reply::Data { body, .. } = reply {
                    assert!(attributes(body).count() <= body.len());
                }
            }
        }
    }
}
