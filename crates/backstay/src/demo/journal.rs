//! The client's journal: every acknowledged row with its times, kept outside the cluster.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// A row that the cluster has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Acknowledged {
    /// The row.
    pub(super) number: u64,
    /// When the good reply was there.
    pub(super) at: Instant,
}

/// The journal of one run.
#[derive(Debug)]
pub(super) struct Journal {
    started: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    rows: Vec<Acknowledged>,
    file: BufWriter<File>,
}

impl Journal {
    /// Starts a journal; its file has one line per row: number, microseconds when it was sent and acknowledged.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|error| {
            Failure::new(format!("cannot make the journal {}", path.display())).cause(error)
        })?;
        let inner = Inner {
            rows: Vec::new(),
            file: BufWriter::new(file),
        };
        Ok(Self {
            started: Instant::now(),
            inner: Mutex::new(inner),
        })
    }

    /// Notes a good reply.
    pub(super) fn record(&self, number: u64, sent: Instant, at: Instant) {
        let micros = |moment: Instant| moment.duration_since(self.started).as_micros();
        let line = format!("{number} {} {}\n", micros(sent), micros(at));
        let mut inner = self.lock();
        inner.rows.push(Acknowledged { number, at });
        // What counts is in memory; the file is for a person who looks into a failed run.
        inner.file.write_all(line.as_bytes()).ok();
    }

    /// Number of acknowledged rows.
    pub(super) fn len(&self) -> usize {
        self.lock().rows.len()
    }

    /// When the newest good reply came.
    pub(super) fn last(&self) -> Option<Instant> {
        self.lock().rows.last().map(|row| row.at)
    }

    /// True if good replies came all through the last `span`, none later than `gap_max` after the one before.
    pub(super) fn flows(&self, span: Duration, gap_max: Duration) -> bool {
        let now = Instant::now();
        let Some(since) = now.checked_sub(span) else {
            return false;
        };
        if since < self.started {
            return false;
        }
        let inner = self.lock();
        let recent = inner
            .rows
            .iter()
            .rev()
            .map(|row| row.at)
            .take_while(|at| *at >= since);
        let mut newer = now;
        for at in recent {
            if newer.saturating_duration_since(at) > gap_max {
                return false;
            }
            newer = at;
        }
        newer.saturating_duration_since(since) <= gap_max
    }

    /// All acknowledged rows, in the order of their replies.
    pub(super) fn rows(&self) -> Vec<Acknowledged> {
        let mut inner = self.lock();
        inner.file.flush().ok();
        let mut rows = inner.rows.clone();
        rows.sort_by_key(|row| row.at);
        rows
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The longest time between two good replies of which the later came after `since`. `rows` are in the order of time.
pub(super) fn longest_gap(rows: &[Acknowledged], since: Instant) -> Option<Duration> {
    rows.windows(2)
        .filter(|pair| pair[1].at >= since)
        .map(|pair| pair[1].at.saturating_duration_since(pair[0].at))
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gap_that_the_fault_falls_into_counts_whole() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let rows: Vec<_> = [0, 400, 410, 900, 905]
            .into_iter()
            .zip(1..)
            .map(|(ms, number)| Acknowledged { number, at: at(ms) })
            .collect();
        assert_eq!(
            longest_gap(&rows, at(500)),
            Some(Duration::from_millis(490))
        );
        assert_eq!(longest_gap(&rows, at(901)), Some(Duration::from_millis(5)));
        assert_eq!(longest_gap(&rows, at(2000)), None);
    }

    #[test]
    fn flow_needs_replies_all_through_the_span() {
        let path = std::env::temp_dir().join(format!("backstay-journal-{}", std::process::id()));
        let journal = Journal::create(&path).unwrap();
        let (span, gap) = (Duration::from_millis(40), Duration::from_millis(30));
        assert!(!journal.flows(span, gap));
        for number in 1..8 {
            std::thread::sleep(Duration::from_millis(10));
            journal.record(number, Instant::now(), Instant::now());
        }
        assert!(journal.flows(span, gap));
        std::thread::sleep(Duration::from_millis(40));
        assert!(!journal.flows(span, gap));
        std::fs::remove_file(path).unwrap();
    }
}
