//! A person promoted a replica that had not everything: what another one has alone is put aside, in a synchronous mirror too.

use super::named::solo;
use super::*;

/// A wrote alone, went down, and B serves without what A has. A comes back; nothing of it was put aside yet.
fn forced(cut_off: bool) -> World {
    let mut world = solo();
    world.write(8192, 4096, false);
    world.run();
    world.crash(A, false);
    world.boot(B, false);
    world.run();
    world.model.keeps_all = true;
    world.model.cut_off();
    world.control.in_sync.insert(B);
    world.take_over();
    world.run();
    assert_eq!(world.control.active, B);
    assert!(world.control.serving);
    if cut_off {
        world.control.cut_off.insert(A);
    }
    world.node(A).reports.clear();
    world.boot(A, false);
    world
}

fn put_aside(report: &Report) -> bool {
    let range = range(8192, 4096);
    matches!(report, Report::PutAside { ranges, .. } if ranges.iter().any(|r| r.overlaps(range)))
}

#[test]
fn what_was_written_alone_is_put_aside_after_a_forced_promotion() {
    let mut world = forced(true);
    world.run();
    assert!(world.has_report(A, put_aside));
    world.heal_and_check();
    assert_eq!(world.control.in_sync.len(), 2);
}

#[test]
fn what_was_written_alone_is_held_if_it_cannot_be_put_aside() {
    let mut world = forced(true);
    world.no_room = true;
    world.run();
    assert!(world.has_report(A, |r| matches!(r, Report::HeldBack { .. })));
    assert_eq!(world.control.in_sync, BTreeSet::from([B]));
    world.command(A, Command::Demote);
    world.heal_and_check();
    assert_eq!(world.control.in_sync.len(), 2);
}

#[test]
fn what_nobody_can_have_been_told_of_is_not_put_aside() {
    let mut world = forced(false);
    world.run();
    assert!(!world.has_report(A, put_aside));
    world.heal_and_check();
}
