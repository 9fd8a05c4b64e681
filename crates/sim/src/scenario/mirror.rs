//! What the replicas hold, whatever interrupts them.

use super::{Scenario, millis, secs};
use crate::fault::Fault;
use crate::options::Level;
use crate::world::{A, B, W, World};
use wire::Duration;

pub(super) const ALL: &[Scenario] = &[
    Scenario::of(
        "restarted_active_reconciles_first",
        restarted_active_reconciles_first,
    ),
    Scenario::of(
        "interrupted_resync_starts_again",
        interrupted_resync_starts_again,
    ),
    Scenario::of("late_writes_do_not_land", late_writes_do_not_land),
    Scenario::of("stuck_standby_is_dropped", stuck_standby_is_dropped),
    Scenario::of("old_connection_is_not_heard", old_connection_is_not_heard),
    Scenario::of(
        "differences_are_written_down_first",
        differences_are_written_down_first,
    ),
    Scenario::of("half_a_group_does_not_count", half_a_group_does_not_count)
        .with(|o| o.mirrors = 2),
    Scenario::of("flushed_is_on_both_disks", flushed_is_on_both_disks),
    Scenario::of(
        "failed_flush_is_not_forgotten",
        failed_flush_is_not_forgotten,
    ),
    Scenario::of("mixture_is_marked", mixture_is_marked),
    Scenario::of("failed_flush_is_final", failed_flush_is_final),
    Scenario::of(
        "disk_fails_while_the_standby_is_taken_out",
        disk_fails_while_the_standby_is_taken_out,
    ),
    Scenario::of("old_snapshot_is_noticed", old_snapshot_is_noticed),
    Scenario::of(
        "old_snapshot_of_everything_is_noticed",
        old_snapshot_of_everything_is_noticed,
    ),
    Scenario::of(
        "old_snapshot_after_a_commit_is_noticed",
        old_snapshot_after_a_commit_is_noticed,
    )
    .with(|o| o.mirrors = 2),
    Scenario::of("reset_writes_are_sent_again", reset_writes_are_sent_again),
    Scenario::of("bad_places_are_mended", bad_places_are_mended),
    Scenario::of("flush_covers_what_was_sent", flush_covers_what_was_sent).with(|o| {
        o.level = Level::Flush;
        o.hot_regions = 3;
    }),
    Scenario::of(
        "what_the_third_missed_is_remembered",
        what_the_third_missed_is_remembered,
    )
    .with(|o| {
        o.replicas = 3;
        o.hot_regions = 3;
    }),
    Scenario::of(
        "three_lose_one_after_the_other",
        three_lose_one_after_the_other,
    )
    .with(|o| o.replicas = 3),
    Scenario::of("lost_caches_are_filled_again", lost_caches_are_filled_again)
        .with(|o| o.hot_regions = 3),
];

/// The active restarts without its standby in reach, and dies again: what it served must be what the standby has.
fn restarted_active_reconciles_first(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::MirrorCut(secs(4)));
    let wait = w.rng.millis(1, 600);
    w.pass(wait);
    w.make(Fault::Power(A, Duration::ZERO));
    w.pass(millis(1_000));
    w.make(Fault::Power(A, secs(6)));
    w.expect(secs(6), "B serves", |w| w.serves(B));
    w.come_back();
}

/// The third data node is away, and comes back when the active has just died: the standby that serves then knows what it missed.
fn what_the_third_missed_is_remembered(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Power(W, secs(4)));
    w.pass(secs(3));
    w.make(Fault::Power(A, secs(15)));
    w.expect(secs(12), "B serves", |w| w.serves(B));
    w.pass(secs(4));
    w.come_back();
}

/// The active dies, and once the former one is back the next: each time one of the others serves, with all that was promised.
fn three_lose_one_after_the_other(w: &mut World) {
    for _ in 0..4 {
        w.pass(secs(1));
        let old = w.active().unwrap_or(A);
        let kept = w.in_sync() - 1;
        w.make(Fault::Power(old, secs(5)));
        w.expect(secs(6), "another one serves", |w| {
            w.active() != Some(old) && w.missing_service().is_none()
        });
        let in_sync = w.in_sync();
        w.must(in_sync == kept, "who holds everything stays in the set");
        if !w.becomes_whole(secs(30)) {
            return;
        }
    }
    w.come_back();
}

