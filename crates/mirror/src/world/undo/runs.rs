//! Resyncs that are interrupted and undone, and those whose log does not hold.

use super::*;
use crate::world::named::tuned;

/// A standby comes back that lacks what was written in several regions; it has a log.
fn returning(bytes: u64) -> World {
    let mut world = tuned(|config| config.undo_bytes = Some(bytes));
    for region in [1_u64, 5, 9] {
        world.write(region * 65_536, 8_192, false);
        world.run();
    }
    world.crash(B, false);
    world.run();
    for region in [1_u64, 2, 9, 20, 25] {
        world.write(region * 65_536, 12_288, false);
        world.run();
    }
    world.boot(B, false);
    assert!(world.begins(), "no resync");
    world
}

impl World {
    /// B boots, and a resync to it begins, or goes on.
    fn begins(&mut self) -> bool {
        self.node(A).frames_sent.clear();
        for _ in 0..RUN_MAX {
            if !self.sent(A, Kind::ResyncStart).is_empty() {
                return true;
            }
            self.rounds(1);
        }
        false
    }
}

/// In the middle of the resync, with writes going on.
pub(super) fn halfway(bytes: u64) -> World {
    let mut world = returning(bytes);
    for step in 0..RUN_MAX {
        let saved = &world.nodes[1].disk_log;
        let wrote = saved.iter().any(|op| matches!(op, DiskOp::Write { .. }));
        if wrote && world.state(B) == ReplicaState::Inconsistent {
            break;
        }
        assert!(step + 1 < RUN_MAX, "no resync");
        world.rounds(1);
    }
    world.write(9 * 65_536 + 512, 512, false);
    world.zero(12 * 65_536 + 1_024, 65_536);
    world.rounds(9);
    assert_eq!(world.state(B), ReplicaState::Inconsistent);
    assert!(world.way_of(B).is_some());
    world
}

#[test]
fn a_target_goes_back_to_what_it_was_when_its_resync_began() {
    let mut world = halfway(ROOMY);
    world.crash(B, true);
    assert_ne!(
        world.nodes[1].disk.current[..1 << 20],
        world.nodes[1].log.before[..1 << 20]
    );
    assert!(world.roll_back(B, usize::MAX));
    world.boot(B, true);
    world.settle_disk(B);
    assert_eq!(world.state(B), ReplicaState::Consistent);
    world.check_marks();
    world.heal_and_check();
    assert!(!world.nodes[1].has_way_back());
}

/// Wherever the resync is interrupted, by a crash of whom it is fed or of itself, and wherever going back is.
#[test]
fn every_moment_of_a_resync_leads_back() {
    let mut undone = 0;
    for steps in 0..50 {
        for power in [false, true] {
            let mut world = returning(ROOMY);
            world.rounds(steps / 2);
            world.write(9 * 65_536 + 512, 512, false);
            world.zero(12 * 65_536 + 1_024, 65_536);
            world.rounds(steps.div_ceil(2));
            world.crash(B, power);
            undone += usize::from(world.roll_back(B, steps % 7));
            world.boot(B, power);
            world.rounds(8);
            world.check_marks();
            world.heal_and_check();
        }
    }
    assert!(undone > 30, "only {undone}");
}

/// The daemon restarts in the middle, the resync goes on with its log and is interrupted again.
#[test]
fn a_resync_that_goes_on_later_goes_on_with_its_log() {
    let mut continued = 0;
    for steps in 0..22 {
        for later in [0, 3, 5, 7, 9, 12] {
            let mut world = returning(ROOMY);
            world.dice ^= later * 77;
            world.write(12 * 65_536 + 512, 512, false);
            world.rounds(steps);
            let run = world.way_of(B);
            world.crash(B, steps % 2 == 0);
            world.boot(B, steps % 2 == 0);
            assert!(run.is_none() || world.begins());
            world.rounds(to_usize(later));
            world.crash(B, steps % 3 == 0);
            if world.roll_back(B, steps % 5) {
                continued += usize::from(run.is_some());
            }
            world.boot(B, false);
            world.rounds(8);
            world.check_marks();
            world.heal_and_check();
        }
    }
    assert!(continued > 20, "only {continued}");
}

/// What the daemon wrote just before it was killed is whole for the next one, and gone if power fails then: it does not count as
/// saved before it is durable.
#[test]
fn what_is_only_in_a_cache_does_not_count_as_saved() {
    let mut landed = 0;
    for steps in 0..24 {
        for later in [4, 8, 12, 16] {
            let mut world = returning(ROOMY);
            world.dice ^= later * 77;
            world.rounds(steps);
            let saves = |(_, op): &(IoId, UndoOp)| matches!(op, UndoOp::Save { .. });
            landed += usize::from(world.nodes[1].log.ios.front().is_some_and(saves));
            let run = world.way_of(B);
            world.node(B).land_log();
            world.crash(B, false);
            world.boot(B, false);
            assert!(run.is_none() || world.begins());
            // Until the first batch of this life, which is not finished.
            for _ in 0..later {
                let saves = world.nodes[1].log.ios.front().is_some_and(saves);
                world.node(B).log.hangs = saves;
                world.rounds(1);
            }
            world.node(B).log.hangs = false;
            world.crash(B, true);
            world.roll_back(B, usize::MAX);
            world.boot(B, true);
            world.rounds(8);
            world.check_marks();
            world.heal_and_check();
        }
    }
    assert!(landed > 10, "only {landed}");
}

