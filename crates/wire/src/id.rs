//! Identifiers and counters. Two integers of one type in a signature are a mistake waiting, so each has its own.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident, $short:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        pub struct $name(pub u64);

        impl $name {
            /// The next higher value. Saturates; 2^64 steps are not reached in practice.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($short, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

counter!(
    /// Rises with every change of a group's active node or of its member sets, and with a barrier (R2). 0: no record yet.
    Epoch, "e");
counter!(
    /// Rises with every compare-and-swap of a group's record. 0: no record yet.
    Version, "v");
counter!(
    /// Bumped in a member's metadata at each attach; an older one on disk than in the record means a rolled-back disk (R14).
    Generation, "g");
counter!(
    /// One life of one connection or of one process: a random number, never reused.
    SessionId, "s");
counter!(
    /// Marks one proposal, so that a retry is recognised as the same (R2). Unique per node: drawn from a seeded generator.
    Nonce, "n");

/// A node's place in the configuration's list of nodes, 0-based. At most [`NodeId::MAX`] nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u8);

impl NodeId {
    /// The largest id: a cluster has at most 16 nodes.
    pub const MAX: Self = Self(15);
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n @ 0..=15 => write!(f, "{}", char::from(b'A' + n)),
            n => write!(f, "node{n}"),
        }
    }
}

/// A group's place in the configuration's list of groups, 0-based.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub u8);

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "G{}", self.0)
    }
}

/// A CASPaxos ballot (Rystsov 2018, §2.2): ordered by round, then by proposer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// The round; 0 is below every real ballot.
    pub round: u64,
    /// Who proposes.
    pub node: NodeId,
}

impl Ballot {
    /// Below every ballot that a proposer uses.
    pub const ZERO: Self = Self {
        round: 0,
        node: NodeId(0),
    };
}

impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}{:?}", self.round, self.node)
    }
}
