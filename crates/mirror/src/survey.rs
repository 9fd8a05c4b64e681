//! Where replicas may differ, as status shows it: found a stretch at a time, so that looking at a large volume never delays a
//! write.

use crate::bits::Bits;
use crate::control::{PairFigures, ReplicaFigures, ResyncFigures};
use crate::machine::Machine;
use crate::peer::{Peer, Phase};
use crate::replica::Replica;
use crate::runs::{Places, Runs, WORD_BITS};
use wire::layout::Pair;
use wire::units::{BLOCK_BYTES, REGION_BYTES};
use wire::{ByteCount, ByteRange, NodeId};

/// Most places that are named.
pub const PLACES_MAX: usize = Places::MAX;
/// Blocks that one step looks at: 4 GiB of the volume, in some ten microseconds.
const STEP_BLOCKS: u64 = 1 << 20;

/// A look at the bitmap that goes on from step to step.
#[derive(Debug)]
pub struct Survey {
    /// The next block to look at.
    at: u64,
    found: Runs,
    /// What the last whole look found.
    last: Places,
}

impl Default for Survey {
    fn default() -> Self {
        Self {
            at: 0,
            found: Runs::new(PLACES_MAX),
            last: Places::default(),
        }
    }
}

impl Survey {
    /// One step.
    pub fn step(&mut self, replica: &Replica) {
        if let Some(machine) = replica.machine() {
            self.look(&machine.differing());
        }
    }

    /// What the last whole look found: of volumes up to 4 GiB, what was so at the last step; of larger ones, some steps ago.
    #[must_use]
    pub const fn last(&self) -> &Places {
        &self.last
    }

    fn look(&mut self, marked: &[&Bits]) {
        let len = marked.first().map_or(0, |bits| bits.len());
        let end = self.at.saturating_add(STEP_BLOCKS).min(len);
        if marked.iter().all(|bits| bits.is_clear()) {
            self.at = len;
            self.found = Runs::new(PLACES_MAX);
        }
        let words: Vec<&[u64]> = marked.iter().map(|b| b.words(self.at..end)).collect();
        let longest = words.iter().map(|words| words.len()).max().unwrap_or(0);
        for index in 0..longest {
            let word = words.iter().filter_map(|words| words.get(index));
            let at = self.at + u64::try_from(index).unwrap_or(u64::MAX) * WORD_BITS;
            self.found.add_word(at, word.fold(0, |all, one| all | one));
        }
        self.at = self.at.max(end);
        if self.at >= len || self.found.has_more() {
            let whole = std::mem::replace(&mut self.found, Runs::new(PLACES_MAX));
            self.last = whole.places();
            self.at = 0;
        }
    }
}

impl Machine {
    /// What is marked: in the bitmaps, and what resyncs took over from them.
    fn differing(&self) -> Vec<&Bits> {
        let copying = self.peers.values().filter_map(|peer| peer.todo());
        let marked = self.pairs().map(|(_, marks)| marks);
        marked.chain(copying).collect()
    }

    /// What the superblock says, and how far resyncs are.
    pub(crate) fn replica_figures(&self) -> ReplicaFigures {
        let own = self.superblock.get();
        ReplicaFigures {
            state: own.state,
            generation: own.generation,
            epoch: own.epoch,
            data: ByteCount(self.layout.data_bytes),
            pairs: self.pairs().map(pair_figures).collect(),
            resyncs: self.peers.iter().filter_map(resync_figures).collect(),
            hot: self.hot_places(),
            held: self.held().cloned(),
            undo: self.undo_figures(),
        }
    }

    fn hot_places(&self) -> Places {
        let mut places = Places::default();
        for region in self.intent.regions() {
            let start = u64::from(region) * REGION_BYTES;
            if let Some(range) = ByteRange::new(start, REGION_BYTES) {
                places.add(range);
            }
        }
        places
    }
}

fn pair_figures((pair, marks): (&Pair, &Bits)) -> PairFigures {
    PairFigures {
        node: pair.node,
        baseline: pair.baseline,
        marked: ByteCount(marks.ones() * BLOCK_BYTES),
    }
}

fn resync_figures((node, peer): (&NodeId, &Peer)) -> Option<ResyncFigures> {
    let (left, sent) = match &peer.session()?.phase {
        Phase::Copying(copying) => (copying.todo.ones() * BLOCK_BYTES, copying.sent_bytes),
        Phase::Naming { sent_bytes }
        | Phase::Committing { sent_bytes, .. }
        | Phase::Clearing { sent_bytes } => (0, *sent_bytes),
        Phase::Live => return None,
    };
    Some(ResyncFigures {
        node: *node,
        left: ByteCount(left),
        sent: ByteCount(sent),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_volume_is_looked_at_in_steps() {
        let mut bits = Bits::new(3 * STEP_BLOCKS);
        bits.set(STEP_BLOCKS - 2..STEP_BLOCKS + 2);
        bits.set(3 * STEP_BLOCKS - 1..3 * STEP_BLOCKS);
        let mut survey = Survey::default();
        survey.look(&[&bits]);
        survey.look(&[&bits]);
        assert!(
            survey.last.ranges.is_empty(),
            "not looked at as a whole yet"
        );
        survey.look(&[&bits]);
        assert_eq!(survey.last.bytes(), 5 * 4096);
        assert_eq!(survey.last.ranges.len(), 2, "one goes over a step's end");
        survey.look(&[&bits]);
        survey.look(&[&Bits::new(3 * STEP_BLOCKS)]);
        assert!(
            survey.last.ranges.is_empty(),
            "a clear bitmap needs one step"
        );
    }

    #[test]
    fn what_a_resync_still_copies_counts() {
        let (base, mut todo) = (Bits::new(640), Bits::new(640));
        todo.set(100..110);
        let mut survey = Survey::default();
        survey.look(&[&base, &todo]);
        assert_eq!(survey.last.bytes(), 10 * 4096);
    }
}
