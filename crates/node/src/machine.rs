//! The node: routes inputs to its groups, composes datagrams, keeps the durable state.

use crate::config::Config;
use crate::explain::Journal;
use crate::group::{Around, Group, Out};
use crate::io::{Input, Output};
use crate::problems::Problems;
use cluster::links::{LinkChange, Links};
use cluster::register::Ticket;
use std::collections::{BTreeMap, VecDeque};
use wire::control::{Beat, Datagram, LinkId, Message};
use wire::durable::Durable;
use wire::event::{Event, What};
use wire::{Duration, GroupId, NodeId, Time, version};

/// What one persist ticket of the node makes durable, beside the state itself.
#[derive(Debug)]
struct Waiting {
    longest_term: Duration,
    registers: Vec<(GroupId, Ticket)>,
}

/// One node. See the crate's documentation.
#[derive(Debug)]
pub struct Node {
    pub(crate) config: Config,
    pub(crate) links: Links,
    pub(crate) groups: Vec<Group>,
    durable: Durable,
    /// Persist tickets of the node, each with the register tickets that wait for it.
    tickets: u64,
    waiting: BTreeMap<u64, Waiting>,
    problems: Problems,
    out: VecDeque<Output>,
}

impl Node {
    /// A node at the start of its process, with what its file held. The first output persists that it started.
    #[must_use]
    pub fn new(config: Config, mut durable: Durable, now: Time) -> Self {
        durable.starts += 1;
        durable.longest_term = durable.longest_term.max(config.timing.lease);
        let restarted = durable.starts > 1;
        // A member that never ran granted nothing; every other waits for the longest term it ever granted (R8).
        let known = if restarted {
            durable.clone()
        } else {
            Durable {
                longest_term: Duration::ZERO,
                ..durable.clone()
            }
        };
        let groups = config
            .groups
            .iter()
            .map(|g| Group::new(&config, g, &known, now))
            .collect();
        let links = Links::new(config.links_config(), now);
        let mut node = Self {
            config,
            links,
            groups,
            durable,
            tickets: 0,
            waiting: BTreeMap::new(),
            problems: Problems::default(),
            out: VecDeque::new(),
        };
        let what = What::Started {
            starts: node.durable.starts,
        };
        node.out.push_back(Output::Event(Event {
            at: now,
            group: None,
            incident: 0,
            what,
        }));
        node.persist(Vec::new());
        node
    }

