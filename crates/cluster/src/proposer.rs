//! The proposer's side of CASPaxos: one goal at a time, in rounds of two phases.
//!
//! ```text
//!            start                majority promised             majority accepted
//!   Idle ──────────▶ Preparing ───────────────────▶ Accepting ───────────────────▶ Idle
//!                    ▲   │  │                        │   ▲
//!             wait   │   │  └── must complete ──▶ Surrendering (the lease first, R8)
//!             over   │   ▼                           ▼
//!                    └─ Waiting ◀── refused: higher ballot, or a lease
//! ```
//!
//! This file holds what a round knows and what follows from it; [`crate::register`] turns it into messages.

use std::collections::{BTreeMap, BTreeSet};
use wire::control::{Purpose, Refusal};
use wire::{Ballot, Duration, NodeId, Record, Time};

use crate::register::Ticket;

/// What is wanted from the register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Compare-and-swap to this record.
    Change { record: Record, purpose: Purpose },
    /// The decided record.
    Read,
}

/// A goal under way.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) goal: Goal,
    /// The record may have been sent in an `Accept`, in this attempt or before it: it stays unresolved (R2).
    pub(crate) sent: bool,
    /// When to say that no majority answers; none once said.
    pub(crate) patience: Option<Time>,
    /// Rounds that failed.
    pub(crate) failures: u32,
    /// The last round found a broken promise of the register.
    pub(crate) doubt: bool,
}

/// Where the attempt stands.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Idle,
    Preparing {
        ballot: Ballot,
        /// What was confirmed here when the round began: a majority that shows less has lost something.
        base: Option<Record>,
        promises: BTreeMap<NodeId, Option<(Ballot, Record)>>,
        refusals: Refusals,
        resend_at: Time,
    },
    Accepting {
        ballot: Ballot,
        value: Record,
        accepted: BTreeSet<NodeId>,
        refusals: Refusals,
        /// Covers the proposal and the ballot: nothing is sent before it is durable.
        gate: Ticket,
        resend_at: Time,
    },
    /// Until the next round.
    Waiting {
        until: Time,
    },
    /// Until this node's own lease is given up, so that this record can be written.
    Surrendering {
        record: Record,
        recheck_at: Time,
    },
}

/// The acceptors that said no in a round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals {
    outvoted: BTreeSet<NodeId>,
    /// The holder, and when its lease is over for this acceptor.
    leased: BTreeMap<NodeId, (NodeId, Time)>,
}

/// What a round with refusals comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prospect {
    /// A majority may still say yes.
    Open,
    /// A higher ballot is needed.
    Outvoted,
    /// This lease stands against it, for about that long.
    Leased(NodeId, Duration),
}

impl Refusals {
    pub(crate) fn add(&mut self, now: Time, from: NodeId, why: Refusal) {
        match why {
            Refusal::Ballot(_) => {
                self.outvoted.insert(from);
            }
            Refusal::Leased { holder, left } => {
                // The acceptor's clock may be up to 2 % slower than this one.
                let until = now + left.saturating_add(left / 32);
                self.leased.insert(from, (holder, until));
            }
        }
    }

    pub(crate) fn forget(&mut self, from: NodeId) {
        self.outvoted.remove(&from);
        self.leased.remove(&from);
    }

    /// Forgets leases that are over: their acceptors are to be asked again.
    pub(crate) fn expire(&mut self, now: Time) {
        self.leased.retain(|_, (_, until)| *until > now);
    }

    /// When the first of the leases is over.
    pub(crate) fn first_end(&self) -> Option<Time> {
        self.leased.values().map(|(_, until)| *until).min()
    }

    /// `late`: the retry time passed, so silent acceptors are not waited for any longer.
    pub(crate) fn prospect(&self, now: Time, yes: usize, members: usize, late: bool) -> Prospect {
        let needed = crate::majority(members).saturating_sub(yes);
        let nos = self.outvoted.len() + self.leased.len();
        let silent = members.saturating_sub(yes + nos);
        if nos == 0 || needed == 0 || (silent >= needed && !late) {
            return Prospect::Open;
        }
        if self.leased.is_empty() || self.outvoted.len() >= needed {
            return Prospect::Outvoted;
        }
        self.leased(now, needed - self.outvoted.len())
    }

