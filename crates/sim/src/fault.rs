//! What can go wrong, and how it ends.

mod mirror_ways;

use crate::network::Way;
use crate::queue::Event;
use crate::world::{A, B, W, World};
use std::collections::BTreeMap;
use wire::control::{GroupRequest, LinkId};
use wire::{Duration, NodeId};

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The daemon is killed and started again after the time.
    Kill(NodeId, Duration),
    /// The machine loses power, and is switched on again after the time.
    Power(NodeId, Duration),
    /// Both data nodes lose power at once.
    PowerBoth(Duration),
    /// The daemon is stopped by a signal for the time.
    Pause(NodeId, Duration),
    /// Nothing passes to or from the node.
    Isolate(NodeId, Duration),
    /// No heartbeat passes to or from the node; the mirror network is whole.
    Deafen(NodeId, Duration),
    /// No heartbeat passes from the first to the second.
    OneWay(NodeId, NodeId, Duration),
    /// One heartbeat link between the two is cut.
    Link(NodeId, NodeId, u8, Duration),
    /// The mirror network is cut: connections stall.
    MirrorCut(Duration),
    /// The mirror network is slow.
    MirrorSlow(Duration),
    /// A hypervisor freezes the machine, its clock too.
    Freeze(NodeId, Duration),
    /// Every connection of the mirror is reset.
    MirrorReset,
    /// Datagrams are lost and late, everywhere.
    Noise(Duration),
    /// The node's disks fail writes.
    DiskWrites(NodeId, Duration),
    /// That many of the node's next flushes fail.
    DiskFlush(NodeId, u32),
    /// The node's disks fail reads.
    DiskReads(NodeId, Duration),
    /// Some of the node's sectors cannot be read until they are written, or until the time is over.
    BadSectors(NodeId, Duration),
    /// The node's disks hang.
    DiskHang(NodeId, Duration),
    /// The node's disks are slow.
    DiskSlow(NodeId, Duration),
    /// The node's disks take the volume's writes, and do not end them: a drive that tries a bad spot again and again.
    DiskStuck(NodeId, Duration),
    /// The node's metadata is written slowly: it is on a device of its own.
    SlowMeta(NodeId, Duration),
    /// The connections that the mirror has now stall; new ones pass.
    MirrorFlow(Duration),
    /// This mirror's connections are reset, and none is made; other mirrors are well.
    OneMirror(u8, Duration),
    /// Every datagram is late.
    Late(Duration),
    /// The node's member file is written slowly.
    SlowFile(NodeId, Duration),
    /// The next write of the node's member file fails.
    FileFails(NodeId),
    /// The machine loses power; while it is off, a person restores an old snapshot of its disks.
    RollBack(NodeId, Duration),
    /// The node has no room to put anything aside.
    NoRoom(NodeId, Duration),
    /// The application ends by itself.
    AppEnds,
    /// The application cannot be started on the node.
    AppBroken(NodeId, Duration),
    /// The application cannot be stopped in order on the node.
    StopHangs(NodeId, Duration),
    /// A person moves the group.
    Move,
    /// A person stops the group, and starts it after the time.
    StopStart(Duration),
}

/// Faults made, and those that last.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) made: u64,
    pub(crate) open: BTreeMap<u64, Fault>,
    /// No further ones.
    pub(crate) over: bool,
    /// Polite mode: the latest one, and when its own duration was over.
    pub(crate) latest: Option<(Fault, crate::clock::Moment)>,
    /// Counters when it was made.
    pub(crate) before: (u64, u64),
    /// Nodes whose disks were restored from a snapshot.
    pub(crate) rolled_back: u32,
}

impl Fault {
    /// True if it concerns nothing but the witness.
    pub(crate) fn is_of_witness(self) -> bool {
        match self {
            Self::Kill(n, _)
            | Self::Power(n, _)
            | Self::Pause(n, _)
            | Self::Isolate(n, _)
            | Self::Deafen(n, _)
            | Self::SlowFile(n, _)
            | Self::NoRoom(n, _)
            | Self::Freeze(n, _)
            | Self::FileFails(n) => n == W,
            Self::OneWay(a, b, _) | Self::Link(a, b, _, _) => a == W || b == W,
            Self::PowerBoth(_)
            | Self::MirrorCut(_)
            | Self::MirrorReset
            | Self::MirrorSlow(_)
            | Self::MirrorFlow(_)
            | Self::OneMirror(..)
            | Self::Late(_)
            | Self::Noise(_)
            | Self::DiskStuck(..)
            | Self::SlowMeta(..)
            | Self::DiskWrites(..)
            | Self::DiskFlush(..)
            | Self::DiskReads(..)
            | Self::BadSectors(..)
            | Self::DiskHang(..)
            | Self::DiskSlow(..)
            | Self::RollBack(..)
            | Self::AppEnds
            | Self::AppBroken(..)
            | Self::StopHangs(..)
            | Self::Move
            | Self::StopStart(_) => false,
        }
    }

