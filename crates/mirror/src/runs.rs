//! Runs of marked blocks, for people: neighbours joined, and no more of them than somebody reads.

use crate::bits::Bits;
use std::ops::Range;
use wire::ByteRange;
use wire::units::BLOCK_BYTES;

/// Bits in a word.
pub(crate) const WORD_BITS: u64 = 64;

/// Runs in rising order, gathered word by word.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    found: Vec<Range<u64>>,
    max: usize,
    /// There were more than `max`.
    more: bool,
}

impl Runs {
    /// None yet; at most `max` are kept.
    pub(crate) const fn new(max: usize) -> Self {
        Self {
            found: Vec::new(),
            max,
            more: false,
        }
    }

    /// All runs of `bits`, up to `max`.
    pub(crate) fn of(bits: &Bits, max: usize) -> Self {
        let mut runs = Self::new(max);
        for (at, word) in (0..).zip(bits.words(0..bits.len())) {
            runs.add_word(at * WORD_BITS, *word);
        }
        runs
    }

    /// Takes the word whose first bit is `first`. Words come in rising order.
    pub(crate) fn add_word(&mut self, first: u64, word: u64) {
        let (mut at, mut left) = (first, word);
        while left != 0 {
            let gap = left.trailing_zeros();
            left >>= gap;
            let ones = left.trailing_ones();
            let start = at + u64::from(gap);
            at = start + u64::from(ones);
            left = left.checked_shr(ones).unwrap_or(0);
            self.add(start..at);
        }
    }

    fn add(&mut self, run: Range<u64>) {
        let full = self.found.len() >= self.max;
        match self.found.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            Some(_) | None if full => self.more = true,
            Some(_) | None => self.found.push(run),
        }
    }

    /// True if some were left out: looking on is of no use.
    pub(crate) const fn has_more(&self) -> bool {
        self.more
    }

    /// As places of the volume.
    pub(crate) fn places(self) -> Places {
        let range = |run: Range<u64>| {
            let (start, len) = (run.start, run.end - run.start);
            ByteRange::new(
                start.saturating_mul(BLOCK_BYTES),
                len.saturating_mul(BLOCK_BYTES),
            )
        };
        Places {
            ranges: self.found.into_iter().filter_map(range).collect(),
            more: self.more,
        }
    }
}

/// Places of a volume, in rising order, neighbours joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The first of them.
    pub ranges: Vec<ByteRange>,
    /// There are more.
    pub more: bool,
}

impl Places {
    /// The most that are named one by one.
    pub(crate) const MAX: usize = 256;

    /// One more, behind the others; joined if it goes on where the last one ends. Beyond [`Self::MAX`] it is only noted that
    /// there are more.
    pub(crate) fn add(&mut self, range: ByteRange) {
        let full = self.ranges.len() >= Self::MAX;
        let last = self.ranges.last_mut();
        match last.filter(|last| last.end() == range.offset()) {
            Some(last) => {
                let joined = ByteRange::new(last.offset(), last.len() + range.len());
                *last = joined.unwrap_or(*last);
            }
            None if full => self.more = true,
            None => self.ranges.push(range),
        }
    }

    /// Length of all that are named.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bits(len: u64, runs: &[Range<u64>]) -> Bits {
        let mut bits = Bits::new(len);
        for run in runs {
            bits.set(run.clone());
        }
        bits
    }

    #[test]
    fn a_run_goes_on_from_word_to_word() {
        let runs = Runs::of(&bits(400, &[3..5, 60..200, 399..400]), 8);
        assert_eq!(runs.found, [3..5, 60..200, 399..400]);
        assert!(!runs.more);
    }

    #[test]
    fn what_is_left_out_is_told() {
        let places = Runs::of(&bits(64, &[0..1, 2..3, 4..5]), 2).places();
        let range = |at, len| ByteRange::new(at, len).unwrap();
        assert_eq!(places.ranges, [range(0, 4096), range(8192, 4096)]);
        assert!(places.more);
        let mut all = Bits::new(256);
        all.set_all();
        let full = Runs::of(&all, 1).places();
        assert_eq!((full.bytes(), full.more), (1 << 20, false));
    }

    proptest! {
        #[test]
        fn runs_are_the_set_bits(set in prop::collection::vec(0_u64..300, 0..60)) {
            let singles: Vec<Range<u64>> = set.iter().map(|at| *at..at + 1).collect();
            let bits = bits(300, &singles);
            let runs = Runs::of(&bits, 300);
            let back: Vec<u64> = runs.found.iter().cloned().flatten().collect();
            let expected: std::collections::BTreeSet<u64> = set.into_iter().collect();
            prop_assert_eq!(back, expected.into_iter().collect::<Vec<_>>());
            prop_assert!(runs.found.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
