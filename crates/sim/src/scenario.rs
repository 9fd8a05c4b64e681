//! Directed scenarios: one story each, readable from top to bottom.

use crate::fault::Fault;
use crate::options::{Options, Outcome};
use crate::run::guarded;
use crate::world::{A, B, W, World};
use wire::control::{GroupRequest, Role};
use wire::record::{Hold, Intent};
use wire::{Duration, NodeId};

/// A story.
type Story = fn(&mut World);

/// All of them, by name.
pub const ALL: [(&str, Story); 18] = [
    ("active_killed", active_killed),
    ("partition_with_witness", partition_with_witness),
    (
        "isolated_active_freezes_and_steps_down",
        isolated_active_freezes_and_steps_down,
    ),
    (
        "standby_then_witness_goes_solo",
        standby_then_witness_goes_solo,
    ),
    (
        "witness_then_standby_freezes_and_resumes",
        witness_then_standby_freezes_and_resumes,
    ),
    ("planned_move", planned_move),
    ("app_fails_everywhere_holds", app_fails_everywhere_holds),
    ("disk_error_moves_group", disk_error_moves_group),
    ("power_both", power_both),
    ("daemon_restart_adopts", daemon_restart_adopts),
    (
        "paused_active_answers_nothing",
        paused_active_answers_nothing,
    ),
    (
        "grantors_remember_their_leases",
        grantors_remember_their_leases,
    ),
    ("proposal_survives_a_crash", proposal_survives_a_crash),
    ("grown_without_knowing", grown_without_knowing),
    ("grow_unheard", grow_unheard),
    (
        "restarted_active_reconciles_first",
        restarted_active_reconciles_first,
    ),
    (
        "interrupted_resync_starts_again",
        interrupted_resync_starts_again,
    ),
    ("late_writes_do_not_land", late_writes_do_not_land),
];

/// The names of all of them.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.into_iter().map(|(name, _)| name)
}

/// Plays a scenario; none if there is none of this name. `keep` lines of the story are kept.
#[must_use]
pub fn play(name: &str, seed: u64, keep: usize) -> Option<Outcome> {
    let (_, story) = ALL.into_iter().find(|(known, _)| *known == name)?;
    let world = World::new(Options {
        keep,
        ..Options::scenario(seed)
    });
    Some(guarded(world, |world| {
        if world.becomes_whole(secs(30)) {
            story(world);
        }
    }))
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl World {
    /// Lets time pass.
    fn pass(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Waits until the claim holds; a broken promise if it does not within the bound.
    fn expect(&mut self, bound: Duration, claim: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        if !self.run_until_or(bound, &mut holds) {
            self.violate("scenario", format!("not within {bound:?}: {claim}"));
        }
    }

    /// What a node does for the group; none if its daemon does not run.
    fn role(&mut self, at: NodeId) -> Option<Role> {
        let now = self.now;
        let machine = self.machine(at);
        let local = machine.local(now);
        let view = machine.process.as_ref()?.node.view(local);
        view.groups.first()?.roles.get(&at).copied()
    }

    fn serves(&mut self, at: NodeId) -> bool {
        self.active() == Some(at) && self.missing_service().is_none()
    }

    fn in_sync(&self) -> usize {
        self.checkers
            .epochs_rise
            .newest()
            .map_or(0, |record| record.in_sync().len())
    }

    fn must(&mut self, holds: bool, claim: &str) {
        if !holds {
            self.violate("scenario", claim);
        }
    }
}

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

/// The active's daemon is stopped for a while: its address falls silent by itself, and nothing old is answered after.
fn paused_active_answers_nothing(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Pause(A, secs(9)));
    w.expect(secs(5), "B serves", |w| w.serves(B));
    w.pass(secs(6));
    w.come_back();
    w.must(w.active() == Some(B), "the group stayed on B");
}

/// The active is cut off while both grantors of its lease restart: they wait until its lease is over all the same.
fn grantors_remember_their_leases(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Kill(W, millis(120)));
    w.make(Fault::Kill(B, millis(20)));
    w.make(Fault::Isolate(A, secs(6)));
    w.expect(secs(5), "B serves", |w| w.serves(B));
    w.come_back();
}

/// The active dies just after it decided to count its standby in: whatever became of that, nothing is lost.
fn proposal_survives_a_crash(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::SlowFile(A, secs(8)));
    grown_without_knowing(w);
}

/// The same with a fast file: the proposal is decided, and the active dies before it hears of it.
fn grown_without_knowing(w: &mut World) {
    w.pass(secs(1));
    let grows = w.checkers.grows;
    w.make(Fault::Power(B, millis(400)));
    w.expect(secs(8), "a grow is decided on", |w| {
        w.checkers.grows > grows
    });
    let wait = w.rng.micros(300, 6_000);
    w.pass(wait);
    w.make(Fault::Deafen(A, secs(3)));
    w.make(Fault::MirrorCut(secs(9)));
    w.make(Fault::Kill(A, millis(50)));
    let wait = w.rng.millis(3_000, 4_200);
    w.pass(wait);
    w.make(Fault::Power(A, secs(6)));
    w.pass(secs(8));
    w.come_back();
}

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

/// The standby takes over while the former active's writes are still under way to its slow disk.
fn late_writes_do_not_land(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::DiskSlow(B, secs(6)));
    w.make(Fault::Deafen(A, secs(5)));
    w.expect(secs(5), "B serves", |w| w.serves(B));
    w.come_back();
}

/// The active is cut off just after it proposed to count its standby in: it acknowledges nothing alone.
fn grow_unheard(w: &mut World) {
    w.pass(secs(1));
    let grows = w.checkers.grows;
    w.make(Fault::Power(B, millis(400)));
    w.expect(secs(8), "a grow is decided on", |w| {
        w.checkers.grows > grows
    });
    let wait = w.rng.micros(100, 4_000);
    w.pass(wait);
    w.make(Fault::Isolate(A, secs(6)));
    w.pass(secs(7));
    w.come_back();
}
