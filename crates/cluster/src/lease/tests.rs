use super::*;
use crate::sample::{nodes, record};
use wire::Version;

const GROUP: GroupId = GroupId(0);
const TERM: Duration = Duration::from_secs(1);
const MARGIN: Duration = Duration::from_millis(100);
const ONE: Nonce = Nonce(1);

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A lease of a member that met its register; terms up to [`TERM`] are durable, but it never granted before.
fn fresh(me: u8, members: &[u8]) -> Lease {
    let mut lease = unmet(me, members, Duration::ZERO);
    lease.term_persisted(TERM);
    lease.support(BTreeSet::new());
    lease
}

fn unmet(me: u8, members: &[u8], longest: Duration) -> Lease {
    let config = LeaseConfig {
        me: NodeId(me),
        group: GROUP,
        members: nodes(members),
        term: TERM,
        margin: MARGIN,
    };
    Lease::new(config, at(0), longest)
}

fn ask(lease: &mut Lease, now: Time, from: u8, known: Option<&Record>) -> bool {
    let grant = lease.on_request(now, NodeId(from), ONE, TERM, Epoch(1), known);
    grant.is_some()
}

#[test]
fn a_grant_stands_against_others_for_term_and_margin_after_receipt() {
    let mut lease = fresh(2, &[0, 1, 2]);
    let grant = lease.on_request(at(50), NodeId(0), ONE, TERM, Epoch(1), None);
    assert_eq!(
        grant,
        Some(Message::LeaseGrant {
            group: GROUP,
            request: ONE
        })
    );
    assert_eq!(
        lease.takeover_obstacle(at(50), NodeId(1)),
        Some((NodeId(0), TERM + MARGIN))
    );
    assert_eq!(lease.takeover_obstacle(at(50), NodeId(0)), None);
    assert_eq!(
        lease.takeover_obstacle(at(1_149), NodeId(1)),
        Some((NodeId(0), ms(1)))
    );
    assert_eq!(lease.takeover_obstacle(at(1_150), NodeId(1)), None);
    assert!(!lease.own_grants_over(at(1_149)) && lease.own_grants_over(at(1_150)));
    assert_eq!(lease.granted(at(150)), Some((NodeId(0), ms(1_000))));
}

#[test]
fn a_long_term_gets_a_margin_for_the_drift_of_two_clocks() {
    let mut lease = fresh(2, &[0, 1, 2]);
    let long = Duration::from_secs(32);
    lease.term_persisted(long);
    lease
        .on_request(at(0), NodeId(0), ONE, long, Epoch(1), None)
        .unwrap();
    assert_eq!(
        lease.granted(at(0)),
        Some((NodeId(0), Duration::from_secs(33)))
    );
}

#[test]
fn a_restarted_grantor_supports_no_takeover_until_its_longest_term_passed() {
    let lease = unmet(2, &[0, 1, 2], TERM);
    assert_eq!(
        lease.takeover_obstacle(at(0), NodeId(1)),
        Some((NodeId(2), TERM + MARGIN))
    );
    assert_eq!(lease.takeover_obstacle(at(1_100), NodeId(1)), None);
    assert_eq!(lease.own_grants_left(at(1_000)), Some(ms(100)));
    assert_eq!(lease.granted(at(0)), None);
}

#[test]
fn a_longer_term_is_granted_only_when_it_is_durable() {
    let mut lease = unmet(2, &[0, 1, 2], Duration::ZERO);
    lease.support(BTreeSet::new());
    assert!(!ask(&mut lease, at(0), 0, None));
    assert_eq!(lease.longest_term(), TERM);
    assert!(
        !ask(&mut lease, at(1), 0, None),
        "the same request over another link"
    );
    lease.term_persisted(TERM);
    assert!(ask(&mut lease, at(2), 0, None));
}

#[test]
fn nothing_is_granted_before_the_register_was_met_or_while_blocked() {
    let mut lease = unmet(2, &[0, 1, 2], Duration::ZERO);
    lease.term_persisted(TERM);
    assert!(!ask(&mut lease, at(0), 0, None));
    lease.support(BTreeSet::new());
    lease.block_grants(true);
    assert!(!ask(&mut lease, at(0), 0, None));
    lease.block_grants(false);
    assert!(ask(&mut lease, at(0), 0, None));
}

