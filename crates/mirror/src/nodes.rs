//! A small set of nodes, kept in every write under way.

use std::collections::BTreeSet;
use wire::NodeId;

/// Nodes 0 to [`NodeId::MAX`]; others are never in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeSet(u16);

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        let mut set = Self::EMPTY;
        nodes.into_iter().for_each(|node| set.insert(node));
        set
    }
}

impl NodeSet {
    pub(crate) const EMPTY: Self = Self(0);

    const fn bit(node: NodeId) -> u16 {
        if node.0 <= NodeId::MAX.0 {
            1 << node.0
        } else {
            0
        }
    }

    pub(crate) const fn contains(self, node: NodeId) -> bool {
        self.0 & Self::bit(node) != 0
    }

    pub(crate) const fn insert(&mut self, node: NodeId) {
        self.0 |= Self::bit(node);
    }

    pub(crate) const fn remove(&mut self, node: NodeId) {
        self.0 &= !Self::bit(node);
    }

    /// True if every node of `other` is in here.
    pub(crate) const fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// The nodes of either.
    pub(crate) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in `other`.
    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// A bit for each node.
    pub(crate) fn to_bits(self) -> u32 {
        u32::from(self.0)
    }

    /// The nodes with a bit; bits that are no node's are ignored.
    pub(crate) fn from_bits(bits: u32) -> Self {
        Self(u16::try_from(bits & u32::from(u16::MAX)).unwrap_or(0))
    }

    /// One node.
    pub(crate) const fn one(node: NodeId) -> Self {
        Self(Self::bit(node))
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = NodeId> {
        (0..=NodeId::MAX.0)
            .map(NodeId)
            .filter(move |node| self.contains(*node))
    }

    /// The nodes of both.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// `nodes` without `own`.
    pub(crate) fn others(nodes: &BTreeSet<NodeId>, own: NodeId) -> Self {
        let mut set = Self::EMPTY;
        for node in nodes.iter().filter(|node| **node != own) {
            set.insert(*node);
        }
        set
    }
}
