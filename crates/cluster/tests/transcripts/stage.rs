//! The stage of a transcript: members whose messages and writes wait until a command lets them through.

use cluster::{
    Lease, LeaseConfig, Outcome, Register, RegisterConfig, RegisterInput, RegisterOutput, Ticket,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use wire::control::{Message, Purpose, Refusal};
use wire::durable::GroupDurable;
use wire::record::{Intent, Member, Sync};
use wire::{Duration, Epoch, Generation, GroupId, NodeId, Nonce, Record, Time, Version};

const GROUP: GroupId = GroupId(0);
const TERM: Duration = Duration::from_millis(1_000);
const MARGIN: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_millis(50);

struct Actor {
    register: Register,
    lease: Lease,
    disk: GroupDurable,
    writes: VecDeque<(Ticket, GroupDurable)>,
}

/// Members A, B, C… and what is between them.
#[derive(Default)]
pub(crate) struct Stage {
    now: u64,
    actors: BTreeMap<NodeId, Actor>,
    wires: VecDeque<(NodeId, NodeId, Message)>,
    nonces: u64,
    text: String,
}

impl Stage {
    /// What happened since the last call.
    pub(crate) fn happened(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// One command:
    /// - `members ABC`: they exist, and ran before (a grant of the term needs no persist first);
    /// - `propose A active=A sync=AB [handover] [takeover]`, `read A`, `give-up A`;
    /// - `deliver [A->B]`: what is under way now, or only on that way; `lose [A->B]` drops it; `repeat A->B` doubles it;
    /// - `persist A`: the disk of A finishes its writes; `settle [AB]`: persist and deliver among these until all is quiet;
    /// - `wait 50`: milliseconds pass, timers run; `wake A`: its timers run now; `crash A`: A ends, its writes are lost, it starts again; `forget A`: with an empty
    ///   file, and does not say so;
    /// - `ask A`: A requests its lease; `lease A others=B`: until when; `hold A others=B`; `surrender A`; `state A`.
    pub(crate) fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let who = || node(words[1]);
        match words[0] {
            "members" => self.members(words[1]),
            "propose" => self.propose(&words),
            "read" => self.input(who(), RegisterInput::Read),
            "give-up" => self.actor(who()).register.give_up(),
            "deliver" => self.deliver(words.get(1).copied()),
            "lose" => drop(self.take(words.get(1).copied())),
            "repeat" => self.repeat(words[1]),
            "persist" => self.persist(who()),
            "settle" => self.settle(words.get(1).copied()),
            "wait" => self.wait(words[1].parse().unwrap()),
            "wake" => self.input(who(), RegisterInput::Wake),
            "crash" => self.crash(who()),
            "forget" => {
                self.actor(who()).disk = GroupDurable::default();
                self.crash(who());
            }
            "ask" => self.ask(who()),
            "lease" | "hold" => self.lease(words[0], who(), words[2]),
            "surrender" => {
                let now = self.time();
                self.actor(who()).lease.surrender(now);
            }
            "state" => self.state(who()),
            other => panic!("no command {other}"),
        }
    }

    fn time(&self) -> Time {
        Time::from_nanos(self.now * 1_000_000)
    }

    fn actor(&mut self, node: NodeId) -> &mut Actor {
        self.actors.get_mut(&node).unwrap()
    }

    fn say(&mut self, text: &str) {
        writeln!(self.text, "{text}").unwrap();
    }

    fn members(&mut self, names: &str) {
        let everyone = set(names);
        for me in everyone.clone() {
            let mut actor = start(
                me,
                &everyone,
                GroupDurable::default(),
                self.time(),
                Duration::ZERO,
            );
            actor.lease.term_persisted(TERM);
            self.actors.insert(me, actor);
            self.input(me, RegisterInput::Wake);
        }
    }

    fn propose(&mut self, words: &[&str]) {
        let me = node(words[1]);
        let nonce = Nonce(self.nonces);
        self.nonces += 1;
        let known = self.actor(me).register.confirmed().cloned();
        let mut record = known.map_or_else(|| first(me, nonce), |known| known.successor(nonce));
        record.intent = Intent::Serve;
        let mut purpose = Purpose::Keep;
        for word in &words[2..] {
            match word.split_once('=') {
                Some(("active", name)) => record.active = node(name),
                Some(("sync", names)) => {
                    for (id, member) in &mut record.members {
                        let inside = set(names).contains(id);
                        member.sync = if inside { Sync::InSync } else { Sync::Out };
                    }
                }
                None if *word == "handover" => record.intent = Intent::Handover { from: me },
                None if *word == "takeover" => purpose = Purpose::Takeover,
                Some(_) | None => panic!("no option {word}"),
            }
        }
        self.input(me, RegisterInput::Propose { record, purpose });
    }

    fn input(&mut self, me: NodeId, input: RegisterInput) {
        let now = self.time();
        let actor = self.actor(me);
        actor.register.handle(now, input, &mut actor.lease);
        while let Some(output) = self.actor(me).register.poll() {
            match output {
                RegisterOutput::Send { to, message } => {
                    self.say(&format!("{me:?}->{to:?} {}", said(&message)));
                    self.wires.push_back((me, to, message));
                }
                RegisterOutput::Persist(ticket) => {
                    let actor = self.actor(me);
                    let durable = actor.register.durable().clone();
                    actor.writes.push_back((ticket, durable));
                    self.say(&format!("{me:?} writes {}", ticket.0));
                }
                RegisterOutput::Outcome(outcome) => self.say(&format!("{me:?} {}", told(&outcome))),
            }
        }
    }

    fn take(&mut self, way: Option<&str>) -> Vec<(NodeId, NodeId, Message)> {
        let wanted = way
            .map(|way| way.split_once("->").unwrap())
            .map(|(a, b)| (node(a), node(b)));
        let (taken, left) = std::mem::take(&mut self.wires)
            .into_iter()
            .partition(|(from, to, _)| wanted.is_none_or(|way| way == (*from, *to)));
        self.wires = left;
        Vec::from_iter::<VecDeque<_>>(taken)
    }

    fn deliver(&mut self, way: Option<&str>) {
        for (from, to, message) in self.take(way) {
            self.arrive(from, to, message);
        }
    }

    fn arrive(&mut self, from: NodeId, to: NodeId, message: Message) {
        let now = self.time();
        match message {
            Message::LeaseRequest {
                request,
                term,
                epoch,
                ..
            } => {
                let actor = self.actor(to);
                let known = actor.register.confirmed().cloned();
                let grant = actor
                    .lease
                    .on_request(now, from, request, term, epoch, known.as_ref());
                match grant {
                    Some(grant) => {
                        self.say(&format!("{to:?}->{from:?} {}", said(&grant)));
                        self.wires.push_back((to, from, grant));
                    }
                    None => self.say(&format!("{to:?} grants nothing to {from:?}")),
                }
            }
            Message::LeaseGrant { request, .. } => {
                self.actor(to).lease.on_grant(now, from, request)
            }
            message => self.input(to, RegisterInput::Message { from, message }),
        }
    }

    fn repeat(&mut self, way: &str) {
        let taken = self.take(Some(way));
        for copy in [taken.clone(), taken] {
            self.wires.extend(copy);
        }
    }

    fn persist(&mut self, me: NodeId) {
        while let Some((ticket, durable)) = self.actor(me).writes.pop_front() {
            self.actor(me).disk = durable;
            self.input(me, RegisterInput::Persisted(ticket));
        }
    }

    /// Messages to and from others are left where they are.
    fn settle(&mut self, names: Option<&str>) {
        let among: BTreeSet<NodeId> =
            names.map_or_else(|| self.actors.keys().copied().collect(), set);
        loop {
            for me in among.clone() {
                self.persist(me);
            }
            let (inside, outside): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.wires)
                .into_iter()
                .partition(|(from, to, _)| among.contains(from) && among.contains(to));
            self.wires = outside;
            if inside.is_empty() {
                return;
            }
            for (from, to, message) in inside {
                self.arrive(from, to, message);
            }
        }
    }

    fn wait(&mut self, millis: u64) {
        let until = self.now + millis;
        while self.now < until {
            self.now += 1;
            let now = self.time();
            let due: Vec<NodeId> = self
                .actors
                .iter()
                .filter(|(_, actor)| actor.register.wake_at().is_some_and(|at| at <= now))
                .map(|(node, _)| *node)
                .collect();
            for me in due {
                self.input(me, RegisterInput::Wake);
            }
        }
    }

    fn crash(&mut self, me: NodeId) {
        let everyone = self.actors.keys().copied().collect();
        let disk = self.actor(me).disk.clone();
        let actor = start(me, &everyone, disk, self.time(), TERM);
        self.actors.insert(me, actor);
        self.input(me, RegisterInput::Wake);
    }

    fn ask(&mut self, me: NodeId) {
        let request = Nonce(self.nonces);
        self.nonces += 1;
        let now = self.time();
        let actor = self.actor(me);
        let epoch = actor
            .register
            .confirmed()
            .map_or(Epoch(0), |record| record.epoch);
        let term = actor.lease.request(now, request);
        for to in self
            .actors
            .keys()
            .copied()
            .filter(|to| *to != me)
            .collect::<Vec<_>>()
        {
            let message = Message::LeaseRequest {
                group: GROUP,
                request,
                term,
                epoch,
            };
            self.wires.push_back((me, to, message));
        }
    }

    fn lease(&mut self, verb: &str, me: NodeId, others: &str) {
        let others = set(others.strip_prefix("others=").unwrap());
        let until = self.actor(me).lease.until(&others);
        let now = self.time();
        match until {
            Some(until) if verb == "hold" => self.actor(me).lease.hold(until),
            Some(_) | None => {}
        }
        let left = until.map(|until| until.since(now).as_millis());
        self.say(&left.map_or_else(
            || format!("{me:?} has no lease"),
            |left| format!("{me:?} has a lease for {left} ms"),
        ));
    }

    fn state(&mut self, me: NodeId) {
        let now = self.time();
        let actor = self.actor(me);
        let register = &actor.register;
        let confirmed = register.confirmed().map_or_else(|| "nothing".into(), short);
        let open: Vec<String> = register.unresolved().iter().map(short).collect();
        let line = format!(
            "{me:?} knows {confirmed}; open {open:?}; acks need {:?}; barrier {}; grants {:?}",
            register.required(),
            if register.needs_barrier() {
                "needed"
            } else {
                "done"
            },
            actor.lease.granted(now),
        );
        self.say(&line);
    }
}

