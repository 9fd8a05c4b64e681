//! Making a replica that nobody runs larger, after its disk was enlarged.
//!
//! The metadata is found from the disk's end, so it has to move there. What is written, each step durable before the next:
//!
//! ```text
//! moved:     blank both new super places │ new bitmap, new intent log │ super B │ super A │ zeros over the old metadata
//! in place:  everything marked, in both places of the old bitmap │ new bitmap │ super
//! ```
//!
//! *Moved*: nothing of the old metadata is touched before the new is whole, and until then the disk's end shows none: the same
//! command finds the old one and begins again. *In place* (the disk did not grow, the volume did): the new bitmap lies over
//! the old one; so the old one names everything before that, and whatever a crash leaves of it, it forgets nothing.
//!
//! What the volume gained is marked: the next resync makes it equal.
//!
//! Metadata on a device of its own does not move when the disk is enlarged: the volume grows *in place*, or only the
//! superblock is written, which names the disk ([`named`]).

use crate::bits::Bits;
use crate::inspect::{Contents, Found, inspect};
use crate::intent;
use wire::layout::{
    self, BITS_PER_BLOCK, BlockKind, CONTENT_BYTES, Layout, SEALED_BYTES, Slot, Superblock,
};
use wire::mutant::{self, Bug};
use wire::units::{BLOCK_BYTES, REGION_BYTES};
use wire::{ByteCount, ByteRange, External};

/// Blocks of the bitmap, each in two places, that are written at once: 1 MiB.
const WRITE_MAX: u64 = 128;
/// Bytes that are searched at once.
const SEARCH_BYTES: u64 = 1 << 20;

/// What is to be done with the disk. It is durable before the next step begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Writes these bytes.
    Write {
        /// Byte offset on the disk.
        offset: u64,
        /// What, in whole blocks.
        bytes: Vec<u8>,
    },
    /// Makes a part of the disk read as zeros.
    Zero(ByteRange),
}

/// Why a replica does not become larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrowFault {
    /// It is as large as asked for, or as large as the disk lets it.
    NotLarger {
        /// Size of the volume.
        now: ByteCount,
    },
    /// The volume and its metadata would not fit the disk, or the size is no multiple of 4 KiB.
    DoesNotFit {
        /// Largest volume that fits.
        most: ByteCount,
    },
    /// The new metadata would lie over the old one: the disk grew by too little.
    Overlap {
        /// The disk must have at least this size.
        needed: ByteCount,
    },
    /// Something of the metadata is lost: it is not moved.
    Damaged,
}

/// How a replica becomes larger.
#[derive(Debug)]
pub struct Growth {
    /// Where everything lies afterwards.
    pub layout: Layout,
    /// Where it lies now.
    pub from: Layout,
    superblock: Superblock,
    slot: Slot,
    sequence: u64,
    bitmap_sequence: u64,
    bitmap_slots: Vec<Slot>,
    /// Of each plane.
    marked: Vec<Bits>,
    hot: Vec<u32>,
}

impl Growth {
    /// Of the replica `contents` on a disk that has `disk_bytes` now. The volume gets `data_bytes`, or all that fits. Where the
    /// metadata is on a device of its own, the superblock in `contents` names the disk as it is now.
    ///
    /// # Errors
    /// [`GrowFault`]; nothing is to be written then.
    pub fn plan(
        contents: &Contents,
        disk_bytes: u64,
        data_bytes: Option<u64>,
    ) -> Result<Self, GrowFault> {
        let own = &contents.superblock;
        let begins = own.external.as_ref().map(|disk| disk.disk_bytes);
        let most = match begins {
            Some(begins) => Layout::for_external(begins, disk_bytes, own.intent_blocks),
            None => Layout::for_disk(disk_bytes, own.intent_blocks),
        };
        let most = most.map_or(own.data_bytes, |layout| layout.data_bytes);
        if contents.doubtful || contents.intent_incomplete || contents.bitmap_lost > 0 {
            return Err(GrowFault::Damaged);
        }
        let wanted = data_bytes.unwrap_or(most);
        let layout = Layout::with_data(disk_bytes, wanted, own.intent_blocks)
            .and_then(|layout| match begins {
                Some(begins) => layout.beside(begins),
                None => Some(layout),
            })
            .filter(|layout| layout.regions() <= u64::from(u32::MAX))
            .ok_or(GrowFault::DoesNotFit {
                most: ByteCount(most),
            })?;
        let from = contents.layout;
        let moved = layout.disk_bytes > from.disk_bytes;
        // On a larger disk the metadata moves, even if the volume stays as it is: it is found from the disk's end.
        let least = from.data_bytes + u64::from(!moved);
        if wanted < least && (data_bytes.is_some() || !moved) {
            return Err(GrowFault::NotLarger {
                now: ByteCount(from.data_bytes),
            });
        }
        if moved && overlaps(&layout, &from) {
            return Err(GrowFault::Overlap {
                needed: ByteCount(enough(layout, &from, data_bytes)),
            });
        }
        let marked = contents.planes.marks();
        let marked = marked.map(|old| grown(old, &layout)).collect();
        Ok(Self {
            layout,
            from,
            superblock: Superblock {
                data_bytes: layout.data_bytes,
                // It leads back to the smaller volume.
                undo: None,
                ready_bytes: layout.data_bytes,
                settled_bytes: layout.data_bytes,
                ..own.clone()
            },
            slot: contents.slot,
            sequence: contents.sequence,
            bitmap_sequence: contents.planes.sequence(),
            bitmap_slots: contents.planes.slots().collect(),
            marked,
            hot: regions(&contents.hot),
        })
    }

