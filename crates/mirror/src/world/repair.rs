//! Places that cannot be read, comparing before sending, verifying online.

use super::*;
use crate::config::Compare;
use crate::control::VerifyResult;
use crate::peer::Link;
use named::solo;

/// A pair in sync with this content in every block of the volume's first 256 KiB, flushed.
fn filled(tune: impl FnOnce(&mut Config)) -> World {
    let mut world = World::new(tune);
    world.run();
    for block in 0..64 {
        world.write(block * 4096, 4096, false);
        world.run();
    }
    world.flush();
    world.run();
    for node in &mut world.nodes {
        node.reports.clear();
        node.frames_sent.clear();
    }
    world
}

impl World {
    fn frames(&self, node: NodeId, kind: Kind) -> usize {
        let all = &self.nodes[usize::from(node.0)].frames_sent;
        all.iter().filter(|h| h.kind == kind).count()
    }

    fn said(&self, node: NodeId, wanted: &Report) -> bool {
        self.nodes[usize::from(node.0)].reports.contains(wanted)
    }

    fn sent_by_resync(&self, node: NodeId) -> u64 {
        let all = &self.nodes[usize::from(node.0)].frames_sent;
        let chunks = all.iter().filter(|h| h.flags & FLAG_RESYNC != 0);
        chunks.map(|h| u64::from(h.payload_len)).sum()
    }

    /// Moves everything, a little time too, until this is so.
    fn move_until(&mut self, so: impl Fn(&Self) -> bool) {
        for _ in 0..RUN_MAX {
            if so(self) {
                return;
            }
            self.pass(Duration::from_millis(10));
            for node in self.all() {
                if self.is_up(node) {
                    self.finish_disk(node, 0);
                    self.deliver(node, 1);
                }
            }
        }
        panic!("it never came to this");
    }

    /// Both disks hold the same in the volume.
    fn assert_equal(&self) {
        let data = self.machine(A).unwrap().layout.data_bytes;
        let equal = self.nodes[0].disk.bytes(0, data) == self.nodes[1].disk.bytes(0, data);
        assert!(equal, "the replicas differ");
    }

    /// Verifies B against A, to the end.
    fn verified(&mut self, repair: bool) -> VerifyResult {
        self.command(A, Command::Verify { node: B, repair });
        self.run();
        let figures = self.machine(A).unwrap().figures().verify.unwrap();
        assert!(!figures.running, "it did not end: {figures:?}");
        let result = figures.result;
        let report = Report::Verified {
            node: B,
            result: result.clone(),
        };
        assert!(self.said(A, &report));
        result
    }

    /// Something else than the mirror changes a disk.
    fn rot(&mut self, node: NodeId, offset: u64) {
        self.node(node).disk.put(offset, &[0xEE; 512]);
    }
}

#[test]
fn a_read_error_is_served_by_the_peer_and_the_place_is_written_anew() {
    let mut world = filled(|_| {});
    world.node(A).disk.bad.insert(9);
    world.read(4096, 4096);
    world.run();
    assert!(world.model.is_idle(), "the model checked what was read");
    assert_eq!(world.model.failed(), 0);
    assert!(
        world.nodes[0].disk.bad.is_empty(),
        "the place is written anew"
    );
    let report = Report::Unreadable {
        range: range(4096, 4096),
        mended: true,
    };
    assert!(world.said(A, &report));
    assert_eq!(
        (world.frames(A, Kind::Read), world.frames(B, Kind::Data)),
        (1, 1)
    );
    world.heal_and_check();
}

#[test]
fn a_place_that_stays_bad_costs_the_leg() {
    let mut world = filled(|_| {});
    world.node(A).disk.bad.insert(9);
    world.node(A).disk.worn = true;
    world.read(4096, 4096);
    world.run();
    assert!(world.said(A, &Report::LocalFailed { errno: Some(5) }));
}

#[test]
fn a_newer_write_wins_over_the_content_that_mends_a_place() {
    let mut world = filled(|_| {});
    world.node(A).disk.bad.insert(9);
    world.read(4096, 4096);
    world.finish_disk(A, 0);
    world.write(4096, 4096, false);
    world.run();
    assert!(world.model.is_idle());
    world.assert_equal();
    world.heal_and_check();
}

