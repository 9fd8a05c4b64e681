//! Random faults: which, when, and when the run is judged.

use crate::checkers::{one_failover_per_fault, service_back, witness_loss_stops_nothing};
use crate::fault::Fault;
use crate::options::FaultMix;
use crate::queue::Event;
use crate::world::{A, B, W, World};
use wire::control::GroupRequest;
use wire::record::Intent;
use wire::{Duration, NodeId, Time};

impl World {
    /// Time for the next fault.
    pub(crate) fn on_fault_due(&mut self) {
        if self.faults.over {
            return;
        }
        match self.options.faults {
            FaultMix::None => {}
            FaultMix::Rough => {
                let fault = self.any_fault();
                self.make(fault);
                // Bursts and pauses: several at once are the rule, not the exception.
                let wait = if self.rng.chance(300) {
                    self.rng.millis(1, 300)
                } else {
                    self.rng.millis(300, 7_000)
                };
                self.after(wait, Event::Fault);
            }
            FaultMix::Polite => self.next_polite_fault(),
        }
    }

    fn next_polite_fault(&mut self) {
        let again = Duration::from_millis(200);
        if let Some(missing) = self.missing() {
            if let Some((fault, over)) = self.faults.latest
                && self.now > over + service_back::SINGLE_BOUND
            {
                self.violate("service_back", format!("after {fault:?}: {missing}"));
                return;
            }
            self.tend();
            self.after(again, Event::Fault);
            return;
        }
        self.judge_polite_fault();
        if self.now.0 > u64::try_from(self.options.length.as_nanos()).unwrap_or(u64::MAX) {
            return;
        }
        let fault = self.single_fault();
        self.checkers.one_failover.begin_fault();
        self.checkers.longest_gap = Duration::ZERO;
        self.checkers.freezes = 0;
        self.faults.before = (self.checkers.one_failover.moves, 0);
        self.make(fault);
        let wait = fault.lasts() + self.rng.millis(1_500, 4_000);
        self.after(wait, Event::Fault);
    }

    fn judge_polite_fault(&mut self) {
        let Some((fault, _)) = self.faults.latest.take() else {
            return;
        };
        let verdict = self.checkers.one_failover.check(&format!("{fault:?}"));
        self.judge(one_failover_per_fault::NAME, verdict);
        if self.options.replicas == 2 && fault.is_of_witness() {
            let moves = self.checkers.one_failover.moves - self.faults.before.0;
            let verdict = witness_loss_stops_nothing::check(
                moves,
                self.checkers.freezes,
                self.checkers.longest_gap,
            );
            self.judge(witness_loss_stops_nothing::NAME, verdict);
        }
    }

    /// Something was decided: with some luck a fault meets it halfway.
    pub(crate) fn tempt(&mut self, at: NodeId, per_mille: u64) {
        if self.options.faults == FaultMix::Rough && !self.faults.over && self.rng.chance(per_mille)
        {
            let wait = self.rng.micros(0, 4_000);
            self.after(wait, Event::Sharp(at));
        }
    }

    /// The fault at the worst moment.
    pub(crate) fn on_sharp(&mut self, at: NodeId) {
        if self.faults.over {
            return;
        }
        let length = self.rng.millis(20, 4_000);
        let other = self.other_data_node(at);
        let fault = match self.rng.below(10) {
            0 | 1 => Fault::Kill(at, length.min(Duration::from_millis(900))),
            2 => Fault::Power(at, length),
            3 => Fault::Kill(other, length),
            4 => Fault::Power(other, length),
            5 | 6 => Fault::Isolate(at, length),
            7 => Fault::Deafen(at, length),
            8 => Fault::MirrorCut(length),
            _ => Fault::Pause(at, length),
        };
        self.make(fault);
    }

    /// Lengths: most are short, some outlive every timeout.
    fn length(&mut self) -> Duration {
        match self.rng.below(10) {
            0..3 => self.rng.millis(20, 400),
            3..7 => self.rng.millis(400, 3_000),
            7..9 => self.rng.millis(3_000, 9_000),
            _ => self.rng.millis(9_000, 20_000),
        }
    }

