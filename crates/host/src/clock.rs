//! The machine's clock, read in one place.

use rustix::time::{ClockId, clock_gettime};
use wire::Time;

/// Now, on `CLOCK_BOOTTIME`: goes on while the machine is suspended, never jumps with the wall clock.
#[must_use]
pub fn now() -> Time {
    let read = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(read.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(read.tv_nsec).unwrap_or(0);
    Time::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

#[cfg(test)]
mod tests {
    use super::now;

    #[test]
    fn time_goes_forward() {
        let first = now();
        assert!(now() >= first);
        assert!(first.as_nanos() > 0);
    }
}
