//! Every state that a power failure can leave on a disk, at every step of a workload: what is attached from it keeps the
//! mirror's promises (CrashMonkey's method, bounded: Mohan et al., OSDI 2018).
//!
//! A crash point is each moment at which a disk operation starts or ends. There, each sector that is not durable holds any of
//! its versions since the last flush, and each sector of what is under way is old or new: all combinations of that if there are
//! no more than [`PER_POINT`], else beginnings, ends, single sectors (of up to 32 sectors all of these) and random choices.
//!
//! Checked in every state: the disk attaches; generation and epoch are not below a durable one; a block that differs from
//! the peer's is in the bitmap or the intent log of one of them; what was flushed is there. In one of many states the world
//! goes on from it: the replicas end equal, and what was promised is there.

mod explore;
mod workloads;

use super::*;
use explore::Explorer;
use workloads::Workload;

/// States per crash point, unless the environment says otherwise.
const PER_POINT: usize = 96;
/// The world goes on from one in so many states.
const HEAL_EVERY: usize = 500;

/// What came of one workload.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    points: usize,
    states: usize,
    healed: usize,
}

fn number(name: &str, default: usize) -> usize {
    let given = std::env::var_os(name).and_then(|text| text.into_string().ok());
    given.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Explores one workload; then goes on from a few of its states.
fn explore(name: &str, workload: Workload) -> Count {
    let mut explorer = Explorer::new(number("CRASH_STATES_PER_POINT", PER_POINT));
    workload(&mut explorer);
    let mut count = explorer.count();
    for (point, choice) in explorer.chosen(number("CRASH_STATES_HEAL_EVERY", HEAL_EVERY)) {
        let mut again = Explorer::crashing(point);
        workload(&mut again);
        let mut world = again.into_crashed(&choice);
        world.heal_and_check();
        count.healed += 1;
    }
    println!(
        "crash states: {name}: {} crash points, {} states, {} of them healed",
        count.points, count.states, count.healed
    );
    count
}

#[test]
fn every_crash_state_keeps_the_promises() {
    let mut states = 0;
    for (name, workload) in workloads::ALL {
        states += explore(name, *workload).states;
    }
    println!("crash states: {states} in all");
    assert!(states >= 10_000, "only {states}");
}

#[cfg(feature = "mutants")]
mod hunt {
    use super::*;
    use std::panic::catch_unwind;
    use wire::mutant::{self, Bug, Mutant};

    /// Defects that lose something only if power fails at the right moment.
    const BUGS: [Bug; 3] = [
        Bug::MarksEvicted,
        Bug::CommitUnflushed,
        Bug::SlotsNotAlternated,
    ];
    const MUTANTS: [Mutant; 3] = [
        Mutant::WriteBeforeIntent,
        Mutant::IntentDroppedEarly,
        Mutant::FlushLocalOnly,
    ];

    fn is_noticed() -> bool {
        let explored = || {
            for (name, workload) in workloads::ALL {
                explore(name, *workload);
            }
        };
        let noticed = catch_unwind(explored).is_err();
        mutant::bring_back(None);
        mutant::switch(None);
        noticed
    }

    #[test]
    fn defects_show_in_some_crash_state() {
        let mut survivors = Vec::new();
        for bug in BUGS {
            mutant::bring_back(Some(bug));
            if !is_noticed() {
                survivors.push(format!("{bug:?}"));
            }
        }
        for mutant in MUTANTS {
            mutant::switch(Some(mutant));
            if !is_noticed() {
                survivors.push(format!("{mutant:?}"));
            }
        }
        assert!(survivors.is_empty(), "not noticed: {survivors:?}");
    }
}
