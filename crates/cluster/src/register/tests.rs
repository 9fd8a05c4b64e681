use super::*;
use crate::LeaseConfig;
use crate::sample::{ballot, nodes, record};
use wire::Nonce;
use wire::control::Refusal;

const ME: NodeId = NodeId(0);
const GROUP: GroupId = GroupId(0);
const RETRY: Duration = Duration::from_millis(50);

struct Bench {
    register: Register,
    lease: Lease,
}

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

/// Member A of A, B, C, with this durable state.
fn bench(durable: GroupDurable, voting: bool) -> Bench {
    let members = nodes(&[0, 1, 2]);
    let config = LeaseConfig {
        me: ME,
        group: GROUP,
        members: members.clone(),
        term: Duration::from_secs(1),
        margin: Duration::from_millis(100),
    };
    let lease = Lease::new(config, at(0), Duration::ZERO);
    let config = RegisterConfig {
        me: ME,
        group: GROUP,
        members,
        retry: RETRY,
        seed: 1,
        voting,
    };
    let register = Register::new(config, durable, at(0));
    Bench { register, lease }
}

fn knowing(confirmed: &Record) -> Bench {
    let durable = GroupDurable {
        confirmed: Some(confirmed.clone()),
        ..GroupDurable::default()
    };
    bench(durable, true)
}

impl Bench {
    fn input(&mut self, now: Time, input: RegisterInput) -> Vec<RegisterOutput> {
        self.register.handle(now, input, &mut self.lease);
        std::iter::from_fn(|| self.register.poll()).collect()
    }

    fn message(&mut self, from: u8, message: Message) -> Vec<RegisterOutput> {
        self.input(
            at(1),
            RegisterInput::Message {
                from: NodeId(from),
                message,
            },
        )
    }

    fn propose(&mut self, record: Record) -> Vec<RegisterOutput> {
        self.input(
            at(1),
            RegisterInput::Propose {
                record,
                purpose: Purpose::Keep,
            },
        )
    }
}

fn outcomes(outputs: Vec<RegisterOutput>) -> Vec<Outcome> {
    outputs
        .into_iter()
        .filter_map(|output| match output {
            RegisterOutput::Outcome(outcome) => Some(outcome),
            RegisterOutput::Send { .. } | RegisterOutput::Persist(_) => None,
        })
        .collect()
}

#[test]
fn the_first_step_comes_at_once_and_opens_the_lease() {
    let mut bench = bench(GroupDurable::default(), true);
    assert_eq!(bench.register.wake_at(), Some(at(0)));
    bench.input(at(0), RegisterInput::Wake);
    assert_eq!(bench.register.wake_at(), None);
    bench.lease.term_persisted(Duration::from_secs(1));
    let term = Duration::from_secs(1);
    let grant = bench
        .lease
        .on_request(at(0), NodeId(1), Nonce(1), term, wire::Epoch(1), None);
    assert!(grant.is_some());
}

#[test]
fn a_member_without_a_vote_says_nothing_and_proposes_nothing() {
    let mut bench = bench(GroupDurable::default(), false);
    let prepare = Message::Prepare {
        group: GROUP,
        ballot: ballot(1, 1),
        purpose: Purpose::Keep,
    };
    assert_eq!(bench.message(1, prepare), []);
    let proposal = record(1, 1, 0, &[0, 1]);
    let accept = Message::Accept {
        group: GROUP,
        ballot: ballot(1, 1),
        record: proposal.clone(),
    };
    assert_eq!(bench.message(1, accept), []);
    assert_eq!(outcomes(bench.propose(proposal)), [Outcome::NoMajority]);
    assert_eq!(
        outcomes(bench.input(at(2), RegisterInput::Read)),
        [Outcome::NoMajority]
    );
    assert_eq!(bench.register.durable(), &GroupDurable::default());
    assert!(bench.register.is_idle());
}

#[test]
fn gossip_reaches_a_member_without_a_vote() {
    let mut bench = bench(GroupDurable::default(), false);
    let news = record(4, 1, 1, &[1]);
    let decided = Message::Decided {
        group: GROUP,
        record: news.clone(),
    };
    assert_eq!(
        outcomes(bench.message(1, decided)),
        [Outcome::Learned(news.clone())]
    );
    assert_eq!(bench.register.confirmed(), Some(&news));
}