#[test]
fn without_a_peer_one_read_fails_and_service_goes_on() {
    let mut world = filled(|_| {});
    world.crash(B, false);
    world.run();
    world.node(A).disk.bad.insert(9);
    world.read(4096, 4096);
    world.run();
    assert_eq!(world.model.failed(), 1);
    world.read(8192, 4096);
    world.write(4096, 4096, true);
    world.run();
    assert!(world.model.is_idle());
    assert_eq!(world.model.failed(), 1, "the rest of the disk serves");
    world.boot(B, false);
    world.heal_and_check();
}

#[test]
fn two_bad_copies_fail_the_read_and_nothing_else() {
    let mut world = filled(|_| {});
    world.node(A).disk.bad.insert(9);
    world.node(B).disk.bad.insert(9);
    world.read(4096, 4096);
    world.run();
    assert_eq!(world.model.failed(), 1);
    assert!(world.model.is_idle());
    world.write(4096, 4096, false);
    world.run();
    world.heal_and_check();
}

#[test]
fn a_session_lost_in_the_middle_of_mending_fails_the_read_only() {
    let mut world = filled(|_| {});
    world.node(A).disk.bad.insert(9);
    world.read(4096, 4096);
    world.finish_disk(A, 0);
    world.cut();
    world.run();
    assert!(world.model.is_idle());
    assert_eq!(world.model.failed(), 1);
    // The peer was taken out meanwhile, and its resync waits for this one block.
    assert_eq!(world.control.in_sync, BTreeSet::from([A]));
    world.write(4096, 4096, false);
    world.run();
    world.heal_and_check();
}

#[test]
fn equal_replicas_verify_clean_under_load() {
    let mut world = filled(|_| {});
    world.command(
        A,
        Command::Verify {
            node: B,
            repair: false,
        },
    );
    for round in 0..200 {
        world.write((round % 64) * 4096, 4096, false);
        world.finish_disk(A, 0);
        world.deliver(B, 1);
        world.finish_disk(B, 1);
        world.deliver(A, 1);
    }
    world.run();
    let figures = world.machine(A).unwrap().figures().verify.unwrap();
    assert_eq!(
        figures.result.different,
        wire::ByteCount(0),
        "a false alarm"
    );
    assert_eq!(figures.result.checked, figures.result.total);
    world.heal_and_check();
}

#[test]
fn a_difference_is_found_named_and_repaired_from_the_active() {
    let mut world = filled(|_| {});
    world.rot(B, 70_000 / 512 * 512);
    let found = world.verified(false);
    assert_eq!(found.ranges, [range(65_536, 65_536)]);
    assert_eq!((found.different.0, found.repaired.0), (65_536, 0));
    let found = world.verified(true);
    assert_eq!((found.different.0, found.repaired.0), (65_536, 65_536));
    world.assert_equal();
    assert_eq!(world.verified(false).different.0, 0);
    world.run();
    assert_eq!(
        world.machine(A).unwrap().marks().ones(),
        0,
        "its marks went with a point"
    );
}

#[test]
fn a_repair_that_is_interrupted_is_finished_by_the_resync() {
    let mut world = filled(|_| {});
    world.rot(B, 4096);
    world.command(
        A,
        Command::Verify {
            node: B,
            repair: true,
        },
    );
    for _ in 0..40 {
        world.finish_disk(A, 0);
        world.finish_disk(B, 0);
        world.deliver(B, 1);
        world.deliver(A, 1);
        if world.sent_by_resync(A) > 0 {
            break;
        }
    }
    world.crash(B, true);
    world.run();
    world.boot(B, true);
    world.heal_and_check();
    world.assert_equal();
}

#[test]
fn verifying_goes_on_after_a_lost_session() {
    let mut world = filled(|_| {});
    world.command(
        A,
        Command::Verify {
            node: B,
            repair: false,
        },
    );
    for _ in 0..10 {
        world.finish_disk(A, 0);
        world.deliver(B, 1);
    }
    world.cut();
    world.run();
    let figures = world.machine(A).unwrap().figures().verify.unwrap();
    assert!(!figures.running);
    assert_eq!(figures.result.checked, figures.result.total);
}

