//! Bugs that others had (`facts/block.md` §5), one test each, and the rules that this machine keeps.

use super::*;
use wire::mirror_frame::{FLAG_FUA, Refuse, decode_payload};

/// A pair in sync, at rest.
fn pair() -> World {
    tuned(|_| {})
}

fn tuned(tune: impl FnOnce(&mut Config)) -> World {
    let mut world = World::new(tune);
    world.run();
    assert!(world.control.serving);
    for node in &mut world.nodes {
        node.reports.clear();
        node.frames_sent.clear();
        node.disk_log.clear();
    }
    world
}

/// A solo active, its standby cast out and down.
fn solo() -> World {
    let mut world = pair();
    world.crash(B, false);
    world.run();
    assert_eq!(world.control.in_sync, BTreeSet::from([A]));
    world
}

impl World {
    /// Ends everything that is under way on a node's disk, and what follows from it.
    fn settle_disk(&mut self, node: NodeId) {
        while self.finish_disk(node, 0) {}
    }

    fn deliver_all(&mut self, node: NodeId) {
        while self.deliver(node, 1) {}
    }

    fn sent(&self, node: NodeId, kind: Kind) -> Vec<Header> {
        let all = &self.nodes[usize::from(node.0)].frames_sent;
        all.iter().filter(|h| h.kind == kind).copied().collect()
    }

    fn has_report(&self, node: NodeId, wanted: impl Fn(&Report) -> bool) -> bool {
        self.nodes[usize::from(node.0)].reports.iter().any(wanted)
    }

    fn reports(&self, node: NodeId, wanted: impl Fn(&Report) -> bool) -> usize {
        let all = &self.nodes[usize::from(node.0)].reports;
        all.iter().filter(|r| wanted(r)).count()
    }

    fn data_writes(&self, node: NodeId) -> usize {
        let all = &self.nodes[usize::from(node.0)].disk_log;
        let is_data = |op: &&DiskOp| matches!(op, DiskOp::Write { .. } | DiskOp::Zero { .. });
        all.iter().filter(is_data).count()
    }

    fn marked(&self, node: NodeId) -> u64 {
        self.machine(node).unwrap().bitmap.base().ones()
    }
}

#[test]
fn a_fresh_pair_becomes_equal_by_itself() {
    let mut world = World::new(|_| {});
    world.run();
    assert_eq!(world.control.in_sync.len(), 2);
    world.write(0, 4096, false);
    world.heal_and_check();
}

#[test]
fn bug_1_one_stable_buffer_feeds_both_replicas() {
    let mut world = pair();
    world.write(0, 4096, false);
    world.settle_disk(A);
    world.deliver_all(B);
    world.settle_disk(B);
    let bytes = |w: &World, n: usize| w.nodes[n].disk.current[..4096].to_vec();
    assert_eq!(bytes(&world, 0), bytes(&world, 1));
    assert_ne!(bytes(&world, 0), vec![0; 4096]);
}

#[test]
fn bug_2_no_data_is_written_after_a_failed_log_write() {
    let mut world = solo();
    world.node(A).disk_log.clear();
    world.node(A).disk.broken = Some(5);
    world.write(0, 4096, false);
    world.settle_disk(A);
    assert_eq!(world.data_writes(A), 0);
    assert!(world.has_report(A, |r| *r == Report::LocalFailed { errno: Some(5) }));
    assert_eq!(world.model.len(), 1, "it stays pending until the abort");
}

#[test]
fn bug_3_a_crash_forgets_no_write_that_the_peer_lacks() {
    let mut world = solo();
    for region in 0..12 {
        world.write(region * 65_536, 4096, false);
        world.run();
    }
    world.crash(A, true);
    world.boot(A, false);
    world.boot(B, false);
    world.heal_and_check();
}

#[test]
fn bug_4_a_write_during_a_resync_wins_over_the_chunk() {
    let mut world = solo();
    world.write(0, 65_536, false);
    world.run();
    world.boot(B, false);
    while world.machine(A).unwrap().jobs.is_empty() {
        world.pass(Duration::from_millis(10));
        world.finish_disk(B, 0);
        world.deliver(B, 1);
        world.deliver(A, 1);
    }
    // The chunk is being read; the write waits for it, and follows it to the peer.
    world.write(4096, 4096, false);
    world.heal_and_check();
}

