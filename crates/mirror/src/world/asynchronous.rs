//! An asynchronous follower: its bound, its queue, and what becomes of it beyond (R11, G3).

use super::*;
use crate::config::{Apart, Bound};

const BOUND: Bound = Bound {
    max_bytes: 32 << 10,
    max_time: Duration::from_millis(2_000),
    window_bytes: 48 << 10,
    memory_bytes: 8 << 10,
    spool_bytes: 256 << 10,
};

/// Both replicas hold the same, and B may be promoted.
fn eligible(bound: Bound) -> World {
    let mut world = World::new(|c| {
        c.apart = Some(Apart::everybody(bound));
        c.hot_regions_max = 16;
    });
    world.run();
    assert_eq!(world.control.in_sync.len(), 2);
    world
}

fn reported(world: &World, which: impl Fn(&Report) -> bool) -> usize {
    let reports = &world.nodes[usize::from(A.0)].reports;
    reports.iter().filter(|report| which(report)).count()
}

fn behind(report: &Report) -> bool {
    matches!(report, Report::PeerBehind { node: B, .. })
}

impl World {
    /// Ends one operation of a node's spool, in any order; false if there is none.
    pub(super) fn finish_spool(&mut self, node: NodeId, pick: usize) -> bool {
        if self.node(node).aside.pop().is_some() {
            let full = self.no_room.then_some(Errno(28));
            let result = full.map_or(Ok(()), Err);
            self.input(node, Input::PutAside { result });
            return true;
        }
        let n = self.node(node);
        let place = pick % n.spool_ios.len().max(1);
        let Some((io, op)) = n.spool_ios.remove(place) else {
            return false;
        };
        match op {
            SpoolOp::Write { offset, buf } => {
                let data = n.bufs[&buf].clone();
                let end = offset + u64::try_from(data.len()).unwrap();
                n.spool.retain(|at, old| {
                    let old_end = at + u64::try_from(old.len()).unwrap();
                    old_end <= offset || end <= *at
                });
                n.spool.insert(offset, data);
            }
            SpoolOp::Read { offset, buf } => {
                let data = n.spool[&offset].clone();
                let old = n.bufs.insert(buf, data);
                assert_eq!(old.unwrap().len(), n.bufs[&buf].len());
            }
        }
        self.input(node, Input::SpoolDone { io, result: Ok(()) });
        true
    }

    /// Everything that A's disk and spool have under way ends.
    fn settle_a(&mut self) {
        while self.finish_disk(A, 0) {}
    }

    fn writes(&mut self, count: u64) {
        for n in 0..count {
            self.write(n % 24 * 4096, 4096, false);
            self.settle_a();
        }
    }
}

#[test]
fn replies_wait_at_the_bound_until_the_follower_is_out_and_it_returns_without_a_resync() {
    let mut world = eligible(BOUND);
    world.writes(12);
    assert_eq!(world.model.len(), 4, "eight of them are the bound");
    world.pass(Duration::from_millis(300));
    assert_eq!(reported(&world, behind), 1);
    assert_eq!(world.model.len(), 4, "until the register is changed");
    world.cast_out();
    assert!(world.model.is_idle(), "nobody waits for it any more");
    world.heal_and_check();
    let again = |r: &Report| matches!(r, Report::PeerWithin { .. });
    let resyncs = |r: &Report| matches!(r, Report::ResyncStarted { .. });
    assert_eq!((reported(&world, again), reported(&world, resyncs)), (1, 1));
}

#[test]
fn a_follower_that_is_late_is_told_of_before_the_bound() {
    let mut world = eligible(BOUND);
    world.writes(1);
    assert!(world.model.is_idle());
    world.pass(Duration::from_millis(1_400));
    assert_eq!(reported(&world, behind), 0);
    world.pass(Duration::from_millis(200));
    assert_eq!(reported(&world, behind), 1);
    let lag = world.node(A).replica.as_ref().unwrap().figures().lag;
    assert_eq!(lag, wire::ByteCount(4096));
}

