//! What people buy it for: the service goes on, or stops where it must, and everything is there afterwards.

use super::{Scenario, millis, secs};
use crate::fault::Fault;
use crate::world::{A, B, W, World};
use wire::Duration;
use wire::control::{GroupRequest, Obstacle, Role};
use wire::record::{Hold, Intent};

pub(super) const ALL: &[Scenario] = &[
    Scenario::of("active_killed", active_killed),
    Scenario::of("partition_with_witness", partition_with_witness),
    Scenario::of(
        "standby_then_witness_goes_solo",
        standby_then_witness_goes_solo,
    ),
    Scenario::of(
        "witness_then_standby_freezes_and_resumes",
        witness_then_standby_freezes_and_resumes,
    ),
    Scenario::of("planned_move", planned_move),
    Scenario::of("app_fails_everywhere_holds", app_fails_everywhere_holds),
    Scenario::of(
        "application_ends_during_the_start",
        application_ends_during_the_start,
    ),
    Scenario::of("disk_error_moves_group", disk_error_moves_group),
    Scenario::of("power_both", power_both),
    Scenario::of("daemon_restart_adopts", daemon_restart_adopts),
];

/// The active's machine loses power: the standby serves, once; the old active comes back as standby.
fn active_killed(w: &mut World) {
    w.pass(secs(2));
    w.make(Fault::Power(A, secs(5)));
    w.expect(secs(4), "B serves", |w| w.serves(B));
    w.come_back();
    let moves = w.checkers.one_failover.moves;
    w.must(
        w.active() == Some(B) && moves == 1,
        "the group moved once and stayed",
    );
}

/// The application ends while the resource behind it is still being started: it is started again.
fn application_ends_during_the_start(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Power(A, secs(6)));
    let works = |w: &mut World| w.machine(B).instance.as_ref().is_some_and(|i| i.working);
    w.expect(secs(5), "the application runs on B", works);
    w.make(Fault::AppEnds);
    w.expect(secs(10), "B serves", |w| w.serves(B));
    w.come_back();
}

/// The two data nodes do not hear each other, the witness hears both: one side serves, in the end both are equal.
fn partition_with_witness(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::OneWay(A, B, secs(6)));
    w.make(Fault::OneWay(B, A, secs(6)));
    w.make(Fault::MirrorCut(secs(6)));
    w.expect(secs(5), "one of the two serves alone", |w| {
        (w.serves(A) || w.serves(B)) && w.in_sync() == 1
    });
    w.pass(secs(3));
    w.come_back();
    let moves = w.checkers.one_failover.moves;
    w.must(moves <= 1, "the partition moved the group at most once");
}

/// The standby dies, is taken out, and then the witness dies: the active carries on alone.
fn standby_then_witness_goes_solo(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Power(B, secs(20)));
    w.expect(secs(5), "A serves alone", |w| {
        w.serves(A) && w.in_sync() == 1
    });
    w.pass(secs(1));
    w.checkers.longest_gap = Duration::ZERO;
    w.checkers.freezes = 0;
    w.make(Fault::Power(W, secs(10)));
    w.pass(secs(8));
    let (freezes, gap) = (w.checkers.freezes, w.checkers.longest_gap);
    w.must(
        freezes == 0 && gap < secs(1),
        "the loss of the witness stopped nothing",
    );
    w.come_back();
}

/// The witness dies first and then the standby: one of three cannot know, and freezes until one is back.
fn witness_then_standby_freezes_and_resumes(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Power(W, secs(20)));
    w.pass(secs(2));
    w.must(
        w.checkers.freezes == 0,
        "the loss of the witness alone froze nothing",
    );
    let obstacle = w.obstacle(A);
    w.must(
        obstacle == Some(Obstacle::NoRegister),
        "it is said that the standby could not take over now",
    );
    w.make(Fault::Power(B, secs(6)));
    w.expect(secs(3), "A is frozen", |w| w.role(A) == Some(Role::Frozen));
    w.pass(secs(2));
    let role = w.role(A);
    w.must(role == Some(Role::Frozen), "A stays frozen");
    w.expect(secs(8), "A serves again with B back", |w| w.serves(A));
    w.must(w.checkers.one_failover.moves == 0, "the group never moved");
    w.come_back();
}

/// A person moves the group: nothing is lost, both replicas stay in sync.
fn planned_move(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Move);
    w.expect(secs(3), "B serves", |w| w.serves(B));
    w.expect(secs(3), "both are in sync", |w| w.in_sync() == 2);
    w.pass(secs(1));
    w.make(Fault::Move);
    w.expect(secs(3), "A serves", |w| w.serves(A));
    w.come_back();
}

/// The application cannot be started anywhere: the group is held, and starts when a person says so.
fn app_fails_everywhere_holds(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::AppBroken(A, secs(600)));
    w.make(Fault::AppBroken(B, secs(600)));
    w.make(Fault::AppEnds);
    w.expect(secs(20), "the group is held", |w| {
        w.checkers
            .epochs_rise
            .newest()
            .is_some_and(|r| r.intent == Intent::Hold(Hold::FailedEverywhere))
    });
    w.must(
        w.checkers.one_failover.moves == 1,
        "the other node was tried once",
    );
    w.heal_all();
    let active = w.active().unwrap_or(A);
    w.expect(secs(3), "it is held there", move |w| {
        w.role(active) == Some(Role::Held)
    });
    w.ask(active, GroupRequest::Start);
    w.expect(secs(5), "it serves again", move |w| w.serves(active));
    w.come_back();
}

/// The active's disk fails: the group goes to the other node, with everything that was acknowledged.
fn disk_error_moves_group(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::DiskWrites(A, secs(10)));
    w.expect(secs(5), "B serves", |w| w.serves(B));
    w.pass(secs(8));
    w.come_back();
}

/// Both data nodes lose power at once: what was flushed is there, and the group serves again by itself.
fn power_both(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::PowerBoth(secs(3)));
    w.expect(secs(20), "the group serves", |w| {
        w.missing_service().is_none()
    });
    w.come_back();
}

/// The daemon dies under the application, which notices nothing but a pause.
fn daemon_restart_adopts(w: &mut World) {
    w.pass(secs(1));
    let instance = w.machine(A).instance.as_ref().map(|i| i.id);
    w.make(Fault::Kill(A, millis(50)));
    w.pass(millis(200));
    w.expect(secs(5), "A serves again", |w| w.serves(A));
    let after = w.machine(A).instance.as_ref().map(|i| i.id);
    w.must(instance == after, "the same instance goes on");
    w.must(w.checkers.one_failover.moves == 0, "the group never moved");
    w.come_back();
}
