//! Amounts of bytes and places on a volume.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A number of bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct ByteCount(pub u64);

/// One block of the dirty bitmap: 4 KiB.
pub const BLOCK_BYTES: u64 = 4096;
/// One region of the intent log: 64 KiB.
pub const REGION_BYTES: u64 = 65_536;
const _: () = assert!(REGION_BYTES.is_multiple_of(BLOCK_BYTES));

/// `len` bytes of a volume from `offset` on. Invariant: the end does not overflow, kept by [`ByteRange::new`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ByteRange {
    offset: u64,
    len: u64,
}

impl ByteRange {
    /// None when the end would overflow.
    #[must_use]
    pub const fn new(offset: u64, len: u64) -> Option<Self> {
        match offset.checked_add(len) {
            Some(_) => Some(Self { offset, len }),
            None => None,
        }
    }

    /// First byte.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.offset
    }

    /// Number of bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.len
    }

    /// True for a range of no bytes.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// First byte behind the range.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.offset + self.len
    }

    /// True if the two share a byte.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.offset < other.end() && other.offset < self.end()
    }

    /// The indices of all cells of `cell` bytes that the range touches.
    #[must_use]
    pub const fn cells(self, cell: u64) -> core::ops::Range<u64> {
        if self.len == 0 {
            return 0..0;
        }
        self.offset / cell..self.end().div_ceil(cell)
    }
}

impl fmt::Debug for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}+{}]", self.offset, self.len)
    }
}
