//! One plane of the bitmap: blocks that may differ from what one other replica has durably.
//!
//! Two sets of it matter: what is marked (in memory, `base`) and what is certainly marked on disk (`disk`). A region
//! may leave the intent log only when its marked blocks are marked on disk too, so a crash forgets nothing. More marks on
//! disk than in memory are harmless: they cost a resync of blocks that are equal.
//!
//! Marks go away only at a *point*: a flush or a resync's commit that the peer answered. What is marked while the point
//! is on its way (`fresh`) stays.

use crate::bits::Bits;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use wire::ByteRange;
use wire::layout::{
    self, BITS_PER_BLOCK, BlockFault, BlockKind, CONTENT_BYTES, Layout, Newest, SEALED_BYTES, Slot,
};
use wire::mutant::{self, Bug};
use wire::units::{BLOCK_BYTES, REGION_BYTES};

/// Blocks (bits) per region.
pub(crate) const BLOCKS_PER_REGION: u64 = REGION_BYTES / BLOCK_BYTES;
/// Most bitmap blocks being written at once.
const WRITES_MAX: usize = 8;
/// Most runs of regions that a Hello names; beyond it, neighbours are joined (a superset).
pub(crate) const RUNS_MAX: usize = 65_536;

#[derive(Debug)]
pub(crate) struct Bitmap {
    /// Its number.
    plane: u64,
    base: Bits,
    /// Marked blocks of which nobody knows that they differ: they were in the intent log, or everything was marked. Lost with
    /// the process: then a mark says no more than that the block may differ.
    doubtful: Bits,
    /// The point that is on its way, and the blocks marked since it was sent.
    fresh: Option<(u64, Bits)>,
    points_made: u64,
    /// Marked on disk, whichever of the two places of a block is found after a crash.
    disk: Bits,
    places: Vec<Place>,
    /// Those of blocks behind the end of a volume that was larger: if it becomes larger again, their next copies are newer still.
    gone: Vec<Place>,
    /// Blocks of the bitmap to be written as soon as possible.
    wanted: BTreeSet<u64>,
    /// Being written, with the content.
    writing: BTreeMap<u64, Vec<u64>>,
    /// Blocks whose copies on disk may still hold marks that the latest point took away, and the sequence of the write that
    /// ends that.
    clearing: BTreeMap<u64, u64>,
}

/// Where the newest copy of one block of the bitmap is.
#[derive(Clone, Copy, Debug)]
struct Place {
    slot: Slot,
    sequence: u64,
}

impl Bitmap {
    /// Of a layout, nothing marked, nothing on disk yet. [`Bitmap::load`] fills it. It is the plane of this number.
    pub(crate) fn new(layout: &Layout, plane: u64) -> Self {
        let place = Place {
            slot: Slot::B,
            sequence: 0,
        };
        let places = usize::try_from(layout.plane_blocks()).unwrap_or(usize::MAX);
        Self {
            plane,
            base: Bits::new(layout.blocks()),
            doubtful: Bits::new(layout.blocks()),
            fresh: None,
            points_made: 0,
            disk: Bits::new(layout.blocks()),
            places: vec![place; places],
            gone: Vec::new(),
            wanted: BTreeSet::new(),
            writing: BTreeMap::new(),
            clearing: BTreeMap::new(),
        }
    }

