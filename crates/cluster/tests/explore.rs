//! Every order of events in a small register: three acceptors, two of which propose; messages are never used up, so each may
//! come at any later time, twice, or not at all; a proposer may crash between any two steps.
//!
//! Time stands still but for the retries that are explored as steps, and persisting is part of each step; the seeded world
//! covers both. Every run explores two proposals without retry and crash (some 30,000 states). Larger bounds, with --release:
//! `EXPLORE_RETRIES=1` (A tries a second round; some two million states), `EXPLORE_CRASHES=1` (A ends and proposes anew).

use cluster::{
    Lease, LeaseConfig, Outcome, Register, RegisterConfig, RegisterInput, RegisterOutput,
};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use wire::control::{Message, Purpose};
use wire::durable::{AcceptorDurable, GroupDurable};
use wire::record::{Intent, Member, Sync};
use wire::{Ballot, Duration, Epoch, Generation, GroupId, NodeId, Nonce, Record, Time, Version};

const GROUP: GroupId = GroupId(0);
const MEMBERS: [NodeId; 3] = [NodeId(0), NodeId(1), NodeId(2)];
const PROPOSERS: [NodeId; 2] = [NodeId(0), NodeId(1)];

/// One member, and a fingerprint of all that it knows.
struct Actor {
    register: Register,
    lease: Lease,
    fingerprint: u64,
}

/// What a step of one member comes to.
struct Effect {
    actor: Rc<Actor>,
    sent: Vec<usize>,
    durable: Vec<AcceptorDurable>,
    outcomes: Vec<Outcome>,
}

/// Messages ever seen in any order of events; a state names them by number. And what each does to each member that it may
/// meet: most states differ in something else.
#[derive(Default)]
struct Book {
    effects: BTreeMap<(u64, usize), Rc<Effect>>,
    numbers: BTreeMap<String, usize>,
    messages: Vec<(NodeId, NodeId, Message)>,
}

#[derive(Clone)]
struct State {
    actors: BTreeMap<NodeId, Rc<Actor>>,
    /// Everything ever sent.
    sent: BTreeSet<usize>,
    /// Who accepted what under which ballot, ever.
    accepted: BTreeMap<Ballot, (Nonce, BTreeSet<NodeId>)>,
    decided: BTreeMap<Version, Nonce>,
    crashes: u32,
    retries: BTreeMap<NodeId, u32>,
    may_propose: BTreeSet<NodeId>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Deliver(usize),
    Propose(NodeId),
    Retry(NodeId),
    Crash(NodeId),
}

#[test]
fn every_order_of_events_decides_one_chain() {
    let bound = |name: &str| std::env::var(name).map_or(0, |count| count.parse().unwrap());
    let mut book = Book::default();
    let mut seen = BTreeSet::new();
    let mut open = vec![State::new(
        bound("EXPLORE_CRASHES"),
        bound("EXPLORE_RETRIES"),
    )];
    let mut decided = 0_u64;
    while let Some(state) = open.pop() {
        for step in state.steps() {
            let mut next = state.clone();
            next.apply(step, &mut book);
            if seen.insert(next.fingerprint()) {
                decided += u64::from(!next.decided.is_empty());
                open.push(next);
            }
        }
    }
    println!("{} states, {decided} of them with a decision", seen.len());
    assert!(
        decided > 1_000,
        "{decided} decisions in {} states",
        seen.len()
    );
}

impl State {
    fn new(crashes: u32, retries: u32) -> Self {
        Self {
            actors: MEMBERS
                .map(|me| (me, Rc::new(actor(me, GroupDurable::default()))))
                .into(),
            sent: BTreeSet::new(),
            accepted: BTreeMap::new(),
            decided: BTreeMap::new(),
            crashes,
            retries: [(PROPOSERS[0], retries)].into(),
            may_propose: PROPOSERS.into(),
        }
    }

    fn fingerprint(&self) -> u64 {
        let actors: Vec<u64> = self
            .actors
            .values()
            .map(|actor| actor.fingerprint)
            .collect();
        let past = (&self.accepted, &self.decided);
        let bounds = (self.crashes, &self.retries, &self.may_propose);
        let mut hasher = DefaultHasher::new();
        (actors, &self.sent, past, bounds).hash(&mut hasher);
        hasher.finish()
    }

    fn steps(&self) -> Vec<Step> {
        let deliveries = self.sent.iter().copied().map(Step::Deliver);
        let crashes = (0..self.crashes.min(1)).map(|_| Step::Crash(PROPOSERS[0]));
        let idle = |node: &NodeId| self.actors[node].register.is_idle();
        let proposals = self
            .may_propose
            .iter()
            .copied()
            .filter(idle)
            .map(Step::Propose);
        let retries = self
            .retries
            .iter()
            .filter(|(node, left)| **left > 0 && !idle(node));
        let retries = retries.map(|(node, _)| Step::Retry(*node));
        deliveries
            .chain(crashes)
            .chain(proposals)
            .chain(retries)
            .collect()
    }

    fn apply(&mut self, step: Step, book: &mut Book) {
        match step {
            Step::Deliver(number) => self.deliver(number, book),
            Step::Propose(node) => self.propose(node, book),
            Step::Retry(node) => {
                *self.retries.get_mut(&node).unwrap() -= 1;
                let at = self.actors[&node].register.wake_at().unwrap();
                self.input(node, at, RegisterInput::Wake, book);
            }
            Step::Crash(node) => {
                self.crashes -= 1;
                let durable = self.actors[&node].register.durable().clone();
                self.actors.insert(node, Rc::new(actor(node, durable)));
                if PROPOSERS.contains(&node) {
                    self.may_propose.insert(node);
                }
            }
        }
    }

