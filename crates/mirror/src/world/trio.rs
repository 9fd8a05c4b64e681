//! Three replicas: what the pairs of them know of each other, whoever serves.

use super::*;
use crate::config::Compare;
use crate::nodes::NodeSet;

fn trio() -> World {
    let mut world = World::of(&[DISK_BYTES; 3], |_| {});
    world.run();
    assert_eq!(world.control.in_sync, world.all());
    world
}

impl World {
    /// Bytes sent by resyncs of a node's present life.
    fn resync_sent(&self, node: NodeId) -> u64 {
        self.machine(node).unwrap().resync_sent
    }

    /// The active is gone for good, as far as anybody knows; `heir` serves.
    fn lose_active_to(&mut self, heir: NodeId, power: bool) {
        let old = self.control.active;
        self.crash(old, power);
        self.control.heir = heir;
        self.take_over();
        self.run();
        assert!(self.control.serving && self.control.active == heir);
    }

    /// Until B is a mixture of the node's data; nothing moves but `nodes`.
    fn await_mixture_of(&mut self, source: NodeId, nodes: &[NodeId]) {
        for _ in 0..RUN_MAX {
            let of = self.machine(B).map(|m| m.superblock.get().source);
            if of == Some(Some(source)) {
                return;
            }
            self.step(nodes);
        }
        panic!("no resync began");
    }

    /// The daemon ends and begins again, and everything comes to rest.
    fn restart(&mut self, node: NodeId) {
        self.crash(node, false);
        self.boot(node, false);
        self.run();
    }

    fn settled_writes(&mut self, places: &[u64]) {
        for place in places {
            self.write(place * 65_536, 4_096, false);
            self.run();
        }
    }
}

/// An ordinary failover: nothing but hot regions is compared or sent.
#[test]
fn the_standbys_of_a_lost_active_need_no_copy_of_everything() {
    let mut world = trio();
    world.settled_writes(&[0, 1, 2, 3, 4, 5]);
    world.lose_active_to(C, true);
    assert_eq!(world.control.in_sync, BTreeSet::from([B, C]));
    let most = 5 * 65_536;
    assert!(
        world.resync_sent(C) <= most,
        "{} bytes",
        world.resync_sent(C)
    );
    world.settled_writes(&[7, 8]);
    world.boot(A, false);
    world.run();
    assert_eq!(world.control.in_sync, world.all());
    world.lose_active_to(A, true);
    assert!(
        world.resync_sent(A) <= most,
        "{} bytes",
        world.resync_sent(A)
    );
    world.heal_and_check();
}

