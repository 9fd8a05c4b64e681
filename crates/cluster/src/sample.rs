//! Small values for the unit tests of this crate.

use std::collections::BTreeSet;
use wire::record::{Intent, Member, Sync};
use wire::{Ballot, Epoch, Generation, NodeId, Nonce, Record, Version};

pub(crate) fn ballot(round: u64, node: u8) -> Ballot {
    let node = NodeId(node);
    Ballot { round, node }
}

/// A record of nodes 0 and 1 with epoch = version; `promotable` are in sync, the other is out.
pub(crate) fn record(version: u64, nonce: u64, active: u8, promotable: &[u8]) -> Record {
    let member = |node: u8| Member {
        sync: if promotable.contains(&node) {
            Sync::InSync
        } else {
            Sync::Out
        },
        generation: Generation(1),
        failed: false,
    };
    Record {
        version: Version(version),
        epoch: Epoch(version),
        active: NodeId(active),
        members: [0, 1].map(|node| (NodeId(node), member(node))).into(),
        intent: Intent::Serve,
        nonce: Nonce(nonce),
    }
}

pub(crate) fn nodes(ids: &[u8]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}
