//! Random faults in any order; every run ends healed and is checked (G2, G4, G5).

use super::*;
use crate::config::{Ack, Apart, Bound};
use proptest::prelude::*;

/// A bound that a few writes reach, and a spool that they fill.
pub(super) const SMALL: Bound = Bound {
    max_bytes: 96 << 10,
    max_time: Duration::from_millis(2_000),
    window_bytes: 48 << 10,
    memory_bytes: 16 << 10,
    spool_bytes: 128 << 10,
};

/// One step of the world. Numbers choose among what is possible at that moment.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Disk(u8, u8),
    Deliver(u8, u8),
    /// Several of both, in a fixed order.
    Progress(u8),
    Write(u8, u8, bool),
    Zero(u8, u8),
    Read(u8),
    Flush,
    Pass(u8),
    Cut,
    Link(bool),
    Crash(u8, bool),
    Boot(u8),
    CastOut,
    TakeOver,
    Move,
    Freeze,
    Thaw,
    /// By so many regions, or as far as there is room.
    Grow(u8),
    /// Who takes over next.
    Heir(u8),
    /// One node loses all its connections, or may have some again.
    Isolate(u8, bool),
    /// A node that is down goes back to before its resync, if it can; interrupted after so many writes.
    GoBack(u8, u8),
}

pub(super) fn step(nodes: u8) -> impl Strategy<Value = Step> {
    use Step::*;
    prop_oneof![
        20 => (0..nodes, any::<u8>()).prop_map(|(n, p)| Disk(n, p)),
        20 => (0..nodes, any::<u8>()).prop_map(|(n, p)| Deliver(n, p)),
        12 => any::<u8>().prop_map(Progress),
        14 => (any::<u8>(), any::<u8>(), prop::bool::weighted(0.1)).prop_map(|(o, l, f)| Write(o, l, f)),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(o, l)| Zero(o, l)),
        2 => any::<u8>().prop_map(Read),
        4 => Just(Flush),
        4 => any::<u8>().prop_map(Pass),
        2 => Just(Cut),
        1 => any::<bool>().prop_map(Link),
        2 => (0..nodes, any::<bool>()).prop_map(|(n, p)| Crash(n, p)),
        3 => (0..nodes).prop_map(Boot),
        3 => Just(CastOut),
        2 => Just(TakeOver),
        1 => Just(Move),
        1 => Just(Freeze),
        2 => Just(Thaw),
    ]
}

