//! G1: at no moment does the group's address answer on two nodes.

use wire::NodeId;

/// Looked at whenever an address appears or a gate opens: an overlap begins with one of the two.
pub(crate) fn check(answering: impl Iterator<Item = NodeId>) -> Result<(), String> {
    let nodes: Vec<NodeId> = answering.collect();
    if nodes.len() <= 1 {
        return Ok(());
    }
    Err(format!("the address answers on {nodes:?} at once"))
}
