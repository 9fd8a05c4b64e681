//! The intent log: regions in which replicas may differ after a crash.
//!
//! A region must be durable in the log before a write into it starts ("hot"), and may leave it only when everything in
//! it is durable on every required replica, and marked durably in the bitmap against every other. The whole list is
//! written each time, alternately to two places: a torn write leaves the older list. While a write of the list is
//! under way, further regions gather for the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use wire::layout::{
    self, BlockFault, BlockKind, CONTENT_BYTES, Layout, Newest, REGIONS_PER_BLOCK, SEALED_BYTES,
    Slot,
};

/// A stretch of time between two flushes; numbers rise. A flush that starts in period `p` covers every write that settled
/// in `p` or before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Period(pub(crate) u64);

#[derive(Debug)]
pub(crate) struct Intent {
    hot: BTreeMap<u32, Hot>,
    /// Most regions; a single larger request may go beyond it, up to what the layout holds.
    limit: u64,
    /// Counts uses, for finding the least recently used.
    clock: u64,
    /// The list differs from the newest one written or being written.
    changed: bool,
    /// A write is due at once: a region became hot, or somebody asked. Forgetting regions can wait for the next write.
    urgent: bool,
    /// What is being written.
    writing: Option<Vec<u32>>,
    sequence: u64,
    slot: Slot,
    /// On a standby: regions that the active let go, and that leave once they are marked against whoever may lack them.
    cooling: BTreeSet<u32>,
}

/// One hot region.
#[derive(Clone, Copy, Debug)]
struct Hot {
    /// Writes that are under way in it, or that a required replica does not have yet.
    pins: u32,
    used: u64,
    /// The last write in it settled in this period.
    settled: Period,
    /// Durable in the log.
    logged: bool,
    /// On a standby: from before the session, not seen in it. Gone with the commit of a resync.
    stale: bool,
    /// On a standby: it was in the log when the session began, and names what this replica may have beyond the active's. Whatever
    /// the active lets go of, it leaves with the commit only.
    owed: bool,
    /// From before this attach: its last writes may be in no cache any more, if a flush failed then.
    inherited: bool,
}

/// What an intent slot held.
pub(crate) struct Found {
    slot: Slot,
    regions: Vec<u32>,
}

impl Intent {
    /// The log as it was found at attach; every region in it may differ (its last write is in no flush yet).
    pub(crate) fn new(limit: u64, found: Option<Found>, sequence_seen: u64) -> Self {
        let (slot, regions) = found.map_or((Slot::B, Vec::new()), |f| (f.slot, f.regions));
        let hot = |(region, used)| {
            let hot = Hot {
                pins: 0,
                used,
                settled: Period(0),
                logged: true,
                stale: true,
                owed: false,
                inherited: true,
            };
            (region, hot)
        };
        Self {
            clock: u64::try_from(regions.len()).unwrap_or(u64::MAX),
            hot: regions.into_iter().zip(0..).map(hot).collect(),
            limit,
            changed: false,
            urgent: false,
            writing: None,
            sequence: sequence_seen,
            slot,
            cooling: BTreeSet::new(),
        }
    }

    pub(crate) fn len(&self) -> u64 {
        u64::try_from(self.hot.len()).unwrap_or(u64::MAX)
    }

    /// Most regions.
    pub(crate) const fn limit(&self) -> u64 {
        self.limit
    }

    /// True if the region is in the log, or about to be.
    pub(crate) fn is_hot(&self, region: u32) -> bool {
        self.hot.contains_key(&region)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.hot.is_empty()
    }

    pub(crate) fn regions(&self) -> impl Iterator<Item = u32> {
        self.hot.keys().copied()
    }

    /// True if the log is so full that a flush should make room ahead of need.
    pub(crate) fn is_crowded(&self) -> bool {
        self.len() >= self.limit - self.limit / 4
    }

    /// True if so much is free that the next flush for room is far off. What was not used for long is of little use, and a
    /// flush costs both disks.
    pub(crate) fn is_roomy(&self) -> bool {
        self.len() * 8 <= self.limit * 3
    }

    /// True if `wanted` fits without a region leaving. A request larger than the limit gets the log for itself.
    pub(crate) fn has_room(&self, wanted: &Range<u32>) -> bool {
        let held = u64::try_from(self.hot.range(wanted.clone()).count()).unwrap_or(u64::MAX);
        let len = u64::from(wanted.end.saturating_sub(wanted.start));
        self.len() - held + len <= self.limit || self.len() == held
    }

    /// Pins the regions for one write, adding those that are cold; returns the added ones.
    pub(crate) fn pin(&mut self, regions: Range<u32>) -> Vec<u32> {
        let mut added = Vec::new();
        for region in regions {
            if self.touch(region) {
                added.push(region);
            }
            if let Some(hot) = self.hot.get_mut(&region) {
                hot.pins += 1;
            }
        }
        added
    }

