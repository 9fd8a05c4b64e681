//! What happened, as a hash for comparing runs and as words for reading the last moments of one.

use crate::clock::Moment;
use std::collections::VecDeque;

/// FNV-1a, 64 bit (Fowler, Noll, Vo): the run's fingerprint.
const FNV_OFFSET: u64 = 0xCBF2_9CE4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01B3;

/// Counts, hashes and remembers.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    pub(crate) events: u64,
    recent: VecDeque<String>,
    keep: usize,
}

impl Trace {
    /// Remembers the last `keep` lines.
    pub(crate) const fn new(keep: usize) -> Self {
        Self {
            hash: FNV_OFFSET,
            events: 0,
            recent: VecDeque::new(),
            keep,
        }
    }

    /// The fingerprint of everything so far.
    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    /// Adds numbers to the fingerprint.
    pub(crate) fn mix(&mut self, values: &[u64]) {
        for value in values {
            self.hash = (self.hash ^ value).wrapping_mul(FNV_PRIME);
            self.hash ^= self.hash >> 29;
        }
    }

    /// Adds bytes to the fingerprint, eight at a time.
    pub(crate) fn mix_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(&[u64::from_le_bytes(word)]);
        }
    }

    /// Something that a person would want to read.
    pub(crate) fn say(&mut self, now: Moment, who: &str, text: &str) {
        self.mix_bytes(text.as_bytes());
        if self.recent.len() >= self.keep {
            self.recent.pop_front();
        }
        if self.keep > 0 {
            self.recent.push_back(format!("{now:?}  {who:<7} {text}"));
        }
    }

    /// The last lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.recent.iter().cloned().collect()
    }
}
