//! A disk with a volatile write cache: what was not made durable is lost in any part when the power goes.

use crate::rng::Rng;
use mirror::io::{BufId, DiskOp, Errno, IoId, Tell};
use std::collections::{BTreeMap, BTreeSet};
use wire::ByteRange;

/// What a disk writes at once; a crash tears at its borders.
pub(crate) const SECTOR_BYTES: usize = 512;
const SECTOR: u64 = 512;
const EIO: Errno = Errno::IO;

/// How a disk misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Reads of the volume fail.
    pub(crate) reads: bool,
    /// Writes fail, part of them being done.
    pub(crate) writes: bool,
    /// The next that many flushes fail, and forget part of the cache.
    pub(crate) flushes: u32,
    /// Nothing comes back.
    pub(crate) hung: bool,
    /// Writes of the volume do not end.
    pub(crate) stuck: bool,
    /// Everything takes that many times as long; 0 like 1.
    pub(crate) slow: u32,
    /// Writes of metadata take that many times as long; 0 like 1.
    pub(crate) slow_meta: u32,
}

impl Fault {
    /// True if nothing is wrong with the disk any more.
    pub(crate) const fn is_over(self) -> bool {
        let slow = self.slow > 1 || self.slow_meta > 1;
        !(self.reads || self.writes || self.flushes > 0 || self.hung || self.stuck || slow)
    }
}

/// An operation under way.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) io: IoId,
    op: Op,
}

#[derive(Clone, Debug)]
enum Op {
    Read {
        range: ByteRange,
        buf: BufId,
        tell: Tell,
    },
    Write {
        offset: u64,
        data: Vec<u8>,
        durable: bool,
        meta: bool,
    },
    Flush {
        upto: u64,
    },
    MetaRead {
        offset: u64,
        len: u64,
    },
}

/// What an operation came to.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) io: IoId,
    /// The bytes of a read of metadata, or the digest of a read of the volume.
    pub(crate) result: Result<Vec<u8>, Errno>,
    /// The bytes of a read of the volume, and where they go.
    pub(crate) fill: Option<(BufId, Vec<u8>)>,
}

type Sector = [u8; SECTOR_BYTES];

/// One disk. It outlives processes and power failures.
#[derive(Debug)]
pub(crate) struct Disk {
    /// What survives a power failure for certain.
    stable: Vec<u8>,
    /// What a read answers.
    current: Vec<u8>,
    /// Per sector, the versions that a power failure may leave instead of the stable one.
    dirty: BTreeMap<u64, Vec<(u64, Sector)>>,
    /// Sectors that a failed flush forgot: read well, and lost with the power.
    forgotten: BTreeSet<u64>,
    written: u64,
    pending: BTreeMap<u64, Pending>,
    next: u64,
    pub(crate) fault: Fault,
    /// It came from a snapshot, and was not made equal since: the record does not speak of it (R14).
    pub(crate) restored: bool,
    /// Sectors that cannot be read until they are written.
    pub(crate) bad: BTreeSet<u64>,
    /// Operations that wait for a hung disk.
    pub(crate) waiting: Vec<u64>,
    snapshot: Option<Vec<u8>>,
}

impl Disk {
    /// A disk with this content, all of it durable.
    pub(crate) fn new(content: Vec<u8>) -> Self {
        Self {
            stable: content.clone(),
            current: content,
            dirty: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            written: 0,
            pending: BTreeMap::new(),
            next: 0,
            fault: Fault::default(),
            restored: false,
            bad: BTreeSet::new(),
            waiting: Vec::new(),
            snapshot: None,
        }
    }

    /// What a read would answer.
    pub(crate) fn content(&self) -> &[u8] {
        &self.current
    }