#[test]
fn a_proposal_counts_from_the_moment_it_is_proposed() {
    let known = record(1, 1, 0, &[0]);
    let mut bench = knowing(&known);
    bench.propose(record(2, 2, 0, &[0, 1]));
    assert_eq!(bench.register.required(), nodes(&[0, 1]));
    assert_eq!(bench.register.could_be_promoted(), nodes(&[0, 1]));
    bench.register.give_up();
    assert_eq!(
        bench.register.required(),
        nodes(&[0]),
        "nothing was sent to be accepted"
    );
}

#[test]
fn a_proposal_of_an_earlier_life_counts_until_its_version_is_decided() {
    let durable = GroupDurable {
        confirmed: Some(record(1, 1, 0, &[0])),
        unresolved: vec![record(2, 2, 0, &[0, 1])],
        ..GroupDurable::default()
    };
    let mut bench = bench(durable, true);
    let decide = |record| Message::Decided {
        group: GROUP,
        record,
    };
    bench.message(1, decide(record(1, 1, 0, &[0])));
    assert_eq!(
        bench.register.required(),
        nodes(&[0, 1]),
        "an unchanged record proves nothing"
    );
    bench.message(1, decide(record(2, 3, 0, &[0])));
    assert_eq!(bench.register.required(), nodes(&[0]));
    assert!(bench.register.needs_barrier(), "gossip is no barrier");
}

#[test]
fn proposals_that_differ_only_in_their_nonce_take_one_place() {
    let known = record(1, 1, 0, &[0, 1]);
    let mut bench = knowing(&known);
    for nonce in 10..100 {
        bench.propose(record(2, nonce, 0, &[0]));
    }
    assert_eq!(bench.register.unresolved(), [record(2, 99, 0, &[0])]);
}

#[test]
fn too_many_different_open_proposals_are_refused() {
    let open = |version: u64| record(version, version, 0, &[0]);
    let durable = GroupDurable {
        confirmed: Some(record(1, 1, 0, &[0, 1])),
        unresolved: (2..18).map(open).collect(),
        ..GroupDurable::default()
    };
    let mut bench = bench(durable, true);
    let outputs = bench.propose(record(2, 99, 0, &[0, 1]));
    assert_eq!(outcomes(outputs), [Outcome::Alarm(TOO_MANY)]);
}

#[test]
fn an_outdated_proposal_is_answered_at_once() {
    let known = record(3, 3, 1, &[1]);
    let mut bench = knowing(&known);
    let late = bench.propose(record(2, 9, 0, &[0]));
    assert_eq!(
        late,
        [RegisterOutput::Outcome(Outcome::Superseded(known.clone()))]
    );
    let again = bench.propose(known.clone());
    assert_eq!(again, [RegisterOutput::Outcome(Outcome::Won(known))]);
    assert!(bench.register.needs_barrier());
}

#[test]
fn impossible_proposals_are_refused() {
    let mut bench = knowing(&record(1, 1, 0, &[0, 1]));
    let mut alarm = |record| outcomes(bench.propose(record));
    assert_eq!(alarm(record(3, 9, 0, &[0])), [Outcome::Alarm(SKIPPED)]);
    assert_eq!(alarm(record(2, 9, 0, &[])), [Outcome::Alarm(MALFORMED)]);
    assert_eq!(alarm(record(2, 9, 1, &[1])), [Outcome::Alarm(NOT_OURS)]);
}

#[test]
fn own_grants_stand_against_an_own_takeover_before_anything_is_sent() {
    let known = record(1, 1, 1, &[0, 1]);
    let mut bench = knowing(&known);
    bench.input(at(0), RegisterInput::Wake);
    bench.lease.term_persisted(Duration::from_secs(1));
    let term = Duration::from_secs(1);
    let epoch = known.epoch;
    bench
        .lease
        .on_request(at(0), NodeId(1), Nonce(1), term, epoch, Some(&known))
        .unwrap();
    let record = record(2, 2, 0, &[0]);
    let outputs = bench.input(
        at(1),
        RegisterInput::Propose {
            record,
            purpose: Purpose::Takeover,
        },
    );
    let left = Duration::from_millis(1_099);
    let leased = Outcome::Leased {
        holder: NodeId(1),
        left,
    };
    assert_eq!(outputs, [RegisterOutput::Outcome(leased)]);
    assert_eq!(bench.register.unresolved(), []);
}