/// The process stands still for less than a disk may take, and the log's answer is there right after.
#[test]
fn a_pause_of_the_process_is_not_the_logs_silence() {
    let mut world = returning(ROOMY);
    world.rounds(8);
    world.node(B).log.hangs = true;
    let is_asked = |world: &World| world.machine(B).is_some_and(|m| m.undo.wake_at().is_some());
    for step in 0..RUN_MAX {
        if is_asked(&world) {
            break;
        }
        assert!(step + 1 < RUN_MAX, "nothing is saved");
        world.rounds(1);
    }
    world.pass(world.config.io_timeout / 9);
    world.pass(world.config.io_timeout * 9 / 20);
    world.node(B).log.hangs = false;
    world.run();
    assert!(!world.has_report(B, |r| matches!(r, Report::UndoLost { .. })));
    assert_eq!(world.state(B), ReplicaState::Consistent);
    world.heal_and_check();
}

/// It is whole, and others count on what it has.
#[test]
fn a_committed_resync_is_not_undone() {
    let mut world = halfway(ROOMY);
    world.run();
    assert_eq!(world.control.in_sync.len(), 2);
    world.crash(B, false);
    assert!(!world.roll_back(B, usize::MAX));
    assert_eq!(world.nodes[1].look().err(), Some(Stuck::NoWay));
    world.heal_and_check();
}

/// What the log cannot hold ends the way back, and nothing else.
#[test]
fn a_full_log_is_declared_lost_and_the_resync_goes_on() {
    for room in [0, 1, 3, 8] {
        let mut world = returning(FIRST_BATCH + batch_bytes(1) * room);
        world.rounds(30);
        world.write(12 * 65_536, 65_536, false);
        world.run();
        let full = UndoLoss::Full;
        assert!(world.has_report(B, |r| *r == Report::UndoLost { why: full }));
        assert_eq!(world.state(B), ReplicaState::Consistent);
        world.heal_and_check();
    }
}

/// At no moment is a block overwritten that neither the log has nor the superblock gives up.
#[test]
fn a_crash_around_the_loss_leads_back_or_nowhere() {
    for steps in 0..90 {
        let mut world = returning(FIRST_BATCH + batch_bytes(8) * 2);
        world.rounds(steps);
        world.crash(B, true);
        world.roll_back(B, usize::MAX);
        world.boot(B, true);
        world.rounds(8);
        world.check_marks();
        world.heal_and_check();
    }
}

#[test]
fn a_log_that_fails_or_hangs_ends_the_way_back_and_nothing_else() {
    for (broken, why) in [(true, UndoLoss::Failed), (false, UndoLoss::Silent)] {
        for rounds in [0, 8] {
            let mut world = returning(ROOMY);
            world.rounds(rounds);
            let log = &mut world.node(B).log;
            (log.broken, log.hangs) = (broken, !broken);
            for _ in 0..40 {
                world.rounds(30);
                world.pass(world.config.io_timeout / 7);
            }
            world.run();
            assert!(world.has_report(B, |r| *r == Report::UndoLost { why }));
            assert_eq!(world.state(B), ReplicaState::Consistent);
            world.heal_and_check();
        }
    }
}

/// The next daemon has no log, or another file in its place: what goes on is not half undone.
#[test]
fn a_log_that_is_gone_leads_nowhere() {
    for other in [false, true] {
        let mut world = halfway(ROOMY);
        world.crash(B, false);
        if other {
            world.node(B).log.image.fill(0);
            assert_eq!(
                world.nodes[1].look().err(),
                Some(Stuck::Log(UndoFault::Foreign))
            );
        } else {
            world.config.undo_bytes = None;
        }
        world.boot(B, false);
        world.rounds(1);
        world.run();
        assert!(world.has_report(B, |r| matches!(
            r,
            Report::UndoLost {
                why: UndoLoss::Gone
            }
        )));
        world.crash(B, false);
        assert!(!world.roll_back(B, usize::MAX));
        world.boot(B, false);
        world.heal_and_check();
    }
}