#[test]
fn replies_stop_when_the_oldest_missing_write_is_as_old_as_the_bound() {
    let mut world = eligible(BOUND);
    world.writes(1);
    world.pass(Duration::from_millis(2_000));
    world.writes(1);
    world.flush();
    world.settle_a();
    assert_eq!(world.model.len(), 2);
    world.cast_out();
    world.settle_a();
    assert!(world.model.is_idle());
    world.heal_and_check();
}

#[test]
fn what_waits_beyond_memory_goes_through_the_spool_in_its_order() {
    let mut world = eligible(Bound {
        max_bytes: 64 << 20,
        memory_bytes: 128 << 10,
        spool_bytes: 64 << 20,
        ..BOUND
    });
    // The window of the stream is filled first.
    for n in 0..160 {
        world.write(n % 20 * 65_536, 32 << 10, false);
        world.settle_a();
    }
    assert!(world.model.is_idle());
    assert!(!world.node(A).spool.is_empty(), "nothing was spooled");
    let held: usize = world.node(A).bufs.values().map(Vec::len).sum();
    assert!(held <= 256 << 10, "{held} bytes are held in memory");
    world.heal_and_check();
    let lost = |r: &Report| matches!(r, Report::PeerLost { .. } | Report::PeerBehind { .. });
    assert_eq!(reported(&world, lost), 0);
}

#[test]
fn a_full_spool_ends_the_session_and_the_bitmap_takes_over() {
    let mut world = eligible(Bound {
        max_bytes: 64 << 20,
        memory_bytes: 128 << 10,
        ..BOUND
    });
    for n in 0..160 {
        world.write(n % 20 * 65_536, 32 << 10, false);
        world.settle_a();
    }
    let full = |r: &Report| {
        matches!(
            r,
            Report::PeerLost {
                node: B,
                why: ReplicaLoss::Behind
            }
        )
    };
    assert_eq!(reported(&world, full), 1);
    assert!(world.model.is_idle(), "nobody waits for it");
    world.heal_and_check();
    let marked = world.machine(A).unwrap().marks().ones();
    assert_eq!(marked, 0, "marks go at the next point");
}

#[test]
fn an_eligible_follower_without_a_session_is_not_made_a_mixture() {
    let mut world = eligible(BOUND);
    world.cut();
    world.writes(1);
    for _ in 0..20 {
        world.pass(Duration::from_millis(100));
        world.deliver(A, 0);
    }
    assert!(world.conns.is_empty(), "it is out of the set first");
    world.cast_out();
    world.run();
    assert_eq!(world.control.in_sync.len(), 2);
}

#[test]
fn a_durable_write_and_a_flush_end_an_epoch_each() {
    let mut world = eligible(BOUND);
    world.write(0, 4096, true);
    world.settle_a();
    world.write(4096, 4096, false);
    world.flush();
    world.settle_a();
    world.write(8192, 4096, false);
    world.settle_a();
    assert!(world.model.is_idle(), "none of them waits for the peer");
    let sent = &world.nodes[usize::from(A.0)].frames_sent;
    let kinds: Vec<(Kind, u8)> = sent
        .iter()
        .rev()
        .filter(|h| matches!(h.kind, Kind::Write | Kind::Flush))
        // A flush without order only brings the bitmap to a point.
        .filter(|h| (h.kind, h.flags) != (Kind::Flush, 0))
        .take(5)
        .map(|h| (h.kind, h.flags))
        .collect();
    let (write, end) = (
        (Kind::Write, 0),
        (Kind::Flush, wire::mirror_frame::FLAG_ORDERED),
    );
    assert_eq!(kinds, [write, end, write, end, write]);
}

