//! The bitmaps: one plane against each other replica that is known.
//!
//! Each pair of replicas shares a baseline, a moment at which the two were equal but for what the intent logs named. Whatever
//! a replica changes after it, by whoever's order, is in its own intent log or in its own plane against the other one, unless
//! it is known that the other one has it durably. What may differ between two replicas is what the two have changed, so
//! it is known from the two alone, whoever was active meanwhile.

use crate::bitmap::{Bitmap, region_blocks};
use crate::bits::Bits;
use crate::machine::Machine;
use crate::nodes::NodeSet;
use std::ops::Range;
use wire::layout::{BlockFault, Layout, PAIRS_MAX, Pair, ReplicaState, Slot};
use wire::{NodeId, SessionId};

#[derive(Debug)]
pub(crate) struct Planes {
    /// Invariant: [`PAIRS_MAX`] of them, in the order of the superblock's pairs.
    planes: Vec<Bitmap>,
}

impl Planes {
    /// Of a layout, nothing marked, nothing on disk yet. [`Planes::load`] fills them.
    pub(crate) fn new(layout: &Layout) -> Self {
        Self {
            planes: (0..)
                .take(PAIRS_MAX)
                .map(|plane| Bitmap::new(layout, plane))
                .collect(),
        }
    }

    /// See [`Bitmap::load`].
    ///
    /// # Errors
    /// [`BlockFault::Newer`] when a newer release wrote it.
    pub(crate) fn load(&mut self, index: u64, a_then_b: &[u8]) -> Result<bool, BlockFault> {
        self.of_block(index)
            .map_or(Ok(true), |plane| plane.load(index, a_then_b))
    }

    fn of_block(&mut self, index: u64) -> Option<&mut Bitmap> {
        let plane = usize::try_from(Layout::in_plane(index).0).ok()?;
        self.planes.get_mut(plane)
    }

    /// The write of a block is durable.
    pub(crate) fn written(&mut self, index: u64) {
        if let Some(plane) = self.of_block(index) {
            plane.written(index);
        }
    }

    /// The write that is due, if any.
    pub(crate) fn next_write(&mut self, layout: &Layout) -> Option<(u64, u64, Vec<u8>)> {
        self.planes
            .iter_mut()
            .find_map(|plane| plane.next_write(layout))
    }

    /// True when no write is due and none under way.
    pub(crate) fn is_settled(&self) -> bool {
        self.planes.iter().all(Bitmap::is_settled)
    }

    /// The volume has another size. Of a larger one the new blocks are on the disk already, and mark nothing. False if blocks
    /// go that are not as they were laid.
    pub(crate) fn resize(&mut self, layout: &Layout) -> bool {
        let mut as_laid = true;
        for plane in &mut self.planes {
            as_laid &= plane.resize(layout);
        }
        as_laid
    }

    /// The marks of each, in the order of the superblock's pairs.
    pub(crate) fn marks(&self) -> impl Iterator<Item = &Bits> {
        self.planes.iter().map(Bitmap::base)
    }

    /// Where the newest copy of each block is, as the blocks are numbered.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> {
        let per = self.planes.first().map_or(0, |plane| plane.slots().count());
        (0..per).flat_map(|at| self.planes.iter().filter_map(move |p| p.slots().nth(at)))
    }

    /// The highest sequence of a block.
    pub(crate) fn sequence(&self) -> u64 {
        self.planes.iter().map(Bitmap::sequence).max().unwrap_or(0)
    }

    /// Marks everything that a block counts.
    pub(crate) fn mark_block(&mut self, index: u64) {
        if let Some(plane) = self.of_block(index) {
            plane.mark_block(index);
        }
    }

    /// Forgets every mark and has every block written.
    pub(crate) fn format(&mut self) {
        for plane in &mut self.planes {
            plane.format();
        }
    }

    /// Marks these blocks in the first `count` planes, and has them written.
    pub(crate) fn mark_known(&mut self, blocks: &Bits, count: usize) {
        for plane in self.planes.iter_mut().take(count) {
            let mut at = 0;
            while let Some(run) = blocks.next_run(at, u64::MAX) {
                at = run.end;
                plane.mark(run);
            }
            plane.settle();
        }
    }

    /// Marks everything against everybody.
    pub(crate) fn mark_all(&mut self) {
        for plane in &mut self.planes {
            plane.mark_all();
        }
    }

    /// No point comes to anything any more.
    pub(crate) fn cancel_points(&mut self) {
        for plane in &mut self.planes {
            plane.cancel_point();
        }
    }
}

impl Machine {
    /// The plane against a node; none if nothing was ever remembered of it.
    pub(crate) fn plane(&self, node: NodeId) -> Option<&Bitmap> {
        let pairs = &self.superblock.get().pairs;
        let at = pairs.iter().position(|pair| pair.node == node)?;
        self.planes.planes.get(at)
    }

