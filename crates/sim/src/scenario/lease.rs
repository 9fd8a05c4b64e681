//! Who may answer, and until when.

use super::{Scenario, millis, secs};
use crate::fault::Fault;
use crate::world::{A, B, W, World};
use wire::control::Role;

pub(super) const ALL: &[Scenario] = &[
    Scenario::of(
        "grantors_remember_their_leases",
        grantors_remember_their_leases,
    ),
    Scenario::of(
        "paused_active_answers_nothing",
        paused_active_answers_nothing,
    ),
    Scenario::of(
        "isolated_active_freezes_and_steps_down",
        isolated_active_freezes_and_steps_down,
    ),
    Scenario::of(
        "late_grants_count_from_the_request",
        late_grants_count_from_the_request,
    ),
    Scenario::of("no_grant_while_taking_over", no_grant_while_taking_over),
    Scenario::of("gate_is_finite_before_a_grow", gate_is_finite_before_a_grow),
    Scenario::of("old_instance_is_torn_down", old_instance_is_torn_down),
    Scenario::of("deposed_at_its_barrier", deposed_at_its_barrier),
    Scenario::of(
        "half_adopted_instance_is_torn_down",
        half_adopted_instance_is_torn_down,
    ),
];

/// The active is cut off while both grantors of its lease restart: they wait until its lease is over all the same.
fn grantors_remember_their_leases(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Kill(W, millis(120)));
    w.make(Fault::Kill(B, millis(20)));
    w.make(Fault::Isolate(A, secs(6)));
    w.expect(secs(5), "B serves", |w| w.serves(B));
    w.come_back();
}

/// The active's daemon is stopped for a while: its address falls silent by itself, and nothing old is answered after.
fn paused_active_answers_nothing(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Pause(A, secs(9)));
    w.expect(secs(5), "B serves", |w| w.serves(B));
    w.pass(secs(6));
    w.come_back();
    w.must(w.active() == Some(B), "the group stayed on B");
}

/// The active hears nobody: it answers nothing before the others take over, and follows when it is back.
fn isolated_active_freezes_and_steps_down(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Isolate(A, secs(8)));
    w.expect(secs(2), "A is frozen", |w| w.role(A) == Some(Role::Frozen));
    w.expect(secs(4), "B serves", |w| w.serves(B));
    w.expect(secs(12), "A follows again", |w| {
        w.role(A) == Some(Role::Standby)
    });
    w.come_back();
}

/// Grants are late, and the active can say nothing any more: they count from when it asked for them.
fn late_grants_count_from_the_request(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Late(secs(9)));
    w.pass(secs(1));
    w.make(Fault::OneWay(A, B, secs(6)));
    w.make(Fault::OneWay(A, W, secs(6)));
    w.pass(millis(420));
    w.end(Fault::Late(secs(9)));
    w.make(Fault::Deafen(A, secs(5)));
    w.expect(secs(5), "B serves", |w| w.serves(B));
    w.come_back();
}

/// The active asks for its lease when the standby's takeover is accepted by all but a slow witness: too late.
fn no_grant_while_taking_over(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Deafen(A, secs(2)));
    let (to, from) = (Fault::OneWay(A, B, secs(5)), Fault::OneWay(B, A, secs(5)));
    w.make(to);
    w.make(from);
    w.make(Fault::OneWay(A, W, secs(5)));
    w.make(Fault::OneWay(W, A, secs(5)));
    w.expect(secs(3), "the witness promises", |w| {
        w.promised(W) == Some(B)
    });
    w.make(Fault::Pause(W, millis(600)));
    w.end(Fault::Deafen(A, secs(2)));
    w.pass(millis(6));
    // A grant passes, a proposal does not: that comes again only after a while.
    w.end(to);
    w.expect(secs(1), "B hears A", |w| w.hears(B, A));
    w.end(from);
    w.pass(millis(1));
    w.make(Fault::Deafen(A, secs(4)));
    w.expect(secs(4), "B serves", |w| w.serves(B));
    w.come_back();
}

/// The daemon dies when its grow is accepted, and again when it has learned so: the gate was to close by itself before.
fn gate_is_finite_before_a_grow(w: &mut World) {
    let before = w.until_a_grow();
    w.until_accepted(before);
    w.make(Fault::Kill(A, millis(50)));
    w.expect(secs(5), "the barrier is decided", |w| {
        w.decided() > before.next()
    });
    w.make(Fault::Kill(A, secs(5)));
    w.expect(secs(5), "B serves", |w| w.serves(B));
    w.come_back();
}

/// The daemon dies, comes back to what still runs, and is stopped before its barrier is decided. It hears that another took
/// over, tears down what it found, and can be a standby.
fn deposed_at_its_barrier(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Kill(A, millis(100)));
    let wait = w.rng.millis(100, 104);
    w.pass(wait);
    w.make(Fault::Pause(A, secs(4)));
    w.pass(secs(5));
    w.expect(secs(9), "both are in sync", |w| w.in_sync() == 2);
    w.come_back();
}

/// The daemon dies and comes back, and cannot take over the application that still runs: it hands the group over, or holds it if
/// it heard nobody yet. Nothing that the former daemon left running stays.
fn half_adopted_instance_is_torn_down(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::AppBroken(A, secs(3)));
    w.make(Fault::Kill(A, millis(100)));
    w.pass(secs(1));
    w.expect(secs(2), "nothing of A's runs", |w| !w.has_instance(A));
    w.pass(secs(2));
    w.make(Fault::StopStart(secs(1)));
    w.pass(secs(2));
    w.come_back();
}

/// The daemon dies, the group moves, and the daemon comes back to what it had started: that is not used again.
fn old_instance_is_torn_down(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Kill(A, secs(4)));
    w.expect(secs(4), "B serves", |w| w.serves(B));
    w.expect(secs(10), "both are in sync", |w| w.in_sync() == 2);
    w.pass(millis(300));
    w.make(Fault::Move);
    w.expect(secs(5), "A serves", |w| w.serves(A));
    w.come_back();
}
