//! Whose mirror network a fault concerns.

use super::Fault;
use crate::world::World;
use wire::NodeId;

impl World {
    /// The pairs of data nodes whose mirror network a fault concerns.
    pub(super) fn mirror_ways(&self, fault: Fault) -> Vec<(NodeId, NodeId)> {
        let concerns = |one: NodeId, two: NodeId| {
            if let Fault::Isolate(at, _) = fault {
                at == one || at == two
            } else {
                true
            }
        };
        let pairs = self.mirror_pairs().into_iter();
        pairs.filter(|(one, two)| concerns(*one, *two)).collect()
    }

    /// All pairs of data nodes.
    pub(crate) fn mirror_pairs(&self) -> Vec<(NodeId, NodeId)> {
        let nodes = self.options.data_nodes();
        let behind = |one: NodeId| nodes.iter().filter(move |two| **two > one);
        nodes
            .iter()
            .flat_map(|one| behind(*one).map(|two| (*one, *two)))
            .collect()
    }

    /// Those that a frozen machine disturbs; with a witness there is one only.
    pub(crate) fn mirror_pairs_near(&self, at: NodeId) -> Vec<(NodeId, NodeId)> {
        let mut pairs = self.mirror_pairs();
        pairs.retain(|(one, two)| self.options.replicas == 2 || *one == at || *two == at);
        pairs
    }
}