    /// True if the metadata goes to another place.
    #[must_use]
    pub const fn is_moved(&self) -> bool {
        self.layout.disk_bytes > self.from.disk_bytes
    }

    /// What is to be done, in this order.
    pub fn steps(&self) -> Box<dyn Iterator<Item = Step> + '_> {
        if self.is_moved() {
            Box::new(self.move_steps())
        } else {
            Box::new(self.stay_steps())
        }
    }

    fn move_steps(&self) -> impl Iterator<Item = Step> + '_ {
        let end = self.layout.disk_bytes;
        let super_at = move |slot| Layout::super_offset(end, slot);
        let blank = ByteRange::new(super_at(Slot::B), 2 * BLOCK_BYTES);
        let logs = [Slot::B, Slot::A].map(|slot| Step::Write {
            offset: self.layout.intent_offset(slot),
            bytes: intent::encode(&self.hot, self.layout.intent_blocks, 1),
        });
        // The second place is written for the first time with the second sequence: so both begin with the first.
        let supers = [Slot::B, Slot::A].map(|slot| Step::Write {
            offset: super_at(slot),
            bytes: self.superblock.seal(1).to_vec(),
        });
        let old = self.from.metadata_offset();
        let old = ByteRange::new(old, self.from.disk_bytes - old);
        let early = old.filter(|_| mutant::has(Bug::MetadataBlankedEarly));
        (early.into_iter().chain(blank).map(Step::Zero))
            .chain(pairs(&self.layout, 1, move |index| self.words(index)))
            .chain(logs)
            .chain(supers)
            .chain(old.into_iter().map(Step::Zero))
    }

    fn stay_steps(&self) -> impl Iterator<Item = Step> + '_ {
        let (from, first) = (self.from, self.bitmap_sequence + 1);
        // The place of the older copy first: a torn write of the newest then leaves this one.
        let trusted = mutant::has(Bug::OldBitmapTrusted);
        let passes = [false, true].into_iter().filter(move |_| !trusted);
        let all = passes.flat_map(move |newest| {
            let slots = (0..).zip(&self.bitmap_slots);
            slots.map(move |(index, slot)| {
                let slot = if newest { *slot } else { slot.other() };
                let sequence = first + u64::from(newest);
                let everything = [0xFF; CONTENT_BYTES];
                let block = layout::seal(BlockKind::Bitmap, index, sequence, &everything);
                Step::Write {
                    offset: from.bitmap_offset(index, slot),
                    bytes: block.to_vec(),
                }
            })
        });
        let superblock = Step::Write {
            offset: Layout::super_offset(self.layout.disk_bytes, self.slot.other()),
            bytes: self.superblock.seal(self.sequence + 1).to_vec(),
        };
        all.chain(pairs(&self.layout, first + 2, move |index| {
            self.words(index)
        }))
        .chain([superblock])
    }

    /// The content of a block of the new bitmap.
    fn words(&self, index: u64) -> Vec<u8> {
        let (plane, at) = Layout::in_plane(index);
        let plane = usize::try_from(plane).ok();
        let range = at * BITS_PER_BLOCK..(at + 1) * BITS_PER_BLOCK;
        let words = plane.and_then(|plane| self.marked.get(plane));
        let words = words.map_or(&[][..], |bits| bits.words(range));
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

/// Writes both places of every block of a bitmap.
fn pairs<'a>(
    layout: &'a Layout,
    sequence: u64,
    content: impl Fn(u64) -> Vec<u8> + 'a,
) -> impl Iterator<Item = Step> + 'a {
    let count = layout.bitmap_blocks.div_ceil(WRITE_MAX);
    (0..count).map(move |chunk| {
        let first = chunk * WRITE_MAX;
        let last = (first + WRITE_MAX).min(layout.bitmap_blocks);
        let mut bytes = Vec::new();
        for index in (first..last).rev() {
            let block = layout::seal(BlockKind::Bitmap, index, sequence, &content(index));
            bytes.extend_from_slice(&block);
            bytes.extend_from_slice(&block);
        }
        Step::Write {
            offset: layout.bitmap_offset(last - 1, Slot::A),
            bytes,
        }
    })
}

