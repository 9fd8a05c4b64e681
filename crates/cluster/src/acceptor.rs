//! The acceptor's side of CASPaxos: what one member promises and accepts. Durable; replies wait for the persist.

use wire::control::Refusal;
use wire::durable::AcceptorDurable;
use wire::mutant::{self, Mutant};
use wire::{Ballot, Duration, NodeId, Record};

/// An acceptor's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Vote {
    /// Yes; the state was changed or said so already.
    Yes,
    /// No; nothing changed.
    No(Refusal),
    /// The ballot is known with another value. A proposer never uses a ballot twice, so a file was lost somewhere.
    Conflict,
}

/// Raises the promise to `ballot` without voting for it: a proposer's own ballots must never be used again after a restart.
pub(crate) fn reserve(state: &mut AcceptorDurable, ballot: Ballot) {
    state.promised = state.promised.max(Some(ballot));
}

/// Phase 1. `obstacle`: a lease stands against what is asked (R8). A prepare that comes twice is answered twice.
pub(crate) fn prepare(
    state: &mut AcceptorDurable,
    ballot: Ballot,
    obstacle: Option<(NodeId, Duration)>,
) -> Vote {
    if let Some(refusal) = refusal(state, ballot, obstacle) {
        return Vote::No(refusal);
    }
    state.promised = Some(ballot);
    Vote::Yes
}

/// Phase 2. `obstacle`: a lease stands against the record's active (R8).
pub(crate) fn accept(
    state: &mut AcceptorDurable,
    ballot: Ballot,
    record: &Record,
    obstacle: Option<(NodeId, Duration)>,
) -> Vote {
    if let Some((known, value)) = &state.accepted
        && *known == ballot
    {
        let same = value == record;
        return if same { Vote::Yes } else { Vote::Conflict };
    }
    if let Some(refusal) = refusal(state, ballot, obstacle) {
        return Vote::No(refusal);
    }
    state.promised = Some(ballot);
    state.accepted = Some((ballot, record.clone()));
    Vote::Yes
}

fn refusal(
    state: &AcceptorDurable,
    ballot: Ballot,
    obstacle: Option<(NodeId, Duration)>,
) -> Option<Refusal> {
    match (state.promised, obstacle) {
        (Some(promised), _) if promised > ballot && !mutant::on(Mutant::PromiseIgnored) => {
            Some(Refusal::Ballot(promised))
        }
        (_, Some((holder, left))) => Some(Refusal::Leased { holder, left }),
        (_, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{ballot, record};

    fn promised(round: u64) -> AcceptorDurable {
        AcceptorDurable {
            promised: Some(ballot(round, 0)),
            accepted: None,
        }
    }

    #[test]
    fn a_lower_ballot_is_refused_and_an_equal_one_answered_again() {
        let mut state = promised(5);
        assert_eq!(
            prepare(&mut state, ballot(4, 2), None),
            Vote::No(Refusal::Ballot(ballot(5, 0)))
        );
        assert_eq!(
            accept(&mut state, ballot(4, 2), &record(1, 1, 0, &[0]), None),
            Vote::No(Refusal::Ballot(ballot(5, 0)))
        );
        assert_eq!(prepare(&mut state, ballot(5, 0), None), Vote::Yes);
        assert_eq!(state, promised(5));
    }

    #[test]
    fn a_lease_forbids_both_phases_and_changes_nothing() {
        let mut state = promised(5);
        let obstacle = Some((NodeId(1), Duration::from_millis(3)));
        let value = record(1, 1, 0, &[0]);
        assert!(matches!(
            prepare(&mut state, ballot(6, 0), obstacle),
            Vote::No(_)
        ));
        assert!(matches!(
            accept(&mut state, ballot(6, 0), &value, obstacle),
            Vote::No(_)
        ));
        assert_eq!(state, promised(5));
    }

    #[test]
    fn an_accepted_value_is_confirmed_again_even_under_a_later_lease() {
        let mut state = promised(5);
        let value = record(1, 1, 0, &[0]);
        assert_eq!(accept(&mut state, ballot(5, 0), &value, None), Vote::Yes);
        let obstacle = Some((NodeId(1), Duration::from_millis(3)));
        assert_eq!(
            accept(&mut state, ballot(5, 0), &value, obstacle),
            Vote::Yes
        );
    }

    #[test]
    fn two_values_under_one_ballot_are_a_conflict() {
        let mut state = promised(5);
        accept(&mut state, ballot(5, 0), &record(1, 1, 0, &[0]), None);
        let before = state.clone();
        let other = record(1, 9, 1, &[1]);
        assert_eq!(
            accept(&mut state, ballot(5, 0), &other, None),
            Vote::Conflict
        );
        assert_eq!(state, before);
    }
}
