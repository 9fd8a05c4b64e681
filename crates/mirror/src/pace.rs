//! How fast a resync goes: as fast as the front end does not mind.
//!
//! The window (chunks under way) grows while the front end's writes take about as long as they take without a resync, and
//! halves when they take clearly longer: additive increase, multiplicative decrease (Chiu and Jain, 1989). It never falls
//! below a floor, so a resync ends under any load. While the front end writes swiftly, chunks are smaller: a write waits for the
//! one that is being handled when it comes.
//!
//! What a write takes without a resync is measured beside it, because work changes: every now and then no chunk is under way
//! for a moment, and what begins and ends in it counts.

use crate::bitmap::BLOCKS_PER_REGION;
use wire::{Duration, Time};

/// Blocks of a chunk: one region.
const CHUNK_BLOCKS: u64 = BLOCKS_PER_REGION;
/// Blocks of a chunk beside writes that are faster than [`SWIFT`].
const SMALL_BLOCKS: u64 = CHUNK_BLOCKS / 4;
/// Writes that take longer do not feel the size of a chunk.
const SWIFT: Duration = Duration::from_millis(1);
/// Fewest chunks under way: the floor. With 64 KiB each and a round trip of 10 ms that is 13 MB/s.
const WINDOW_MIN: usize = 2;
/// The same beside swift writes, of 16 KiB each: 16 MB/s with a round trip of 1 ms. A target for which the front end waits is no
/// farther than that.
const WINDOW_MIN_SWIFT: usize = 1;
/// How often the window is looked at.
const INTERVAL: Duration = Duration::from_millis(20);
/// How often the front end is measured alone, while it writes, and for how long.
const ALONE_EVERY: Duration = Duration::from_millis(250);
const ALONE: Duration = Duration::from_millis(10);
/// What a write may take longer during a resync, on top of five quarters of the calm time: timers and batches are no finer.
const SLACK: Duration = Duration::from_micros(20);

/// How long writes took.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    count: u64,
    nanos: u64,
}

impl Sum {
    fn add(&mut self, took: Duration) {
        self.count += 1;
        self.nanos = self.nanos.saturating_add(nanos(took));
    }

    fn average(self) -> Option<u64> {
        self.nanos.checked_div(self.count)
    }
}

/// What goes on.
#[derive(Clone, Copy, Debug)]
enum Course {
    /// Chunks are copied; the front end is measured alone from `alone_at` on.
    Copying { alone_at: Time },
    /// No new chunk starts.
    Alone {
        until: Time,
        /// None is under way since then.
        since: Option<Time>,
        seen: Sum,
    },
}

#[derive(Debug)]
pub(crate) struct Pace {
    window: usize,
    window_max: usize,
    /// What a write of the front end takes without a resync, in nanoseconds; none before the first.
    calm: Option<u64>,
    course: Course,
    /// Writes since the last look.
    seen: Sum,
    /// The front end wrote before the last look.
    busy: bool,
    look_at: Time,
}

impl Pace {
    pub(crate) const fn new(window_max: usize) -> Self {
        Self {
            window: WINDOW_MIN,
            window_max,
            calm: None,
            course: Course::Copying {
                alone_at: Time::ZERO,
            },
            seen: Sum { count: 0, nanos: 0 },
            busy: false,
            look_at: Time::ZERO,
        }
    }

    /// Chunks that may be under way at once.
    pub(crate) fn window(&self) -> usize {
        match self.course {
            Course::Copying { .. } => self.window.min(self.window_max).max(1),
            Course::Alone { .. } => 0,
        }
    }

    fn is_swift(&self) -> bool {
        self.busy && self.calm.is_some_and(|calm| calm < nanos(SWIFT))
    }

    fn window_min(&self) -> usize {
        if self.is_swift() {
            WINDOW_MIN_SWIFT
        } else {
            WINDOW_MIN
        }
    }

    /// Blocks that the next chunk has at most.
    pub(crate) fn chunk_blocks(&self) -> u64 {
        if self.is_swift() {
            SMALL_BLOCKS
        } else {
            CHUNK_BLOCKS
        }
    }

    /// When chunks go on, if they do not.
    pub(crate) const fn wake_at(&self) -> Option<Time> {
        match self.course {
            Course::Copying { .. } => None,
            Course::Alone { until, .. } => Some(until),
        }
    }

