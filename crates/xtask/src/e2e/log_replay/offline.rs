//! A replica's disk, looked at without a daemon: whether it attaches, and what its metadata names.
//!
//! Attaching is the product's; what the metadata names is read here once more, independently of it.

use std::collections::BTreeSet;

use mirror::config::Config;
use mirror::control::Report;
use mirror::io::{DiskOp, Input, Output};
use mirror::replica::Replica;
use wire::layout::{
    self, BITS_PER_BLOCK, BlockKind, Layout, Newest, SEALED_BYTES, Slot, Superblock,
};
use wire::units::{BLOCK_BYTES, REGION_BYTES};
use wire::{Epoch, Generation, NodeId, Time};

use crate::failure::{Failure, Outcome};

/// An attaching replica does fewer operations than this.
const STEPS_MAX: usize = 10_000;

/// Generation and epoch of a disk that attaches; its content stays as it is.
pub(crate) fn attach(disk: &[u8]) -> Outcome<(Generation, Epoch)> {
    let bytes = u64::try_from(disk.len()).unwrap_or(0);
    let now = Time::from_nanos(1);
    let mut replica = Replica::new(Config::lan(NodeId(0), bytes, 1_000, 1), now);
    for _ in 0..STEPS_MAX {
        match replica.poll() {
            Some(Output::Disk { io, op }) => {
                let result = Ok(read(disk, &op));
                replica.handle(now, Input::DiskDone { io, result });
            }
            Some(Output::Report(Report::Attached { before, epoch, .. })) => {
                return Ok((before, epoch));
            }
            Some(Output::Report(Report::AttachFailed { reason, .. })) => {
                return Err(Failure::new("a prefix of the log does not attach").because(reason));
            }
            Some(other) => return Err(Failure::new(format!("{other:?} while attaching"))),
            None => break,
        }
    }
    Err(Failure::new("a prefix of the log does not end attaching"))
}

/// Writes change nothing here: each prefix is attached once.
fn read(disk: &[u8], op: &DiskOp) -> Vec<u8> {
    match op {
        DiskOp::MetaRead { offset, len } => range(disk, *offset, *len).to_vec(),
        DiskOp::Read { .. }
        | DiskOp::Write { .. }
        | DiskOp::Zero { .. }
        | DiskOp::Flush
        | DiskOp::MetaWrite { .. } => Vec::new(),
    }
}

fn range(disk: &[u8], offset: u64, len: u64) -> &[u8] {
    let at = usize::try_from(offset).unwrap_or(usize::MAX);
    let len = usize::try_from(len).unwrap_or(0);
    disk.get(at..)
        .and_then(|d| d.get(..len))
        .unwrap_or_default()
}

/// The metadata of a disk.
pub(crate) struct Named<'a> {
    disk: &'a [u8],
    layout: Layout,
    /// Regions of the intent log; none if it names everything.
    hot: Option<BTreeSet<u64>>,
}

impl<'a> Named<'a> {
    pub(crate) fn of(disk: &'a [u8]) -> Option<Self> {
        let bytes = u64::try_from(disk.len()).ok()?;
        let [a, b] = [Slot::A, Slot::B].map(|slot| {
            let at = Layout::super_offset(bytes, slot);
            layout::open(BlockKind::Super, 0, range(disk, at, BLOCK_BYTES))
        });
        let Newest::Known(_, _, content) = layout::newest(a, b) else {
            return None;
        };
        let found = Superblock::parse(&content).ok()?;
        let layout = Layout::with_data(bytes, found.data_bytes, found.intent_blocks)?;
        let hot = hot(disk, &layout);
        Some(Self { disk, layout, hot })
    }

    /// Size of the volume.
    pub(crate) const fn data_bytes(&self) -> u64 {
        self.layout.data_bytes
    }

    /// Whether a block of 4 KiB may differ from the peer's, by this metadata.
    pub(crate) fn has(&self, block: u64) -> bool {
        let region = block * BLOCK_BYTES / REGION_BYTES;
        self.hot.as_ref().is_none_or(|hot| hot.contains(&region)) || self.is_marked(block)
    }

    fn is_marked(&self, block: u64) -> bool {
        let index = Layout::bitmap_index(0, block / BITS_PER_BLOCK);
        let [a, b] = [Slot::A, Slot::B].map(|slot| {
            let at = self.layout.bitmap_offset(index, slot);
            layout::open(BlockKind::Bitmap, index, range(self.disk, at, BLOCK_BYTES))
        });
        let Newest::Known(_, _, content) = layout::newest(a, b) else {
            return true;
        };
        let bit = block % BITS_PER_BLOCK;
        let byte = usize::try_from(bit / 8).ok().and_then(|at| content.get(at));
        byte.is_none_or(|byte| byte & (1 << (bit % 8)) != 0)
    }
}

/// The newest list of which every block is whole.
fn hot(disk: &[u8], layout: &Layout) -> Option<BTreeSet<u64>> {
    let lists = [Slot::A, Slot::B].map(|slot| {
        let len = u64::from(layout.intent_blocks) * BLOCK_BYTES;
        let blocks = range(disk, layout.intent_offset(slot), len).chunks(SEALED_BYTES);
        let opened: Option<Vec<(u64, Vec<u8>)>> = (0..)
            .zip(blocks)
            .map(|(place, block)| layout::open(BlockKind::Intent, place, block).ok())
            .collect();
        let opened = opened?;
        let sequence = opened.first()?.0;
        let same = opened.iter().all(|(s, _)| *s == sequence);
        let entries = opened
            .iter()
            .flat_map(|(_, content)| content.chunks_exact(4));
        let regions =
            entries.filter_map(|e| Some(u64::from(u32::from_le_bytes(e.try_into().ok()?))));
        same.then(|| (sequence, regions.collect::<BTreeSet<u64>>()))
    });
    let newest = lists
        .into_iter()
        .flatten()
        .max_by_key(|(sequence, _)| *sequence);
    newest.map(|(_, regions)| regions)
}