    /// Takes the two places of block `index` as they were read. False if both are lost, or the newer one may be: then
    /// everything in it counts as marked, and is written again.
    ///
    /// # Errors
    /// [`BlockFault::Newer`] when a newer release wrote it.
    pub(crate) fn load(&mut self, index: u64, a_then_b: &[u8]) -> Result<bool, BlockFault> {
        let (a, b) = a_then_b.split_at(SEALED_BYTES.min(a_then_b.len()));
        let (a, b) = (
            layout::open(BlockKind::Bitmap, index, a),
            layout::open(BlockKind::Bitmap, index, b),
        );
        if let (Err(fault @ BlockFault::Newer(_)), _) | (_, Err(fault @ BlockFault::Newer(_))) =
            (&a, &b)
        {
            return Err(*fault);
        }
        let (_, index) = Layout::in_plane(index);
        let bits = Self::bits_of(index);
        let newest = layout::newest(a, b);
        if let Newest::Known(slot, sequence, _) | Newest::Doubtful(slot, sequence, _) = newest
            && let Some(place) = self.place_mut(index)
        {
            *place = Place { slot, sequence };
        }
        let Newest::Known(_, _, content) = newest else {
            if !mutant::has(Bug::LostMetadataClean) {
                self.base.set(bits);
            }
            self.wanted.insert(index);
            return Ok(false);
        };
        let words = content
            .chunks_exact(8)
            .map(|word| word.try_into().map_or(u64::MAX, u64::from_le_bytes));
        self.base.set_words(bits.start, words.clone());
        self.disk.set_words(bits.start, words);
        Ok(true)
    }

    fn place_mut(&mut self, index: u64) -> Option<&mut Place> {
        self.places.get_mut(usize::try_from(index).ok()?)
    }

    const fn bits_of(index: u64) -> Range<u64> {
        index * BITS_PER_BLOCK..(index + 1) * BITS_PER_BLOCK
    }

    /// The marked blocks.
    pub(crate) const fn base(&self) -> &Bits {
        &self.base
    }

    /// Marks blocks.
    pub(crate) fn mark(&mut self, blocks: Range<u64>) {
        if let Some((_, fresh)) = &mut self.fresh {
            fresh.set(blocks.clone());
        }
        self.doubtful.clear(blocks.clone());
        self.base.set(blocks);
    }

    /// Marks everything that a block of the bitmap counts.
    pub(crate) fn mark_block(&mut self, index: u64) {
        self.mark(Self::bits_of(Layout::in_plane(index).1));
    }

    /// Marks all blocks of a region that may differ.
    pub(crate) fn mark_region(&mut self, region: u32) {
        if let Some((_, fresh)) = &mut self.fresh {
            // Those that are marked already, too: a point on its way must not take them away.
            fresh.set(region_blocks(region));
        }
        for block in region_blocks(region) {
            if !self.base.get(block) {
                self.mark(block..block + 1);
                self.doubtful.set(block..block + 1);
            }
        }
    }

    /// True if no marked block of the range is known to differ.
    pub(crate) fn is_doubtful(&self, blocks: Range<u64>) -> bool {
        self.base.within(&self.doubtful, blocks)
    }

    /// Marks everything and has it written.
    pub(crate) fn mark_all(&mut self) {
        self.doubtful.set_all();
        self.base.set_all();
        if let Some((_, fresh)) = &mut self.fresh {
            fresh.set_all();
        }
        self.settle();
    }

    /// True if every marked block of the region is marked on disk too.
    pub(crate) fn covers(&self, region: u32) -> bool {
        self.base.within(&self.disk, region_blocks(region))
    }

    /// Has the region's marks written.
    pub(crate) fn want(&mut self, region: u32) {
        if self.covers(region) {
            return;
        }
        let index = region_blocks(region).start / BITS_PER_BLOCK;
        let words = self.base.words(Self::bits_of(index));
        let on_its_way = self.writing.get(&index).is_some_and(|new| new == words);
        if !on_its_way {
            self.wanted.insert(index);
        }
    }

    /// Has every block written whose copy on disk differs, or will once what is being written is there.
    pub(crate) fn settle(&mut self) {
        for index in (0..).take(self.places.len()) {
            let bits = Self::bits_of(index);
            let coming = self.writing.get(&index).map(Vec::as_slice);
            let coming = coming.unwrap_or_else(|| self.disk.words(bits.clone()));
            if self.base.words(bits) != coming {
                self.wanted.insert(index);
            }
        }
    }