/// A run, printed on one line so that it can be pasted into a test.
#[derive(Clone)]
pub(super) struct Plan(pub(super) Vec<Step>);

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl World {
    /// Takes every step, heals everything, and checks what was promised.
    pub(super) fn survive(&mut self, Plan(steps): &Plan) {
        for step in steps {
            self.take(step);
        }
        self.heal_and_check();
    }

    pub(super) fn take(&mut self, step: &Step) {
        match step {
            Step::Disk(node, pick) => {
                if self.is_up(NodeId(*node)) {
                    self.finish_disk(NodeId(*node), usize::from(*pick));
                }
            }
            Step::Deliver(node, pick) => {
                if self.is_up(NodeId(*node)) {
                    self.deliver(NodeId(*node), usize::from(*pick));
                }
            }
            Step::Progress(count) => self.progress(*count % 40),
            Step::Write(at, len, fua) if self.may_ask() => {
                let (offset, len) = self.place(*at, *len);
                self.write(offset, len, *fua);
            }
            Step::Zero(at, len) if self.may_ask() => {
                let (offset, len) = self.place(*at, *len);
                self.zero(offset, len);
            }
            Step::Read(at) if self.may_ask() => {
                self.read(self.place(*at, 3).0, 2048);
            }
            Step::Flush if self.may_ask() => {
                self.flush();
            }
            Step::Write(..) | Step::Zero(..) | Step::Read(_) | Step::Flush => {}
            Step::Pass(time) => self.pass(Duration::from_millis(u64::from(*time) * 2)),
            Step::Cut => self.cut(),
            Step::Link(up) => {
                self.link_up = *up;
                if !up {
                    self.cut();
                }
            }
            Step::Grow(regions) => {
                let more = u64::from(*regions) * 65_536;
                let to = self.model.told_bytes() + more;
                self.grow((*regions > 0).then_some(to));
            }
            Step::Heir(node) => self.control.heir = NodeId(*node),
            Step::Isolate(node, alone) => self.isolate(NodeId(*node), *alone),
            Step::GoBack(node, stop) => {
                self.roll_back(NodeId(*node), usize::from(*stop));
            }
            Step::Crash(node, power) => self.crash(NodeId(*node), *power),
            Step::Boot(node) => {
                if !self.is_up(NodeId(*node)) {
                    self.boot(NodeId(*node), false);
                }
            }
            Step::CastOut => self.cast_out(),
            Step::TakeOver => self.take_over(),
            Step::Move => self.begin_move(),
            Step::Freeze => {
                let until = self.now;
                self.command(self.control.active, Command::Lease { until });
            }
            Step::Thaw => {
                if self.control.fencing.is_none() {
                    self.command(self.control.active, Command::Lease { until: Time::MAX });
                }
            }
        }
        self.pass(Duration::from_micros(200));
        self.check_marks();
    }

    fn progress(&mut self, rounds: u8) {
        for _ in 0..rounds {
            let up: Vec<NodeId> = self.all().into_iter().filter(|n| self.is_up(*n)).collect();
            for node in up {
                self.finish_disk(node, 0);
                self.deliver(node, 1);
            }
        }
    }

    pub(super) fn isolate(&mut self, node: NodeId, alone: bool) {
        if alone {
            self.isolated.insert(node);
            self.cut_off(&BTreeSet::from([node]));
        } else {
            self.isolated.remove(&node);
        }
    }

    /// Of a volume that began small, often near its end.
    fn place(&self, at: u8, len: u8) -> (u64, u64) {
        let (offset, bytes) = place(at, len);
        let gained = self
            .small
            .map_or(0, |small| self.model.told_bytes() - small);
        if gained == 0 || at.is_multiple_of(3) {
            return (offset, bytes);
        }
        let end = self.model.told_bytes();
        let from_end = (offset % gained / 4_096 * 4_096 + bytes).next_multiple_of(512);
        (end - from_end, bytes)
    }

    /// The front end is open while its activation serves.
    fn may_ask(&self) -> bool {
        self.control.serving && self.control.fencing.is_none() && self.model.len() < 24
    }
}

/// A few hot spots in 12 regions, so that writes overlap and the intent log overflows.
fn place(at: u8, len: u8) -> (u64, u64) {
    let region = u64::from(at % 12);
    let sector = u64::from(at / 12) % 5 * 4;
    let sectors = match len % 8 {
        0 => 24,
        1 => 132,
        n => u64::from(n),
    };
    (region * 65_536 + sector * 512, sectors * 512)
}

pub(super) fn run(plan: &Plan, tune: impl FnOnce(&mut Config)) {
    World::new(tune).survive(plan);
}

fn plan() -> impl Strategy<Value = Plan> {
    prop::collection::vec(step(2), 20..400).prop_map(Plan)
}

