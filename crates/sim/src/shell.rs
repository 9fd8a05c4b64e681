//! The shell around a node, as the daemon has it: carries out what the node wants done.

use crate::checkers::instance_not_revived;
use crate::instance::{Device, Instance};
use crate::machine::Act;
use crate::queue::{Event, ToEngine, ToProcess};
use crate::world::{GROUP, World};
use node::{Input, Output, ResourceAct};
use std::rc::Rc;
use wire::control::{Datagram, GroupRequest, LinkId};
use wire::event::{Act as Decided, What};
use wire::problem::Problem;
use wire::{Duration, Epoch, NodeId, Time};

/// After that long the shell gives an act on a resource up.
const ACT_TIMEOUT: Duration = Duration::from_secs(3);

impl World {
    /// Hands an input to a node and carries out what it wants.
    pub(crate) fn node_input(&mut self, at: NodeId, input: Input) {
        let now = self.now;
        let machine = self.machine(at);
        let local = machine.local(now);
        let Some(process) = machine.process.as_mut() else {
            return;
        };
        process.node.handle(local, input);
        self.drain_node(at);
    }

    /// Carries out what a node wants, in its order.
    pub(crate) fn drain_node(&mut self, at: NodeId) {
        let Some(life) = self.machine(at).life() else {
            return;
        };
        while let Some(output) = self.next_output(at, life) {
            self.carry_out(at, life, output);
        }
        self.arm_node(at);
    }

    fn next_output(&mut self, at: NodeId, life: u64) -> Option<Output> {
        self.machine(at).process(life)?.node.poll()
    }

