//! A person promotes what is left (R17): what is lost by it was said before, and comes back aside.

use super::{Scenario, millis, secs};
use crate::fault::Fault;
use crate::options::Level;
use crate::world::{A, B, W, World};
use wire::control::{GroupRequest, Role};
use wire::{Epoch, Sync};

pub(super) const ALL: &[Scenario] = &[
    Scenario::of("forced_promotion", forced).with(|o| o.forced = true),
    Scenario::of("forced_promotion_of_a_follower", forced).with(|o| {
        o.forced = true;
        o.level = Level::Async;
    }),
    Scenario::of("forced_promotion_is_refused", refused),
    Scenario::of("forced_promotion_of_a_mixture_is_refused", mixture),
    Scenario::of("forced_promotion_is_refused_beside_a_better_one", beside)
        .with(|o| o.replicas = 3),
    Scenario::of("forced_promotion_leaves_all_others_behind", all_others).with(|o| {
        o.replicas = 3;
        o.forced = true;
    }),
    Scenario::of("forced_promotion_does_not_wait_for_days", stale),
];

/// As a person who was shown what the node knows.
fn promote_b(w: &mut World) -> GroupRequest {
    GroupRequest::Promote {
        node: B,
        off: A,
        epoch: w.known_epoch(B),
    }
}

/// B is out when A dies. Only a person's word promotes it; when A returns, what it acknowledged alone is put aside.
fn forced(w: &mut World) {
    b_is_out(w);
    w.pass(millis(800));
    w.make(Fault::Power(A, secs(15)));
    w.pass(secs(5));
    w.must(w.active() == Some(A), "nobody is promoted by itself");
    let ask = promote_b(w);
    w.ask(W, ask);
    w.pass(secs(1));
    w.must(w.active() == Some(A), "the witness does not pass it on");
    w.ask(
        B,
        GroupRequest::Promote {
            node: B,
            off: A,
            epoch: Epoch(1),
        },
    );
    w.pass(secs(1));
    w.must(w.active() == Some(A), "that is not the record by now");
    w.ask(B, ask);
    w.expect(secs(10), "B serves", |w| w.serves(B));
    w.come_back();
}

/// B is out, and a person is wrong about A, or too few are there to decide.
fn refused(w: &mut World) {
    b_is_out(w);
    nothing_comes_of_it(w, "A is heard");
    w.make(Fault::Link(A, B, 0, secs(6)));
    w.make(Fault::Link(A, B, 1, secs(6)));
    w.pass(secs(3));
    nothing_comes_of_it(w, "the witness hears A");
    w.pass(secs(4));
    w.make(Fault::Power(A, secs(12)));
    w.make(Fault::Isolate(W, secs(6)));
    w.pass(secs(3));
    nothing_comes_of_it(w, "B has no majority");
    w.come_back();
}

/// Nobody answers the proposal. A was off when a person said so, and is not when it could be decided.
fn stale(w: &mut World) {
    b_is_out(w);
    w.make(Fault::Power(A, secs(14)));
    w.pass(secs(5));
    let ask = promote_b(w);
    w.ask(B, ask);
    w.make(Fault::Isolate(W, secs(20)));
    w.expect(secs(1), "B begins", |w| w.role(B) == Some(Role::Promoting));
    w.pass(secs(7));
    let standby = w.role(B) == Some(Role::Standby);
    w.must(standby, "B does not wait any longer");
    w.pass(secs(10));
    w.must(w.active() == Some(A), "nothing comes of it later");
    w.come_back();
}

/// The active dies in the middle of a resync: no word of a person makes B a point in the history.
fn mixture(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::MirrorSlow(secs(20)));
    w.make(Fault::Power(B, secs(2)));
    let chunks = w.checkers.chunks;
    w.expect(secs(9), "a resync copies", |w| w.checkers.chunks > chunks);
    w.make(Fault::Power(A, secs(10)));
    w.pass(secs(5));
    w.must_be_marked(B);
    nothing_comes_of_it(w, "B is a mixture");
    w.come_back();
}

/// The group is held, A is off, and of the other two only B is out: it is not B that is to serve.
fn beside(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::Power(B, secs(6)));
    w.expect(secs(5), "B is taken out", |w| w.in_sync() == 2);
    w.pass(millis(500));
    w.ask(A, GroupRequest::Stop);
    w.expect(secs(5), "the group is held", |w| {
        w.role(A) == Some(Role::Held)
    });
    w.make(Fault::Power(A, secs(15)));
    w.pass(secs(9));
    nothing_comes_of_it(w, "the third is in sync, and alive");
    w.expect(secs(15), "A is held again", |w| {
        w.role(A) == Some(Role::Held)
    });
    w.ask(A, GroupRequest::Start);
    w.come_back();
}

/// Both others are out when A dies: whatever B knows of the third, that may hold what B has not.
fn all_others(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::MirrorCut(secs(20)));
    w.expect(secs(6), "both are taken out", |w| w.in_sync() == 1);
    w.make(Fault::Power(A, secs(15)));
    w.pass(secs(5));
    let ask = promote_b(w);
    w.ask(B, ask);
    w.expect(secs(10), "B serves", |w| w.serves(B));
    let newest = w.checkers.epochs_rise.newest();
    let others = newest.map(|r| r.members.iter().filter(|(id, _)| **id != r.active));
    let cut_off = others.is_some_and(|mut all| all.all(|(_, m)| m.sync == Sync::CutOff));
    w.must(cut_off, "every other one is cut off by the record");
    w.come_back();
}

fn b_is_out(w: &mut World) {
    w.pass(secs(1));
    w.make(Fault::MirrorCut(secs(20)));
    w.expect(secs(6), "B is taken out", |w| w.in_sync() == 1);
}

fn nothing_comes_of_it(w: &mut World, why: &str) {
    let ask = promote_b(w);
    w.ask(B, ask);
    w.pass(secs(1));
    w.must(w.active() == Some(A), why);
}