/// True if the new metadata, or the volume, would lie over the old metadata.
pub(crate) const fn overlaps(layout: &Layout, from: &Layout) -> bool {
    layout.metadata_offset() < from.disk_bytes || layout.data_bytes < from.data_bytes
}

/// The size of a disk on which they do not. A larger disk needs a larger bitmap, so it takes a few steps.
pub(crate) fn enough(mut layout: Layout, from: &Layout, data_bytes: Option<u64>) -> u64 {
    while overlaps(&layout, from) {
        let first = layout.metadata_offset();
        let short = from.disk_bytes.saturating_sub(first).max(BLOCK_BYTES);
        let disk = layout.disk_bytes.saturating_add(short);
        let larger = match data_bytes {
            Some(bytes) => Layout::with_data(disk, bytes, layout.intent_blocks),
            None => Layout::for_disk(disk, layout.intent_blocks),
        };
        match larger {
            Some(larger) if larger.disk_bytes > layout.disk_bytes => layout = larger,
            Some(_) | None => break,
        }
    }
    layout.disk_bytes
}

/// Marks for a larger volume: what it gained is marked.
fn grown(old: &Bits, layout: &Layout) -> Bits {
    let mut marked = Bits::new(layout.blocks());
    marked.set_words(0, old.words(0..old.len()).iter().copied());
    if !mutant::has(Bug::GainUnmarked) {
        marked.set(old.len()..layout.blocks());
    }
    marked
}

/// The regions whose blocks are set.
fn regions(bits: &Bits) -> Vec<u32> {
    let blocks = REGION_BYTES / BLOCK_BYTES;
    let mut regions = Vec::new();
    let mut at = 0;
    while let Some(block) = bits.next_set(at) {
        let region = block / blocks;
        at = (region + 1) * blocks;
        regions.extend(u32::try_from(region).ok());
    }
    regions
}

/// The write of a superblock that names the disk of metadata on a device of its own as `disk`, after that was enlarged or
/// replaced by a whole copy.
#[must_use]
pub fn named(contents: &Contents, disk: &External) -> Step {
    let superblock = Superblock {
        external: Some(disk.clone()),
        ..contents.superblock.clone()
    };
    Step::Write {
        offset: Layout::super_offset(contents.layout.disk_bytes, contents.slot.other()),
        bytes: superblock.seal(contents.sequence + 1).to_vec(),
    }
}

/// Where a replica's disk ended before it was enlarged: the replica nearest to the end of what the disk is now, with its
/// size then. Nothing before `from` is looked at. `read` gives the bytes of a range, or none if the disk does not give them.
pub fn find(
    from: u64,
    disk_bytes: u64,
    mut read: impl FnMut(ByteRange) -> Option<Vec<u8>>,
) -> Option<(u64, Box<Contents>)> {
    let mut end = disk_bytes / BLOCK_BYTES * BLOCK_BYTES;
    while end > from {
        let start = end.saturating_sub(SEARCH_BYTES).max(from);
        let bytes = ByteRange::new(start, end - start).and_then(&mut read);
        let bytes = bytes.unwrap_or_default();
        let blocks = (start..)
            .step_by(SEALED_BYTES)
            .zip(bytes.chunks_exact(SEALED_BYTES));
        let mut found: Vec<u64> = blocks
            .filter(|(_, block)| is_super(block))
            .map(|(at, _)| at)
            .collect();
        while let Some(at) = found.pop() {
            // It is place A, or place B below a damaged A.
            for size in [at + BLOCK_BYTES, at + 2 * BLOCK_BYTES] {
                if let Found::Replica(contents) = inspect(size.min(disk_bytes), &mut read).replica
                    && !contents.intent_incomplete
                    && contents.bitmap_lost == 0
                {
                    return Some((size, contents));
                }
            }
        }
        end = start;
    }
    None
}

fn is_super(block: &[u8]) -> bool {
    let opened = layout::open(BlockKind::Super, 0, block);
    opened.is_ok_and(|(_, content)| Superblock::parse(&content).is_ok())
}
