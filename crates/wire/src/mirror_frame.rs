//! The mirror's byte stream between two replicas: fixed 64-byte headers, then payload.
//!
//! The active connects to the standby. Both send [`Kind::Hello`] first; nothing else is accepted before it. Every frame
//! carries the epoch and the session (R4).

use crate::digest::DIGEST_BYTES;
use crate::{ByteRange, Epoch, Generation, NodeId, SessionId, version::Features};
use serde::{Deserialize, Serialize};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"BSM1";
/// Size of a header, in bytes.
pub const HEADER_BYTES: usize = 64;
/// Largest payload, in bytes: one write of a front end.
pub const PAYLOAD_MAX: u32 = 32 << 20;
const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 4],
    header_crc: U32, // of the header with this field zero
    kind: u8,
    flags: u8,
    reserved: U16,
    payload_len: U32,
    payload_crc: U32,
    packed_len: U32,
    epoch: U64,
    session: U64,
    seq: U64,
    offset: U64,
    len: U64,
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// First frame of each side; payload: [`Hello`].
    Hello = 1,
    /// Payload is to be written to the range. Answered by [`Kind::Ack`] with the same sequence number.
    Write = 2,
    /// The range reads as zeros from now on (discard and write-zeroes alike, so that replicas stay equal).
    Zero = 3,
    /// Everything sent before it becomes durable. Answered by [`Kind::Ack`].
    Flush = 4,
    /// Done: the request of this sequence number.
    Ack = 5,
    /// Regions that become hot, little-endian u32 each: durable in the receiver's intent log before a write into them.
    IntentAdd = 6,
    /// Regions that went cold. Payload: a little-endian u32 with the bit of each node that surely has them durably, then the regions.
    IntentDrop = 7,
    /// Start of a resync: the receiver marks itself inconsistent durably. Answered by [`Kind::Ack`].
    ResyncStart = 8,
    /// End of a resync: the receiver flushes everything sent before it, forgets its own marks and intents from before the
    /// session, and marks itself consistent durably. Answered by [`Kind::Ack`].
    ResyncCommit = 9,
    /// Asks for the range's content (a read error at the sender). Answered by [`Kind::Data`] or [`Kind::Unreadable`].
    Read = 10,
    /// Answer to [`Kind::Read`].
    Data = 11,
    /// Answer to [`Kind::Read`] and [`Kind::Compare`]: the range cannot be read here either.
    Unreadable = 12,
    /// The session is refused or ends; payload: [`Refuse`].
    Goodbye = 13,
    /// Is the range's content this? Payload: its [`Digest`](crate::digest::Digest). Answered by [`Kind::Ack`] if it is, by
    /// [`Kind::Differs`] or [`Kind::Unreadable`] if not.
    Compare = 20,
    /// Answer to [`Kind::Compare`]: the content is another one, or must be written again for another reason.
    Differs = 21,
    /// Everything sent before it becomes durable, and the two standbys note that they may share a baseline; payload: [`Common`].
    /// Answered by [`Kind::Ack`].
    Common = 22,
    /// Both standbys answered [`Kind::Common`]: they share that baseline. Payload: [`Common`].
    CommonDone = 23,
    /// Asks how large the volume may become on the receiver's disk. Answered by itself, the range from 0 to there.
    Room = 24,
    /// The range, which lies behind the volume, is to read as zeros, and its blocks of the bitmaps are to be there: the volume
    /// may grow over it. One at a time, in order from the volume's end on. Answered by [`Kind::Ack`].
    Clear = 25,
    /// What was cleared up to the range's end becomes durable, and noted. Answered by [`Kind::Ack`].
    Ready = 26,
    /// The volume ends at the range's end from now on, durably: where it is ready for that, or where it ended before if not all
    /// took the new size. Answered by [`Kind::Ack`].
    Resize = 27,
    /// Everybody has the size: what was gained is written to from now on. Answered by [`Kind::Ack`] when that is noted.
    Settle = 28,
}

impl Kind {
    const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Hello,
            2 => Self::Write,
            3 => Self::Zero,
            4 => Self::Flush,
            5 => Self::Ack,
            6 => Self::IntentAdd,
            7 => Self::IntentDrop,
            8 => Self::ResyncStart,
            9 => Self::ResyncCommit,
            10 => Self::Read,
            11 => Self::Data,
            12 => Self::Unreadable,
            13 => Self::Goodbye,
            20 => Self::Compare,
            21 => Self::Differs,
            22 => Self::Common,
            23 => Self::CommonDone,
            24 => Self::Room,
            25 => Self::Clear,
            26 => Self::Ready,
            27 => Self::Resize,
            28 => Self::Settle,
            _ => return None,
        })
    }
}

