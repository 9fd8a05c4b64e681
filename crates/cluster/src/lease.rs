//! The lease of one group (R8): what this member granted, and what it holds.

use std::collections::BTreeSet;
use wire::control::Message;
use wire::{Duration, Epoch, GroupId, NodeId, Nonce, Record, Time};

/// How leases are counted.
#[derive(Clone, Debug)]
pub struct LeaseConfig {
    /// This member.
    pub me: NodeId,
    /// Which group's lease.
    pub group: GroupId,
    /// The register's members.
    pub members: BTreeSet<NodeId>,
    /// Length `T` of the leases that this member asks for.
    pub term: Duration,
    /// What a grantor waits beyond `T`. At least 1/32 of the term is used: clocks run within 1 % of each other.
    pub margin: Duration,
}

/// Both sides of one group's lease at one member.
#[derive(Clone, Debug)]
pub struct Lease {
    config: LeaseConfig,
    longest: Duration,
}

impl Lease {
    /// `longest_term` is the durable value: above zero, this is a restarted grantor, which supports no takeover until the
    /// longest term and the margin passed (R8).
    #[must_use]
    pub fn new(config: LeaseConfig, now: Time, longest_term: Duration) -> Self {
        let _ = now;
        Self {
            config,
            longest: longest_term,
        }
    }

    /// Grantor: a request came. Answers with the grant, or none.
    pub fn on_request(
        &mut self,
        now: Time,
        from: NodeId,
        request: Nonce,
        term: Duration,
        epoch: Epoch,
        confirmed: Option<&Record>,
    ) -> Option<Message> {
        let _ = (now, from, request, term, epoch, confirmed);
        None
    }

    /// Grantor: while blocked, nothing is granted. (While an own takeover is unresolved the register blocks by itself.)
    pub fn block_grants(&mut self, blocked: bool) {
        let _ = blocked;
    }

    /// What stands against supporting a takeover by `proposer`: a grant to somebody else, the own lease, or the wait after a
    /// restart (then the holder named is this member). The longest of them.
    #[must_use]
    pub fn takeover_obstacle(&self, now: Time, proposer: NodeId) -> Option<(NodeId, Duration)> {
        let _ = (now, proposer);
        None
    }

    /// How long grants of this member to others may still run; none when all are over: a new active serves only then (R8).
    #[must_use]
    pub fn own_grants_left(&self, now: Time) -> Option<Duration> {
        let _ = now;
        None
    }

    /// The grant that runs longest: to whom, and for how long still.
    #[must_use]
    pub fn granted(&self, now: Time) -> Option<(NodeId, Duration)> {
        let _ = now;
        None
    }

    /// Grantor: `to` gave the group up by a decided handover; what it was granted is void.
    pub fn void_grants(&mut self, to: NodeId) {
        let _ = to;
    }

    /// The longest term asked for: to be written to the durable state, then reported by [`Lease::term_persisted`].
    #[must_use]
    pub const fn longest_term(&self) -> Duration {
        self.longest
    }

    /// `term` is durable as the longest term: requests up to it may be granted.
    pub fn term_persisted(&mut self, term: Duration) {
        let _ = term;
    }

    /// Holder: a request with this nonce is sent now to everyone. Answers with the term to put in it.
    pub fn request(&mut self, now: Time, nonce: Nonce) -> Duration {
        let _ = (now, nonce);
        self.config.term
    }

    /// Holder: a grant came.
    pub fn on_grant(&mut self, now: Time, from: NodeId, request: Nonce) {
        let _ = (now, from, request);
    }

    /// Holder: until when the grants allow this member to serve. `others` are the other members that could be promoted, over
    /// known and unresolved records.
    #[must_use]
    pub fn until(&self, others: &BTreeSet<NodeId>) -> Option<Time> {
        let _ = others;
        None
    }

    /// Holder: this member serves until then. While it runs no takeover is supported.
    pub fn hold(&mut self, until: Time) {
        let _ = until;
    }

    /// Holder: this member stopped serving. Grants are forgotten; late ones for older requests are ignored.
    pub fn surrender(&mut self, now: Time) {
        let _ = now;
    }

    /// How long this member's own lease still runs, as given to [`Lease::hold`].
    #[must_use]
    pub fn held(&self, now: Time) -> Option<Duration> {
        let _ = now;
        None
    }
}
