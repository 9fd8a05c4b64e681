//! A volume grows while it is served.

use super::named::pair;
use super::*;
use crate::control::Ungrown;
use wire::ByteCount;
use wire::mirror_frame::Kind;

const SMALL: u64 = 1 << 20;
const MOST: u64 = DISK_BYTES;

/// Several replicas in sync with room behind their volumes.
fn roomy(nodes: usize) -> World {
    let mut world = World::with_room(&vec![MOST; nodes], SMALL, |_| {});
    world.run();
    assert_eq!(world.control.in_sync.len(), nodes);
    world
}

fn room() -> u64 {
    Layout::for_disk(MOST, 1).unwrap().data_bytes
}

impl World {
    fn why(&self) -> Option<Ungrown> {
        let figures = self.machine(self.control.active)?.figures();
        figures.growth.filter(|growth| !growth.running)?.why
    }

    fn sizes(&self) -> Vec<u64> {
        let size = |node| self.machine(node).map(|m| m.superblock.get().data_bytes);
        self.all().into_iter().filter_map(size).collect()
    }

    /// One step of everything that is under way: a disk operation or a frame; false if there is none.
    fn one(&mut self) -> bool {
        for node in self.all() {
            if self.is_up(node) && (self.finish_disk(node, 0) || self.deliver(node, 1)) {
                return true;
            }
        }
        false
    }
}

#[test]
fn it_grows_on_all_replicas_and_then_for_the_front_end() {
    for nodes in [1, 2, 3] {
        let mut world = roomy(nodes);
        world.write(0, 8_192, false);
        world.grow(Some(SMALL + 65_536));
        world.run();
        assert_eq!(world.sizes(), vec![SMALL + 65_536; nodes]);
        assert_eq!(world.model.told_bytes(), SMALL + 65_536);
        world.write(SMALL, 65_536, false);
        world.grow(None);
        world.run();
        assert_eq!(world.sizes(), vec![room(); nodes]);
        world.write(room() - 8_192, 8_192, true);
        world.read(SMALL + 65_536, 65_536);
        world.run();
        world.heal_and_check();
    }
}

#[test]
fn what_cannot_grow_says_why() {
    let mut world = roomy(2);
    let ask = |world: &mut World, size: u64| {
        world.grow(Some(size));
        world.run();
        world.why()
    };
    let now = ByteCount(SMALL);
    assert_eq!(ask(&mut world, SMALL), Some(Ungrown::NotLarger { now }));
    let most = ByteCount(room());
    let no_room = |node| Some(Ungrown::NoRoom { node, most });
    assert_eq!(ask(&mut world, room() + 4_096), no_room(A));
    assert_eq!(ask(&mut world, SMALL + 512), no_room(A));
    world.node(B).disk_bytes += 1 << 20;
    world.grow(None);
    world.run();
    assert_eq!(world.sizes(), vec![room(); 2]);
    world.grow(None);
    world.run();
    assert_eq!(
        world.why(),
        no_room(A),
        "A has no more room, whatever B has"
    );
    world.node(A).disk_bytes += 1 << 20;
    world.grow(None);
    world.run();
    assert_eq!(world.why(), Some(Ungrown::Stranded(A)));
    world.crash(B, false);
    world.run();
    assert_eq!(ask(&mut world, SMALL * 3), Some(Ungrown::Away(B)));
}

/// The node that crashes, and who takes over, at every step of growing.
fn crash_at_every_step(nodes: usize, stride: usize) -> usize {
    let mut steps = 0;
    for victim in [A, B] {
        for (power, takes_over) in [(false, false), (true, false), (true, true)] {
            for at in (0_usize..).step_by(stride) {
                let mut world = roomy(nodes);
                world.write(SMALL - 8_192, 8_192, false);
                world.grow(None);
                let moved = (0..at).all(|_| world.one());
                if world.model.told_bytes() > SMALL {
                    world.write(room() - 65_536, 65_536, false);
                }
                let over = !moved || world.model.told_bytes() > SMALL && at.is_multiple_of(7);
                world.crash(victim, power);
                if takes_over {
                    world.take_over();
                    world.run();
                    if world.control.serving {
                        world.write(world.model.told_bytes() - 4_096, 4_096, false);
                    }
                    world.run();
                }
                world.boot(victim, false);
                world.heal_and_check();
                let size = world.sizes()[0];
                assert!(
                    size == SMALL || size == room(),
                    "neither old nor new: {size}"
                );
                world.grow(None);
                world.run();
                assert_eq!(world.sizes(), vec![room(); nodes], "it can be done again");
                world.heal_and_check();
                steps += 1;
                if over {
                    break;
                }
            }
        }
    }
    steps
}

#[test]
fn a_crash_at_any_step_leaves_the_old_size_or_the_new_one() {
    let steps = crash_at_every_step(2, 1);
    println!("crashes while growing: {steps}");
    assert!(steps > 100, "only {steps}");
}

#[test]
fn so_it_does_with_three() {
    let steps = crash_at_every_step(3, 7);
    assert!(steps > 20, "only {steps}");
}

/// A standby that became larger follows an active that did not, and may grow again.
#[test]
fn a_larger_standby_takes_the_smaller_size_back() {
    let mut world = roomy(2);
    world.grow(None);
    let grown = |world: &World| world.sizes() == [SMALL, room()];
    while !grown(&world) && world.one() {}
    assert!(grown(&world), "the standby is larger first");
    world.cut();
    world.run();
    assert_eq!(world.sizes(), [SMALL; 2]);
    assert_eq!(world.why(), Some(Ungrown::Lost(B)));
    world.grow(None);
    world.run();
    world.heal_and_check();
    assert_eq!(world.sizes(), [room(); 2]);
}

