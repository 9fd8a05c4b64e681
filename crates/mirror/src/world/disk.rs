//! A disk with a volatile cache: what was not flushed is lost sector by sector, in any combination, when power fails.

use crate::io::{DiskOp, IoId};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const SECTOR: usize = 512;
pub(super) type Sector = [u8; SECTOR];

#[derive(Debug)]
pub(super) struct SimDisk {
    /// What reads return.
    pub(super) current: Vec<u8>,
    durable: Vec<u8>,
    /// Versions of a sector that were written and not flushed, with the number of the write.
    volatile: BTreeMap<usize, Vec<(u64, Sector)>>,
    writes: u64,
    /// Operations that started or ended, and power failures.
    changes: u64,
    under_way: Vec<UnderWay>,
    /// Every operation ends with this error.
    pub(super) broken: Option<i32>,
    /// Sectors that cannot be read until they are written.
    pub(super) bad: BTreeSet<usize>,
    /// Writing does not help a bad sector.
    pub(super) worn: bool,
    /// Zeros from here on cannot be written: a thin pool is full.
    pub(super) full: Option<u64>,
}

/// Sectors that are not durable, each with the versions it may have instead of the durable one.
#[derive(Debug)]
pub(super) struct Choices {
    pub(super) versions: Vec<(usize, Vec<Sector>)>,
}

#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) io: IoId,
    pub(super) op: DiskOp,
    /// What a write writes.
    data: Vec<u8>,
    /// A flush covers the writes up to this number.
    covers: u64,
}

impl UnderWay {
    /// What it writes: (offset, durable when done).
    fn target(&self) -> Option<(usize, bool)> {
        match &self.op {
            DiskOp::Write { range, fua, .. } | DiskOp::Zero { range, fua } => {
                Some((to_usize(range.offset()), *fua))
            }
            DiskOp::MetaWrite { offset, .. } => Some((to_usize(*offset), true)),
            DiskOp::Read { .. } | DiskOp::Flush | DiskOp::MetaRead { .. } => None,
        }
    }
}

pub(super) fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap()
}

