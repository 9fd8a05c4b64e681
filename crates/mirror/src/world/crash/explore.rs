//! Walking through a workload, and through the crash states of each of its steps.

use super::super::disk::{Choices, SECTOR, Sector};
use super::*;
use crate::io::DiskOp;

/// A crash point: how many looks were taken before it, and whose power fails.
type Point = (usize, NodeId);

/// Which version of each sector in question the medium holds; 0 is the durable one.
pub(super) type Choice = Vec<usize>;

#[derive(Debug)]
enum Mode {
    /// Looks at every state.
    Look,
    /// Goes to this point, and stops there.
    Crash(Point),
    /// It is there.
    Crashed(NodeId),
}

/// A world, and what is looked at in it.
#[derive(Debug)]
pub(super) struct Explorer {
    world: World,
    mode: Mode,
    per_point: usize,
    looks: usize,
    /// The disks as of the last look.
    seen: [u64; 2],
    count: Count,
    states: Vec<(Point, Choice)>,
    dice: u64,
}

impl Explorer {
    pub(super) fn new(per_point: usize) -> Self {
        Self {
            world: World::new(|c| c.hot_regions_max = 3),
            mode: Mode::Look,
            per_point,
            looks: 0,
            seen: [0; 2],
            count: Count::default(),
            states: Vec::new(),
            dice: 0x5EED,
        }
    }

    pub(super) fn crashing(point: Point) -> Self {
        Self {
            mode: Mode::Crash(point),
            ..Self::new(0)
        }
    }

    pub(super) const fn count(&self) -> Count {
        self.count
    }

    /// One in so many of the states seen, spread over all of them.
    pub(super) fn chosen(&self, every: usize) -> Vec<(Point, Choice)> {
        self.states.iter().step_by(every.max(1)).cloned().collect()
    }

    /// The world right after the power failure.
    pub(super) fn into_crashed(mut self, choice: &Choice) -> World {
        let Mode::Crashed(node) = self.mode else {
            panic!("the workload took another way than before");
        };
        let disk = &mut self.world.node(node).disk;
        let choices = disk.choices();
        let mut image = disk.durable().to_vec();
        choices.apply(choice, |at, sector| {
            image[at..at + SECTOR].copy_from_slice(sector);
        });
        disk.become_durable(image);
        self.world.crash(node, true);
        self.world
    }

    /// A step of a workload; none is taken after the crash.
    pub(super) fn act(&mut self, act: impl FnOnce(&mut World)) {
        if !matches!(self.mode, Mode::Crashed(_)) {
            act(&mut self.world);
            self.look();
        }
    }

    /// As [`World::run`], without a look: another workload is about this part.
    pub(super) fn skip(&mut self) {
        if !matches!(self.mode, Mode::Crashed(_)) {
            self.world.run();
            self.seen = [A, B].map(|n| self.world.nodes[usize::from(n.0)].disk.changes());
        }
    }

    /// So many rounds of [`Explorer::run`], at most.
    pub(super) fn steps(&mut self, rounds: usize) {
        for _ in 0..rounds {
            for node in [A, B] {
                if self.world.is_up(node) {
                    self.act(|world| {
                        world.finish_disk(node, 0);
                    });
                    self.act(|world| {
                        world.deliver(node, 1);
                    });
                }
            }
            self.act(|world| world.pass(Duration::from_millis(10)));
        }
    }

    /// As [`World::run`], with a look at every step.
    pub(super) fn run(&mut self) {
        let mut quiet = 0;
        for _ in 0..RUN_MAX {
            if quiet == 60 || matches!(self.mode, Mode::Crashed(_)) {
                return;
            }
            let mut moved = false;
            for node in [A, B] {
                if self.world.is_up(node) {
                    self.act(|world| moved |= world.finish_disk(node, 0));
                    self.act(|world| moved |= world.deliver(node, 1));
                }
            }
            let pause = Duration::from_millis(if moved { 0 } else { 40 });
            self.act(|world| {
                world.control_step();
                world.pass(pause);
            });
            quiet = if moved { 0 } else { quiet + 1 };
        }
    }

    /// A crash point, if a disk has changed since the last look.
    fn look(&mut self) {
        self.looks += 1;
        for node in [A, B] {
            let at = usize::from(node.0);
            let changes = self.world.nodes[at].disk.changes();
            if std::mem::replace(&mut self.seen[at], changes) != changes {
                self.at_point((self.looks, node));
            }
        }
    }

    fn at_point(&mut self, point: Point) {
        match &self.mode {
            Mode::Crash(wanted) if *wanted == point => self.mode = Mode::Crashed(point.1),
            Mode::Look if self.world.is_up(point.1) => {
                self.count.points += 1;
                self.look_at_states(point);
            }
            Mode::Look | Mode::Crash(..) | Mode::Crashed(_) => {}
        }
    }

