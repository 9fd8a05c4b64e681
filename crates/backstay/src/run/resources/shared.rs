//! What a group's worker, its teardown and the daemon's thread have in common.

use super::announcer::Announcer;
use super::device::Choice;
use super::freeze::Freezer;
use super::guard::Guard;
use super::plan::Plan;
use crate::engine;
use crate::failure::Failure;
use crate::run::daemon::{Event, Events, ResourceEvent};
use host::keeper::Step;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counts abandonments. An act that was ordered in an earlier round is over, whether it ran or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Round(u64);

/// One group.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) plan: Plan,
    /// By index among the group's mirrors.
    pub(super) engines: BTreeMap<u8, engine::Handle>,
    pub(super) guard: Guard,
    pub(super) announcer: Announcer,
    pub(super) freezer: Freezer,
    events: Events,
    round: AtomicU64,
    /// Size of each mirror's volume in bytes, once it is attached.
    sizes: Mutex<BTreeMap<u8, u64>>,
    /// What the keeper would do, by index of the resource.
    steps: Mutex<BTreeMap<usize, Vec<Step>>>,
    failures: Mutex<BTreeMap<usize, Failure>>,
    /// How programs reach each mirror that is served here, by index among the mirrors.
    choices: Mutex<BTreeMap<u8, Choice>>,
    /// One teardown at a time: a second one would take steps twice, and report what the first is about to end.
    pub(super) teardown: Mutex<()>,
}

impl Shared {
    pub(super) fn new(plan: Plan, engines: BTreeMap<u8, engine::Handle>, events: Events) -> Self {
        let guard = Guard::new(&plan, events.clone());
        Self {
            plan,
            engines,
            guard,
            announcer: Announcer::default(),
            freezer: Freezer::default(),
            events,
            round: AtomicU64::new(0),
            sizes: Mutex::default(),
            steps: Mutex::default(),
            failures: Mutex::default(),
            choices: Mutex::default(),
            teardown: Mutex::default(),
        }
    }

    /// The round that is under way.
    pub(super) fn round(&self) -> Round {
        Round(self.round.load(Ordering::SeqCst))
    }

    /// Everything that was ordered so far is over.
    pub(super) fn next_round(&self) {
        self.round.fetch_add(1, Ordering::SeqCst);
    }

    /// Fails when the act's round is over.
    pub(super) fn check(&self, round: Round) -> Result<(), Failure> {
        match self.round() == round {
            true => Ok(()),
            false => Err(Failure::new("given up: the group is being torn down")),
        }
    }

    /// Tells the daemon. It may have ended.
    pub(super) fn tell(&self, event: ResourceEvent) {
        self.events.send(Event::Resource(event)).ok();
    }

    pub(super) fn set_size(&self, mirror: u8, bytes: u64) {
        lock(&self.sizes).insert(mirror, bytes);
    }

    pub(super) fn size(&self, mirror: u8) -> Option<u64> {
        lock(&self.sizes).get(&mirror).copied()
    }

    pub(super) fn set_choice(&self, mirror: u8, choice: Choice) {
        lock(&self.choices).insert(mirror, choice);
    }

    pub(super) fn forget_choice(&self, mirror: u8) {
        lock(&self.choices).remove(&mirror);
    }

    pub(super) fn choice(&self, mirror: u8) -> Option<Choice> {
        lock(&self.choices).get(&mirror).cloned()
    }

    /// What the keeper has to undo of a resource; empty when it does not run.
    pub(super) fn set_steps(&self, resource: usize, steps: Vec<Step>) {
        let mut all = lock(&self.steps);
        match steps.is_empty() {
            true => all.remove(&resource),
            false => all.insert(resource, steps),
        };
        let ordered = in_order(&all);
        drop(all);
        self.guard.set_steps(ordered);
    }

    /// Tells a new keeper what the old one knew.
    pub(super) fn tell_steps(&self) {
        let ordered = in_order(&lock(&self.steps));
        self.guard.set_steps(ordered);
    }

    /// Nothing runs any more.
    pub(super) fn clear_steps(&self) {
        lock(&self.steps).clear();
        lock(&self.choices).clear();
    }

    /// Why the resource failed last, if it has not been well since.
    pub(super) fn failure(&self, resource: usize) -> Option<Failure> {
        lock(&self.failures).get(&resource).cloned()
    }

    pub(super) fn note_failure(&self, resource: usize, failure: &Failure) {
        lock(&self.failures).insert(resource, failure.clone());
    }

    pub(super) fn forget_failure(&self, resource: usize) {
        lock(&self.failures).remove(&resource);
    }
}

/// A panic elsewhere must not keep a teardown from being done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The order of a teardown is by kind: the address is silenced first, then programs end, then what they used goes.
fn in_order(all: &BTreeMap<usize, Vec<Step>>) -> Vec<Step> {
    let rank = |step: &Step| match step {
        Step::DropAddress { .. } => 0,
        Step::KillCgroup { .. } => 1,
        Step::AbortFuse { .. } | Step::StopUblk { .. } | Step::DetachNbd { .. } => 2,
        Step::DetachLoop { .. } => 3,
        Step::Unmount { .. } => 4,
        Step::Close { .. } => 5,
    };
    // The last resource's steps come first within a kind.
    let mut steps: Vec<Step> = all.values().rev().flatten().cloned().collect();
    steps.sort_by_key(rank);
    steps.dedup();
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn the_address_goes_first_and_the_device_before_what_is_on_it() {
        let (fuse, mount) = (PathBuf::from("/run/fuse"), PathBuf::from("/srv"));
        let kill = Step::KillCgroup { dir: "/cg".into() };
        let address = Step::DropAddress {
            interface: 2,
            ip: [10, 9, 0, 10].into(),
            prefix: 32,
        };
        let device = vec![
            Step::AbortFuse {
                target: fuse.clone(),
            },
            Step::DetachLoop {
                device: "/dev/loop7".into(),
            },
            Step::Unmount {
                target: fuse.clone(),
            },
            Step::Close {
                name: "fuse pgdata".into(),
            },
        ];
        let all = BTreeMap::from([
            (0, device),
            (
                1,
                vec![Step::Unmount {
                    target: mount.clone(),
                }],
            ),
            (2, vec![kill.clone()]),
            (3, vec![kill.clone()]),
            (4, vec![address.clone()]),
        ]);
        let wanted = [
            address,
            kill,
            Step::AbortFuse {
                target: fuse.clone(),
            },
            Step::DetachLoop {
                device: "/dev/loop7".into(),
            },
            Step::Unmount { target: mount },
            Step::Unmount { target: fuse },
            Step::Close {
                name: "fuse pgdata".into(),
            },
        ];
        assert_eq!(in_order(&all), wanted);
    }
}
