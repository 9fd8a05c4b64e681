//! A replica becomes larger while nobody runs it, and power fails at every step of that.

use super::named::{pair, solo};
use super::*;
use crate::grow::{GrowFault, Growth, Step, find};
use crate::inspect::{Contents, Found, inspect};
use disk::{SECTOR, to_usize};
use wire::External;

/// The disk before and after.
const SMALL: u64 = DISK_BYTES;
const LARGE: u64 = DISK_BYTES + (1 << 20);

fn read(image: &[u8]) -> impl FnMut(ByteRange) -> Option<Vec<u8>> + '_ {
    move |range: ByteRange| {
        image
            .get(to_usize(range.offset())..to_usize(range.end()))
            .map(<[u8]>::to_vec)
    }
}

/// The replica that an image shows at its end.
fn shown(image: &[u8]) -> Option<Box<Contents>> {
    let bytes = u64::try_from(image.len()).unwrap();
    match inspect(bytes, read(image)).replica {
        Found::Replica(contents) => Some(contents),
        Found::Nothing | Found::Shrunk(_) => None,
    }
}

/// What a step writes: where, and what.
fn effect(step: &Step) -> (usize, Vec<u8>) {
    match step {
        Step::Write { offset, bytes } => (to_usize(*offset), bytes.clone()),
        Step::Zero(range) => (to_usize(range.offset()), vec![0; to_usize(range.len())]),
    }
}

fn apply(image: &mut [u8], step: &Step, lands: impl Fn(usize) -> bool) {
    let (at, bytes) = effect(step);
    for (number, sector) in bytes.chunks(SECTOR).enumerate().filter(|(n, _)| lands(*n)) {
        let at = at + number * SECTOR;
        image[at..at + sector.len()].copy_from_slice(sector);
    }
}

/// The disk of a replica that served alone, with marks and hot regions, in an image of `bytes`.
fn image(bytes: u64) -> Vec<u8> {
    let mut world = solo();
    for region in [1_u64, 2, 9, 20, 25] {
        world.write(region * 65_536, 8_192, false);
        world.run();
    }
    world.flush();
    world.run();
    world.crash(A, false);
    let mut image = world.nodes[0].disk.current.clone();
    image.resize(to_usize(bytes), 0xA5);
    image
}

/// Per plane, what it marks or the intent log names.
fn known(contents: &Contents) -> Vec<Bits> {
    let with_hot = |marks: &Bits| {
        let mut known = marks.clone();
        known.union(&contents.hot);
        known
    };
    contents.planes.marks().map(with_hot).collect()
}

/// Everything that `old` marked or named is marked or named, and so is what the volume gained.
fn forgets_nothing(old: &Contents, new: &Contents) {
    let blocks = old.layout.blocks();
    let mut gained = Bits::new(new.layout.blocks());
    gained.set(blocks..new.layout.blocks());
    for (before, after) in std::iter::zip(known(old), known(new)) {
        assert!(before.within(&after, 0..blocks), "marks were forgotten");
        assert!(
            gained.within(&after, 0..new.layout.blocks()),
            "the gain is not marked"
        );
    }
    assert!(!new.doubtful, "it could not be attached");
    let same = Superblock {
        data_bytes: old.superblock.data_bytes,
        ready_bytes: old.superblock.ready_bytes,
        settled_bytes: old.superblock.settled_bytes,
        ..new.superblock.clone()
    };
    assert_eq!(same, old.superblock);
}

/// A state that a crash left: usable as it is, or by doing it again. Returns the disk after that.
fn check(old: &Contents, state: &[u8], original: &[u8]) {
    let data = to_usize(old.layout.data_bytes);
    assert!(state[..data] == original[..data], "the volume was touched");
    let bytes = u64::try_from(state.len()).unwrap();
    let found = match shown(state) {
        Some(contents) => {
            forgets_nothing(old, &contents);
            contents
        }
        None => {
            let (size, contents) = find(0, bytes, read(state)).expect("the old metadata");
            assert_eq!(size, old.layout.disk_bytes);
            assert!(contents.planes.marks().eq(old.planes.marks()));
            assert_eq!(contents.hot, old.hot);
            contents
        }
    };
    if let Ok(growth) = Growth::plan(&found, bytes, None) {
        let mut again = state.to_vec();
        growth
            .steps()
            .for_each(|step| apply(&mut again, &step, |_| true));
        let done = shown(&again).expect("it is done");
        forgets_nothing(old, &done);
        assert!(again[..data] == original[..data], "the volume was touched");
    }
}

