//! G1: writes complete on one node. Once one is acknowledged at an epoch, no other node acknowledges at an older one.

use wire::{Epoch, NodeId};

/// The newest epoch at which a write was acknowledged.
#[derive(Debug, Default)]
pub(crate) struct OneWriter {
    newest: Option<(Epoch, NodeId)>,
}

impl OneWriter {
    /// `node` acknowledged a write or a flush at `epoch`.
    pub(crate) fn on_ack(&mut self, node: NodeId, epoch: Epoch) -> Result<(), String> {
        match self.newest {
            Some((newest, other)) if other != node && epoch <= newest => Err(format!(
                "{node:?} acknowledges at {epoch:?} after {other:?} did at {newest:?}"
            )),
            Some((newest, _)) if newest >= epoch => Ok(()),
            Some(_) | None => {
                self.newest = Some((epoch, node));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deposed_node_may_not_acknowledge_after_its_successor() {
        let mut checker = OneWriter::default();
        checker.on_ack(NodeId(0), Epoch(3)).unwrap();
        checker.on_ack(NodeId(1), Epoch(4)).unwrap();
        checker.on_ack(NodeId(0), Epoch(3)).unwrap_err();
        checker.on_ack(NodeId(0), Epoch(5)).unwrap();
    }
}
