//! R8: a device answers well only before the end of its lease, also after a pause of any length.

use wire::{NodeId, Time};

/// `node` answered a request well when its clock showed `now`; its lease ends at `lease`.
pub(crate) fn check(node: NodeId, now: Time, lease: Time) -> Result<(), String> {
    if now < lease {
        return Ok(());
    }
    Err(format!(
        "{node:?} answers at {now:?}, but its lease ended at {lease:?}"
    ))
}
