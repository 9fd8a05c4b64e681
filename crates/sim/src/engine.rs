//! The engine around a replica: disk operations, buffers, the application's requests.

use crate::disk::Done;
use crate::machine::Given;
use crate::options::FaultMix;
use crate::oracle::OpId;
use crate::queue::{Event, Payload, ToEngine, ToProcess};
use crate::world::{GROUP, World};
use mirror::control::{Command, Report};
use mirror::io::{BufId, DiskOp, Errno, Input, IoId, Output, RequestId, SpoolOp};
use wire::NodeId;

impl World {
    /// Hands something to an engine.
    pub(crate) fn engine_input(&mut self, at: NodeId, mirror: u8, what: ToEngine) {
        match what {
            ToEngine::Command { serial, command } => self.take_command(at, mirror, serial, command),
            ToEngine::Frame {
                conn,
                header,
                payload,
            } => {
                let Some(engine) = self.engine(at, mirror) else {
                    return;
                };
                let payload = match payload {
                    Payload::None => mirror::io::Payload::None,
                    Payload::Bytes(bytes) => mirror::io::Payload::Bytes(bytes),
                    Payload::Content(bytes) => {
                        mirror::io::Payload::Buf(Self::own_buf(engine, bytes))
                    }
                };
                self.replica_input(
                    at,
                    mirror,
                    Input::Frame {
                        conn,
                        header,
                        payload,
                    },
                );
            }
            ToEngine::Disk(done) => {
                let Done { io, result, fill } = done;
                if let (Some((buf, bytes)), Some(engine)) = (fill, self.engine(at, mirror)) {
                    engine.bufs.insert(buf, bytes);
                }
                self.replica_input(at, mirror, Input::DiskDone { io, result });
            }
            ToEngine::Plain(input) => {
                self.replica_input(at, mirror, input);
            }
        }
    }

    fn own_buf(engine: &mut crate::machine::Engine, bytes: Vec<u8>) -> BufId {
        engine.next_buf += 1;
        let buf = BufId(engine.next_buf);
        engine.bufs.insert(buf, bytes);
        buf
    }

    fn take_command(&mut self, at: NodeId, mirror: u8, serial: u64, command: Command) {
        if matches!(
            command,
            Command::Activate { .. } | Command::Follow { .. } | Command::Abort
        ) {
            self.checkers.fenced.settled(at);
        }
        let Some(engine) = self.engine(at, mirror) else {
            return;
        };
        match &command {
            Command::Activate { epoch, .. } | Command::Sets { epoch, .. } => {
                engine.epoch = Some(*epoch);
            }
            Command::Lease { until } => engine.lease = *until,
            Command::Distrust { .. }
            | Command::Verify { .. }
            | Command::Grow { .. }
            | Command::Resync { .. }
            | Command::Demote
            | Command::Fence
            | Command::Abort
            | Command::Drain
            | Command::Follow { .. } => {}
        }
        if matches!(command, Command::Abort | Command::Follow { .. }) {
            engine.serving = false;
        }
        self.replica_input(at, mirror, Input::Command(command));
        let input = node::Input::Taken {
            group: GROUP,
            mirror,
            serial,
        };
        self.to_node_from_engine(at, mirror, input);
    }

    /// Reports, and the word that a command was taken, reach the node in their order.
    fn to_node_from_engine(&mut self, at: NodeId, mirror: u8, input: node::Input) {
        let moment = self.now + self.rng.micros(10, 400);
        let Some(life) = self.machine(at).life() else {
            return;
        };
        let Some(engine) = self.engine(at, mirror) else {
            return;
        };
        engine.reports_until = engine.reports_until.max(moment);
        let moment = engine.reports_until;
        self.queue.push(
            moment,
            Event::Process {
                at,
                life,
                what: ToProcess::Node(input),
            },
        );
    }

    /// Hands an input to a replica and carries out what it wants.
    pub(crate) fn replica_input(&mut self, at: NodeId, mirror: u8, input: Input) {
        let now = self.now;
        let local = self.machine(at).local(now);
        let Some(engine) = self.engine(at, mirror) else {
            return;
        };
        engine.replica.handle(local, input);
        self.drain_engine(at, mirror);
    }

