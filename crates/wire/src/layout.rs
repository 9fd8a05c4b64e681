//! The mirror's metadata on disk, behind the data (or on a device of its own): design §4.
//!
//! ```text
//! 0                        data_bytes                                         disk's end
//! | data (byte 0 = byte 0 of the volume) | bitmap pairs | intent B | intent A | super B | super A |
//! ```
//!
//! Everything is made of sealed 4 KiB blocks with magic, kind, sequence and CRC-32C, written alternately to two places
//! (A, B): a torn or lost write leaves the older one. The super blocks are found from the disk's end alone.

use crate::units::{BLOCK_BYTES, REGION_BYTES};
use crate::{Epoch, Generation, version};
use serde::{Deserialize, Serialize};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Size of a sealed block, in bytes.
pub const SEALED_BYTES: usize = 4096;
/// Size of a sealed block's header, in bytes.
pub const SEAL_HEADER_BYTES: usize = 32;
/// Bytes of content in a sealed block.
pub const CONTENT_BYTES: usize = SEALED_BYTES - SEAL_HEADER_BYTES;
/// Regions that one block of the intent log names.
pub const REGIONS_PER_BLOCK: usize = CONTENT_BYTES / 4;
/// Bitmap bits (4 KiB blocks of data) in one sealed block.
pub const BITS_PER_BLOCK: u64 = (CONTENT_BYTES * 8) as u64;

const MAGIC: [u8; 4] = *b"BSMB";
const _: () = assert!(size_of::<RawSeal>() == SEAL_HEADER_BYTES);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawSeal {
    magic: [u8; 4],
    crc: U32, // of the block with this field zero
    version: U16,
    kind: U16,
    len: U32,
    sequence: U64,
    place: U64, // index of the block among its kind: a misdirected write is noticed
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
}

/// Why a block cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockFault {
    /// Not a sealed block at all (blank, or other data).
    Foreign,
    /// Damaged or torn.
    Checksum,
    /// Written by a newer release.
    Newer(u16),
    /// Of another kind or place than expected: a misdirected write.
    Misplaced,
}

/// Seals `content` (at most [`CONTENT_BYTES`]; longer is cut off, which callers prevent by construction).
#[must_use]
pub fn seal(kind: BlockKind, place: u64, sequence: u64, content: &[u8]) -> [u8; SEALED_BYTES] {
    let content = &content[..content.len().min(CONTENT_BYTES)];
    let mut block = [0; SEALED_BYTES];
    block[SEAL_HEADER_BYTES..SEAL_HEADER_BYTES + content.len()].copy_from_slice(content);
    let mut header = RawSeal {
        magic: MAGIC,
        crc: U32::ZERO,
        version: U16::new(version::LAYOUT),
        kind: U16::new(kind as u16),
        len: U32::new(u32::try_from(content.len()).unwrap_or(0)),
        sequence: U64::new(sequence),
        place: U64::new(place),
    };
    block[..SEAL_HEADER_BYTES].copy_from_slice(header.as_bytes());
    header.crc = U32::new(crc32c::crc32c(&block));
    block[..SEAL_HEADER_BYTES].copy_from_slice(header.as_bytes());
    block
}

/// Opens a sealed block: its sequence and its content.
///
/// # Errors
/// [`BlockFault`] says why it cannot be used.
pub fn open(kind: BlockKind, place: u64, block: &[u8]) -> Result<(u64, &[u8]), BlockFault> {
    let block: &[u8; SEALED_BYTES] = block.try_into().map_err(|_| BlockFault::Foreign)?;
    let Ok((mut header, _)) = RawSeal::read_from_prefix(block) else {
        return Err(BlockFault::Foreign);
    };
    if header.magic != MAGIC {
        return Err(BlockFault::Foreign);
    }
    let crc = header.crc.get();
    header.crc = U32::ZERO;
    let tail = &block[SEAL_HEADER_BYTES..];
    if crc32c::crc32c_append(crc32c::crc32c(header.as_bytes()), tail) != crc {
        return Err(BlockFault::Checksum);
    }
    if header.version.get() > version::LAYOUT {
        return Err(BlockFault::Newer(header.version.get()));
    }
    if header.kind.get() != kind as u16 || header.place.get() != place {
        return Err(BlockFault::Misplaced);
    }
    let len = usize::try_from(header.len.get()).unwrap_or(usize::MAX);
    let content = tail.get(..len).ok_or(BlockFault::Checksum)?;
    Ok((header.sequence.get(), content))
}