#[test]
fn who_supports_a_takeover_grants_to_nobody_else() {
    let mut lease = fresh(2, &[0, 1, 2]);
    lease.support(nodes(&[1]));
    assert!(!ask(&mut lease, at(0), 0, None));
    assert!(ask(&mut lease, at(0), 1, None));
    lease.support(nodes(&[0, 1]));
    assert!(!ask(&mut lease, at(0), 1, None));
}

#[test]
fn a_deposed_active_is_granted_nothing() {
    let mut lease = fresh(2, &[0, 1, 2]);
    let known = record(5, 1, 1, &[1]);
    let grant = |lease: &mut Lease, epoch| {
        lease
            .on_request(at(0), NodeId(0), ONE, TERM, Epoch(epoch), Some(&known))
            .is_some()
    };
    assert!(!grant(&mut lease, 4) && !grant(&mut lease, 5));
    assert!(grant(&mut lease, 6), "it may know a newer record");
    assert!(
        ask(&mut lease, at(0), 1, Some(&known)),
        "the record names it"
    );
}

#[test]
fn a_stranger_to_the_record_waits_for_anothers_grant() {
    let mut lease = fresh(2, &[0, 1, 2]);
    assert!(ask(&mut lease, at(0), 0, None));
    assert!(!ask(&mut lease, at(1_099), 1, None));
    assert!(ask(&mut lease, at(1_100), 1, None));
}

#[test]
fn the_holder_of_a_lease_grants_nothing_and_supports_no_other() {
    let mut lease = fresh(0, &[0, 1, 2]);
    lease.hold(at(500));
    assert!(!ask(&mut lease, at(499), 1, None));
    assert_eq!(
        lease.takeover_obstacle(at(499), NodeId(1)),
        Some((NodeId(0), ms(1)))
    );
    assert_eq!(lease.takeover_obstacle(at(499), NodeId(0)), None);
    assert!(ask(&mut lease, at(500), 1, None));
}

#[test]
fn absurd_terms_and_own_requests_are_refused() {
    let mut lease = fresh(2, &[0, 1, 2]);
    for term in [Duration::ZERO, TERM_MAX + ms(1), Duration::MAX] {
        assert_eq!(
            lease.on_request(at(0), NodeId(0), ONE, term, Epoch(1), None),
            None
        );
    }
    assert!(!ask(&mut lease, at(0), 2, None));
    assert_eq!(lease.longest_term(), TERM);
}

#[test]
fn a_handover_voids_older_grants_only() {
    let mut lease = fresh(2, &[0, 1, 2]);
    ask(&mut lease, at(0), 0, None);
    let handover = Record {
        intent: Intent::Handover { from: NodeId(0) },
        ..record(2, 9, 1, &[0, 1])
    };
    assert_eq!(lease.obstacle_to(at(0), NodeId(1), &handover), None);
    let late = Record {
        epoch: Epoch(1),
        version: Version(1),
        ..handover
    };
    assert!(
        lease.obstacle_to(at(0), NodeId(1), &late).is_some(),
        "granted at this epoch or later"
    );
    lease.on_handover(NodeId(0), Epoch(1));
    assert!(lease.granted(at(0)).is_some());
    lease.on_handover(NodeId(0), Epoch(2));
    assert_eq!(lease.granted(at(0)), None);
}

#[test]
fn a_handover_never_voids_the_lease_held_here() {
    let mut lease = fresh(0, &[0, 1, 2]);
    lease.hold(at(500));
    let handover = Record {
        intent: Intent::Handover { from: NodeId(0) },
        ..record(2, 9, 1, &[0, 1])
    };
    assert!(lease.obstacle_to(at(0), NodeId(0), &handover).is_some());
}

#[test]
fn a_grant_counts_from_sending() {
    let mut lease = fresh(0, &[0, 1, 2]);
    assert_eq!(lease.request(at(10), ONE), TERM);
    lease.on_grant(at(400), NodeId(1), ONE);
    assert_eq!(lease.until(&nodes(&[1])), Some(at(1_010)));
}

