//! The mirror's metadata on disk, behind the data (or on a device of its own): design §4.
//!
//! ```text
//! 0                        data_bytes                                         disk's end
//! | data (byte 0 = byte 0 of the volume) | room | bitmap pairs, the first one last | intent B | intent A | super B | super A |
//! ```
//!
//! Bitmap blocks are counted from the log towards the data, those of all planes for the same part of the volume next to each
//! other: a volume that grows into the room before them gets further blocks, and none moves.
//!
//! Everything is made of sealed 4 KiB blocks with magic, kind and sequence, written alternately to two places (A, B): a torn or
//! lost write leaves the older one. Every sector of a block carries a CRC-32C and the sequence of its own, so that a write which
//! power interrupted (each sector whole, of different writes) is told from damage of what was durable. The super blocks
//! are found from the disk's end alone.

use crate::external::External;
use crate::mutant::{self, Bug};
use crate::seed::Seed;
use crate::undo::UndoRun;
use crate::units::{BLOCK_BYTES, REGION_BYTES};
use crate::{Epoch, Generation, NodeId, SessionId, version};
use serde::{Deserialize, Serialize};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Size of a sealed block, in bytes.
pub const SEALED_BYTES: usize = 4096;
/// Size of a sealed block's header, in bytes.
pub const SEAL_HEADER_BYTES: usize = 32;
/// What a disk writes as a whole, in bytes: a crash leaves each sector old or new.
pub const SECTOR_BYTES: usize = 512;
/// Bytes at the end of every sector that tell whether it is whole, and of which write.
pub const STAMP_BYTES: usize = 8;
/// Bytes of content in a sealed block.
pub const CONTENT_BYTES: usize = SECTORS * PIECE_BYTES - SEAL_HEADER_BYTES;
/// Regions that one block of the intent log names.
pub const REGIONS_PER_BLOCK: usize = CONTENT_BYTES / 4;
/// Bitmap bits (4 KiB blocks of data) in one sealed block.
pub const BITS_PER_BLOCK: u64 = (CONTENT_BYTES * 8) as u64;

/// Replicas that one replica keeps a bitmap and a baseline against.
pub const PAIRS_MAX: usize = 2;
const PLANES: u64 = PAIRS_MAX as u64;

const SECTORS: usize = SEALED_BYTES / SECTOR_BYTES;
/// What is left of a sector without its stamp.
const PIECE_BYTES: usize = SECTOR_BYTES - STAMP_BYTES;
const MAGIC: [u8; 4] = *b"BSMB";
const _: () = assert!(size_of::<RawSeal>() == SEAL_HEADER_BYTES);
const _: () = assert!(size_of::<Stamp>() == STAMP_BYTES);
const _: () = assert!(BITS_PER_BLOCK.is_multiple_of(64), "whole words");

/// Begins a block's first sector.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawSeal {
    magic: [u8; 4],
    reserved: U32,
    version: U16,
    kind: U16,
    len: U32,
    sequence: U64,
    place: U64, // index of the block among its kind: a misdirected write is noticed
}

/// Ends every sector.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Stamp {
    crc: U32,      // of the sector before the stamp, its number in the block, and `sequence`
    sequence: U32, // the lower half of the block's
}

/// What a sealed block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum BlockKind {
    /// [`Superblock`].
    Super = 1,
    /// Hot regions, little-endian u32 each.
    Intent = 2,
    /// Bits, one per 4 KiB of data, 1 = may differ.
    Bitmap = 3,
    /// Begins an undo log ([`crate::undo`]).
    Undo = 4,
    /// Places of blocks that an undo log holds.
    UndoList = 5,
}

/// Why a block cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockFault {
    /// Not a sealed block at all (blank, or other data).
    Foreign,
    /// Every sector is whole, but of different writes: power failed in the middle of one. It was never durable.
    Torn,
    /// The medium changed what was written: this may have been durable.
    Damaged {
        /// The lower half of the newest sequence that a whole sector of it shows.
        newest: Option<u32>,
    },
    /// Written by a newer release.
    Newer(u16),
    /// Of another kind or place than expected: a misdirected write.
    Misplaced,
}