fn start(
    me: NodeId,
    everyone: &BTreeSet<NodeId>,
    disk: GroupDurable,
    now: Time,
    longest_term: Duration,
) -> Actor {
    let members = everyone.clone();
    let config = LeaseConfig {
        me,
        group: GROUP,
        members,
        term: TERM,
        margin: MARGIN,
    };
    let lease = Lease::new(config, now, longest_term);
    let members = everyone.clone();
    let config = RegisterConfig {
        me,
        group: GROUP,
        members,
        retry: RETRY,
        seed: u64::from(me.0),
        voting: true,
    };
    let register = Register::new(config, disk.clone(), now);
    Actor {
        register,
        lease,
        disk,
        writes: VecDeque::new(),
    }
}

/// A and B are the data nodes.
fn first(active: NodeId, nonce: Nonce) -> Record {
    let member = Member {
        sync: Sync::InSync,
        generation: Generation(1),
        failed: false,
    };
    Record {
        version: Version(1),
        epoch: Epoch(1),
        active,
        members: [NodeId(0), NodeId(1)].map(|node| (node, member)).into(),
        intent: Intent::Serve,
        nonce,
    }
}

fn node(name: &str) -> NodeId {
    NodeId(name.as_bytes()[0] - b'A')
}

fn set(names: &str) -> BTreeSet<NodeId> {
    names
        .split("")
        .filter(|name| !name.is_empty())
        .map(node)
        .collect()
}

