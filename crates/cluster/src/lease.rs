//! The lease of one group (R8): until when the active may serve, and what this member granted to it.
//!
//! **Holder.** The active asks every other member again and again. A grant counts from the *sending* of the request that it
//! answers. The active may serve until the later of two times ([`Lease::until`]): every other member that could be promoted
//! granted (nobody else can propose itself), or a majority of the register's members granted, this one included (nobody
//! else can win). This member counts itself only while it supports nobody else.
//!
//! **Grantor.** A grant means: from its receipt, for the term and a margin, this member supports no takeover. It is the other
//! way round as well: once this member's acceptor supported somebody ([`Lease::support`], called by the register in the very
//! step), it grants to nobody else. Clocks of two machines are never compared; the margin covers that they run at different
//! speeds.
//!
//! Nothing here is durable but the longest term: a restarted grantor waits that long before it supports a takeover.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wire::control::Message;
use wire::mutant::{self, Mutant};
use wire::record::Intent;
use wire::{Duration, Epoch, GroupId, NodeId, Nonce, Record, Time};

/// Requests are remembered up to this many; a grant for an older one is ignored.
const REQUESTS_MAX: usize = 64;
/// A longer term is not granted: it would forbid a takeover for as long after every restart.
pub const TERM_MAX: Duration = Duration::from_secs(60);

/// How leases are counted.
#[derive(Clone, Debug)]
pub struct LeaseConfig {
    /// This member.
    pub me: NodeId,
    /// Which group's lease.
    pub group: GroupId,
    /// The register's members.
    pub members: BTreeSet<NodeId>,
    /// Length `T` of the leases that this member asks for; at most [`TERM_MAX`].
    pub term: Duration,
    /// What a grantor waits beyond `T`. At least 1/32 of the term is used: with clocks within 1 % of each other a holder's
    /// `T` lasts at most 1.01 / 0.99 = 1.0203 of the grantor's.
    pub margin: Duration,
}

/// Whom the register at this member stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Support {
    /// Not known: the register was not met since the start, or it has no vote (R14). Nothing is granted or counted.
    Unknown,
    /// The actives of every record that may be decided with this member's help, or by its proposal, and is not known to be.
    /// Empty: nobody in particular.
    For(BTreeSet<NodeId>),
}

/// What was granted to one node.
#[derive(Clone, Copy, Debug)]
struct Grant {
    /// Term and margin after the receipt of the request.
    until: Time,
    /// The highest epoch at which it was asked for.
    epoch: Epoch,
}

/// Both sides of one group's lease at one member.
#[derive(Clone, Debug)]
pub struct Lease {
    config: LeaseConfig,
    support: Support,
    blocked: bool,
    grants: BTreeMap<NodeId, Grant>,
    /// Grants given before a restart may run until then.
    restart_wait: Option<Time>,
    longest: Duration,
    /// Invariant: `persisted <= longest`, and no grant was ever given for longer.
    persisted: Duration,
    /// Own requests: nonce and sending time, oldest first; at most [`REQUESTS_MAX`].
    requests: VecDeque<(Nonce, Time)>,
    /// Per grantor, the latest end of what it granted to this member, counted from sending.
    received: BTreeMap<NodeId, Time>,
    held: Option<Time>,
}

impl Lease {
    /// `longest_term` is the durable value: above zero, this is a restarted grantor, which supports no takeover until the
    /// longest term and the margin passed (R8).
    #[must_use]
    pub fn new(config: LeaseConfig, now: Time, longest_term: Duration) -> Self {
        let wait = longest_term.saturating_add(margin(&config, longest_term));
        Self {
            support: Support::Unknown,
            blocked: false,
            grants: BTreeMap::new(),
            restart_wait: (longest_term > Duration::ZERO && !mutant::on(Mutant::GrantorAmnesia))
                .then(|| now + wait),
            longest: longest_term,
            persisted: longest_term,
            requests: VecDeque::new(),
            received: BTreeMap::new(),
            held: None,
            config,
        }
    }

    /// Grantor (R8): a request came. Answers with the grant, or none if
    /// - this member's register supports, or proposes, another active, or was not met yet;
    /// - grants are blocked, or this member holds the lease itself;
    /// - `confirmed`, the record known here, names another active at the request's epoch or later;
    /// - another node's grant still runs and the record does not name the asker;
    /// - the term is longer than any before and not yet durable (see [`Lease::longest_term`]), or not within [`TERM_MAX`].
    pub fn on_request(
        &mut self,
        now: Time,
        from: NodeId,
        request: Nonce,
        term: Duration,
        epoch: Epoch,
        confirmed: Option<&Record>,
    ) -> Option<Message> {
        let willing = from != self.config.me
            && !self.blocked
            && (self.supports_only(from) || mutant::on(Mutant::GrantWhileTaking))
            && self.held(now).is_none()
            && !term.is_zero()
            && term <= TERM_MAX;
        let is_active = confirmed.is_some_and(|record| record.active == from);
        let outdated = !is_active && confirmed.is_some_and(|record| record.epoch >= epoch);
        if !willing || outdated || (!is_active && self.granted_to_other(now, from)) {
            return None;
        }
        if term > self.persisted {
            self.longest = self.longest.max(term);
            return None;
        }
        let until = now + term + margin(&self.config, term);
        let grant = self.grants.entry(from).or_insert(Grant { until, epoch });
        grant.until = grant.until.max(until);
        grant.epoch = grant.epoch.max(epoch);
        let group = self.config.group;
        Some(Message::LeaseGrant { group, request })
    }

