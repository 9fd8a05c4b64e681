//! R15: what an activation started is bound to it. Once another node was active, nothing of it is used again: what a file
//! system remembers of the disk is old.

use super::epochs_rise::EpochsRise;
use wire::{Epoch, NodeId};

/// Its name in reports.
pub(crate) const NAME: &str = "instance_not_revived";

/// `node` starts a resource at the epoch `now`, within an instance that was begun at the epoch `born`.
pub(crate) fn check(
    decided: &EpochsRise,
    node: NodeId,
    born: Epoch,
    now: Epoch,
) -> Result<(), String> {
    decided
        .active_between(born, now, node)
        .map_or(Ok(()), |other| {
            Err(format!(
                "{node:?} uses at {now:?} what it started at {born:?}; {other:?} was active since"
            ))
        })
}
