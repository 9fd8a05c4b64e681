//! The world: three machines, their networks, and everything that happens to them, in one thread and from one seed.

use crate::checkers::{Checkers, Violation};
use crate::clock::Moment;
use crate::fault::Faults;
use crate::history::History;
use crate::machine::Machine;
use crate::network::Network;
use crate::options::Options;
use crate::oracle::Oracle;
use crate::queue::{Event, Queue, ToProcess};
use crate::rng::Rng;
use crate::stream::Stream;
use crate::trace::Trace;
use mirror::io::ConnId;
use std::collections::BTreeMap;
use wire::{Duration, GroupId, NodeId};

/// The first data node: its disk holds the origin.
pub const A: NodeId = NodeId(0);
/// The second data node: its disk is blank.
pub const B: NodeId = NodeId(1);
/// The witness, or the third data node: its disk is blank, too.
pub const W: NodeId = NodeId(2);
/// The only group.
pub(crate) const GROUP: GroupId = GroupId(0);
/// Consecutive wakes without time passing that count as a busy loop.
const SPINS_MAX: u32 = 500;

/// Everything.
#[derive(Debug)]
pub struct World {
    pub(crate) options: Options,
    pub(crate) now: Moment,
    pub(crate) queue: Queue,
    pub(crate) rng: Rng,
    pub(crate) machines: Vec<Machine>,
    pub(crate) network: Network,
    pub(crate) streams: BTreeMap<ConnId, Stream>,
    pub(crate) oracles: Vec<Oracle>,
    /// Of asynchronous mirrors: what was written since the present activation, in order.
    pub(crate) histories: Vec<History>,
    pub(crate) checkers: Checkers,
    pub(crate) faults: Faults,
    pub(crate) trace: Trace,
    /// Names of everything that needs one.
    pub(crate) names: u64,
    /// The application issues nothing new.
    pub(crate) quiet: bool,
    pub(crate) violation: Option<Violation>,
}

impl World {
    /// A name that nothing else has.
    pub(crate) const fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    pub(crate) fn machine(&mut self, id: NodeId) -> &mut Machine {
        let index = usize::from(id.0).min(self.machines.len() - 1);
        &mut self.machines[index]
    }

    pub(crate) fn machine_and_rng(&mut self, id: NodeId) -> (&mut Machine, &mut Rng) {
        let index = usize::from(id.0).min(self.machines.len() - 1);
        (&mut self.machines[index], &mut self.rng)
    }

    /// Lets something happen after `delay`.
    pub(crate) fn after(&mut self, delay: Duration, event: Event) {
        self.queue.push(self.now + delay, event);
    }

    /// Something that a person would want to read.
    pub(crate) fn say(&mut self, who: NodeId, text: &str) {
        let name = format!("{who:?}");
        self.trace.say(self.now, &name, text);
    }

    /// Tells what happens to the sector that is watched.
    pub(crate) fn watch(
        &mut self,
        who: NodeId,
        range: wire::ByteRange,
        text: impl FnOnce() -> String,
    ) {
        let sector = self
            .options
            .watch
            .and_then(|sector| wire::ByteRange::new(sector * 512, 512));
        if sector.is_some_and(|sector| sector.overlaps(range)) {
            let text = text();
            self.say(who, &text);
        }
    }

    /// A promise is broken: the run ends here.
    pub(crate) fn violate(&mut self, checker: &'static str, what: impl Into<String>) {
        let what = what.into();
        self.trace
            .say(self.now, "CHECK", &format!("{checker}: {what}"));
        if self.violation.is_none() {
            self.violation = Some(Violation {
                checker,
                what,
                at: self.now,
            });
        }
    }

    /// Takes a checker's verdict.
    pub(crate) fn judge(&mut self, checker: &'static str, verdict: Result<(), String>) {
        if let Err(what) = verdict {
            self.violate(checker, what);
        }
    }

    /// Runs until `end`, or until a promise is broken.
    pub(crate) fn run_until(&mut self, end: Moment) {
        while self.violation.is_none() && self.queue.next_at().is_some_and(|at| at <= end) {
            self.step();
        }
        if self.violation.is_none() {
            self.now = self.now.max(end);
        }
    }

    /// Runs until `done`, at most for `bound`. True if it came to that.
    pub fn run_until_or(
        &mut self,
        bound: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        let end = self.now + bound;
        while self.violation.is_none() {
            if done(self) {
                return true;
            }
            if self.queue.next_at().is_none_or(|at| at > end) {
                self.now = end;
                return false;
            }
            self.step();
        }
        false
    }