    /// Makes a region hot, or notes its use; true if it was cold.
    pub(crate) fn touch(&mut self, region: u32) -> bool {
        self.clock += 1;
        let mut cold = false;
        let hot = self.hot.entry(region).or_insert_with(|| {
            cold = true;
            Hot {
                pins: 0,
                used: 0,
                settled: Period(0),
                logged: false,
                stale: false,
                owed: false,
                inherited: false,
            }
        });
        self.cooling.remove(&region);
        hot.used = self.clock;
        hot.stale = false;
        self.changed |= cold;
        self.urgent |= cold;
        cold
    }

    /// One write in the regions settled (or ended without being applied) in `period`.
    pub(crate) fn unpin(&mut self, regions: Range<u32>, period: Period) {
        for (_, hot) in self.hot.range_mut(regions) {
            hot.pins = hot.pins.saturating_sub(1);
            hot.settled = hot.settled.max(period);
        }
    }

    /// Everything in the log counts as written in `period`: a new activation, in which no flush covers it yet.
    pub(crate) fn all_settled_in(&mut self, period: Period) {
        for hot in self.hot.values_mut() {
            hot.settled = period;
            hot.owed = false;
        }
    }

    /// True if one of the regions was in the log at attach and was not written as a whole since.
    pub(crate) fn has_inherited(&self, regions: Range<u32>) -> bool {
        self.hot.range(regions).any(|(_, hot)| hot.inherited)
    }

    /// Regions that were in the log at attach and have not left it since.
    pub(crate) fn inherited(&self) -> impl Iterator<Item = u32> {
        let inherited = self.hot.iter().filter(|(_, hot)| hot.inherited);
        inherited.map(|(region, _)| *region)
    }

    /// Everything from before the attach was written in this life, and is durable.
    pub(crate) fn all_renewed(&mut self) {
        for hot in self.hot.values_mut() {
            hot.inherited = false;
        }
    }

    /// True if all of the regions are durable in the log.
    pub(crate) fn is_logged(&self, regions: Range<u32>) -> bool {
        let len = usize::try_from(regions.end.saturating_sub(regions.start)).unwrap_or(usize::MAX);
        self.hot.range(regions).filter(|(_, h)| h.logged).count() == len
    }

    /// Regions without a write under way that are covered by flushes up to `clean`, least recently used first.
    pub(crate) fn idle(&self, clean: Period) -> Vec<u32> {
        let mut idle: Vec<(u64, u32)> = self
            .hot
            .iter()
            .filter(|(_, hot)| hot.pins == 0 && hot.settled <= clean)
            .map(|(region, hot)| (hot.used, *region))
            .collect();
        idle.sort_unstable();
        idle.into_iter().map(|(_, region)| region).collect()
    }

    /// True if a flush would make further regions idle.
    pub(crate) fn wants_flush(&self, clean: Period) -> bool {
        self.hot
            .values()
            .any(|hot| hot.pins == 0 && hot.settled > clean)
    }

    /// Takes a region out. The caller proved that it may leave. Pinned regions stay.
    pub(crate) fn evict(&mut self, region: u32) -> bool {
        let gone = self.hot.get(&region).is_some_and(|hot| hot.pins == 0);
        if gone {
            self.hot.remove(&region);
            self.cooling.remove(&region);
            self.changed = true;
        }
        gone
    }

    /// The region leaves once its marks are durable.
    pub(crate) fn cool(&mut self, region: u32) {
        if self.hot.contains_key(&region) {
            self.cooling.insert(region);
        }
    }

    /// Regions that leave once their marks are durable.
    pub(crate) fn cooling(&self) -> impl Iterator<Item = u32> {
        self.cooling.iter().copied()
    }

    /// Regions from before the session that were not written in it.
    pub(crate) fn stale(&self) -> impl Iterator<Item = u32> {
        let stale = self.hot.iter().filter(|(_, h)| h.stale && h.pins == 0);
        stale.map(|(region, _)| *region)
    }

    /// A session starts: what is in the log is from before it.
    pub(crate) fn begin_session(&mut self) {
        for hot in self.hot.values_mut() {
            hot.stale = hot.pins == 0;
            hot.owed = true;
        }
        self.cooling.clear();
    }

    /// The active lets go of a region: true if it has to stay here until the commit all the same.
    pub(crate) fn keep_owed(&mut self, region: u32) -> bool {
        let owed = self.hot.get_mut(&region).filter(|hot| hot.owed);
        owed.map(|hot| hot.stale = true).is_some()
    }

