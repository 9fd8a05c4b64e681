//! The loop that owns the node: one event in, everything that follows from it out, in order.

use crate::api::server::FreezeRequest;
use crate::engine::{Engine, EngineEvent};
use crate::failure::Failure;
use crate::run::gate::AddressGate;
use crate::run::links::Links;
use crate::run::member::Writer;
use crate::run::resources::Resources;
use crate::run::snapshot::Publisher;
use host::clock;
use host::seal::SessionKeys;
use mirror::control::Report;
use node::{Input, Node, Output};
use std::collections::BTreeMap;
use std::net::IpAddr;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, sleep};
use wire::control::{GroupRequest, LinkId, RequestFault};
use wire::{GroupId, NodeId, Nonce, Time};

/// Everything that wakes the loop, beside its timer.
#[derive(Debug)]
pub(crate) enum Event {
    /// Bytes from a heartbeat socket; not authenticated yet.
    Datagram {
        link: LinkId,
        from: IpAddr,
        bytes: Vec<u8>,
    },
    /// A handshake ended well.
    Session(SessionKeys),
    /// An own handshake ended, well or not.
    Shaken { with: NodeId },
    /// The member file holds the state of this ticket.
    Persisted { ticket: u64 },
    /// The member file cannot be written: the process must end.
    MemberFileFailed { why: String },
    /// From a mirror's engine.
    Engine {
        group: GroupId,
        mirror: u8,
        event: EngineEvent,
    },
    /// From the resources.
    Resource(ResourceEvent),
    /// A person's request.
    Ask {
        group: GroupId,
        request: GroupRequest,
        reason: String,
        answer: Answer,
    },
    /// A person wants a snapshot.
    Freeze(FreezeRequest),
    /// The process is told to end.
    End,
}

/// What comes back from the resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResourceEvent {
    /// A start or stop ended.
    Done {
        group: GroupId,
        token: u64,
        ok: bool,
    },
    /// A running resource failed.
    Failed { group: GroupId, resource: u8 },
    /// Everything is torn down.
    Abandoned { group: GroupId },
}

/// Where a request's answer goes.
pub(crate) type Answer = oneshot::Sender<Result<(), RequestFault>>;
/// Where events come from.
pub(crate) type Events = mpsc::UnboundedSender<Event>;

/// Longest sleep, so that the snapshot's figures stay fresh.
const TICK: Duration = Duration::from_millis(200);

/// Everything the daemon holds.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) node: Node,
    pub(super) links: Links,
    pub(super) member: Writer,
    /// By group and index of the mirror.
    pub(super) engines: BTreeMap<(GroupId, u8), Engine>,
    pub(super) gates: BTreeMap<GroupId, AddressGate>,
    pub(super) resources: Resources,
    pub(super) publisher: Publisher,
    pub(super) asks: BTreeMap<Nonce, Answer>,
    pub(super) next_ask: Nonce,
}

impl Daemon {
    /// Runs until told to end.
    ///
    /// # Errors
    /// When the member file fails: this node must not promise anything more.
    pub(super) async fn run(
        mut self,
        mut events: mpsc::UnboundedReceiver<Event>,
    ) -> Result<(), Failure> {
        self.carry_out()?;
        loop {
            let event = self.next_event(&mut events).await;
            match event {
                Some(Event::End) => return Ok(()),
                Some(event) => self.on_event(event)?,
                None => self.handle(Input::Wake)?,
            }
        }
    }

    /// The next event, or none when it is time to wake the node.
    async fn next_event(&mut self, events: &mut mpsc::UnboundedReceiver<Event>) -> Option<Event> {
        if let Ok(event) = events.try_recv() {
            return Some(event);
        }
        let now = clock::now();
        let shake = self.links.drive(now);
        let wake = self.node.wake_at(now).min(shake);
        self.publisher
            .publish(&self.node, &self.engines, &self.resources, now);
        let pause = wake.since(now).min(TICK);
        tokio::select! {
            biased;
            event = events.recv() => Some(event.unwrap_or(Event::End)),
            () = sleep(pause) => None,
        }
    }