/// Seals `content` (at most [`CONTENT_BYTES`]; longer is cut off, which callers prevent by construction).
#[must_use]
pub fn seal(kind: BlockKind, place: u64, sequence: u64, content: &[u8]) -> [u8; SEALED_BYTES] {
    let content = &content[..content.len().min(CONTENT_BYTES)];
    let header = RawSeal {
        magic: MAGIC,
        reserved: U32::ZERO,
        version: U16::new(version::LAYOUT),
        kind: U16::new(kind as u16),
        len: U32::new(u32::try_from(content.len()).unwrap_or(0)),
        sequence: U64::new(sequence),
        place: U64::new(place),
    };
    let mut block = [0; SEALED_BYTES];
    let first = PIECE_BYTES - SEAL_HEADER_BYTES;
    let (head, tail) = content.split_at(content.len().min(first));
    block[..SEAL_HEADER_BYTES].copy_from_slice(header.as_bytes());
    block[SEAL_HEADER_BYTES..SEAL_HEADER_BYTES + head.len()].copy_from_slice(head);
    let sectors = block[SECTOR_BYTES..].chunks_exact_mut(SECTOR_BYTES);
    for (sector, piece) in sectors.zip(tail.chunks(PIECE_BYTES)) {
        sector[..piece.len()].copy_from_slice(piece);
    }
    for (number, sector) in (0..).zip(block.chunks_exact_mut(SECTOR_BYTES)) {
        let (piece, stamp) = sector.split_at_mut(PIECE_BYTES);
        let sequence = U32::new(low(sequence));
        let crc = U32::new(stamp_crc(piece, number, sequence));
        stamp.copy_from_slice(Stamp { crc, sequence }.as_bytes());
    }
    block
}

/// The lower half of a sequence number.
fn low(sequence: u64) -> u32 {
    u32::try_from(sequence & u64::from(u32::MAX)).unwrap_or(0)
}

fn stamp_crc(piece: &[u8], number: u8, sequence: U32) -> u32 {
    let crc = crc32c::crc32c(piece);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &[number]), sequence.as_bytes())
}

/// The sequence of each sector that is whole.
fn stamps(block: &[u8; SEALED_BYTES]) -> impl Iterator<Item = Option<u32>> {
    (0..)
        .zip(block.chunks_exact(SECTOR_BYTES))
        .map(|(number, sector)| {
            let (piece, stamp) = sector.split_at(PIECE_BYTES);
            let stamp = Stamp::read_from_bytes(stamp).ok()?;
            let whole = stamp_crc(piece, number, stamp.sequence) == stamp.crc.get();
            whole.then_some(stamp.sequence.get())
        })
}

/// Opens a sealed block: its sequence and its content.
///
/// # Errors
/// [`BlockFault`] says why it cannot be used.
pub fn open(kind: BlockKind, place: u64, block: &[u8]) -> Result<(u64, Vec<u8>), BlockFault> {
    let block: &[u8; SEALED_BYTES] = block.try_into().map_err(|_| BlockFault::Foreign)?;
    let (header, _) = RawSeal::read_from_prefix(block).map_err(|_| BlockFault::Foreign)?;
    let ours = header.magic == MAGIC;
    let whole: Vec<u32> = stamps(block).flatten().collect();
    let newest = whole.iter().copied().max();
    match newest {
        None if !ours => return Err(BlockFault::Foreign),
        Some(_) if ours && header.version.get() > version::LAYOUT => {
            return Err(BlockFault::Newer(header.version.get()));
        }
        None | Some(_) if mutant::has(Bug::ChecksumIgnored) => {}
        _ if whole.len() < SECTORS => return Err(BlockFault::Damaged { newest }),
        _ if whole.iter().any(|s| Some(*s) != newest) => return Err(BlockFault::Torn),
        None | Some(_) => {}
    }
    if !ours || header.kind.get() != kind as u16 || header.place.get() != place {
        return Err(BlockFault::Misplaced);
    }
    let len = usize::try_from(header.len.get()).unwrap_or(usize::MAX);
    let pieces = block.chunks_exact(SECTOR_BYTES).map(|s| &s[..PIECE_BYTES]);
    let mut content = pieces.flatten().skip(SEAL_HEADER_BYTES).copied();
    if len > CONTENT_BYTES {
        return Err(BlockFault::Damaged { newest });
    }
    Ok((header.sequence.get(), content.by_ref().take(len).collect()))
}