    /// A write of the front end ended.
    pub(crate) fn wrote(&mut self, began: Time, now: Time) {
        let took = now.since(began);
        match &mut self.course {
            Course::Copying { .. } => self.seen.add(took),
            Course::Alone { since, seen, .. } => {
                if since.is_some_and(|since| began >= since) {
                    seen.add(took);
                }
            }
        }
    }

    /// A resync is going on, with so many chunks under way: looks at what the front end met since the last time.
    pub(crate) fn look(&mut self, now: Time, under_way: usize) {
        match &mut self.course {
            Course::Copying { .. } if now < self.look_at => {}
            Course::Copying { alone_at } => {
                let alone_at = *alone_at;
                self.adjust(now);
                if self.busy && now >= alone_at {
                    self.course = Course::Alone {
                        until: now + ALONE,
                        since: None,
                        seen: Sum::default(),
                    };
                }
            }
            Course::Alone { until, seen, .. } if now >= *until => {
                self.calm = seen.average().or(self.calm);
                self.course = Course::Copying {
                    alone_at: now + ALONE_EVERY,
                };
                (self.seen, self.look_at) = (Sum::default(), now + INTERVAL);
            }
            Course::Alone { since, .. } => {
                if under_way == 0 && since.is_none() {
                    *since = Some(now);
                }
            }
        }
    }

    fn adjust(&mut self, now: Time) {
        self.look_at = now + INTERVAL;
        let average = std::mem::take(&mut self.seen).average();
        self.busy = average.is_some();
        self.window = match (average, self.calm) {
            (Some(average), Some(calm)) if average > calm + calm / 4 + nanos(SLACK) => {
                (self.window / 2).max(self.window_min())
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

    /// A resync beside a front end whose writes take so long, in microseconds: alone, and beside chunks. Returns the window
    /// and what there was of time without chunks, in milliseconds.
    fn beside(pace: &mut Pace, from: u64, alone: u64, copying: u64) -> (usize, u64) {
        let mut quiet = 0;
        for ms in from..from + 2_000 {
            let now = Time::from_nanos(ms * 1_000_000);
            let took = if pace.window() == 0 { alone } else { copying };
            pace.wrote(now, now + Duration::from_micros(took));
            pace.look(now, 0);
            quiet += u64::from(pace.window() == 0);
        }
        while pace.window() == 0 {
            pace.look(pace.wake_at().unwrap(), 0);
        }
        (pace.window(), quiet)
    }

    #[test]
    fn an_idle_front_end_lets_it_run() {
        let mut pace = Pace::new(32);
        for n in 1..6 {
            pace.look(Time::ZERO + INTERVAL.saturating_mul(n), 0);
        }
        assert_eq!((pace.window(), pace.chunk_blocks()), (32, CHUNK_BLOCKS));
    }

    #[test]
    fn a_slowed_front_end_brakes_it_and_one_that_is_not_lets_it_grow() {
        let mut pace = Pace::new(32);
        let (window, quiet) = beside(&mut pace, 100, 300, 4_000);
        assert_eq!(window, WINDOW_MIN_SWIFT, "not below the floor");
        assert!((20..=120).contains(&quiet), "{quiet} ms without chunks");
        assert_eq!(pace.chunk_blocks(), SMALL_BLOCKS);
        assert!(beside(&mut pace, 10_000, 300, 350).0 > 20);
    }

    #[test]
    fn it_notices_that_the_front_ends_work_has_changed() {
        let mut pace = Pace::new(32);
        assert!(beside(&mut pace, 100, 5_000, 6_000).0 > 20, "large writes");
        let (window, _) = beside(&mut pace, 10_000, 50, 400);
        assert_eq!(window, WINDOW_MIN_SWIFT, "small ones feel it");
    }

    #[test]
    fn writes_that_began_beside_chunks_do_not_count_as_calm() {
        let mut pace = Pace::new(8);
        let ms = |n: u64| Time::from_nanos(n * 1_000_000);
        pace.wrote(ms(1), ms(2));
        pace.look(ms(30), 3);
        assert_eq!(pace.window(), 0);
        pace.look(ms(31), 3);
        pace.wrote(ms(31), ms(32));
        pace.look(ms(33), 0);
        pace.wrote(ms(32), ms(34));
        pace.look(ms(60), 0);
        assert_eq!(pace.calm, None);
        assert!(pace.window() > 0, "it goes on all the same");
    }
}