    /// True when no write is due and none under way.
    pub(crate) fn is_settled(&self) -> bool {
        self.wanted.is_empty() && self.writing.is_empty()
    }

    /// A point is sent to the peer: what is marked from here on is not covered by it. It replaces one on its way.
    pub(crate) fn begin_point(&mut self) -> u64 {
        self.points_made += 1;
        self.fresh = Some((self.points_made, Bits::new(self.base.len())));
        self.points_made
    }

    /// True while a point is on its way.
    pub(crate) const fn has_point(&self) -> bool {
        self.fresh.is_some()
    }

    /// The peer has everything durably that was marked before the point: only what is fresh stays marked.
    pub(crate) fn commit_point(&mut self, point: u64) {
        if let Some((_, fresh)) = self.fresh.take_if(|(latest, _)| *latest == point) {
            self.base = if mutant::has(Bug::FreshMarksForgotten) {
                Bits::new(fresh.len())
            } else {
                fresh
            };
            self.settle();
            self.clearing = self.unsettled();
        }
    }

    /// The blocks that are to be written or being written, and the sequence of the write after which the disk has what is
    /// marked now, or more that was marked later.
    fn unsettled(&self) -> BTreeMap<u64, u64> {
        let places = (0..).zip(&self.places);
        let last = |(index, place): (u64, &Place)| {
            if self.wanted.contains(&index) {
                Some((index, place.sequence + 1))
            } else if self.writing.contains_key(&index) {
                Some((index, place.sequence))
            } else {
                None
            }
        };
        places.filter_map(last).collect()
    }

    /// True once no mark is on disk any more that the latest point took away.
    pub(crate) fn is_cleared(&self) -> bool {
        self.clearing.is_empty()
    }

    /// The point came to nothing: every mark stays.
    pub(crate) fn cancel_point(&mut self) {
        self.fresh = None;
    }

    /// The write that is due, if any: (block of the bitmap, byte offset, sealed block).
    pub(crate) fn next_write(&mut self, layout: &Layout) -> Option<(u64, u64, Vec<u8>)> {
        if self.writing.len() >= WRITES_MAX {
            return None;
        }
        let index = *self.wanted.iter().find(|i| !self.writing.contains_key(i))?;
        self.wanted.remove(&index);
        let place = self.place_mut(index)?;
        place.sequence += 1;
        place.slot = place.slot.other();
        let place = *place;
        let bits = Self::bits_of(index);
        let mut content = Vec::with_capacity(SEALED_BYTES);
        for word in self.base.words(bits.clone()) {
            content.extend_from_slice(&word.to_le_bytes());
        }
        // Until the write is done, a crash may show the old or the new copy: only what both mark counts.
        let new = self.base.words(bits.clone()).to_vec();
        let old = self.disk.words(bits.clone());
        let both: Vec<u64> = std::iter::zip(&new, old).map(|(n, o)| n & o).collect();
        self.disk.set_words(bits.start, both.into_iter());
        self.writing.insert(index, new);
        let index = Layout::bitmap_index(self.plane, index);
        let block = layout::seal(BlockKind::Bitmap, index, place.sequence, &content);
        let offset = layout.bitmap_offset(index, place.slot);
        Some((index, offset, block.to_vec()))
    }

    /// The write of a block is durable.
    pub(crate) fn written(&mut self, index: u64) {
        let (_, index) = Layout::in_plane(index);
        if let Some(words) = self.writing.remove(&index) {
            self.disk
                .set_words(Self::bits_of(index).start, words.into_iter());
            let place = self.place_mut(index).map(|place| place.sequence);
            if self.clearing.get(&index).copied() <= place {
                self.clearing.remove(&index);
            }
        }
    }