    fn data_node(&mut self) -> NodeId {
        // The active twice as often: most of what can break breaks there.
        let active = self.active().unwrap_or(A);
        if self.rng.chance(330) {
            active
        } else {
            let nodes = self.options.data_nodes();
            self.rng.pick(&nodes)
        }
    }

    /// Another data node than this one.
    fn other_data_node(&mut self, at: NodeId) -> NodeId {
        let mut others = self.options.data_nodes();
        others.retain(|node| *node != at);
        match others.as_slice() {
            // A witness is at fault: either of the two.
            [first, _] if self.options.replicas == 2 => *first,
            [only] => *only,
            _ => self.rng.pick(&others),
        }
    }

    fn any_node(&mut self) -> NodeId {
        if self.rng.chance(250) {
            W
        } else {
            self.data_node()
        }
    }

    fn two_nodes(&mut self) -> (NodeId, NodeId) {
        self.rng
            .pick(&[(A, B), (B, A), (A, W), (W, A), (B, W), (W, B)])
    }

    fn any_fault(&mut self) -> Fault {
        let length = self.length();
        match self.rng.below(100) {
            0..14 => Fault::Kill(self.any_node(), length.min(Duration::from_secs(4))),
            14..24 => Fault::Power(self.any_node(), length + Duration::from_millis(500)),
            24..26 => Fault::PowerBoth(length),
            26..35 => Fault::Pause(self.any_node(), length),
            35..43 => Fault::Isolate(self.any_node(), length),
            43..47 => Fault::Deafen(self.any_node(), length),
            47..53 => {
                let (a, b) = self.two_nodes();
                Fault::OneWay(a, b, length)
            }
            53..56 => {
                let (a, b) = self.two_nodes();
                Fault::Link(a, b, u8::from(self.rng.chance(500)), length)
            }
            56..60 => Fault::MirrorCut(length),
            60..62 => Fault::MirrorSlow(length),
            62..66 if self.options.clocks_stop => Fault::Freeze(self.any_node(), length),
            62..66 => Fault::MirrorReset,
            66..69 => Fault::Noise(length),
            69..72 => self.disk_fault(length),
            72..75 => Fault::DiskHang(self.data_node(), length),
            75..78 => Fault::DiskSlow(self.data_node(), length),
            78..81 => Fault::SlowFile(self.any_node(), length),
            81..84 => Fault::FileFails(self.any_node()),
            84..86 => self.snapshot_fault(length),
            86..89 => Fault::AppEnds,
            89..91 => Fault::AppBroken(self.data_node(), length),
            91..93 => Fault::StopHangs(self.data_node(), length),
            93..98 => Fault::Move,
            _ => Fault::StopStart(length),
        }
    }

    fn disk_fault(&mut self, length: Duration) -> Fault {
        let at = self.data_node();
        let fault = match self.rng.below(4) {
            0 => Fault::DiskWrites(at, length),
            1 => Fault::DiskFlush(at, 1),
            2 => Fault::DiskReads(at, length),
            _ => Fault::BadSectors(at, length),
        };
        // A disk that fails while another one is being restored from a snapshot: two bad disks are beyond any promise.
        let nodes = self.options.data_nodes();
        let restoring = self.faults.rolled_back > 0 && nodes.iter().any(|n| !self.machine(*n).up);
        if restoring { Fault::MirrorReset } else { fault }
    }

    /// A snapshot is restored only where the other replica is whole, and is not about to be taken out: two old disks are beyond
    /// any promise.
    fn snapshot_fault(&mut self, length: Duration) -> Fault {
        let at = self.data_node();
        let record = self.checkers.epochs_rise.newest();
        let kept = record.is_some_and(|r| r.in_sync().iter().any(|node| *node != at));
        let settled = self.register(at).unresolved.is_empty();
        if kept && settled && self.faults.rolled_back == 0 {
            Fault::RollBack(at, length)
        } else {
            Fault::Power(at, length)
        }
    }