    /// Grantor: while blocked, nothing is granted. The register blocks by itself while an own takeover is unresolved (R8);
    /// this is for other reasons of the caller.
    pub fn block_grants(&mut self, blocked: bool) {
        self.blocked = blocked;
    }

    /// What stands against supporting a takeover by `proposer` (R8): a grant to somebody else, the lease that this member
    /// holds itself (as long as it runs, told as at most one term), or the wait after a restart, when it is not known who was
    /// granted what (then this member is named). The longest of them.
    #[must_use]
    pub fn takeover_obstacle(&self, now: Time, proposer: NodeId) -> Option<(NodeId, Duration)> {
        let held = self.held_against(now, proposer);
        let grants = self.running(now, proposer);
        longest(grants.chain(self.restart_left(now)).chain(held))
    }

    /// As [`Lease::takeover_obstacle`], for a record that `sender` asks to be accepted. What the sender, or the `from` of a
    /// handover, was granted at older epochs does not count: each surrendered its lease before it proposed the record, and
    /// counts no grant until the record is resolved. Nor does, for a handover, what was granted before a restart: its `from`
    /// was the active.
    pub(crate) fn obstacle_to(
        &self,
        now: Time,
        sender: NodeId,
        record: &Record,
    ) -> Option<(NodeId, Duration)> {
        let yielded = match record.intent {
            Intent::Handover { from } => Some(from),
            Intent::Serve | Intent::Hold(_) => None,
        };
        let held = self.held_against(now, record.active);
        let older = |to: &NodeId| self.grants.get(to).is_some_and(|g| g.epoch < record.epoch);
        let grants = self
            .running(now, record.active)
            .filter(|(to, _)| !(older(to) && (*to == sender || Some(*to) == yielded)));
        let restart = self.restart_left(now).filter(|_| yielded.is_none());
        longest(grants.chain(restart).chain(held))
    }

    /// How long grants of this member to others may still run; none when all are over. A new active serves only then (R8).
    #[must_use]
    pub fn own_grants_left(&self, now: Time) -> Option<Duration> {
        let grants = self.running(now, self.config.me);
        longest(grants.chain(self.restart_left(now))).map(|(_, left)| left)
    }

    /// True if no grant of this member to another runs: see [`Lease::own_grants_left`].
    #[must_use]
    pub fn own_grants_over(&self, now: Time) -> bool {
        self.own_grants_left(now).is_none()
    }

    /// The grant that runs longest: to whom, and for how long still.
    #[must_use]
    pub fn granted(&self, now: Time) -> Option<(NodeId, Duration)> {
        longest(self.running(now, self.config.me))
    }

    /// The longest term asked for: to be written to the durable state, then reported by [`Lease::term_persisted`] (R8). A
    /// longer term is granted only after that.
    #[must_use]
    pub const fn longest_term(&self) -> Duration {
        self.longest
    }

    /// `term` is durable as the member's longest term: requests up to it may be granted.
    pub fn term_persisted(&mut self, term: Duration) {
        self.longest = self.longest.max(term);
        self.persisted = self.persisted.max(term);
    }

    /// Holder: a request with this nonce is sent now, to everyone. Answers with the term to put in it.
    pub fn request(&mut self, now: Time, nonce: Nonce) -> Duration {
        if self.requests.len() == REQUESTS_MAX {
            self.requests.pop_front();
        }
        self.requests.push_back((nonce, now));
        self.config.term
    }

    /// Holder: a grant came. It counts from the sending of the request that it names (R8); the latest counts.
    pub fn on_grant(&mut self, now: Time, from: NodeId, request: Nonce) {
        let sent = self.requests.iter().find(|(nonce, _)| *nonce == request);
        let from_receipt = mutant::on(Mutant::LeaseFromReceipt);
        let start = |sent: Time| if from_receipt { now } else { sent };
        let Some(until) = sent.map(|(_, sent)| start(*sent) + self.config.term) else {
            return;
        };
        if until > now && from != self.config.me {
            let end = self.received.entry(from).or_insert(until);
            *end = until.max(*end);
        }
    }