#[test]
fn all_who_could_be_promoted_or_a_majority() {
    let mut lease = fresh(0, &[0, 1, 2, 3, 4]);
    lease.request(at(0), ONE);
    lease.request(at(100), Nonce(2));
    lease.on_grant(at(200), NodeId(1), ONE);
    assert_eq!(lease.until(&nodes(&[1])), Some(at(1_000)), "the only other");
    assert_eq!(lease.until(&nodes(&[1, 2])), None, "two of five");
    lease.on_grant(at(200), NodeId(3), Nonce(2));
    assert_eq!(
        lease.until(&nodes(&[1, 2])),
        Some(at(1_000)),
        "three of five"
    );
    lease.on_grant(at(200), NodeId(4), Nonce(2));
    assert_eq!(
        lease.until(&nodes(&[1])),
        Some(at(1_100)),
        "the better of both"
    );
}

#[test]
fn a_member_that_supports_another_counts_no_grant() {
    let mut lease = fresh(0, &[0, 1, 2]);
    lease.request(at(0), ONE);
    lease.on_grant(at(1), NodeId(2), ONE);
    lease.support(nodes(&[1]));
    assert_eq!(lease.until(&nodes(&[1])), None);
    lease.request(at(2), Nonce(2));
    lease.on_grant(at(3), NodeId(1), Nonce(2));
    assert_eq!(lease.until(&nodes(&[1])), None, "nor a new one");
}

#[test]
fn a_lease_without_end_is_worth_asking_again_after_a_term() {
    let mut lease = fresh(0, &[0, 1, 2]);
    lease.hold(Time::MAX);
    assert_eq!(
        lease.takeover_obstacle(at(5), NodeId(1)),
        Some((NodeId(0), TERM))
    );
}

#[test]
fn late_grants_after_surrender_are_ignored() {
    let mut lease = fresh(0, &[0, 1, 2]);
    lease.request(at(0), ONE);
    lease.on_grant(at(1), NodeId(1), ONE);
    lease.hold(at(1_000));
    lease.surrender(at(2));
    lease.on_grant(at(3), NodeId(2), ONE);
    assert_eq!(lease.until(&nodes(&[1])), None);
    assert_eq!(lease.held(at(3)), None);
}

#[test]
fn grants_never_asked_for_are_ignored_and_memory_is_bounded() {
    let mut lease = fresh(0, &[0, 1, 2]);
    lease.on_grant(at(0), NodeId(1), Nonce(77));
    for nonce in 0..1_000 {
        lease.request(at(nonce), Nonce(nonce));
    }
    assert_eq!(lease.requests.len(), REQUESTS_MAX);
    lease.on_grant(at(1_000), NodeId(1), Nonce(1));
    assert_eq!(lease.until(&nodes(&[1])), None);
}

#[test]
fn a_solo_active_is_left_to_its_caller() {
    let lease = fresh(0, &[0, 1, 2]);
    assert_eq!(lease.until(&BTreeSet::new()), None);
    let alone = fresh(0, &[0]);
    assert_eq!(
        alone.until(&nodes(&[1])),
        Some(Time::MAX),
        "its own vote is the majority"
    );
}

#[test]
fn a_handover_voids_nobody_elses_grant() {
    let mut lease = fresh(3, &[0, 1, 2, 3]);
    ask(&mut lease, at(0), 2, None);
    let handover = Record {
        intent: Intent::Handover { from: NodeId(0) },
        ..record(9, 9, 1, &[0, 1])
    };
    assert!(lease.obstacle_to(at(0), NodeId(1), &handover).is_some());
}

#[test]
fn who_completes_a_takeover_against_itself_yields_its_lease() {
    let mut lease = fresh(2, &[0, 1, 2]);
    ask(&mut lease, at(0), 0, None);
    let takeover = record(2, 9, 1, &[1]);
    assert!(
        lease.obstacle_to(at(0), NodeId(1), &takeover).is_some(),
        "the challenger"
    );
    assert!(
        lease.obstacle_to(at(0), NodeId(2), &takeover).is_some(),
        "a third"
    );
    assert_eq!(
        lease.obstacle_to(at(0), NodeId(0), &takeover),
        None,
        "the holder"
    );
    let older = record(1, 9, 1, &[1]);
    assert!(
        lease.obstacle_to(at(0), NodeId(0), &older).is_some(),
        "granted for a later one"
    );
}