    fn carry_out(&mut self, at: NodeId, life: u64, output: Output) {
        match output {
            Output::Send { to, link, datagram } => self.send(at, to, link, &datagram),
            Output::Persist { ticket, durable } => {
                let Some(process) = self.machine(at).process(life) else {
                    return;
                };
                if process.writing.is_some() {
                    process.to_write = Some((ticket, durable));
                } else {
                    process.writing = Some((ticket, durable));
                    self.write_file(at, life);
                }
            }
            Output::Mirror {
                mirror,
                serial,
                command,
                ..
            } => {
                self.command(at, life, mirror, serial, command);
            }
            Output::Resource {
                resource,
                act,
                token,
                ..
            } => {
                self.begin_act(at, life, resource, act == ResourceAct::Start, token);
            }
            Output::Abandon { .. } => self.begin_abandon(at, life),
            Output::Lease { until, .. } => self.set_gate(at, until),
            Output::Event(event) => self.on_event(at, &event),
            Output::Answer { id, result } => {
                self.say(at, &format!("answers request {}: {result:?}", id.0));
            }
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, link: LinkId, datagram: &Datagram) {
        let Some(bytes) = datagram.encode() else {
            self.violate(
                "contract",
                format!("{from:?} made a datagram that is too long"),
            );
            return;
        };
        for message in &datagram.messages {
            let newest = self.checkers.epochs_rise.newest();
            self.checkers.fenced.on_send(from, message, newest);
        }
        let bytes: Rc<[u8]> = bytes.into();
        for delay in self.network.deliveries((from, to, link), &mut self.rng) {
            let bytes = Rc::clone(&bytes);
            self.after(
                delay,
                Event::Datagram {
                    from,
                    to,
                    link,
                    bytes,
                },
            );
        }
    }

    /// A datagram arrives: a machine without a daemon drops it.
    pub(crate) fn on_datagram(&mut self, from: NodeId, to: NodeId, link: LinkId, bytes: &[u8]) {
        if self.network.is_cut((from, to, link)) {
            return;
        }
        self.trace
            .mix(&[self.now.0, u64::from(from.0), u64::from(to.0)]);
        self.trace.mix_bytes(bytes);
        if self.machine(to).frozen {
            return;
        }
        let Some(life) = self.machine(to).life() else {
            return;
        };
        match Datagram::decode(bytes) {
            Ok(datagram) => {
                let input = Input::Received { link, datagram };
                self.to_process(to, life, ToProcess::Node(input));
            }
            Err(fault) => self.violate("contract", format!("a datagram is refused: {fault:?}")),
        }
    }

    fn command(
        &mut self,
        at: NodeId,
        life: u64,
        mirror: u8,
        serial: u64,
        command: mirror::control::Command,
    ) {
        self.say(at, &format!("mirror {mirror}: {command:?}"));
        let moment = self.now + self.rng.micros(10, 400);
        let Some(engine) = self.engine(at, mirror) else {
            return;
        };
        engine.commands_until = engine.commands_until.max(moment);
        let moment = engine.commands_until;
        let what = ToProcess::Engine {
            mirror,
            what: ToEngine::Command { serial, command },
        };
        self.queue.push(moment, Event::Process { at, life, what });
    }

    fn set_gate(&mut self, at: NodeId, until: Time) {
        self.machine(at).gate = until;
        self.check_address();
    }

    pub(crate) fn check_address(&mut self) {
        let (now, address) = (self.now, self.address());
        let answering = self
            .machines
            .iter()
            .filter(|m| m.answers(address, now))
            .map(|m| m.id);
        if self.options.clocks_stop {
            return;
        }
        let verdict = crate::checkers::address_on_one_node::check(answering);
        self.judge("address_on_one_node", verdict);
    }

    fn on_event(&mut self, at: NodeId, event: &wire::event::Event) {
        self.say(at, &format!("{:?}", event.what));
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the rest is told in the trace only"
        )]
        match &event.what {
            What::RecordChanged { record } => {
                let verdict = self.checkers.epochs_rise.learn(at, record);
                self.judge("epochs_rise", verdict);
                self.checkers.one_failover.saw(record);
            }
            What::Asked {
                request: GroupRequest::Promote { node, epoch, .. },
                result: Ok(()),
                ..
            } => self.checkers.epochs_rise.forced = Some((*node, *epoch)),
            What::ProblemBegan(Problem::NoVote { .. }) => {
                self.violate("epochs_rise", format!("the register says so on {at:?}"));
            }
            What::Decision(decision) => {
                if decision.act == Decided::Freeze {
                    self.checkers.freezes += 1;
                }
                self.checkers.grows += u64::from(matches!(decision.act, Decided::AddReplica(_)));
                self.checkers.takeovers += u64::from(matches!(decision.act, Decided::TakeOver(_)));
                self.tempt(at, 60);
            }
            _ => {}
        }
    }

    // ---- resources ----------------------------------------------------------------------------------------------

    fn begin_act(&mut self, at: NodeId, life: u64, resource: u8, start: bool, token: u64) {
        let name = self.name();
        let (app, deadline) = (self.app(), self.now + ACT_TIMEOUT);
        let mut delay = self.rng.micros(200, 5_000);
        if self.rng.chance(100) {
            delay += self.rng.millis(5, 150);
        }
        let verb = if start { "starts" } else { "stops" };
        self.say(at, &format!("{verb} resource {resource}"));
        let born = self.epoch_of(at);
        let machine = self.machine(at);
        let instance = match &mut machine.instance {
            Some(instance) => instance,
            None if start => machine.instance.insert(Instance::new(name, born)),
            None => {
                let input = Input::ResourceDone {
                    group: GROUP,
                    token,
                    ok: true,
                };
                self.after(
                    delay,
                    Event::Process {
                        at,
                        life,
                        what: ToProcess::Node(input),
                    },
                );
                return;
            }
        };
        if !start && resource == app {
            instance.working = false;
        }
        let act = Act {
            life,
            instance: instance.id,
            token,
            resource,
            start,
            deadline,
        };
        let boot = machine.boot;
        machine.acts.insert(name, act);
        self.after(
            delay,
            Event::Resource {
                at,
                boot,
                act: name,
            },
        );
    }

    /// An act on a resource ends, or is not ready to end yet.
    pub(crate) fn on_resource(&mut self, at: NodeId, boot: u64, name: u64) {
        let (app, mirrors, now) = (self.app(), self.options.mirrors, self.now);
        let machine = self.machine(at);
        if machine.frozen && machine.boot == boot {
            let again = Event::Resource {
                at,
                boot,
                act: name,
            };
            return self.after(Duration::from_millis(50), again);
        }
        let Some(act) = machine
            .acts
            .get(&name)
            .copied()
            .filter(|_| machine.boot == boot)
        else {
            return;
        };
        let instance = machine
            .instance
            .as_ref()
            .filter(|i| i.id == act.instance && !i.doomed);
        let Some(instance) = instance else {
            machine.acts.remove(&name);
            self.act_done(at, act, false);
            return;
        };
        let busy = !act.start && act.resource <= app && instance.open_requests() > 0;
        let hangs = !act.start && act.resource == app && machine.stop_hangs;
        if (busy || hangs) && now < act.deadline {
            self.after(
                Duration::from_millis(20),
                Event::Resource {
                    at,
                    boot,
                    act: name,
                },
            );
            return;
        }
        machine.acts.remove(&name);
        let fails = busy || hangs || act.start && act.resource == app && machine.app_broken;
        if !fails {
            self.change_resource(at, act, mirrors);
        }
        self.act_done(at, act, !fails);
    }

    fn change_resource(&mut self, at: NodeId, act: Act, mirrors: u8) {
        let app = self.app();
        let epoch = self.epoch_of(at);
        let Some(instance) = self.machine(at).instance.as_mut() else {
            return;
        };
        let id = instance.id;
        if act.start {
            instance.running.insert(act.resource);
            let born = instance.born;
            if act.resource < mirrors {
                instance
                    .devices
                    .entry(act.resource)
                    .or_insert_with(Device::default)
                    .served_by = Some(act.life);
                self.issue_again(at, act.resource);
            } else if act.resource == app {
                if !instance.working {
                    instance.working = true;
                    self.after(
                        Duration::from_millis(1),
                        Event::Application { at, instance: id },
                    );
                }
            } else {
                self.check_address();
            }
            let verdict = instance_not_revived::check(&self.checkers.epochs_rise, at, born, epoch);
            self.judge(instance_not_revived::NAME, verdict);
            return;
        }
        instance.running.remove(&act.resource);
        if act.resource < mirrors {
            instance.devices.remove(&act.resource);
        }
        if instance.running.is_empty() {
            self.machine(at).instance = None;
        }
    }

    /// The epoch that a node's mirrors serve at.
    fn epoch_of(&mut self, at: NodeId) -> Epoch {
        let engine = self.engine(at, 0);
        engine.and_then(|e| e.epoch).unwrap_or(Epoch(0))
    }

    fn act_done(&mut self, at: NodeId, act: Act, ok: bool) {
        let input = Input::ResourceDone {
            group: GROUP,
            token: act.token,
            ok,
        };
        self.to_process(at, act.life, ToProcess::Node(input));
    }

    fn begin_abandon(&mut self, at: NodeId, life: u64) {
        let address = self.address();
        let delay = self.rng.millis(2, 120);
        let machine = self.machine(at);
        let boot = machine.boot;
        let mut id = 0;
        if let Some(instance) = machine.instance.as_mut() {
            id = instance.id;
            instance.doomed = true;
            instance.working = false;
            instance.running.remove(&address);
        }
        self.say(at, "tears the activation down");
        self.after(
            delay,
            Event::Abandoned {
                at,
                boot,
                life,
                instance: id,
            },
        );
    }

    /// What an activation had open is gone.
    pub(crate) fn on_abandoned(&mut self, at: NodeId, boot: u64, life: u64, instance: u64) {
        let machine = self.machine(at);
        if machine.boot != boot {
            return;
        }
        if machine.frozen {
            let again = Event::Abandoned {
                at,
                boot,
                life,
                instance,
            };
            return self.after(Duration::from_millis(50), again);
        }
        if machine.instance.as_ref().is_some_and(|i| i.id == instance)
            && let Some(instance) = machine.instance.take()
        {
            self.orphan_requests(&instance);
        }
        let input = Input::Abandoned { group: GROUP };
        self.to_process(at, life, ToProcess::Node(input));
    }

    /// A person asks for something on this node.
    pub(crate) fn ask(&mut self, at: NodeId, request: GroupRequest) {
        let Some(life) = self.machine(at).life() else {
            return;
        };
        let id = wire::Nonce(self.rng.bits());
        self.say(at, &format!("a person asks for {request:?} ({})", id.0));
        let input = Input::Ask {
            id,
            group: GROUP,
            request,
            reason: String::new(),
        };
        self.to_process(at, life, ToProcess::Node(input));
    }
}