/// True if a block says that it is of this kind and place, be it whole or not. Something else does not by accident.
#[must_use]
pub fn claims(kind: BlockKind, place: u64, block: &[u8]) -> bool {
    let header = RawSeal::read_from_prefix(block);
    header.is_ok_and(|(header, _)| {
        header.magic == MAGIC && header.kind.get() == kind as u16 && header.place.get() == place
    })
}

/// What the two places of something say together; `T` is its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newest<T> {
    /// The newest that was ever durable: (which place, sequence, content).
    Known(Slot, u64, T),
    /// One is whole, but the damaged other one may have been newer.
    Doubtful(Slot, u64, T),
    /// Neither is whole.
    Lost,
}

/// Of two openings of the same thing's places, the newer valid one.
///
/// A write that power interrupted was never durable, so what is before it counts. Damage is something else: it may have
/// befallen what was relied upon (Alagappan et al., "Protocol-Aware Recovery for Consensus-Based Storage", FAST 2018).
#[must_use]
pub fn newest<T>(a: Result<(u64, T), BlockFault>, b: Result<(u64, T), BlockFault>) -> Newest<T> {
    let (slot, sequence, content, other) = match (a, b) {
        (Ok((sa, ca)), Ok((sb, _))) if sa >= sb => return Newest::Known(Slot::A, sa, ca),
        (Ok(_), Ok((sb, cb))) => return Newest::Known(Slot::B, sb, cb),
        (Ok((sa, ca)), Err(fault)) => (Slot::A, sa, ca, fault),
        (Err(fault), Ok((sb, cb))) => (Slot::B, sb, cb, fault),
        (Err(_), Err(_)) => return Newest::Lost,
    };
    if other.may_hide_newer(sequence) && !mutant::has(Bug::RotTakenForTorn) {
        Newest::Doubtful(slot, sequence, content)
    } else {
        Newest::Known(slot, sequence, content)
    }
}

impl BlockFault {
    /// True if what cannot be read may have been durable and newer than `sequence`.
    fn may_hide_newer(self, sequence: u64) -> bool {
        match self {
            Self::Torn => false,
            // The second place is written for the first time with the second sequence.
            Self::Foreign => sequence > 1,
            Self::Damaged { newest: Some(seen) } => {
                let ahead = seen.wrapping_sub(low(sequence));
                ahead != 0 && ahead < 1 << 31
            }
            Self::Damaged { newest: None } | Self::Misplaced | Self::Newer(_) => true,
        }
    }
}

/// One of the two places of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// First place.
    A,
    /// Second place.
    B,
}