    /// Carries out what a replica wants, in its order.
    pub(crate) fn drain_engine(&mut self, at: NodeId, mirror: u8) {
        while let Some(output) = self.engine(at, mirror).and_then(|e| e.replica.poll()) {
            self.carry_out_io(at, mirror, output);
            if self.violation.is_some() {
                return;
            }
        }
        self.arm_engine(at, mirror);
    }

    fn carry_out_io(&mut self, at: NodeId, mirror: u8, output: Output) {
        match output {
            Output::Disk { io, op } => self.submit(at, mirror, io, op),
            Output::Spool { io, op } => self.spool(at, mirror, io, op),
            Output::Undo { .. } => {
                self.violate("contract", format!("{at:?} has no undo log"));
            }
            Output::Measure => self.measured(at, mirror),
            Output::PutAside { ranges, .. } => self.put_aside(at, mirror, &ranges),
            Output::Alloc { buf, len } => {
                let len = usize::try_from(len).unwrap_or(0);
                if let Some(engine) = self.engine(at, mirror) {
                    engine.bufs.insert(buf, vec![0; len]);
                }
            }
            Output::Release { buf } => {
                let known = self.engine(at, mirror).and_then(|e| e.bufs.remove(&buf));
                if known.is_none() {
                    self.violate(
                        "contract",
                        format!("{at:?} releases {buf:?}, which it does not have"),
                    );
                }
            }
            Output::Connect { node } => self.dial(at, mirror, node),
            Output::Send {
                conn,
                header,
                payload,
            } => self.send_frame(at, mirror, conn, header, payload),
            Output::Disconnect { conn } => self.hang_up(at, conn),
            Output::Reply { id, result } => self.reply(at, mirror, id, result),
            Output::Report(report) => self.report(at, mirror, report),
        }
    }

    /// The spool never gives back anything else than was put there, and fails now and then.
    fn spool(&mut self, at: NodeId, mirror: u8, io: IoId, op: SpoolOp) {
        let fails = self.options.faults == FaultMix::Rough && self.rng.chance(1);
        let delay = self.rng.micros(50, 2_000);
        let Some(life) = self.machine(at).life() else {
            return;
        };
        let Some(engine) = self.engine(at, mirror) else {
            return;
        };
        match op {
            SpoolOp::Write { offset, buf } => {
                let bytes = engine.bufs.get(&buf).cloned().unwrap_or_default();
                engine.spool.insert(offset, bytes);
            }
            SpoolOp::Read { offset, buf } => {
                let bytes = engine.spool.get(&offset).cloned().unwrap_or_default();
                let wanted = engine.bufs.insert(buf, bytes.clone());
                if wanted.is_none_or(|wanted| wanted.len() != bytes.len()) {
                    self.violate(
                        "contract",
                        format!("{at:?} reads a wrong place of its spool"),
                    );
                }
            }
        }
        let result = if fails { Err(Errno::IO) } else { Ok(()) };
        let what = ToEngine::Plain(Input::SpoolDone { io, result });
        let what = ToProcess::Engine { mirror, what };
        self.after(delay, Event::Process { at, life, what });
    }

    fn submit(&mut self, at: NodeId, mirror: u8, io: IoId, op: DiskOp) {
        let data = if let DiskOp::Write { buf, .. } = &op {
            self.engine(at, mirror)
                .and_then(|e| e.bufs.get(buf).cloned())
        } else {
            None
        };
        self.watch_disk(at, mirror, &op, data.as_deref());
        let is_meta = matches!(op, DiskOp::MetaWrite { .. });
        let mut delay = match op {
            DiskOp::Flush => self.rng.micros(200, 2_000),
            DiskOp::MetaWrite { .. } => self.rng.micros(100, 1_200),
            DiskOp::Read { .. }
            | DiskOp::Write { .. }
            | DiskOp::Zero { .. }
            | DiskOp::MetaRead { .. } => self.rng.micros(30, 300),
        };
        if self.rng.chance(5) {
            delay += self.rng.millis(1, 40);
        }
        let machine = self.machine(at);
        let boot = machine.boot;
        let Some(disk) = machine.disks.get_mut(usize::from(mirror)) else {
            return;
        };
        delay *= disk.fault.slow.max(1);
        if is_meta {
            delay *= disk.fault.slow_meta.max(1);
        }
        match disk.submit(io, op, data) {
            Ok(op) if disk.waits(op) => disk.waiting.push(op),
            Ok(op) => self.after(
                delay,
                Event::DiskDone {
                    at,
                    boot,
                    mirror,
                    op,
                },
            ),
            Err(what) => self.violate("contract", format!("{at:?}: {what}")),
        }
    }