    /// Faults of which each alone must move the group at most once, and after which service must come back.
    fn single_fault(&mut self) -> Fault {
        let length = self.length().min(Duration::from_secs(8));
        match self.rng.below(16) {
            0 => Fault::Kill(self.any_node(), length.min(Duration::from_secs(3))),
            1 | 2 => Fault::Power(self.any_node(), length + Duration::from_millis(500)),
            3 => Fault::Pause(self.any_node(), length),
            4 | 5 => Fault::Isolate(self.any_node(), length),
            6 => Fault::Deafen(self.any_node(), length),
            7 => {
                let (a, b) = self.two_nodes();
                Fault::OneWay(a, b, length)
            }
            8 => {
                let (a, b) = self.two_nodes();
                Fault::Link(a, b, u8::from(self.rng.chance(500)), length)
            }
            9 => Fault::MirrorCut(length),
            10 => Fault::MirrorReset,
            11 => Fault::DiskHang(self.data_node(), length),
            12 => Fault::SlowFile(self.any_node(), length),
            13 => Fault::AppEnds,
            14 => Fault::Move,
            _ => Fault::Isolate(W, length),
        }
    }

    // ---- what a person does -------------------------------------------------------------------------------------

    /// A person looks after the cluster: replaces daemons whose disk failed, and starts a group that is held.
    pub(crate) fn tend(&mut self) {
        for at in self.options.data_nodes() {
            let machine = self.machine(at);
            let healthy = machine.disks.iter().all(|d| d.fault.is_over());
            if machine.disk_failed && healthy && machine.process.is_some() {
                machine.disk_failed = false;
                self.say(at, "a person has repaired the disk and restarts the daemon");
                self.kill_process(at, Some(Duration::from_millis(200)));
            }
        }
        self.answer_held_back();
        let held = self
            .checkers
            .epochs_rise
            .newest()
            .filter(|record| matches!(record.intent, Intent::Hold(_)))
            .map(|record| record.active);
        if let Some(active) = held
            && self.faults.over
        {
            self.ask(active, GroupRequest::Start);
        }
    }

    /// A person lets go what a node could not put aside.
    fn answer_held_back(&mut self) {
        let now = self.now;
        for node in self.options.data_nodes() {
            let machine = self.machine(node);
            let local = machine.local(now);
            let view = machine.process.as_ref().map(|it| it.node.view(local));
            let group = view.and_then(|view| view.groups.into_iter().next());
            let Some(group) = group else {
                continue;
            };
            let Some(epoch) = group.record.map(|record| record.epoch) else {
                continue;
            };
            for (mirror, bytes) in group.held_here {
                let request = GroupRequest::Demote {
                    mirror,
                    node,
                    bytes,
                    epoch,
                };
                self.ask(node, request);
            }
        }
    }

    /// What keeps the group from being whole and serving; none if it is.
    pub(crate) fn missing(&mut self) -> Option<String> {
        for at in [A, B, W] {
            let machine = self.machine(at);
            if machine.process.as_ref().is_none_or(|p| p.paused) {
                return Some(format!("{at:?} does not run"));
            }
        }
        if let Some(fault) = self.faults.open.values().next() {
            return Some(format!("{fault:?} lasts"));
        }
        let record = self.checkers.epochs_rise.newest();
        service_back::missing(record).or_else(|| self.missing_service())
    }

    /// What keeps the active from serving; none if it does.
    pub(crate) fn missing_service(&mut self) -> Option<String> {
        let active = self.active()?;
        let (now, address) = (self.now, self.address());
        let machine = self.machine(active);
        if !machine.answers(address, now) {
            return Some(format!("the address does not answer on {active:?}"));
        }
        if machine.instance.as_ref().is_none_or(|i| !i.working) {
            return Some(format!("the application does not run on {active:?}"));
        }
        if machine.gate == Time::ZERO
            || now.since(self.checkers.last_answer) > Duration::from_millis(500)
        {
            return Some("the application gets no answers".to_owned());
        }
        None
    }
}
