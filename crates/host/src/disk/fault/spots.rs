//! Bad spots: blocks that cannot be read until they are written.

use crate::disk::Access;
use std::collections::BTreeSet;

/// Size of a spot, in bytes.
const SPOT_BYTES: u64 = 4096;
/// Every so many-th block is one, from offset 0 on.
const EVERY: u64 = 256;

/// Which of the spots were written since the fault began. Every 256th block is one: a MiB from the next.
#[derive(Debug, Default)]
pub(super) struct Spots {
    cured: BTreeSet<u64>,
}

impl Spots {
    /// True if the access is a read that touches a bad spot.
    pub(super) fn spoil(&self, access: Access) -> bool {
        let Access::Read { offset, len } = access else {
            return false;
        };
        spots(offset, len).any(|spot| !self.cured.contains(&spot))
    }

    /// A write cures the spots that it touches; it is told of each, also while no spot is bad.
    pub(super) fn written(&mut self, offset: u64, len: u64) {
        self.cured.extend(spots(offset, len));
    }
}

fn spots(offset: u64, len: u64) -> impl Iterator<Item = u64> {
    let first = (offset / SPOT_BYTES).div_ceil(EVERY);
    let end = offset
        .saturating_add(len)
        .div_ceil(SPOT_BYTES)
        .div_ceil(EVERY);
    first..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spot_is_bad_until_it_is_written() {
        let mut spots = Spots::default();
        let read = |offset, len| Access::Read { offset, len };
        assert!(spots.spoil(read(0, 512)) && spots.spoil(read(0, 8 << 20)));
        assert!(!spots.spoil(read(4096, 4096)), "between the spots");
        assert!(spots.spoil(read((1 << 20) + 512, 512)));
        spots.written((1 << 20) - 4096, 8192);
        assert!(!spots.spoil(read(1 << 20, 4096)) && spots.spoil(read(2 << 20, 4096)));
    }
}
