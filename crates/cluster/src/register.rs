//! One group's register at one member: the acceptor that votes and the proposer that changes.
//!
//! CASPaxos (Rystsov 2018): a proposer asks a majority of acceptors to promise a ballot and to say what they accepted
//! last; it completes what may be decided, or puts its own record on top of what is, and has that accepted by a majority.
//! Every value is a whole [`Record`]; there is no log and no leader.
//!
//! - **Durable before said.** Acceptor's replies and the proposer's `Accept`s wait for the persist ticket that covers them.
//! - **Own proposals** are in [`Register::unresolved`] from the moment they are proposed (R2, R5), and leave it when a decided
//!   record of their version or a later one is known, or when they are withdrawn before anything could be accepted.
//! - **Leases (R8).** An acceptor accepts a change of the active only when no lease stands against it; from then on, and while
//!   an own takeover is unresolved, the lease on this member grants and counts nothing for anybody else. Both are checked
//!   against the record's content; the purpose of a prepare only saves a round that would fail.
//! - **Takeovers are proposed by who takes over**, or as a handover by the active that stopped, or with fencing as a handover
//!   by who takes over (R3, R17). Others may complete them.

mod rounds;
mod votes;

use crate::chance::Chance;
use crate::lease::Lease;
use crate::proposer::{Attempt, FORKED, Goal, Phase};
use std::collections::{BTreeSet, VecDeque};
use votes::TakeoverPromise;
use wire::control::{Message, Purpose};
use wire::durable::GroupDurable;
use wire::record::Intent;
use wire::{Duration, GroupId, NodeId, Record, Time, Version};

/// Replies that wait for a persist; more are dropped, as the network might drop them.
const WAITING_MAX: usize = 256;
/// Open proposals that differ in more than their nonce; a further one is refused.
const UNRESOLVED_MAX: usize = 16;

const MALFORMED: &str = "a proposed record breaks its own rules";
const SKIPPED: &str = "a proposed record skips a version";
const NOT_OURS: &str = "a takeover was proposed for another node without a handover";
const TOO_MANY: &str = "too many different proposals are unresolved";

/// Names one request to write the durable state; rises by one. A ticket handed back covers all lower ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticket(pub u64);

/// What a [`Register`] is made with.
#[derive(Clone, Debug)]
pub struct RegisterConfig {
    /// This node.
    pub me: NodeId,
    /// Which group's record.
    pub group: GroupId,
    /// The register's members; a majority of them decides.
    pub members: BTreeSet<NodeId>,
    /// After how long an unanswered datagram is sent again.
    pub retry: Duration,
    /// Seed of the back-off between competing proposers.
    pub seed: u64,
    /// False if this member's file was lost or is older than it was (R14): it answers no prepare and no accept, and proposes
    /// nothing, until it rejoins under a new id.
    pub voting: bool,
}

/// What happens to a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterInput {
    /// A datagram's message.
    Message {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// The durable state was written up to this ticket.
    Persisted(Ticket),
    /// Compare-and-swap: replaces the record of version `record.version` − 1. Replaces a proposal that is under way.
    Propose {
        /// The successor, with a fresh nonce.
        record: Record,
        /// Whether it takes the group away from the holder of a lease.
        purpose: Purpose,
    },
    /// Reads the decided record from a majority.
    Read,
    /// Time passed.
    Wake,
}

/// What a register wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterOutput {
    /// Send a message (it may be lost).
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Write [`Register::durable`] and hand the ticket back.
    Persist(Ticket),
    /// Tell the node.
    Outcome(Outcome),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The proposal is decided.
    Won(Record),
    /// Another record of this or a later version is decided.
    Superseded(Record),
    /// A lease stands against the takeover. Without any `Accept` sent the proposal is withdrawn, else it stays unresolved.
    Leased {
        /// Whose lease.
        holder: NodeId,
        /// For at most how long still.
        left: Duration,
    },
    /// This record, by which another node is active, must be completed, but this node holds a lease: stop serving, surrender
    /// the lease, then wake the register.
    Contested(Record),
    /// The decided record; none if nothing was ever decided.
    Read(Option<Record>),
    /// Nothing was decided for three retries; said once per proposal, which goes on.
    NoMajority,
    /// A newer decided record, from gossip or another's round.
    Learned(Record),
    /// A promise of the register was broken (a lost or rolled-back file somewhere): what was seen.
    Alarm(&'static str),
}

