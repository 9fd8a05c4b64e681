//! A restarted replica writes once more what its intent log names, before it serves.
//!
//! A flush that failed may have forgotten what was in the disk's cache, and a later one reports success all the same
//! (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). In one life the failure of a flush
//! is remembered and ends the leg; a process that dies right after it remembers nothing. Whatever no flush has covered is
//! in a region of the intent log, so reading these regions and writing them anew makes the next flush true again.

use crate::bitmap::region_blocks;
use crate::intent::Intent;
use crate::job::{Action, Origin};
use crate::machine::{FlushId, JobId, Machine};
use crate::role::Role;
use std::collections::VecDeque;
use wire::ByteRange;
use wire::layout::Layout;
use wire::mutant::{self, Mutant};
use wire::units::BLOCK_BYTES;

/// Regions read or written at the same time.
const UNDER_WAY_MAX: usize = 8;

/// How far it is.
#[derive(Debug)]
pub(crate) enum Renewal {
    /// Regions are read and written back.
    Writing {
        todo: VecDeque<ByteRange>,
        under_way: usize,
    },
    /// Everything is written: this flush makes it durable.
    Flushing(FlushId),
    /// Every region of the log was written in this life, or is durable.
    Done,
}

impl Renewal {
    /// What an activation with this log has to renew.
    pub(crate) fn of(intent: &Intent, layout: &Layout) -> Self {
        let todo: VecDeque<ByteRange> = intent
            .inherited()
            .filter_map(|region| range_of(region, layout))
            .collect();
        if todo.is_empty() || mutant::on(Mutant::RenewalSkipped) {
            return Self::Done;
        }
        Self::Writing { todo, under_way: 0 }
    }
}

/// The part of a region that is in the volume; none if there is none.
fn range_of(region: u32, layout: &Layout) -> Option<ByteRange> {
    let blocks = region_blocks(region);
    let end = blocks.end.min(layout.blocks());
    let len = end.checked_sub(blocks.start)? * BLOCK_BYTES;
    ByteRange::new(blocks.start * BLOCK_BYTES, len).filter(|range| !range.is_empty())
}

impl Machine {
    /// Starts what is due; true once everything is renewed.
    pub(crate) fn advance_renewal(&mut self) -> bool {
        while let Some(range) = self.next_renewal() {
            self.submit(range, Action::Fetch, false, None, Origin::Renewal);
        }
        match self.renewal() {
            Some(Renewal::Writing { todo, under_way }) if todo.is_empty() && *under_way == 0 => {
                let flush = self.begin_flush(None);
                self.set_renewal(Renewal::Flushing(flush));
                false
            }
            Some(Renewal::Flushing(flush)) if self.is_flushed_here(*flush) => {
                self.intent.all_renewed();
                self.set_renewal(Renewal::Done);
                true
            }
            Some(Renewal::Writing { .. } | Renewal::Flushing(_)) | None => false,
            Some(Renewal::Done) => true,
        }
    }

    fn next_renewal(&mut self) -> Option<ByteRange> {
        let max = self.config.resync_chunks_max.clamp(1, UNDER_WAY_MAX);
        let Role::Active(active) = &mut self.role else {
            return None;
        };
        match &mut active.renewal {
            Renewal::Writing { todo, under_way } if *under_way < max => {
                let range = todo.pop_front()?;
                *under_way += 1;
                Some(range)
            }
            Renewal::Writing { .. } | Renewal::Flushing(_) | Renewal::Done => None,
        }
    }

    /// A step of a region is done: what was read is written, and what is written is done.
    pub(crate) fn on_renewal_step(&mut self, id: JobId) {
        if self.write_back(id) {
            return;
        }
        self.end_job(id);
        if let Role::Active(active) = &mut self.role
            && let Renewal::Writing { under_way, .. } = &mut active.renewal
        {
            *under_way = under_way.saturating_sub(1);
        }
    }

    fn renewal(&self) -> Option<&Renewal> {
        self.active().map(|active| &active.renewal)
    }

    fn set_renewal(&mut self, renewal: Renewal) {
        if let Role::Active(active) = &mut self.role {
            active.renewal = renewal;
        }
    }
}