    fn on_event(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Datagram { link, from, mut bytes } => {
                match self.links.open_datagram(&mut bytes, from) {
                    Some(datagram) => self.handle(Input::Received { link, datagram }),
                    None => Ok(()),
                }
            }
            Event::Session(keys) => {
                self.links.install(&keys);
                Ok(())
            }
            Event::Shaken { with } => {
                self.links.shaken(with);
                Ok(())
            }
            Event::Persisted { ticket } => self.handle(Input::Persisted { ticket }),
            Event::MemberFileFailed { why } => Err(Failure::new("cannot write the member file")
                .cause(why)
                .hint("this node promised what it cannot keep; replace the disk, then rejoin the cluster")),
            Event::Engine { group, mirror, event } => self.on_engine(group, mirror, event),
            Event::Resource(event) => self.on_resource(event),
            Event::Ask { group, request, reason, answer } => {
                let id = self.next_ask;
                self.next_ask = id.next();
                self.asks.insert(id, answer);
                self.handle(Input::Ask { id, group, request, reason })
            }
            Event::Freeze(request) => {
                self.resources.freeze(request);
                Ok(())
            }
            Event::End => Ok(()),
        }
    }

    fn on_engine(&mut self, group: GroupId, mirror: u8, event: EngineEvent) -> Result<(), Failure> {
        match event {
            EngineEvent::Taken { serial } => self.handle(Input::Taken {
                group,
                mirror,
                serial,
            }),
            EngineEvent::Report(report) => {
                tracing::debug!(?group, mirror, ?report);
                if let Report::Attached { data, .. } = &report {
                    self.resources.attached(group, mirror, *data);
                }
                if let Report::Serving { .. } = &report {
                    // A standby may have taken another size since.
                    self.tell_size(group, mirror);
                }
                if let Report::Grown { data } = &report {
                    self.resources.grown(group, mirror, *data);
                }
                if let Report::AttachFailed { reason, .. } = &report {
                    tracing::error!(?group, mirror, reason, "the mirror's disk cannot be used");
                }
                self.handle(Input::Mirror {
                    group,
                    mirror,
                    report,
                })
            }
            EngineEvent::Failed { why } => {
                Err(Failure::new("the mirror's engine ended").cause(why))
            }
        }
    }

    fn tell_size(&self, group: GroupId, mirror: u8) {
        let figures = self.engines.get(&(group, mirror)).map(Engine::figures);
        if let Some(replica) = figures.and_then(|figures| figures.replica) {
            self.resources.attached(group, mirror, replica.data);
        }
    }

    fn on_resource(&mut self, event: ResourceEvent) -> Result<(), Failure> {
        self.handle(match event {
            ResourceEvent::Done { group, token, ok } => Input::ResourceDone { group, token, ok },
            ResourceEvent::Failed { group, resource } => Input::ResourceFailed { group, resource },
            ResourceEvent::Abandoned { group } => Input::Abandoned { group },
        })
    }

    /// Hands one input to the node and does what it says.
    pub(super) fn handle(&mut self, input: Input) -> Result<(), Failure> {
        let beat = matches!(input, Input::Wake);
        self.node.handle(clock::now(), input);
        if beat {
            let now = clock::now();
            self.gates.values_mut().for_each(|gate| gate.refresh(now));
            self.resources.beat();
        }
        self.carry_out()
    }

    fn carry_out(&mut self) -> Result<(), Failure> {
        while let Some(output) = self.node.poll() {
            match output {
                Output::Send { to, link, datagram } => self.links.send(to, link, &datagram),
                Output::Persist { ticket, durable } => self.member.save(ticket, durable),
                Output::Mirror {
                    group,
                    mirror,
                    serial,
                    command,
                } => {
                    if let Some(engine) = self.engines.get(&(group, mirror)) {
                        engine.command(serial, command);
                    }
                }
                Output::Resource {
                    group,
                    resource,
                    act,
                    token,
                } => {
                    self.resources.act(group, resource, act, token);
                }
                Output::Abandon { group } => self.resources.abandon(group),
                Output::Lease { group, until } => self.on_lease(group, until),
                Output::Event(event) => self.publisher.event(&event)?,
                Output::Answer { id, result } => {
                    if let Some(answer) = self.asks.remove(&id) {
                        // Nobody waits for the answer any more: the request's client went away.
                        answer.send(result).ok();
                    }
                }
            }
        }
        Ok(())
    }

    fn on_lease(&mut self, group: GroupId, until: Time) {
        if let Some(gate) = self.gates.get_mut(&group) {
            gate.lease(clock::now(), until);
        }
        self.resources.lease(group, until);
    }
}
