//! Waiting for a condition, with a limit; never for a time.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until `condition` gives a value. `what` completes "waited in vain until …".
pub(crate) fn until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Outcome<T> {
    let started = Instant::now();
    while started.elapsed() < limit {
        if let Some(value) = condition() {
            return Ok(value);
        }
        sleep(PAUSE);
    }
    Err(Failure::new(format!(
        "waited {} s in vain until {what}",
        limit.as_secs()
    )))
}
