//! A flat bit vector with a running count: one bit per 4 KiB block of the volume.

use std::ops::Range;

/// Bits, numbered from 0. Positions beyond the end are ignored: callers check ranges where they come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bits {
    words: Vec<u64>,
    len: u64,
    /// Invariant: the number of set bits.
    ones: u64,
}

const WORD: u64 = 64;

impl Bits {
    /// `len` bits, all clear.
    pub(crate) fn new(len: u64) -> Self {
        Self {
            words: vec![0; index(len.div_ceil(WORD))],
            len,
            ones: 0,
        }
    }

    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// Number of bits that are set.
    pub(crate) const fn ones(&self) -> u64 {
        self.ones
    }

    pub(crate) const fn is_clear(&self) -> bool {
        self.ones == 0
    }

    pub(crate) fn set(&mut self, range: Range<u64>) {
        self.change(range, |word, mask| word | mask);
    }

    pub(crate) fn clear(&mut self, range: Range<u64>) {
        self.change(range, |word, mask| word & !mask);
    }

    /// Another number of bits: those behind a lower one are gone, further ones are clear.
    pub(crate) fn resize(&mut self, len: u64) {
        if len < self.len {
            self.clear(len..self.len);
        }
        self.words.resize(index(len.div_ceil(WORD)), 0);
        self.len = len;
    }

    pub(crate) fn set_all(&mut self) {
        self.set(0..self.len);
    }

    fn change(&mut self, range: Range<u64>, to: impl Fn(u64, u64) -> u64) {
        let end = range.end.min(self.len);
        let mut at = range.start;
        while at < end {
            let upto = (at / WORD + 1).saturating_mul(WORD).min(end);
            let slot = &mut self.words[index(at / WORD)];
            let new = to(*slot, mask(at % WORD, upto - at));
            self.ones = self.ones + u64::from(new.count_ones()) - u64::from(slot.count_ones());
            *slot = new;
            at = upto;
        }
    }

    /// The first set bit at or behind `from`.
    pub(crate) fn next_set(&self, from: u64) -> Option<u64> {
        if from >= self.len {
            return None;
        }
        let first = index(from / WORD);
        let head = self.words[first] & (u64::MAX << (from % WORD));
        std::iter::once(head)
            .chain(self.words[first + 1..].iter().copied())
            .zip(from / WORD..)
            .find(|(word, _)| *word != 0)
            .map(|(word, at)| at * WORD + u64::from(word.trailing_zeros()))
    }

    /// The first run of set bits at or behind `from`, cut to `max` bits.
    pub(crate) fn next_run(&self, from: u64, max: u64) -> Option<Range<u64>> {
        let start = self.next_set(from)?;
        let limit = start.saturating_add(max).min(self.len);
        let end = (start..limit).find(|at| !self.get(*at)).unwrap_or(limit);
        Some(start..end)
    }

    /// True if a bit of the range is set.
    pub(crate) fn any_in(&self, range: Range<u64>) -> bool {
        let end = range.end.min(self.len);
        let mut at = range.start;
        while at < end {
            let upto = (at / WORD + 1).saturating_mul(WORD).min(end);
            if self.words[index(at / WORD)] & mask(at % WORD, upto - at) != 0 {
                return true;
            }
            at = upto;
        }
        false
    }

    pub(crate) fn get(&self, at: u64) -> bool {
        at < self.len && self.words[index(at / WORD)] & mask(at % WORD, 1) != 0
    }

    /// True if every bit of `range` that is set here is set in `other` too.
    pub(crate) fn within(&self, other: &Self, range: Range<u64>) -> bool {
        let end = range.end.min(self.len);
        let mut at = range.start;
        while at < end {
            let upto = (at / WORD + 1).saturating_mul(WORD).min(end);
            let word = index(at / WORD);
            if self.words[word] & !other.words[word] & mask(at % WORD, upto - at) != 0 {
                return false;
            }
            at = upto;
        }
        true
    }

    /// Sets every bit that is set in `other`.
    pub(crate) fn union(&mut self, other: &Self) {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            self.ones += u64::from((more & !*word).count_ones());
            *word |= more;
        }
    }

    /// The words of bits `range`, which begins at a word's start.
    pub(crate) fn words(&self, range: Range<u64>) -> &[u64] {
        let end = index(range.end.div_ceil(WORD)).min(self.words.len());
        &self.words[index(range.start / WORD).min(end)..end]
    }

    /// Replaces the words from bit `start` on, a word's start; what lies behind the end is cut off.
    pub(crate) fn set_words(&mut self, start: u64, words: impl Iterator<Item = u64>) {
        let first = index(start / WORD);
        for (at, new) in (first..self.words.len()).zip(words) {
            let valid = self.len - u64::try_from(at).unwrap_or(u64::MAX) * WORD;
            let new = new & mask(0, valid.min(WORD));
            let old = std::mem::replace(&mut self.words[at], new);
            self.ones = self.ones + u64::from(new.count_ones()) - u64::from(old.count_ones());
        }
    }
}

/// `count` ones from bit `from` on; `from + count <= 64`.
const fn mask(from: u64, count: u64) -> u64 {
    if count >= WORD {
        u64::MAX
    } else {
        ((1 << count) - 1) << from
    }
}

/// A position as an index. Volumes whose bitmap does not fit the address space cannot be attached at all.
fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_run_is_cut_to_the_limit_and_to_the_end() {
        let mut bits = Bits::new(130);
        bits.set(60..130);
        assert_eq!(bits.next_run(0, 16), Some(60..76));
        assert_eq!(bits.next_run(120, 16), Some(120..130));
        assert_eq!(bits.next_run(130, 16), None);
        bits.set(0..u64::MAX);
        assert_eq!(bits.ones(), 130);
    }

    proptest! {
        #[test]
        fn bits_behave_like_a_set(steps in prop::collection::vec((any::<bool>(), 0_u64..300, 0_u64..80), 0..40)) {
            let mut bits = Bits::new(257);
            let mut model = std::collections::BTreeSet::new();
            for (on, start, len) in steps {
                let range = start..start + len;
                for at in range.clone().filter(|at| *at < 257) {
                    if on { model.insert(at); } else { model.remove(&at); }
                }
                if on { bits.set(range) } else { bits.clear(range) }
            }
            prop_assert_eq!(bits.ones(), u64::try_from(model.len()).unwrap());
            for at in 0..257 {
                prop_assert_eq!(bits.get(at), model.contains(&at));
                prop_assert_eq!(bits.any_in(at..at + 70), model.range(at..at + 70).next().is_some());
                prop_assert_eq!(bits.next_set(at), model.range(at..).next().copied());
            }
            let mut copy = Bits::new(257);
            copy.set_words(0, bits.words(0..257).iter().copied());
            prop_assert!(copy == bits && bits.within(&copy, 0..257));
        }
    }
}
