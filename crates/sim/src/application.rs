//! The application of the group: writes, reads and flushes whatever the active's devices take, and remembers the answers.

use crate::instance::{Instance, Request};
use crate::options::Level;
use crate::oracle::OpId;
use crate::queue::{Event, ToProcess};
use crate::world::{GROUP, World};
use mirror::io::{Errno, Op};
use wire::{ByteRange, Duration, Epoch, NodeId};

/// Most requests under way.
const DEPTH: usize = 6;
/// Longest request, in sectors.
const SECTORS_MAX: u64 = 24;

impl World {
    /// The application's next step.
    pub(crate) fn on_application(&mut self, at: NodeId, id: u64) {
        let (mirrors, pace) = (self.options.mirrors, self.options.pace);
        let machine = self.machine(at);
        let Some(instance) = machine
            .instance
            .as_ref()
            .filter(|i| i.id == id && i.working)
        else {
            return;
        };
        if machine.frozen {
            return self.after(
                Duration::from_millis(50),
                Event::Application { at, instance: id },
            );
        }
        let full = instance.open_requests() >= DEPTH;
        let micros = u64::try_from(pace.as_micros()).unwrap_or(1);
        let wait = match self.rng.below(10) {
            0..3 => Duration::from_micros(20),
            3..9 => self.rng.micros(micros / 4, micros),
            _ => self.rng.micros(micros, micros * 6),
        };
        self.after(wait, Event::Application { at, instance: id });
        if full || self.quiet {
            return;
        }
        let mirror = u8::try_from(self.rng.below(u64::from(mirrors))).unwrap_or(0);
        let request = self.next_request(mirror);
        self.issue(at, mirror, request);
    }

    fn next_request(&mut self, mirror: u8) -> Request {
        let sectors = self
            .oracles
            .get(usize::from(mirror))
            .map_or(0, crate::oracle::Oracle::sectors);
        let fua = self.rng.chance(150);
        let op = match self.rng.below(100) {
            0..55 => Op::Write { fua },
            55..62 => Op::Zero { fua },
            62..72 => Op::Flush,
            _ => Op::Read,
        };
        if op == Op::Flush {
            return Request {
                op,
                range: ranged(0, 0),
                content: 0,
            };
        }
        let mut len = self.rng.between(1, SECTORS_MAX);
        // Half of all requests meet in a small place, so that they overlap; most are whole blocks.
        let room = if self.rng.chance(500) {
            sectors.min(64)
        } else {
            sectors
        };
        let mut first = self.rng.below(room.saturating_sub(len) + 1);
        if self.rng.chance(700) {
            first = first / 8 * 8;
            len = len.div_ceil(8) * 8;
        }
        let len = len.min(sectors - first);
        let content = if matches!(op, Op::Zero { .. }) {
            0
        } else {
            self.name()
        };
        Request {
            op,
            range: ranged(first, len),
            content,
        }
    }

    fn issue(&mut self, at: NodeId, mirror: u8, request: Request) {
        let op = OpId(self.name());
        let (first, sectors) = (request.range.offset() / 512, request.range.len() / 512);
        let history = self.histories.get_mut(usize::from(mirror));
        if let Some(history) = history.filter(|_| self.options.may_lose()) {
            history.issue(op, &request);
        }
        let Some(oracle) = self.oracles.get_mut(usize::from(mirror)) else {
            return;
        };
        match request.op {
            Op::Write { fua } | Op::Zero { fua } => {
                oracle.issue_write(op, first, sectors, request.content, fua);
            }
            Op::Read => oracle.issue_read(op, first, sectors),
            Op::Flush => oracle.issue_flush(op),
        }
        let life = self.machine(at).life();
        let Some(device) = self.device(at, mirror) else {
            return;
        };
        device.waiting.insert(op, request);
        if device.served_by.is_some() && device.served_by == life {
            self.give(at, mirror, op, request);
        }
    }

    fn device(&mut self, at: NodeId, mirror: u8) -> Option<&mut crate::instance::Device> {
        self.machine(at).instance.as_mut()?.devices.get_mut(&mirror)
    }

    /// A new daemon serves the device: it gets everything that the former one did not answer, once more.
    pub(crate) fn issue_again(&mut self, at: NodeId, mirror: u8) {
        let Some(device) = self.device(at, mirror) else {
            return;
        };
        let waiting: Vec<(OpId, Request)> =
            device.waiting.iter().map(|(op, r)| (*op, *r)).collect();
        for (op, request) in waiting {
            let known = self
                .engine(at, mirror)
                .is_some_and(|e| e.requests.values().any(|given| given.op == op));
            if !known {
                self.give(at, mirror, op, request);
            }
        }
    }

