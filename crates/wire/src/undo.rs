//! The undo log of a resync's target: what was on the disk before the resync overwrote it.
//!
//! ```text
//! 0        4 KiB          8 KiB
//! | header | header again | list | old blocks | list again | list | old blocks | list again | …
//! ```
//!
//! The header says whose log it is and when it began. A *batch* is what was saved at once: a list of places with the checksum of
//! each block's old content, the content, and the same list again. Batches are numbered from 1, and one is written only when
//! the one before it is durable. Lists and header are sealed blocks ([`crate::layout`]) that name replica and run, so what an
//! earlier run left behind counts as nothing, whatever it is. Whether the log leads back is not said here but in the
//! superblock ([`crate::layout::Superblock::undo`]).

use crate::layout::{self, BlockKind, CONTENT_BYTES, SEALED_BYTES};
use crate::units::BLOCK_BYTES;
use serde::{Deserialize, Serialize};

/// Most blocks of one batch: 1 MiB.
pub const BATCH_BLOCKS_MAX: usize = 256;
/// Most separate runs of blocks in one batch: each is a read of the disk, and all of them together have to be done in time.
pub const BATCH_RUNS_MAX: usize = 32;
/// The header is written so often, one after the other.
pub const HEADERS: u64 = 2;
/// Where the first batch is, in bytes.
pub const FIRST_BATCH: u64 = HEADERS * BLOCK_BYTES;
/// Smallest bound of a log, in bytes: the headers and a full batch fit.
pub const LOG_BYTES_MIN: u64 = 2 << 20;

const KEY_BYTES: usize = 24;
const ENTRY_BYTES: usize = 12;
const HEADER_BYTES: usize = KEY_BYTES + 16;
const _: () = assert!(KEY_BYTES + BATCH_BLOCKS_MAX * ENTRY_BYTES <= CONTENT_BYTES);
const _: () =
    assert!(FIRST_BATCH + (256 + 2) * BLOCK_BYTES <= LOG_BYTES_MIN && BATCH_BLOCKS_MAX == 256);

/// One run of the log: from the beginning of a resync to its commit, however many sessions that takes. Random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoRun(pub u64);

/// What every list names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The replica's own identity.
    pub replica: u128,
    /// Which of its runs.
    pub run: UndoRun,
}

/// What a log begins with, in each of its first two blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose log it is.
    pub key: Key,
    /// When the run began, in seconds since 1970, by the wall clock: for people.
    pub began_unix: u64,
    /// Size of the file or device then, in bytes. One that became smaller may have lost batches.
    pub log_bytes: u64,
}

/// One saved block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number of the 4 KiB block of the volume.
    pub block: u64,
    /// CRC-32C of its old content.
    pub crc: u32,
}

/// A list as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Number of its batch.
    pub sequence: u64,
    /// In the order of the content.
    pub entries: Vec<Entry>,
}

impl Key {
    fn to_bytes(self) -> [u8; KEY_BYTES] {
        let mut bytes = [0; KEY_BYTES];
        bytes[..16].copy_from_slice(&self.replica.to_le_bytes());
        bytes[16..].copy_from_slice(&self.run.0.to_le_bytes());
        bytes
    }

    /// The content behind the key, if it is this one.
    fn opens(self, content: &[u8]) -> Option<&[u8]> {
        content.strip_prefix(&self.to_bytes()[..])
    }
}

impl Header {
    /// The sealed blocks, in order.
    #[must_use]
    pub fn seal(&self) -> Vec<u8> {
        let mut content = Vec::with_capacity(HEADER_BYTES);
        content.extend_from_slice(&self.key.to_bytes());
        content.extend_from_slice(&self.began_unix.to_le_bytes());
        content.extend_from_slice(&self.log_bytes.to_le_bytes());
        let places = (0..HEADERS).map(|place| layout::seal(BlockKind::Undo, place, 1, &content));
        places.flatten().collect()
    }

    /// True if a block at this place is one of an undo log, be it torn, damaged, or of another replica.
    #[must_use]
    pub fn is_one(place: u64, block: &[u8]) -> bool {
        layout::claims(BlockKind::Undo, place, block)
    }

    /// True if it is whole and of this replica, of whatever run.
    #[must_use]
    pub fn is_of(replica: u128, place: u64, block: &[u8]) -> bool {
        layout::open(BlockKind::Undo, place, block)
            .is_ok_and(|(_, content)| content.starts_with(&replica.to_le_bytes()))
    }

    /// The header of this run at its place, in blocks; none if anything else is there.
    #[must_use]
    pub fn open(key: Key, place: u64, block: &[u8]) -> Option<Self> {
        let (_, content) = layout::open(BlockKind::Undo, place, block).ok()?;
        let (began, bytes) = key.opens(&content)?.split_at_checked(8)?;
        Some(Self {
            key,
            began_unix: u64::from_le_bytes(began.try_into().ok()?),
            log_bytes: u64::from_le_bytes(bytes.try_into().ok()?),
        })
    }
}

