//! Bugs of order between the replicas: 9, 10, 13, 15.

use super::*;
use wire::mirror_frame::FLAG_FUA;

#[test]
pub(super) fn bug_9_overlapping_writes_go_to_the_peer_in_the_order_of_the_local_disk() {
    let mut world = pair();
    world.write(0, 65_536, false);
    world.write(4096, 512, false);
    world.write(0, 8192, false);
    while world.sent(A, Kind::Write).is_empty() {
        world.finish_disk(A, 0);
    }
    assert_eq!(world.sent(A, Kind::Write).len(), 1, "the others wait");
    world.settle_disk(A);
    let order: Vec<u64> = world
        .sent(A, Kind::Write)
        .iter()
        .map(|h| h.range.len())
        .collect();
    assert_eq!(order, [65_536, 512, 8192]);
    world.deliver_all(B);
    // The standby's disk is slow with the first: the small one does not overtake it.
    while world.data_writes(B) == 0 {
        world.finish_disk(B, 0);
    }
    assert_eq!(world.data_writes(B), 1);
    world.heal_and_check();
}

#[test]
pub(super) fn bug_9_a_short_write_does_not_overtake_a_deferred_big_one() {
    let mut world = pair();
    world.write(0, 512, false);
    world.write(0, 65_536, false);
    // It overlaps only the one that waits.
    world.write(8192, 512, false);
    for _ in 0..20 {
        world.finish_where(A, |op| !is_data(op));
    }
    assert_eq!(world.data_writes(A), 1);
    world.settle_disk(A);
    let sent = world.sent(A, Kind::Write);
    let order: Vec<u64> = sent.iter().map(|h| h.range.len()).collect();
    assert_eq!(order, [512, 65_536, 512]);
    world.heal_and_check();
}

#[test]
pub(super) fn bug_10_a_flush_needs_both_sides_and_fua_reaches_both() {
    let mut world = pair();
    world.write(0, 4096, true);
    world.run();
    assert_eq!(world.sent(A, Kind::Write)[0].flags, FLAG_FUA);
    for node in [A, B] {
        let fua = |op: &DiskOp| matches!(op, DiskOp::Write { fua: true, .. });
        assert!(world.node(node).disk_log.iter().any(fua));
    }
    world.flush();
    world.settle_disk(A);
    assert!(!world.model.is_idle(), "the peer has not flushed");
    world.deliver_all(B);
    world.settle_disk(B);
    world.deliver_all(A);
    assert!(world.model.is_idle());
    world.flush();
    world.deliver_all(B);
    world.settle_disk(B);
    world.deliver_all(A);
    assert!(!world.model.is_idle(), "the local disk has not flushed");
    world.run();
}

#[test]
pub(super) fn bug_10_a_standby_flushes_after_the_writes_before_it() {
    let mut world = pair();
    world.write(0, 4096, false);
    world.settle_disk(A);
    world.flush();
    world.settle_disk(A);
    world.deliver_all(B);
    for _ in 0..20 {
        world.finish_where(B, |op| !is_data(op));
    }
    let flushes = |w: &mut World| w.node(B).disk_log.contains(&DiskOp::Flush);
    assert_eq!(world.data_writes(B), 1);
    assert!(!flushes(&mut world), "an earlier write is not done");
    world.settle_disk(B);
    assert!(flushes(&mut world));
    world.heal_and_check();
}

#[test]
pub(super) fn bug_10_an_asynchronous_standby_applies_nothing_ahead_of_a_flush() {
    let mut world = followed();
    world.write(0, 4096, false);
    world.run();
    world.node(B).disk_log.clear();
    world.flush();
    world.settle_disk(A);
    world.write(4096, 4096, false);
    world.settle_disk(A);
    world.deliver_all(B);
    for _ in 0..20 {
        world.finish_where(B, |op| *op != DiskOp::Flush);
    }
    assert_eq!(world.data_writes(B), 0, "it would be no prefix");
    world.settle_disk(B);
    assert_eq!(world.data_writes(B), 1);
    world.heal_and_check();
}

#[test]
pub(super) fn bug_13_zeroes_read_back_equal_and_large_ones_go_in_pieces() {
    let mut world = pair();
    world.write(0, 65_536, false);
    world.run();
    world.zero(512, 1024);
    world.zero(100 * 512, 1_800_000 / 512 * 512);
    world.read(0, 4096);
    world.heal_and_check();
    assert_eq!(world.node(B).disk.current[512..1536], [0; 1024]);
}

/// The first and the last block are zeroed in part, while the standby is away.
#[test]
pub(super) fn bug_13_unaligned_ends_are_copied_to_a_peer_that_returns() {
    let mut world = pair();
    world.write(0, 65_536, false);
    world.run();
    world.crash(B, false);
    world.run();
    world.zero(3 * 512, 4096 + 512);
    world.run();
    world.cool(0);
    world.boot(B, false);
    world.heal_and_check();
    assert_eq!(world.node(B).disk.current[1536..6144], [0; 4608]);
}

#[test]
pub(super) fn bug_15_frames_of_an_old_session_or_epoch_end_the_session() {
    for wrong in [0, 1] {
        let mut world = pair();
        let conn = world.conns[0].id;
        let following = world.machine(B).unwrap().following().unwrap();
        let (session, epoch) = (following.session, following.epoch);
        let header = match wrong {
            0 => Header::bare(Kind::Flush, epoch, SessionId(session.0 + 1), 900),
            _ => Header::bare(Kind::Flush, Epoch(epoch.0 - 1), session, 900),
        };
        world.arrive(B, conn, header, Content::None);
        let why = ReplicaLoss::Protocol;
        let refused = |r: &Report| matches!(r, Report::PeerLost { why: w, .. } if *w == why);
        assert!(world.has_report(B, refused));
        world.heal_and_check();
    }
}

#[test]
pub(super) fn bug_15_late_packets_of_a_closed_connection_change_nothing() {
    let mut world = pair();
    let old = world.conns[0].id;
    let following = world.machine(B).unwrap().following().unwrap();
    let (session, epoch) = (following.session, following.epoch);
    world.cut();
    world.run();
    assert_ne!(world.conns.last().unwrap().id, old);
    world.node(B).disk_log.clear();
    let late = Header {
        range: range(0, 4096),
        payload_len: 4096,
        ..Header::bare(Kind::Write, epoch, session, 900)
    };
    world.arrive(B, old, late, Content::Data(vec![7; 4096]));
    world.settle_disk(B);
    assert_eq!(world.data_writes(B), 0);
    world.heal_and_check();
}
