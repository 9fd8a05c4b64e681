//! The rules that this machine keeps, one test each.

use super::*;

/// A pair in sync, at rest.
pub(super) fn pair() -> World {
    tuned(|_| {})
}

pub(super) fn tuned(tune: impl FnOnce(&mut Config)) -> World {
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
pub(super) fn solo() -> World {
    let mut world = pair();
    world.crash(B, false);
    world.run();
    assert_eq!(world.control.in_sync, BTreeSet::from([A]));
    world
}

impl World {
    /// Ends everything that is under way on a node's disk, and what follows from it.
    pub(super) fn settle_disk(&mut self, node: NodeId) {
        while self.finish_disk(node, 0) {}
    }

    pub(super) fn deliver_all(&mut self, node: NodeId) {
        while self.deliver(node, 1) {}
    }

    pub(super) fn sent(&self, node: NodeId, kind: Kind) -> Vec<Header> {
        let all = &self.nodes[usize::from(node.0)].frames_sent;
        all.iter().filter(|h| h.kind == kind).copied().collect()
    }

    pub(super) fn has_report(&self, node: NodeId, wanted: impl Fn(&Report) -> bool) -> bool {
        self.nodes[usize::from(node.0)].reports.iter().any(wanted)
    }

    pub(super) fn reports(&self, node: NodeId, wanted: impl Fn(&Report) -> bool) -> usize {
        let all = &self.nodes[usize::from(node.0)].reports;
        all.iter().filter(|r| wanted(r)).count()
    }

    pub(super) fn data_writes(&self, node: NodeId) -> usize {
        let all = &self.nodes[usize::from(node.0)].disk_log;
        let is_data = |op: &&DiskOp| matches!(op, DiskOp::Write { .. } | DiskOp::Zero { .. });
        all.iter().filter(is_data).count()
    }

    pub(super) fn marked(&self, node: NodeId) -> u64 {
        self.machine(node).unwrap().marks().ones()
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
fn a_peer_with_an_untrusted_disk_is_compared_everywhere() {
    let mut world = pair();
    world.command(A, Command::Distrust { node: B });
    world.run();
    let compared: u64 = world
        .sent(A, Kind::Compare)
        .iter()
        .map(|h| h.range.len())
        .sum();
    let layout = Layout::for_disk(DISK_BYTES, 1).unwrap();
    assert!(compared + 65_536 >= layout.data_bytes);
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