    /// The plane against a node, to be marked.
    pub(crate) fn plane_mut(&mut self, node: NodeId) -> Option<&mut Bitmap> {
        let pairs = &self.superblock.get().pairs;
        let at = pairs.iter().position(|pair| pair.node == node)?;
        self.planes.planes.get_mut(at)
    }

    /// Whom planes count against.
    pub(crate) fn paired(&self) -> NodeSet {
        let mut nodes = NodeSet::EMPTY;
        for pair in &self.superblock.get().pairs {
            nodes.insert(pair.node);
        }
        nodes
    }

    /// The plane against everybody in `nodes` of whom something is remembered.
    fn planes_of(&mut self, nodes: NodeSet) -> impl Iterator<Item = &mut Bitmap> {
        let pairs = &self.superblock.get().pairs;
        std::iter::zip(pairs, &mut self.planes.planes)
            .filter(move |(pair, _)| nodes.contains(pair.node))
            .map(|(_, plane)| plane)
    }

    /// Makes sure that there is a plane against a node. Without room, somebody who is not in `keep` is forgotten: later all
    /// of it is compared.
    pub(crate) fn remember(&mut self, node: NodeId, keep: NodeSet) {
        let pairs = &self.superblock.get().pairs;
        if node == self.config.node || pairs.iter().any(|pair| pair.node == node) {
            return;
        }
        let fresh = Pair::new(node);
        if pairs.len() < PAIRS_MAX {
            self.superblock.change(|s| s.pairs.push(fresh));
        } else if let Some(at) = pairs.iter().position(|pair| !keep.contains(pair.node)) {
            self.superblock.change(|s| s.pairs[at] = fresh);
            if let Some(plane) = self.planes.planes.get_mut(at) {
                plane.cancel_point();
            }
        }
    }

    /// Marks blocks against everybody in `nodes`.
    pub(crate) fn mark_against(&mut self, nodes: NodeSet, blocks: &Range<u64>) {
        for plane in self.planes_of(nodes) {
            plane.mark(blocks.clone());
        }
    }

    /// Marks a region, of which nobody knows that it differs, against everybody in `nodes`.
    pub(crate) fn mark_region_against(&mut self, nodes: NodeSet, region: u32) {
        for plane in self.planes_of(nodes) {
            plane.mark_region(region);
        }
    }

    /// Has the region's marks against everybody in `nodes` written.
    pub(crate) fn want_region(&mut self, nodes: NodeSet, region: u32) {
        for plane in self.planes_of(nodes) {
            plane.want(region);
        }
    }

    /// Has every mark against everybody in `nodes` written.
    pub(crate) fn settle_against(&mut self, nodes: NodeSet) {
        for plane in self.planes_of(nodes) {
            plane.settle();
        }
    }

    /// True if every mark against everybody in `nodes` is on disk.
    pub(crate) fn is_settled_against(&self, nodes: NodeSet) -> bool {
        let pairs = &self.superblock.get().pairs;
        std::iter::zip(pairs, &self.planes.planes)
            .filter(|(pair, _)| nodes.contains(pair.node))
            .all(|(_, plane)| plane.is_settled())
    }

    /// True if every marked block of the region is marked on disk too, against whomever.
    pub(crate) fn covers(&self, region: u32) -> bool {
        self.planes.planes.iter().all(|plane| plane.covers(region))
    }

    /// Who surely has a region durably that leaves the intent log of the active here.
    pub(crate) fn holders(&self, region: u32) -> NodeSet {
        let mut holders = NodeSet::EMPTY;
        holders.insert(self.config.node);
        for node in self.peers.keys() {
            let marked = self
                .plane(*node)
                .is_none_or(|plane| plane.base().any_in(region_blocks(region)));
            if !marked {
                holders.insert(*node);
            }
        }
        holders
    }

    /// Since when this replica's marks count against a node, and from when they may count instead. A mixture knows that of nobody
    /// but of the one whose data it is being made equal to.
    pub(crate) fn baselines(&self, node: NodeId) -> (Option<SessionId>, Option<SessionId>) {
        let own = self.superblock.get();
        let mixture = own.state == ReplicaState::Inconsistent;
        let foreign = own.source.is_some_and(|source| source != node);
        if mixture && foreign {
            return (None, None);
        }
        own.pair(node)
            .map_or((None, None), |pair| (pair.baseline, pair.offered))
    }

    /// Each other replica of which something is remembered, and the marks against it.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&Pair, &Bits)> {
        std::iter::zip(&self.superblock.get().pairs, self.planes.marks())
    }

    /// The marks against anybody.
    #[cfg(test)]
    pub(crate) fn marks(&self) -> Bits {
        let mut marks = Bits::new(self.layout.blocks());
        for (_, plane) in self.pairs() {
            marks.union(plane);
        }
        marks
    }

    /// The marks against a node.
    pub(crate) fn marked(&self, node: NodeId) -> Bits {
        let mut marked = Bits::new(self.layout.blocks());
        if let Some(plane) = self.plane(node) {
            marked.union(plane.base());
        }
        marked
    }
}