    /// Size, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        u64::try_from(self.current.len()).unwrap_or(u64::MAX)
    }

    /// Takes an operation; a write carries its data. Answers its name, or what breaks the contract.
    pub(crate) fn submit(
        &mut self,
        io: IoId,
        op: DiskOp,
        data: Option<Vec<u8>>,
    ) -> Result<u64, String> {
        let op = match op {
            DiskOp::Read { range, buf, tell } => Op::Read { range, buf, tell },
            DiskOp::Write { range, fua, .. } => {
                self.check_overlap(range)?;
                let data = data.ok_or("a write without its buffer")?;
                if u64::try_from(data.len()) != Ok(range.len()) {
                    return Err(format!("a write of {range:?} with {} bytes", data.len()));
                }
                Op::Write {
                    offset: range.offset(),
                    data,
                    durable: fua,
                    meta: false,
                }
            }
            DiskOp::Zero { range, fua } => {
                self.check_overlap(range)?;
                let len = usize::try_from(range.len()).map_err(|_| "too long")?;
                Op::Write {
                    offset: range.offset(),
                    data: vec![0; len],
                    durable: fua,
                    meta: false,
                }
            }
            DiskOp::Flush => Op::Flush { upto: self.written },
            DiskOp::MetaRead { offset, len } => Op::MetaRead { offset, len },
            DiskOp::MetaWrite { offset, bytes } => Op::Write {
                offset,
                data: bytes,
                durable: true,
                meta: true,
            },
        };
        self.check_bounds(&op)?;
        self.next += 1;
        self.pending.insert(self.next, Pending { io, op });
        Ok(self.next)
    }

    /// True if this operation waits for the fault to end.
    pub(crate) fn waits(&self, name: u64) -> bool {
        let is_write = |p: &Pending| matches!(p.op, Op::Write { meta: false, .. });
        self.fault.hung || self.fault.stuck && self.pending.get(&name).is_some_and(is_write)
    }

    fn check_bounds(&self, op: &Op) -> Result<(), String> {
        let (offset, len) = match op {
            Op::Read { range, .. } => (range.offset(), range.len()),
            Op::Write { offset, data, .. } => {
                (*offset, u64::try_from(data.len()).unwrap_or(u64::MAX))
            }
            Op::MetaRead { offset, len } => (*offset, *len),
            Op::Flush { .. } => return Ok(()),
        };
        let fits = offset
            .checked_add(len)
            .is_some_and(|end| end <= self.bytes());
        if fits && offset.is_multiple_of(SECTOR) && len.is_multiple_of(SECTOR) {
            return Ok(());
        }
        Err(format!(
            "an operation at {offset}+{len} on a disk of {} bytes",
            self.bytes()
        ))
    }

    fn check_overlap(&self, range: ByteRange) -> Result<(), String> {
        for pending in self.pending.values() {
            if let Op::Write { offset, data, .. } = &pending.op {
                let len = u64::try_from(data.len()).unwrap_or(u64::MAX);
                if ByteRange::new(*offset, len).is_some_and(|other| other.overlaps(range)) {
                    return Err(format!("two overlapping writes under way at {range:?}"));
                }
            }
        }
        Ok(())
    }

    /// Ends the operation; none if it is not under way any more.
    pub(crate) fn finish(&mut self, name: u64, rng: &mut Rng) -> Option<Done> {
        let Pending { io, op } = self.pending.remove(&name)?;
        let mut fill = None;
        let result = match op {
            Op::Read { .. } if self.fault.reads => Err(EIO),
            Op::Read { range, .. } if self.has_bad_sector(range) => Err(EIO),
            Op::Read { range, buf, tell } => {
                let bytes = self.bytes_at(range.offset(), range.len());
                let answer = tell.of(&bytes);
                fill = Some((buf, bytes));
                Ok(answer)
            }
            Op::Write { offset, data, .. } if self.fault.writes => {
                self.write_some(offset, &data, rng);
                Err(EIO)
            }
            Op::Write {
                offset,
                data,
                durable,
                ..
            } => {
                self.write(offset, &data, durable);
                Ok(Vec::new())
            }
            Op::Flush { .. } if self.fault.flushes > 0 => {
                self.fault.flushes -= 1;
                self.forget_some(rng);
                Err(EIO)
            }
            Op::Flush { upto } => {
                self.flush(upto);
                Ok(Vec::new())
            }
            Op::MetaRead { offset, len } => Ok(self.bytes_at(offset, len)),
        };
        Some(Done { io, result, fill })
    }

    fn has_bad_sector(&self, range: ByteRange) -> bool {
        let sectors = range.cells(SECTOR);
        self.bad.range(sectors).next().is_some()
    }

    fn bytes_at(&self, offset: u64, len: u64) -> Vec<u8> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let len = usize::try_from(len).unwrap_or(0);
        self.current
            .get(from..from + len)
            .map(<[u8]>::to_vec)
            .unwrap_or_default()
    }

    fn write(&mut self, offset: u64, data: &[u8], durable: bool) {
        self.written += 1;
        for (index, bytes) in (offset / SECTOR..).zip(data.chunks_exact(SECTOR_BYTES)) {
            self.write_sector(index, bytes, durable);
        }
    }

    fn write_sector(&mut self, index: u64, bytes: &[u8], durable: bool) {
        let Ok(sector) = Sector::try_from(bytes) else {
            return;
        };
        place(&mut self.current, index, &sector);
        self.bad.remove(&index);
        if durable {
            place(&mut self.stable, index, &sector);
            self.dirty.remove(&index);
            self.forgotten.remove(&index);
        } else {
            self.dirty
                .entry(index)
                .or_default()
                .push((self.written, sector));
        }
    }

    fn write_some(&mut self, offset: u64, data: &[u8], rng: &mut Rng) {
        self.written += 1;
        let share = rng.pick(&[0, 500, 1_000]);
        for (index, bytes) in (offset / SECTOR..).zip(data.chunks_exact(SECTOR_BYTES)) {
            if rng.chance(share) {
                self.write_sector(index, bytes, false);
            }
        }
    }

    fn flush(&mut self, upto: u64) {
        let stable = &mut self.stable;
        self.dirty.retain(|index, versions| {
            let durable = versions.iter().take_while(|(at, _)| *at <= upto).count();
            if let Some((_, sector)) = durable.checked_sub(1).and_then(|last| versions.get(last)) {
                place(stable, *index, sector);
            }
            versions.drain(..durable);
            !versions.is_empty()
        });
    }

    /// As Linux does after a failed write-back: the pages count as clean, and their content is gone with the power.
    fn forget_some(&mut self, rng: &mut Rng) {
        let sectors: Vec<u64> = self.dirty.keys().copied().collect();
        for index in sectors {
            if rng.chance(700) {
                self.dirty.remove(&index);
                self.forgotten.insert(index);
            }
        }
    }

    /// The process that used it died: what was under way was done or not.
    pub(crate) fn orphan(&mut self, rng: &mut Rng) {
        self.waiting.clear();
        for (_, pending) in core::mem::take(&mut self.pending) {
            if let Op::Write {
                offset,
                data,
                durable,
                ..
            } = pending.op
                && rng.chance(500)
            {
                self.write(offset, &data, durable && !self.fault.writes);
            }
        }
    }

    /// The power went: of what was in the cache or under way any part survives.
    pub(crate) fn lose_power(&mut self, rng: &mut Rng) {
        self.waiting.clear();
        for (_, pending) in core::mem::take(&mut self.pending) {
            if let Op::Write { offset, data, .. } = pending.op {
                self.write_some(offset, &data, rng);
            }
        }
        let share = rng.pick(&[0, 500, 900, 1_000]);
        for (index, versions) in core::mem::take(&mut self.dirty) {
            if rng.chance(share) {
                let (_, sector) = versions[rng.index(versions.len())];
                place(&mut self.stable, index, &sector);
            }
            restore(&mut self.current, &self.stable, index);
        }
        for index in core::mem::take(&mut self.forgotten) {
            restore(&mut self.current, &self.stable, index);
        }
    }

    /// Remembers the present state for [`Disk::roll_back`].
    pub(crate) fn take_snapshot(&mut self) {
        self.snapshot = Some(self.stable.clone());
    }

    /// A person restores the snapshot while the machine is off. False if there is none.
    pub(crate) fn roll_back(&mut self) -> bool {
        let Some(content) = self.snapshot.take() else {
            return false;
        };
        *self = Self::new(content);
        self.restored = true;
        true
    }
}

