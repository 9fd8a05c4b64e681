//! Logs that are torn or damaged.

use super::runs::halfway;
use super::*;

/// Blocks of the volume, bytes of the log.
const SIZES: (u64, u64) = (256, 4 << 20);

/// Every byte of a log that something relies on is either found as it was, or missed.
#[test]
fn a_damaged_log_is_refused() {
    let mut world = halfway(ROOMY);
    world.crash(B, false);
    let whole = world.nodes[1].look().expect("a way back");
    assert!(whole.bytes().0 > 0 && whole.began_unix == NOON);
    let used = world.nodes[1]
        .log
        .image
        .iter()
        .rposition(|b| *b != 0x5A)
        .unwrap();
    let lost = world.nodes[1].log.image.clone();
    for at in (0..used).step_by(1_361) {
        world.node(B).log.image[at] ^= 4;
        match world.nodes[1].look() {
            // One of two lists, or a block that was not overwritten.
            Ok(way) => {
                let same = way.bytes() <= whole.bytes();
                assert!(same);
                let mut copy = world.nodes[1].disk.current.clone();
                for (offset, bytes) in world.nodes[1].writes(way) {
                    let at = to_usize(offset);
                    copy[at..at + bytes.len()].copy_from_slice(&bytes);
                }
                let before = &world.nodes[1].log.before;
                assert!(copy[..before.len()] == before[..], "byte {at}");
            }
            Err(fault) => assert!(matches!(fault, Stuck::Log(_)), "{fault:?}"),
        }
        world.node(B).log.image.copy_from_slice(&lost);
    }
}

/// Batches of every size, the last one torn at every sector: as if it had never been written, as long as nothing was overwritten.
#[test]
fn a_torn_tail_is_as_if_it_had_never_been_written() {
    let key = wire::undo::Key {
        replica: 7,
        run: wire::undo::UndoRun(9),
    };
    let disk: Vec<u8> = (0..=255_u8).cycle().take(1 << 20).collect();
    let old = |blocks: &[u64]| -> Vec<u8> {
        let part =
            |block: &u64| disk[to_usize(block * 4096)..to_usize(block * 4096) + 4096].to_vec();
        blocks.iter().flat_map(part).collect()
    };
    let all: Vec<u64> = (0..256).collect();
    assert_eq!(all.len(), BATCH_BLOCKS_MAX);
    let mut log = vec![0x33; 4 << 20];
    let header = LogHeader {
        key,
        began_unix: NOON,
        log_bytes: 4 << 20,
    };
    log[..to_usize(FIRST_BATCH)].copy_from_slice(&header.seal());
    let mut at = FIRST_BATCH;
    for (sequence, blocks) in (1..).zip([&all[..1], &all[1..3], &all[3..40], &all[40..]]) {
        let bytes = batch(key, (sequence, at), blocks, &old(blocks));
        let here = to_usize(at);
        let sectors = bytes.len() / SECTOR;
        let stale = log.clone();
        for cut in 0..=sectors.min(400) {
            for tail in [true, false] {
                let mut torn = stale.clone();
                for n in (0..sectors).filter(|n| (*n < cut) == tail) {
                    let to = here + n * SECTOR;
                    torn[to..to + SECTOR].copy_from_slice(&bytes[n * SECTOR..(n + 1) * SECTOR]);
                }
                let loaded =
                    load(key, SIZES, &mut || true, &mut read(&torn), &mut read(&disk)).unwrap();
                let is_whole = torn[here..here + bytes.len()] == bytes[..];
                if loaded.sequence == sequence + 1 {
                    assert!(loaded.offset == at + u64::try_from(bytes.len()).unwrap());
                } else {
                    assert_eq!((loaded.sequence, loaded.offset), (sequence, at));
                    assert!(!is_whole);
                }
            }
        }
        log[here..here + bytes.len()].copy_from_slice(&bytes);
        at += u64::try_from(bytes.len()).unwrap();
    }
    let loaded = |blocks, synced| {
        let (log, disk) = (&mut read(&log), &mut read(&disk));
        load(key, (blocks, 4 << 20), &mut || synced, log, disk)
    };
    assert_eq!(loaded(256, false), Err(UndoFault::Unreadable));
    assert_eq!(loaded(255, true), Err(UndoFault::Damaged), "beyond the end");
    let loaded = loaded(256, true).unwrap();
    assert_eq!((loaded.saved, loaded.sequence), (all, 5));
}

/// What it lacks is not known: it may have been relied upon.
#[test]
fn a_log_that_became_smaller_is_refused() {
    let mut world = halfway(ROOMY);
    world.crash(B, false);
    world.node(B).log.image.truncate(to_usize(ROOMY - 4096));
    let damaged = Some(Stuck::Log(UndoFault::Damaged));
    assert_eq!(world.nodes[1].look().err(), damaged);
}

/// One of its two headers is enough, and one that is damaged is not taken for another log's.
#[test]
fn a_lost_header_leaves_the_other_one() {
    let mut world = halfway(ROOMY);
    world.crash(B, false);
    for at in [900, 4096 + 900] {
        let kept = world.node(B).log.image.clone();
        world.node(B).log.image[at] ^= 1;
        assert!(world.nodes[1].look().is_ok());
        world.node(B).log.image[4096 + 1_800 - at] ^= 1;
        assert_eq!(
            world.nodes[1].look().err(),
            Some(Stuck::Log(UndoFault::Damaged))
        );
        world.node(B).log.image = kept;
    }
}
