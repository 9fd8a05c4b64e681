//! True time, which only the world knows, and each machine's own clock.

use core::fmt;
use core::ops::Add;
use wire::{Duration, Time};

/// A point in true time: nanoseconds since the run began. No node ever sees one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0 / 1_000;
        write!(f, "{:>4}.{:06}", micros / 1_000_000, micros % 1_000_000)
    }
}

/// One machine's `CLOCK_BOOTTIME`: begins anew with each boot, and runs a little fast or slow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    boot: Moment,
    /// What it showed at `boot`, in nanoseconds.
    start: u64,
    /// True nanoseconds per million of its own: above a million, it is slow.
    true_per_million: u64,
    /// Since when it stands still: a hypervisor froze the machine.
    stopped: Option<Moment>,
}

const MILLION: u64 = 1_000_000;

impl Clock {
    /// Boots at `boot`; `true_per_million` from 995 000 to 1 005 000 is a drift of at most ½ %.
    pub(crate) const fn new(boot: Moment, true_per_million: u64) -> Self {
        Self {
            boot,
            start: 3_000_000_000,
            true_per_million,
            stopped: None,
        }
    }

    /// Stands still from now on.
    pub(crate) fn stop(&mut self, now: Moment) {
        self.stopped = self.stopped.or(Some(now));
    }

    /// Goes on from where it stood still.
    pub(crate) fn go_on(&mut self, now: Moment) {
        self.start = self.local(now).as_nanos();
        self.boot = now;
        self.stopped = None;
    }

    /// What it shows.
    pub(crate) fn local(&self, now: Moment) -> Time {
        let now = self.stopped.map_or(now, |at| at.min(now));
        let passed = u128::from(now.0.saturating_sub(self.boot.0)) * u128::from(MILLION)
            / u128::from(self.true_per_million);
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        Time::from_nanos(self.start.saturating_add(passed))
    }

    /// The first moment at which it shows `time` or more.
    pub(crate) fn moment(&self, time: Time) -> Moment {
        let passed = u128::from(time.as_nanos().saturating_sub(self.start));
        let passed = (passed * u128::from(self.true_per_million)).div_ceil(u128::from(MILLION));
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        Moment(self.boot.0.saturating_add(passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_a_time_at_its_moment_and_not_before() {
        for rate in [995_000, 1_000_000, 1_004_999] {
            let clock = Clock::new(Moment(77), rate);
            for nanos in [3_000_000_001, 3_000_000_999, 9_123_456_789] {
                let moment = clock.moment(Time::from_nanos(nanos));
                assert!(clock.local(moment) >= Time::from_nanos(nanos));
                assert!(clock.local(Moment(moment.0 - 1)) < Time::from_nanos(nanos));
            }
        }
    }
}
