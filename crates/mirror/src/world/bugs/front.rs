//! Bugs between the front end and the first copy: 1, 8, 11, 14.

use super::*;

#[test]
pub(super) fn bug_1_one_stable_buffer_feeds_both_replicas() {
    let mut world = pair();
    world.write(0, 4096, false);
    world.settle_disk(A);
    world.deliver_all(B);
    world.settle_disk(B);
    let bytes = |w: &World, n: usize| w.nodes[n].disk.current[..4096].to_vec();
    assert_eq!(bytes(&world, 0), bytes(&world, 1));
    assert_ne!(bytes(&world, 0), vec![0; 4096]);
}

#[test]
pub(super) fn bug_8_a_write_waits_for_a_required_peer_until_it_is_out() {
    let mut world = pair();
    world.crash(B, false);
    world.write(0, 4096, false);
    world.settle_disk(A);
    world.deliver_all(A);
    assert_eq!(world.model.len(), 1, "no word before the peer is out (R7)");
    world.cast_out();
    world.settle_disk(A);
    assert!(world.model.is_idle());
    assert!(world.marked(A) > 0);
}

/// The race: the standby takes over while the active waits for it to be recorded as out.
#[test]
pub(super) fn bug_8_a_write_that_the_new_active_lacks_was_never_acknowledged() {
    let mut world = pair();
    world.link_up = false;
    world.cut();
    world.write(0, 4096, false);
    world.settle_disk(A);
    assert_eq!(world.model.len(), 1, "acknowledged by one replica");
    world.take_over();
    world.run();
    assert_eq!(world.control.active, B);
    assert_eq!(world.node(B).disk.current[..4096], [0; 4096]);
    world.heal_and_check();
}

#[test]
pub(super) fn bug_11_after_a_failed_flush_nothing_starts_any_more() {
    let mut world = pair();
    world.flush();
    world.node(A).disk.broken = Some(5);
    world.settle_disk(A);
    world.node(A).disk.broken = None;
    let before = world.node(A).disk_log.len();
    world.flush();
    world.read(0, 512);
    world.write(0, 512, false);
    world.pass(Duration::from_millis(100));
    world.settle_disk(A);
    assert_eq!(world.node(A).disk_log.len(), before, "no read, no retry");
    assert_eq!(world.model.len(), 4);
    world.command(A, Command::Abort);
    assert!(world.model.is_idle() && world.has_report(A, |r| *r == Report::Closed));
    assert!(world.node(A).bufs.is_empty());
}

#[test]
pub(super) fn bug_11_no_read_is_served_from_a_leg_whose_write_failed() {
    let mut world = pair();
    world.write(0, 512, false);
    while !world.finish_where(A, is_log) {
        assert!(world.finish_disk(A, 0) || world.node(A).disk.find(is_data).is_some());
        if world.node(A).disk.find(is_data).is_some() {
            break;
        }
    }
    world.fail_where(A, is_data);
    world.run();
    assert!(world.has_report(A, |r| *r == Report::LocalFailed { errno: Some(5) }));
    world.read(0, 512);
    world.run();
    assert_eq!(world.model.len(), 2, "neither acknowledged nor read");
    world.command(A, Command::Abort);
    assert!(world.model.is_idle());
}

/// What a front end's recovery does: everything without a reply is issued again, in any order.
#[test]
pub(super) fn bug_14_a_reissued_write_lands_in_the_same_order_on_both() {
    let mut world = pair();
    for _ in 0..3 {
        world.write(0, 4096, false);
        world.write(2048, 4096, false);
    }
    for _ in 0..4 {
        world.finish_disk(A, 0);
    }
    world.deliver(B, 1);
    world.crash(A, false);
    world.boot(A, false);
    world.run();
    for _ in 0..3 {
        world.write(2048, 4096, false);
        world.write(0, 4096, false);
    }
    // The newest operation ends first, again and again.
    for _ in 0..60 {
        let under_way = usize::MAX / 2;
        world.finish_disk(A, under_way);
        world.deliver(B, 1);
        world.finish_disk(B, under_way);
        world.deliver(A, 1);
    }
    world.heal_and_check();
}

/// The first issue of a write is over before the second can be taken on: it cannot land after a newer one.
#[test]
pub(super) fn bug_14_an_activation_ends_after_its_last_write() {
    let mut world = pair();
    world.write(0, 4096, false);
    while world.node(A).disk.find(is_data).is_none() {
        assert!(world.finish_disk(A, 0));
    }
    world.command(A, Command::Abort);
    assert!(
        !world.has_report(A, |r| *r == Report::Closed),
        "it may still land"
    );
    world.settle_disk(A);
    assert!(world.has_report(A, |r| *r == Report::Closed));
}