/// Of a world of three.
fn trio_plan() -> impl Strategy<Value = Plan> {
    let step = prop_oneof![
        16 => step(3),
        1 => (0_u8..3).prop_map(Step::Heir),
        1 => (0_u8..3, any::<bool>()).prop_map(|(node, alone)| Step::Isolate(node, alone)),
    ];
    prop::collection::vec(step, 20..500).prop_map(Plan)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_promised_is_lost_and_replicas_end_equal(plan in plan()) {
        run(&plan, |_| {});
    }

    #[test]
    fn a_synced_pair_survives_anything(plan in plan()) {
        let mut world = World::new(|_| {});
        world.run();
        prop_assert_eq!(world.control.in_sync.len(), 2);
        world.survive(&plan);
    }

    #[test]
    fn a_pair_that_acknowledges_what_is_sent_keeps_what_was_flushed(plan in plan()) {
        let mut world = World::new(|config| config.ack = Ack::Flush);
        world.run();
        prop_assert_eq!(world.control.in_sync.len(), 2);
        world.survive(&plan);
    }

    #[test]
    fn an_asynchronous_pair_ends_equal(plan in plan()) {
        run(&plan, |config| config.apart = Some(Apart::everybody(SMALL)));
    }

    #[test]
    fn an_eligible_pair_survives_anything(plan in plan()) {
        let mut world = World::new(|config| config.apart = Some(Apart::everybody(SMALL)));
        world.run();
        prop_assert_eq!(world.control.in_sync.len(), 2);
        world.survive(&plan);
    }

    #[test]
    fn three_replicas_survive_anything(plan in trio_plan()) {
        let mut world = World::of(&[DISK_BYTES; 3], |_| {});
        world.run();
        prop_assert_eq!(world.control.in_sync.len(), 3);
        world.survive(&plan);
    }

    #[test]
    fn three_replicas_from_nothing_survive_anything(plan in trio_plan()) {
        let mut world = World::of(&[DISK_BYTES; 3], |_| {});
        world.survive(&plan);
    }

    #[test]
    fn a_pair_with_a_third_far_away_survives_anything(plan in trio_plan()) {
        let far = Apart { nodes: BTreeSet::from([NodeId(2)]), bound: SMALL };
        let mut world = World::of(&[DISK_BYTES; 3], |config| config.apart = Some(far));
        world.run();
        prop_assert_eq!(world.control.in_sync.len(), 3);
        world.survive(&plan);
    }

    #[test]
    fn a_log_that_looks_ahead_of_streams_loses_nothing(plan in plan()) {
        run(&plan, |config| config.hot_regions_max = 16);
    }
}

/// A frame that a broken or hostile member may send.
fn wild_frame() -> impl Strategy<Value = (u8, u8, u64, u64, u64, u64, u64, u8)> {
    let place = prop_oneof![0_u64..4_000_000, any::<u64>()];
    let len = prop_oneof![Just(0_u64), 1_u64..200_000, any::<u64>()];
    (
        1_u8..23,
        any::<u8>(),
        0_u64..6,
        0_u64..2,
        0_u64..40,
        place,
        len,
        0_u8..4,
    )
}

proptest! {
    #[test]
    fn no_frame_breaks_the_machine_or_leaks_a_buffer(
        frames in prop::collection::vec((0_u8..2, wild_frame()), 1..60),
        warm in 0_u8..120,
    ) {
        let mut world = World::new(|_| {});
        for _ in 0..warm {
            world.take(&Step::Progress(1));
        }
        for (to, frame) in frames {
            world.inject(NodeId(to), frame);
            world.take(&Step::Progress(2));
        }
        world.run();
        for node in &world.nodes {
            prop_assert!(node.bufs.is_empty(), "buffers leak: {:?}", node.bufs.keys());
        }
    }
}

impl World {
    fn inject(&mut self, to: NodeId, frame: (u8, u8, u64, u64, u64, u64, u64, u8)) {
        let (kind, flags, epoch, session, seq, place, len, payload) = frame;
        let Some((id, right)) = self.conns.last().map(|c| (c.id, 1_000 + c.id.0)) else {
            return;
        };
        let Some(at) = ByteRange::new(place, len) else {
            return;
        };
        let mut raw = Header::bare(Kind::Hello, Epoch(epoch), SessionId(right + session), seq);
        raw.flags = flags;
        raw.range = at;
        raw.kind = KINDS[usize::from(kind) - 1];
        let short = disk::to_usize(len.min(1 << 17));
        let content = match payload {
            0 => Content::None,
            1 => Content::Bytes(vec![flags; short.min(4_096)]),
            2 => Content::Bytes(vec![flags]),
            _ => Content::Data(vec![flags; short]),
        };
        raw.payload_len = u32::try_from(short).unwrap();
        self.arrive(to, id, raw, content);
    }
}

