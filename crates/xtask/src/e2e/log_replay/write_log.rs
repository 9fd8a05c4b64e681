//! The write log of QEMU's `blklogwrites`, in the format of the kernel's dm-log-writes
//! (Documentation/admin-guide/device-mapper/log-writes.rst): a super block, then entries, each with its data behind it.

use crate::failure::{Failure, Outcome};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;
/// Longest log that is read, in entries.
const ENTRIES_MAX: u64 = 1 << 20;

/// One operation, in the order in which the disk did them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// Everything before it is durable.
    pub(crate) flush: bool,
    /// Byte offset on the disk.
    pub(crate) offset: usize,
    /// What was written; empty for a flush.
    pub(crate) data: &'a [u8],
}

impl std::fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (offset, bytes) = (self.offset, self.data.len());
        write!(f, "{bytes} bytes at {offset}")
    }
}

/// Parses a whole log.
pub(crate) fn parse(log: &[u8]) -> Outcome<Vec<Entry<'_>>> {
    let mut super_block = Fields(log);
    let (magic, version) = (super_block.u64()?, super_block.u64()?);
    let (count, sector) = (super_block.u64()?, super_block.u64()? & 0xffff_ffff);
    if (magic, version) != (MAGIC, VERSION)
        || count > ENTRIES_MAX
        || !(512..=4096).contains(&sector)
    {
        return Err(bad("its super block makes no sense"));
    }
    let sector = to_usize(sector)?;
    let mut rest = log.get(sector..).unwrap_or_default();
    let mut entries = Vec::new();
    for _ in 0..count {
        let mut header = Fields(rest);
        let (at, sectors, flags) = (header.u64()?, header.u64()?, header.u64()?);
        let bytes = to_usize(sectors)?.checked_mul(sector);
        let offset = to_usize(at)?.checked_mul(sector);
        let (Some(bytes), Some(offset)) = (bytes, offset) else {
            return Err(bad("an entry lies outside of every disk"));
        };
        if flags & DISCARD != 0 {
            // What a discarded range holds is the disk's secret, and no load here discards.
            return Err(bad("it has a discard"));
        }
        let data = rest.get(sector..).and_then(|behind| behind.get(..bytes));
        let data = data.ok_or_else(|| bad("it ends in the middle of an entry"))?;
        rest = &rest[sector + bytes..];
        entries.push(Entry {
            flush: flags & FLUSH != 0,
            offset,
            data,
        });
    }
    Ok(entries)
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u64(&mut self) -> Outcome<u64> {
        let (field, rest) = (self.0.split_first_chunk()).ok_or_else(|| bad("it is cut off"))?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*field))
    }
}

fn to_usize(value: u64) -> Outcome<usize> {
    usize::try_from(value).map_err(|_| bad("a number in it is too large"))
}

fn bad(why: &str) -> Failure {
    Failure::new("the write log cannot be read").because(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(fields: &[u64]) -> Vec<u8> {
        let mut bytes: Vec<u8> = fields.iter().flat_map(|f| f.to_le_bytes()).collect();
        bytes.resize(512, 0);
        bytes
    }

    fn log() -> Vec<u8> {
        let write = [sector(&[4, 1, 0, 0]), vec![7; 512]].concat();
        [sector(&[MAGIC, 1, 2, 512]), write, sector(&[0, 0, 1, 0])].concat()
    }

    #[test]
    fn writes_and_flushes_come_in_order() {
        let log = log();
        let entries = parse(&log).unwrap();
        assert_eq!((entries[0].offset, entries[0].data), (2048, &[7; 512][..]));
        assert!(entries[1].flush && entries[1].data.is_empty());
    }

    #[test]
    fn a_log_that_is_cut_off_or_foreign_is_refused() {
        let log = log();
        for end in [0, 31, 512, 600, 1200, 1536] {
            assert!(parse(&log[..end]).is_err(), "cut at {end}");
        }
        let mut foreign = log;
        foreign[0] ^= 1;
        assert!(parse(&foreign).is_err());
    }
}