fn place(content: &mut [u8], index: u64, sector: &Sector) {
    let from = usize::try_from(index * SECTOR).unwrap_or(usize::MAX);
    if let Some(target) = content.get_mut(from..from.saturating_add(SECTOR_BYTES)) {
        target.copy_from_slice(sector);
    }
}

fn restore(current: &mut [u8], stable: &[u8], index: u64) {
    let from = usize::try_from(index * SECTOR).unwrap_or(usize::MAX);
    let range = from..from.saturating_add(SECTOR_BYTES);
    if let (Some(target), Some(source)) = (current.get_mut(range.clone()), stable.get(range)) {
        target.copy_from_slice(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(disk: &mut Disk, at: u64, byte: u8, fua: bool) {
        let range = ByteRange::new(at, 1024).unwrap();
        let op = DiskOp::Write {
            range,
            buf: BufId(0),
            fua,
        };
        let name = disk.submit(IoId(0), op, Some(vec![byte; 1024])).unwrap();
        disk.finish(name, &mut Rng::new(0)).unwrap().result.unwrap();
    }

    fn flush(disk: &mut Disk) -> Result<Vec<u8>, Errno> {
        let name = disk.submit(IoId(0), DiskOp::Flush, None).unwrap();
        disk.finish(name, &mut Rng::new(0)).unwrap().result
    }

    #[test]
    fn flushed_writes_survive_a_power_failure_and_others_may_not() {
        let mut lost = 0;
        for seed in 0..50 {
            let mut disk = Disk::new(vec![0; 8192]);
            write(&mut disk, 0, 1, false);
            flush(&mut disk).unwrap();
            write(&mut disk, 512, 2, false);
            write(&mut disk, 4096, 3, true);
            disk.lose_power(&mut Rng::new(seed));
            assert_eq!(disk.content()[0], 1);
            assert!(matches!(disk.content()[512], 1 | 2));
            assert_eq!(disk.content()[4096], 3);
            lost += u32::from(disk.content()[512] == 1);
        }
        assert!((5..45).contains(&lost), "{lost} of 50 were lost");
    }

    #[test]
    fn a_flush_covers_only_what_was_done_before_it() {
        let mut disk = Disk::new(vec![0; 4096]);
        let early = disk.submit(IoId(1), DiskOp::Flush, None).unwrap();
        write(&mut disk, 0, 1, false);
        disk.finish(early, &mut Rng::new(0));
        assert_eq!(disk.dirty.len(), 2);
    }

    #[test]
    fn a_second_flush_does_not_bring_back_what_a_failed_one_forgot() {
        let mut disk = Disk::new(vec![0; 1 << 16]);
        for at in 0..60 {
            write(&mut disk, at * 1024, 7, false);
        }
        disk.fault.flushes = 1;
        flush(&mut disk).unwrap_err();
        flush(&mut disk).unwrap();
        assert!(disk.content()[..60 * 1024].iter().all(|b| *b == 7));
        disk.lose_power(&mut Rng::new(0));
        assert!(disk.content()[..60 * 1024].contains(&0));
    }

    #[test]
    fn overlapping_writes_break_the_contract() {
        let mut disk = Disk::new(vec![0; 8192]);
        let range = ByteRange::new(0, 4096).unwrap();
        let op = DiskOp::Zero { range, fua: false };
        disk.submit(IoId(0), op.clone(), None).unwrap();
        assert!(disk.submit(IoId(1), op, None).is_err());
    }
}
