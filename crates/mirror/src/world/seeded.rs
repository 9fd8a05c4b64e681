//! A first sync of used blocks only: the origin's unused blocks and all of the other disks read as zeros.

use super::*;
use std::ops::Range;
use wire::layout::BITS_PER_BLOCK;
use wire::seed::{HEAD_BYTES, Seed};

const NAME: SessionId = SessionId(0x5EED);
/// Blocks of the origin that are used: none at its beginning, so that no write of the mirror's own gives a seed away.
const USED: [Range<u64>; 3] = [32..68, 200..209, 480..481];
/// A block that nobody uses.
const UNUSED: u64 = 300 * 4096;

fn used_bytes() -> u64 {
    USED.iter().map(|run| run.end - run.start).sum::<u64>() * 4096
}

fn data_bytes() -> u64 {
    Layout::for_disk(DISK_BYTES, 1).unwrap().data_bytes
}

/// Replicas as `mirror create --used-only` and `--zeroed` make them, not started.
fn made(count: usize, tune: impl FnOnce(&mut Config)) -> World {
    let mut world = World::of(&vec![DISK_BYTES; count], tune);
    for node in world.all() {
        world.crash(node, false);
        world.node(node).disk = SimDisk::new(DISK_BYTES);
        if node == A {
            USED.into_iter().for_each(|run| world.has_content(run));
        }
        world.seed(node, NAME);
    }
    world
}

/// The same, at rest after the first sync.
fn synced(count: usize) -> World {
    let mut world = made(count, |_| {});
    world.boot_all();
    world
}

impl World {
    fn boot_all(&mut self) {
        for node in self.all() {
            self.boot(node, false);
        }
        self.run();
    }

    /// The origin holds something in these blocks from the beginning.
    fn has_content(&mut self, blocks: Range<u64>) {
        let at = range(blocks.start * 4096, (blocks.end - blocks.start) * 4096);
        let (id, token) = (RequestId(self.next_request), self.next_token);
        self.next_request += 1;
        self.next_token += 1;
        let data = model::content(token, disk::to_usize(at.len()) / disk::SECTOR);
        self.node(A).disk.put(at.offset(), &data);
        self.model.write(id, at, token, true);
        self.model.replied(id, true, None);
    }

    /// Metadata that names a baseline, as of what the disk holds.
    fn seed(&mut self, node: NodeId, name: SessionId) {
        let state = if node == A {
            ReplicaState::Origin
        } else {
            ReplicaState::Blank
        };
        self.create(node, state);
        let layout = Layout::for_disk(DISK_BYTES, 1).unwrap();
        let others: Vec<NodeId> = self.all().into_iter().filter(|n| *n != node).collect();
        let head = disk::to_usize(HEAD_BYTES);
        let mut own = created(layout.data_bytes, state);
        own.seed = Some(Seed::of(&self.node(node).disk.current[..head]));
        own.pairs = others.into_iter().map(Pair::new).collect();
        for pair in &mut own.pairs {
            pair.baseline = Some(name);
        }
        let disk = &mut self.node(node).disk;
        for slot in [Slot::A, Slot::B] {
            let bytes = own.seal(1);
            disk.put(Layout::super_offset(DISK_BYTES, slot), &bytes);
            for plane in (0..).take(if node == A { own.pairs.len() } else { 0 }) {
                let bytes = layout::seal(BlockKind::Bitmap, plane, 1, &used_bits());
                disk.put(layout.bitmap_offset(plane, slot), &bytes);
            }
        }
    }

    fn copied(&self, from: NodeId) -> u64 {
        let chunks = self.nodes[usize::from(from.0)].frames_sent.iter();
        let chunks = chunks.filter(|h| h.flags & FLAG_RESYNC != 0);
        chunks.map(|h| h.range.len()).sum()
    }

    fn own(&self, node: NodeId) -> &Superblock {
        self.machine(node).unwrap().superblock.get()
    }
}

fn used_bits() -> Vec<u8> {
    assert!(data_bytes() / 4096 <= BITS_PER_BLOCK, "one block per plane");
    let mut bits = vec![0; CONTENT_BYTES];
    for block in USED.into_iter().flatten() {
        bits[disk::to_usize(block / 8)] |= 1 << (block % 8);
    }
    bits
}

#[test]
fn a_first_sync_sends_the_marked_blocks_only() {
    let mut world = synced(2);
    assert_eq!(world.control.in_sync, world.all());
    assert_eq!(world.copied(A), used_bytes());
    for (node, peer) in [(A, B), (B, A)] {
        let own = world.own(node);
        assert_eq!((own.seed, own.state), (None, ReplicaState::Consistent));
        assert_ne!(own.pair(peer).unwrap().baseline, Some(NAME));
    }
    world.heal_and_check();
}

/// The other node comes late: what was written meanwhile is marked too.
#[test]
fn what_is_written_before_the_first_sync_is_in_it() {
    let mut world = made(2, |_| {});
    world.boot(A, false);
    world.run();
    for region in [0, 3, 17, 18, 19, 20, 21] {
        world.write(region * 65_536 + 8_192, 4_096, false);
        world.run();
    }
    world.crash(A, true);
    world.boot_all();
    assert_eq!(world.control.in_sync, world.all());
    let most = used_bytes() + 7 * 65_536;
    assert!(world.copied(A) <= most, "{} bytes", world.copied(A));
    world.heal_and_check();
}

