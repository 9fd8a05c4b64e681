//! G3: an eligible asynchronous standby holds a prefix of the active's history, epoch by epoch: if it lacks a write that a flush
//! (or its own FUA) made durable on the active, it holds nothing that was begun after that.

use crate::history::State;

/// Its name in reports.
pub(crate) const NAME: &str = "async_prefix";

/// Judges what a standby holds.
pub(crate) fn check(state: &State) -> Result<(), String> {
    match (state.ends, state.newest) {
        (Some((end, missing)), Some((begun, held))) if begun > end => Err(format!(
            "{missing:x} is missing, though a later epoch's {held:x} is there"
        )),
        (Some(_) | None, _) => Ok(()),
    }
}
