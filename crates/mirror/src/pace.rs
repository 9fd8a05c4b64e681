//! How fast a resync goes: as fast as the front end does not mind.
//!
//! The window (chunks under way) grows while the front end's writes take about as long as they took without a resync, and
//! halves when they take clearly longer: additive increase, multiplicative decrease (Chiu and Jain, 1989). It never falls
//! below a floor, so a resync ends under any load.

use wire::{Duration, Time};

/// Fewest chunks under way: the floor. With 64 KiB each and a round trip of 10 ms that is 13 MB/s.
const WINDOW_MIN: usize = 2;
/// How often the window is looked at.
const INTERVAL: Duration = Duration::from_millis(20);
/// Weight of one sample in the average of calm times: 1/16.
const SMOOTHING: u64 = 16;
/// What a write may take longer during a resync, on top of twice the calm time: timers and batches are no finer.
const SLACK: Duration = Duration::from_micros(200);

#[derive(Debug)]
pub(crate) struct Pace {
    window: usize,
    window_max: usize,
    /// What a write of the front end takes without a resync, in nanoseconds; none before the first.
    calm: Option<u64>,
    /// Writes since the last look: how many, and their time together.
    samples: u64,
    total: u64,
    look_at: Time,
}

impl Pace {
    pub(crate) const fn new(window_max: usize) -> Self {
        Self {
            window: WINDOW_MIN,
            window_max,
            calm: None,
            samples: 0,
            total: 0,
            look_at: Time::ZERO,
        }
    }

    /// Chunks that may be under way at once.
    pub(crate) fn window(&self) -> usize {
        self.window.min(self.window_max).max(1)
    }

    /// A write of the front end took this long.
    pub(crate) fn wrote(&mut self, took: Duration, resyncing: bool) {
        if resyncing {
            self.samples += 1;
            self.total = self.total.saturating_add(nanos(took));
            return;
        }
        let took = nanos(took);
        self.calm = Some(match self.calm {
            None => took,
            Some(calm) => calm - calm / SMOOTHING + took / SMOOTHING,
        });
    }

    /// A resync is going on: looks at what the front end met since the last time.
    pub(crate) fn look(&mut self, now: Time) {
        if now < self.look_at {
            return;
        }
        self.look_at = now + INTERVAL;
        let average = self.total.checked_div(self.samples);
        (self.samples, self.total) = (0, 0);
        self.window = match (average, self.calm) {
            (Some(average), Some(calm)) if average > 2 * calm + nanos(SLACK) => {
                (self.window / 2).max(WINDOW_MIN)
            }
            // Nobody writes, so nobody minds.
            (None, _) => (self.window * 2).min(self.window_max),
            (Some(_), _) => (self.window + 1).min(self.window_max),
        };
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(intervals: u64) -> Time {
        Time::from_nanos(1) + INTERVAL.saturating_mul(u32::try_from(intervals).unwrap())
    }

    #[test]
    fn an_idle_front_end_lets_it_run_and_a_slowed_one_brakes_it() {
        let mut pace = Pace::new(32);
        pace.wrote(Duration::from_micros(300), false);
        for n in 1..6 {
            pace.look(at(n));
        }
        assert_eq!(pace.window(), 32);
        for n in 6..12 {
            pace.wrote(Duration::from_millis(4), true);
            pace.look(at(n));
        }
        assert_eq!(pace.window(), WINDOW_MIN, "and not below the floor");
        pace.wrote(Duration::from_micros(500), true);
        pace.look(at(12));
        assert_eq!(pace.window(), WINDOW_MIN + 1, "it grows step by step");
    }

    #[test]
    fn without_a_calm_time_to_compare_with_it_grows() {
        let mut pace = Pace::new(8);
        for n in 1..20 {
            pace.wrote(Duration::from_millis(4), true);
            pace.look(at(n));
        }
        assert_eq!(pace.window(), 8);
    }
}