/// B follows A while C is away, and serves when C is back: what A wrote meanwhile is B's to know.
#[test]
fn what_the_third_missed_is_remembered_by_a_standby() {
    let mut world = trio();
    world.crash(C, false);
    world.run();
    // More regions than a log holds, so that they leave it.
    world.settled_writes(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    world.flush();
    world.run();
    world.lose_active_to(B, true);
    world.boot(C, false);
    world.run();
    assert!(
        world.resync_sent(B) < DISK_BYTES,
        "{} bytes",
        world.resync_sent(B)
    );
    world.heal_and_check();
}

/// B lacks what A wrote, gets it by a resync, and serves when C is back, which lacks it still.
#[test]
fn what_a_resync_brought_is_remembered_against_the_third() {
    let mut world = trio();
    world.crash(B, false);
    world.crash(C, false);
    world.run();
    world.settled_writes(&[0, 3, 9, 11]);
    world.boot(B, false);
    world.run();
    world.lose_active_to(B, true);
    world.boot(C, false);
    world.run();
    world.heal_and_check();
}

/// B is a mixture of A's data when A dies, and C serves: what the unfinished resync wrote was marked nowhere durably.
#[test]
fn a_mixture_of_another_actives_data_is_compared_as_a_whole() {
    let mut world = trio();
    world.crash(B, false);
    world.run();
    world.settled_writes(&[0, 3, 9, 11, 13, 15]);
    world.boot(B, false);
    world.await_mixture_of(A, &[A, B, C]);
    for _ in 0..30 {
        world.step_all();
    }
    world.crash(B, true);
    world.lose_active_to(C, true);
    world.boot(B, false);
    world.run();
    world.heal_and_check();
}

/// As above, but B's first resync is interrupted, and the second finds what the first has brought.
#[test]
fn what_an_interrupted_resync_brought_is_remembered_too() {
    for steps in (0..80).step_by(4) {
        let mut world = World::of(&[DISK_BYTES; 3], |c| c.compare = Compare::Always);
        world.run();
        world.crash(B, false);
        world.crash(C, false);
        world.run();
        // More regions than a log holds, so that most leave it.
        world.settled_writes(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        world.flush();
        world.run();
        world.boot(B, false);
        world.await_mixture_of(A, &[A, B]);
        (0..steps).for_each(|_| world.step_all());
        world.restart(B);
        world.lose_active_to(B, true);
        world.boot(C, false);
        world.run();
        world.check_marks();
        world.heal_and_check();
    }
}

/// B is a mixture of A's data, of which some is nowhere else; what C brings to it afterwards is interrupted.
#[test]
fn a_mixture_that_gets_another_source_is_compared_until_the_commit() {
    // The first resync has brought it and is not committed; the second has not come to it.
    for (first, second) in (8..24).step_by(2).zip([0, 3, 6].into_iter().cycle()) {
        let mut world = trio();
        world.crash(B, false);
        world.run();
        world.settled_writes(&[0, 3, 9, 11, 13, 15]);
        // Nothing of it reaches C, and B gets it by the resync alone.
        world.write(14 * 65_536, 4_096, false);
        world.boot(B, false);
        world.await_mixture_of(A, &[A, B]);
        (0..first).for_each(|_| world.step(&[A, B]));
        world.crash(B, false);
        world.cut_off(&BTreeSet::from([C]));
        world.lose_active_to(C, true);
        world.boot(B, false);
        world.await_mixture_of(C, &[B, C]);
        (0..second).for_each(|_| world.step_all());
        world.restart(B);
        world.check_marks();
        world.heal_and_check();
    }
}

/// The active dies when only one of two standbys was asked for a common point.
#[test]
fn a_common_point_counts_only_once_both_hold_it() {
    for steps in 0..40 {
        let mut world = trio();
        world.write(0, 4_096, false);
        world.cut();
        world.write(5 * 65_536, 4_096, false);
        for _ in 0..steps * 4 {
            world.step_all();
        }
        world.isolated.insert(B);
        world.cut_off(&BTreeSet::from([B]));
        world.write(7 * 65_536, 4_096, false);
        for _ in 0..20 {
            world.step_all();
            world.check_marks();
        }
        world.isolated.clear();
        world.heal_and_check();
    }
}

/// Each defect makes the test fail that is about it.
#[cfg(feature = "mutants")]
#[test]
fn what_is_forgotten_about_the_third_is_noticed() {
    use std::panic::catch_unwind;
    use wire::mutant::{self, Bug, Mutant};
    mutant::switch(Some(Mutant::ThirdForgotten));
    let survived = catch_unwind(what_the_third_missed_is_remembered_by_a_standby).is_ok();
    mutant::switch(None);
    assert!(!survived, "a region that the third lacks was forgotten");
    mutant::bring_back(Some(Bug::ChunkUnmarked));
    let survived = catch_unwind(what_a_resync_brought_is_remembered_against_the_third).is_ok();
    mutant::bring_back(None);
    assert!(!survived, "a chunk that the third lacks was not marked");
}

/// A fourth node's place is taken by whoever is there.
#[test]
fn a_replica_that_left_the_group_gives_its_place_up() {
    let mut world = trio();
    let mut machine = world.nodes[1].replica.take().unwrap();
    let inner = machine.machine_mut().unwrap();
    inner.remember(NodeId(9), NodeSet::one(A));
    assert!(inner.plane(A).is_some() && inner.plane(NodeId(9)).is_some());
    assert!(inner.plane(C).is_none());
    inner.remember(C, NodeSet::one(A));
    assert_eq!(inner.baselines(C), (None, None));
}

impl World {
    fn step_all(&mut self) {
        let all: Vec<NodeId> = self.all().into_iter().collect();
        self.step(&all);
    }

    fn step(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            if self.is_up(*node) {
                self.finish_disk(*node, 0);
                self.deliver(*node, 1);
            }
        }
        self.control_step();
        self.pass(Duration::from_millis(1));
    }
}