#[test]
fn a_handover_waits_for_the_surrender() {
    let mut bench = knowing(&record(1, 1, 0, &[0, 1]));
    bench.lease.hold(Time::MAX);
    let handover = Record {
        intent: Intent::Handover { from: ME },
        ..record(2, 2, 1, &[0, 1])
    };
    let outputs = bench.propose(handover.clone());
    assert_eq!(outcomes(outputs), [Outcome::Contested(handover)]);
    assert_eq!(
        outcomes(bench.input(at(300), RegisterInput::Wake)),
        [Outcome::NoMajority]
    );
    bench.lease.surrender(at(300));
    let outputs = bench.input(at(300), RegisterInput::Wake);
    assert!(
        outputs
            .iter()
            .any(|output| matches!(output, RegisterOutput::Send { .. }))
    );
}

#[test]
fn nothing_leaves_before_the_ticket_comes_back_and_one_ticket_covers_the_lower_ones() {
    let mut bench = bench(GroupDurable::default(), true);
    let prepare = |round| Message::Prepare {
        group: GROUP,
        ballot: ballot(round, 1),
        purpose: Purpose::Keep,
    };
    assert_eq!(
        bench.message(1, prepare(1)),
        [RegisterOutput::Persist(Ticket(1))]
    );
    assert_eq!(
        bench.message(1, prepare(2)),
        [RegisterOutput::Persist(Ticket(2))]
    );
    assert_eq!(
        bench.message(1, prepare(2)),
        [],
        "a double waits for the same ticket"
    );
    assert_eq!(bench.input(at(2), RegisterInput::Persisted(Ticket(0))), []);
    assert_eq!(
        bench
            .input(at(2), RegisterInput::Persisted(Ticket(9)))
            .len(),
        3
    );
}

#[test]
fn nonsense_is_ignored() {
    let mut bench = knowing(&record(1, 1, 0, &[0, 1]));
    bench.input(at(0), RegisterInput::Wake);
    let before = bench.register.durable().clone();
    let broken = Record {
        active: NodeId(9),
        ..record(2, 2, 0, &[0])
    };
    let (group, other) = (GROUP, GroupId(7));
    let higher = ballot(u64::MAX, 1);
    for message in [
        Message::Prepare {
            group: other,
            ballot: higher,
            purpose: Purpose::Keep,
        },
        Message::Prepare {
            group,
            ballot: ballot(9, 2),
            purpose: Purpose::Keep,
        },
        Message::Accept {
            group,
            ballot: ballot(9, 1),
            record: broken.clone(),
        },
        Message::Accept {
            group,
            ballot: ballot(9, 2),
            record: record(2, 2, 0, &[0]),
        },
        Message::Decided {
            group,
            record: broken,
        },
        Message::Promise {
            group,
            ballot: ballot(1, 0),
            accepted: None,
        },
        Message::Accepted {
            group,
            ballot: ballot(1, 0),
        },
        Message::Refused {
            group,
            ballot: ballot(1, 0),
            why: Refusal::Ballot(ballot(3, 2)),
        },
        Message::LeaseGrant {
            group,
            request: Nonce(3),
        },
    ] {
        assert_eq!(bench.message(1, message), []);
    }
    assert_eq!(bench.register.durable(), &before);
}

#[test]
fn the_last_ballot_is_an_alarm_not_a_panic() {
    let mut bench = knowing(&record(1, 1, 0, &[0, 1]));
    let why = Refusal::Ballot(ballot(u64::MAX, 1));
    bench.message(
        1,
        Message::Refused {
            group: GROUP,
            ballot: ballot(1, 0),
            why,
        },
    );
    let outputs = bench.propose(record(2, 2, 0, &[0]));
    assert!(matches!(outcomes(outputs)[..], [Outcome::Alarm(_)]));
    assert!(bench.register.is_idle());
}

#[test]
fn two_decided_records_of_one_version_are_an_alarm() {
    let mut bench = knowing(&record(1, 1, 0, &[0, 1]));
    let decided = Message::Decided {
        group: GROUP,
        record: record(1, 9, 1, &[1]),
    };
    assert_eq!(
        outcomes(bench.message(1, decided)),
        [Outcome::Alarm(FORKED)]
    );
}

