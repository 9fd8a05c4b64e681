//! Bugs of resyncs: 4, 5, 6, 13, 18.

use super::*;

/// A solo active with one region that its returning standby lacks.
fn returning() -> World {
    let mut world = solo();
    world.write(0, 65_536, false);
    world.run();
    world.boot(B, false);
    world
}

fn has_sent_a_chunk(world: &World) -> bool {
    let chunk = |h: &Header| h.flags & FLAG_RESYNC != 0;
    world.sent(A, Kind::Write).iter().any(chunk)
}

#[test]
pub(super) fn bug_4_a_write_during_a_resync_wins_over_the_chunk() {
    let mut world = returning();
    let reads = |w: &World| !w.machine(A).unwrap().jobs.is_empty();
    world.step_disks_until(&[B], "a chunk is being read", reads);
    // The write waits for the chunk, and follows it to the peer.
    world.write(4096, 4096, false);
    world.heal_and_check();
}

#[test]
pub(super) fn bug_4_a_chunk_is_not_read_before_an_older_write_has_landed() {
    for zero in [false, true] {
        let mut world = returning();
        // It starts before the session does, so that only a chunk brings it to the standby.
        if zero {
            world.zero(4096 + 512, 4096);
        } else {
            world.write(4096, 4096, false);
        }
        while world.node(A).disk.find(is_data).is_none() {
            assert!(world.finish_disk(A, 0));
        }
        for _ in 0..80 {
            world.pass(Duration::from_millis(10));
            world.finish_where(A, |op| !is_data(op));
            world.finish_disk(B, 0);
            world.deliver(B, 1);
            world.deliver(A, 1);
        }
        assert_eq!(world.control.in_sync.len(), 1, "it holds the write already");
        world.run();
        world.flush();
        world.run();
        let bytes = |n: usize| world.nodes[n].disk.current[..65_536].to_vec();
        assert!(bytes(0) == bytes(1), "the chunk was older than the write");
        world.heal_and_check();
    }
}

/// The peer is one that nobody waits for, so that nothing but the mark stands for the write.
#[test]
pub(super) fn bug_4_a_mark_made_while_the_commit_is_on_its_way_stays() {
    let mut world = followed();
    world.crash(B, false);
    world.run();
    world.write(0, 65_536, false);
    world.run();
    world.boot(B, false);
    world.node(A).frames_sent.clear();
    let asked = |w: &World| !w.sent(A, Kind::ResyncCommit).is_empty();
    world.step_until("the commit is sent", asked);
    world.write(4096, 4096, false);
    world.settle_disk(A);
    // The standby gets the commit, and the link breaks before it gets the write.
    let committing = |w: &World| !w.machine(B).unwrap().following().unwrap().ops.is_empty();
    while !committing(&world) {
        assert!(world.deliver(B, 1));
    }
    world.settle_disk(B);
    world.deliver_all(A);
    world.settle_disk(A);
    assert!(world.has_report(A, |r| matches!(r, Report::PeerSynced { .. })));
    world.link_up = false;
    world.cut();
    world.cool(0);
    world.heal_and_check();
}

#[test]
pub(super) fn bug_5_marks_stay_until_the_target_committed() {
    let mut world = returning();
    let marked = world.marked(A);
    assert_eq!(marked, 16);
    let asked = |w: &World| !w.sent(A, Kind::ResyncCommit).is_empty();
    world.step_until("the commit is sent", asked);
    assert_eq!(world.marked(A), marked, "all acknowledged, not committed");
    world.crash(B, true);
    world.cut();
    assert_eq!(world.marked(A), marked);
    world.heal_and_check();
    assert_eq!(world.marked(A), 0);
}

#[test]
pub(super) fn bug_5_what_the_target_committed_is_durable_there() {
    let mut world = returning();
    world.run();
    assert_eq!(world.control.in_sync.len(), 2);
    world.crash(B, true);
    let bytes = |n: usize| &world.nodes[n].disk.current[..65_536];
    assert!(bytes(0) == bytes(1), "marks were cleared on receipt");
}

#[test]
pub(super) fn bug_6_a_target_whose_resync_did_not_end_refuses_to_serve() {
    let mut world = returning();
    world.step_until("a chunk is sent", has_sent_a_chunk);
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
pub(super) fn bug_6_a_target_stays_a_mixture_when_the_source_dies_and_ends_equal() {
    let mut world = returning();
    world.step_until("a chunk is sent", has_sent_a_chunk);
    world.deliver_all(B);
    world.settle_disk(B);
    world.crash(A, true);
    world.settle_disk(B);
    assert_eq!(world.state_of(B), ReplicaState::Inconsistent);
    // It knows so for itself, whatever happens to it before the source is back.
    world.crash(B, true);
    world.boot(B, true);
    world.settle_disk(B);
    assert_eq!(world.state_of(B), ReplicaState::Inconsistent);
    world.heal_and_check();
    assert_eq!(world.state_of(B), ReplicaState::Consistent);
}

#[test]
pub(super) fn bug_13_a_zeroing_during_a_resync_stays() {
    let mut world = returning();
    let reads = |w: &World| !w.machine(A).unwrap().jobs.is_empty();
    world.step_disks_until(&[B], "a chunk is being read", reads);
    world.zero(0, 8192);
    world.heal_and_check();
    assert_eq!(world.node(B).disk.current[..8192], [0; 8192]);
}

#[test]
pub(super) fn bug_18_whole_metadata_never_means_a_full_resync() {
    let mut world = pair();
    for node in [A, B] {
        world.write(0, 4096, false);
        world.run();
        world.node(A).frames_sent.clear();
        world.crash(node, true);
        world.heal_and_check();
        let resent = world.sent(A, Kind::Write).into_iter();
        let resent = resent.chain(world.sent(A, Kind::Zero));
        let resent = resent.filter(|h| h.flags & FLAG_RESYNC != 0);
        let looked_at = resent.chain(world.sent(A, Kind::Compare));
        let bytes: u64 = looked_at.map(|h| h.range.len()).sum();
        assert!(
            bytes <= 4 * 65_536,
            "{bytes} bytes, copied or compared, are more than the log names"
        );
    }
}