    /// The session committed: what is from before it is equal and durable everywhere.
    pub(crate) fn drop_stale(&mut self) {
        let before = self.hot.len();
        self.hot.retain(|_, hot| !hot.stale || hot.pins > 0);
        self.hot.values_mut().for_each(|hot| hot.owed = false);
        let hot = &self.hot;
        self.cooling.retain(|region| hot.contains_key(region));
        self.changed |= self.hot.len() != before;
    }

    /// The volume ends before region `end`: what lies behind is gone.
    pub(crate) fn cut(&mut self, end: u64) {
        let before = self.hot.len();
        self.hot.retain(|region, _| u64::from(*region) < end);
        self.cooling.retain(|region| u64::from(*region) < end);
        if self.hot.len() != before {
            self.rewrite();
        }
    }

    /// Asks for a write even though nothing became hot.
    pub(crate) const fn rewrite(&mut self) {
        self.changed = true;
        self.urgent = true;
    }

    /// True while a write is due at once, or under way.
    pub(crate) const fn is_urgent(&self) -> bool {
        self.urgent || self.writing.is_some()
    }

    /// True when the durable list is exactly this one.
    pub(crate) const fn is_settled(&self) -> bool {
        !self.changed && self.writing.is_none()
    }

    /// The write that is due, if any: (byte offset, sealed blocks).
    pub(crate) fn next_write(&mut self, layout: &Layout) -> Option<(u64, Vec<u8>)> {
        if self.writing.is_some() || !(self.urgent || self.changed && self.hot.is_empty()) {
            return None;
        }
        self.changed = false;
        self.urgent = false;
        self.sequence += 1;
        self.slot = self.slot.other();
        let regions: Vec<u32> = self.hot.keys().copied().collect();
        let blocks = encode(&regions, layout.intent_blocks, self.sequence);
        self.writing = Some(regions);
        Some((layout.intent_offset(self.slot), blocks))
    }

    /// Where the newest list is, for tests that damage it.
    #[cfg(test)]
    pub(crate) const fn newest_slot(&self) -> Slot {
        self.slot
    }

    /// The write under way is durable.
    pub(crate) fn written(&mut self) {
        for region in self.writing.take().unwrap_or_default() {
            if let Some(hot) = self.hot.get_mut(&region) {
                hot.logged = true;
            }
        }
    }
}

pub(crate) fn encode(regions: &[u32], intent_blocks: u32, sequence: u64) -> Vec<u8> {
    let mut parts = regions.chunks(REGIONS_PER_BLOCK);
    let mut bytes = Vec::new();
    for place in 0..intent_blocks {
        let mut content = Vec::with_capacity(CONTENT_BYTES);
        for region in parts.next().unwrap_or_default() {
            content.extend_from_slice(&region.to_le_bytes());
        }
        let block = layout::seal(BlockKind::Intent, u64::from(place), sequence, &content);
        bytes.extend_from_slice(&block);
    }
    bytes
}

/// What was found of the log.
pub(crate) struct Log {
    /// The newer of the two lists, if any is whole.
    pub(crate) found: Option<Found>,
    /// No list is whole, or a damaged one may have been newer: regions may be missing.
    pub(crate) incomplete: bool,
    /// The highest sequence seen.
    pub(crate) seen: u64,
}

impl Log {
    /// The regions that were found.
    pub(crate) fn regions(&self) -> &[u32] {
        self.found.as_ref().map_or(&[], |found| &found.regions)
    }
}

/// Reads both slots as they lie on disk.
///
/// # Errors
/// [`BlockFault::Newer`] when a newer release wrote one of them.
pub(crate) fn parse(b_then_a: &[u8], intent_blocks: u32, regions: u64) -> Result<Log, BlockFault> {
    let (b, a) = b_then_a.split_at(b_then_a.len() / 2);
    let mut seen = 0;
    let [a, b] = [a, b].map(|bytes| parse_slot(bytes, intent_blocks, regions, &mut seen));
    if let (Err(fault @ BlockFault::Newer(_)), _) | (_, Err(fault @ BlockFault::Newer(_))) =
        (&a, &b)
    {
        return Err(*fault);
    }
    let (found, incomplete) = match layout::newest(a, b) {
        Newest::Known(slot, _, regions) => (Some(Found { slot, regions }), false),
        Newest::Doubtful(slot, _, regions) => (Some(Found { slot, regions }), true),
        Newest::Lost => (None, true),
    };
    Ok(Log {
        found,
        incomplete,
        seen,
    })
}