/// The write must be durable before it is acknowledged (FUA).
pub const FLAG_FUA: u8 = 1;
/// The write is part of a resync, not of the application's stream.
pub const FLAG_RESYNC: u8 = 2;
/// Of a flush: nothing behind it is applied before it is done, so that an asynchronous standby stays a prefix.
pub const FLAG_ORDERED: u8 = 4;
/// Of a resync's start: the target is in no set, known or proposed, so nobody promotes it by rule before the commit.
pub const FLAG_OUTSIDE: u8 = 8;
/// Of an answer to [`Kind::Room`]: the disk is larger than when it was opened, and its metadata still lies where its end was.
pub const FLAG_STRANDED: u8 = 16;
/// Of an answer to [`Kind::Room`]: the metadata's own device is too small for a larger volume; the disk is not.
pub const FLAG_CRAMPED: u8 = 32;

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What for.
    pub kind: Kind,
    /// [`FLAG_FUA`], [`FLAG_RESYNC`], [`FLAG_ORDERED`], [`FLAG_OUTSIDE`], [`FLAG_STRANDED`],
    /// [`FLAG_CRAMPED`].
    pub flags: u8,
    /// The sender's epoch.
    pub epoch: Epoch,
    /// The connection's session, from the active's Hello.
    pub session: SessionId,
    /// Names a request; answers carry the request's.
    pub seq: u64,
    /// The part of the volume concerned; empty where none is.
    pub range: ByteRange,
    /// Bytes that follow the header.
    pub payload_len: u32,
    /// CRC-32C of these bytes; 0 when there are none.
    pub payload_crc: u32,
    /// Bytes that follow instead if the payload is packed, as one LZ4 block; 0 if it is not. Length and CRC are those of the payload
    /// itself. Only content of the volume is packed.
    pub packed_len: u32,
}

/// Why bytes are not a frame. The connection is closed on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameFault {
    /// Wrong magic: not a Backstay mirror stream, or out of step.
    Magic,
    /// The header's checksum does not match.
    HeaderChecksum,
    /// The payload's checksum does not match.
    PayloadChecksum,
    /// An unknown kind.
    Kind(u8),
    /// Payload longer than [`PAYLOAD_MAX`], or a range that overflows, or payload and range disagree.
    Length,
}

impl Header {
    /// A header without payload.
    #[must_use]
    pub fn bare(kind: Kind, epoch: Epoch, session: SessionId, seq: u64) -> Self {
        let range = ByteRange::new(0, 0).unwrap_or_else(|| unreachable!("an empty range fits"));
        Self {
            kind,
            flags: 0,
            epoch,
            session,
            seq,
            range,
            payload_len: 0,
            payload_crc: 0,
            packed_len: 0,
        }
    }

    /// Bytes that follow on the wire.
    #[must_use]
    pub const fn wire_len(&self) -> u32 {
        match self.packed_len {
            0 => self.payload_len,
            packed => packed,
        }
    }

    /// Encodes the header, with its checksum.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut raw = RawHeader {
            magic: MAGIC,
            header_crc: U32::ZERO,
            kind: self.kind as u8,
            flags: self.flags,
            reserved: U16::ZERO,
            payload_len: U32::new(self.payload_len),
            payload_crc: U32::new(self.payload_crc),
            packed_len: U32::new(self.packed_len),
            epoch: U64::new(self.epoch.0),
            session: U64::new(self.session.0),
            seq: U64::new(self.seq),
            offset: U64::new(self.range.offset()),
            len: U64::new(self.range.len()),
        };
        raw.header_crc = U32::new(crc32c::crc32c(raw.as_bytes()));
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// Parses and checks a header.
    ///
    /// # Errors
    /// [`FrameFault`]; the connection is of no more use then.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameFault> {
        let Ok(mut raw) = RawHeader::read_from_bytes(bytes) else {
            return Err(FrameFault::Length);
        };
        if raw.magic != MAGIC {
            return Err(FrameFault::Magic);
        }
        let crc = raw.header_crc.get();
        raw.header_crc = U32::ZERO;
        if crc32c::crc32c(raw.as_bytes()) != crc {
            return Err(FrameFault::HeaderChecksum);
        }
        let kind = Kind::from_u8(raw.kind).ok_or(FrameFault::Kind(raw.kind))?;
        let range = ByteRange::new(raw.offset.get(), raw.len.get()).ok_or(FrameFault::Length)?;
        let payload_len = raw.payload_len.get();
        let fits = match kind {
            Kind::Write | Kind::Data => u64::from(payload_len) == range.len(),
            Kind::Read => payload_len == 0 && range.len() <= u64::from(PAYLOAD_MAX),
            Kind::Compare => usize::try_from(payload_len) == Ok(DIGEST_BYTES),
            Kind::IntentAdd | Kind::IntentDrop => payload_len.is_multiple_of(4),
            Kind::Hello | Kind::Goodbye | Kind::Common | Kind::CommonDone => true,
            Kind::Zero
            | Kind::Flush
            | Kind::Ack
            | Kind::ResyncStart
            | Kind::ResyncCommit
            | Kind::Differs
            | Kind::Unreadable
            | Kind::Room
            | Kind::Clear
            | Kind::Ready
            | Kind::Resize
            | Kind::Settle => payload_len == 0,
        };
        let packed_len = raw.packed_len.get();
        let packed = packed_len > 0;
        let packs = matches!(kind, Kind::Write | Kind::Data) && packed_len < payload_len;
        if !fits || payload_len > PAYLOAD_MAX || packed && !packs {
            return Err(FrameFault::Length);
        }
        Ok(Self {
            kind,
            flags: raw.flags,
            epoch: Epoch(raw.epoch.get()),
            session: SessionId(raw.session.get()),
            seq: raw.seq.get(),
            range,
            payload_len,
            payload_crc: raw.payload_crc.get(),
            packed_len,
        })
    }

    /// Checks a payload against this header.
    ///
    /// # Errors
    /// [`FrameFault::Length`] or [`FrameFault::PayloadChecksum`].
    pub fn check(&self, payload: &[u8]) -> Result<(), FrameFault> {
        if u32::try_from(payload.len()) != Ok(self.payload_len) {
            return Err(FrameFault::Length);
        }
        if !payload.is_empty() && crc32c::crc32c(payload) != self.payload_crc {
            return Err(FrameFault::PayloadChecksum);
        }
        Ok(())
    }
}

