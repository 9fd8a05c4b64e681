//! Range locks: who may touch a part of the volume on the local disk. First come, first served.
//!
//! A range is granted when nothing that overlaps it was asked for earlier and is still held or waiting. So overlapping
//! writes happen in the order in which they came, and nobody starves.

use crate::machine::JobId;
use std::collections::VecDeque;
use wire::ByteRange;
use wire::mutant::{self, Bug};

#[derive(Debug, Default)]
pub(crate) struct Locks {
    /// In the order of asking.
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    job: JobId,
    range: ByteRange,
    granted: bool,
}

impl Locks {
    /// Asks for `range`; true if it is granted at once. Else a later [`Locks::release`] names the job.
    pub(crate) fn ask(&mut self, job: JobId, range: ByteRange) -> bool {
        let counts = |e: &&Entry| e.granted || !mutant::has(Bug::SmallOvertakes);
        let mut earlier = self.entries.iter().filter(counts);
        let granted = !earlier.any(|e| e.range.overlaps(range));
        self.entries.push_back(Entry {
            job,
            range,
            granted,
        });
        granted
    }

    /// Gives a range back, or stops waiting for it. Returns the jobs that are granted theirs by this.
    pub(crate) fn release(&mut self, job: JobId) -> Vec<JobId> {
        let Some(at) = self.entries.iter().position(|e| e.job == job) else {
            return Vec::new();
        };
        let Some(freed) = self.entries.remove(at) else {
            return Vec::new();
        };
        let mut granted = Vec::new();
        for later in at..self.entries.len() {
            let entry = &self.entries[later];
            if entry.granted || !entry.range.overlaps(freed.range) {
                continue;
            }
            let range = entry.range;
            if !self.entries.range(..later).any(|e| e.range.overlaps(range)) {
                self.entries[later].granted = true;
                granted.push(self.entries[later].job);
            }
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(offset: u64, len: u64) -> ByteRange {
        ByteRange::new(offset, len).unwrap()
    }

    #[test]
    fn a_small_write_never_overtakes_a_deferred_big_one() {
        let mut locks = Locks::default();
        assert!(locks.ask(JobId(1), range(0, 10)));
        assert!(!locks.ask(JobId(2), range(5, 100)));
        assert!(
            !locks.ask(JobId(3), range(50, 10)),
            "it overlaps the waiting one"
        );
        assert!(locks.ask(JobId(4), range(200, 10)));
        assert_eq!(locks.release(JobId(1)), [JobId(2)]);
        assert_eq!(locks.release(JobId(2)), [JobId(3)]);
    }

    #[test]
    fn one_release_grants_all_that_waited_for_it() {
        let mut locks = Locks::default();
        assert!(locks.ask(JobId(1), range(0, 100)));
        assert!(!locks.ask(JobId(2), range(0, 10)));
        assert!(!locks.ask(JobId(3), range(50, 10)));
        assert_eq!(locks.release(JobId(1)), [JobId(2), JobId(3)]);
        assert!(locks.release(JobId(9)).is_empty());
    }
}