impl List {
    /// The list at `offset` of the log; none if something else is there, another run's list included.
    #[must_use]
    pub fn open(key: Key, offset: u64, block: &[u8]) -> Option<Self> {
        let place = offset / BLOCK_BYTES;
        let (sequence, content) = layout::open(BlockKind::UndoList, place, block).ok()?;
        let packed = key.opens(&content)?;
        let entries: Option<Vec<Entry>> = packed.chunks(ENTRY_BYTES).map(Entry::parse).collect();
        let entries = entries.filter(|them| (1..=BATCH_BLOCKS_MAX).contains(&them.len()))?;
        Some(Self { sequence, entries })
    }

    fn seal(&self, key: Key, offset: u64) -> [u8; SEALED_BYTES] {
        let mut content = key.to_bytes().to_vec();
        for entry in &self.entries {
            content.extend_from_slice(&entry.block.to_le_bytes());
            content.extend_from_slice(&entry.crc.to_le_bytes());
        }
        let place = offset / BLOCK_BYTES;
        layout::seal(BlockKind::UndoList, place, self.sequence, &content)
    }
}

impl Entry {
    /// Of a block's old content.
    #[must_use]
    pub fn of(block: u64, content: &[u8]) -> Self {
        let crc = crc32c::crc32c(content);
        Self { block, crc }
    }

    /// True if this is the content that was saved.
    #[must_use]
    pub fn is_of(&self, content: &[u8]) -> bool {
        crc32c::crc32c(content) == self.crc
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (block, crc) = bytes.split_at_checked(8)?;
        Some(Self {
            block: u64::from_le_bytes(block.try_into().ok()?),
            crc: u32::from_le_bytes(crc.try_into().ok()?),
        })
    }
}

/// Size of a batch of so many blocks, in bytes.
#[must_use]
pub fn batch_bytes(blocks: usize) -> u64 {
    let blocks = u64::try_from(blocks).unwrap_or(u64::MAX);
    blocks.saturating_add(2).saturating_mul(BLOCK_BYTES)
}

/// A batch as it is written at `offset`: at most [`BATCH_BLOCKS_MAX`] blocks, `content` one after the other.
#[must_use]
pub fn batch(key: Key, (sequence, offset): (u64, u64), blocks: &[u64], content: &[u8]) -> Vec<u8> {
    let pieces = content.chunks_exact(SEALED_BYTES);
    let entries = blocks.iter().zip(pieces);
    let list = List {
        sequence,
        entries: entries.map(|(block, old)| Entry::of(*block, old)).collect(),
    };
    let again = offset + batch_bytes(list.entries.len()) - BLOCK_BYTES;
    let mut bytes = list.seal(key, offset).to_vec();
    bytes.extend_from_slice(&content[..list.entries.len() * SEALED_BYTES]);
    bytes.extend_from_slice(&list.seal(key, again));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key {
        replica: 7 << 70,
        run: UndoRun(99),
    };

    #[test]
    fn a_batch_says_the_same_at_both_its_ends_and_nothing_to_another_run() {
        let content: Vec<u8> = (0..=255).cycle().take(3 * SEALED_BYTES).collect();
        let bytes = batch(KEY, (5, 8 * BLOCK_BYTES), &[4, 9, 1 << 40], &content);
        assert_eq!(bytes.len(), 5 * SEALED_BYTES);
        let list = List::open(KEY, 8 * BLOCK_BYTES, &bytes[..SEALED_BYTES]).unwrap();
        assert_eq!((list.sequence, list.entries[2].block), (5, 1 << 40));
        assert!(list.entries[1].is_of(&content[SEALED_BYTES..2 * SEALED_BYTES]));
        let again = &bytes[4 * SEALED_BYTES..];
        assert_eq!(List::open(KEY, 12 * BLOCK_BYTES, again), Some(list));
        let other = Key {
            run: UndoRun(98),
            ..KEY
        };
        assert_eq!(List::open(other, 12 * BLOCK_BYTES, again), None);
        assert_eq!(List::open(KEY, 8 * BLOCK_BYTES, again), None, "astray");
    }

    #[test]
    fn no_block_breaks_the_parsers() {
        let header = Header {
            key: KEY,
            began_unix: 1 << 40,
            log_bytes: 1 << 30,
        };
        for (place, block) in (0..HEADERS).zip(header.seal().chunks(SEALED_BYTES)) {
            assert_eq!(Header::open(KEY, place, block), Some(header));
            assert_eq!(Header::open(KEY, 1 - place, block), None, "astray");
            assert_eq!(List::open(KEY, place * BLOCK_BYTES, block), None);
            assert!(Header::is_of(KEY.replica, place, block) && !Header::is_of(8, place, block));
            let mut damaged = block.to_vec();
            damaged[700] ^= 1;
            assert!(Header::open(KEY, place, &damaged).is_none());
            assert!(Header::is_one(place, &damaged) && !Header::is_one(place, &[0; 4096]));
        }
        for len in [0, 1, KEY_BYTES, KEY_BYTES + 5, CONTENT_BYTES] {
            let mut content = KEY.to_bytes().to_vec();
            content.resize(len, 3);
            for kind in [BlockKind::Undo, BlockKind::UndoList] {
                let block = layout::seal(kind, 0, 1, &content);
                assert!(Header::open(KEY, 0, &block).is_none());
                assert!(List::open(KEY, 0, &block).is_none());
            }
        }
    }
}