    fn watch_disk(&mut self, at: NodeId, mirror: u8, op: &DiskOp, data: Option<&[u8]>) {
        let whole = wire::ByteRange::new(0, u64::MAX);
        let (range, what) = match op {
            DiskOp::Read { range, .. } => (Some(*range), "reads"),
            DiskOp::Write { range, .. } => (Some(*range), "writes"),
            DiskOp::Zero { range, .. } => (Some(*range), "zeroes"),
            DiskOp::Flush => (whole, "flushes"),
            DiskOp::MetaRead { .. } | DiskOp::MetaWrite { .. } => (None, ""),
        };
        if let Some(range) = range {
            let content = data
                .and_then(|d| d.get(..512))
                .and_then(crate::oracle::content_of);
            self.watch(at, range, || {
                format!("disk {mirror} {what} {range:?} {content:x?}")
            });
        }
    }

    /// A disk operation ends, unless the disk hangs.
    pub(crate) fn on_disk_done(&mut self, at: NodeId, boot: u64, mirror: u8, op: u64) {
        let (machine, rng) = self.machine_and_rng(at);
        if machine.boot != boot {
            return;
        }
        let life = machine.life();
        let Some(disk) = machine.disks.get_mut(usize::from(mirror)) else {
            return;
        };
        if disk.waits(op) || machine.frozen {
            disk.waiting.push(op);
            return;
        }
        let Some(done) = disk.finish(op, rng) else {
            return;
        };
        self.trace.mix(&[self.now.0, u64::from(at.0), done.io.0]);
        if let Some(life) = life {
            let what = ToProcess::Engine {
                mirror,
                what: ToEngine::Disk(done),
            };
            self.to_process(at, life, what);
        }
    }

    /// A hung disk answers again: everything that waited ends soon.
    pub(crate) fn unhang(&mut self, at: NodeId) {
        let machine = self.machine(at);
        let boot = machine.boot;
        let mut waiting = Vec::new();
        for (mirror, disk) in (0..).zip(&mut machine.disks) {
            waiting.extend(disk.waiting.drain(..).map(|op| (mirror, op)));
        }
        for (mirror, op) in waiting {
            let delay = self.rng.micros(50, 3_000);
            self.after(
                delay,
                Event::DiskDone {
                    at,
                    boot,
                    mirror,
                    op,
                },
            );
        }
    }

    /// Gives a request of the application to the replica.
    pub(crate) fn give(
        &mut self,
        at: NodeId,
        mirror: u8,
        op: OpId,
        request: crate::instance::Request,
    ) {
        let Some(engine) = self.engine(at, mirror) else {
            return;
        };
        engine.next_request += 1;
        let id = RequestId(engine.next_request);
        let sectors = request.range.len() / 512;
        let buf = match request.op {
            mirror::io::Op::Write { .. } => Some(Self::own_buf(
                engine,
                crate::oracle::bytes_of(request.content, sectors),
            )),
            mirror::io::Op::Read => Some(Self::own_buf(
                engine,
                crate::oracle::bytes_of(u64::MAX, sectors),
            )),
            mirror::io::Op::Zero { .. } | mirror::io::Op::Flush => None,
        };
        engine.requests.insert(id, Given { op, buf });
        let request = mirror::io::Request {
            id,
            op: request.op,
            range: request.range,
            buf,
        };
        let Some(life) = self.machine(at).life() else {
            return;
        };
        let what = ToEngine::Plain(Input::Request(request));
        self.to_process(at, life, ToProcess::Engine { mirror, what });
    }

    fn reply(&mut self, at: NodeId, mirror: u8, id: RequestId, result: Result<(), Errno>) {
        let now = self.now;
        let local = self.machine(at).local(now);
        let Some(engine) = self.engine(at, mirror) else {
            return;
        };
        let Some(given) = engine.requests.remove(&id) else {
            self.violate("contract", format!("{at:?} answers {id:?} twice"));
            return;
        };
        let bytes = given
            .buf
            .and_then(|buf| engine.bufs.get(&buf).cloned())
            .unwrap_or_default();
        let (lease, epoch) = (engine.lease, engine.epoch);
        if result.is_ok() {
            let verdict = crate::checkers::lease_bounds_answers::check(at, local, lease);
            self.judge("lease_bounds_answers", verdict);
        }
        self.answer_application(at, mirror, given.op, result, &bytes, epoch);
    }

