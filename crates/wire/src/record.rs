//! The register's content: one record per group, changed only by compare-and-swap (design §3).

use crate::{Epoch, Generation, NodeId, Nonce, Version};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Who is active in a group, and who may become it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Rises with every compare-and-swap.
    pub version: Version,
    /// Rises with every change of `active` or of the sets, and with a barrier.
    pub epoch: Epoch,
    /// The node that serves, or resumes serving. Always a member.
    pub active: NodeId,
    /// The data nodes' replicas. Invariant: the active is a member; at least one member is promotable.
    pub members: BTreeMap<NodeId, Member>,
    /// What the group is meant to do.
    pub intent: Intent,
    /// Marks the proposal that made this version.
    pub nonce: Nonce,
}

/// One replica in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Whether it may be promoted.
    pub sync: Sync,
    /// Generation of its metadata at the last attach that the record knows of (R14).
    pub generation: Generation,
    /// The group failed on this node beyond its restart budget; it is not moved there by itself until a person clears it.
    pub failed: bool,
}

/// A replica's standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Sync {
    /// Holds every acknowledged write: promotable; every acknowledgement needs it (R1).
    InSync,
    /// An asynchronous replica within its bound: promotable with bounded loss (R11).
    AsyncEligible,
    /// Behind, inconsistent or gone: never promoted by itself (G4).
    Out,
    /// Out, because a person promoted another one that had not everything: it may hold acknowledged writes that nobody else has.
    /// They are put aside before it is made equal.
    CutOff,
}

impl Sync {
    /// True for a replica that may be promoted, and that every acknowledgement counts on.
    #[must_use]
    pub const fn counts(self) -> bool {
        match self {
            Self::InSync | Self::AsyncEligible => true,
            Self::Out | Self::CutOff => false,
        }
    }

    /// The standing of a replica that does not count any more.
    #[must_use]
    pub const fn taken_out(self) -> Self {
        match self {
            Self::InSync | Self::AsyncEligible | Self::Out => Self::Out,
            Self::CutOff => Self::CutOff,
        }
    }
}

/// What the group is meant to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intent {
    /// Serve on `active`.
    Serve,
    /// Serve on `active`; `from` stopped serving *before* it proposed this (planned move, or its disk failed), so its
    /// lease and the grants given to it are void from here on.
    Handover {
        /// The node that gave the group up.
        from: NodeId,
    },
    /// Stopped by a person or after failing everywhere; resources stay down until started.
    Hold(Hold),
}

/// Why a group is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hold {
    /// A person stopped it.
    Stopped,
    /// The restart budget ran out on every node that could serve.
    FailedEverywhere,
}

impl Record {
    /// Members that the record allows to be promoted.
    #[must_use]
    pub fn promotable(&self) -> BTreeSet<NodeId> {
        self.members
            .iter()
            .filter(|(_, m)| m.sync.counts())
            .map(|(id, _)| *id)
            .collect()
    }

    /// Members that the record allows to be promoted, the best first: those that hold everything, then the configuration's order.
    #[must_use]
    pub fn heirs(&self) -> Vec<NodeId> {
        let mut heirs: Vec<(Sync, NodeId)> = self
            .members
            .iter()
            .filter(|(_, m)| m.sync.counts())
            .map(|(id, m)| (m.sync, *id))
            .collect();
        heirs.sort_unstable();
        heirs.into_iter().map(|(_, id)| id).collect()
    }

    /// Members that hold every acknowledged write.
    #[must_use]
    pub fn in_sync(&self) -> BTreeSet<NodeId> {
        self.members
            .iter()
            .filter(|(_, m)| m.sync == Sync::InSync)
            .map(|(id, _)| *id)
            .collect()
    }

    /// True if `node` may be promoted by this record.
    #[must_use]
    pub fn may_promote(&self, node: NodeId) -> bool {
        self.members.get(&node).is_some_and(|m| m.sync.counts())
    }

    /// True when the sets are such that only the active could ever be promoted.
    #[must_use]
    pub fn is_solo(&self) -> bool {
        self.promotable() == BTreeSet::from([self.active])
    }

    /// A copy with the next version and epoch and the given nonce; the start of every proposal.
    #[must_use]
    pub fn successor(&self, nonce: Nonce) -> Self {
        Self {
            version: self.version.next(),
            epoch: self.epoch.next(),
            nonce,
            ..self.clone()
        }
    }

    /// What is wrong with a record that came from outside; none if it is well-formed.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        if !self.members.contains_key(&self.active) {
            return Some("the active node is not a member");
        }
        if self.promotable().is_empty() {
            return Some("no member may be promoted");
        }
        if self.version.0 == 0 || self.epoch.0 == 0 {
            return Some("version or epoch is zero");
        }
        if self.members.keys().any(|id| *id > NodeId::MAX) {
            return Some("a member's id is out of range");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_cut_off_is_no_heir() {
        let syncs = [Sync::CutOff, Sync::AsyncEligible, Sync::Out, Sync::InSync];
        let member = |sync| Member {
            sync,
            generation: Generation(1),
            failed: false,
        };
        let record = Record {
            version: Version(2),
            epoch: Epoch(2),
            active: NodeId(3),
            members: (0..).map(NodeId).zip(syncs.map(member)).collect(),
            intent: Intent::Serve,
            nonce: Nonce(1),
        };
        assert_eq!(record.heirs(), [NodeId(3), NodeId(1)]);
        assert_eq!(record.promotable(), record.heirs().into_iter().collect());
    }
}
