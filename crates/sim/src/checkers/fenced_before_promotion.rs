//! R3: who proposes to take the group over has stopped accepting the old epoch first: from the proposal on it acknowledges
//! nothing that the former active sends.

use std::collections::BTreeSet;
use wire::control::Message;
use wire::{NodeId, Record};

/// Nodes with a takeover proposed.
#[derive(Debug, Default)]
pub(crate) struct FencedBeforePromotion {
    proposing: BTreeSet<NodeId>,
}

impl FencedBeforePromotion {
    /// `node` sends a message; `newest` is the newest decided record that anybody knows.
    pub(crate) fn on_send(&mut self, node: NodeId, message: &Message, newest: Option<&Record>) {
        if let Message::Accept { record, .. } = message
            && record.active == node
            && newest.is_some_and(|known| known.active != node && known.version < record.version)
        {
            self.proposing.insert(node);
        }
    }

    /// `node` follows again, or its replica was told to be the active: either settles the matter.
    pub(crate) fn settled(&mut self, node: NodeId) {
        self.proposing.remove(&node);
    }

    /// `node` acknowledges something that an active sent.
    pub(crate) fn on_ack(&self, node: NodeId) -> Result<(), String> {
        if self.proposing.contains(&node) {
            return Err(format!(
                "{node:?} acknowledges the old active while it proposes to take over"
            ));
        }
        Ok(())
    }
}
