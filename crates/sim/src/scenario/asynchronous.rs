//! An asynchronous standby: within its bound it is promoted, beyond it it is not, and what it holds is always a prefix.

use super::{Scenario, millis, secs};
use crate::fault::Fault;
use crate::options::{Level, Options};
use crate::world::{A, B, W, World};
use wire::ByteCount;
use wire::control::GroupRequest;

pub(super) const ALL: &[Scenario] = &[
    plain("async_fails_over_within_its_bound", fails_over),
    plain("async_beyond_its_bound_waits", beyond_its_bound_waits),
    plain("async_link_silent", link_silent),
    plain("async_link_slow", link_slow),
    plain("async_standby_hung", standby_hung),
    plain("async_standby_disk_hung", standby_disk_hung),
    plain("async_spool_full", spool_full).with(|o| {
        o.level = Level::Async;
        o.pace = millis(1);
    }),
    plain("async_cut_off_is_put_aside", cut_off_is_put_aside),
    plain("async_held_back_waits_for_a_person", held_back_waits),
    plain("async_moves_lose_nothing", moves_lose_nothing),
    far("far_one_goes_while_the_group_moves", far_one_goes_in_a_move),
    far(
        "far_one_takes_over_only_alone",
        far_one_takes_over_only_alone,
    ),
    plain("async_epochs_stay_in_order", epochs_stay_in_order).with(|o| {
        o.level = Level::Async;
        o.hot_regions = 3;
        o.pace = millis(2);
    }),
];

const fn plain(name: &'static str, story: fn(&mut World)) -> Scenario {
    Scenario::of(name, story).with(|o: &mut Options| o.level = Level::Async)
}

/// Two replicas that wait for each other, and a third that nobody waits for.
const fn far(name: &'static str, story: fn(&mut World)) -> Scenario {
    Scenario::of(name, story).with(|o: &mut Options| {
        o.level = Level::Async;
        o.replicas = 3;
    })
}

/// The active dies while its standby is eligible: the standby takes over, and the old active comes back as a follower.
fn fails_over(w: &mut World) {
    let wait = w.rng.millis(1_000, 3_000);
    w.pass(wait);
    w.make(Fault::Power(A, secs(6)));
    w.expect(secs(5), "B serves", |w| w.serves(B));
    w.expect(secs(30), "A may be promoted again", |w| w.in_sync() == 2);
    w.come_back();
}

/// The standby is out, because it is too far behind, when the active dies: it waits for the active.
fn beyond_its_bound_waits(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::MirrorCut(secs(12)));
    w.expect(secs(6), "B is taken out", |w| w.in_sync() == 1);
    w.make(Fault::Power(A, secs(5)));
    w.pass(secs(4));
    w.must(w.active() == Some(A), "nobody was promoted");
    w.expect(secs(15), "A serves", |w| w.serves(A));
    w.must(w.checkers.one_failover.moves == 0, "the group never moved");
    w.come_back();
}

/// Nothing passes on the mirror link for a while, without a word: the service goes on, and the standby returns.
fn link_silent(w: &mut World) {
    w.pass(secs(1));
    w.checkers.longest_gap = wire::Duration::ZERO;
    w.make(Fault::MirrorCut(secs(4)));
    w.pass(secs(5));
    w.must_have_answered(millis(900));
    w.come_back();
}

/// The mirror link is slow: the standby comes and goes, whenever it is within the bound.
fn link_slow(w: &mut World) {
    w.options.pace = millis(1);
    w.make(Fault::MirrorSlow(secs(15)));
    w.checkers.longest_gap = wire::Duration::ZERO;
    w.pass(secs(10));
    w.must_have_answered(millis(900));
    if w.in_sync() == 2 {
        w.make(Fault::Power(A, secs(4)));
        w.expect(secs(10), "somebody serves", |w| w.serves(A) || w.serves(B));
    }
    w.pace_down();
    w.come_back();
}

/// The standby stops, and its connections stay: it is out before it is further behind than the bound.
fn standby_hung(w: &mut World) {
    w.pass(secs(1));
    w.checkers.longest_gap = wire::Duration::ZERO;
    w.make(Fault::Pause(B, secs(6)));
    w.expect(secs(5), "B is taken out", |w| w.in_sync() == 1);
    w.must_have_answered(millis(900));
    w.pass(secs(5));
    w.come_back();
}

/// The standby takes writes and does not end them.
fn standby_disk_hung(w: &mut World) {
    w.pass(secs(1));
    w.checkers.longest_gap = wire::Duration::ZERO;
    w.make(Fault::DiskStuck(B, secs(3)));
    w.pass(secs(4));
    w.must_have_answered(millis(900));
    w.come_back();
}

/// More is written than may wait for the standby: it is given up, and comes back by resync, by itself.
fn spool_full(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::MirrorCut(secs(3)));
    let resyncs = w.checkers.resyncs;
    w.expect(secs(15), "a resync begins", |w| {
        w.checkers.resyncs > resyncs
    });
    w.expect(secs(30), "B may be promoted again", |w| w.in_sync() == 2);
    w.come_back();
}

