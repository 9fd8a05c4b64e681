//! Writing a new replica's metadata.

use super::used::Unused;
use host::disk::Disk;
use host::ring::Buf;
use wire::layout::{
    BlockFault, BlockKind, CONTENT_BYTES, Layout, Pair, ReplicaState, SEALED_BYTES, Slot,
    Superblock, open, seal,
};
use wire::seed::Seed;
use wire::units::BLOCK_BYTES;
use wire::version::Features;
use wire::{Epoch, Generation};

/// Bytes of metadata that are written at once.
const CHUNK_BLOCKS: usize = 256;

/// What a replica is made as.
#[derive(Debug)]
pub(super) struct Made<'a> {
    pub(super) layout: Layout,
    pub(super) state: ReplicaState,
    /// What is known of the others from the beginning.
    pub(super) pairs: Vec<Pair>,
    pub(super) seed: Option<Seed>,
    /// Everything else is marked against them; none: nothing is.
    pub(super) unused: Option<&'a Unused>,
}

/// What was a replica is none any more.
pub(super) fn blank(disk: &Disk) -> std::io::Result<()> {
    let zeros = Buf::zeroed(2 * SEALED_BYTES).freeze();
    disk.write_now(Layout::super_offset(disk.size(), Slot::B), &zeros)
}

/// Superblocks at the end of a disk whose metadata is on a device of its own now: without that device they would be found, and
/// taken for the newest.
fn blank_inner(disk: &Disk) -> std::io::Result<()> {
    let Some(apart) = disk.external() else {
        return Ok(());
    };
    let mut block = Buf::zeroed(SEALED_BYTES);
    disk.read_now(0, &mut block)?;
    let used = super::filesystem(&block).map_or(0, |(_, bytes)| bytes);
    for slot in [Slot::A, Slot::B] {
        let at = Layout::super_offset(apart.disk_bytes, slot);
        disk.read_now(at, &mut block)?;
        let opened = open(BlockKind::Super, 0, &block);
        let left = matches!(opened, Ok(_) | Err(BlockFault::Newer(_)));
        // In a file system it is the content of a file.
        if left && used <= at {
            disk.write_now(at, &Buf::zeroed(SEALED_BYTES).freeze())?;
        }
    }
    Ok(())
}

impl Made<'_> {
    /// Bitmap and intent log first, the superblocks last: a crash before leaves no replica, and not an older one either.
    pub(super) fn write(&self, disk: &Disk) -> std::io::Result<()> {
        blank(disk)?;
        let layout = &self.layout;
        let mut blocks: Vec<(u64, [u8; SEALED_BYTES])> = Vec::new();
        for index in (0..layout.bitmap_blocks).rev() {
            let block = seal(BlockKind::Bitmap, index, 1, &self.marks(index));
            for slot in [Slot::A, Slot::B] {
                blocks.push((layout.bitmap_offset(index, slot), block));
            }
            if blocks.len() >= CHUNK_BLOCKS {
                write_run(disk, &mut blocks)?;
            }
        }
        for slot in [Slot::B, Slot::A] {
            for index in 0..u64::from(layout.intent_blocks) {
                let offset = layout.intent_offset(slot) + index * BLOCK_BYTES;
                blocks.push((offset, seal(BlockKind::Intent, index, 1, &[])));
            }
        }
        write_run(disk, &mut blocks)?;
        let block = self.superblock(disk).seal(1);
        for slot in [Slot::B, Slot::A] {
            disk.write_now(
                Layout::super_offset(disk.size(), slot),
                &Buf::copy_of(&block).freeze(),
            )?;
        }
        blank_inner(disk)
    }

    /// The content of a block of the bitmap.
    fn marks(&self, index: u64) -> Vec<u8> {
        let (plane, at) = Layout::in_plane(index);
        let known = usize::try_from(plane).is_ok_and(|plane| plane < self.pairs.len());
        match self.unused {
            Some(unused) if known => unused.marks(at, self.layout.blocks()),
            Some(_) | None => vec![0; CONTENT_BYTES],
        }
    }

    fn superblock(&self, disk: &Disk) -> Superblock {
        Superblock {
            features: Features::OURS,
            mirror: None,
            replica: crate::engine::random_id(),
            data_bytes: self.layout.data_bytes,
            ready_bytes: self.layout.data_bytes,
            settled_bytes: self.layout.data_bytes,
            intent_blocks: self.layout.intent_blocks,
            generation: Generation(0),
            epoch: Epoch(0),
            state: self.state,
            boot: 0,
            led: false,
            undo: None,
            pairs: self.pairs.clone(),
            source: None,
            seed: self.seed,
            external: disk.external(),
        }
    }
}

/// Writes blocks that follow each other as one.
fn write_run(disk: &Disk, blocks: &mut Vec<(u64, [u8; SEALED_BYTES])>) -> std::io::Result<()> {
    let mut run: Vec<u8> = Vec::new();
    let mut start = 0;
    for (offset, block) in blocks.drain(..) {
        let follows = !run.is_empty() && start + u64::try_from(run.len()).unwrap_or(0) == offset;
        if !follows {
            flush_run(disk, start, &run)?;
            run.clear();
            start = offset;
        }
        run.extend_from_slice(&block);
    }
    flush_run(disk, start, &run)
}

fn flush_run(disk: &Disk, start: u64, run: &[u8]) -> std::io::Result<()> {
    if run.is_empty() {
        return Ok(());
    }
    disk.write_now(start, &Buf::copy_of(run).freeze())
}