    /// Takes one input. Drain [`Node::poll`] before the next.
    pub fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Received { link, datagram } => self.on_datagram(now, link, datagram),
            Input::Persisted { ticket } => self.on_persisted(now, ticket),
            Input::Mirror {
                group,
                mirror,
                report,
            } => {
                self.with(now, group, |g, cx| g.on_report(cx, mirror, report));
            }
            Input::Taken {
                group,
                mirror,
                serial,
            } => {
                self.with(now, group, |g, cx| g.on_taken(cx, mirror, serial));
            }
            Input::ResourceDone { group, token, ok } => {
                self.with(now, group, |g, cx| g.on_resource_done(cx, token, ok));
            }
            Input::ResourceFailed { group, resource } => {
                self.with(now, group, |g, cx| g.on_monitor(cx, resource));
            }
            Input::Abandoned { group } => self.with(now, group, |g, cx| g.on_abandoned(cx)),
            Input::Found { group } => self.with(now, group, |g, cx| g.on_found(cx)),
            Input::Ask {
                id,
                group,
                request,
                reason,
            } => {
                self.with(now, group, |g, cx| g.on_ask(cx, (id, request, reason)));
            }
            Input::Wake => self.on_wake(now),
        }
        self.collect(now);
    }

    /// The next thing to do; none when this input is dealt with.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to call `handle` with [`Input::Wake`] at the latest.
    #[must_use]
    pub fn wake_at(&self, now: Time) -> Time {
        let groups = self
            .groups
            .iter()
            .map(|g| g.wake_at(now))
            .min()
            .unwrap_or(Time::MAX);
        self.links.wake_at().min(self.links.due()).min(groups)
    }

    /// What the member's file must hold.
    #[must_use]
    pub const fn durable(&self) -> &Durable {
        &self.durable
    }

    // ---- inputs -------------------------------------------------------------------------------------------------

    fn on_datagram(&mut self, now: Time, link: LinkId, datagram: Datagram) {
        let from = datagram.from;
        if from == self.config.me || !self.config.nodes.contains_key(&from) {
            return;
        }
        self.links.on_heard(now, from, link, datagram.life);
        for message in datagram.messages {
            match message {
                Message::Beat(beat) => {
                    self.links.on_beat(now, from, link, datagram.life, &beat);
                    for group in beat.groups {
                        self.with(now, group.group, |g, cx| g.on_beat(cx, from, group));
                    }
                }
                Message::LeaseRequest { group, .. }
                | Message::LeaseGrant { group, .. }
                | Message::Prepare { group, .. }
                | Message::Promise { group, .. }
                | Message::Accept { group, .. }
                | Message::Accepted { group, .. }
                | Message::Refused { group, .. }
                | Message::Decided { group, .. }
                | Message::Ask { group, .. } => {
                    self.with(now, group, |g, cx| g.on_message(cx, from, message));
                }
                Message::Answer { .. } => {
                    for id in self.groups.iter().map(Group::id).collect::<Vec<_>>() {
                        let message = message.clone();
                        self.with(now, id, |g, cx| g.on_message(cx, from, message));
                    }
                }
            }
        }
    }

    fn on_persisted(&mut self, now: Time, ticket: u64) {
        let later = self.waiting.split_off(&(ticket + 1));
        for waiting in core::mem::replace(&mut self.waiting, later).into_values() {
            for group in &mut self.groups {
                group.lease.term_persisted(waiting.longest_term);
            }
            for (group, ticket) in waiting.registers {
                self.with(now, group, |g, cx| g.on_persisted(cx, ticket));
            }
        }
    }

    fn on_wake(&mut self, now: Time) {
        let beat_due = now >= self.links.due();
        for id in self.groups.iter().map(Group::id).collect::<Vec<_>>() {
            self.with(now, id, |g, cx| g.on_wake(cx));
            if beat_due {
                self.with(now, id, |g, cx| g.on_beat_due(cx));
            }
        }
        if beat_due {
            self.send_beats(now);
        }
    }

    fn with(&mut self, now: Time, id: GroupId, act: impl FnOnce(&mut Group, Around<'_>)) {
        let links = &self.links;
        if let Some(group) = self.groups.iter_mut().find(|g| g.id() == id) {
            act(group, Around { now, links });
        }
    }

    // ---- outputs ------------------------------------------------------------------------------------------------

    fn send_beats(&mut self, now: Time) {
        let groups: Vec<_> = self.groups.iter().map(|g| g.beat(now)).collect();
        let links: Vec<(NodeId, LinkId)> = self
            .config
            .links
            .iter()
            .flat_map(|(to, ls)| ls.iter().map(|l| (*to, *l)))
            .collect();
        for (to, link) in links {
            let head = self.links.head(now, to, link);
            let beat = Beat {
                groups: groups.clone(),
                ..head
            };
            self.send(to, link, vec![Message::Beat(beat)]);
        }
        self.links.beat_sent(now);
    }

    fn send(&mut self, to: NodeId, link: LinkId, messages: Vec<Message>) {
        let datagram = Datagram {
            version: version::CONTROL,
            from: self.config.me,
            life: self.config.life,
            messages,
        };
        self.out.push_back(Output::Send { to, link, datagram });
    }

    fn persist(&mut self, registers: Vec<(GroupId, Ticket)>) {
        for group in &self.groups {
            self.durable
                .groups
                .insert(group.id(), group.durable().clone());
            self.durable.longest_term = self.durable.longest_term.max(group.lease.longest_term());
        }
        self.tickets += 1;
        let longest_term = self.durable.longest_term;
        self.waiting.insert(
            self.tickets,
            Waiting {
                longest_term,
                registers,
            },
        );
        self.out.push_back(Output::Persist {
            ticket: self.tickets,
            durable: self.durable.clone(),
        });
    }

    /// Gathers what the groups want done, in their order, and what changed among the links.
    fn collect(&mut self, now: Time) {
        while let Some(change) = self.links.poll_change(now) {
            let what = link_event(&change);
            if let Some(what) = what {
                self.out.push_back(Output::Event(Event {
                    at: now,
                    group: None,
                    incident: 0,
                    what,
                }));
            }
        }
        for index in 0..self.groups.len() {
            self.collect_group(index);
        }
        if self
            .groups
            .iter()
            .any(|g| g.lease.longest_term() > self.durable.longest_term)
        {
            self.persist(Vec::new());
        }
        for event in self.problem_events(now) {
            self.out.push_back(Output::Event(event));
        }
    }

    fn collect_group(&mut self, index: usize) {
        let id = self.groups[index].id();
        while let Some(out) = self.groups[index].poll() {
            match out {
                Out::Send(to, message) => {
                    let links = self.config.links.get(&to).cloned().unwrap_or_default();
                    for link in links {
                        self.send(to, link, vec![message.clone()]);
                    }
                }
                Out::Persist(ticket) => self.persist(vec![(id, ticket)]),
                Out::Mirror {
                    mirror,
                    serial,
                    command,
                } => {
                    self.out.push_back(Output::Mirror {
                        group: id,
                        mirror,
                        serial,
                        command,
                    });
                }
                Out::Resource {
                    resource,
                    act,
                    token,
                } => {
                    self.out.push_back(Output::Resource {
                        group: id,
                        resource,
                        act,
                        token,
                    });
                }
                Out::Abandon => self.out.push_back(Output::Abandon { group: id }),
                Out::Lease(until) => self.out.push_back(Output::Lease { group: id, until }),
                Out::Answer(ask, result) => self.out.push_back(Output::Answer { id: ask, result }),
            }
        }
        let events = Journal::drain(&mut self.groups[index].journal);
        self.out.extend(events.into_iter().map(Output::Event));
    }

    fn problem_events(&mut self, now: Time) -> Vec<Event> {
        let found = self.find_problems(now);
        self.problems.change(now, found)
    }
}

const fn link_event(change: &LinkChange) -> Option<What> {
    match *change {
        LinkChange::NodeUp(node) => Some(What::NodeUp { node }),
        LinkChange::NodeSuspect(node, silent) => Some(What::NodeSuspect { node, silent }),
        LinkChange::LinkUp(node, link) => Some(What::LinkUp { node, link: link.0 }),
        LinkChange::LinkDown(node, link) => Some(What::LinkDown { node, link: link.0 }),
        LinkChange::Restarted(_) => None,
    }
}
