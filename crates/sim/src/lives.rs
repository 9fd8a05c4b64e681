//! Lives: machines boot and lose power, daemons start, stop for a while, and die.

use crate::clock::{Clock, Moment};
use crate::machine::{Engine, Machine, Process};
use crate::queue::{Event, ToProcess};
use crate::setup;
use crate::world::{GROUP, World};
use node::{Input, Node};
use std::collections::{BTreeMap, VecDeque};
use wire::durable::Durable;
use wire::{Duration, NodeId, Time};

impl World {
    /// The machine is switched on.
    pub(crate) fn on_boot(&mut self, at: NodeId) {
        let now = self.now;
        let rate = setup::clock_rate(&self.options, &mut self.rng);
        let machine = self.machine(at);
        if machine.up {
            return;
        }
        machine.up = true;
        machine.boot += 1;
        machine.clock = Clock::new(now, rate);
        let boot = machine.boot;
        machine.starting = true;
        self.say(at, "the machine boots");
        let delay = self.rng.millis(100, 800);
        self.after(delay, Event::Start { at, boot });
    }

    /// The supervisor starts the daemon.
    pub(crate) fn on_start(&mut self, at: NodeId, boot: u64) {
        let machine = self.machine(at);
        if machine.boot != boot || !machine.up || machine.process.is_some() {
            return;
        }
        if machine.frozen {
            return self.after(Duration::from_millis(50), Event::Start { at, boot });
        }
        machine.starting = false;
        self.start_process(at);
    }

    fn start_process(&mut self, at: NodeId) {
        let life = self.name();
        let seed = self.rng.bits();
        let now = self.now;
        for disk in &mut self.machine(at).disks {
            disk.take_snapshot();
        }
        let engines = self.make_engines(at);
        let config = setup::node_config(&self.options, at, life, seed);
        let machine = self.machine(at);
        let local = machine.local(now);
        let durable = Durable::decode(&machine.file).unwrap_or_else(|_| Durable::new(at));
        machine.process = Some(Process {
            life,
            node: Node::new(config, durable, local),
            engines,
            paused: false,
            deferred: VecDeque::new(),
            wake: None,
            writing: None,
            to_write: None,
            spins: 0,
        });
        let found = machine.instance.is_some();
        self.say(at, "the daemon starts");
        self.drain_node(at);
        if found {
            self.node_input(at, Input::Found { group: GROUP });
        }
        for mirror in 0..self.options.mirrors {
            if self.engine(at, mirror).is_some() {
                self.drain_engine(at, mirror);
            }
        }
    }

    fn make_engines(&mut self, at: NodeId) -> Vec<Engine> {
        let (now, options) = (self.now, self.options.clone());
        let identity = u128::from(self.rng.bits());
        let machine = self.machine(at);
        let (local, boot) = (machine.local(now), machine.boot);
        machine
            .disks
            .iter()
            .map(|disk| {
                let config = setup::replica_config(&options, at, disk.bytes(), boot, identity);
                Engine {
                    replica: mirror::Replica::new(config, local),
                    bufs: BTreeMap::new(),
                    next_buf: 0,
                    next_request: 0,
                    requests: BTreeMap::new(),
                    wake: None,
                    commands_until: now,
                    reports_until: now,
                    lease: Time::ZERO,
                    epoch: None,
                    serving: false,
                    spins: 0,
                    spool: BTreeMap::new(),
                }
            })
            .collect()
    }

    /// The daemon dies at once; what it left in the kernel stays. The supervisor starts it again after `back`.
    pub(crate) fn kill_process(&mut self, at: NodeId, back: Option<Duration>) {
        let (machine, rng) = self.machine_and_rng(at);
        let Some(process) = machine.process.take() else {
            return;
        };
        if let Some((_, durable)) = process.writing
            && rng.chance(500)
        {
            machine.file = durable.encode();
        }
        for disk in &mut machine.disks {
            disk.orphan(rng);
        }
        let boot = machine.boot;
        machine.starting = back.is_some();
        self.checkers.fenced.settled(at);
        self.say(at, "the daemon dies");
        self.close_streams_of(at, process.life);
        if let Some(back) = back {
            self.after(back, Event::Start { at, boot });
        }
    }

    /// The machine loses power. It is switched on again after `back`.
    pub(crate) fn cut_power(&mut self, at: NodeId, back: Option<Duration>) {
        let (machine, rng) = self.machine_and_rng(at);
        if !machine.up {
            return;
        }
        machine.up = false;
        machine.frozen = false;
        machine.gate = Time::ZERO;
        machine.acts.clear();
        if let Some(process) = machine.process.take()
            && let Some((_, durable)) = process.writing
            && rng.chance(500)
        {
            machine.file = durable.encode();
        }
        for disk in &mut machine.disks {
            disk.lose_power(rng);
        }
        let instance = machine.instance.take();
        self.checkers.fenced.settled(at);
        self.say(at, "the machine loses power");
        for oracle in &mut self.oracles {
            oracle.lost_cache(at);
        }
        for history in &mut self.histories {
            history.lost_cache(at);
        }
        if let Some(instance) = instance {
            self.orphan_requests(&instance);
        }
        self.silence_streams_of(at);
        if let Some(back) = back {
            self.after(back, Event::Boot { at });
        }
    }