#[test]
fn patience_ends_once_and_trying_goes_on() {
    let mut bench = knowing(&record(1, 1, 0, &[0, 1]));
    bench.propose(record(2, 2, 0, &[0]));
    let mut said = Vec::new();
    for tick in 2..100 {
        said.extend(bench.input(at(tick * 10), RegisterInput::Wake));
    }
    let sent = said
        .iter()
        .filter(|output| matches!(output, RegisterOutput::Send { .. }))
        .count();
    assert!(sent > 20, "{sent} datagrams");
    assert_eq!(outcomes(said), [Outcome::NoMajority]);
    assert!(!bench.register.is_idle());
}

#[test]
fn a_read_follows_the_proposal_under_way() {
    let mut bench = knowing(&record(1, 1, 0, &[0, 1]));
    bench.propose(record(2, 2, 0, &[0]));
    bench.input(at(2), RegisterInput::Read);
    let decided = Message::Decided {
        group: GROUP,
        record: record(2, 7, 1, &[1]),
    };
    let outputs = outcomes(bench.message(1, decided));
    assert_eq!(outputs, [Outcome::Superseded(record(2, 7, 1, &[1]))]);
    assert!(!bench.register.is_idle(), "the read runs");
}

/// Answers every prepare and accept of this step as an acceptor would that accepted `last`, and so on until all is quiet.
fn answer(
    bench: &mut Bench,
    from: u8,
    last: Option<&Record>,
    outputs: Vec<RegisterOutput>,
) -> Vec<Outcome> {
    let mut queue: VecDeque<RegisterOutput> = outputs.into();
    let mut said = Vec::new();
    while let Some(output) = queue.pop_front() {
        let input = match output {
            RegisterOutput::Persist(ticket) => RegisterInput::Persisted(ticket),
            RegisterOutput::Outcome(outcome) => {
                said.push(outcome);
                continue;
            }
            RegisterOutput::Send { to, message } if to == NodeId(from) => {
                let message = if let Message::Prepare { group, ballot, .. } = message {
                    let accepted = last.map(|record| (crate::sample::ballot(1, 1), record.clone()));
                    Message::Promise {
                        group,
                        ballot,
                        accepted,
                    }
                } else if let Message::Accept { group, ballot, .. } = message {
                    Message::Accepted { group, ballot }
                } else {
                    continue;
                };
                RegisterInput::Message { from: to, message }
            }
            RegisterOutput::Send { .. } => continue,
        };
        queue.extend(bench.input(at(2), input));
    }
    said
}

#[test]
fn reading_an_unchanged_record_resolves_nothing() {
    let known = record(1, 1, 0, &[0]);
    let durable = GroupDurable {
        confirmed: Some(known.clone()),
        unresolved: vec![record(2, 2, 0, &[0, 1])],
        ..GroupDurable::default()
    };
    let mut bench = bench(durable, true);
    let outputs = bench.input(at(1), RegisterInput::Read);
    let said = answer(&mut bench, 1, Some(&known), outputs);
    assert_eq!(said, [Outcome::Read(Some(known))]);
    assert_eq!(bench.register.required(), nodes(&[0, 1]), "R2");
}

#[test]
fn an_own_round_ends_the_need_of_a_barrier() {
    let known = record(1, 1, 0, &[0]);
    let mut bench = knowing(&known);
    let outputs = bench.propose(record(2, 2, 0, &[0]));
    let said = answer(&mut bench, 1, Some(&known), outputs);
    assert_eq!(said, [Outcome::Won(record(2, 2, 0, &[0]))]);
    assert!(!bench.register.needs_barrier());
}

#[test]
fn a_ballot_is_reserved_before_it_is_used_even_without_a_vote_in_the_register() {
    let members = nodes(&[1, 2, 3]);
    let config = RegisterConfig {
        me: ME,
        group: GROUP,
        members,
        retry: RETRY,
        seed: 1,
        voting: true,
    };
    let mut bench = bench(GroupDurable::default(), true);
    bench.register = Register::new(config, GroupDurable::default(), at(0));
    bench.input(at(0), RegisterInput::Read);
    assert_eq!(
        bench.register.durable().acceptor.promised,
        Some(ballot(1, 0))
    );
}

#[test]
fn a_majority_is_more_than_half() {
    assert_eq!([1, 2, 3, 4, 5].map(crate::majority), [1, 2, 2, 3, 3]);
}