    /// How long it lasts by itself.
    pub(crate) const fn lasts(self) -> Duration {
        match self {
            Self::Kill(_, t)
            | Self::Power(_, t)
            | Self::PowerBoth(t)
            | Self::Pause(_, t)
            | Self::Isolate(_, t)
            | Self::Deafen(_, t)
            | Self::OneWay(_, _, t)
            | Self::Link(_, _, _, t)
            | Self::MirrorCut(t)
            | Self::MirrorSlow(t)
            | Self::Freeze(_, t)
            | Self::Noise(t)
            | Self::DiskWrites(_, t)
            | Self::DiskReads(_, t)
            | Self::BadSectors(_, t)
            | Self::DiskHang(_, t)
            | Self::DiskSlow(_, t)
            | Self::DiskStuck(_, t)
            | Self::SlowMeta(_, t)
            | Self::MirrorFlow(t)
            | Self::OneMirror(_, t)
            | Self::Late(t)
            | Self::SlowFile(_, t)
            | Self::NoRoom(_, t)
            | Self::RollBack(_, t)
            | Self::AppBroken(_, t)
            | Self::StopHangs(_, t)
            | Self::StopStart(t) => t,
            Self::MirrorReset
            | Self::DiskFlush(..)
            | Self::FileFails(_)
            | Self::AppEnds
            | Self::Move => Duration::ZERO,
        }
    }

    fn ways(self) -> Vec<Way> {
        let links = [LinkId(0), LinkId(1)];
        let both = |a, b, link| [(a, b, link), (b, a, link)];
        match self {
            Self::Isolate(n, _) | Self::Deafen(n, _) => [A, B, W]
                .into_iter()
                .filter(|other| *other != n)
                .flat_map(|other| links.into_iter().flat_map(move |l| both(n, other, l)))
                .collect(),
            Self::OneWay(a, b, _) => links.into_iter().map(|l| (a, b, l)).collect(),
            Self::Link(a, b, l, _) => both(a, b, LinkId(l)).into(),
            Self::Kill(..)
            | Self::Power(..)
            | Self::PowerBoth(_)
            | Self::Pause(..)
            | Self::MirrorCut(_)
            | Self::MirrorSlow(_)
            | Self::MirrorFlow(_)
            | Self::OneMirror(..)
            | Self::Late(_)
            | Self::DiskStuck(..)
            | Self::SlowMeta(..)
            | Self::Freeze(..)
            | Self::MirrorReset
            | Self::Noise(_)
            | Self::DiskWrites(..)
            | Self::DiskFlush(..)
            | Self::DiskReads(..)
            | Self::BadSectors(..)
            | Self::DiskHang(..)
            | Self::DiskSlow(..)
            | Self::SlowFile(..)
            | Self::NoRoom(..)
            | Self::FileFails(_)
            | Self::RollBack(..)
            | Self::AppEnds
            | Self::AppBroken(..)
            | Self::StopHangs(..)
            | Self::Move
            | Self::StopStart(_) => Vec::new(),
        }
    }
}

impl World {
    /// Makes a fault; what lasts is healed after its time.
    pub fn make(&mut self, fault: Fault) {
        self.faults.made += 1;
        let now = self.now;
        self.trace.say(now, "FAULT", &format!("{fault:?}"));
        self.faults.latest = Some((fault, now + fault.lasts()));
        self.begin(fault);
        if is_lasting(fault) {
            let name = self.name();
            self.faults.open.insert(name, fault);
            self.after(fault.lasts(), Event::Heal(name));
        }
    }