#[test]
fn verifying_mends_what_either_side_cannot_read() {
    let mut world = filled(|_| {});
    world.node(A).disk.bad.insert(9);
    world.node(B).disk.bad.insert(300);
    let found = world.verified(true);
    assert_eq!(found.unreadable.0, 2 * 65_536);
    assert!(world.nodes.iter().all(|n| n.disk.bad.is_empty()));
    world.assert_equal();
}

#[test]
fn after_a_power_failure_only_what_differs_is_sent() {
    let mut world = filled(|config| config.hot_regions_max = 8);
    for region in 0..4 {
        world.write(region * 65_536, 4096, false);
    }
    world.run();
    world.crash(B, true);
    world.boot(B, true);
    world.run();
    world.heal_and_check();
    assert!(world.frames(A, Kind::Compare) > 0);
    assert!(world.sent_by_resync(A) <= 4 * 65_536);
    world.assert_equal();
}

/// The same boot: what is read back may be in no cache that a flush writes, so it is written again although it is equal.
#[test]
fn after_a_restart_of_the_process_hot_regions_are_written_again() {
    let mut world = filled(|config| config.hot_regions_max = 8);
    world.write(0, 4096, false);
    world.run();
    world.crash(B, false);
    world.boot(B, false);
    world.run();
    world.heal_and_check();
    assert!(world.frames(B, Kind::Differs) > 0);
}

#[test]
fn a_replica_that_is_not_trusted_is_compared_and_gets_what_differs() {
    let mut world = filled(|_| {});
    world.rot(B, 4096);
    world.command(A, Command::Distrust { node: B });
    world.run();
    world.heal_and_check();
    let volume = world.machine(A).unwrap().layout.data_bytes;
    let sent = world.sent_by_resync(A);
    assert!(sent < volume / 4, "{sent} of {volume} bytes");
    world.assert_equal();
}

#[test]
fn copying_without_comparing_is_a_choice() {
    let mut world = filled(|config| config.compare = Compare::Never);
    world.command(A, Command::Distrust { node: B });
    world.run();
    world.heal_and_check();
    assert_eq!(world.frames(A, Kind::Compare), 0);
}

fn resync(full: bool) -> Command {
    Command::Resync { node: B, full }
}

#[test]
fn a_person_does_not_wait_for_the_next_try_to_connect() {
    let mut world = solo();
    let waits = |world: &World| {
        let peer = &world.machine(A).unwrap().peers[&B];
        matches!(peer.link, Link::Down { .. }) && peer.backoff > Duration::from_millis(500)
    };
    world.move_until(waits);
    world.command(A, resync(false));
    assert!(!waits(&world), "it is tried at once");
    world.heal_and_check();
}

#[test]
fn a_person_does_not_wait_for_the_next_try_to_read() {
    let mut world = solo();
    world.write(4096, 4096, false);
    world.run();
    world.node(A).disk.bad.insert(9);
    world.boot(B, false);
    let stuck = |world: &World| {
        let peer = &world.machine(A).unwrap().peers[&B];
        peer.copying().is_some_and(|copying| copying.is_stuck())
    };
    world.move_until(stuck);
    world.node(A).disk.bad.clear();
    world.command(A, resync(false));
    assert!(!stuck(&world), "it is read again at once");
    world.heal_and_check();
}

#[test]
fn in_full_everything_is_compared_and_only_what_differs_is_sent() {
    let mut world = filled(|_| {});
    world.crash(B, false);
    world.run();
    assert_eq!(world.control.in_sync, BTreeSet::from([A]));
    world.rot(B, 4096);
    world.command(A, resync(true));
    world.boot(B, false);
    world.heal_and_check();
    let volume = world.machine(A).unwrap().layout.data_bytes;
    let sent = world.sent_by_resync(A);
    assert!(sent < volume / 4, "{sent} of {volume} bytes");
    world.assert_equal();
}

#[test]
fn a_peer_that_counts_keeps_its_session_whatever_is_asked() {
    let mut world = filled(|_| {});
    world.command(A, resync(true));
    world.command(A, resync(false));
    let lost = |r: &Report| matches!(r, Report::PeerLost { .. });
    assert!(!world.has_report(A, lost));
    assert_eq!(world.control.in_sync.len(), 2);
    world.heal_and_check();
}
