//! What a reader may find in each sector of the volume: the oracle of the promises G2 and G5.

use super::disk::SECTOR;
use crate::io::RequestId;
use std::collections::BTreeMap;
use wire::ByteRange;

/// One write, as far as one sector is concerned. Times are numbers of events.
#[derive(Clone, Copy, Debug)]
struct Version {
    token: u64,
    issued: u64,
    /// Replied to, failed, or given up: what is issued later comes after it.
    ended: Option<u64>,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Not acknowledged: it may be there or not.
    Open,
    /// Acknowledged, but power failed since: it may be there or not until it is flushed.
    Lapsed,
    /// Acknowledged: it survives everything but a power failure.
    Acked,
    /// Acknowledged and flushed: it survives everything.
    Durable,
}

impl Standing {
    /// What came before it is gone.
    fn must(self) -> bool {
        matches!(self, Self::Acked | Self::Durable)
    }
}

#[derive(Clone, Copy, Debug)]
enum Pending {
    Write {
        first: usize,
        count: usize,
        token: u64,
        fua: bool,
        /// Power failed somewhere meanwhile: the acknowledgement on its way may be of a cache that is gone.
        tainted: bool,
    },
    Flush {
        issued: u64,
    },
    Read {
        first: usize,
        count: usize,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Model {
    sectors: Vec<Vec<Version>>,
    pending: BTreeMap<RequestId, Pending>,
    events: u64,
    /// Reads that were answered with an error while their node lived.
    failed_reads: usize,
    /// Nothing is gone for good: an asynchronous follower may be behind.
    pub(super) keeps_all: bool,
}

impl Model {
    pub(super) fn new(data_bytes: u64) -> Self {
        let zero = Version {
            token: 0,
            issued: 0,
            ended: Some(0),
            standing: Standing::Durable,
        };
        Self {
            sectors: vec![vec![zero]; super::disk::to_usize(data_bytes) / SECTOR],
            pending: BTreeMap::new(),
            events: 1,
            failed_reads: 0,
            keeps_all: false,
        }
    }

    /// The front end knows of a volume of this size: what it gained reads as zeros.
    pub(super) fn told(&mut self, data_bytes: u64) {
        let count = super::disk::to_usize(data_bytes) / SECTOR;
        let known = self.sectors.len();
        assert!(count >= known, "smaller than the front end was told");
        let zero = Version {
            token: 0,
            issued: 0,
            ended: Some(0),
            standing: Standing::Durable,
        };
        self.sectors.resize(count, vec![zero]);
    }

    /// Size of the volume, as the front end knows it.
    pub(super) fn told_bytes(&self) -> u64 {
        u64::try_from(self.sectors.len() * SECTOR).unwrap()
    }

    /// Another replica of an asynchronous mirror takes over: any of the latest writes may be missing there.
    pub(super) fn cut_off(&mut self) {
        for version in self.sectors.iter_mut().flatten() {
            if version.standing.must() {
                version.standing = Standing::Lapsed;
            }
        }
    }

    fn sectors_of(range: ByteRange) -> (usize, usize) {
        let narrow = super::disk::to_usize;
        (
            narrow(range.offset()) / SECTOR,
            narrow(range.len()) / SECTOR,
        )
    }

    pub(super) fn knows(&self, id: RequestId) -> bool {
        self.pending.contains_key(&id)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn failed(&self) -> usize {
        self.failed_reads
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn write(&mut self, id: RequestId, range: ByteRange, token: u64, fua: bool) {
        self.events += 1;
        let (first, count) = Self::sectors_of(range);
        for sector in &mut self.sectors[first..first + count] {
            sector.push(Version {
                token,
                issued: self.events,
                ended: None,
                standing: Standing::Open,
            });
        }
        let pending = Pending::Write {
            first,
            count,
            token,
            fua,
            tainted: false,
        };
        self.pending.insert(id, pending);
    }

    pub(super) fn flush(&mut self, id: RequestId) {
        self.events += 1;
        let issued = self.events;
        self.pending.insert(id, Pending::Flush { issued });
    }

    pub(super) fn read(&mut self, id: RequestId, range: ByteRange) {
        let (first, count) = Self::sectors_of(range);
        self.pending.insert(id, Pending::Read { first, count });
    }

    /// A reply. Reads bring what was read.
    pub(super) fn replied(&mut self, id: RequestId, good: bool, bytes: Option<&[u8]>) {
        self.events += 1;
        let now = self.events;
        match self.pending.remove(&id).expect("one reply per request") {
            Pending::Write {
                first,
                count,
                token,
                fua,
                tainted,
            } => {
                for sector in &mut self.sectors[first..first + count] {
                    for version in sector.iter_mut().filter(|v| v.token == token) {
                        version.ended = version.ended.or(Some(now));
                        version.standing = match (good, fua) {
                            (true, true) => Standing::Durable,
                            (true, false) if tainted => Standing::Lapsed,
                            (true, false) => Standing::Acked,
                            (false, _) => version.standing,
                        };
                    }
                }
            }
            Pending::Flush { issued } if good => {
                for version in self.sectors.iter_mut().flatten() {
                    if matches!(version.standing, Standing::Acked | Standing::Lapsed)
                        && version.ended.is_some_and(|at| at < issued)
                    {
                        version.standing = Standing::Durable;
                    }
                }
            }
            Pending::Flush { .. } => {}
            Pending::Read { first, count } if good => {
                let bytes = bytes.expect("a read that succeeded brings bytes");
                for (n, chunk) in (first..first + count).zip(bytes.chunks(SECTOR)) {
                    self.check(n, chunk, "a read");
                }
            }
            Pending::Read { .. } => self.failed_reads += 1,
        }
        self.forget_superseded();
    }

    /// Everything without a reply never gets one: the front end is gone.
    pub(super) fn give_up(&mut self) {
        let ids: Vec<_> = self.pending.keys().copied().collect();
        for id in ids {
            self.replied(id, false, None);
        }
    }

    /// Some replica lost its volatile cache: only what was flushed is promised.
    pub(super) fn power_failed(&mut self) {
        for version in self.sectors.iter_mut().flatten() {
            if version.standing == Standing::Acked {
                version.standing = Standing::Lapsed;
            }
        }
        for pending in self.pending.values_mut() {
            if let Pending::Write { tainted, .. } = pending {
                *tainted = true;
            }
        }
    }

    /// An activation serves from `data`: what it shows is as good as acknowledged from here on.
    pub(super) fn serving(&mut self, data: &[u8]) {
        self.check_all(data, "a new active");
        self.events += 1;
        let now = self.events;
        for (sector, chunk) in self.sectors.iter_mut().zip(data.chunks(SECTOR)) {
            if sector.len() > 1 {
                for version in sector.iter_mut() {
                    version.ended = version.ended.or(Some(now));
                }
                sector.push(Version {
                    token: token_of(chunk),
                    issued: now,
                    ended: Some(now),
                    standing: Standing::Acked,
                });
            }
        }
    }

    pub(super) fn check_all(&self, data: &[u8], who: &str) {
        for (n, chunk) in data.chunks(SECTOR).take(self.sectors.len()).enumerate() {
            self.check(n, chunk, who);
        }
    }

    pub(super) fn check(&self, n: usize, chunk: &[u8], who: &str) {
        let token = token_of(chunk);
        let versions = &self.sectors[n];
        let superseded = |old: &Version| {
            let after = |new: &Version| old.ended.is_some_and(|end| end <= new.issued);
            versions
                .iter()
                .any(|new| new.standing.must() && new.token != token && after(new))
        };
        let fine = versions.iter().any(|v| v.token == token && !superseded(v));
        assert!(
            fine,
            "{who} finds {token} in sector {n} (region {}), allowed by {versions:?}",
            n / 128
        );
    }

    /// Keeps the lists short: what a durable version came after is gone for good.
    fn forget_superseded(&mut self) {
        if self.keeps_all {
            return;
        }
        for sector in self.sectors.iter_mut().filter(|s| s.len() > 6) {
            let last = sector
                .iter()
                .filter(|v| v.standing == Standing::Durable)
                .map(|v| v.issued)
                .max()
                .unwrap_or(0);
            sector.retain(|v| v.ended.is_none_or(|end| end >= last));
        }
    }
}

pub(super) fn token_of(sector: &[u8]) -> u64 {
    let token = sector[..8].try_into().map_or(0, u64::from_le_bytes);
    assert!(
        sector.chunks(8).all(|c| c == &sector[..8]),
        "a torn sector: the disk writes sectors whole"
    );
    token
}

/// The content of a write of `sectors` sectors.
pub(super) fn content(token: u64, sectors: usize) -> Vec<u8> {
    token.to_le_bytes().repeat(sectors * SECTOR / 8)
}
