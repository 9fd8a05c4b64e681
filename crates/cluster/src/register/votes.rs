//! The acceptor at work: prepares and accepts of others and of this member itself, which votes by the same path.

use super::{Outcome, Register};
use crate::acceptor::{self, Vote};
use crate::lease::Lease;
use wire::control::{Message, Purpose};
use wire::mutant::{self, Mutant};
use wire::{Ballot, Duration, NodeId, Record, Time};

const CONFLICT: &str = "two different records came under one ballot";

/// A promise to another's takeover (an own one is among the unresolved proposals). It keeps the lease from being renewed in the middle of it, for one lease term; only the accept's own
/// check is needed for safety, so it is volatile.
#[derive(Clone, Copy, Debug)]
pub(super) struct TakeoverPromise {
    pub(super) by: NodeId,
    ballot: Ballot,
    pub(super) until: Time,
}

impl Register {
    pub(super) fn on_prepare(
        &mut self,
        now: Time,
        from: NodeId,
        ballot: Ballot,
        purpose: Purpose,
        lease: &Lease,
    ) {
        if !self.is_voter() || ballot.node != from {
            return;
        }
        self.round = self.round.max(ballot.round);
        let obstacle = match purpose {
            Purpose::Keep => None,
            Purpose::Takeover => lease.takeover_obstacle(now, from),
        };
        let before = self.durable.acceptor.promised;
        let vote = acceptor::prepare(&mut self.durable.acceptor, ballot, obstacle);
        self.dirty |= self.durable.acceptor.promised != before;
        if vote == Vote::Yes && purpose == Purpose::Takeover && from != self.config.me {
            self.on_takeover_promised(now, ballot, lease.term());
        }
        let group = self.config.group;
        let accepted = self.durable.acceptor.accepted.clone();
        let promise = Message::Promise {
            group,
            ballot,
            accepted,
        };
        self.answer(from, ballot, vote, promise);
    }

    pub(super) fn on_accept(
        &mut self,
        now: Time,
        from: NodeId,
        ballot: Ballot,
        record: Record,
        lease: &Lease,
    ) {
        if !self.is_voter() || ballot.node != from || record.fault().is_some() {
            return;
        }
        self.round = self.round.max(ballot.round);
        let obstacle = self.obstacle_to(now, from, &record, lease);
        let known = self
            .durable
            .acceptor
            .accepted
            .as_ref()
            .map(|(ballot, _)| *ballot);
        let vote = acceptor::accept(&mut self.durable.acceptor, ballot, &record, obstacle);
        self.dirty |= vote == Vote::Yes && known != Some(ballot);
        let group = self.config.group;
        self.answer(from, ballot, vote, Message::Accepted { group, ballot });
    }

    /// The promise to a takeover that holds now: within its time, and no other ballot was promised since.
    pub(super) fn takeover_promise(&self, now: Time) -> Option<TakeoverPromise> {
        self.takeover.filter(|promise| {
            now < promise.until && self.durable.acceptor.promised == Some(promise.ballot)
        })
    }

    fn is_voter(&self) -> bool {
        self.config.voting && self.config.members.contains(&self.config.me)
    }

    /// No lease stands against a record that leaves the active as the decided record before it has it: whoever else was
    /// granted a lease was deposed by then. Nor does what the sender itself was granted: it surrendered before it sent this, and
    /// counts no grant until its proposal, durable by then, is resolved.
    fn obstacle_to(
        &self,
        now: Time,
        from: NodeId,
        record: &Record,
        lease: &Lease,
    ) -> Option<(NodeId, Duration)> {
        let keeps_active = self.confirmed().is_some_and(|known| {
            let follows = known.version.next() == record.version && known.active == record.active;
            follows || known == record
        });
        if keeps_active {
            None
        } else {
            lease.obstacle_to(now, from, record)
        }
    }

    fn answer(&mut self, to: NodeId, ballot: Ballot, vote: Vote, yes: Message) {
        let group = self.config.group;
        match vote {
            Vote::Yes if mutant::on(Mutant::AcceptorNotDurable) => self.send(to, yes),
            Vote::Yes => self.send_durable(to, yes),
            Vote::No(why) => self.send(to, Message::Refused { group, ballot, why }),
            Vote::Conflict => self.tell(Outcome::Alarm(CONFLICT)),
        }
    }

    /// A proposer that tries again and again does not keep others from the lease: after one term, it cannot bind this member for
    /// another term.
    fn on_takeover_promised(&mut self, now: Time, ballot: Ballot, term: Duration) {
        let by = ballot.node;
        let until = match self.takeover {
            Some(before) if before.by == by && now < before.until + term => before.until,
            Some(_) | None => now + term,
        };
        self.takeover = Some(TakeoverPromise { by, ballot, until });
    }
}