    /// Where the newest copy of each block is.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.places.iter().map(|place| place.slot)
    }

    /// The volume has another size: marks behind a smaller one's end are gone; a larger one's new blocks are on the disk as
    /// [`laid`] writes them. False if blocks go that are not so any more.
    pub(crate) fn resize(&mut self, layout: &Layout) -> bool {
        let len = layout.blocks();
        for bits in [&mut self.base, &mut self.doubtful, &mut self.disk] {
            bits.resize(len);
        }
        if let Some((_, fresh)) = &mut self.fresh {
            fresh.resize(len);
        }
        let laid = Place {
            slot: Slot::A,
            sequence: LAID,
        };
        let count = layout.plane_blocks();
        let places = usize::try_from(count).unwrap_or(usize::MAX);
        let going = self.places.get(places..).unwrap_or_default();
        let as_laid = going.iter().all(|place| place.sequence == LAID);
        self.places.append(&mut self.gone);
        if self.places.len() < places {
            self.places.resize(places, laid);
        }
        self.gone = self.places.split_off(places);
        self.wanted.retain(|index| *index < count);
        self.clearing.retain(|index, _| *index < count);
        as_laid
    }

    /// The highest sequence of a block.
    pub(crate) fn sequence(&self) -> u64 {
        self.places.iter().map(|p| p.sequence).max().unwrap_or(0)
    }

    /// Forgets every mark and has every block written: a replica that was just created.
    pub(crate) fn format(&mut self) {
        self.clear();
        self.wanted = (0..).take(self.places.len()).collect();
    }

    /// Takes every mark away, in memory.
    pub(crate) fn clear(&mut self) {
        self.base.clear(0..self.base.len());
    }

    /// The regions with a marked block, as runs of (first, count), at most [`RUNS_MAX`]: a superset if there were more.
    pub(crate) fn region_runs(&self) -> Vec<(u32, u32)> {
        let mut join = 1;
        loop {
            let runs = self.runs_joining(join);
            if runs.len() <= RUNS_MAX {
                return runs;
            }
            join *= 4;
        }
    }

    /// Runs of regions, where a gap of fewer than `join` regions does not end a run.
    fn runs_joining(&self, join: u64) -> Vec<(u32, u32)> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        let mut at = 0;
        while let Some(block) = self.base.next_set(at) {
            let region = block / BLOCKS_PER_REGION;
            at = (region + 1) * BLOCKS_PER_REGION;
            let Ok(region) = u32::try_from(region) else {
                break;
            };
            match runs.last_mut() {
                Some((first, count)) if u64::from(region - (*first + *count)) < join => {
                    *count = region - *first + 1;
                }
                Some(_) | None => runs.push((region, 1)),
            }
        }
        runs
    }
}

/// The sequence of a block that was laid for a volume to grow.
const LAID: u64 = 1;

/// The blocks of all planes, marking nothing, for the parts of the volume that begin in `gain`, if there are any: byte offset and
/// content. Blocks of one part lie next to each other, and the later ones before the earlier.
pub(crate) fn laid(layout: &Layout, gain: ByteRange) -> Option<(u64, Vec<u8>)> {
    let parts = BITS_PER_BLOCK * BLOCK_BYTES;
    let parts = gain.offset().div_ceil(parts)..gain.end().div_ceil(parts);
    let first = Layout::bitmap_index(0, parts.start.max(layout.plane_blocks()));
    let last = Layout::bitmap_index(0, parts.end).checked_sub(1)?;
    if last < first {
        return None;
    }
    let mut bytes = Vec::new();
    for index in (first..=last).rev() {
        let block = layout::seal(BlockKind::Bitmap, index, LAID, &[0; CONTENT_BYTES]);
        bytes.extend_from_slice(&block);
        bytes.extend_from_slice(&block);
    }
    Some((layout.bitmap_offset(last, Slot::A), bytes))
}