    fn look_at_states(&mut self, (look, node): Point) {
        let disk = &self.world.nodes[usize::from(node.0)].disk;
        let choices = disk.choices();
        let base = Base::new(&self.world, node, disk.durable());
        let some = choices.some(self.per_point, &mut self.dice);
        let floor = self.attached(node, &mut Image::new(disk.durable()));
        for choice in some {
            let mut image = Image::new(disk.durable());
            choices.apply(&choice, |at, sector| image.put(at, sector));
            let replica = self.attached(node, &mut image);
            let told = format!("{node:?} at look {look}, {choice:?}");
            check_floor(&floor, &replica, &told);
            self.check_known(node, &replica, &base, &image, &told);
            base.check_flushed(&replica, &image, &told);
            self.count.states += 1;
            self.states.push(((look, node), choice));
        }
    }

    /// Attaches a replica to a disk.
    fn attached(&self, node: NodeId, image: &mut Image<'_>) -> Replica {
        let mut config = self.world.config.clone();
        config.node = node;
        config.boot = 1_000;
        let mut replica = Replica::new(config, self.world.now);
        let mut reports = Vec::new();
        for _ in 0..1_000 {
            match replica.poll() {
                None => break,
                Some(Output::Report(report)) => reports.push(report),
                Some(Output::Disk { io, op }) => {
                    let result = Ok(image.perform(&op));
                    let done = Input::DiskDone { io, result };
                    replica.handle(self.world.now, done);
                }
                Some(other) => panic!("{other:?} while attaching"),
            }
        }
        assert!(
            matches!(reports[..], [Report::Attached { .. }]),
            "{node:?} at look {}: {reports:?}",
            self.looks
        );
        replica
    }

    /// A block that differs from the peer's is known to one of the two.
    fn check_known(
        &self,
        node: NodeId,
        replica: &Replica,
        base: &Base,
        image: &Image<'_>,
        told: &str,
    ) {
        let peer = other(node);
        let (Some(own), Some(peers)) = (replica.machine(), self.world.machine(peer)) else {
            return;
        };
        // Who holds nothing yet gets everything.
        let (ours, theirs) = (own.superblock.get(), peers.superblock.get());
        if ours.mirror.is_none() || theirs.mirror.is_none() {
            return;
        }
        let mut known = Bits::new(own.layout.blocks());
        known.union(&own.marks());
        known.union(&peers.marks());
        for region in own.intent.regions().chain(peers.intent.regions()) {
            known.set(region_blocks(region));
        }
        let mut differs = base.differs.clone();
        let there = &self.world.nodes[usize::from(peer.0)].disk.current;
        for (at, _) in &image.data {
            let block = at / 4096;
            let id = u64::try_from(block).unwrap();
            let equal = image.block(block) == there[block * 4096..(block + 1) * 4096];
            differs.clear(id..id + 1);
            if !equal {
                differs.set(id..id + 1);
            }
        }
        let mut at = 0;
        while let Some(block) = differs.next_set(at) {
            assert!(
                known.get(block),
                "{told}: block {block} differs, and nobody knows"
            );
            at = block + 1;
        }
    }
}

/// What all states of one crash point have in common.
struct Base {
    /// Blocks in which the durable data differs from what the peer has.
    differs: Bits,
    /// Promises about this disk, if it counts: what was not flushed has lapsed.
    promised: Option<Model>,
}

impl Base {
    fn new(world: &World, node: NodeId, durable: &[u8]) -> Self {
        let blocks = layout().blocks();
        let there = &world.nodes[usize::from(other(node).0)].disk.current;
        let mut differs = Bits::new(blocks);
        for block in 0..blocks {
            let at = disk::to_usize(block) * 4096;
            if durable[at..at + 4096] != there[at..at + 4096] {
                differs.set(block..block + 1);
            }
        }
        let promised = world.control.in_sync.contains(&node).then(|| {
            let mut model = world.model.clone();
            model.power_failed();
            model.give_up();
            model
        });
        Self { differs, promised }
    }

    /// What was flushed is on every replica that may be promoted.
    fn check_flushed(&self, replica: &Replica, image: &Image<'_>, told: &str) {
        let consistent = |m: &Machine| m.superblock.get().state == ReplicaState::Consistent;
        let Some(model) = &self.promised else {
            return;
        };
        if !replica.machine().is_some_and(consistent) {
            return;
        }
        if image.data.is_empty() {
            let end = disk::to_usize(layout().data_bytes);
            model.check_all(&image.durable[..end], told);
        }
        for (at, sector) in &image.data {
            model.check(at / SECTOR, *sector, told);
        }
    }
}

