//! What a run is asked for, and what it answers.

use crate::checkers::Violation;
use node::Timing;
use std::collections::BTreeSet;
use wire::{Duration, NodeId};

/// One run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// The nodes' times.
    pub timing: Timing,
    /// What goes wrong.
    pub faults: FaultMix,
    /// How long faults are made, in simulated time. Then everything heals and the service must come back.
    pub length: Duration,
    /// Machines may be frozen, clocks and all: then the data alone is promised, not the address (G1).
    pub clocks_stop: bool,
    /// Data nodes: 2 and a witness, or 3 and none.
    pub replicas: u8,
    /// Mirrors of the group: 1 or 2.
    pub mirrors: u8,
    /// The first sync copies used blocks only: most of the disks are zeros.
    pub used_only: bool,
    /// When the mirrors acknowledge.
    pub level: Level,
    /// A person promotes a replica by force: what it lacks may be lost.
    pub forced: bool,
    /// The application's mean pause between two requests.
    pub pace: Duration,
    /// Most regions in a replica's intent log; few, so that they come and go.
    pub hot_regions: u64,
    /// A sector of every mirror whose whole story is told.
    pub watch: Option<u64>,
    /// How many lines of the story are kept for a failure.
    pub keep: usize,
}

/// When a mirror acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A write when every required replica has it.
    Write,
    /// A plain write when it is sent, a flush when everything is durable everywhere.
    Flush,
    /// A write when the active has it; the standby follows within a bound (R11). Of three replicas only the third is apart so.
    Async,
}

/// What goes wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultMix {
    /// Nothing by itself: a directed scenario says what happens.
    None,
    /// One fault at a time, the next only when everything is well again: here failovers are counted.
    Polite,
    /// Everything, overlapping.
    Rough,
}

impl Level {
    /// Of five seeds, three acknowledge writes, one flushes, one does not wait at all.
    const fn of_seed(seed: u64) -> Self {
        match seed % 5 {
            3 => Self::Flush,
            4 => Self::Async,
            _ => Self::Write,
        }
    }
}

impl Options {
    /// The run that a seed stands for: a quarter of them polite, some with two mirrors.
    #[must_use]
    pub fn of_seed(seed: u64, timing: Timing) -> Self {
        let mut rng = crate::rng::Rng::new(seed ^ 0x5EED);
        let faults = if rng.chance(250) {
            FaultMix::Polite
        } else {
            FaultMix::Rough
        };
        Self {
            seed,
            timing,
            faults,
            length: Duration::from_secs(rng.between(20, 70)),
            clocks_stop: faults == FaultMix::Rough && rng.chance(200),
            level: Level::of_seed(seed),
            replicas: 2,
            // The order of writes is kept per group: an asynchronous one has one mirror (R13).
            mirrors: if rng.chance(200) && Level::of_seed(seed) != Level::Async {
                2
            } else {
                1
            },
            used_only: false,
            forced: false,
            pace: Duration::from_millis(rng.between(4, 20)),
            hot_regions: rng.between(3, 14),
            watch: None,
            keep: 60,
        }
    }

    /// True if acknowledged writes may be lost, and are remembered until they are put aside.
    pub(crate) fn may_lose(&self) -> bool {
        self.level == Level::Async || self.forced
    }

    /// True if acknowledged writes may be lost when `heir` serves after `server`.
    pub(crate) fn may_lose_to(&self, server: NodeId, heir: NodeId) -> bool {
        self.forced || self.are_apart(server, heir)
    }

    /// Replicas that the others do not wait for.
    #[must_use]
    pub fn apart(&self) -> BTreeSet<NodeId> {
        match (self.level, self.replicas) {
            (Level::Write | Level::Flush, _) => BTreeSet::new(),
            (Level::Async, 3..) => BTreeSet::from([crate::world::W]),
            (Level::Async, _) => self.data_nodes().into_iter().collect(),
        }
    }

    /// True if these two do not wait for each other.
    #[must_use]
    pub fn are_apart(&self, one: NodeId, other: NodeId) -> bool {
        let apart = self.apart();
        apart.contains(&one) || apart.contains(&other)
    }

    /// The same run with three data nodes and no witness.
    #[must_use]
    pub const fn with_three(self) -> Self {
        Self {
            replicas: 3,
            ..self
        }
    }

    /// Nodes with replicas.
    #[must_use]
    pub fn data_nodes(&self) -> Vec<NodeId> {
        (0..self.replicas).map(NodeId).collect()
    }

    /// A healthy cluster in which only what the scenario says goes wrong.
    #[must_use]
    pub const fn scenario(seed: u64) -> Self {
        Self {
            seed,
            timing: Timing::LAN,
            faults: FaultMix::None,
            length: Duration::ZERO,
            clocks_stop: false,
            replicas: 2,
            mirrors: 1,
            used_only: false,
            level: Level::Write,
            forced: false,
            pace: Duration::from_millis(5),
            hot_regions: 8,
            watch: None,
            keep: 80,
        }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Fingerprint of everything that happened: equal for equal runs.
    pub hash: u64,
    /// Events handled.
    pub events: u64,
    /// Faults made.
    pub faults: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// Requests of the application that were answered well.
    pub answered: u64,
    /// Changes of the active node.
    pub moves: u64,
    /// The promise that was broken, if one was.
    pub violation: Option<Violation>,
    /// The last lines of the story.
    pub story: Vec<String>,
}
