//! What a disk's metadata says, read from the disk alone and changing nothing: for a replica that nobody runs.
//!
//! It refuses nothing. What cannot be read or trusted is told as such, and counts as what it may hide: a lost block of the
//! bitmap as marked, a lost intent log as naming everything.

use crate::bitmap::region_blocks;
use crate::bits::Bits;
use crate::intent;
use crate::planes::Planes;
use crate::runs::{Places, Runs};
use wire::layout::{self, BlockFault, BlockKind, Layout, Newest, SEALED_BYTES, Slot, Superblock};
use wire::units::BLOCK_BYTES;
use wire::{ByteCount, ByteRange};

/// Blocks of the bitmap, each in two places, that are read at once: 1 MiB.
const READ_MAX: u64 = 128;

/// Everything that was found.
#[derive(Debug)]
pub struct Inspection {
    /// Size of the disk, in bytes, rounded down to 4 KiB.
    pub disk: ByteCount,
    /// The superblock's two places, A first.
    pub places: [SuperPlace; 2],
    /// What they say together.
    pub replica: Found,
}

/// One of the superblock's places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuperPlace {
    /// Where it is, as byte offset on the disk.
    pub offset: u64,
    /// Sequence and content, or why there is none.
    pub content: Result<(u64, Superblock), PlaceFault>,
}

/// Why a place holds no superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceFault {
    /// The disk does not give it.
    Unreadable,
    /// It is not a whole block.
    Block(BlockFault),
}

/// What the two places say together.
#[derive(Debug)]
pub enum Found {
    /// No superblock that could be used.
    Nothing,
    /// A superblock whose layout does not fit: the disk was larger when it was made.
    Shrunk(Box<Superblock>),
    /// A replica.
    Replica(Box<Contents>),
}

/// A replica's metadata.
#[derive(Debug)]
pub struct Contents {
    /// The newest superblock that is whole.
    pub superblock: Superblock,
    /// Its place.
    pub slot: Slot,
    /// The other place is damaged and may have held a newer one.
    pub doubtful: bool,
    /// Where everything lies.
    pub layout: Layout,
    /// Blocks of the bitmap that are lost: everything in them counts as marked.
    pub bitmap_lost: u64,
    /// Regions of the intent log.
    pub hot_regions: u64,
    /// The intent log may lack regions.
    pub intent_incomplete: bool,
    /// Sequence of the newest superblock.
    pub(crate) sequence: u64,
    pub(crate) planes: Planes,
    pub(crate) hot: Bits,
}

impl Contents {
    /// Bytes marked in the bitmaps, against whomever.
    #[must_use]
    pub fn marked_bytes(&self) -> ByteCount {
        ByteCount(self.marks().ones() * BLOCK_BYTES)
    }

    /// What the bitmaps mark, against whomever, at most `max` places.
    #[must_use]
    pub fn marked(&self, max: usize) -> Places {
        Runs::of(&self.marks(), max).places()
    }

    /// The regions of the intent log, at most `max` places.
    #[must_use]
    pub fn hot(&self, max: usize) -> Places {
        Runs::of(&self.hot, max).places()
    }

    /// Where this replica may hold what others do not: bitmap and intent log together.
    #[must_use]
    pub fn differing(&self, max: usize) -> Places {
        Runs::of(&self.differing_blocks(), max).places()
    }

    /// Bytes of [`Contents::differing`].
    #[must_use]
    pub fn differing_bytes(&self) -> ByteCount {
        ByteCount(self.differing_blocks().ones() * BLOCK_BYTES)
    }

    /// Bytes marked against one other replica.
    #[cfg(test)]
    pub(crate) fn marked_against(&self, node: wire::NodeId) -> ByteCount {
        let pairs = std::iter::zip(&self.superblock.pairs, self.planes.marks());
        let found = pairs.filter(|(pair, _)| pair.node == node);
        ByteCount(found.map(|(_, plane)| plane.ones() * BLOCK_BYTES).sum())
    }

    fn marks(&self) -> Bits {
        let mut marks = Bits::new(self.layout.blocks());
        for (_, plane) in std::iter::zip(&self.superblock.pairs, self.planes.marks()) {
            marks.union(plane);
        }
        marks
    }

    fn differing_blocks(&self) -> Bits {
        let mut all = self.marks();
        all.union(&self.hot);
        all
    }
}