    fn step(&mut self) {
        if let Some((at, event)) = self.queue.pop() {
            self.now = self.now.max(at);
            self.trace.events += 1;
            self.dispatch(event);
        }
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Process { at, life, what } => self.to_process(at, life, what),
            Event::Datagram {
                from,
                to,
                link,
                bytes,
            } => self.on_datagram(from, to, link, &bytes),
            Event::FileWritten { at, life } => self.on_file_written(at, life),
            Event::DiskDone {
                at,
                boot,
                mirror,
                op,
            } => self.on_disk_done(at, boot, mirror, op),
            Event::Dial {
                from,
                life,
                mirror,
                to,
            } => self.on_dial(from, life, mirror, to),
            Event::Arrive { conn, side } => self.on_arrive(conn, side),
            Event::StreamTimeout { conn, stall } => self.on_stream_timeout(conn, stall),
            Event::Resource { at, boot, act } => self.on_resource(at, boot, act),
            Event::Abandoned {
                at,
                boot,
                life,
                instance,
            } => {
                self.on_abandoned(at, boot, life, instance);
            }
            Event::Start { at, boot } => self.on_start(at, boot),
            Event::Boot { at } => self.on_boot(at),
            Event::Resume { at, life } => self.on_resume(at, life),
            Event::Application { at, instance } => self.on_application(at, instance),
            Event::ApplicationFails { at, instance } => self.fail_application(at, instance),
            Event::Fault => self.on_fault_due(),
            Event::Sharp(at) => self.on_sharp(at),
            Event::Heal(fault) => self.heal(fault),
        }
    }

    /// Hands something to a process, or keeps it back while that one is paused.
    pub(crate) fn to_process(&mut self, at: NodeId, life: u64, what: ToProcess) {
        let Some(process) = self.machine(at).process(life) else {
            return;
        };
        if process.paused {
            process.deferred.push_back(what);
            return;
        }
        self.trace.mix(&[self.now.0, u64::from(at.0), life]);
        match what {
            ToProcess::Node(input) => self.node_input(at, input),
            ToProcess::WakeNode(due) => self.wake_node(at, due),
            ToProcess::Engine { mirror, what } => self.engine_input(at, mirror, what),
            ToProcess::WakeEngine { mirror, due } => self.wake_engine(at, mirror, due),
        }
    }

    fn wake_node(&mut self, at: NodeId, due: Moment) {
        let Some(process) = self.machine(at).process.as_mut() else {
            return;
        };
        if process.wake == Some(due) {
            process.wake = None;
            self.node_input(at, node::Input::Wake);
        }
    }

    /// Arms the timer for the node's next wake.
    pub(crate) fn arm_node(&mut self, at: NodeId) {
        let now = self.now;
        let machine = self.machine(at);
        let local = machine.local(now);
        let clock = machine.clock;
        let Some(process) = machine.process.as_mut() else {
            return;
        };
        let wanted = process.node.wake_at(local);
        let mut due = clock.moment(wanted);
        if due <= now {
            // Many inputs at one moment, as after a pause, are no loop: the wake that is set was not even delivered.
            process.spins += u32::from(process.wake.is_none());
            due = now + Duration::from_micros(50);
        } else {
            process.spins = 0;
        }
        let (spins, life) = (process.spins, process.life);
        if spins > SPINS_MAX {
            self.violate(
                "no_busy_loop",
                format!("node {at:?} asks to be woken at {wanted:?}, which is past"),
            );
            return;
        }
        if process.wake.is_none_or(|at| at > due) {
            process.wake = Some(due);
            self.queue.push(
                due,
                Event::Process {
                    at,
                    life,
                    what: ToProcess::WakeNode(due),
                },
            );
        }
    }

    fn wake_engine(&mut self, at: NodeId, mirror: u8, due: Moment) {
        let Some(engine) = self.engine(at, mirror) else {
            return;
        };
        if engine.wake == Some(due) {
            engine.wake = None;
            self.replica_input(at, mirror, mirror::io::Input::Wake);
        }
    }

    /// Arms the timer for a replica's next wake.
    pub(crate) fn arm_engine(&mut self, at: NodeId, mirror: u8) {
        let now = self.now;
        let clock = self.machine(at).clock;
        let Some(life) = self.machine(at).life() else {
            return;
        };
        let Some(engine) = self.engine(at, mirror) else {
            return;
        };
        let Some(wanted) = engine.replica.wake_at() else {
            return;
        };
        let mut due = clock.moment(wanted);
        if due <= now {
            engine.spins += u32::from(engine.wake.is_none());
            due = now + Duration::from_micros(50);
        } else {
            engine.spins = 0;
        }
        let spins = engine.spins;
        if spins > SPINS_MAX {
            self.violate(
                "no_busy_loop",
                format!("replica {at:?} asks to be woken at {wanted:?}, which is past"),
            );
            return;
        }
        if engine.wake.is_none_or(|at| at > due) {
            engine.wake = Some(due);
            self.queue.push(
                due,
                Event::Process {
                    at,
                    life,
                    what: ToProcess::WakeEngine { mirror, due },
                },
            );
        }
    }

    /// The engine of a mirror in the process that runs on a machine.
    pub(crate) fn engine(&mut self, at: NodeId, mirror: u8) -> Option<&mut crate::machine::Engine> {
        self.machine(at)
            .process
            .as_mut()?
            .engines
            .get_mut(usize::from(mirror))
    }

    /// Index of the application among the resources.
    pub(crate) const fn app(&self) -> u8 {
        self.options.mirrors
    }

    /// Index of the address among the resources.
    pub(crate) const fn address(&self) -> u8 {
        self.options.mirrors + 1
    }
}