/// What each side says of itself first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::version::MIRROR`] of the sender.
    pub version: u16,
    /// Feature bits.
    pub features: Features,
    /// Who speaks.
    pub node: NodeId,
    /// The mirror's identity, shared by its replicas; None at a replica that never held this mirror's data.
    pub mirror: Option<u128>,
    /// This replica's generation (bumped at this attach).
    pub generation: Generation,
    /// Since when this replica's bitmap counts against the receiver, and from when it may count instead.
    pub baseline: Option<SessionId>,
    /// See [`crate::layout::Pair::offered`].
    pub offered: Option<SessionId>,
    /// Size of the data area, in bytes.
    pub data_bytes: u64,
    /// False while the data is a mixture.
    pub consistent: bool,
    /// Regions that may differ, by this replica's intent log: what it was writing, or had not yet seen flushed everywhere.
    pub intent: Vec<u32>,
    /// Regions (not blocks) that this replica's bitmap marks against the receiver, run-length coded as (first, count).
    pub dirty: Vec<(u32, u32)>,
    /// True if nothing that this replica acknowledged can be missing on its disk: its machine did not lose power since
    /// it last was in the session (a restarted process says true, a rebooted machine false).
    pub volatile_kept: bool,
}

/// A point at which several standbys of one active hold the same, but for what is written after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Common {
    /// The baseline of each two of them.
    pub name: SessionId,
    /// Who they are, at most [`crate::layout::PAIRS_MAX`].
    pub nodes: Vec<NodeId>,
}

/// Why a session is refused or ends. What the receiver shows, and what it does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refuse {
    /// The other side's epoch is older than one known here: it is not the active any more.
    OldEpoch(Epoch),
    /// The other node is not the active by the record known here.
    NotActive,
    /// The disk here is smaller than the data there.
    TooSmall {
        /// Size of the data area here.
        here_bytes: u64,
        /// Size there.
        there_bytes: u64,
    },
    /// The disk here belongs to another mirror.
    ForeignDisk,
    /// The other side speaks a version or needs a feature unknown here.
    Version,
    /// The disk here failed.
    DiskFailed,
    /// Orderly end.
    Closing,
}

/// Encodes a payload of [`Kind::Hello`] or [`Kind::Goodbye`].
#[must_use]
pub fn encode_payload<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap_or_default()
}

/// Parses a payload of [`Kind::Hello`] or [`Kind::Goodbye`].
///
/// # Errors
/// [`FrameFault::Length`] when the bytes are not one.
pub fn decode_payload<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, FrameFault> {
    postcard::from_bytes(bytes).map_err(|_| FrameFault::Length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            flags: FLAG_FUA,
            range: ByteRange::new(8192, 512).unwrap(),
            payload_len: 512,
            payload_crc: crc32c::crc32c(&[7; 512]),
            ..Header::bare(Kind::Write, Epoch(3), SessionId(9), 11)
        }
    }

    #[test]
    fn a_header_survives_the_round_trip() {
        assert_eq!(Header::decode(&header().encode()), Ok(header()));
        assert_eq!(header().check(&[7; 512]), Ok(()));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let good = header().encode();
        for bit in 0..HEADER_BYTES * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bad).is_err(), "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn only_content_is_packed_and_only_to_less() {
        let packed = |kind, packed_len| {
            let header = Header {
                kind,
                packed_len,
                ..header()
            };
            Header::decode(&header.encode()).map(|header| header.wire_len())
        };
        assert_eq!(packed(Kind::Write, 100), Ok(100));
        assert_eq!(packed(Kind::Write, 0), Ok(512));
        assert_eq!(packed(Kind::Write, 512), Err(FrameFault::Length));
        assert_eq!(packed(Kind::Hello, 100), Err(FrameFault::Length));
    }

    #[test]
    fn payload_and_range_must_agree() {
        let lying = Header {
            payload_len: 511,
            ..header()
        };
        assert_eq!(Header::decode(&lying.encode()), Err(FrameFault::Length));
        assert_eq!(header().check(&[8; 512]), Err(FrameFault::PayloadChecksum));
    }
}