/// Every crash state of growing `original`: each step in part, by sectors.
fn explore(old: &Contents, growth: &Growth, original: &[u8]) -> usize {
    let mut image = original.to_vec();
    let mut states = 0;
    for step in growth.steps() {
        let sectors = effect(&step).1.len() / SECTOR;
        let mut visit = |lands: &dyn Fn(usize) -> bool| {
            let mut state = image.clone();
            apply(&mut state, &step, lands);
            check(old, &state, original);
            states += 1;
        };
        for cut in 0..=sectors {
            visit(&|n| n < cut);
            visit(&|n| n >= cut);
            visit(&|n| n == cut);
            visit(&|n| n != cut);
        }
        for seed in 1..40_usize {
            visit(&|n| ((n + 3).wrapping_mul(seed).wrapping_mul(2_654_435_761) >> 13) & 1 == 1);
        }
        apply(&mut image, &step, |_| true);
    }
    check(old, &image, original);
    states
}

#[test]
fn a_crash_while_metadata_moves_leaves_a_usable_disk() {
    let original = image(LARGE);
    assert!(shown(&original).is_none(), "the end shows nothing yet");
    let (size, old) = find(0, LARGE, read(&original)).expect("the old metadata");
    assert_eq!(size, SMALL);
    let growth = Growth::plan(&old, LARGE, None).unwrap();
    assert!(growth.is_moved() && growth.layout.data_bytes > old.layout.data_bytes);
    let states = explore(&old, &growth, &original);
    println!("crash states of moving: {states}");
    assert!(states >= 500, "only {states}");
}

/// A disk of `bytes` whose last part alone is kept; the rest reads as zeros.
struct Tail {
    base: u64,
    bytes: Vec<u8>,
}

impl Tail {
    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let at = to_usize(offset - self.base);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The replica after the first `sectors` of a step landed too.
    fn shown_after(&self, step: &Step, sectors: usize) -> Box<Contents> {
        let (at, new) = effect(step);
        let mut bytes = self.bytes.clone();
        let at = at - to_usize(self.base);
        let len = sectors * SECTOR;
        bytes[at..at + len].copy_from_slice(&new[..len]);
        let end = self.base + u64::try_from(bytes.len()).unwrap();
        let read = |range: ByteRange| {
            let at = to_usize(range.offset().checked_sub(self.base)?);
            Some(bytes[at..at + to_usize(range.len())].to_vec())
        };
        match inspect(end, read).replica {
            Found::Replica(contents) => contents,
            other @ (Found::Nothing | Found::Shrunk(_)) => panic!("no replica: {other:?}"),
        }
    }
}

/// A replica on a disk with room behind it; the older copies of its bitmap know of no mark.
fn roomy(disk: u64, data: u64, newest: Slot) -> Tail {
    let layout = Layout::with_data(disk, data, 1).unwrap();
    let base = disk - (1 << 20);
    let mut tail = Tail {
        base,
        bytes: vec![0; 1 << 20],
    };
    let mut own = created(data, ReplicaState::Consistent);
    own.mirror = Some(77);
    own.pairs = [B, C].map(Pair::new).to_vec();
    for slot in [Slot::A, Slot::B] {
        tail.put(Layout::super_offset(disk, slot), &own.seal(1));
        let log = layout::seal(BlockKind::Intent, 0, 1, &9_u32.to_le_bytes());
        tail.put(layout.intent_offset(slot), &log);
        for index in 0..layout.bitmap_blocks {
            let (sequence, mark) = if slot == newest { (6, 0x10) } else { (5, 0) };
            let block = layout::seal(BlockKind::Bitmap, index, sequence, &[mark; CONTENT_BYTES]);
            tail.put(layout.bitmap_offset(index, slot), &block);
        }
    }
    tail
}

