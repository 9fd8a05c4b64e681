//! What people are shown: figures of a running replica, and a disk that nobody runs.

use super::named::{pair, solo};
use super::*;
use crate::inspect::{Contents, Found, Inspection, PlaceFault, inspect};
use crate::survey::Survey;
use wire::layout::BlockFault;

impl World {
    /// An active that may be cut off from now on has not left marks of what was copied: after a power failure it would seem
    /// to hold what the other one lacks, and more of it than the bound allows.
    pub(super) fn check_cleared(&self, node: NodeId, peer: NodeId) {
        let marked = self.machine(node).unwrap().marked(peer).ones() * 4096;
        let node = &self.nodes[usize::from(node.0)];
        let seen = inspect(node.disk_bytes, |range| {
            let at = disk::to_usize(range.offset())..disk::to_usize(range.end());
            Some(node.disk.durable()[at].to_vec())
        });
        let on_disk = replica(seen).marked_against(peer);
        assert!(
            on_disk.0 <= marked,
            "{on_disk:?} are still marked on disk, and {marked} bytes should be"
        );
    }

    /// A look at a node's disk as it is.
    fn look(&self, node: NodeId) -> Inspection {
        self.look_past(node, |_| false)
    }

    /// As [`World::look`]; the disk does not give places where `bad` says so.
    fn look_past(&self, node: NodeId, bad: impl Fn(ByteRange) -> bool) -> Inspection {
        let node = &self.nodes[usize::from(node.0)];
        inspect(node.disk_bytes, |range| {
            let at = disk::to_usize(range.offset())..disk::to_usize(range.end());
            (!bad(range)).then(|| node.disk.current[at].to_vec())
        })
    }
}

fn replica(seen: Inspection) -> Box<Contents> {
    match seen.replica {
        Found::Replica(contents) => contents,
        other @ (Found::Nothing | Found::Shrunk(_)) => panic!("no replica: {other:?}"),
    }
}

fn layout() -> Layout {
    Layout::for_disk(DISK_BYTES, 1).unwrap()
}

/// One alone wrote into four places and ended.
fn ended_alone() -> World {
    let mut world = solo();
    for region in [1_u64, 2, 9, 20] {
        world.write(region * 65_536, 8_192, false);
        world.run();
    }
    world.flush();
    world.run();
    world.crash(A, false);
    world
}

#[test]
fn a_disk_that_nobody_runs_says_where_it_differs() {
    let world = ended_alone();
    let contents = replica(world.look(A));
    let own = contents.superblock.clone();
    assert_eq!(own.state, ReplicaState::Consistent);
    assert!(own.mirror.is_some() && own.pair(B).unwrap().baseline.is_some());
    assert!(own.generation > Generation(0) && own.epoch > Epoch(0));
    assert_eq!(
        (contents.bitmap_lost, contents.intent_incomplete),
        (0, false)
    );
    let places = contents.differing(64);
    for region in [1_u64, 2, 9, 20] {
        let written = range(region * 65_536, 8_192);
        let inside =
            |one: &ByteRange| one.offset() <= written.offset() && one.end() >= written.end();
        assert!(places.ranges.iter().any(inside), "{region}: {places:?}");
    }
    assert_eq!(places.bytes(), contents.differing_bytes().0);
    let few = contents.differing(2);
    assert!(few.ranges.len() == 2 && few.more);
}

#[test]
fn an_equal_pair_differs_nowhere_but_in_the_intent_log() {
    let mut world = pair();
    world.write(0, 512, false);
    world.run();
    let figures = world.machine(A).unwrap().figures();
    let own = figures.replica.unwrap();
    assert_eq!(own.hot.ranges, [range(0, 65_536)]);
    let of_b = own.pairs.iter().find(|pair| pair.node == B).unwrap();
    assert_eq!((of_b.marked.0, own.resyncs.len()), (0, 0));
    let contents = replica(world.look(B));
    assert_eq!(contents.marked(8).ranges, []);
    assert_eq!(contents.hot_regions, 1);
    let of_a = contents.superblock.pair(A).unwrap();
    assert_eq!(of_a.baseline, of_b.baseline);
}

#[test]
fn a_running_replica_names_the_same_places_as_its_disk() {
    let mut world = solo();
    world.write(3 * 65_536, 4_096, false);
    world.run();
    let mut survey = Survey::default();
    let running = world.nodes[0].replica.as_ref().unwrap();
    survey.step(running);
    assert_eq!(survey.last().ranges, [range(3 * 65_536, 4_096)]);
    let own = running.figures().replica.unwrap();
    assert_eq!(own.pairs[0].marked.0, 4_096);
}

#[test]
fn what_is_lost_counts_as_marked_and_is_told() {
    let mut world = ended_alone();
    let all = layout().data_bytes;
    let log = layout().intent_offset(Slot::B);
    let contents = replica(world.look_past(A, |read| read.offset() == log));
    assert!(contents.intent_incomplete);
    assert_eq!(contents.differing_bytes().0, all);
    let bitmap = layout().metadata_offset();
    let contents = replica(world.look_past(A, |read| read.offset() == bitmap));
    // They lie side by side and are read at once.
    let planes = u64::try_from(layout::PAIRS_MAX).unwrap();
    assert_eq!(
        (contents.bitmap_lost, contents.marked_bytes().0),
        (planes, all)
    );
    for slot in [Slot::A, Slot::B] {
        world
            .node(A)
            .disk
            .put(Layout::super_offset(DISK_BYTES, slot), &[0; 4096]);
    }
    let seen = world.look(A);
    assert!(matches!(seen.replica, Found::Nothing));
    let foreign = Err(PlaceFault::Block(BlockFault::Foreign));
    assert!(seen.places.iter().all(|place| place.content == foreign));
}

#[test]
fn no_disk_is_too_strange_to_be_looked_at() {
    for bytes in [0, 511, 4_096, 8_192, 1 << 20] {
        let seen = inspect(bytes, |_| None);
        assert!(matches!(seen.replica, Found::Nothing));
        let noise = |range: ByteRange| Some(vec![0xA5; disk::to_usize(range.len())]);
        assert!(matches!(inspect(bytes, noise).replica, Found::Nothing));
    }
    let world = ended_alone();
    let cut = DISK_BYTES / 2;
    let seen = inspect(cut, |range| {
        let from = range.offset() + DISK_BYTES - cut;
        let at = disk::to_usize(from)..disk::to_usize(from + range.len());
        Some(world.nodes[0].disk.current[at].to_vec())
    });
    assert!(matches!(seen.replica, Found::Shrunk(_)), "{seen:?}");
}