/// One group's register at one member.
#[derive(Clone, Debug)]
pub struct Register {
    config: RegisterConfig,
    durable: GroupDurable,
    attempt: Option<Attempt>,
    /// Invariant: idle exactly when there is no attempt.
    phase: Phase,
    /// A read is to follow what is under way.
    read_wanted: bool,
    /// The highest round seen anywhere.
    round: u64,
    chance: Chance,
    takeover: Option<TakeoverPromise>,
    /// When the support of a takeover by promise alone ends.
    support_ends: Option<Time>,
    /// The durable state differs from that of the last ticket issued.
    dirty: bool,
    /// Invariant: `persisted <= issued`.
    issued: Ticket,
    persisted: Ticket,
    /// What leaves when its ticket is persisted; at most [`WAITING_MAX`], tickets rise.
    waiting: VecDeque<(Ticket, NodeId, Message)>,
    /// What this member's proposer and acceptor say to each other.
    local: VecDeque<Message>,
    outputs: VecDeque<RegisterOutput>,
    barrier_needed: bool,
    /// The start, until the register met its lease in a first step.
    unmet: Option<Time>,
}

impl Register {
    /// From the durable state; [`Default`] for a member that never ran.
    #[must_use]
    pub fn new(config: RegisterConfig, durable: GroupDurable, now: Time) -> Self {
        Self {
            chance: Chance::new(config.seed),
            config,
            durable,
            attempt: None,
            phase: Phase::Idle,
            read_wanted: false,
            round: 0,
            takeover: None,
            support_ends: None,
            dirty: false,
            issued: Ticket(0),
            persisted: Ticket(0),
            waiting: VecDeque::new(),
            local: VecDeque::new(),
            outputs: VecDeque::new(),
            barrier_needed: true,
            unmet: Some(now),
        }
    }

    /// Takes one input. `lease` is the same group's, at this member: it is asked what stands against a takeover, and told whom
    /// this member supports, in the same step (R8).
    pub fn handle(&mut self, now: Time, input: RegisterInput, lease: &mut Lease) {
        match input {
            RegisterInput::Message { from, message } => self.on_message(now, from, message, lease),
            RegisterInput::Persisted(ticket) => self.on_persisted(ticket),
            RegisterInput::Propose { record, purpose } => {
                self.on_propose(now, record, purpose, lease);
            }
            RegisterInput::Read => self.on_read(now),
            RegisterInput::Wake => {}
        }
        self.tick(now, lease);
        while let Some(message) = self.local.pop_front() {
            self.on_message(now, self.config.me, message, lease);
        }
        self.tell_support(now, lease);
        self.issue_persist();
        self.unmet = None;
    }

    /// The next thing to do; drain before the next [`Register::handle`].
    pub fn poll(&mut self) -> Option<RegisterOutput> {
        self.outputs.pop_front()
    }

    /// When to wake the register. At once after the start: until then the lease grants nothing.
    #[must_use]
    pub fn wake_at(&self) -> Option<Time> {
        let phase = match &self.phase {
            Phase::Idle => None,
            Phase::Preparing {
                resend_at,
                refusals,
                ..
            }
            | Phase::Accepting {
                resend_at,
                refusals,
                ..
            } => {
                let freed = refusals.first_end().unwrap_or(Time::MAX);
                Some(freed.min(*resend_at))
            }
            Phase::Waiting { until } => Some(*until),
            Phase::Surrendering { recheck_at, .. } => Some(*recheck_at),
        };
        let patience = self.attempt.as_ref().and_then(|attempt| attempt.patience);
        [self.unmet, phase, patience, self.support_ends]
            .into_iter()
            .flatten()
            .min()
    }