impl Slot {
    /// The other place: where the next write goes.
    #[must_use]
    pub fn other(self) -> Self {
        if mutant::has(Bug::SlotsNotAlternated) {
            return self;
        }
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Identity and state of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superblock {
    /// Feature bits.
    pub features: version::Features,
    /// The mirror's identity, shared by all replicas; None until the first sync gave this replica one.
    pub mirror: Option<u128>,
    /// This replica's own identity, made at `mirror create`.
    pub replica: u128,
    /// Size of the data area, in bytes; a multiple of 4 KiB.
    pub data_bytes: u64,
    /// Behind the data the disk reads zeros up to here, durably, and the bitmaps have their blocks: so far the volume may
    /// grow while it is served. At least `data_bytes`.
    pub ready_bytes: u64,
    /// Nothing behind it was ever written here, though the volume may have grown over it already: a replica that goes back to a
    /// size down to this one stays ready. At most `data_bytes`.
    pub settled_bytes: u64,
    /// Size of the intent log, in sealed blocks per slot.
    pub intent_blocks: u32,
    /// Bumped at each attach (R14).
    pub generation: Generation,
    /// Highest epoch whose frames or activation this replica accepted.
    pub epoch: Epoch,
    /// What the data is.
    pub state: ReplicaState,
    /// The machine's boot at the last attach (hash of the kernel's boot id): another one means that volatile caches are gone.
    pub boot: u64,
    /// It served since it was last made equal to an active's: what it has beyond the others may be acknowledged.
    pub led: bool,
    /// Other replicas, at most [`PAIRS_MAX`]. The place in the list is the number of the bitmap's plane that counts against it.
    pub pairs: Vec<Pair>,
    /// While the data is a mixture: whose data it is being made equal to. Against others nothing is known.
    pub source: Option<NodeId>,
    /// Until its first session: it was made for a first sync of used blocks only, and the disk began like this then.
    #[serde(skip)]
    pub seed: Option<Seed>,
    /// The disk that this is the metadata of, if it is on a device of its own. On disk it follows what is above.
    #[serde(skip)]
    pub external: Option<External>,
    /// The run of the undo log that leads back from the mixture; none: nothing does. It goes before the first block is overwritten
    /// that the log does not have, and with the commit.
    #[serde(skip)]
    pub undo: Option<UndoRun>,
}

/// What a replica remembers of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Which.
    pub node: NodeId,
    /// Since when bitmap and intent log count against it: the session, or the common point of two standbys, in which the two were
    /// equal last. A replica that does not know it is an older state of its disk, restored behind our back.
    pub baseline: Option<SessionId>,
    /// A baseline that the other one may have already.
    pub offered: Option<SessionId>,
}

impl Pair {
    /// Nothing is known of the node yet.
    #[must_use]
    pub const fn new(node: NodeId) -> Self {
        Self {
            node,
            baseline: None,
            offered: None,
        }
    }
}

/// What a replica's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicaState {
    /// Made with `mirror create` on a disk whose content is kept: the first activation starts here.
    Origin,
    /// Made with `mirror create --empty`: takes everything from the active.
    Blank,
    /// A point in the mirror's history.
    Consistent,
    /// A mixture: a resync was not finished.
    Inconsistent,
}

/// Where everything lies on a disk of a given size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Size of the data area, in bytes.
    pub data_bytes: u64,
    /// Intent log, in sealed blocks per slot.
    pub intent_blocks: u32,
    /// Bitmaps of all planes together, in sealed blocks per slot; a multiple of [`PAIRS_MAX`].
    pub bitmap_blocks: u64,
    /// Size of the disk, in bytes, rounded down to 4 KiB.
    pub disk_bytes: u64,
}

impl Layout {
    /// Smallest data area, in bytes: 1 MiB.
    pub const DATA_MIN: u64 = 1 << 20;

    /// The layout with the largest data area that fits; None if the disk is too small for [`Layout::DATA_MIN`].
    #[must_use]
    pub fn for_disk(disk_bytes: u64, intent_blocks: u32) -> Option<Self> {
        let disk_bytes = disk_bytes / BLOCK_BYTES * BLOCK_BYTES;
        let fixed = (2 + 2 * u64::from(intent_blocks)) * BLOCK_BYTES;
        let room = disk_bytes.checked_sub(fixed)?;
        // One bitmap block of each plane serves BITS_PER_BLOCK data blocks, and each costs two blocks itself.
        let groups = (room / BLOCK_BYTES).div_ceil(BITS_PER_BLOCK + 2 * PLANES);
        let data_bytes = room.checked_sub(2 * PLANES * groups * BLOCK_BYTES)?;
        Self::with_data(disk_bytes, data_bytes, intent_blocks)
    }