/// Looks at a disk of `disk_bytes`. `read` gives the bytes of a range, or none if the disk does not give them.
pub fn inspect(disk_bytes: u64, mut read: impl FnMut(ByteRange) -> Option<Vec<u8>>) -> Inspection {
    let disk_bytes = disk_bytes / BLOCK_BYTES * BLOCK_BYTES;
    let places = [Slot::A, Slot::B].map(|slot| read_super(disk_bytes, slot, &mut read));
    let opened = |place: &SuperPlace| match &place.content {
        Ok((sequence, superblock)) => Ok((*sequence, superblock.clone())),
        Err(PlaceFault::Block(fault)) => Err(*fault),
        Err(PlaceFault::Unreadable) => Err(BlockFault::Damaged { newest: None }),
    };
    let [a, b] = &places;
    let replica = match layout::newest(opened(a), opened(b)) {
        Newest::Known(slot, sequence, found) => {
            contents(disk_bytes, found, (slot, sequence), false, &mut read)
        }
        Newest::Doubtful(slot, sequence, found) => {
            contents(disk_bytes, found, (slot, sequence), true, &mut read)
        }
        Newest::Lost => Found::Nothing,
    };
    Inspection {
        disk: ByteCount(disk_bytes),
        places,
        replica,
    }
}

fn read_super(
    disk_bytes: u64,
    slot: Slot,
    read: &mut impl FnMut(ByteRange) -> Option<Vec<u8>>,
) -> SuperPlace {
    if disk_bytes < 2 * BLOCK_BYTES {
        let content = Err(PlaceFault::Block(BlockFault::Foreign));
        return SuperPlace { offset: 0, content };
    }
    let offset = Layout::super_offset(disk_bytes, slot);
    let bytes = ByteRange::new(offset, BLOCK_BYTES).and_then(read);
    let content = match bytes {
        None => Err(PlaceFault::Unreadable),
        Some(bytes) => layout::open(BlockKind::Super, 0, &bytes)
            .and_then(|(sequence, content)| Ok((sequence, Superblock::parse(&content)?)))
            .map_err(PlaceFault::Block),
    };
    SuperPlace { offset, content }
}

fn contents(
    disk_bytes: u64,
    superblock: Superblock,
    (slot, sequence): (Slot, u64),
    doubtful: bool,
    read: &mut impl FnMut(ByteRange) -> Option<Vec<u8>>,
) -> Found {
    let (data_bytes, blocks) = (superblock.data_bytes, superblock.intent_blocks);
    let layout = Layout::with_data(disk_bytes, data_bytes, blocks)
        .filter(|layout| layout.intent_blocks > 0 && layout.regions() <= u64::from(u32::MAX));
    let Some(layout) = layout else {
        return Found::Shrunk(Box::new(superblock));
    };
    let (hot, intent_incomplete) = read_intent(&layout, read);
    let (planes, bitmap_lost) = read_planes(&layout, read);
    Found::Replica(Box::new(Contents {
        superblock,
        slot,
        doubtful,
        layout,
        bitmap_lost,
        hot_regions: hot.ones().div_ceil(region_blocks(0).end),
        intent_incomplete,
        sequence,
        planes,
        hot,
    }))
}

/// The blocks that the intent log names, and whether it may lack some.
fn read_intent(
    layout: &Layout,
    read: &mut impl FnMut(ByteRange) -> Option<Vec<u8>>,
) -> (Bits, bool) {
    let mut hot = Bits::new(layout.blocks());
    let len = 2 * u64::from(layout.intent_blocks) * BLOCK_BYTES;
    let bytes = ByteRange::new(layout.intent_offset(Slot::B), len).and_then(read);
    let log =
        bytes.and_then(|bytes| intent::parse(&bytes, layout.intent_blocks, layout.regions()).ok());
    let Some(log) = log else {
        hot.set_all();
        return (hot, true);
    };
    let incomplete = log.incomplete;
    for region in log.regions() {
        hot.set(region_blocks(*region));
    }
    if incomplete {
        hot.set_all();
    }
    (hot, incomplete)
}

/// The bitmaps, and how many blocks of them are lost.
fn read_planes(
    layout: &Layout,
    read: &mut impl FnMut(ByteRange) -> Option<Vec<u8>>,
) -> (Planes, u64) {
    let mut planes = Planes::new(layout);
    let (mut index, mut lost) = (0, 0);
    while index < layout.bitmap_blocks {
        let count = (layout.bitmap_blocks - index).min(READ_MAX);
        let len = count * 2 * BLOCK_BYTES;
        let bytes = ByteRange::new(layout.bitmap_offset(index + count - 1, Slot::A), len);
        let bytes = bytes.and_then(&mut *read);
        // What is not given is opened as nothing, and so counts as lost.
        let bytes = bytes.unwrap_or_default();
        for (place, pair) in (index..index + count).rev().zip(pairs(&bytes)) {
            if planes.load(place, pair) != Ok(true) {
                planes.mark_block(place);
                lost += 1;
            }
        }
        index += count;
    }
    (planes, lost)
}

/// Pairs of blocks, then empty ones without end.
fn pairs(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = bytes.chunks_exact(2 * SEALED_BYTES);
    whole.chain(std::iter::repeat(&[][..]))
}
