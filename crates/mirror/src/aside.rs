//! What was acknowledged, and a failover cut off, is put aside before it is replaced.
//!
//! A replica that served (`led`) an asynchronous mirror and comes back as a follower may hold acknowledged writes that the new active
//! never got; and so may any whole replica after a forced promotion (`cut_off`), in a synchronous mirror too. Where they can
//! be is what its bitmap and its intent log name. Before it answers the new active's Hello, and so before anything is
//! overwritten, the driver copies these ranges to a file. If that fails, or if there is more than the bound can have left, the
//! replica holds, and a person decides.
//!
//! ```text
//! Unknown ──► Copying ──durable──► Clear
//!    │           │ failed            ▲
//!    │ too much  ▼                   │ a person lets it go: Demote
//!    └────────► Held ────────────────┘
//! ```

use crate::bitmap::region_blocks;
use crate::bits::Bits;
use crate::control::{Held, Report};
use crate::io::{Errno, Output};
use crate::machine::Machine;
use crate::runs::Places;
use wire::layout::ReplicaState;
use wire::mutant::{self, Mutant};
use wire::units::{BLOCK_BYTES, REGION_BYTES};
use wire::{ByteCount, ByteRange, NodeId};

/// After a forced promotion of a synchronous mirror, which has no bound, more than this is not put aside: a person decides.
const CUT_OFF_BYTES_MAX: u64 = 64 << 20;
/// Longest range that is named, in blocks: 1 MiB.
const RANGE_BLOCKS_MAX: u64 = 256;

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Aside {
    /// Not looked at in this life as a follower.
    Unknown,
    /// Being copied.
    Copying(Vec<ByteRange>),
    /// Nothing stands against being overwritten.
    Clear,
    /// A person has to decide about this.
    Held(Held),
}

impl Machine {
    /// What there is to put aside depends on who is followed: the verdict for another active says nothing. What is being copied is
    /// copied first.
    pub(crate) fn judge_anew(&mut self, active: NodeId) {
        let judged = matches!(self.aside, Aside::Clear | Aside::Held(_));
        if judged && self.aside_for != Some(active) {
            self.aside = Aside::Unknown;
        }
    }

    /// True once nothing that only this replica has would be lost by following. Sets in motion what is needed for that.
    pub(crate) fn has_put_aside(&mut self) -> bool {
        if let Some(active) = self.active_followed() {
            self.judge_anew(active);
        }
        match self.aside {
            Aside::Clear => true,
            Aside::Held(_) => mutant::on(Mutant::HeldBackFollows),
            Aside::Copying(_) => false,
            Aside::Unknown => self.begin_aside(),
        }
    }

    fn begin_aside(&mut self) -> bool {
        self.aside_for = self.active_followed();
        let own = self.superblock.get();
        // A mixture was begun to be overwritten: it was put aside before that.
        let whole = own.state == ReplicaState::Consistent;
        let behind = (self.active_followed()).is_some_and(|node| self.apart.contains(node));
        let served = own.led && (self.cut_off || behind);
        // It took part in nothing since.
        let left_behind = self.cut_off && own.epoch < self.floor;
        let alone = served || left_behind;
        let looked = whole && alone && !mutant::on(Mutant::CutOffForgotten);
        let ranges = if looked {
            self.own_ranges()
        } else {
            Vec::new()
        };
        if ranges.is_empty() {
            self.aside = Aside::Clear;
            return true;
        }
        let bytes = total(&ranges);
        if bytes > self.aside_max() {
            self.hold_back(&ranges);
            return false;
        }
        let epoch = own.epoch;
        self.out.push_back(Output::PutAside {
            epoch,
            ranges: ranges.clone(),
        });
        self.aside = Aside::Copying(ranges);
        false
    }

    /// More than this cannot be what a failover within the bound cut off: the bound itself, what is marked beyond it until the
    /// next point, and whole regions of the intent log.
    fn aside_max(&self) -> u64 {
        let bound = self.bound().map(|bound| bound.max_bytes.saturating_mul(2));
        let hot = self.config.hot_regions_max.saturating_mul(REGION_BYTES);
        bound.unwrap_or(CUT_OFF_BYTES_MAX).saturating_add(hot)
    }

    /// Where this replica may hold what others do not.
    fn own_ranges(&self) -> Vec<ByteRange> {
        let active = self.active_followed();
        let mut marked = Bits::new(self.layout.blocks());
        for (pair, marks) in self.pairs() {
            // Another one than the active may have taken over without it, and was followed in between.
            if self.cut_off || Some(pair.node) == active {
                marked.union(marks);
            }
        }
        for region in self.intent.regions() {
            marked.set(region_blocks(region));
        }
        let mut ranges = Vec::new();
        let mut at = 0;
        while let Some(first) = marked.next_set(at) {
            let Some(run) = marked.next_run(first, RANGE_BLOCKS_MAX) else {
                break;
            };
            at = run.end;
            let len = (run.end - run.start) * BLOCK_BYTES;
            ranges.extend(ByteRange::new(run.start * BLOCK_BYTES, len));
        }
        ranges
    }

    /// The node says whether a forced promotion left this replica behind.
    pub(crate) fn note_cut_off(&mut self, cut_off: bool) {
        if cut_off && !self.cut_off && self.aside == Aside::Clear {
            self.aside = Aside::Unknown;
        }
        self.cut_off = cut_off;
    }

    /// The driver copied it, durably, or could not.
    pub(crate) fn on_put_aside(&mut self, result: Result<(), Errno>) {
        let Aside::Copying(ranges) = &mut self.aside else {
            return;
        };
        let ranges = std::mem::take(ranges);
        match result {
            Ok(()) => {
                self.aside = Aside::Clear;
                let bytes = ByteCount(total(&ranges));
                self.report(Report::PutAside { ranges, bytes });
            }
            Err(_) => self.hold_back(&ranges),
        }
    }

    fn hold_back(&mut self, ranges: &[ByteRange]) {
        let bytes = ByteCount(total(ranges));
        let mut places = Places::default();
        ranges.iter().for_each(|range| places.add(*range));
        self.aside = Aside::Held(Held { bytes, places });
        self.report(Report::HeldBack { bytes });
    }

    /// What waits for a person.
    pub(crate) const fn held(&self) -> Option<&Held> {
        match &self.aside {
            Aside::Held(held) => Some(held),
            Aside::Unknown | Aside::Copying(_) | Aside::Clear => None,
        }
    }

    /// A person lets go what is held. The disk says so from here on, so that a restart does not ask again; after a forced promotion
    /// it does, if the record changed before this replica followed: no epoch on the disk tells what was let go.
    pub(crate) fn on_demote(&mut self) {
        let Some(held) = self.held().cloned() else {
            return;
        };
        self.aside = Aside::Clear;
        let floor = self.floor;
        self.superblock.change(|s| {
            s.led = false;
            s.epoch = s.epoch.max(floor);
        });
        self.report(Report::LetGo(held));
    }
}

fn total(ranges: &[ByteRange]) -> u64 {
    ranges.iter().map(|range| range.len()).sum()
}
