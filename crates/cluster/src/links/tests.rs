use super::*;

const PEER: NodeId = NodeId(1);
const ONE: LinkId = LinkId(0);
const TWO: LinkId = LinkId(1);
const LIFE: SessionId = SessionId(7);

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

fn links() -> Links {
    Links::new(
        LinksConfig {
            me: NodeId(0),
            peers: BTreeMap::from([(PEER, vec![ONE, TWO])]),
            beat: Duration::from_millis(100),
            suspect: Duration::from_millis(500),
        },
        at(0),
    )
}

fn changes(links: &mut Links, now: Time) -> Vec<LinkChange> {
    std::iter::from_fn(|| links.poll_change(now)).collect()
}

/// Polls every beat up to and including `until`, as a process that runs does.
fn run(links: &mut Links, from: u64, until: u64) -> Vec<LinkChange> {
    (from / 100 + 1..=until / 100)
        .flat_map(|tick| changes(links, at(tick * 100)))
        .collect()
}

fn beat(sent: Time, echo: Option<(Time, Duration)>) -> Beat {
    Beat {
        sent,
        echo,
        hears: BTreeSet::from([NodeId(0)]),
        groups: Vec::new(),
    }
}

#[test]
fn a_heard_node_is_up_and_a_silent_one_is_suspect_once() {
    let mut links = links();
    links.on_heard(at(100), PEER, ONE, LIFE);
    links.on_heard(at(100), PEER, TWO, LIFE);
    assert_eq!(
        changes(&mut links, at(100)),
        [
            LinkChange::NodeUp(PEER),
            LinkChange::LinkUp(PEER, ONE),
            LinkChange::LinkUp(PEER, TWO)
        ]
    );
    assert!(links.is_up(at(599), PEER) && !links.is_up(at(600), PEER));
    assert_eq!(
        run(&mut links, 100, 2_000),
        [
            LinkChange::NodeSuspect(PEER, Duration::from_millis(500)),
            LinkChange::LinkDown(PEER, ONE),
            LinkChange::LinkDown(PEER, TWO)
        ]
    );
}

#[test]
fn one_silent_link_leaves_the_node_up() {
    let mut links = links();
    links.on_heard(at(0), PEER, TWO, LIFE);
    let mut seen = Vec::new();
    for tick in 1..10 {
        links.on_heard(at(tick * 100), PEER, ONE, LIFE);
        seen.extend(changes(&mut links, at(tick * 100)));
    }
    assert!(seen.contains(&LinkChange::LinkDown(PEER, TWO)));
    assert!(links.is_up(at(900), PEER) && !links.link_up(at(900), PEER, TWO));
    assert!(
        !seen
            .iter()
            .any(|c| matches!(c, LinkChange::NodeSuspect(..)))
    );
}

#[test]
fn a_node_never_heard_becomes_suspect_after_the_start() {
    let mut links = links();
    let seen = run(&mut links, 0, 500);
    assert!(seen.contains(&LinkChange::NodeSuspect(PEER, Duration::from_millis(500))));
}

#[test]
fn own_pause_is_not_a_peers_silence() {
    let mut links = links();
    links.on_heard(at(100), PEER, ONE, LIFE);
    links.on_heard(at(100), PEER, TWO, LIFE);
    changes(&mut links, at(100));
    assert_eq!(changes(&mut links, at(30_000)), []);
    assert!(links.is_up(at(30_000), PEER));
    assert_eq!(
        run(&mut links, 30_000, 30_500)[0],
        LinkChange::NodeSuspect(PEER, Duration::from_millis(30_400))
    );
    assert_eq!(
        changes(&mut links, at(60_000)),
        [],
        "a pause revives nobody"
    );
}

#[test]
fn a_new_life_is_a_restart_and_the_old_one_is_no_sign_of_life() {
    let mut links = links();
    links.on_heard(at(0), PEER, ONE, LIFE);
    links.on_heard(at(10), PEER, ONE, SessionId(8));
    links.on_heard(at(20), PEER, ONE, LIFE);
    assert_eq!(changes(&mut links, at(20))[0], LinkChange::Restarted(PEER));
    assert_eq!(links.silent(at(20), PEER), Duration::from_millis(10));
    assert!(!changes(&mut links, at(20)).contains(&LinkChange::Restarted(PEER)));
}

#[test]
fn round_trip_time_comes_from_the_newest_echo_only() {
    let mut links = links();
    let echo = Some((at(10), Duration::from_millis(4)));
    links.on_beat(at(20), PEER, ONE, LIFE, &beat(at(1_000), echo));
    assert_eq!(links.rtt(PEER), Some(Duration::from_millis(6)));
    links.on_beat(at(400), PEER, ONE, LIFE, &beat(at(1_000), echo));
    links.on_beat(at(500), PEER, ONE, LIFE, &beat(at(1_100), echo));
    let future = Some((at(9_000), Duration::ZERO));
    links.on_beat(at(600), PEER, ONE, LIFE, &beat(at(1_200), future));
    let nonsense = Some((at(550), Duration::MAX));
    links.on_beat(at(700), PEER, ONE, LIFE, &beat(at(1_300), nonsense));
    assert!(links.rtt(PEER) <= Some(Duration::from_millis(6)));
    assert_eq!(links.heard_by(PEER), Some(&BTreeSet::from([NodeId(0)])));
}

#[test]
fn a_beat_echoes_the_peers_newest() {
    let mut links = links();
    assert_eq!(links.head(at(0), PEER, ONE).echo, None);
    links.on_beat(at(20), PEER, ONE, LIFE, &beat(at(1_000), None));
    links.on_beat(at(25), PEER, ONE, LIFE, &beat(at(900), None));
    let head = links.head(at(30), PEER, ONE);
    assert_eq!(head.echo, Some((at(1_000), Duration::from_millis(10))));
    assert_eq!(head.hears, BTreeSet::from([PEER]));
}

#[test]
fn beats_are_due_steadily_and_not_made_up_for() {
    let mut links = links();
    assert_eq!(links.due(), at(0));
    links.beat_sent(at(3));
    assert_eq!(links.due(), at(100));
    links.beat_sent(at(950));
    assert_eq!(links.due(), at(1_050));
    assert!(links.wake_at() <= at(500));
}

#[test]
fn strangers_are_ignored() {
    let mut links = links();
    links.on_beat(at(0), NodeId(9), ONE, LIFE, &beat(at(0), None));
    links.on_heard(at(0), PEER, LinkId(200), LIFE);
    assert!(!links.is_up(at(0), NodeId(9)) && links.is_up(at(0), PEER));
    assert_eq!(links.rtt(NodeId(9)), None);
}
