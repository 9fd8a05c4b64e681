//! Bugs about who is who, and as of when: 7, 17.

use super::*;
use wire::External;
use wire::control::WrongDisk;
use wire::mirror_frame::{Refuse, decode_payload};

#[test]
pub(super) fn bug_7_no_peer_hears_of_an_epoch_that_is_not_durable() {
    let mut world = pair();
    world.crash(A, false);
    world.boot(A, false);
    while !world.has_report(A, |r| matches!(r, Report::Attached { .. })) {
        world.finish_disk(A, 0);
    }
    world.pass(Duration::from_millis(500));
    assert_eq!(
        world.node(A).dials.len(),
        0,
        "its epoch is still being written"
    );
    world.settle_disk(A);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.node(A).dials.len(), 1);
}

#[test]
pub(super) fn bug_7_a_standby_answers_when_epoch_and_generation_are_durable() {
    let mut world = pair();
    world.crash(B, false);
    world.boot(B, false);
    while !world.has_report(B, |r| matches!(r, Report::Attached { .. })) {
        world.finish_disk(B, 0);
    }
    world.node(B).frames_sent.clear();
    // Only the active's disk works: the standby hears the Hello, and cannot note it.
    let heard = |w: &World| !w.sent(A, Kind::Hello).is_empty();
    world.node(A).frames_sent.clear();
    world.step_disks_until(&[A], "the active says hello", heard);
    for _ in 0..20 {
        world.deliver(B, 1);
        world.pass(Duration::from_millis(1));
    }
    assert!(world.sent(B, Kind::Hello).is_empty(), "it is not durable");
    assert!(!world.has_report(B, |r| matches!(r, Report::Following { .. })));
    world.settle_disk(B);
    assert_eq!(world.sent(B, Kind::Hello).len(), 1);
    let before = world.machine(B).unwrap().superblock.get().clone();
    world.crash(B, true);
    world.boot(B, true);
    world.settle_disk(B);
    let after = world.machine(B).unwrap().superblock.get();
    assert!(after.epoch >= before.epoch && after.generation >= before.generation);
}

#[test]
pub(super) fn bug_17_a_larger_standby_takes_the_actives_size() {
    let mut world = World::with_disks(DISK_BYTES, DISK_BYTES + (1 << 20), |_| {});
    world.run();
    world.write(1_900_000 / 512 * 512, 512, false);
    world.heal_and_check();
    let size = |n: NodeId| world.machine(n).unwrap().superblock.get().data_bytes;
    assert_eq!(size(A), size(B));
    world.crash(B, true);
    world.boot(B, true);
    world.heal_and_check();
}

/// Its metadata moves to other places meanwhile: power fails at every step of that.
#[test]
pub(super) fn bug_17_a_larger_standby_may_lose_power_while_it_takes_the_size() {
    for steps in 0..60 {
        let mut world = World::with_disks(DISK_BYTES, DISK_BYTES + (1 << 20), |_| {});
        for _ in 0..steps {
            world.pass(Duration::from_millis(5));
            world.finish_disk(A, 0);
            world.finish_disk(B, 0);
            world.deliver(B, 1);
            world.deliver(A, 1);
        }
        world.crash(B, true);
        world.boot(B, true);
        world.heal_and_check();
    }
}

fn refusal(world: World) -> Refuse {
    refusal_of(world).0
}

/// What the active hears, and what the own node does.
fn refusal_of(mut world: World) -> (Refuse, WrongDisk) {
    for _ in 0..RUN_MAX {
        if !world.sent(B, Kind::Goodbye).is_empty() {
            break;
        }
        world.pass(Duration::from_millis(10));
        world.settle_disk(A);
        world.settle_disk(B);
        world.deliver(A, 0);
        world.deliver(B, 0);
    }
    let heard = world.conns.first().and_then(Conn::next_to_dialer);
    let bytes = heard.expect("no reason given");
    let mut told = world.nodes[1].reports.iter().filter_map(|report| {
        if let Report::CannotFollow { why } = report {
            Some(*why)
        } else {
            None
        }
    });
    let told = told.next_back();
    (
        decode_payload(bytes).unwrap(),
        told.expect("the node is told"),
    )
}

#[test]
fn a_node_is_told_what_is_wrong_with_its_disk() {
    let small = World::with_disks(DISK_BYTES, DISK_BYTES - (512 << 10), |_| {});
    assert_eq!(refusal_of(small).1, WrongDisk::TooSmall);
    let mut own = World::new(|_| {});
    own.crash(B, false);
    own.create(B, ReplicaState::Origin);
    own.boot(B, false);
    assert_eq!(refusal_of(own).1, WrongDisk::OwnContent);
    let mut other = World::new(|_| {});
    other.crash(B, false);
    let bytes = other.node(B).disk_bytes;
    let mut foreign = created(layout().data_bytes, ReplicaState::Consistent);
    foreign.mirror = Some(1);
    for slot in [Slot::A, Slot::B] {
        let at = Layout::super_offset(bytes, slot);
        other.node(B).disk.put(at, &foreign.seal(2));
    }
    other.boot(B, false);
    assert_eq!(refusal_of(other).1, WrongDisk::OtherMirror);
}

