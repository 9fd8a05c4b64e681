//! Bugs of torn, rotten and lost metadata: 12, 16, 18.

use super::*;

/// The node's power fails in the middle of the operation, of which these sectors land; then it is attached again.
fn tear_and_attach(world: &mut World, node: NodeId, wanted: impl Fn(&DiskOp) -> bool, tear: u8) {
    let disk = &mut world.node(node).disk;
    let pick = disk.find(wanted).expect("it is under way");
    disk.tear(pick, |sector| tear & (1 << sector) != 0);
    world.crash(node, true);
    world.boot(node, true);
    world.settle_disk(node);
}

#[test]
pub(super) fn bug_12_a_torn_superblock_leaves_the_older_one() {
    for tear in tears() {
        for turns in 0..2 {
            let mut world = pair();
            let before = world.machine(A).unwrap().superblock.get().epoch;
            for n in 0..=turns {
                world.settle_disk(A);
                let required = BTreeSet::from([A, B]);
                let epoch = Epoch(before.0 + 1 + n);
                world.command(A, Command::Sets { epoch, required });
            }
            world.node(A).reports.clear();
            tear_and_attach(&mut world, A, is_super, tear);
            let found = world.node(A).reports.iter().find_map(|r| {
                let Report::Attached { epoch, .. } = r else {
                    return None;
                };
                Some(*epoch)
            });
            let expected = Some(Epoch(before.0 + turns));
            assert!(found >= expected, "{found:?} after {expected:?}");
        }
    }
}

#[test]
pub(super) fn bug_12_two_damaged_superblocks_are_refused() {
    let mut world = pair();
    world.crash(A, false);
    for slot in [Slot::A, Slot::B] {
        let at = Layout::super_offset(DISK_BYTES, slot);
        world.node(A).disk.put(at + 512, &[9; 512]);
    }
    world.boot(A, false);
    world.settle_disk(A);
    assert!(world.has_report(A, |r| matches!(r, Report::AttachFailed { .. })));
}

#[test]
pub(super) fn bug_12_a_torn_intent_log_leaves_the_older_one() {
    for tear in tears() {
        let mut world = solo();
        world.write(0, 512, false);
        world.run();
        world.write(65_536, 512, false);
        world.run();
        world.write(2 * 65_536, 512, false);
        tear_and_attach(&mut world, A, is_log, tear);
        assert!(world.is_hot(A, 1), "forgotten with {tear:#b}");
        assert!(
            world.marked(A) < layout().blocks(),
            "a full resync for nothing"
        );
        world.heal_and_check();
    }
}

/// Power fails in the middle of a bitmap block; the same marks are made and written again.
#[test]
pub(super) fn bug_12_a_torn_bitmap_leaves_the_older_one_and_is_written_again() {
    for tear in tears() {
        let mut world = solo();
        for turn in 0..2 {
            let mut region = turn;
            while world.node(A).disk.find(is_bitmap).is_none() {
                if !world.finish_disk(A, 0) {
                    world.write(region * 65_536, 4096, false);
                    region += 1;
                }
            }
            tear_and_attach(&mut world, A, is_bitmap, tear);
            assert!(
                world.marked(A) < layout().blocks(),
                "a full resync for nothing"
            );
            world.run();
        }
        world.heal_and_check();
    }
}

/// The newest list is durable and was relied upon; then the medium damages it. The list before it lacks a region.
#[test]
pub(super) fn bug_16_a_rotten_list_of_hot_regions_is_not_taken_for_a_torn_one() {
    let mut world = solo();
    world.write(0, 512, false);
    world.run();
    world.write(65_536, 512, false);
    world.run();
    let slot = world.machine(A).unwrap().intent.newest_slot();
    world.crash(A, false);
    let at = disk::to_usize(layout().intent_offset(slot));
    world.node(A).disk.current[at + 40] ^= 1;
    world.boot(A, false);
    world.settle_disk(A);
    assert_eq!(world.marked(A), layout().blocks(), "what is hot is unknown");
    world.heal_and_check();
}

/// The medium damages the newest marks, which are durable; their regions have left the log.
#[test]
pub(super) fn bug_16_a_rotten_bitmap_is_not_taken_for_a_torn_one() {
    let mut world = solo();
    let mut newest = None;
    for region in 0..16 {
        world.write(region * 65_536, 512, false);
        world.run();
        let log = &world.node(A).disk_log;
        let last = log.iter().rev().find(|op| is_bitmap(op)).cloned();
        newest = last.or(newest);
    }
    let Some(DiskOp::MetaWrite { offset, .. }) = newest else {
        panic!("the bitmap was never written");
    };
    world.crash(A, false);
    let at = disk::to_usize(offset);
    world.node(A).disk.current[at + 100] ^= 1;
    world.boot(A, false);
    world.settle_disk(A);
    assert_eq!(world.marked(A), layout().blocks(), "marks are unknown");
    world.heal_and_check();
}

/// The damaged copy may have said that the data is a mixture.
#[test]
pub(super) fn bug_16_a_rotten_superblock_is_not_replaced_by_the_one_before() {
    let mut world = pair();
    let places = [Slot::A, Slot::B].map(|slot| Layout::super_offset(DISK_BYTES, slot));
    let epoch = Epoch(world.control.epoch.0 + 1);
    let required = BTreeSet::from([A, B]);
    world.node(A).disk_log.clear();
    world.command(A, Command::Sets { epoch, required });
    world.settle_disk(A);
    let written = |op: &DiskOp| {
        let DiskOp::MetaWrite { offset, .. } = op else {
            return None;
        };
        places.iter().find(|at| *at == offset).copied()
    };
    let newest = world.node(A).disk_log.iter().find_map(written);
    world.crash(A, false);
    let at = disk::to_usize(newest.unwrap());
    world.node(A).disk.current[at + 200] ^= 1;
    world.node(A).reports.clear();
    world.boot(A, false);
    world.settle_disk(A);
    let refused =
        |r: &Report| matches!(r, Report::AttachFailed { reason, .. } if reason.contains("damaged"));
    assert!(world.has_report(A, refused));
}

#[test]
pub(super) fn bug_18_a_lost_bitmap_or_intent_log_means_a_full_resync() {
    for part in [0, 1] {
        let mut world = solo();
        world.write(0, 512, false);
        world.run();
        world.crash(A, true);
        for slot in [Slot::A, Slot::B] {
            let at = match part {
                0 => layout().bitmap_offset(0, slot),
                _ => layout().intent_offset(slot),
            };
            world.node(A).disk.put(at, &[1; 4096]);
        }
        world.boot(A, false);
        world.settle_disk(A);
        assert_eq!(world.marked(A), layout().blocks());
        // It is durable before anything else is: another crash forgets nothing.
        world.crash(A, true);
        world.boot(A, false);
        world.settle_disk(A);
        assert_eq!(world.marked(A), layout().blocks());
        world.heal_and_check();
        assert_eq!(world.marked(A), 0);
    }
}