    /// The daemon is stopped by a signal for a while; kernel and disks go on.
    pub(crate) fn pause(&mut self, at: NodeId, length: Duration) {
        let Some(process) = self.machine(at).process.as_mut() else {
            return;
        };
        if process.paused {
            return;
        }
        process.paused = true;
        let life = process.life;
        self.say(at, &format!("the daemon is stopped for {length:?}"));
        self.after(length, Event::Resume { at, life });
    }

    /// A hypervisor freezes the machine: nothing happens on it, and its clock stands still.
    pub(crate) fn freeze(&mut self, at: NodeId) {
        let now = self.now;
        let machine = self.machine(at);
        if !machine.up || machine.frozen {
            return;
        }
        machine.frozen = true;
        machine.clock.stop(now);
        if let Some(process) = machine.process.as_mut() {
            process.paused = true;
        }
        if let Some(instance) = machine.instance.as_mut() {
            instance.suspect = true;
        }
        self.say(at, "the machine is frozen");
        for (one, two) in self.mirror_pairs_near(at) {
            self.stall_streams(one, two);
        }
    }

    /// The machine goes on as if nothing had happened.
    pub(crate) fn thaw(&mut self, at: NodeId) {
        let now = self.now;
        let machine = self.machine(at);
        if !machine.frozen {
            return;
        }
        machine.frozen = false;
        machine.clock.go_on(now);
        let life = machine.life();
        self.say(at, "the machine goes on");
        self.unhang(at);
        for (one, two) in self.mirror_pairs_near(at) {
            self.resume_streams(one, two);
        }
        if let Some(life) = life {
            self.on_resume(at, life);
        }
    }

    /// A stopped daemon goes on: everything that came meanwhile is handled, in its order.
    pub(crate) fn on_resume(&mut self, at: NodeId, life: u64) {
        let machine = self.machine(at);
        if machine.frozen {
            return;
        }
        let Some(process) = machine.process(life).filter(|process| process.paused) else {
            return;
        };
        process.paused = false;
        self.say(at, "the daemon goes on");
        while let Some(what) = self.next_deferred(at, life) {
            self.to_process(at, life, what);
            if self.violation.is_some() {
                return;
            }
        }
    }

    fn next_deferred(&mut self, at: NodeId, life: u64) -> Option<ToProcess> {
        self.machine(at).process(life)?.deferred.pop_front()
    }

    /// The member file was written.
    pub(crate) fn on_file_written(&mut self, at: NodeId, life: u64) {
        let machine = self.machine(at);
        if machine.frozen {
            return self.after(Duration::from_millis(50), Event::FileWritten { at, life });
        }
        if machine.file_fails && machine.process(life).is_some() {
            machine.file_fails = false;
            self.say(at, "writing the member file failed");
            let back = self.rng.millis(50, 500);
            self.kill_process(at, Some(back));
            return;
        }
        let Some(process) = machine.process(life) else {
            return;
        };
        let Some((ticket, durable)) = process.writing.take() else {
            return;
        };
        process.writing = process.to_write.take();
        let more = process.writing.is_some();
        machine.file = durable.encode();
        if more {
            self.write_file(at, life);
        }
        let what = ToProcess::Node(Input::Persisted { ticket });
        self.to_process(at, life, what);
    }

    /// Begins to write the state at the head of the line.
    pub(crate) fn write_file(&mut self, at: NodeId, life: u64) {
        let mut delay = self.rng.micros(100, 1_500);
        if self.rng.chance(10) {
            delay += self.rng.millis(1, 60);
        }
        delay *= self.machine(at).slow_file.max(1);
        self.after(delay, Event::FileWritten { at, life });
    }
}

/// A machine that was never switched on.
pub(crate) const fn machine(id: NodeId, disks: Vec<crate::disk::Disk>) -> Machine {
    Machine {
        id,
        clock: Clock::new(Moment(0), 1_000_000),
        up: false,
        frozen: false,
        boot: 0,
        disks,
        file: Vec::new(),
        gate: Time::ZERO,
        instance: None,
        acts: BTreeMap::new(),
        process: None,
        starting: false,
        slow_file: 1,
        file_fails: false,
        disk_failed: false,
        no_room: false,
        app_broken: false,
        stop_hangs: false,
    }
}