/// B served and wrote what A never got. Its own log forgets that with the commit, which is not durable when B dies.
#[test]
fn what_a_commit_forgot_is_marked_when_it_comes_to_nothing() {
    let mut undone = 0;
    for dice in 0..24 {
        let mut world = tuned(|config| config.undo_bytes = Some(ROOMY));
        world.dice = dice * 0x9E37_79B9;
        world.begin_move();
        world.run();
        assert_eq!(world.control.active, B);
        world.link_up = false;
        world.cut();
        world.write(7 * 65_536, 8_192, false);
        world.settle_disk(B);
        world.crash(B, false);
        world.take_over();
        world.settle_disk(A);
        world.link_up = true;
        world.run();
        assert!(world.control.serving && world.control.active == A);
        world.boot(B, false);
        let log = world.machine(A).unwrap().layout;
        let intents = [Slot::A, Slot::B].map(|slot| log.intent_offset(slot));
        let is_log = |op: &DiskOp| matches!(op, DiskOp::MetaWrite { offset, .. } if intents.contains(offset));
        for _ in 0..400 {
            let forgets = world.machine(B).is_some_and(|m| m.intent.is_empty())
                && world.way_of_disk(B)
                && world.node(B).disk.find(is_log).is_some();
            if forgets {
                break;
            }
            world.rounds(1);
        }
        if let Some(pick) = world.node(B).disk.find(is_log) {
            world.finish_disk(B, pick);
        }
        world.crash(B, false);
        undone += usize::from(world.roll_back(B, usize::MAX));
        world.boot(B, false);
        world.rounds(8);
        world.check_marks();
        world.heal_and_check();
    }
    assert!(undone > 3, "only {undone}");
}

/// The record counts it in, and its disk is an older state of itself: what it held may lack what was acknowledged.
#[test]
fn a_target_that_may_be_promoted_gets_no_way_back() {
    for steps in 0..40 {
        let mut world = tuned(|config| config.undo_bytes = Some(ROOMY));
        world.crash(B, false);
        let old = world.nodes[1].disk.current.clone();
        world.boot(B, false);
        world.rounds(2);
        world.crash(B, false);
        world.cast_out();
        world.write(3 * 65_536, 65_536, true);
        world.run();
        world.boot(B, false);
        world.run();
        assert_eq!(world.control.in_sync.len(), 2);
        world.crash(B, false);
        world.node(B).disk.become_durable(old);
        world.boot(B, false);
        world.rounds(steps * 5);
        world.crash(B, false);
        let counts = world.control.in_sync.contains(&B);
        let undone = world.roll_back(B, usize::MAX);
        world.boot(B, false);
        world.settle_disk(B);
        if counts && undone {
            world.take_over();
            world.run();
        }
        world.heal_and_check();
    }
}

/// Bytes that are applied while the disk still says that the replica is whole make a mixture that nobody knows of.
#[test]
fn nothing_behind_the_start_of_a_resync_is_applied_before_the_replica_is_a_mixture() {
    for (undo, dice) in [None, Some(ROOMY)].into_iter().cycle().zip(0..24) {
        let mut world = tuned(|config| config.undo_bytes = undo);
        world.dice ^= dice * 991;
        for version in [true, false] {
            world.write(9 * 65_536, 8_192, false);
            world.run();
            if version {
                world.crash(B, false);
            }
        }
        let before = world.nodes[1].disk.current.clone();
        world.boot(B, false);
        assert!(world.begins());
        // Its region is in the intent log of both.
        world.write(9 * 65_536 + 512, 512, false);
        for _ in 0..8 {
            world.deliver(B, 1);
            let write = |op: &DiskOp| matches!(op, DiskOp::Write { .. });
            if let Some(pick) = world.node(B).disk.find(write) {
                world.finish_disk(B, pick);
            }
        }
        world.crash(B, false);
        let found = world.nodes[1].shown().unwrap();
        let data = to_usize(found.layout.data_bytes);
        let same = world.nodes[1].disk.current[..data] == before[..data];
        let mixture = found.superblock.state == ReplicaState::Inconsistent;
        assert!(same || mixture, "a mixture says that it is whole");
        world.boot(B, true);
        world.heal_and_check();
    }
}

#[cfg(feature = "mutants")]
#[test]
fn a_defect_of_the_way_back_shows() {
    use std::panic::catch_unwind;
    use wire::mutant::{self, Bug};
    let tests: [(Bug, fn()); 9] = [
        (Bug::OverwrittenUnsaved, every_moment_of_a_resync_leads_back),
        (
            Bug::UndoLossLate,
            a_crash_around_the_loss_leads_back_or_nowhere,
        ),
        (Bug::UndoOutlivesCommit, a_committed_resync_is_not_undone),
        (
            Bug::UndoneUnmarked,
            what_a_commit_forgot_is_marked_when_it_comes_to_nothing,
        ),
        (
            Bug::UndoInside,
            a_target_that_may_be_promoted_gets_no_way_back,
        ),
        (
            Bug::UndoTailTrusted,
            a_resync_that_goes_on_later_goes_on_with_its_log,
        ),
        (
            Bug::UndoLoadUnsynced,
            what_is_only_in_a_cache_does_not_count_as_saved,
        ),
        (
            Bug::UndoPauseBlamed,
            a_pause_of_the_process_is_not_the_logs_silence,
        ),
        (
            Bug::StartUnordered,
            nothing_behind_the_start_of_a_resync_is_applied_before_the_replica_is_a_mixture,
        ),
    ];
    for (bug, test) in tests {
        mutant::bring_back(Some(bug));
        let noticed = catch_unwind(test).is_err();
        mutant::bring_back(None);
        assert!(noticed, "{bug:?} is not noticed");
    }
}