    /// Holder (R8): until when the grants allow this member to serve; may be in the past. `others` are the other members that
    /// could be promoted, over known and unresolved records ([`crate::Register::could_be_promoted`] without this member). The
    /// later of: until the last of `others` is free again, and until a majority of the register (with this member) is. None if
    /// neither is granted; whether a solo active (`others` empty) needs a lease is the caller's decision.
    #[must_use]
    pub fn until(&self, others: &BTreeSet<NodeId>) -> Option<Time> {
        if !self.supports_only(self.config.me) {
            return None;
        }
        self.until_others(others).max(self.until_majority())
    }

    /// Holder: this member serves until then; [`Time::MAX`] for a solo active without end. While it runs, this member supports
    /// no takeover. Replaces what was held before, also by less.
    pub fn hold(&mut self, until: Time) {
        self.held = Some(until);
    }

    /// Holder: this member stopped serving. Grants are forgotten, and late ones for requests sent until now are ignored. To
    /// be called before a handover is proposed.
    pub fn surrender(&mut self, now: Time) {
        self.requests.retain(|(_, sent)| *sent > now);
        self.received.clear();
        self.held = None;
    }

    /// Holder: how long the own lease still runs, as given to [`Lease::hold`].
    #[must_use]
    pub fn held(&self, now: Time) -> Option<Duration> {
        let left = self.held?.since(now);
        (left > Duration::ZERO).then_some(left)
    }

    /// The length of the leases that this member asks for.
    pub(crate) const fn term(&self) -> Duration {
        self.config.term
    }

    /// The register: from now on this member's vote, or its own proposal, may make one of `actives` active.
    pub(crate) fn support(&mut self, actives: BTreeSet<NodeId>) {
        let support = Support::For(actives);
        if self.support == support {
            return;
        }
        self.support = support;
        if !self.supports_only(self.config.me) {
            self.requests.clear();
            self.received.clear();
        }
    }

    /// The register: this handover is decided; what its `from` was granted at older epochs is void (R8).
    pub(crate) fn on_handover(&mut self, from: NodeId, epoch: Epoch) {
        self.grants
            .retain(|to, grant| *to != from || grant.epoch >= epoch);
    }

    /// The register: a change from this member as active to this member as active was decided in this life. Whoever was granted
    /// anything before the restart was deposed before that.
    pub(crate) fn end_restart_wait(&mut self) {
        self.restart_wait = None;
    }

    fn supports_only(&self, node: NodeId) -> bool {
        match &self.support {
            Support::Unknown => false,
            Support::For(actives) => actives.iter().all(|active| *active == node),
        }
    }

    /// The own lease, if it stands against another. One without end is worth asking again after a term, as any is.
    fn held_against(&self, now: Time, node: NodeId) -> Option<(NodeId, Duration)> {
        let left = self.held(now).filter(|_| node != self.config.me)?;
        Some((self.config.me, left.min(self.config.term)))
    }

    fn granted_to_other(&self, now: Time, node: NodeId) -> bool {
        self.running(now, node).next().is_some()
    }

    /// Running grants to others than `node`.
    fn running(&self, now: Time, node: NodeId) -> impl Iterator<Item = (NodeId, Duration)> {
        self.grants
            .iter()
            .filter(move |(to, _)| **to != node)
            .map(move |(to, grant)| (*to, grant.until.since(now)))
            .filter(|(_, left)| *left > Duration::ZERO)
            .filter(|_| !mutant::on(Mutant::TakeoverBeforeGrantsEnd))
    }

    fn restart_left(&self, now: Time) -> Option<(NodeId, Duration)> {
        let left = self.restart_wait?.since(now);
        (left > Duration::ZERO).then_some((self.config.me, left))
    }

    fn until_others(&self, others: &BTreeSet<NodeId>) -> Option<Time> {
        let mut first: Option<Time> = None;
        for other in others {
            let end = *self.received.get(other)?;
            first = Some(first.map_or(end, |before| before.min(end)));
        }
        first
    }

    fn until_majority(&self) -> Option<Time> {
        let members = &self.config.members;
        let needed =
            crate::majority(members.len()) - usize::from(members.contains(&self.config.me));
        let Some(last) = needed.checked_sub(1) else {
            return Some(Time::MAX);
        };
        let granted = self
            .received
            .iter()
            .filter(|(node, _)| members.contains(node));
        let mut ends: Vec<Time> = granted.map(|(_, end)| *end).collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends.get(last).copied()
    }
}

fn margin(config: &LeaseConfig, term: Duration) -> Duration {
    config.margin.max(term / 32)
}

fn longest(spans: impl Iterator<Item = (NodeId, Duration)>) -> Option<(NodeId, Duration)> {
    spans.max_by_key(|(_, left)| *left)
}

#[cfg(test)]
mod tests;