#[test]
fn a_disk_without_a_mirror_is_told_from_a_broken_one() {
    let wrong = |spoil: &dyn Fn(&mut World)| {
        let mut world = pair();
        world.crash(B, false);
        spoil(&mut world);
        world.boot(B, false);
        world.settle_disk(B);
        let reports = &world.nodes[1].reports;
        let mut told = reports.iter().filter_map(|report| {
            if let Report::AttachFailed { wrong, .. } = report {
                Some(*wrong)
            } else {
                None
            }
        });
        told.next_back()
    };
    let overwrite = |byte: u8| {
        move |world: &mut World| {
            let end = Layout::super_offset(DISK_BYTES, Slot::B);
            world.node(B).disk.put(end, &[byte; 8192]);
        }
    };
    assert_eq!(wrong(&overwrite(0)), Some(Some(WrongDisk::NoMirror)));
    let rot = |world: &mut World| {
        for slot in [Slot::A, Slot::B] {
            let at = Layout::super_offset(DISK_BYTES, slot) + 700;
            world.node(B).disk.put(at, b"rot");
        }
    };
    assert_eq!(wrong(&rot), Some(Some(WrongDisk::Damaged)));
    let broken = |world: &mut World| world.node(B).disk.broken = Some(5);
    assert_eq!(wrong(&broken), Some(None));
}

/// What becomes of a replica whose superblock names the disk `there`, attached with the disk `here`.
fn beside(here: Option<External>, there: Option<External>) -> Option<WrongDisk> {
    let mut world = pair();
    let mut own = world.machine(B).unwrap().superblock.get().clone();
    own.external = there;
    world.crash(B, false);
    for slot in [Slot::A, Slot::B] {
        let at = Layout::super_offset(DISK_BYTES, slot);
        world.node(B).disk.put(at, &own.seal(1_000));
    }
    world.config.external = here;
    world.boot(B, false);
    world.settle_disk(B);
    let mut told = world.nodes[1].reports.iter().filter_map(|report| {
        if let Report::AttachFailed { wrong, .. } = report {
            Some(*wrong)
        } else {
            matches!(report, Report::Attached { .. }).then_some(None)
        }
    });
    told.next_back().expect("an end")
}

#[test]
fn metadata_of_another_disk_is_not_attached() {
    let data = layout().data_bytes;
    let disk = |bytes, name| Some(External::new(bytes, name));
    let own = || disk(data, Some("one"));
    assert_eq!(beside(None, None), None);
    assert_eq!(beside(own(), own()), None);
    assert_eq!(beside(disk(data, None), own()), None, "it has no name here");
    let other = Some(WrongDisk::OtherDisk);
    assert_eq!(beside(disk(data, Some("two")), own()), other);
    assert_eq!(
        beside(disk(data, Some("one")), disk(data + 4096, Some("one"))),
        other
    );
    assert_eq!(beside(own(), None), other);
    assert_eq!(beside(None, own()), other);
    let small = beside(disk(data - 4096, Some("one")), own());
    assert_eq!(small, Some(WrongDisk::Shrunk));
}

#[test]
fn data_and_metadata_stay_on_their_devices() {
    // The disk's end is told, but the metadata found would reach into it.
    let end = layout().metadata_offset();
    let disk = || Some(External::new(end + 4096, None));
    assert_eq!(beside(disk(), disk()), Some(WrongDisk::Shrunk));
}

#[test]
pub(super) fn bug_17_a_smaller_standby_is_refused_with_both_sizes() {
    let world = World::with_disks(DISK_BYTES, DISK_BYTES - (512 << 10), |_| {});
    assert!(matches!(refusal(world), Refuse::TooSmall { .. }));
}

#[test]
pub(super) fn bug_17_a_disk_with_data_of_its_own_is_never_overwritten() {
    let mut world = World::new(|_| {});
    world.crash(B, false);
    world.create(B, ReplicaState::Origin);
    world.boot(B, false);
    assert_eq!(refusal(world), Refuse::ForeignDisk);
}

#[test]
pub(super) fn bug_17_a_disk_of_another_mirror_is_not_attached() {
    let mut world = pair();
    world.crash(B, false);
    world.config.expect_mirror = Some(78);
    world.boot(B, false);
    world.settle_disk(B);
    assert!(world.has_report(B, |r| matches!(
        r,
        Report::AttachFailed {
            wrong: Some(WrongDisk::OtherMirror),
            ..
        }
    )));
}
