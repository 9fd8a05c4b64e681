//! A stream of writes finds its regions in the intent log; others pay for what they touch only.

use super::*;
use wire::units::REGION_BYTES;

/// Cold writes and regions in the log after eight writes, each whole regions behind the one before.
fn after_writes(regions_apart: u64) -> (u64, u64) {
    let mut world = World::new(|config| config.hot_regions_max = 32);
    world.run();
    assert!(world.control.serving);
    let before = world.machine(A).unwrap().figures();
    for n in 0..8 {
        world.write(n * regions_apart * REGION_BYTES, REGION_BYTES, false);
        world.run();
    }
    let after = world.machine(A).unwrap().figures();
    (after.cold_writes - before.cold_writes, after.hot_regions)
}

#[test]
fn a_stream_waits_for_the_log_only_until_it_is_known_as_one() {
    let (cold, _) = after_writes(1);
    assert_eq!(
        cold, 2,
        "the first one, and the one that shows where it goes"
    );
}

#[test]
fn scattered_writes_make_nothing_hot_but_their_own_regions() {
    assert_eq!(after_writes(3), (8, 8));
}

#[test]
fn regions_ahead_of_a_stream_leave_an_orderly_end_with_the_others() {
    let mut world = World::new(|config| config.hot_regions_max = 32);
    world.run();
    for n in 0..4 {
        world.write(n * REGION_BYTES, REGION_BYTES, false);
    }
    world.run();
    assert!(world.machine(A).unwrap().figures().hot_regions > 4);
    world.command(A, Command::Drain);
    world.run();
    assert_eq!(world.machine(A).unwrap().figures().hot_regions, 0);
}
