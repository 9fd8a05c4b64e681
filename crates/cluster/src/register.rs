//! One group's register at one member: the acceptor that votes and the proposer that changes.

use crate::lease::Lease;
use std::collections::BTreeSet;
use wire::control::{Message, Purpose};
use wire::durable::GroupDurable;
use wire::{Duration, GroupId, NodeId, Record, Time};

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
}

impl Register {
    /// From the durable state.
    #[must_use]
    pub fn new(config: RegisterConfig, durable: GroupDurable, now: Time) -> Self {
        let _ = now;
        Self { config, durable }
    }

    /// Takes one input. The lease is the same group's, at this member.
    pub fn handle(&mut self, now: Time, input: RegisterInput, lease: &mut Lease) {
        let _ = (now, input, lease, &self.config);
    }

    /// The next thing to do; drain before the next [`Register::handle`].
    pub fn poll(&mut self) -> Option<RegisterOutput> {
        None
    }

    /// When to wake the register.
    #[must_use]
    pub fn wake_at(&self) -> Option<Time> {
        None
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

    /// Own proposals whose outcome is not known, the one under way included (R2).
    #[must_use]
    pub fn unresolved(&self) -> &[Record] {
        &self.durable.unresolved
    }

    /// True from a start until an own compare-and-swap is confirmed (R6).
    #[must_use]
    pub fn needs_barrier(&self) -> bool {
        true
    }

    /// True if neither a proposal nor a read is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        true
    }

    /// R1: whose acknowledgement every write needs: in sync by the confirmed record or by any unresolved proposal.
    #[must_use]
    pub fn required(&self) -> BTreeSet<NodeId> {
        BTreeSet::new()
    }

    /// R8: who could be promoted by the confirmed record or by any unresolved proposal.
    #[must_use]
    pub fn could_be_promoted(&self) -> BTreeSet<NodeId> {
        BTreeSet::new()
    }

    /// Stops trying. A proposal that was sent to acceptors stays unresolved (R2).
    pub fn give_up(&mut self) {}
}
