//! Who may be active, and what is acknowledged while that changes.

use super::{Scenario, millis, secs};
use crate::fault::Fault;
use crate::world::{A, B, W, World};

pub(super) const ALL: &[Scenario] = &[
    Scenario::of("proposal_survives_a_crash", proposal_survives_a_crash),
    Scenario::of("grown_without_knowing", grown_without_knowing),
    Scenario::of("grow_unheard", grow_unheard),
    Scenario::of("grown_and_gone", grown_and_gone),
    Scenario::of("grown_slowly_and_gone", grown_slowly_and_gone),
    Scenario::of("alone_only_by_the_register", alone_only_by_the_register),
    Scenario::of("out_of_sync_waits", out_of_sync_waits),
    Scenario::of("decided_survives_the_voters", decided_survives_the_voters),
    Scenario::of("duel_of_two_proposals", duel_of_two_proposals),
    Scenario::of("fenced_standby_is_silent", fenced_standby_is_silent),
];

/// The active dies just after it decided to count its standby in: whatever became of that, nothing is lost.
fn proposal_survives_a_crash(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::SlowFile(A, secs(8)));
    grown_without_knowing(w);
}

/// The same with a fast file: the proposal is decided, and the active dies before it hears of it.
fn grown_without_knowing(w: &mut World) {
    let before = w.until_a_grow();
    w.until_accepted(before);
    w.make(Fault::Deafen(A, secs(3)));
    w.make(Fault::MirrorCut(secs(9)));
    w.make(Fault::Kill(A, millis(50)));
    let wait = w.rng.millis(3_000, 4_200);
    w.pass(wait);
    w.make(Fault::Power(A, secs(6)));
    w.pass(secs(8));
    w.come_back();
}

/// The active is cut off when others have accepted its grow, and before it hears so. It acknowledges nothing alone: when it
/// has learned of the grow and dies, the standby is promoted.
fn grow_unheard(w: &mut World) {
    let before = w.until_a_grow();
    w.until_accepted(before);
    w.make(Fault::MirrorCut(secs(12)));
    w.make(Fault::Isolate(A, secs(3)));
    w.pass(millis(3_300));
    w.make(Fault::Kill(A, millis(50)));
    w.expect(secs(5), "the grow is decided", |w| w.decided() > before);
    w.pass(millis(200));
    w.make(Fault::Power(A, secs(6)));
    w.pass(secs(6));
    w.come_back();
}

/// The mirror is slow. As soon as the standby counts, the active is gone: all that was acknowledged is there.
fn grown_and_gone(w: &mut World) {
    w.make(Fault::MirrorSlow(secs(20)));
    let before = w.until_a_grow();
    w.expect(secs(5), "the grow is decided", |w| w.decided() > before);
    w.make(Fault::Power(A, secs(6)));
    w.pass(secs(5));
    w.come_back();
}

/// The same with a slow member file: for a while the grow is proposed and not decided.
fn grown_slowly_and_gone(w: &mut World) {
    w.make(Fault::SlowFile(A, secs(20)));
    grown_and_gone(w);
}

/// The active loses its standby and everybody else at once: it cannot go solo, so it acknowledges nothing.
fn alone_only_by_the_register(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Deafen(A, secs(6)));
    w.make(Fault::MirrorCut(secs(6)));
    w.make(Fault::MirrorReset);
    w.expect(secs(5), "B serves", |w| w.serves(B));
    w.come_back();
}

/// The standby is out and its resync has only begun when the active dies: it waits for the active.
fn out_of_sync_waits(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::MirrorSlow(secs(20)));
    let begun = w.checkers.resyncs;
    w.make(Fault::Power(B, secs(2)));
    w.expect(secs(8), "a resync begins", |w| w.checkers.resyncs > begun);
    w.make(Fault::Power(A, secs(6)));
    w.expect(secs(15), "A serves", |w| w.serves(A));
    w.must(w.checkers.one_failover.moves == 0, "the group never moved");
    w.come_back();
}

/// A takeover is decided, and who voted for it loses power at once: what was decided stays decided.
fn decided_survives_the_voters(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::SlowFile(W, secs(9)));
    w.make(Fault::Isolate(A, secs(12)));
    w.expect(secs(9), "B is active", |w| w.active() == Some(B));
    w.make(Fault::Power(W, millis(100)));
    w.make(Fault::Power(B, secs(8)));
    w.pass(secs(1));
    w.end(Fault::Isolate(A, secs(12)));
    w.pass(secs(8));
    w.come_back();
}

/// Active and standby propose at the same time, and the witness is slow: one of the two wins.
fn duel_of_two_proposals(w: &mut World) {
    w.pass(secs(1));
    let takeovers = w.checkers.takeovers;
    w.make(Fault::DiskStuck(B, secs(3)));
    w.make(Fault::OneWay(A, B, secs(8)));
    w.make(Fault::OneWay(A, W, secs(7)));
    w.expect(secs(3), "B is about to take over", |w| {
        w.checkers.takeovers > takeovers
    });
    w.make(Fault::SlowFile(W, secs(2)));
    w.end(Fault::OneWay(A, W, secs(7)));
    let wait = w.rng.millis(5, 60);
    w.pass(wait);
    w.end(Fault::DiskStuck(B, secs(3)));
    w.pass(secs(5));
    w.come_back();
}

/// Writes of the active end on the standby's disk while the standby proposes to take over: it does not acknowledge them.
fn fenced_standby_is_silent(w: &mut World) {
    w.pass(secs(1));
    let takeovers = w.checkers.takeovers;
    w.make(Fault::DiskStuck(B, secs(3)));
    w.make(Fault::Deafen(A, secs(6)));
    w.expect(secs(3), "B is about to take over", |w| {
        w.checkers.takeovers > takeovers
    });
    w.make(Fault::SlowFile(W, secs(2)));
    // It does not propose before everything has ended, so the witness promises nothing.
    w.run_until_or(millis(300), |w| w.promised(W) == Some(B));
    w.pass(millis(1));
    w.end(Fault::DiskStuck(B, secs(3)));
    w.expect(secs(5), "B serves", |w| w.serves(B));
    w.come_back();
}
