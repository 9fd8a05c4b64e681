//! Plays a power failure: decides which volatile writes the medium kept, and undoes the others.

use super::Faults;
use super::journal::{self, Bond};
use crate::disk::{Disk, OpenOptions};
use crate::ring::Buf;
use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The unit that a disk writes as a whole, in bytes.
const SECTOR: usize = 512;

/// What a power failure did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PowerLoss {
    /// Volatile writes that the medium kept.
    pub kept: usize,
    /// Volatile writes that were lost.
    pub lost: usize,
    /// Volatile writes of which some sectors were lost.
    pub torn: usize,
}

/// What becomes of one volatile write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    Torn,
}

/// Undoes a random subset of the volatile writes of the disk at `path`, whose shim directory is `dir`.
///
/// Every process that has the disk must be dead: the disk is opened exclusively. The same journal and `seed` give the
/// same result, also when it is repeated after being interrupted. Afterwards nothing is volatile, and the disk has no
/// faults any more.
///
/// # Errors
/// When the disk is still in use, or disk or journal cannot be read or written.
pub fn power_loss(path: &Path, dir: &Path, seed: u64) -> io::Result<PowerLoss> {
    let disk = Disk::open(path, &OpenOptions::default()).map_err(io::Error::other)?;
    let mut outcome = PowerLoss::default();
    // Newest first: where a newer write was kept, undoing an older one changes nothing.
    let mut settled = BTreeSet::new();
    for undo in journal::writes(dir)?.into_iter().rev() {
        let mut random = Random::new(seed, undo.id);
        let fate = match undo.bond {
            Bond::Volatile => fate(&mut random),
            Bond::Unclear | Bond::Durable => Fate::Kept,
        };
        match fate {
            Fate::Kept => outcome.kept += usize::from(undo.bond != Bond::Durable),
            Fate::Lost => outcome.lost += 1,
            Fate::Torn => outcome.torn += 1,
        }
        for (at, old) in (undo.offset..).step_by(SECTOR).zip(undo.old.chunks(SECTOR)) {
            let keep = fate == Fate::Kept || fate == Fate::Torn && random.below(2) == 0;
            if !settled.contains(&at) {
                if keep {
                    settled.insert(at);
                } else {
                    restore(&disk, at, old)?;
                }
            }
        }
    }
    rustix::fs::fdatasync(&disk)?;
    journal::clear(dir)?;
    Faults::NONE.set(dir)?;
    Ok(outcome)
}

fn fate(random: &mut Random) -> Fate {
    match random.below(10) {
        0..4 => Fate::Kept,
        4..8 => Fate::Lost,
        _ => Fate::Torn,
    }
}

/// Puts `old` back at `at`, by a whole block if the disk's blocks are larger than a sector.
fn restore(disk: &Disk, at: u64, old: &[u8]) -> io::Result<()> {
    let block = u64::from(disk.logical_block());
    let start = at - at % block;
    let mut buf = Buf::new(usize::try_from(block).map_err(io::Error::other)?);
    disk.file.read_exact_at(&mut buf, start)?;
    let within = usize::try_from(at - start).map_err(io::Error::other)?;
    buf[within..within + old.len()].copy_from_slice(old);
    disk.file.write_all_at(&buf, start)
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, seedable, good enough to pick fates.
struct Random(u64);

impl Random {
    fn new(seed: u64, record: u64) -> Self {
        Self(seed ^ record.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