    fn report(&mut self, at: NodeId, mirror: u8, report: Report) {
        self.say(at, &format!("mirror {mirror} reports {report:?}"));
        if let Report::ResyncStarted { .. } = report {
            self.checkers.resyncs += 1;
        }
        self.tempt(at, 12);
        match &report {
            Report::Serving { .. } => self.on_serving(at, mirror),
            Report::PeerBack { node, .. } | Report::PeerSynced { node, .. } => {
                self.caught_up(at, *node, mirror);
                if let Some(history) = self.histories.get_mut(usize::from(mirror)) {
                    history.equal(*node);
                }
            }
            Report::Following { active, .. } => {
                let disk = self.machines[usize::from(at.0)]
                    .disks
                    .get(usize::from(mirror));
                let history = self.histories.get_mut(usize::from(mirror));
                let left = history
                    .zip(disk)
                    .and_then(|(h, d)| h.overwritten(at, d.content()));
                self.judge_put_aside(at, mirror, left);
                if let Some(oracle) = self.oracles.get_mut(usize::from(mirror)) {
                    oracle.reconciled_by(*active, at);
                }
            }
            Report::AttachFailed { .. } | Report::LocalFailed { .. } => {
                self.machine(at).disk_failed = true;
            }
            Report::LetGo(_) => {
                let whole = wire::ByteRange::new(0, crate::setup::DATA_BYTES);
                self.copied(at, mirror, whole.as_slice());
            }
            Report::Attached { .. }
            | Report::Fenced
            | Report::PeerLost { .. }
            | Report::PeerBehind { .. }
            | Report::PeerWithin { .. }
            | Report::PutAside { .. }
            | Report::HeldBack { .. }
            | Report::CannotFollow { .. }
            | Report::ResyncStarted { .. }
            | Report::UndoLost { .. }
            | Report::Unreadable { .. }
            | Report::Verified { .. }
            | Report::Grown { .. }
            | Report::NotGrown { .. }
            | Report::Drained
            | Report::Closed => {}
        }
        let input = node::Input::Mirror {
            group: GROUP,
            mirror,
            report,
        };
        self.to_node_from_engine(at, mirror, input);
    }

    fn on_serving(&mut self, at: NodeId, mirror: u8) {
        if let Some(engine) = self.engine(at, mirror) {
            engine.serving = true;
        }
        // One that was deposed while it was stopped may say so still; without a lease it answers nobody.
        let newest = self.checkers.epochs_rise.newest();
        if newest.is_some_and(|record| record.active != at) {
            return;
        }
        let index = usize::from(mirror);
        let machine = &self.machines[usize::from(at.0)];
        let (Some(disk), Some(oracle)) = (machine.disks.get(index), self.oracles.get_mut(index))
        else {
            return;
        };
        let verdict = crate::checkers::inconsistent_never_promoted::check(disk.content())
            .map_err(|what| format!("{at:?} serves mirror {mirror}: {what}"));
        let mut late = None;
        let lossy = |server| server != at && self.options.may_lose_to(server, at);
        if oracle.server().is_some_and(lossy) {
            // A planned move loses nothing; else what is missing must be the end of the history.
            let planned = oracle.clone().settle(at, disk.content()).is_ok();
            if !planned {
                late = self
                    .histories
                    .get(index)
                    .map(|h| h.state(at, disk.content()));
                let former = oracle.server().filter(|from| *from != at);
                let old = former.and_then(|from| {
                    let machine = self.machines.get(usize::from(from.0))?;
                    Some((from, machine.disks.get(index)?.content()))
                });
                if let (Some((from, old)), Some(history)) = (old, self.histories.get_mut(index)) {
                    history.take_over(from, old, disk.content());
                }
                oracle.cut_off(at);
                self.checkers.cut_off += 1;
            }
        }
        let settled = oracle.settle(at, disk.content());
        let settled = settled.map_err(|what| format!("{at:?} serves mirror {mirror}, but {what}"));
        self.judge("inconsistent_never_promoted", verdict);
        self.judge("acked_survives", settled);
        if let Some(state) = late {
            self.judge_follower(at, mirror, &state);
        }
        if let Some(history) = self.histories.get_mut(index) {
            history.begin();
        }
    }
}