    fn propose(&mut self, node: NodeId, book: &mut Book) {
        self.may_propose.remove(&node);
        let known = self.actors[&node].register.confirmed();
        let version = known.map_or(Version(1), |known| known.version.next());
        let nonce = Nonce(100 * version.0 + 10 * u64::from(node.0) + u64::from(self.crashes));
        let record = record(version, nonce);
        let proposal = RegisterInput::Propose {
            record,
            purpose: Purpose::Keep,
        };
        self.input(node, Time::ZERO, proposal, book);
    }

    fn input(&mut self, node: NodeId, now: Time, input: RegisterInput, book: &mut Book) {
        let effect = Rc::new(self.actors[&node].effect(node, now, input, book));
        self.happen(node, &effect);
    }

    fn deliver(&mut self, number: usize, book: &mut Book) {
        let (from, to, message) = book.messages[number].clone();
        let before = (self.actors[&to].fingerprint, number);
        let effect = if let Some(effect) = book.effects.get(&before) {
            Rc::clone(effect)
        } else {
            let input = RegisterInput::Message { from, message };
            let effect = Rc::new(self.actors[&to].effect(to, Time::ZERO, input, book));
            book.effects.insert(before, Rc::clone(&effect));
            effect
        };
        self.happen(to, &effect);
    }

    fn happen(&mut self, node: NodeId, effect: &Effect) {
        self.sent.extend(&effect.sent);
        for acceptor in &effect.durable {
            self.on_durable(node, acceptor);
        }
        for outcome in &effect.outcomes {
            self.on_outcome(node, outcome);
        }
        self.actors.insert(node, Rc::clone(&effect.actor));
    }

    fn on_durable(&mut self, node: NodeId, acceptor: &AcceptorDurable) {
        let Some((ballot, record)) = &acceptor.accepted else {
            return;
        };
        let (nonce, voters) = self
            .accepted
            .entry(*ballot)
            .or_insert_with(|| (record.nonce, BTreeSet::new()));
        assert_eq!(*nonce, record.nonce, "two records under {ballot:?}");
        voters.insert(node);
        if voters.len() > MEMBERS.len() / 2 {
            let known = *self.decided.entry(record.version).or_insert(record.nonce);
            assert_eq!(known, record.nonce, "{} decided twice", record.version);
        }
    }

    fn on_outcome(&self, node: NodeId, outcome: &Outcome) {
        let record = match outcome {
            Outcome::Won(record) | Outcome::Superseded(record) | Outcome::Learned(record) => record,
            Outcome::NoMajority => return,
            Outcome::Read(_)
            | Outcome::Leased { .. }
            | Outcome::Contested(_)
            | Outcome::Alarm(_) => {
                panic!("{node:?} {outcome:?}")
            }
        };
        let known = self.decided.get(&record.version);
        assert_eq!(known, Some(&record.nonce), "{node:?} was told {record:?}");
    }
}

impl Book {
    fn number(&mut self, from: NodeId, to: NodeId, message: Message) -> usize {
        let next = self.messages.len();
        let number = *self
            .numbers
            .entry(format!("{from:?}{to:?}{message:?}"))
            .or_insert(next);
        if number == next {
            self.messages.push((from, to, message));
        }
        number
    }
}

impl Actor {
    fn new(register: Register, lease: Lease) -> Self {
        let mut hasher = DefaultHasher::new();
        format!("{register:?}{lease:?}").hash(&mut hasher);
        Self {
            register,
            lease,
            fingerprint: hasher.finish(),
        }
    }

    fn effect(&self, node: NodeId, now: Time, input: RegisterInput, book: &mut Book) -> Effect {
        let (mut register, mut lease) = (self.register.clone(), self.lease.clone());
        let (mut sent, mut durable, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            register.handle(now, input, &mut lease);
            while let Some(output) = register.poll() {
                match output {
                    // Gossip only tells earlier what a round would find.
                    RegisterOutput::Send {
                        message: Message::Decided { .. },
                        ..
                    } => {}
                    RegisterOutput::Send { to, message } => {
                        sent.push(book.number(node, to, message));
                    }
                    RegisterOutput::Persist(ticket) => {
                        inputs.push(RegisterInput::Persisted(ticket))
                    }
                    RegisterOutput::Outcome(outcome) => outcomes.push(outcome),
                }
            }
            durable.push(register.durable().acceptor.clone());
        }
        Effect {
            actor: Rc::new(Self::new(register, lease)),
            sent,
            durable,
            outcomes,
        }
    }
}

fn actor(me: NodeId, durable: GroupDurable) -> Actor {
    let members: BTreeSet<NodeId> = MEMBERS.into();
    let term = Duration::from_secs(1);
    let config = LeaseConfig {
        me,
        group: GROUP,
        members: members.clone(),
        term,
        margin: term,
    };
    let lease = Lease::new(config, Time::ZERO, Duration::ZERO);
    let retry = Duration::from_millis(50);
    let config = RegisterConfig {
        me,
        group: GROUP,
        members,
        retry,
        seed: 1,
        voting: true,
    };
    Actor::new(Register::new(config, durable, Time::ZERO), lease)
}

/// Every proposal keeps A active, so that only the register is explored.
fn record(version: Version, nonce: Nonce) -> Record {
    let member = Member {
        sync: Sync::InSync,
        generation: Generation(1),
        failed: false,
    };
    Record {
        version,
        epoch: Epoch(version.0),
        active: NodeId(0),
        members: [(NodeId(0), member)].into(),
        intent: Intent::Serve,
        nonce,
    }
}