/// Once a flush without order was at the front, frames that came later overtook those that waited behind it.
#[test]
fn no_frame_overtakes_what_waits_behind_a_flush() {
    let mut world = eligible(BOUND);
    world.run();
    // The point's flush and the application's are on their way, and B's disk is slow.
    for n in 0..3 {
        world.write(n * 4096, 4096, false);
        world.settle_a();
        world.flush();
        world.settle_a();
        world.pass(Duration::from_millis(1_100));
        world.settle_a();
    }
    let log = world.node(B).disk_log.len();
    for _ in 0..60 {
        world.deliver(B, 1);
        let following = world.machine(B).unwrap().following().unwrap();
        assert!(
            following.jobs.len() <= 1,
            "a later epoch's write has started"
        );
        if world.nodes[usize::from(B.0)].disk_log.len() > log + 40 {
            break;
        }
    }
    world.heal_and_check();
}

#[test]
fn epochs_behind_each_other_do_not_wait_for_the_clock() {
    let mut world = eligible(BOUND);
    world.writes(1);
    for _ in 0..2 {
        world.flush();
        world.settle_a();
    }
    world.writes(1);
    while world.deliver(B, 1) {}
    while world.finish_disk(B, 0)
        || world.deliver(A, 1)
        || world.finish_disk(A, 0)
        || world.deliver(B, 1)
    {}
    let lag = world.node(A).replica.as_ref().unwrap().figures().lag;
    assert_eq!(
        lag,
        wire::ByteCount(0),
        "no time passed, and nothing is left to do"
    );
}

/// A led, B took over without what A had, and A has no room to put that aside.
fn held_back() -> World {
    let mut world = eligible(BOUND);
    world.no_room = true;
    world.cut();
    world.writes(2);
    world.crash(A, false);
    world.take_over();
    world.run();
    assert_eq!(world.control.active, B);
    world.node(A).disk_log.clear();
    world.boot(A, false);
    world.link_up = true;
    world.run();
    world
}

fn holds(report: &Report) -> bool {
    matches!(report, Report::HeldBack { .. })
}

#[test]
fn what_cannot_be_put_aside_waits_for_a_person() {
    let mut world = held_back();
    assert_eq!(reported(&world, holds), 1);
    assert_eq!(world.control.in_sync, BTreeSet::from([B]));
    assert_eq!(world.data_writes(A), 0, "nothing is overwritten");
    let figures = world.machine(A).unwrap().figures().replica.unwrap();
    let held = figures.held.expect("it says what it holds");
    assert_eq!(held.bytes.0, held.places.bytes());
    let written = range(0, 8192);
    assert!(held.places.ranges.iter().any(|r| r.overlaps(written)));
    world.command(A, Command::Demote);
    let let_go = |report: &Report| matches!(report, Report::LetGo(told) if *told == held);
    assert_eq!(reported(&world, let_go), 1);
    world.heal_and_check();
    assert_eq!(world.control.in_sync.len(), 2);
}

#[test]
fn what_a_person_let_go_is_not_asked_for_again() {
    let mut world = held_back();
    world.cut();
    world.command(A, Command::Demote);
    world.settle_disk(A);
    world.crash(A, true);
    world.boot(A, true);
    world.node(A).reports.clear();
    world.heal_and_check();
    assert_eq!(reported(&world, holds), 0);
}

#[test]
fn a_replica_that_holds_nothing_back_is_not_demoted() {
    let mut world = eligible(BOUND);
    world.command(B, Command::Demote);
    world.command(A, Command::Demote);
    let let_go = |node: NodeId| world.has_report(node, |r| matches!(r, Report::LetGo(_)));
    assert!(!let_go(A) && !let_go(B));
    world.heal_and_check();
}

#[test]
fn what_is_held_for_one_active_is_judged_anew_for_another() {
    let mut world = held_back();
    let follow = Command::Follow {
        epoch: world.control.epoch,
        active: C,
        cut_off: false,
    };
    world.command(A, follow);
    world.settle_disk(A);
    assert!(world.machine(A).unwrap().held().is_none());
    world.assign(A);
    world.run();
    assert_eq!(reported(&world, holds), 2);
    world.command(A, Command::Demote);
    world.heal_and_check();
}