/// Places of the active's disk, and then of the standby's, cannot be read: nobody notices.
fn bad_places_are_mended(w: &mut World) {
    w.pass(secs(1));
    for at in [A, B, A] {
        w.make(Fault::BadSectors(at, secs(20)));
        w.pass(secs(2));
    }
    w.checkers.longest_gap = Duration::ZERO;
    w.make(Fault::Power(A, secs(3)));
    w.expect(secs(6), "B serves", |w| w.serves(B));
    w.pass(secs(2));
    w.come_back();
}

/// A resync is interrupted again and again: what was not committed is copied again.
fn interrupted_resync_starts_again(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::MirrorSlow(secs(12)));
    w.make(Fault::Power(B, millis(800)));
    for _ in 0..4 {
        let begun = w.checkers.resyncs;
        w.expect(secs(8), "a resync begins", |w| w.checkers.resyncs > begun);
        let wait = w.rng.millis(1, 150);
        w.pass(wait);
        w.make(Fault::MirrorReset);
    }
    w.come_back();
}

/// The active dies while writes of it hang in the standby's disk: they end before the new epoch begins.
fn late_writes_do_not_land(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::DiskStuck(B, millis(2_500)));
    w.pass(millis(100));
    w.make(Fault::Power(A, secs(6)));
    w.expect(secs(6), "B serves", |w| w.serves(B));
    w.pass(secs(3));
    w.come_back();
}

/// The standby's disk hangs, its heart beats: the active goes on without it before anybody complains.
fn stuck_standby_is_dropped(w: &mut World) {
    w.pass(secs(1));
    w.checkers.longest_gap = Duration::ZERO;
    w.make(Fault::DiskHang(B, secs(4)));
    w.pass(secs(6));
    w.must_have_answered(secs(2));
    w.come_back();
}

/// One connection of the mirror stalls and is given up. What it held arrives when a newer one is long at work, and when the
/// active, which could repair it, is just gone.
fn old_connection_is_not_heard(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::MirrorFlow(secs(4)));
    w.pass(secs(2));
    w.end(Fault::MirrorFlow(secs(4)));
    w.make(Fault::Power(A, secs(6)));
    w.expect(secs(5), "B serves", |w| w.serves(B));
    w.come_back();
}

/// Metadata is slow, and both lose power in the middle of writes: whatever was written is found again and made equal.
fn differences_are_written_down_first(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::SlowMeta(A, secs(1)));
    w.make(Fault::SlowMeta(B, secs(1)));
    let wait = w.rng.millis(20, 300);
    w.pass(wait);
    w.make(Fault::PowerBoth(secs(2)));
    w.pace_down();
    w.come_back();
}

/// The mirrors' network fails and comes back for one of two mirrors; then the active dies: half a group is not promoted.
fn half_a_group_does_not_count(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::OneMirror(1, secs(14)));
    w.make(Fault::MirrorCut(secs(2)));
    w.expect(secs(2), "A serves alone", |w| w.in_sync() == 1);
    w.run_until_or(secs(4), |w| w.in_sync() == 2);
    w.make(Fault::Power(A, secs(6)));
    w.pass(secs(8));
    w.come_back();
}

/// The active dies in the middle of a resync: the standby's disk says that it is a mixture.
fn mixture_is_marked(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::MirrorSlow(secs(20)));
    w.make(Fault::Power(B, secs(2)));
    let chunks = w.checkers.chunks;
    w.expect(secs(9), "a resync copies", |w| w.checkers.chunks > chunks);
    w.make(Fault::Power(A, secs(6)));
    w.pass(millis(300));
    w.must_be_marked(B);
    w.come_back();
}

/// Both lose power, and only the standby comes back soon: every flush that was answered is on its disk, slow as it is.
fn flushed_is_on_both_disks(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::DiskSlow(B, secs(2)));
    w.pass(secs(1));
    w.make(Fault::Power(A, secs(8)));
    w.make(Fault::Power(B, millis(100)));
    w.expect(secs(8), "B serves", |w| w.serves(B));
    w.come_back();
}

/// A flush fails on the standby: its disk is given up, and it is not promoted.
fn failed_flush_is_final(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::DiskFlush(B, 1));
    w.pass(millis(600));
    w.make(Fault::Power(A, secs(8)));
    w.make(Fault::Power(B, millis(100)));
    w.pass(secs(7));
    w.come_back();
}