    /// The layout of an existing superblock; None if it does not fit the disk.
    #[must_use]
    pub fn with_data(disk_bytes: u64, data_bytes: u64, intent_blocks: u32) -> Option<Self> {
        let disk_bytes = disk_bytes / BLOCK_BYTES * BLOCK_BYTES;
        let plane_blocks = (data_bytes / BLOCK_BYTES).div_ceil(BITS_PER_BLOCK);
        let bitmap_blocks = PLANES * plane_blocks;
        let meta = 2 + 2 * u64::from(intent_blocks) + 2 * bitmap_blocks;
        let fits = meta.checked_mul(BLOCK_BYTES)?.checked_add(data_bytes)? <= disk_bytes;
        (fits && data_bytes >= Self::DATA_MIN && data_bytes.is_multiple_of(BLOCK_BYTES)).then_some(
            Self {
                data_bytes,
                intent_blocks,
                bitmap_blocks,
                disk_bytes,
            },
        )
    }

    /// Byte offset of a superblock place on a disk of `disk_bytes` (known before anything else is).
    #[must_use]
    pub const fn super_offset(disk_bytes: u64, slot: Slot) -> u64 {
        let end = disk_bytes / BLOCK_BYTES * BLOCK_BYTES;
        match slot {
            Slot::A => end - BLOCK_BYTES,
            Slot::B => end - 2 * BLOCK_BYTES,
        }
    }

    /// Byte offset of the intent log's first block in a slot.
    #[must_use]
    pub const fn intent_offset(&self, slot: Slot) -> u64 {
        let log = self.intent_blocks as u64 * BLOCK_BYTES;
        let end = self.disk_bytes - 2 * BLOCK_BYTES;
        match slot {
            Slot::A => end - log,
            Slot::B => end - 2 * log,
        }
    }

    /// Byte offset of the bitmap block `index`'s place.
    #[must_use]
    pub const fn bitmap_offset(&self, index: u64, slot: Slot) -> u64 {
        let end = self.intent_offset(Slot::B);
        let pair = end - 2 * (index + 1) * BLOCK_BYTES;
        match slot {
            Slot::A => pair,
            Slot::B => pair + BLOCK_BYTES,
        }
    }

    /// Byte offset of the metadata: of the last bitmap block's first place.
    #[must_use]
    pub const fn metadata_offset(&self) -> u64 {
        self.intent_offset(Slot::B) - 2 * self.bitmap_blocks * BLOCK_BYTES
    }

    /// The number among all bitmap blocks of block `at` of a plane.
    #[must_use]
    pub const fn bitmap_index(plane: u64, at: u64) -> u64 {
        at * PLANES + plane
    }

    /// The plane of a bitmap block, and its number there.
    #[must_use]
    pub const fn in_plane(index: u64) -> (u64, u64) {
        (index % PLANES, index / PLANES)
    }

    /// Bitmap of one plane, in sealed blocks per slot.
    #[must_use]
    pub const fn plane_blocks(&self) -> u64 {
        self.bitmap_blocks / PLANES
    }

    /// Regions that the intent log can name at once.
    #[must_use]
    pub const fn intent_capacity(&self) -> u64 {
        self.intent_blocks as u64 * REGIONS_PER_BLOCK as u64
    }

    /// Number of regions of the data area.
    #[must_use]
    pub const fn regions(&self) -> u64 {
        self.data_bytes.div_ceil(REGION_BYTES)
    }