#[test]
fn a_crash_while_the_bitmap_grows_in_place_forgets_nothing() {
    // A bitmap of one block becomes one of two, and of two one of three: the new one lies over the old one.
    let mut states = 0;
    for (data, newest) in [
        (100_u64, Slot::A),
        (100, Slot::B),
        (200, Slot::A),
        (200, Slot::B),
    ] {
        let disk = (data + 100) << 20;
        let mut tail = roomy(disk, data << 20, newest);
        let nothing = Step::Zero(range(disk - 4096, 0));
        let old = tail.shown_after(&nothing, 0);
        let growth = Growth::plan(&old, disk, None).unwrap();
        assert!(!growth.is_moved() && growth.layout.bitmap_blocks > old.layout.bitmap_blocks);
        for step in growth.steps() {
            let (at, bytes) = effect(&step);
            for sectors in 0..=bytes.len() / SECTOR {
                let found = tail.shown_after(&step, sectors);
                if found.layout == growth.layout {
                    forgets_nothing(&old, &found);
                } else {
                    for (before, after) in std::iter::zip(known(&old), known(&found)) {
                        let blocks = 0..old.layout.blocks();
                        assert!(before.within(&after, blocks), "marks were forgotten");
                    }
                    assert_eq!(found.hot, old.hot);
                }
                states += 1;
            }
            tail.put(u64::try_from(at).unwrap(), &bytes);
        }
        let done = tail.shown_after(&nothing, 0);
        assert_eq!(done.layout, growth.layout);
        forgets_nothing(&old, &done);
        let gained = growth.layout.blocks() - old.layout.blocks();
        for (old, done) in std::iter::zip(old.planes.marks(), done.planes.marks()) {
            assert_eq!(done.ones(), old.ones() + gained, "no more than needed");
        }
    }
    println!("crash states in place: {states}");
    assert!(states >= 250, "only {states}");
}

/// The disk beside it grew: the volume takes all of it, and not a byte of the disk is written.
#[test]
fn metadata_apart_stays_where_it_is_when_the_disk_grows() {
    let (small, large, device) = (100_u64 << 20, 200_u64 << 20, 1_u64 << 20);
    let mut tail = roomy(large + device, small, Slot::A);
    assert_eq!(tail.base, large, "the device is all that the tail holds");
    let nothing = Step::Zero(range(large, 0));
    let mut old = tail.shown_after(&nothing, 0);
    let disk = External::new(large, Some("serial 1"));
    old.superblock.external = Some(disk.clone());
    let growth = Growth::plan(&old, large + device, None).unwrap();
    assert!(!growth.is_moved() && growth.layout.data_bytes == large);
    for step in growth.steps() {
        let (at, bytes) = effect(&step);
        tail.put(u64::try_from(at).unwrap(), &bytes);
    }
    let done = tail.shown_after(&nothing, 0);
    assert_eq!(done.superblock.external, Some(disk));
    assert_eq!(done.layout.data_bytes, large);
    let beyond = Growth::plan(&done, large + device, Some(large + 4096));
    assert!(matches!(beyond, Err(GrowFault::DoesNotFit { most }) if most.0 == large));
    let copy = External::new(large, Some("serial 2"));
    let (at, bytes) = effect(&crate::grow::named(&done, &copy));
    tail.put(u64::try_from(at).unwrap(), &bytes);
    let named = tail.shown_after(&nothing, 0);
    assert_eq!(named.superblock.external, Some(copy));
    assert!(!named.doubtful);
}

#[test]
fn a_grown_pair_becomes_equal_at_its_new_size() {
    let mut world = pair();
    world.write(65_536, 8_192, false);
    world.run();
    for node in [A, B] {
        world.crash(node, false);
        let mut image = world.node(node).disk.current.clone();
        // What the two disks hold there is not equal.
        image.resize(to_usize(LARGE), node.0 + 1);
        let (_, old) = find(0, LARGE, read(&image)).expect("the old metadata");
        let growth = Growth::plan(&old, LARGE, None).unwrap();
        growth
            .steps()
            .for_each(|step| apply(&mut image, &step, |_| true));
        let node = world.node(node);
        node.disk = SimDisk::new(LARGE);
        node.disk.put(0, &image);
        node.disk_bytes = LARGE;
    }
    world.boot(A, false);
    world.boot(B, false);
    world.heal_and_check();
    let size = Layout::for_disk(LARGE, 1).unwrap().data_bytes;
    for node in [A, B] {
        let own = world.machine(node).unwrap().superblock.get();
        assert_eq!(own.data_bytes, size);
    }
    let [a, b] = [0, 1].map(|n| &world.nodes[n].disk.current[..to_usize(size)]);
    assert!(a == b, "the gain differs");
}