    /// The lease whose end would let `needed` more acceptors say yes; the last one if there are fewer.
    fn leased(&self, now: Time, needed: usize) -> Prospect {
        let mut leases: Vec<(NodeId, Time)> = self.leased.values().copied().collect();
        leases.sort_unstable_by_key(|(_, until)| *until);
        let index = needed.min(leases.len()).saturating_sub(1);
        leases
            .get(index)
            .map_or(Prospect::Outvoted, |(holder, until)| {
                Prospect::Leased(*holder, until.since(now))
            })
    }
}

/// What follows from a majority of promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing was ever accepted, hence nothing decided.
    Empty,
    /// This record is decided already.
    Decided(Record),
    /// Have this record accepted: the proposal, or what was found and may be decided.
    Write(Record),
    /// A promise of the register was broken.
    Alarm(&'static str),
}

/// Raised when two rounds in a row show it: a promise of an own earlier life, for a ballot that was not yet durable in it, may
/// be late and show the past once.
pub(crate) const OLDER_MAJORITY: &str =
    "a majority of the register shows an older record than was confirmed here";
pub(crate) const FORKED: &str = "two different records were decided under one version";

/// Rystsov 2018, §2.2: the value accepted under the highest ballot among the promises is the current one.
pub(crate) fn next(
    goal: &Goal,
    base: Option<&Record>,
    promises: &BTreeMap<NodeId, Option<(Ballot, Record)>>,
    majority: usize,
) -> Next {
    let newest = promises
        .values()
        .flatten()
        .max_by_key(|(ballot, _)| *ballot);
    let Some((ballot, found)) = newest else {
        return match (goal, base) {
            (_, Some(_)) => Next::Alarm(OLDER_MAJORITY),
            (Goal::Read, None) => Next::Empty,
            (Goal::Change { record, .. }, None) => Next::Write(record.clone()),
        };
    };
    if base.is_some_and(|base| found.version < base.version) {
        return Next::Alarm(OLDER_MAJORITY);
    }
    if base.is_some_and(|base| found.version == base.version && found.nonce != base.nonce) {
        return Next::Alarm(FORKED);
    }
    let is_base = base.is_some_and(|base| found.version == base.version);
    if let Goal::Change { record, .. } = goal
        && is_base
        && found.version.next() == record.version
    {
        return Next::Write(record.clone());
    }
    let voters = promises
        .values()
        .flatten()
        .filter(|(b, _)| b == ballot)
        .count();
    if is_base || voters >= majority {
        Next::Decided(found.clone())
    } else {
        Next::Write(found.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{ballot, record};

    fn change(record: Record) -> Goal {
        let purpose = Purpose::Keep;
        Goal::Change { record, purpose }
    }

    fn promises(list: &[Option<(u64, Record)>]) -> BTreeMap<NodeId, Option<(Ballot, Record)>> {
        (0..)
            .map(NodeId)
            .zip(list.iter().cloned())
            .map(|(node, found)| (node, found.map(|(round, value)| (ballot(round, 0), value))))
            .collect()
    }

    #[test]
    fn the_first_record_is_written_into_an_empty_register() {
        let first = record(1, 1, 0, &[0, 1]);
        let found = promises(&[None, None]);
        assert_eq!(next(&Goal::Read, None, &found, 2), Next::Empty);
        assert_eq!(
            next(&change(first.clone()), None, &found, 2),
            Next::Write(first)
        );
    }

    #[test]
    fn a_proposal_follows_the_record_it_knows() {
        let (base, mine) = (record(1, 1, 0, &[0, 1]), record(2, 2, 0, &[0]));
        let found = promises(&[Some((1, base.clone())), None]);
        assert_eq!(
            next(&change(mine.clone()), Some(&base), &found, 2),
            Next::Write(mine)
        );
    }

    #[test]
    fn what_may_be_decided_is_completed_before_anything_else() {
        let (base, mine) = (record(1, 1, 0, &[0, 1]), record(2, 2, 0, &[0]));
        let other = record(2, 3, 1, &[1]);
        let found = promises(&[Some((1, base.clone())), Some((4, other.clone()))]);
        let next = |goal| next(&goal, Some(&base), &found, 2);
        assert_eq!(next(change(mine)), Next::Write(other.clone()));
        assert_eq!(next(Goal::Read), Next::Write(other));
    }

    #[test]
    fn what_a_majority_accepted_under_one_ballot_is_decided() {
        let other = record(2, 3, 1, &[1]);
        let found = promises(&[Some((4, other.clone())), Some((4, other.clone()))]);
        assert_eq!(next(&Goal::Read, None, &found, 2), Next::Decided(other));
    }

    #[test]
    fn an_older_majority_is_an_alarm_and_no_write() {
        let (base, mine) = (record(2, 1, 0, &[0, 1]), record(3, 2, 0, &[0]));
        for found in [None, Some((1, record(1, 9, 0, &[0])))] {
            let found = promises(&[found, None]);
            assert_eq!(
                next(&change(mine.clone()), Some(&base), &found, 2),
                Next::Alarm(OLDER_MAJORITY)
            );
        }
    }

    #[test]
    fn another_record_of_the_known_version_is_an_alarm() {
        let (base, mine) = (record(2, 1, 0, &[0, 1]), record(3, 2, 0, &[0]));
        let found = promises(&[Some((1, record(2, 9, 1, &[1]))), None]);
        assert_eq!(
            next(&change(mine), Some(&base), &found, 2),
            Next::Alarm(FORKED)
        );
    }

    const NOW: Time = Time::from_nanos(1_000_000_000);

    fn leased(millis: u64) -> Refusal {
        let left = Duration::from_millis(millis);
        Refusal::Leased {
            holder: NodeId(0),
            left,
        }
    }

    #[test]
    fn one_refusal_by_lease_waits_for_the_silent_until_it_is_late() {
        let mut refusals = Refusals::default();
        refusals.add(NOW, NodeId(2), leased(32));
        assert_eq!(refusals.prospect(NOW, 1, 3, false), Prospect::Open);
        let left = Duration::from_millis(33);
        assert_eq!(
            refusals.prospect(NOW, 1, 3, true),
            Prospect::Leased(NodeId(0), left)
        );
        assert_eq!(refusals.prospect(NOW, 2, 3, true), Prospect::Open);
    }

    #[test]
    fn an_acceptor_whose_lease_is_over_is_asked_again() {
        let mut refusals = Refusals::default();
        refusals.add(NOW, NodeId(2), leased(32));
        let end = refusals.first_end().unwrap();
        assert_eq!(end.since(NOW), Duration::from_millis(33));
        refusals.expire(end);
        assert_eq!(refusals.prospect(end, 1, 3, true), Prospect::Open);
    }

    #[test]
    fn the_lease_that_opens_a_majority_counts_not_the_longest() {
        let mut refusals = Refusals::default();
        for (node, millis) in [(1, 960), (2, 32), (3, 320)] {
            refusals.add(NOW, NodeId(node), leased(millis));
        }
        let left = Duration::from_millis(330);
        assert_eq!(
            refusals.prospect(NOW, 1, 5, true),
            Prospect::Leased(NodeId(0), left)
        );
    }

    #[test]
    fn a_higher_ballot_elsewhere_needs_a_new_round() {
        let mut refusals = Refusals::default();
        refusals.add(NOW, NodeId(1), Refusal::Ballot(ballot(9, 1)));
        assert_eq!(refusals.prospect(NOW, 1, 3, false), Prospect::Open);
        refusals.add(NOW, NodeId(2), Refusal::Ballot(ballot(9, 1)));
        assert_eq!(refusals.prospect(NOW, 1, 3, false), Prospect::Outvoted);
    }
}