    /// Number of bitmap bits.
    #[must_use]
    pub const fn blocks(&self) -> u64 {
        self.data_bytes / BLOCK_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_parts_of_a_layout_overlap() {
        for disk in [2 << 20, (256 << 20) + 5_000, 1 << 30, (3_u64 << 40) + 4096] {
            for blocks in [1, 4] {
                let layout = Layout::for_disk(disk, blocks).unwrap();
                let last = layout.bitmap_blocks - 1;
                assert!(layout.data_bytes <= layout.metadata_offset());
                assert_eq!(
                    layout.metadata_offset(),
                    layout.bitmap_offset(last, Slot::A)
                );
                assert!(
                    layout.bitmap_offset(0, Slot::B) + BLOCK_BYTES <= layout.intent_offset(Slot::B)
                );
                assert!(layout.intent_offset(Slot::A) < Layout::super_offset(disk, Slot::B));
                assert!(Layout::super_offset(disk, Slot::A) + BLOCK_BYTES <= disk);
                assert!(layout.plane_blocks() * BITS_PER_BLOCK >= layout.blocks());
            }
        }
    }

    #[test]
    fn a_torn_block_is_told_from_a_damaged_one_at_every_sector() {
        let old = seal(BlockKind::Intent, 0, 1, &[1; CONTENT_BYTES]);
        let new = seal(BlockKind::Intent, 0, 3, &[2; CONTENT_BYTES]);
        for landed in 1_u8..u8::MAX {
            let mut torn = old;
            for sector in (0..SECTORS).filter(|n| landed & (1 << n) != 0) {
                let at = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                torn[at.clone()].copy_from_slice(&new[at]);
            }
            assert_eq!(open(BlockKind::Intent, 0, &torn), Err(BlockFault::Torn));
        }
        for byte in (0..SEALED_BYTES).step_by(61) {
            let mut rotten = new;
            rotten[byte] ^= 4;
            let newest = Some(3);
            let fault = BlockFault::Damaged { newest };
            assert_eq!(open(BlockKind::Intent, 0, &rotten), Err(fault));
        }
        let (sequence, content) = open(BlockKind::Intent, 0, &new).unwrap();
        assert_eq!((sequence, content), (3, vec![2; CONTENT_BYTES]));
    }

    #[test]
    fn content_of_any_length_comes_back() {
        for len in [
            0,
            1,
            471,
            472,
            473,
            976,
            977,
            CONTENT_BYTES - 1,
            CONTENT_BYTES,
        ] {
            let content: Vec<u8> = (0..=250).cycle().take(len).collect();
            let block = seal(BlockKind::Super, 7, 1 << 33, &content);
            assert_eq!(open(BlockKind::Super, 7, &block), Ok((1 << 33, content)));
        }
    }

    #[test]
    fn only_damage_that_may_hide_something_newer_is_doubtful() {
        let older = Ok((6, ()));
        let damaged = |newest| Err(BlockFault::Damaged { newest });
        assert_eq!(
            newest(older, Err(BlockFault::Torn)),
            Newest::Known(Slot::A, 6, ())
        );
        assert_eq!(
            newest(older, damaged(Some(5))),
            Newest::Known(Slot::A, 6, ())
        );
        assert_eq!(
            newest(damaged(Some(7)), older),
            Newest::Doubtful(Slot::B, 6, ())
        );
        assert_eq!(
            newest(damaged(None), older),
            Newest::Doubtful(Slot::B, 6, ())
        );
        let foreign = Err(BlockFault::Foreign);
        assert_eq!(newest(Ok((1, ())), foreign), Newest::Known(Slot::A, 1, ()));
        assert_eq!(
            newest(Ok((2, ())), foreign),
            Newest::Doubtful(Slot::A, 2, ())
        );
        assert_eq!(newest::<()>(foreign, foreign), Newest::Lost);
    }

    #[test]
    fn a_misdirected_block_is_noticed() {
        let block = seal(BlockKind::Bitmap, 3, 1, &[0; 8]);
        assert_eq!(
            open(BlockKind::Bitmap, 4, &block),
            Err(BlockFault::Misplaced)
        );
        assert_eq!(
            open(BlockKind::Super, 3, &block),
            Err(BlockFault::Misplaced)
        );
        assert_eq!(
            open(BlockKind::Super, 3, &[0; SEALED_BYTES]),
            Err(BlockFault::Foreign)
        );
    }

    #[test]
    fn a_disk_too_small_has_no_layout() {
        assert_eq!(Layout::for_disk(1 << 20, 1), None);
        assert_eq!(Layout::for_disk(0, 1), None);
    }
}
