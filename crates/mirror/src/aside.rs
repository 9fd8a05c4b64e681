//! What an asynchronous active was told good for, and a failover cut off, is put aside before it is replaced.
//!
//! A replica that served (`led`) and comes back as a follower may hold acknowledged writes that the new active never got. Where they can
//! be is what its bitmap and its intent log name. Before it answers the new active's Hello, and so before anything is
//! overwritten, the driver copies these ranges to a file. If that fails, or if there is more than the bound can have left, the
//! replica holds, and a person decides.

use crate::bitmap::region_blocks;
use crate::bits::Bits;
use crate::config::Bound;
use crate::control::Report;
use crate::io::{Errno, Output};
use crate::machine::Machine;
use wire::layout::ReplicaState;
use wire::mutant::{self, Mutant};
use wire::units::{BLOCK_BYTES, REGION_BYTES};
use wire::{ByteCount, ByteRange};

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
    /// A person has to decide.
    Held,
}

impl Machine {
    /// True once nothing that only this replica has would be lost by following. Sets in motion what is needed for that.
    pub(crate) fn has_put_aside(&mut self) -> bool {
        match self.aside {
            Aside::Clear => true,
            Aside::Copying(_) | Aside::Held => false,
            Aside::Unknown => self.begin_aside(),
        }
    }

    fn begin_aside(&mut self) -> bool {
        let own = self.superblock.get();
        // A mixture was begun to be overwritten: it was put aside before that.
        let led = own.led && own.state == ReplicaState::Consistent;
        let apart = self.active_followed().and_then(|node| self.bound_of(node));
        let bound = apart.filter(|_| led && !mutant::on(Mutant::CutOffForgotten));
        let ranges = self.own_ranges();
        let Some(bound) = bound.filter(|_| !ranges.is_empty()) else {
            self.aside = Aside::Clear;
            return true;
        };
        let bytes = total(&ranges);
        if bytes > self.aside_max(bound) {
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
    fn aside_max(&self, bound: Bound) -> u64 {
        let hot = self.config.hot_regions_max.saturating_mul(REGION_BYTES);
        bound.max_bytes.saturating_mul(2).saturating_add(hot)
    }

    /// Where this replica may hold what others do not.
    fn own_ranges(&self) -> Vec<ByteRange> {
        let active = self.active_followed();
        let mut marked =
            active.map_or_else(|| Bits::new(self.layout.blocks()), |node| self.marked(node));
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

    /// The driver copied it, durably, or could not.
    pub(crate) fn on_put_aside(&mut self, result: Result<(), Errno>) {
        let Aside::Copying(ranges) = std::mem::replace(&mut self.aside, Aside::Held) else {
            return;
        };
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
        self.aside = Aside::Held;
        let bytes = ByteCount(total(ranges));
        self.report(Report::HeldBack { bytes });
    }
}

fn total(ranges: &[ByteRange]) -> u64 {
    ranges.iter().map(|range| range.len()).sum()
}
