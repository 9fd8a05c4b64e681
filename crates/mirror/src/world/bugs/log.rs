//! Bugs of what is written down before data: 2, 3.

use super::*;

#[test]
pub(super) fn bug_2_no_data_is_written_after_a_failed_log_write() {
    let mut world = solo();
    world.node(A).disk_log.clear();
    world.write(0, 4096, false);
    world.fail_where(A, is_log);
    world.settle_disk(A);
    assert_eq!(world.data_writes(A), 0);
    assert!(world.has_report(A, |r| *r == Report::LocalFailed { errno: Some(5) }));
    assert_eq!(world.model.len(), 1, "it stays pending until the abort");
}

#[test]
pub(super) fn bug_2_no_data_is_written_after_a_failed_bitmap_write() {
    let mut world = solo();
    let mut region = 0;
    while world.node(A).disk.find(is_bitmap).is_none() {
        if !world.finish_disk(A, 0) {
            world.write(region * 65_536, 4096, false);
            region += 1;
        }
    }
    world.fail_where(A, is_bitmap);
    world.node(A).disk_log.clear();
    for region in 10..20 {
        world.write(region * 65_536, 4096, false);
    }
    world.settle_disk(A);
    assert_eq!(world.data_writes(A), 0);
    assert!(world.has_report(A, |r| *r == Report::LocalFailed { errno: Some(5) }));
}

#[test]
pub(super) fn bug_3_a_crash_forgets_no_write_that_the_peer_lacks() {
    let mut world = solo();
    for region in 0..12 {
        world.write(region * 65_536, 4096, false);
        world.run();
    }
    world.crash(A, true);
    world.boot(A, false);
    world.boot(B, false);
    world.heal_and_check();
}

/// A write that was on its way to the standby when it was cast out, and left the log since.
#[test]
pub(super) fn bug_3_what_was_hot_when_the_peer_left_is_marked_against_it() {
    let mut world = pair();
    world.write(0, 4096, false);
    world.settle_disk(A);
    world.link_up = false;
    world.cut();
    world.run();
    assert_eq!(world.control.in_sync, BTreeSet::from([A]));
    world.cool(0);
    world.heal_and_check();
}