#[test]
fn what_cannot_grow_is_left_alone() {
    let plan = |bytes: u64, wanted| {
        let image = image(bytes);
        let (_, old) = find(0, bytes, read(&image)).expect("a replica");
        Growth::plan(&old, bytes, wanted).map(drop)
    };
    assert!(matches!(
        plan(SMALL, None),
        Err(GrowFault::NotLarger { .. })
    ));
    assert!(matches!(
        plan(LARGE, Some(1 << 20)),
        Err(GrowFault::NotLarger { .. })
    ));
    assert!(matches!(
        plan(LARGE, Some(LARGE)),
        Err(GrowFault::DoesNotFit { .. })
    ));
    let Err(GrowFault::Overlap { needed }) = plan(SMALL + 8_192, None) else {
        panic!("the new metadata lies over the old one");
    };
    assert!(
        plan(needed.0, None).is_ok(),
        "{needed:?} is said to be enough"
    );
    assert!(
        matches!(plan(needed.0 - 4096, None), Err(GrowFault::Overlap { .. })),
        "and no more than that"
    );
    let mut rotten = image(LARGE);
    let layout = Layout::for_disk(SMALL, 1).unwrap();
    for slot in [Slot::A, Slot::B] {
        rotten[to_usize(layout.bitmap_offset(0, slot)) + 9] ^= 1;
    }
    assert!(
        find(0, LARGE, read(&rotten)).is_none(),
        "a damaged one is not moved"
    );
}

/// The disk grew, the volume is not to: its metadata moves to where it is looked for.
#[test]
fn the_metadata_moves_with_the_disks_end_even_if_the_volume_stays() {
    let original = image(LARGE);
    let (_, old) = find(0, LARGE, read(&original)).expect("the old metadata");
    let same = old.layout.data_bytes;
    let growth = Growth::plan(&old, LARGE, Some(same)).unwrap();
    assert!(growth.is_moved() && growth.layout.data_bytes == same);
    let states = explore(&old, &growth, &original);
    assert!(states >= 500, "only {states}");
}

#[test]
fn what_is_said_to_be_enough_is_enough_for_large_disks_too() {
    let gib = 1_u64 << 30;
    for (disk, more) in [(1024 * gib, 8192), (2048 * gib, 8192), (10_240 * gib, 4096)] {
        let from = Layout::for_disk(disk, 1).unwrap();
        let small = Layout::for_disk(disk + more, 1).unwrap();
        let needed = crate::grow::enough(small, &from, None);
        let layout = Layout::for_disk(needed, 1).unwrap();
        assert!(
            !crate::grow::overlaps(&layout, &from),
            "{disk} + {more}: {needed}"
        );
    }
}

#[cfg(feature = "mutants")]
#[test]
fn a_defect_of_growing_shows() {
    use std::panic::catch_unwind;
    use wire::mutant::{self, Bug};
    let tests: [(Bug, fn()); 3] = [
        (
            Bug::GainUnmarked,
            a_grown_pair_becomes_equal_at_its_new_size,
        ),
        (
            Bug::OldBitmapTrusted,
            a_crash_while_the_bitmap_grows_in_place_forgets_nothing,
        ),
        (
            Bug::MetadataBlankedEarly,
            a_crash_while_metadata_moves_leaves_a_usable_disk,
        ),
    ];
    for (bug, test) in tests {
        mutant::bring_back(Some(bug));
        let noticed = catch_unwind(test).is_err();
        mutant::bring_back(None);
        assert!(noticed, "{bug:?} is not noticed");
    }
}