    /// A replica answered a request of the application.
    pub(crate) fn answer_application(
        &mut self,
        at: NodeId,
        mirror: u8,
        op: OpId,
        result: Result<(), Errno>,
        bytes: &[u8],
        epoch: Option<Epoch>,
    ) {
        let suspect = self
            .machine(at)
            .instance
            .as_ref()
            .is_some_and(|i| i.suspect);
        let request = self
            .device(at, mirror)
            .and_then(|device| device.waiting.remove(&op));
        let level = self.options.level;
        let Some(oracle) = self.oracles.get_mut(usize::from(mirror)) else {
            return;
        };
        self.trace
            .mix(&[self.now.0, op.0, u64::from(result.is_ok())]);
        let Some(request) = request else {
            // The device is gone: nobody hears the answer.
            oracle.abandon(op);
            return;
        };
        let shown = if request.op == Op::Flush {
            ranged(0, 1 << 40)
        } else {
            request.range
        };
        self.watch(at, shown, || {
            format!("mirror {mirror}: {result:?} to {request:x?}")
        });
        let Some(oracle) = self.oracles.get_mut(usize::from(mirror)) else {
            return;
        };
        if result.is_err() {
            oracle.abandon(op);
            self.say(
                at,
                &format!("mirror {mirror} fails {:?} {:?}", request.op, request.range),
            );
            self.application_dies(at);
            return;
        }
        let deposed = suspect && oracle.server().is_some_and(|server| server != at);
        if deposed && needs_nobody(level, &request) {
            // It was frozen, and its clock with it, while another took over: what it answers is cut off like what went before.
            oracle.abandon(op);
            return;
        }
        if let Some(history) = self.histories.get_mut(usize::from(mirror)) {
            history.acknowledged(op, self.now);
        }
        let verdict = oracle.acknowledge(op, bytes).or_else(|what| {
            // A frozen machine does not know how late it is: its clock, and with it its lease, stood still.
            if suspect { Ok(()) } else { Err(what) }
        });
        let verdict = verdict.map_err(|what| format!("on {at:?}, mirror {mirror}: {what}"));
        self.judge("acked_survives", verdict);
        self.checkers.answered(self.now);
        if self.options.level == Level::Async && self.rng.chance(60) {
            self.look_at_follower(mirror);
        }
        // Nor does it know that others took over while its answer to a write, which they have, was on its way.
        if !matches!(request.op, Op::Read)
            && !suspect
            && let Some(epoch) = epoch
        {
            let verdict = self.checkers.one_writer.on_ack(at, epoch);
            self.judge("one_writer", verdict);
        }
    }

    /// Nobody will answer these requests any more.
    pub(crate) fn orphan_requests(&mut self, instance: &Instance) {
        for (mirror, device) in &instance.devices {
            if let Some(oracle) = self.oracles.get_mut(usize::from(*mirror)) {
                for op in device.waiting.keys() {
                    oracle.abandon(*op);
                }
            }
        }
    }

    /// An input/output error ends the application; its monitor notices.
    fn application_dies(&mut self, at: NodeId) {
        let delay = self.rng.millis(1, 30);
        let Some(instance) = self.machine(at).instance.as_mut().filter(|i| i.working) else {
            return;
        };
        instance.working = false;
        let id = instance.id;
        self.after(delay, Event::ApplicationFails { at, instance: id });
    }

    /// The application is gone; its monitor says so.
    pub(crate) fn fail_application(&mut self, at: NodeId, id: u64) {
        let app = self.app();
        let machine = self.machine(at);
        let Some(instance) = machine.instance.as_mut().filter(|i| i.id == id) else {
            return;
        };
        if !instance.running.remove(&app) {
            return;
        }
        instance.working = false;
        self.say(at, "the application ends by itself");
        let Some(life) = self.machine(at).life() else {
            return;
        };
        let input = node::Input::ResourceFailed {
            group: GROUP,
            resource: app,
        };
        self.to_process(at, life, ToProcess::Node(input));
    }
}

fn ranged(first: u64, sectors: u64) -> ByteRange {
    ByteRange::new(first * 512, sectors * 512).unwrap_or_else(|| unreachable!("volumes are small"))
}

/// True if a node may answer without having heard of another.
const fn needs_nobody(level: Level, request: &Request) -> bool {
    let covers = matches!(
        request.op,
        Op::Flush | Op::Write { fua: true } | Op::Zero { fua: true }
    );
    match level {
        Level::Async => true,
        Level::Flush => !covers,
        Level::Write => false,
    }
}