fn short(record: &Record) -> String {
    let sync: Vec<String> = record
        .in_sync()
        .iter()
        .map(|node| format!("{node:?}"))
        .collect();
    let how = match record.intent {
        Intent::Serve => String::new(),
        Intent::Handover { from } => format!(" from {from:?}"),
        Intent::Hold(why) => format!(" {why:?}"),
    };
    format!(
        "v{}:{:?}/{}{how}",
        record.version,
        record.active,
        sync.join("")
    )
}

fn said(message: &Message) -> String {
    match message {
        Message::Prepare {
            ballot, purpose, ..
        } => format!("prepare {ballot:?} {purpose:?}"),
        Message::Promise {
            ballot, accepted, ..
        } => {
            let last = accepted.as_ref().map_or_else(
                || "nothing".into(),
                |(ballot, record)| format!("{ballot:?} {}", short(record)),
            );
            format!("promise {ballot:?} last {last}")
        }
        Message::Accept { ballot, record, .. } => format!("accept {ballot:?} {}", short(record)),
        Message::Accepted { ballot, .. } => format!("accepted {ballot:?}"),
        Message::Refused { ballot, why, .. } => match why {
            Refusal::Ballot(higher) => format!("refused {ballot:?} for {higher:?}"),
            Refusal::Leased { holder, left } => {
                format!(
                    "refused {ballot:?}: {holder:?} may serve {} ms",
                    left.as_millis()
                )
            }
        },
        Message::Decided { record, .. } => format!("decided {}", short(record)),
        Message::LeaseGrant { .. } => "grant".into(),
        Message::Beat(_)
        | Message::LeaseRequest { .. }
        | Message::Ask { .. }
        | Message::Answer { .. } => {
            panic!("not sent by a register")
        }
    }
}

fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Won(record) => format!("won {}", short(record)),
        Outcome::Superseded(record) => format!("was superseded by {}", short(record)),
        Outcome::Leased { holder, left } => {
            format!("must wait: {holder:?} may serve {} ms", left.as_millis())
        }
        Outcome::Contested(record) => format!("must surrender, to complete {}", short(record)),
        Outcome::Read(record) => {
            format!(
                "read {}",
                record.as_ref().map_or_else(|| "nothing".into(), short)
            )
        }
        Outcome::NoMajority => "finds no majority".into(),
        Outcome::Learned(record) => format!("learned {}", short(record)),
        Outcome::Alarm(what) => format!("ALARM {what}"),
    }
}
