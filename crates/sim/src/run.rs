//! One run: faults, healing, judgement.

use crate::checkers::{replicas_equal_after_healing, service_back};
use crate::clock::Moment;
use crate::options::{FaultMix, Options, Outcome};
use crate::queue::Event;
use crate::setup::DATA_BYTES;
use crate::world::{A, World};
use std::panic::{AssertUnwindSafe, catch_unwind};
use wire::{Duration, NodeId};

/// Runs one seed from beginning to end.
#[must_use]
pub fn run(options: Options) -> Outcome {
    guarded(World::new(options), live)
}

/// Lets something happen in the world; a failed assertion of a node is a broken promise like any other.
pub(crate) fn guarded(mut world: World, act: impl FnOnce(&mut World)) -> Outcome {
    let result = catch_unwind(AssertUnwindSafe(|| act(&mut world)));
    if let Err(panic) = result {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world.violate(
            "no_panic",
            text.unwrap_or_else(|| "a panic without words".to_owned()),
        );
    }
    world.outcome()
}

fn live(world: &mut World) {
    let length = world.options.length;
    if world.options.faults == FaultMix::Polite {
        let whole = world.run_until_or(service_back::BOUND, |w| w.missing().is_none());
        if !whole && world.violation.is_none() {
            let missing = world.missing().unwrap_or_default();
            world.violate("service_back", format!("at the start: {missing}"));
        }
        world.after(Duration::from_millis(500), Event::Fault);
    } else {
        let first = world.rng.millis(300, 6_000);
        world.after(first, Event::Fault);
    }
    world.run_until(Moment(0) + length);
    world.heal_all();
    world.come_back();
}

impl World {
    /// Liveness and equality: everything is healed, so the group must serve again, whole, and its replicas be equal.
    pub(crate) fn come_back(&mut self) {
        if !self.becomes_whole(service_back::BOUND) {
            return;
        }
        self.quiet = true;
        // What is under way ends, and the replicas have time to settle what they keep open between them: an asynchronous active
        // may need its I/O timeout to notice that its follower's machine is another boot.
        let asynchronous = self.options.level == crate::options::Level::Async;
        let time = if asynchronous { 10 } else { 4 };
        self.run_until(self.now + Duration::from_secs(time));
        self.compare();
    }

    /// Waits until the group serves, whole; a person helps where one is needed. Broken promise if it does not.
    pub fn becomes_whole(&mut self, bound: Duration) -> bool {
        let end = self.now + bound;
        while self.violation.is_none() {
            if self.run_until_or(Duration::from_secs(2), |w| w.missing().is_none()) {
                return true;
            }
            if self.now >= end {
                let missing = self.missing().unwrap_or_default();
                self.violate("service_back", format!("not within {bound:?}: {missing}"));
            }
            self.tend();
        }
        false
    }

    /// Both replicas of every mirror must be equal, and must be what the application was told.
    pub(crate) fn compare(&mut self) {
        let nodes = self.options.data_nodes();
        let open: usize = nodes
            .iter()
            .map(|at| {
                self.machine(*at)
                    .instance
                    .as_ref()
                    .map_or(0, crate::instance::Instance::open_requests)
            })
            .sum();
        if open > 0 {
            self.violate(
                "service_back",
                format!("{open} requests are never answered"),
            );
        }
        for mirror in 0..usize::from(self.options.mirrors) {
            let content = |at: NodeId| self.machines[usize::from(at.0)].disks[mirror].content();
            let a = content(A);
            let equal = nodes[1..].iter().try_for_each(|at| {
                replicas_equal_after_healing::check(a, content(*at), DATA_BYTES)
                    .map_err(|what| format!("mirror {mirror}, A and {at:?}: {what}"))
            });
            let right = self.oracles[mirror].settle(A, a);
            self.judge(replicas_equal_after_healing::NAME, equal);
            self.judge(
                "acked_survives",
                right.map_err(|what| format!("after healing, {what}")),
            );
        }
    }

    /// What came of it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome {
            seed: self.options.seed,
            hash: self.trace.hash(),
            events: self.trace.events,
            faults: self.faults.made,
            simulated: self.now.since(Moment(0)),
            answered: self.checkers.answered,
            moves: self.checkers.one_failover.moves,
            violation: self.violation.clone(),
            story: self.trace.lines(),
        }
    }
}