/// The blocks of a region.
pub(crate) fn region_blocks(region: u32) -> Range<u64> {
    let first = u64::from(region) * BLOCKS_PER_REGION;
    first..first + BLOCKS_PER_REGION
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::for_disk(256 << 20, 1).unwrap()
    }

    fn blank() -> Bitmap {
        Bitmap::new(&layout(), 0)
    }

    fn write_all(bitmap: &mut Bitmap) {
        while let Some((index, _, _)) = bitmap.next_write(&layout()) {
            bitmap.written(index);
        }
    }

    #[test]
    fn a_mark_covers_its_region_only_once_it_is_on_disk() {
        let mut bitmap = blank();
        bitmap.mark(33..34);
        assert!(bitmap.covers(0) && !bitmap.covers(2));
        bitmap.want(2);
        let (index, _, _) = bitmap.next_write(&layout()).unwrap();
        assert!(!bitmap.covers(2), "the write is still under way");
        bitmap.mark(34..35);
        bitmap.written(index);
        assert!(!bitmap.covers(2), "marked behind the write's back");
        bitmap.want(2);
        write_all(&mut bitmap);
        assert!(bitmap.covers(2));
    }

    #[test]
    fn a_clearing_write_under_way_covers_nothing_it_clears() {
        let mut bitmap = blank();
        bitmap.mark(0..1);
        bitmap.settle();
        write_all(&mut bitmap);
        bitmap.clear();
        bitmap.settle();
        let (index, _, _) = bitmap.next_write(&layout()).unwrap();
        bitmap.mark(0..1);
        assert!(!bitmap.covers(0));
        bitmap.written(index);
        assert!(!bitmap.covers(0));
    }

    #[test]
    fn a_point_keeps_what_was_marked_after_it_was_sent() {
        let mut bitmap = blank();
        bitmap.mark(1..3);
        let early = bitmap.begin_point();
        let point = bitmap.begin_point();
        bitmap.mark(2..3);
        bitmap.mark(7..8);
        bitmap.commit_point(early);
        assert_eq!(bitmap.base.ones(), 3, "replaced by the later one");
        bitmap.commit_point(point);
        assert_eq!(bitmap.base.ones(), 2);
        assert!(bitmap.base.get(2) && bitmap.base.get(7));
        bitmap.begin_point();
        bitmap.cancel_point();
        assert_eq!(bitmap.base.ones(), 2);
    }

    #[test]
    fn a_region_that_was_marked_already_outlives_a_point_when_it_is_marked_again() {
        let mut bitmap = blank();
        bitmap.mark_region(3);
        let point = bitmap.begin_point();
        bitmap.mark_region(3);
        bitmap.commit_point(point);
        assert_eq!(bitmap.base.ones(), BLOCKS_PER_REGION);
    }

    #[test]
    fn what_a_point_takes_away_is_cleared_once_no_copy_marks_it() {
        let mut bitmap = blank();
        bitmap.mark(0..8);
        bitmap.settle();
        let (index, _, _) = bitmap.next_write(&layout()).unwrap();
        let point = bitmap.begin_point();
        bitmap.mark(0..1);
        bitmap.commit_point(point);
        assert!(!bitmap.is_cleared(), "eight marks are being written");
        bitmap.written(index);
        assert!(!bitmap.is_cleared(), "they are on disk now");
        let (index, _, _) = bitmap.next_write(&layout()).unwrap();
        bitmap.mark(2..3);
        bitmap.settle();
        bitmap.written(index);
        assert!(bitmap.is_cleared(), "later marks do not count");
        assert!(!bitmap.is_settled());
    }

    #[test]
    fn what_is_being_written_already_is_not_written_again() {
        let mut bitmap = blank();
        bitmap.mark(0..1);
        bitmap.settle();
        let (index, _, _) = bitmap.next_write(&layout()).unwrap();
        bitmap.settle();
        bitmap.written(index);
        assert!(bitmap.is_settled() && bitmap.covers(0));
    }

    #[test]
    fn torn_writes_of_a_block_leave_the_older_marks() {
        let mut bitmap = blank();
        let created = layout::seal(BlockKind::Bitmap, 0, 1, &[0; CONTENT_BYTES]);
        let mut disk = created.repeat(2);
        assert_eq!(bitmap.load(0, &disk), Ok(true));
        let last = BITS_PER_BLOCK - 10;
        for (mark, before) in [(last..last + 5, 0), (last + 5..BITS_PER_BLOCK, 5)] {
            bitmap.mark(mark);
            bitmap.want(u32::try_from(last / BLOCKS_PER_REGION).unwrap());
            let older = disk.clone();
            let (index, offset, bytes) = bitmap.next_write(&layout()).unwrap();
            let at = usize::try_from(offset - layout().bitmap_offset(0, Slot::A)).unwrap();
            for sectors in 1..8 {
                let mut torn = older.clone();
                torn[at..at + sectors * 512].copy_from_slice(&bytes[..sectors * 512]);
                let mut read = blank();
                assert_eq!(read.load(0, &torn), Ok(true));
                assert_eq!(read.base.ones(), before);
            }
            disk[at..at + SEALED_BYTES].copy_from_slice(&bytes);
            bitmap.written(index);
        }
        let mut read = blank();
        assert_eq!(read.load(0, &disk), Ok(true));
        assert_eq!(read.base.ones(), 10);
    }

    #[test]
    fn runs_name_every_marked_region_and_stay_bounded() {
        let mut bitmap = blank();
        bitmap.mark(0..1);
        bitmap.mark(16..33);
        bitmap.mark(160..161);
        assert_eq!(bitmap.region_runs(), [(0, 3), (10, 1)]);
        assert_eq!(bitmap.runs_joining(8), [(0, 11)]);
    }

    /// A volume grows from one block per plane to three: blocks are laid as its parts are cleared, and none of the old ones moves.
    #[test]
    fn a_volume_that_grows_finds_blocks_that_mark_nothing() {
        let disk = 512 << 20;
        let small = Layout::with_data(disk, 100 << 20, 1).unwrap();
        let large = Layout::with_data(disk, 300 << 20, 1).unwrap();
        let base = large.metadata_offset();
        let mut found = BTreeMap::new();
        let piece = 4 << 20;
        for at in (small.data_bytes..large.data_bytes).step_by(4 << 20) {
            let gain = ByteRange::new(at, piece.min(large.data_bytes - at)).unwrap();
            if let Some((offset, bytes)) = laid(&small, gain) {
                assert!(offset >= base && offset < small.metadata_offset());
                for (offset, block) in (offset..).step_by(4096).zip(bytes.chunks(4096)) {
                    assert_eq!(found.insert(offset, block.to_vec()), None, "laid twice");
                }
            }
        }
        let mut bitmap = Bitmap::new(&small, 1);
        bitmap.mark(7..9);
        assert!(bitmap.resize(&large));
        assert_eq!((bitmap.base().ones(), bitmap.slots().count()), (2, 3));
        for index in small.bitmap_blocks..large.bitmap_blocks {
            let [a, b] =
                [Slot::A, Slot::B].map(|slot| found.remove(&large.bitmap_offset(index, slot)));
            let pair = [a.unwrap(), b.unwrap()].concat();
            let mut plane = Bitmap::new(&large, Layout::in_plane(index).0);
            assert_eq!(plane.load(index, &pair), Ok(true));
            assert!(plane.base().is_clear());
        }
        assert!(found.is_empty(), "more was laid than is needed");
        bitmap.mark(large.blocks() - 1..large.blocks());
        bitmap.settle();
        while let Some((index, offset, _)) = bitmap.next_write(&large) {
            assert!(offset >= base, "it is written into the data");
            bitmap.written(index);
        }
        assert!(
            !bitmap.resize(&small),
            "a block that was written is not as it was laid"
        );
        assert_eq!((bitmap.base().ones(), bitmap.slots().count()), (2, 1));
        bitmap.resize(&large);
        assert_eq!(bitmap.slots().count(), 3);
        assert!(
            bitmap.sequence() > LAID,
            "the next copy would not be the newest"
        );
    }
}
