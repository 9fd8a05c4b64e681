//! G3: an eligible asynchronous standby never lacks more than the bound allows, in bytes and in seconds of the active's history.

use crate::history::State;
use crate::setup::BOUND;
use wire::Duration;

/// Its name in reports.
pub(crate) const NAME: &str = "async_bound";
/// Clocks run within half a percent of the truth.
const CLOCK: Duration = Duration::from_millis(20);

/// Judges what a standby lacks.
pub(crate) fn check(state: &State) -> Result<(), String> {
    if state.missing_bytes > BOUND.max_bytes {
        return Err(format!("{} bytes are missing", state.missing_bytes));
    }
    if state.missing_time > BOUND.max_time + CLOCK {
        return Err(format!(
            "{:?} of the history are missing",
            state.missing_time
        ));
    }
    Ok(())
}