/// The list of one slot. A write of it that power interrupted may have left whole blocks of two lists.
fn parse_slot(
    bytes: &[u8],
    intent_blocks: u32,
    regions: u64,
    seen: &mut u64,
) -> Result<(u64, Vec<u32>), BlockFault> {
    let nonsense = BlockFault::Damaged { newest: None };
    let mut of_all = None;
    let mut list = Vec::new();
    let mut fault = None;
    for (place, block) in (0..u64::from(intent_blocks)).zip(bytes.chunks(SEALED_BYTES)) {
        let (sequence, content) = match layout::open(BlockKind::Intent, place, block) {
            Ok(opened) => opened,
            Err(found) => {
                fault = worse(fault, found);
                continue;
            }
        };
        *seen = sequence.max(*seen);
        if *of_all.get_or_insert(sequence) != sequence {
            fault = worse(fault, BlockFault::Torn);
        }
        for entry in content.chunks_exact(4) {
            let region = entry.try_into().map_or(u32::MAX, u32::from_le_bytes);
            if u64::from(region) >= regions {
                return Err(nonsense);
            }
            list.push(region);
        }
    }
    match (fault, of_all) {
        (Some(fault), _) => Err(fault),
        (None, Some(sequence)) => Ok((sequence, list)),
        (None, None) => Err(BlockFault::Foreign),
    }
}

/// Of two faults in one slot, the one that hides more.
const fn worse(known: Option<BlockFault>, found: BlockFault) -> Option<BlockFault> {
    match (known, found) {
        (None | Some(BlockFault::Torn), _) | (_, BlockFault::Newer(_)) => Some(found),
        (Some(known), BlockFault::Torn) => Some(known),
        // Another release's word stands; two damaged blocks tell no sequence together.
        (Some(BlockFault::Newer(version)), _) => Some(BlockFault::Newer(version)),
        (Some(BlockFault::Foreign), BlockFault::Foreign) => Some(BlockFault::Foreign),
        (Some(_), _) => Some(BlockFault::Damaged { newest: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::for_disk(256 << 20, 2).unwrap()
    }

    fn both_slots(intent: &mut Intent, disk: &mut [u8]) {
        let layout = layout();
        let (offset, bytes) = intent.next_write(&layout).unwrap();
        let at = usize::try_from(offset - layout.intent_offset(Slot::B)).unwrap();
        disk[at..at + bytes.len()].copy_from_slice(&bytes);
        intent.written();
    }

    #[test]
    fn a_region_is_hot_only_after_its_log_write_is_durable() {
        let mut intent = Intent::new(8, None, 0);
        assert_eq!(intent.pin(3..5), [3, 4]);
        assert!(intent.next_write(&layout()).is_some());
        assert_eq!(intent.pin(5..6), [5], "it gathers for the next write");
        assert!(!intent.is_logged(3..4));
        intent.written();
        assert!(intent.is_logged(3..5) && !intent.is_logged(5..6));
        assert!(intent.next_write(&layout()).is_some());
        intent.written();
        assert!(intent.is_logged(3..6));
    }

    #[test]
    fn a_pinned_or_unflushed_region_never_leaves() {
        let mut intent = Intent::new(8, None, 0);
        intent.pin(1..3);
        assert!(!intent.evict(1));
        intent.unpin(1..2, Period(4));
        assert!(intent.idle(Period(3)).is_empty() && intent.wants_flush(Period(3)));
        assert_eq!(intent.idle(Period(4)), [1]);
        assert!(intent.evict(1) && !intent.evict(1));
    }

    #[test]
    fn a_torn_list_leaves_the_older_one() {
        let layout = layout();
        let mut disk = vec![0; 4 * SEALED_BYTES];
        let mut intent = Intent::new(2_000, None, 0);
        intent.pin(0..1_400);
        both_slots(&mut intent, &mut disk);
        intent.pin(1_400..1_500);
        both_slots(&mut intent, &mut disk);
        intent.pin(1_500..1_600);
        let whole = disk.clone();
        both_slots(&mut intent, &mut disk);
        let log = parse(&disk, 2, layout.regions()).unwrap();
        assert_eq!((log.found.unwrap().regions.len(), log.seen), (1_600, 3));
        for sectors in 1..2 * SEALED_BYTES / 512 {
            let mut torn = whole.clone();
            let newest = 2 * SEALED_BYTES;
            let landed = newest..newest + sectors * 512;
            torn[landed.clone()].copy_from_slice(&disk[landed]);
            let log = parse(&torn, 2, layout.regions()).unwrap();
            assert!(!log.incomplete, "torn at {sectors}");
            let expected = if torn == disk { 1_600 } else { 1_500 };
            assert_eq!(
                log.found.unwrap().regions.len(),
                expected,
                "torn at {sectors}"
            );
        }
    }

    #[test]
    fn a_request_larger_than_the_limit_gets_the_log_for_itself() {
        let mut intent = Intent::new(4, None, 0);
        assert!(intent.has_room(&(0..6)));
        intent.pin(0..1);
        assert!(!intent.has_room(&(10..16)) && intent.has_room(&(0..6)));
    }
}