impl SimDisk {
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            current: vec![0; to_usize(bytes)],
            durable: vec![0; to_usize(bytes)],
            volatile: BTreeMap::new(),
            writes: 0,
            changes: 0,
            under_way: Vec::new(),
            broken: None,
            bad: BTreeSet::new(),
            worn: false,
            full: None,
        }
    }

    /// Writes durably, outside of any replica: `mirror create`.
    pub(super) fn put(&mut self, offset: u64, bytes: &[u8]) {
        let at = to_usize(offset);
        self.current[at..at + bytes.len()].copy_from_slice(bytes);
        self.durable[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn start(&mut self, io: IoId, op: DiskOp, data: Vec<u8>) {
        self.changes += 1;
        let new = UnderWay {
            io,
            op,
            data,
            covers: self.writes,
        };
        if let Some((at, _)) = new.target() {
            for old in &self.under_way {
                let clash = old
                    .target()
                    .is_some_and(|(o, _)| o < at + new.data.len() && at < o + old.data.len());
                assert!(!clash, "overlapping writes under way: {old:?} and {new:?}");
            }
        }
        self.under_way.push(new);
    }

    /// Ends one operation. Its answer: bytes for reads.
    pub(super) fn finish(&mut self, pick: usize) -> Option<(UnderWay, Result<Vec<u8>, i32>)> {
        if self.under_way.is_empty() {
            return None;
        }
        self.changes += 1;
        let done = self.under_way.remove(pick % self.under_way.len());
        if let Some(errno) = self.broken {
            if done.op == DiskOp::Flush {
                // As Linux: what could not be written back counts as clean, reads well, and is gone with the power.
                self.volatile.clear();
            }
            return Some((done, Err(errno)));
        }
        if let (DiskOp::Zero { range, .. }, Some(full)) = (&done.op, self.full)
            && range.offset() >= full
        {
            return Some((done, Err(28)));
        }
        if let Some((at, fua)) = done.target() {
            self.land(at, &done.data, fua, |_| true);
        }
        if let DiskOp::Read { range, .. } = &done.op {
            let sectors = range.cells(512);
            let sectors = to_usize(sectors.start)..to_usize(sectors.end);
            if self.bad.range(sectors).next().is_some() {
                return Some((done, Err(5)));
            }
        }
        let bytes = match &done.op {
            DiskOp::Read { range, .. } => self.bytes(range.offset(), range.len()),
            DiskOp::MetaRead { offset, len } => self.bytes(*offset, *len),
            DiskOp::Flush => {
                self.flush(done.covers);
                Vec::new()
            }
            DiskOp::Write { .. } | DiskOp::Zero { .. } | DiskOp::MetaWrite { .. } => Vec::new(),
        };
        Some((done, Ok(bytes)))
    }

    pub(super) fn bytes(&self, offset: u64, len: u64) -> Vec<u8> {
        let at = to_usize(offset);
        self.current[at..at + to_usize(len)].to_vec()
    }

    fn land(&mut self, at: usize, data: &[u8], fua: bool, keep: impl Fn(usize) -> bool) {
        self.writes += 1;
        for (n, chunk) in data.chunks(SECTOR).enumerate().filter(|(n, _)| keep(*n)) {
            let (from, sector) = (at + n * SECTOR, (at / SECTOR) + n);
            if !self.worn {
                self.bad.remove(&sector);
            }
            self.current[from..from + SECTOR].copy_from_slice(chunk);
            if fua {
                self.volatile.remove(&sector);
                self.durable[from..from + SECTOR].copy_from_slice(chunk);
            } else {
                let version = (self.writes, chunk.try_into().unwrap());
                self.volatile.entry(sector).or_default().push(version);
            }
        }
    }

    fn flush(&mut self, covers: u64) {
        for (sector, versions) in &mut self.volatile {
            let from = sector * SECTOR;
            while let Some((number, content)) = versions.first() {
                if *number > covers {
                    break;
                }
                self.durable[from..from + SECTOR].copy_from_slice(content);
                versions.remove(0);
            }
        }
        self.volatile.retain(|_, v| !v.is_empty());
    }

    /// What a power failure may leave: every version of each sector that is not durable.
    pub(super) fn choices(&self) -> Choices {
        let mut versions: BTreeMap<usize, Vec<Sector>> = BTreeMap::new();
        for (sector, written) in &self.volatile {
            let contents = written.iter().map(|(_, content)| *content);
            versions.entry(*sector).or_default().extend(contents);
        }
        for op in &self.under_way {
            let Some((at, _)) = op.target() else {
                continue;
            };
            for (sector, content) in (at / SECTOR..).zip(op.data.chunks_exact(SECTOR)) {
                let content = content.try_into().unwrap();
                versions.entry(sector).or_default().push(content);
            }
        }
        Choices {
            versions: versions.into_iter().collect(),
        }
    }

    /// What survives a power failure in any case.
    pub(super) fn durable(&self) -> &[u8] {
        &self.durable
    }

    /// The medium holds exactly this; nothing is volatile or under way.
    pub(super) fn become_durable(&mut self, image: Vec<u8>) {
        self.current.clone_from(&image);
        self.durable = image;
        self.volatile.clear();
        self.under_way.clear();
    }

    /// Rises with everything that changes what a crash may leave.
    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }

    /// The place of the first operation under way that is wanted.
    pub(super) fn find(&self, wanted: impl Fn(&DiskOp) -> bool) -> Option<usize> {
        self.under_way.iter().position(|op| wanted(&op.op))
    }

    /// Power fails in the middle of one operation: these of its sectors land, and nothing else that is under way.
    pub(super) fn tear(&mut self, pick: usize, keep: impl Fn(usize) -> bool) {
        let torn = self.under_way.remove(pick);
        self.under_way.clear();
        if let Some((at, _)) = torn.target() {
            self.land(at, &torn.data, true, keep);
        }
    }

    /// The process died: what was under way landed or did not, whole sectors of it.
    pub(super) fn process_died(&mut self, random: &mut impl FnMut(usize) -> usize) {
        for op in std::mem::take(&mut self.under_way) {
            if let Some((at, _)) = op.target() {
                let cut = random(op.data.len() / SECTOR + 1);
                self.land(at, &op.data, false, |n| n < cut);
            }
        }
    }

    /// Power failed: each sector holds any of its versions since the last flush.
    pub(super) fn power_failed(&mut self, random: &mut impl FnMut(usize) -> usize) {
        self.process_died(random);
        for (sector, versions) in std::mem::take(&mut self.volatile) {
            let pick = random(versions.len() + 1);
            if pick > 0 {
                let from = sector * SECTOR;
                self.durable[from..from + SECTOR].copy_from_slice(&versions[pick - 1].1);
            }
        }
        self.current.clone_from(&self.durable);
    }
}