/// The standby's disk is an old snapshot when it comes back: it counts again only when it holds everything.
fn old_snapshot_is_noticed(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Kill(B, millis(20)));
    w.pass(secs(4));
    w.make(Fault::RollBack(B, millis(50)));
    w.pass(secs(2));
    w.expect(secs(9), "both are in sync", |w| w.in_sync() == 2);
    w.pass(millis(500));
    w.make(Fault::Power(A, secs(6)));
    w.expect(secs(5), "B serves", |w| w.serves(B));
    w.come_back();
}

/// The standby restarts, is counted in without hearing of it, and gets the disk back that it had before: what it knows of the
/// record is as old as that disk. It starts twice before it hears of the newest one, and must not take over then.
fn old_snapshot_of_everything_is_noticed(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Kill(B, millis(20)));
    let wait = w.rng.millis(10, 40);
    w.pass(wait);
    w.make(Fault::OneWay(A, B, secs(6)));
    w.make(Fault::OneWay(W, B, secs(6)));
    w.pass(secs(3));
    w.make(Fault::Power(A, secs(9)));
    w.make(Fault::RollBack(B, millis(50)));
    w.pass(secs(2));
    w.make(Fault::Kill(B, secs(2)));
    w.pass(secs(8));
    w.expect(secs(9), "both are in sync", |w| w.in_sync() == 2);
    w.come_back();
}

/// One mirror of two is made equal, the group does not count the standby in before it loses power, and its disks are older when
/// it comes back: the record never spoke of that life.
fn old_snapshot_after_a_commit_is_noticed(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Kill(B, millis(20)));
    w.make(Fault::OneMirror(1, secs(6)));
    w.pass(secs(5));
    w.make(Fault::RollBack(B, millis(50)));
    w.expect(secs(20), "both are in sync", |w| w.in_sync() == 2);
    w.come_back();
}

/// The mirror is slow, its connection is reset, and the active is cut off: the standby gets what was under way once more.
fn reset_writes_are_sent_again(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::MirrorSlow(secs(8)));
    w.pass(millis(500));
    w.make(Fault::Deafen(A, secs(6)));
    w.make(Fault::MirrorReset);
    w.expect(secs(5), "B serves", |w| w.serves(B));
    w.come_back();
}

/// The standby loses power and what its disk had not made durable, and comes back: it gets all of it again.
fn lost_caches_are_filled_again(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Power(B, millis(50)));
    w.pace_down();
    w.pass(secs(3));
    w.come_back();
}

/// The active is alone when a flush fails, its daemon dies with that knowledge, and serves on; then the power goes.
fn failed_flush_is_not_forgotten(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Power(B, secs(30)));
    w.expect(secs(5), "A serves alone", |w| {
        w.serves(A) && w.in_sync() == 1
    });
    w.make(Fault::DiskFlush(A, 1));
    let wait = w.rng.millis(50, 400);
    w.pass(wait);
    w.make(Fault::Kill(A, millis(50)));
    w.pass(millis(200));
    w.expect(secs(10), "A serves again", |w| w.serves(A));
    let wait = w.rng.millis(100, 1_500);
    w.pass(wait);
    w.make(Fault::Power(A, secs(1)));
    w.pass(secs(2));
    w.come_back();
}

/// The mirror's connection is reset, and while the standby is being taken out for that, and is back already, the own disk fails:
/// nobody is left who could take the group over, and nobody is told to.
fn disk_fails_while_the_standby_is_taken_out(w: &mut World) {
    w.pass(secs(1));
    for node in [A, B, W] {
        w.make(Fault::SlowFile(node, secs(2)));
    }
    w.make(Fault::MirrorReset);
    let wait = w.rng.millis(18, 30);
    w.pass(wait);
    w.make(Fault::DiskWrites(A, secs(3)));
    w.pass(secs(6));
    w.come_back();
}

/// Plain writes are acknowledged when they are sent, and the standby is slow to take them: a flush waits for every one.
fn flush_covers_what_was_sent(w: &mut World) {
    for _ in 0..3 {
        let from = w.active().unwrap_or(A);
        let to = if from == A { B } else { A };
        w.pass(secs(1));
        w.make(Fault::SlowMeta(to, secs(2)));
        let wait = w.rng.millis(50, 600);
        w.pass(wait);
        w.make(Fault::Power(from, secs(4)));
        // It is late now and then, and out of the set before that: then the active comes back.
        w.expect(secs(30), "somebody serves", |w| {
            w.serves(to) || w.serves(from)
        });
        w.expect(secs(40), "the other comes back", |w| w.in_sync() == 2);
    }
    w.come_back();
}