    /// What is to be written for a persist ticket.
    #[must_use]
    pub const fn durable(&self) -> &GroupDurable {
        &self.durable
    }

    /// The newest record known to be decided.
    #[must_use]
    pub const fn confirmed(&self) -> Option<&Record> {
        self.durable.confirmed.as_ref()
    }

    /// Proposals of this node whose outcome is not known (R2): the one under way (R5), those of earlier lives, and others' that
    /// this node began to complete.
    #[must_use]
    pub fn unresolved(&self) -> &[Record] {
        &self.durable.unresolved
    }

    /// True from a start until an own compare-and-swap was decided in a round of this life (R6).
    #[must_use]
    pub const fn needs_barrier(&self) -> bool {
        self.barrier_needed
    }

    /// False if this member may change nothing, because its file was lost or is older than it was (R14).
    #[must_use]
    pub const fn votes(&self) -> bool {
        self.config.voting
    }

    /// True if neither a proposal nor a read is under way.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.attempt.is_none()
    }

    /// R1: whose acknowledgement every write needs: in sync by the confirmed record or by any unresolved proposal.
    #[must_use]
    pub fn required(&self) -> BTreeSet<NodeId> {
        self.known_and_unresolved()
            .flat_map(Record::in_sync)
            .collect()
    }

    /// R8: who could be promoted by the confirmed record or by any unresolved proposal; this member included.
    #[must_use]
    pub fn could_be_promoted(&self) -> BTreeSet<NodeId> {
        self.known_and_unresolved()
            .flat_map(Record::promotable)
            .collect()
    }

    /// Stops trying. A proposal that may have been sent to an acceptor stays unresolved (R2); any other is withdrawn.
    pub fn give_up(&mut self) {
        self.drop_attempt();
        self.read_wanted = false;
    }

    fn known_and_unresolved(&self) -> impl Iterator<Item = &Record> {
        self.durable.confirmed.iter().chain(self.open_proposals())
    }

    /// The unresolved proposals, and what waits for this node's surrender.
    fn open_proposals(&self) -> impl Iterator<Item = &Record> {
        let contested = match &self.phase {
            Phase::Surrendering { record, .. } => Some(record),
            Phase::Idle
            | Phase::Preparing { .. }
            | Phase::Accepting { .. }
            | Phase::Waiting { .. } => None,
        };
        self.durable.unresolved.iter().chain(contested)
    }

    fn confirmed_version(&self) -> Version {
        self.confirmed().map_or(Version(0), |record| record.version)
    }

    fn on_message(&mut self, now: Time, from: NodeId, message: Message, lease: &mut Lease) {
        if group_of(&message) != Some(self.config.group) {
            return;
        }
        match message {
            Message::Prepare {
                ballot, purpose, ..
            } => {
                self.on_prepare(now, from, ballot, purpose, lease);
            }
            Message::Accept { ballot, record, .. } => {
                self.on_accept(now, from, ballot, record, lease);
            }
            Message::Promise {
                ballot, accepted, ..
            } => {
                self.on_promise(now, from, ballot, accepted, lease);
            }
            Message::Accepted { ballot, .. } => self.on_accepted(now, from, ballot, lease),
            Message::Refused { ballot, why, .. } => self.on_refused(now, from, ballot, why),
            Message::Decided { record, .. } => self.on_decided(now, record, lease),
            Message::Beat(_)
            | Message::LeaseRequest { .. }
            | Message::LeaseGrant { .. }
            | Message::Ask { .. }
            | Message::Answer { .. } => {}
        }
    }

    fn on_persisted(&mut self, ticket: Ticket) {
        self.persisted = self.persisted.max(ticket.min(self.issued));
        while let Some((needed, _, _)) = self.waiting.front()
            && *needed <= self.persisted
            && let Some((_, to, message)) = self.waiting.pop_front()
        {
            self.send(to, message);
        }
    }

    /// Gossip of a decided record.
    fn on_decided(&mut self, now: Time, record: Record, lease: &mut Lease) {
        if record.fault().is_some() || !self.confirm(&record, lease) {
            return;
        }
        let ended = self
            .proposal()
            .filter(|mine| mine.version <= record.version);
        let Some(won) = ended.map(|mine| *mine == record) else {
            self.tell(Outcome::Learned(record));
            return;
        };
        // Gossip may be old: a win by it ends neither the need of a barrier nor the wait after a restart.
        self.drop_attempt();
        self.tell(if won {
            Outcome::Won(record)
        } else {
            Outcome::Superseded(record)
        });
        self.follow_up(now);
    }

    /// The record proposed by the attempt under way.
    fn proposal(&self) -> Option<&Record> {
        match &self.attempt.as_ref()?.goal {
            Goal::Change { record, .. } => Some(record),
            Goal::Read => None,
        }
    }

    /// True if the record was news. What it resolves leaves the unresolved proposals (R2).
    fn confirm(&mut self, record: &Record, lease: &mut Lease) -> bool {
        if let Some(known) = self.confirmed()
            && known.version >= record.version
        {
            if known.version == record.version && known.nonce != record.nonce {
                self.tell(Outcome::Alarm(FORKED));
            }
            return false;
        }
        if let Intent::Handover { from } = record.intent {
            lease.on_handover(from, record.epoch);
        }
        self.durable
            .unresolved
            .retain(|open| open.version > record.version);
        self.durable.confirmed = Some(record.clone());
        self.dirty = true;
        true
    }

    /// Says to the lease whom this member may make active without knowing it yet (R8).
    fn tell_support(&mut self, now: Time, lease: &mut Lease) {
        if !self.config.voting {
            return;
        }
        let known = self.confirmed_version();
        let accepted = self
            .durable
            .acceptor
            .accepted
            .as_ref()
            .map(|(_, record)| record);
        let mut actives: BTreeSet<NodeId> = accepted
            .into_iter()
            .chain(self.open_proposals())
            .filter(|record| record.version > known)
            .map(|record| record.active)
            .collect();
        let promise = self.takeover_promise(now);
        self.support_ends = promise.map(|promise| promise.until);
        actives.extend(promise.map(|promise| promise.by));
        lease.support(actives);
    }

    fn tell(&mut self, outcome: Outcome) {
        self.outputs.push_back(RegisterOutput::Outcome(outcome));
    }

    fn send(&mut self, to: NodeId, message: Message) {
        if to == self.config.me {
            self.local.push_back(message);
        } else {
            self.outputs.push_back(RegisterOutput::Send { to, message });
        }
    }

    /// Sends once the present durable state is persisted.
    fn send_durable(&mut self, to: NodeId, message: Message) {
        let gate = self.gate();
        if gate <= self.persisted {
            self.send(to, message);
        } else if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back((gate, to, message));
        }
    }

    /// The ticket that covers the present durable state.
    const fn gate(&self) -> Ticket {
        if self.dirty {
            Ticket(self.issued.0 + 1)
        } else {
            self.issued
        }
    }

    fn issue_persist(&mut self) {
        if self.dirty {
            self.issued = self.gate();
            self.dirty = false;
            self.outputs.push_back(RegisterOutput::Persist(self.issued));
        }
    }
}

const fn group_of(message: &Message) -> Option<GroupId> {
    match message {
        Message::Prepare { group, .. }
        | Message::Accept { group, .. }
        | Message::Promise { group, .. }
        | Message::Accepted { group, .. }
        | Message::Refused { group, .. }
        | Message::Decided { group, .. }
        | Message::LeaseRequest { group, .. }
        | Message::LeaseGrant { group, .. }
        | Message::Ask { group, .. } => Some(*group),
        Message::Beat(_) | Message::Answer { .. } => None,
    }
}

#[cfg(test)]
mod tests;