    fn begin(&mut self, fault: Fault) {
        for way in fault.ways() {
            self.network.cut(way);
        }
        match fault {
            Fault::Kill(at, back) => self.kill_process(at, Some(back)),
            Fault::Power(at, back) => self.cut_power(at, Some(back)),
            Fault::PowerBoth(back) => {
                self.cut_power(A, Some(back));
                for at in self.options.data_nodes().split_off(1) {
                    let later = self.rng.millis(0, 2_000);
                    self.cut_power(at, Some(back + later));
                }
            }
            Fault::Pause(at, length) => self.pause(at, length),
            Fault::Isolate(..) | Fault::MirrorCut(_) => {
                for (one, two) in self.mirror_ways(fault) {
                    self.network.cut_mirror(one, two);
                    self.stall_streams(one, two);
                }
            }
            Fault::MirrorReset => self.reset_streams(|_| true),
            Fault::MirrorSlow(_) => self.network.mirror_slow += 1,
            Fault::Freeze(at, _) => self.freeze(at),
            Fault::Noise(_) => {
                self.network.loss += 300;
                self.network.late += 300;
                self.network.late_max = Duration::from_millis(150);
            }
            Fault::DiskWrites(at, _) => self.each_disk(at, |f| f.writes = true),
            Fault::DiskFlush(at, count) => self.each_disk(at, |f| f.flushes = count),
            Fault::DiskReads(at, _) => self.each_disk(at, |f| f.reads = true),
            Fault::BadSectors(at, _) => self.spoil_sectors(at),
            Fault::DiskHang(at, _) => self.each_disk(at, |f| f.hung = true),
            Fault::DiskSlow(at, _) => self.each_disk(at, |f| f.slow = 30),
            Fault::DiskStuck(at, _) => self.each_disk(at, |f| f.stuck = true),
            Fault::SlowMeta(at, _) => self.each_disk(at, |f| f.slow_meta = 60),
            Fault::MirrorFlow(_) => {
                for (one, two) in self.mirror_ways(fault) {
                    self.stall_streams(one, two);
                }
            }
            Fault::OneMirror(mirror, _) => {
                self.network.mirror_down = Some(mirror);
                self.reset_streams(|stream| stream.mirror == mirror);
            }
            Fault::Late(_) => {
                self.network.late += 1_000;
                self.network.late_max = Duration::from_millis(400);
            }
            Fault::SlowFile(at, _) => self.machine(at).slow_file = 60,
            Fault::NoRoom(at, _) => self.machine(at).no_room = true,
            Fault::FileFails(at) => self.machine(at).file_fails = true,
            Fault::RollBack(at, back) => self.roll_back(at, back),
            Fault::AppEnds => self.end_app(),
            Fault::AppBroken(at, _) => self.machine(at).app_broken = true,
            Fault::StopHangs(at, _) => self.machine(at).stop_hangs = true,
            Fault::Move => self.ask_active(GroupRequest::Move(None)),
            Fault::StopStart(_) => self.ask_active(GroupRequest::Stop),
            Fault::Deafen(..) | Fault::OneWay(..) | Fault::Link(..) => {}
        }
    }

    /// Ends a fault.
    pub(crate) fn heal(&mut self, name: u64) {
        let Some(fault) = self.faults.open.remove(&name) else {
            return;
        };
        let now = self.now;
        self.trace.say(now, "HEAL", &format!("{fault:?}"));
        for way in fault.ways() {
            self.network.mend(way);
        }
        match fault {
            Fault::Isolate(..) | Fault::MirrorCut(_) => {
                for (one, two) in self.mirror_ways(fault) {
                    self.network.mend_mirror(one, two);
                    self.resume_streams(one, two);
                }
            }
            Fault::MirrorSlow(_) => {
                self.network.mirror_slow = self.network.mirror_slow.saturating_sub(1);
            }
            Fault::Freeze(at, _) => self.thaw(at),
            Fault::Noise(_) => {
                self.network.loss = self.network.loss.saturating_sub(300);
                self.network.late = self.network.late.saturating_sub(300);
            }
            Fault::DiskWrites(at, _) => self.each_disk(at, |f| f.writes = false),
            Fault::DiskReads(at, _) => self.each_disk(at, |f| f.reads = false),
            Fault::BadSectors(at, _) => {
                for disk in &mut self.machine(at).disks {
                    disk.bad.clear();
                }
            }
            Fault::DiskHang(at, _) => {
                self.each_disk(at, |f| f.hung = false);
                self.unhang(at);
            }
            Fault::DiskSlow(at, _) => self.each_disk(at, |f| f.slow = 1),
            Fault::DiskStuck(at, _) => {
                self.each_disk(at, |f| f.stuck = false);
                self.unhang(at);
            }
            Fault::SlowMeta(at, _) => self.each_disk(at, |f| f.slow_meta = 1),
            Fault::MirrorFlow(_) => {
                for (one, two) in self.mirror_ways(fault) {
                    self.resume_streams(one, two);
                }
            }
            Fault::OneMirror(..) => self.network.mirror_down = None,
            Fault::Late(_) => self.network.late = self.network.late.saturating_sub(1_000),
            Fault::SlowFile(at, _) => self.machine(at).slow_file = 1,
            Fault::NoRoom(at, _) => self.machine(at).no_room = false,
            Fault::AppBroken(at, _) => self.machine(at).app_broken = false,
            Fault::StopHangs(at, _) => self.machine(at).stop_hangs = false,
            Fault::StopStart(_) => self.ask_active(GroupRequest::Start),
            Fault::Deafen(..)
            | Fault::OneWay(..)
            | Fault::Link(..)
            | Fault::Kill(..)
            | Fault::Power(..)
            | Fault::PowerBoth(_)
            | Fault::Pause(..)
            | Fault::MirrorReset
            | Fault::DiskFlush(..)
            | Fault::FileFails(_)
            | Fault::RollBack(..)
            | Fault::AppEnds
            | Fault::Move => {}
        }
    }