/// Somebody mounted the origin, or used the other disk for something else, before the first start.
#[test]
fn a_disk_that_was_used_since_is_not_trusted() {
    for node in [A, B] {
        let mut world = made(2, |_| {});
        if node == A {
            world.has_content(0..1);
            world.has_content(UNUSED / 4096..UNUSED / 4096 + 1);
        } else {
            world.node(B).disk.put(1024, &[7; 512]);
            world.node(B).disk.put(UNUSED, &[7; 4096]);
        }
        world.boot_all();
        assert_eq!(world.copied(A), data_bytes(), "{node:?} was written to");
        world.heal_and_check();
    }
}

/// The other disk is of another origin, or of an earlier life of it.
#[test]
fn another_token_copies_everything() {
    let mut world = made(2, |_| {});
    world.seed(B, SessionId(0xBAD));
    world.node(B).disk.put(UNUSED, &[7; 4096]);
    world.boot_all();
    assert_eq!(world.copied(A), data_bytes());
    world.heal_and_check();
    let mut world = made(2, |_| {});
    world.create(A, ReplicaState::Origin);
    world.boot_all();
    assert_eq!(world.copied(A), data_bytes(), "the origin was made anew");
    world.heal_and_check();
    let mut world = made(2, |_| {});
    world.create(B, ReplicaState::Blank);
    world.node(B).disk.put(UNUSED, &[7; 4096]);
    world.boot_all();
    assert_eq!(world.copied(A), data_bytes(), "the other one was made anew");
    world.heal_and_check();
}

/// Its disk was restored to what it was before the first sync (R14).
#[test]
fn a_disk_made_of_zeros_again_is_copied_whole() {
    let mut world = synced(2);
    world.crash(B, false);
    world.run();
    world.write(UNUSED, 4_096, false);
    world.run();
    world.node(A).frames_sent.clear();
    world.node(B).disk = SimDisk::new(DISK_BYTES);
    world.seed(B, NAME);
    world.boot(B, false);
    world.run();
    assert_eq!(world.copied(A), data_bytes());
    world.heal_and_check();
}

/// Whoever crashes at whatever step of the first sync, and whether or not power fails.
#[test]
fn an_interrupted_first_sync_ends_equal() {
    for steps in (0..160).step_by(3) {
        for (node, power) in [(A, false), (A, true), (B, false), (B, true)] {
            let mut world = made(2, |c| c.compare = crate::config::Compare::Always);
            world.boot(A, false);
            world.run();
            world.write(UNUSED, 4_096, false);
            world.write(4_096, 4_096, false);
            world.boot(B, false);
            for step in 0..steps {
                for node in [A, B] {
                    world.finish_disk(node, step);
                    world.deliver(node, 1);
                }
                world.pass(Duration::from_millis(5));
            }
            world.crash(node, power);
            world.boot(node, power);
            world.check_marks();
            world.heal_and_check();
        }
    }
}

/// B is half made when A dies, and has what C never heard of; C, whose first sync was whole, serves.
#[test]
fn what_half_a_first_sync_brought_is_compared_with_the_third() {
    for (steps, power) in (6..90).step_by(2).zip([false, true].into_iter().cycle()) {
        let mut world = made(3, |_| {});
        world.boot(A, false);
        world.boot(C, false);
        world.run();
        assert_eq!(world.control.in_sync, BTreeSet::from([A, C]));
        world.write(UNUSED, 4_096, false);
        world.boot(B, false);
        for step in 0..steps {
            for node in [A, B] {
                world.finish_disk(node, step);
                world.deliver(node, 1);
            }
            world.pass(Duration::from_millis(5));
        }
        if world
            .machine(B)
            .is_some_and(|_| world.own(B).state == ReplicaState::Consistent)
        {
            break;
        }
        world.crash(B, power);
        world.crash(A, power);
        world.control.heir = C;
        world.take_over();
        world.run();
        assert!(world.control.serving && world.control.active == C);
        world.boot(B, power);
        world.run();
        world.check_marks();
        world.heal_and_check();
    }
}

#[test]
fn three_replicas_share_what_the_first_one_marked() {
    let mut world = synced(3);
    assert_eq!(world.control.in_sync, world.all());
    assert_eq!(world.copied(A), 2 * used_bytes());
    world.write(UNUSED, 4_096, false);
    world.run();
    world.crash(A, true);
    world.control.heir = C;
    world.take_over();
    world.run();
    world.heal_and_check();
}

#[cfg(feature = "mutants")]
#[test]
fn a_defect_of_the_first_sync_shows() {
    use std::panic::catch_unwind;
    use wire::mutant::{self, Bug};
    let tests: [(Bug, fn()); 2] = [
        (
            Bug::SeedUnchecked,
            a_disk_that_was_used_since_is_not_trusted,
        ),
        (
            Bug::SeedOutlivesChunks,
            what_half_a_first_sync_brought_is_compared_with_the_third,
        ),
    ];
    for (bug, test) in tests {
        mutant::bring_back(Some(bug));
        let noticed = catch_unwind(test).is_err();
        mutant::bring_back(None);
        assert!(noticed, "{bug:?} is not noticed");
    }
}