#[test]
fn bug_5_marks_stay_until_the_target_committed() {
    let mut world = solo();
    world.write(0, 65_536, false);
    world.run();
    let marked = world.marked(A);
    assert_eq!(marked, 16);
    world.boot(B, false);
    while world.sent(A, Kind::ResyncCommit).is_empty() {
        world.pass(Duration::from_millis(10));
        world.finish_disk(A, 0);
        world.finish_disk(B, 0);
        world.deliver(B, 1);
        world.deliver(A, 1);
    }
    assert_eq!(world.marked(A), marked, "all acknowledged, not committed");
    world.crash(B, true);
    world.cut();
    assert_eq!(world.marked(A), marked);
    world.heal_and_check();
    assert_eq!(world.marked(A), 0);
}

#[test]
fn bug_6_a_target_whose_resync_did_not_end_refuses_to_serve() {
    let mut world = solo();
    world.write(0, 65_536, false);
    world.run();
    world.boot(B, false);
    while world
        .sent(A, Kind::Write)
        .iter()
        .all(|h| h.flags & FLAG_RESYNC == 0)
    {
        world.pass(Duration::from_millis(10));
        world.finish_disk(A, 0);
        world.finish_disk(B, 0);
        world.deliver(B, 1);
        world.deliver(A, 1);
    }
    world.crash(A, true);
    world.cut();
    world.command(B, Command::Fence);
    world.settle_disk(B);
    let only_b = BTreeSet::from([B]);
    world.command(
        B,
        Command::Activate {
            epoch: Epoch(90),
            required: only_b.clone(),
            peers: only_b,
        },
    );
    world.settle_disk(B);
    assert!(world.has_report(B, |r| matches!(r, Report::AttachFailed { .. })));
    assert!(!world.has_report(B, |r| matches!(r, Report::Serving { .. })));
}

#[test]
fn bug_7_no_peer_hears_of_an_epoch_that_is_not_durable() {
    let mut world = pair();
    world.crash(A, false);
    world.boot(A, false);
    while !world.has_report(A, |r| matches!(r, Report::Attached { .. })) {
        world.finish_disk(A, 0);
    }
    world.pass(Duration::from_millis(500));
    assert_eq!(world.node(A).dials, 0, "its epoch is still being written");
    world.settle_disk(A);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.node(A).dials, 1);
}

#[test]
fn bug_8_a_write_waits_for_a_required_peer_until_it_is_out() {
    let mut world = pair();
    world.crash(B, false);
    world.write(0, 4096, false);
    world.settle_disk(A);
    world.deliver_all(A);
    assert_eq!(world.model.len(), 1, "no word before the peer is out (R7)");
    world.cast_out();
    world.settle_disk(A);
    assert!(world.model.is_idle());
    assert!(world.marked(A) > 0);
}