/// A planned move waits until the standby has everything.
fn moves_lose_nothing(w: &mut World) {
    for to in [B, A, B] {
        w.pass(secs(1));
        w.expect(secs(10), "both may be promoted", |w| w.in_sync() == 2);
        w.make(Fault::Move);
        w.expect(secs(10), "the other serves", |w| w.serves(to));
        w.must(
            w.checkers.cut_off == 0,
            "nothing was missing after a planned move",
        );
    }
    w.come_back();
}

/// Nobody waits for the far one: a move between the near ones ends though it is cut off just then.
fn far_one_goes_in_a_move(w: &mut World) {
    w.expect(secs(20), "all three count", |w| w.in_sync() == 3);
    w.make(Fault::Isolate(W, secs(30)));
    let wait = w.rng.millis(0, 400);
    w.pass(wait);
    w.make(Fault::Move);
    w.expect(secs(10), "B serves", |w| w.serves(B));
    w.must(w.checkers.cut_off == 0, "nothing is missing");
    w.come_back();
}

/// The far one is up first when the active dies, and waits for the near one, whose disk hangs for a while; it serves when that one has
/// gone as well, and one of the others can vote.
fn far_one_takes_over_only_alone(w: &mut World) {
    w.expect(secs(20), "all three count", |w| w.in_sync() == 3);
    w.make(Fault::DiskHang(B, secs(3)));
    w.make(Fault::Power(A, secs(12)));
    w.expect(secs(15), "B serves", |w| w.serves(B));
    w.must(w.checkers.cut_off == 0, "nothing is missing");
    w.expect(secs(60), "all three count again", |w| w.in_sync() == 3);
    let (serving, other) = if w.active() == Some(A) {
        (A, B)
    } else {
        (B, A)
    };
    w.make(Fault::DiskHang(other, secs(40)));
    w.expect(secs(20), "the near standby is out", |w| w.in_sync() == 2);
    w.make(Fault::Power(serving, secs(20)));
    w.expect(secs(15), "the far one serves", |w| w.serves(W));
    w.come_back();
}

/// The standby is slow to write, and the active dies: whatever is missing there is the end of the history.
fn epochs_stay_in_order(w: &mut World) {
    for _ in 0..4 {
        w.expect(secs(30), "both may be promoted", |w| w.in_sync() == 2);
        let from = w.active().unwrap_or(A);
        let to = if from == A { B } else { A };
        w.pass(millis(500));
        w.make(Fault::SlowMeta(to, secs(2)));
        let wait = w.rng.millis(50, 600);
        w.pass(wait);
        w.make(Fault::Power(from, secs(3)));
        w.expect(secs(30), "somebody serves", |w| {
            w.serves(to) || w.serves(from)
        });
    }
    w.come_back();
}

/// The link is silent when the active dies, so the standby lacks something; what it lacks is saved before it is replaced.
fn cut_off_is_put_aside(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::MirrorCut(secs(4)));
    let wait = w.rng.millis(10, 80);
    w.pass(wait);
    w.make(Fault::Isolate(A, secs(4)));
    w.make(Fault::Kill(A, secs(3)));
    // It is taken out now and then, just before: then the active comes back.
    w.expect(secs(15), "somebody serves", |w| w.serves(A) || w.serves(B));
    w.expect(secs(30), "A may be promoted again", |w| w.in_sync() == 2);
    w.come_back();
}

/// As above, but there is no room for what the standby lacks: the former active waits until a person lets it go, and says so
/// from any node.
fn held_back_waits(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::NoRoom(A, secs(30)));
    w.make(Fault::MirrorCut(secs(4)));
    let wait = w.rng.millis(10, 80);
    w.pass(wait);
    w.make(Fault::Isolate(A, secs(4)));
    w.make(Fault::Kill(A, secs(3)));
    w.expect(secs(15), "somebody serves", |w| w.serves(A) || w.serves(B));
    w.pass(secs(10));
    let Some(bytes) = held_by_a(w) else {
        // It was taken out just before, or the link was silent between two writes.
        w.expect(secs(30), "both may be promoted", |w| w.in_sync() == 2);
        return w.come_back();
    };
    w.must(
        w.in_sync() == 1,
        "A is not made equal before a person decides",
    );
    let demote = |w: &mut World, bytes| GroupRequest::Demote {
        mirror: 0,
        node: A,
        bytes,
        epoch: w.known_epoch(A),
    };
    let more = demote(w, ByteCount(bytes.0 + 4096));
    w.ask(A, more);
    w.pass(secs(3));
    let unchanged = held_by_a(w) == Some(bytes);
    w.must(unchanged, "that is not what A holds");
    let ask = demote(w, bytes);
    w.ask(B, ask);
    w.pass(secs(3));
    let unchanged = held_by_a(w) == Some(bytes);
    w.must(unchanged, "B does not pass it on");
    let ask = demote(w, bytes);
    w.ask(A, ask);
    w.expect(secs(30), "A may be promoted again", |w| w.in_sync() == 2);
    // The next beat says so.
    w.expect(secs(1), "A holds nothing back any more", |w| {
        held_by_a(w).is_none()
    });
    w.come_back();
}

/// What A holds back, as B sees it.
fn held_by_a(w: &mut World) -> Option<ByteCount> {
    w.group(B)?.held_back.get(&A).copied()
}