/// Two standbys became larger; one goes back to the active's size, and the other is promoted with the new one.
#[test]
fn who_went_back_to_the_old_size_is_ready_for_the_new_one() {
    let mut world = roomy(3);
    world.grow(None);
    let larger = |world: &World| world.sizes() == [SMALL, room(), room()];
    while !larger(&world) && world.one() {}
    assert!(larger(&world), "both standbys are larger first");
    world.isolate(C, true);
    for _ in 0..40 {
        world.one();
    }
    assert_eq!(world.sizes()[1], SMALL, "B is taken back");
    world.control.heir = C;
    world.take_over();
    world.isolate(C, false);
    world.run();
    world.heal_and_check();
    assert_eq!(world.sizes(), [room(); 3]);
}

/// A thin pool is full behind the volume, on one node or on all: the volume stays as it is, and is served.
#[test]
fn a_disk_that_fails_behind_the_volume_ends_the_growth_only() {
    for nodes in [1, 2, 3] {
        let mut everybody: Vec<Vec<NodeId>> = (0..nodes).map(|n| vec![NodeId(n)]).collect();
        everybody.push((0..nodes).map(NodeId).collect());
        for full in everybody {
            let mut world = roomy(usize::from(nodes));
            for node in &full {
                world.node(*node).disk.full = Some(SMALL + (256 << 10));
            }
            world.grow(None);
            world.run();
            assert!(matches!(world.why(), Some(Ungrown::Unusable(node)) if full.contains(&node)));
            assert_eq!(world.control.in_sync.len(), usize::from(nodes));
            world.write(SMALL - 8_192, 8_192, false);
            world.run();
            assert!(world.model.is_idle());
            assert_eq!(world.sizes(), vec![SMALL; usize::from(nodes)]);
            for node in &full {
                world.node(*node).disk.full = None;
            }
            world.grow(None);
            world.run();
            assert_eq!(world.sizes(), vec![room(); usize::from(nodes)]);
            world.heal_and_check();
        }
    }
}

/// R18 holds while the gain is cleared.
#[test]
fn a_standby_that_hangs_while_it_clears_is_cut_in_time() {
    let mut world = roomy(2);
    world.grow(None);
    while world.sent(A, Kind::Clear).is_empty() && world.one() {}
    world.write(0, 512, false);
    for _ in 0..30 {
        world.settle_disk(A);
        world.pass(Duration::from_millis(100));
    }
    assert!(world.has_report(A, |r| matches!(r, Report::PeerLost { .. })));
    assert_eq!(world.why(), Some(Ungrown::Lost(B)));
    world.heal_and_check();
}

/// Both were ready for a larger volume; then a disk was made smaller, and larger again.
#[test]
fn what_is_noted_as_ready_is_cleared_again() {
    let mut world = roomy(2);
    let ready = |world: &World, node| world.machine(node).unwrap().superblock.get().ready_bytes;
    world.grow(None);
    while ready(&world, A).min(ready(&world, B)) < room() && world.one() {}
    world.cut();
    world.run();
    assert_eq!(world.sizes(), [SMALL; 2]);
    for node in [A, B] {
        let rubbish = vec![0x51 + node.0; disk::to_usize(room() - SMALL)];
        world.node(node).disk.put(SMALL, &rubbish);
    }
    world.grow(None);
    world.run();
    assert_eq!(world.sizes(), [room(); 2]);
    world.read(SMALL, 65_536);
    world.heal_and_check();
}

/// A larger standby takes the smaller size back, and is promoted at any step of that.
#[test]
fn whoever_is_promoted_serves_the_size_of_its_superblock() {
    for at in 0..60 {
        let mut world = roomy(2);
        world.grow(None);
        let larger = |world: &World| world.sizes() == [SMALL, room()];
        while !larger(&world) && world.one() {}
        world.write(0, 65_536, false);
        for _ in 0..6 {
            world.one();
        }
        world.cut();
        for _ in 0..at {
            world.one();
            world.pass(Duration::from_millis(10));
        }
        world.take_over();
        world.run();
        for node in [A, B] {
            let machine = world.machine(node).unwrap();
            let noted = machine.superblock.get().data_bytes;
            assert_eq!(machine.layout.data_bytes, noted);
        }
        world.crash(A, true);
        world.boot(A, true);
        world.heal_and_check();
    }
}

/// Nothing but a ready replica takes a larger size: a pair without room stays as it is.
#[test]
fn a_disk_without_room_does_not_grow() {
    let mut world = pair();
    world.grow(None);
    world.run();
    assert!(matches!(world.why(), Some(Ungrown::NoRoom { .. })));
    world.heal_and_check();
}

#[cfg(feature = "mutants")]
#[test]
fn a_defect_of_growing_online_shows() {
    use std::panic::catch_unwind;
    use wire::mutant::{self, Bug};
    for bug in [
        Bug::GainNotCleared,
        Bug::ReadyNotDurable,
        Bug::SizeToldEarly,
    ] {
        mutant::bring_back(Some(bug));
        let noticed = catch_unwind(|| crash_at_every_step(2, 1)).is_err();
        mutant::bring_back(None);
        assert!(noticed, "{bug:?} is not noticed");
    }
}