const KINDS: [Kind; 22] = [
    Kind::Hello,
    Kind::Write,
    Kind::Zero,
    Kind::Flush,
    Kind::Ack,
    Kind::IntentAdd,
    Kind::IntentDrop,
    Kind::ResyncStart,
    Kind::ResyncCommit,
    Kind::Read,
    Kind::Data,
    Kind::Unreadable,
    Kind::Compare,
    Kind::Differs,
    Kind::Common,
    Kind::CommonDone,
    Kind::Room,
    Kind::Clear,
    Kind::Ready,
    Kind::Resize,
    Kind::Settle,
    Kind::Goodbye,
];

/// Runs that once failed, each with what it found.
mod found {
    use super::{Step::*, *};

    fn synced(plan: Vec<Step>) {
        let mut world = World::new(|_| {});
        world.run();
        for step in &plan {
            world.take(step);
        }
        world.heal_and_check();
    }

    fn trio(plan: &[Step]) {
        let mut world = World::of(&[DISK_BYTES; 3], |_| {});
        world.run();
        for step in plan {
            world.take(step);
        }
        world.heal_and_check();
    }

    /// The former active came back into the set while what is kept was still being reconciled.
    #[test]
    fn a_third_may_join_while_the_second_is_reconciled() {
        let mut plan = vec![TakeOver];
        plan.extend((0..5).map(|_| Disk(0, 0)));
        plan.extend([Progress(124), Boot(0), Link(true)]);
        plan.extend((0..4).map(|_| Disk(0, 0)));
        plan.extend([
            Move,
            Disk(0, 0),
            Boot(0),
            Disk(0, 0),
            Disk(0, 0),
            Disk(0, 0),
        ]);
        trio(&plan);
    }

    /// Chunks of a reconcile waited for the range of a write that waited for room in the intent log, which needed the
    /// reconcile.
    #[test]
    fn a_full_intent_log_and_a_reconcile_do_not_wait_for_each_other() {
        let mut plan: Vec<Step> = [44, 249, 31, 4, 10].map(|at| Write(at, 0, false)).into();
        plan.extend([Cut, Zero(184, 0), Move]);
        plan.extend((0..11).map(|_| Disk(0, 0)));
        synced(plan);
    }

    /// A write done before a freeze was answered after it, though the peer had lost power meanwhile.
    #[test]
    fn a_thaw_answers_only_what_the_peers_still_hold() {
        let mut plan = vec![
            Freeze,
            Write(0, 0, false),
            Progress(4),
            Crash(1, true),
            Boot(1),
        ];
        plan.extend([Thaw, Progress(123), Disk(1, 0), TakeOver]);
        synced(plan);
    }

    /// A killed process left a list of hot regions in the disk's cache; the next one relied on it and lost power.
    #[test]
    fn metadata_in_the_disks_cache_is_not_relied_on() {
        let mut world = World::new(|_| {});
        world.run();
        world.crash(B, false);
        world.cut();
        world.cast_out();
        world.write(0, 512, false);
        world.finish_disk(A, 0);
        world.crash(A, false);
        world.boot(A, false);
        while !world.control.serving {
            world.finish_disk(A, 0);
        }
        world.write(0, 512, false);
        world.finish_disk(A, 0);
        world.crash(A, true);
        world.heal_and_check();
    }
}

/// Found by chance: a restarted active brings its standby up to date, which is promoted before it flushed the chunk, makes the
/// other one equal, and loses its power.
#[test]
fn a_chunk_that_a_promoted_standby_never_flushed_is_not_forgotten() {
    use Step::*;
    let mut plan = vec![Progress(12), Progress(118), Read(0), Write(36, 56, false)];
    plan.extend([Write(1, 169, false), Disk(0, 2), Crash(0, false), Boot(0)]);
    plan.extend([
        Disk(0, 0),
        Disk(0, 0),
        Disk(0, 0),
        Disk(0, 0),
        Progress(128),
    ]);
    plan.extend([TakeOver, Progress(1), Progress(132), Crash(1, true)]);
    plan.extend([Disk(0, 0), Disk(0, 0), Disk(0, 0)]);
    run(&Plan(plan), |_| {});
}