/// A disk after the power failure: the durable one, with some sectors changed.
struct Image<'a> {
    durable: &'a [u8],
    /// Sectors of the volume that are not as in `durable`, by their offset.
    data: Vec<(usize, &'a Sector)>,
    /// The metadata, as attaching changes it.
    meta: Vec<u8>,
    /// Where it begins.
    meta_at: usize,
}

impl<'a> Image<'a> {
    fn new(durable: &'a [u8]) -> Self {
        let meta_at = disk::to_usize(layout().data_bytes);
        Self {
            durable,
            data: Vec::new(),
            meta: durable[meta_at..].to_vec(),
            meta_at,
        }
    }

    fn put(&mut self, at: usize, sector: &'a Sector) {
        match at.checked_sub(self.meta_at) {
            Some(at) => self.meta[at..at + SECTOR].copy_from_slice(sector),
            None => self.data.push((at, sector)),
        }
    }

    fn block(&self, block: usize) -> Vec<u8> {
        let from = block * 4096;
        let mut bytes = self.durable[from..from + 4096].to_vec();
        for (at, sector) in &self.data {
            if let Some(at) = at.checked_sub(from).filter(|at| *at < 4096) {
                bytes[at..at + SECTOR].copy_from_slice(*sector);
            }
        }
        bytes
    }

    /// Does what an attaching replica asks of its disk.
    fn perform(&mut self, op: &DiskOp) -> Vec<u8> {
        match op {
            DiskOp::Flush => Vec::new(),
            DiskOp::MetaRead { offset, len } => {
                let at = disk::to_usize(*offset) - self.meta_at;
                self.meta[at..at + disk::to_usize(*len)].to_vec()
            }
            DiskOp::MetaWrite { offset, bytes } => {
                let at = disk::to_usize(*offset) - self.meta_at;
                self.meta[at..at + bytes.len()].copy_from_slice(bytes);
                Vec::new()
            }
            DiskOp::Read { .. } | DiskOp::Write { .. } | DiskOp::Zero { .. } => {
                panic!("{op:?} while attaching")
            }
        }
    }
}

fn layout() -> Layout {
    Layout::for_disk(DISK_BYTES, 1).unwrap()
}

/// Neither generation nor epoch goes back behind a durable one.
fn check_floor(floor: &Replica, now: &Replica, told: &str) {
    let (Some(floor), Some(now)) = (floor.machine(), now.machine()) else {
        panic!("{told}: not attached");
    };
    assert!(now.before >= floor.before, "{told}: an older generation");
    let (floor, now) = (floor.superblock.get(), now.superblock.get());
    assert!(now.epoch >= floor.epoch, "{told}: an older epoch");
    assert!(
        now.mirror.is_some() || floor.mirror.is_none(),
        "{told}: no identity any more"
    );
}

impl Choices {
    /// All combinations, or a choice of `max` of them.
    fn some(&self, max: usize, dice: &mut u64) -> Vec<Choice> {
        let sectors = self.versions.len();
        let all = self
            .versions
            .iter()
            .try_fold(1_usize, |n, (_, v)| n.checked_mul(v.len() + 1));
        if let Some(all) = all.filter(|all| *all <= max) {
            return (0..all).map(|n| self.numbered(n)).collect();
        }
        let newest = |n: usize| self.versions[n].1.len();
        let pick = |wanted: &dyn Fn(usize) -> bool| -> Choice {
            (0..sectors)
                .map(|n| if wanted(n) { newest(n) } else { 0 })
                .collect()
        };
        let mut some: Vec<Choice> = Vec::new();
        // With few sectors, torn at each; with very many, at some.
        for at in (0..=sectors).step_by((sectors / 32).max(1)) {
            some.push(pick(&|n| n < at));
            some.push(pick(&|n| n >= at));
            some.push(pick(&|n| n == at));
            some.push(pick(&|n| n != at));
        }
        while some.len() < max {
            some.push(
                (0..sectors)
                    .map(|n| {
                        *dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(7);
                        disk::to_usize(*dice >> 33) % (newest(n) + 1)
                    })
                    .collect(),
            );
        }
        some.sort_unstable();
        some.dedup();
        some
    }

    fn numbered(&self, mut number: usize) -> Choice {
        let mut choice = Vec::with_capacity(self.versions.len());
        for (_, versions) in &self.versions {
            choice.push(number % (versions.len() + 1));
            number /= versions.len() + 1;
        }
        choice
    }

    /// Puts what was chosen: offset and content of each sector that is not the durable one.
    fn apply<'a>(&'a self, choice: &Choice, mut put: impl FnMut(usize, &'a Sector)) {
        for ((sector, versions), pick) in self.versions.iter().zip(choice) {
            if let Some(newer) = pick.checked_sub(1) {
                put(sector * SECTOR, &versions[newer]);
            }
        }
    }
}