#[test]
fn bug_9_overlapping_writes_go_to_the_peer_in_the_order_of_the_local_disk() {
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
fn bug_10_a_flush_needs_both_sides_and_fua_reaches_both() {
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
fn bug_11_after_a_failed_flush_nothing_starts_any_more() {
    let mut world = pair();
    world.flush();
    world.node(A).disk.broken = Some(5);
    world.settle_disk(A);
    world.node(A).disk.broken = None;
    let before = world.node(A).disk_log.len();
    world.flush();
    world.read(0, 512);
    world.write(0, 512, false);
    world.pass(Duration::from_millis(100));
    world.settle_disk(A);
    assert_eq!(world.node(A).disk_log.len(), before, "no read, no retry");
    assert_eq!(world.model.len(), 4);
    world.command(A, Command::Abort);
    assert!(world.model.is_idle() && world.has_report(A, |r| *r == Report::Closed));
    assert!(world.node(A).bufs.is_empty());
}

#[test]
fn a_flush_that_failed_in_an_earlier_life_is_made_good_before_serving() {
    let mut world = solo();
    world.write(0, 4096, false);
    world.run();
    world.flush();
    world.node(A).disk.broken = Some(5);
    world.settle_disk(A);
    world.node(A).disk.broken = None;
    world.crash(A, false);
    world.boot(A, false);
    world.run();
    world.flush();
    world.run();
    world.crash(A, true);
    world.boot(A, true);
    world.heal_and_check();
}

#[test]
fn bug_12_a_torn_superblock_leaves_the_older_one() {
    let mut world = pair();
    world.crash(A, false);
    let newest = Layout::super_offset(DISK_BYTES, Slot::A);
    world.node(A).disk.put(newest + 512, &[9; 512]);
    world.boot(A, false);
    world.settle_disk(A);
    assert!(world.has_report(A, |r| matches!(r, Report::Attached { .. })));
    world.crash(A, false);
    for slot in [Slot::A, Slot::B] {
        let at = Layout::super_offset(DISK_BYTES, slot);
        world.node(A).disk.put(at + 512, &[9; 512]);
    }
    world.boot(A, false);
    world.settle_disk(A);
    assert!(world.has_report(A, |r| matches!(r, Report::AttachFailed { .. })));
}

#[test]
fn bug_13_zeroes_read_back_equal_and_large_ones_go_in_pieces() {
    let mut world = pair();
    world.write(0, 65_536, false);
    world.run();
    world.zero(512, 1024);
    world.zero(100 * 512, 1_800_000 / 512 * 512);
    world.read(0, 4096);
    world.heal_and_check();
    assert_eq!(world.node(B).disk.current[512..1536], [0; 1024]);
}

#[test]
fn bug_13_a_zeroing_during_a_resync_stays() {
    let mut world = solo();
    world.write(0, 65_536, false);
    world.run();
    world.boot(B, false);
    for _ in 0..40 {
        world.pass(Duration::from_millis(10));
        world.finish_disk(B, 0);
        world.deliver(B, 1);
        world.deliver(A, 1);
    }
    world.zero(0, 8192);
    world.heal_and_check();
    assert_eq!(world.node(B).disk.current[..8192], [0; 8192]);
}

#[test]
fn bug_14_a_reissued_write_lands_in_the_same_order_on_both() {
    let mut world = pair();
    for _ in 0..3 {
        world.write(0, 4096, false);
        world.write(2048, 4096, false);
    }
    world.crash(A, false);
    world.boot(A, false);
    world.run();
    world.write(0, 4096, false);
    world.write(2048, 4096, false);
    world.heal_and_check();
}

#[test]
fn bug_15_frames_of_an_old_session_or_epoch_end_the_session() {
    for wrong in [0, 1] {
        let mut world = pair();
        let conn = world.conns[0].id;
        let following = world.machine(B).unwrap().following().unwrap();
        let (session, epoch) = (following.session, following.epoch);
        let header = match wrong {
            0 => Header::bare(Kind::Flush, epoch, SessionId(session.0 + 1), 900),
            _ => Header::bare(Kind::Flush, Epoch(epoch.0 - 1), session, 900),
        };
        let payload = Payload::None;
        world.input(
            B,
            Input::Frame {
                conn,
                header,
                payload,
            },
        );
        assert!(world.has_report(B, |r| matches!(
            r,
            Report::PeerLost {
                why: ReplicaLoss::Protocol,
                ..
            }
        )));
        world.heal_and_check();
    }
}

#[test]
fn bug_17_a_larger_standby_takes_the_actives_size() {
    let mut world = World::with_disks(DISK_BYTES, DISK_BYTES + (1 << 20), |_| {});
    world.run();
    world.write(1_900_000 / 512 * 512, 512, false);
    world.heal_and_check();
    let size = |n: NodeId| world.machine(n).unwrap().superblock.get().data_bytes;
    assert_eq!(size(A), size(B));
    world.crash(B, true);
    world.boot(B, true);
    world.heal_and_check();
}

fn refusal(mut world: World) -> Refuse {
    while world.sent(B, Kind::Goodbye).is_empty() {
        world.pass(Duration::from_millis(10));
        world.settle_disk(A);
        world.settle_disk(B);
        world.deliver(A, 0);
        world.deliver(B, 0);
    }
    let queue = &world.conns[0].queues[0];
    let Some(Parcel::Frame(_, Content::Bytes(bytes))) = queue.front() else {
        panic!("no reason given");
    };
    decode_payload(bytes).unwrap()
}

#[test]
fn bug_17_a_smaller_standby_is_refused_with_both_sizes() {
    let world = World::with_disks(DISK_BYTES, DISK_BYTES - (512 << 10), |_| {});
    assert!(matches!(refusal(world), Refuse::TooSmall { .. }));
}

#[test]
fn bug_17_a_disk_with_data_of_its_own_is_never_overwritten() {
    let mut world = World::new(|_| {});
    world.crash(B, false);
    world.create(B, ReplicaState::Origin);
    world.boot(B, false);
    assert_eq!(refusal(world), Refuse::ForeignDisk);
}

#[test]
fn bug_17_a_disk_of_another_mirror_is_not_attached() {
    let mut world = pair();
    world.crash(B, false);
    world.config.expect_mirror = Some(78);
    world.boot(B, false);
    world.settle_disk(B);
    assert!(world.has_report(
        B,
        |r| matches!(r, Report::AttachFailed { reason } if reason.contains("another"))
    ));
}

#[test]
fn bug_18_a_lost_bitmap_or_intent_log_means_a_full_resync() {
    for part in [0, 1] {
        let mut world = solo();
        world.write(0, 512, false);
        world.run();
        world.crash(A, true);
        let layout = Layout::for_disk(DISK_BYTES, 1).unwrap();
        for slot in [Slot::A, Slot::B] {
            let at = match part {
                0 => layout.bitmap_offset(0, slot),
                _ => layout.intent_offset(slot),
            };
            world.node(A).disk.put(at, &[1; 4096]);
        }
        world.boot(A, false);
        world.settle_disk(A);
        assert_eq!(world.marked(A), layout.blocks());
        // It is durable before anything else is: another crash forgets nothing.
        world.crash(A, true);
        world.boot(A, false);
        world.settle_disk(A);
        assert_eq!(world.marked(A), layout.blocks());
        world.heal_and_check();
        assert_eq!(world.marked(A), 0);
    }
}

#[test]
fn an_equal_peer_that_returns_is_synced_at_once() {
    let mut world = pair();
    world.flush();
    world.run();
    world.begin_move();
    world.run();
    assert_eq!(world.control.active, B);
    let chunks = world.sent(B, Kind::Write).len();
    assert_eq!(chunks, 0, "a planned move copies nothing");
    assert!(world.sent(B, Kind::ResyncStart).is_empty());
    world.heal_and_check();
}

#[test]
fn a_resync_sends_what_changed_and_the_hot_regions() {
    let mut world = solo();
    for region in 0..10 {
        world.write(region * 65_536, 8192, false);
        world.run();
    }
    world.boot(B, false);
    world.heal_and_check();
    let sent: u64 = world
        .sent(A, Kind::Write)
        .iter()
        .filter(|h| h.flags & FLAG_RESYNC != 0)
        .map(|h| h.range.len())
        .sum();
    assert!(sent <= 10 * 8192 + 5 * 65_536, "{sent} bytes");
}

#[test]
fn no_reply_leaves_without_a_lease() {
    let mut world = pair();
    let until = world.now;
    world.command(A, Command::Lease { until });
    world.write(0, 512, false);
    world.read(0, 512);
    world.flush();
    world.run();
    assert_eq!(world.model.len(), 3);
    world.command(A, Command::Lease { until: Time::MAX });
    world.run();
    assert!(world.model.is_idle());
}

#[test]
fn a_silent_peer_is_reported_once_and_writes_go_on_when_it_is_out() {
    let mut world = pair();
    world.write(0, 512, false);
    for _ in 0..30 {
        world.settle_disk(A);
        world.pass(Duration::from_millis(100));
    }
    let lost = |r: &Report| matches!(r, Report::PeerLost { .. });
    assert_eq!(world.reports(A, lost), 1);
    assert!(!world.model.is_idle());
    world.cast_out();
    world.settle_disk(A);
    assert!(world.model.is_idle());
}

#[test]
fn a_required_peer_that_returns_holds_everything_again_without_being_inconsistent() {
    let mut world = pair();
    world.write(0, 512, false);
    world.settle_disk(A);
    world.cut();
    while !world.has_report(A, |r| matches!(r, Report::PeerBack { .. })) {
        assert!(!world.model.is_idle(), "no word before it is back (R10)");
        world.pass(Duration::from_millis(10));
        world.finish_disk(A, 0);
        world.finish_disk(B, 0);
        world.deliver(B, 1);
        world.deliver(A, 1);
    }
    assert!(world.model.is_idle());
    assert!(world.sent(A, Kind::ResyncStart).is_empty());
    world.heal_and_check();
}

#[test]
fn fenced_is_said_only_when_old_writes_have_landed() {
    let mut world = pair();
    world.write(0, 512, false);
    world.settle_disk(A);
    world.deliver_all(B);
    while world.data_writes(B) == 0 {
        world.finish_disk(B, 0);
    }
    world.command(B, Command::Fence);
    let fenced = |r: &Report| *r == Report::Fenced;
    assert!(!world.has_report(B, fenced));
    world.settle_disk(B);
    assert!(world.has_report(B, fenced));
    world.write(512, 512, false);
    world.settle_disk(A);
    let before = world.data_writes(B);
    world.deliver_all(B);
    world.settle_disk(B);
    assert_eq!(
        world.data_writes(B),
        before,
        "nothing of the old epoch any more"
    );
}

#[test]
fn a_hung_disk_is_reported_and_lets_go_of_the_front_end() {
    let mut world = pair();
    world.crash(A, false);
    world.config.io_timeout = Duration::from_secs(2);
    world.boot(A, false);
    while !world.control.serving {
        world.settle_disk(A);
        world.settle_disk(B);
        world.pass(Duration::from_millis(10));
        world.deliver(B, 1);
        world.deliver(A, 1);
    }
    world.write(0, 512, false);
    for _ in 0..30 {
        world.pass(Duration::from_millis(100));
    }
    assert!(world.has_report(A, |r| *r == Report::LocalFailed { errno: None }));
    world.command(A, Command::Abort);
    assert!(world.has_report(A, |r| *r == Report::Closed));
    assert!(world.model.is_idle());
    let figures = world.node(A).replica.as_ref().unwrap().figures();
    assert!(figures.io_under_way > 0, "it may still land (R15)");
    world.settle_disk(A);
    assert!(world.node(A).bufs.is_empty());
}

#[test]
fn a_standby_whose_disk_fails_says_so_at_once() {
    let mut world = pair();
    world.node(B).disk.broken = Some(5);
    world.write(0, 512, false);
    world.settle_disk(A);
    world.deliver_all(B);
    world.settle_disk(B);
    world.deliver_all(A);
    assert!(world.has_report(A, |r| *r
        == Report::PeerLost {
            node: B,
            why: ReplicaLoss::DiskFailed
        }));
}

#[test]
fn a_peer_with_an_untrusted_disk_gets_everything() {
    let mut world = pair();
    world.command(A, Command::Distrust { node: B });
    world.run();
    let resent: u64 = world
        .sent(A, Kind::Zero)
        .iter()
        .map(|h| h.range.len())
        .sum();
    let layout = Layout::for_disk(DISK_BYTES, 1).unwrap();
    assert!(resent + 65_536 >= layout.data_bytes);
    world.heal_and_check();
}

#[test]
fn requests_outside_of_the_volume_or_unaligned_are_refused() {
    let mut world = pair();
    let end = Layout::for_disk(DISK_BYTES, 1).unwrap().data_bytes;
    let wrong = [range(end - 512, 1024), range(100, 1024), range(512, 100)];
    for (op, at) in [Op::Write { fua: false }, Op::Read]
        .into_iter()
        .flat_map(|op| wrong.map(|at| (op, at)))
    {
        let id = RequestId(9_999);
        let buf = Some(world.buf(A, vec![0; 1024]));
        let range = at;
        world.input(A, Input::Request(Request { id, op, range, buf }));
    }
    assert!(world.node(A).bufs.is_empty());
    assert_eq!(world.data_writes(A), 0);
}