    /// Ends every fault, makes everything run, and makes the network good.
    pub(crate) fn heal_all(&mut self) {
        self.faults.over = true;
        let now = self.now;
        self.trace.say(now, "HEAL", "everything");
        let open: Vec<u64> = self.faults.open.keys().copied().collect();
        for name in open {
            self.heal(name);
        }
        self.network.loss = 0;
        self.network.late = 0;
        self.network.doubling = 0;
        for at in [A, B, W] {
            self.machine(at).file_fails = false;
            self.each_disk(at, |f| f.flushes = 0);
            self.on_boot(at);
            if let Some(life) = self
                .machine(at)
                .process
                .as_ref()
                .filter(|p| p.paused)
                .map(|p| p.life)
            {
                self.on_resume(at, life);
            }
            let machine = self.machine(at);
            if machine.process.is_none() && !machine.starting {
                let boot = machine.boot;
                machine.starting = true;
                self.after(Duration::from_millis(100), Event::Start { at, boot });
            }
        }
    }

    fn each_disk(&mut self, at: NodeId, change: impl Fn(&mut crate::disk::Fault)) {
        for disk in &mut self.machine(at).disks {
            change(&mut disk.fault);
        }
    }

    /// A few stretches of every disk of the node, in its first half: there the application works.
    fn spoil_sectors(&mut self, at: NodeId) {
        let (machine, rng) = self.machine_and_rng(at);
        for disk in &mut machine.disks {
            let sectors = disk.bytes() / 1_024;
            for _ in 0..rng.between(1, 6) {
                let first = rng.below(sectors);
                disk.bad.extend(first..first + rng.between(1, 9));
            }
        }
    }

    fn roll_back(&mut self, at: NodeId, back: Duration) {
        self.cut_power(at, Some(back));
        self.faults.rolled_back += 1;
        for disk in &mut self.machine(at).disks {
            disk.roll_back();
        }
    }

    fn end_app(&mut self) {
        for at in self.options.data_nodes() {
            if let Some(id) = self
                .machine(at)
                .instance
                .as_ref()
                .filter(|i| i.working)
                .map(|i| i.id)
            {
                self.fail_application(at, id);
            }
        }
    }

    /// The node that is active by the newest record.
    pub(crate) fn active(&self) -> Option<NodeId> {
        self.checkers
            .epochs_rise
            .newest()
            .map(|record| record.active)
    }

    fn ask_active(&mut self, request: GroupRequest) {
        if let Some(active) = self.active() {
            self.ask(active, request);
        }
    }
}

const fn is_lasting(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::Isolate(..)
            | Fault::Deafen(..)
            | Fault::OneWay(..)
            | Fault::Link(..)
            | Fault::MirrorCut(_)
            | Fault::MirrorSlow(_)
            | Fault::Freeze(..)
            | Fault::Noise(_)
            | Fault::DiskWrites(..)
            | Fault::DiskReads(..)
            | Fault::BadSectors(..)
            | Fault::DiskHang(..)
            | Fault::DiskSlow(..)
            | Fault::DiskStuck(..)
            | Fault::SlowMeta(..)
            | Fault::MirrorFlow(_)
            | Fault::OneMirror(..)
            | Fault::Late(_)
            | Fault::SlowFile(..)
            | Fault::NoRoom(..)
            | Fault::AppBroken(..)
            | Fault::StopHangs(..)
            | Fault::StopStart(_)
    )
}