/// Of two openings of one block's places, the newer valid one: (which place, sequence, content).
#[must_use]
pub fn newer<'a>(
    a: Result<(u64, &'a [u8]), BlockFault>,
    b: Result<(u64, &'a [u8]), BlockFault>,
) -> Option<(Slot, u64, &'a [u8])> {
    match (a, b) {
        (Ok((sa, ca)), Ok((sb, _))) if sa >= sb => Some((Slot::A, sa, ca)),
        (_, Ok((sb, cb))) => Some((Slot::B, sb, cb)),
        (Ok((sa, ca)), Err(_)) => Some((Slot::A, sa, ca)),
        (Err(_), Err(_)) => None,
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
    pub const fn other(self) -> Self {
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
    /// Bitmap, in sealed blocks per slot.
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
        // Each bitmap block serves BITS_PER_BLOCK data blocks and costs two blocks itself.
        let groups = (room / BLOCK_BYTES).div_ceil(BITS_PER_BLOCK + 2);
        let data_bytes = room.checked_sub(2 * groups * BLOCK_BYTES)?;
        Self::with_data(disk_bytes, data_bytes, intent_blocks)
    }

    /// The layout of an existing superblock; None if it does not fit the disk.
    #[must_use]
    pub fn with_data(disk_bytes: u64, data_bytes: u64, intent_blocks: u32) -> Option<Self> {
        let disk_bytes = disk_bytes / BLOCK_BYTES * BLOCK_BYTES;
        let bitmap_blocks = (data_bytes / BLOCK_BYTES).div_ceil(BITS_PER_BLOCK);
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
        let pair = end - 2 * (self.bitmap_blocks - index) * BLOCK_BYTES;
        match slot {
            Slot::A => pair,
            Slot::B => pair + BLOCK_BYTES,
        }
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

impl Superblock {
    /// The sealed block for one of its places.
    #[must_use]
    pub fn seal(&self, sequence: u64) -> [u8; SEALED_BYTES] {
        seal(
            BlockKind::Super,
            0,
            sequence,
            &postcard::to_stdvec(self).unwrap_or_default(),
        )
    }

    /// Parses a superblock's content.
    ///
    /// # Errors
    /// [`BlockFault::Checksum`] when the content is not one; [`BlockFault::Newer`] when it needs an unknown feature.
    pub fn parse(content: &[u8]) -> Result<Self, BlockFault> {
        let parsed: Self = postcard::from_bytes(content).map_err(|_| BlockFault::Checksum)?;
        if !parsed.features.understood() {
            return Err(BlockFault::Newer(version::LAYOUT));
        }
        Ok(parsed)
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
                assert!(layout.data_bytes <= layout.bitmap_offset(0, Slot::A));
                let last = layout.bitmap_blocks - 1;
                assert!(
                    layout.bitmap_offset(last, Slot::B) + BLOCK_BYTES
                        <= layout.intent_offset(Slot::B)
                );
                assert!(layout.intent_offset(Slot::A) < Layout::super_offset(disk, Slot::B));
                assert!(Layout::super_offset(disk, Slot::A) + BLOCK_BYTES <= disk);
                assert!(layout.bitmap_blocks * BITS_PER_BLOCK >= layout.blocks());
            }
        }
    }

    #[test]
    fn a_torn_block_is_noticed_at_every_sector() {
        let old = seal(BlockKind::Intent, 0, 1, &[1; CONTENT_BYTES]);
        let new = seal(BlockKind::Intent, 0, 2, &[2; CONTENT_BYTES]);
        for sectors in 1..SEALED_BYTES / 512 {
            let mut torn = old;
            torn[..sectors * 512].copy_from_slice(&new[..sectors * 512]);
            assert_eq!(open(BlockKind::Intent, 0, &torn), Err(BlockFault::Checksum));
        }
        assert_eq!(open(BlockKind::Intent, 0, &new).unwrap().0, 2);
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
