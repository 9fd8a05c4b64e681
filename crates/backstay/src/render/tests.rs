//! Snapshots of what people see, from hand-made but real data types.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mirror::runs::Places;
use wire::control::{GroupRequest, Obstacle, RequestFault, Role, WrongDisk};
use wire::event::{Act, Because, Decision, Event, Phase, ReplicaLoss, Rule, Seen, What};
use wire::problem::Problem;
use wire::record::{Hold, Intent, Member, Record, Sync};
use wire::{ByteCount, Epoch, Generation, GroupId, NodeId, Nonce, Time, Version};

use super::event::EventView;
use super::names::{GroupNames, Names, ResourceName};
use super::problem::ProblemView;
use super::words::Words;
use super::{status, why};
use crate::api::view::{
    AddressCondition, AddressState, GroupState, MirrorCondition, MirrorState, NodeState,
    ResourceState, Snapshot, Status,
};
use crate::eventlog::entry::{Entry, Logged};
use crate::exit::Exit;
use crate::output::{Format, Lang, Ui};

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);
const W: NodeId = NodeId(2);
const DB: GroupId = GroupId(0);

pub(crate) fn names() -> Names {
    let resource = |kind: &str, name: &str| ResourceName {
        kind: kind.into(),
        name: name.into(),
    };
    let resources = vec![
        resource("mirror", "pgdata"),
        resource("filesystem", "/var/lib/postgresql"),
        resource("exec", "ledger"),
        resource("address", "10.9.0.10"),
    ];
    Names {
        cluster: "seoul-prod".into(),
        me: "node-a".into(),
        nodes: vec!["node-a".into(), "node-b".into(), "witness".into()],
        groups: vec![GroupNames {
            name: "db".into(),
            resources,
        }],
    }
}

pub(crate) fn ready() -> Snapshot {
    let rtt = |us| Some(Duration::from_micros(us));
    let mirror = MirrorState {
        name: "pgdata".into(),
        condition: MirrorCondition::InSync,
        lag: ByteCount(0),
        lag_time: Duration::ZERO,
        out_of_sync: ByteCount(0),
        intent: ByteCount(0),
        resync_sent: ByteCount(0),
        cold_writes: 0,
        verify: None,
        growth: None,
        held_back: Vec::new(),
        out_for: None,
        front_end: None,
        front_end_why: None,
        replica: None,
        differing: Places::default(),
    };
    let address = AddressState {
        ip: [10, 9, 0, 10].into(),
        holder: Some(A),
        driver: "l2",
        condition: AddressCondition::Held,
    };
    let group = GroupState {
        recorded: Some(A),
        serving: Some(A),
        epoch: Some(Epoch(7)),
        in_sync: vec![A, B],
        role: Role::Active,
        held: false,
        can_fail_over: true,
        why_not: None,
        resources: vec![ResourceState::Running; 4],
        mirrors: vec![mirror],
        addresses: vec![address],
    };
    Snapshot {
        taken: Time::from_nanos(1_000_000_000),
        names: Arc::new(names()),
        profile: "lan".into(),
        me: A,
        nodes: vec![
            NodeState {
                witness: false,
                up: true,
                rtt: None,
            },
            NodeState {
                witness: false,
                up: true,
                rtt: rtt(640),
            },
            NodeState {
                witness: true,
                up: true,
                rtt: rtt(1_120),
            },
        ],
        register_kind: "embedded".into(),
        register_reachable: true,
        groups: vec![group],
        problems: Vec::new(),
    }
}

fn resyncing() -> Snapshot {
    let mut snapshot = ready();
    let obstacle = Obstacle::OutOfSync;
    snapshot.problems = vec![
        Problem::LinkSilent { node: B, link: 1 },
        Problem::NoStandby {
            group: DB,
            node: B,
            obstacle,
        },
    ];
    let group = &mut snapshot.groups[0];
    group.in_sync = vec![A];
    group.can_fail_over = false;
    group.why_not = Some((B, obstacle));
    group.mirrors[0].condition = MirrorCondition::Resyncing;
    group.mirrors[0].out_of_sync = ByteCount(3_250_585);
    snapshot
}

fn frozen() -> Snapshot {
    let mut snapshot = ready();
    snapshot.nodes[1].up = false;
    snapshot.nodes[2].up = false;
    snapshot.register_reachable = false;
    snapshot.problems = vec![
        Problem::Frozen { group: DB },
        Problem::NodeSilent { node: B },
        Problem::NodeSilent { node: W },
        Problem::RegisterUnreachable { group: DB },
    ];
    let group = &mut snapshot.groups[0];
    group.serving = None;
    group.role = Role::Frozen;
    group.can_fail_over = false;
    group.why_not = Some((B, Obstacle::Silent));
    group.addresses[0].condition = AddressCondition::Gated;
    snapshot
}

fn status_of(snapshot: &Snapshot) -> Status {
    snapshot.status(Lang::En, Time::from_nanos(1_012_000_000))
}

fn shown(snapshot: &Snapshot, width: usize) -> String {
    status::table(&Ui::plain(Format::Table, width), &status_of(snapshot))
}

#[test]
fn ready_cluster_says_so_first() {
    insta::assert_snapshot!("status_ready", shown(&ready(), 100));
    assert_eq!(status_of(&ready()).exit(), Exit::Ready);
}

#[test]
fn degraded_cluster_says_why_first() {
    insta::assert_snapshot!("status_degraded", shown(&resyncing(), 100));
    assert_eq!(status_of(&resyncing()).exit(), Exit::Degraded);
}

#[test]
fn frozen_cluster_is_down_and_fits_a_narrow_terminal() {
    let text = shown(&frozen(), 72);
    assert!(
        text.lines().all(|line| super::layout::width(line) <= 72),
        "{text}"
    );
    insta::assert_snapshot!("status_frozen_narrow", text);
    assert_eq!(status_of(&frozen()).exit(), Exit::Down);
}

#[test]
fn unreachable_daemon_is_unknown_and_nothing_is_invented() {
    let problem = ProblemView::of_code(Lang::En, "BS-001", &[]);
    let status = Status::unknown(problem);
    assert_eq!(status.exit(), Exit::Unknown);
    let text = status::table(&Ui::plain(Format::Table, 100), &status);
    insta::assert_snapshot!("status_unknown", text);
}

#[test]
fn ascii_output_is_ascii() {
    let ui = Ui {
        ascii: true,
        ..Ui::plain(Format::Table, 100)
    };
    for snapshot in [ready(), resyncing(), frozen()] {
        let text = status::table(&ui, &status_of(&snapshot));
        assert!(text.is_ascii(), "{text}");
    }
}

#[test]
fn status_document_is_kept() {
    let json = serde_json::to_string_pretty(&status_of(&resyncing())).expect("JSON");
    let back: Status = serde_json::from_str(&json).expect("read back");
    assert_eq!(back, status_of(&resyncing()));
    insta::assert_snapshot!("status_json", json);
}

fn logged(seq: u64, incident: u64, at_ms: u64, what: What) -> Arc<Logged> {
    let at = Time::from_nanos(at_ms * 1_000_000);
    let event = Event {
        at,
        group: Some(DB),
        incident,
        what,
    };
    let mut entry = Entry::new(seq, event);
    entry.time = format!(
        "2026-08-01T14:02:{:02}.{:03}000Z",
        at_ms / 1_000,
        at_ms % 1_000
    );
    let names = Names {
        me: "node-b".into(),
        ..names()
    };
    Arc::new(Logged {
        entry,
        names: Arc::new(names),
    })
}

fn record() -> Record {
    let member = Member {
        sync: Sync::InSync,
        generation: Generation(2),
        failed: false,
    };
    Record {
        version: Version(9),
        epoch: Epoch(8),
        active: B,
        members: BTreeMap::from([
            (
                A,
                Member {
                    sync: Sync::Out,
                    ..member
                },
            ),
            (B, member),
        ]),
        intent: Intent::Serve,
        nonce: Nonce(9),
    }
}

fn takeover() -> Vec<Arc<Logged>> {
    let ms = Duration::from_millis;
    let decision = Decision {
        act: Act::TakeOver(A),
        rule: Rule::PromoteInSync,
        seen: vec![
            Seen::Silent(A, ms(512)),
            Seen::GrantsOver(ms(3)),
            Seen::AtEpoch(Epoch(7)),
        ],
        rejected: vec![(Act::Wait, Because::LeaseRunning)],
    };
    let phase = |phase, took| What::Phase {
        phase,
        took: ms(took),
    };
    vec![
        logged(40, 0, 1_000, What::Started { starts: 3 }),
        logged(41, 0, 1_004, What::NodeUp { node: A }),
        logged(
            42,
            1,
            11_512,
            What::NodeSuspect {
                node: A,
                silent: ms(512),
            },
        ),
        logged(43, 1, 11_512, phase(Phase::Detect, 512)),
        logged(44, 1, 12_052, phase(Phase::Lease, 540)),
        logged(45, 1, 12_053, What::Decision(decision)),
        logged(46, 1, 12_056, What::RecordChanged { record: record() }),
        logged(47, 1, 12_057, phase(Phase::Decide, 4)),
        logged(48, 1, 12_061, phase(Phase::Mirror, 4)),
        logged(49, 1, 12_090, phase(Phase::Resource(1), 29)),
        logged(50, 1, 12_131, phase(Phase::Resource(2), 41)),
        logged(51, 1, 12_133, phase(Phase::Resource(3), 2)),
        logged(52, 1, 12_133, What::TransitionDone { took: ms(1_133) }),
        logged(53, 0, 20_000, What::NodeUp { node: A }),
    ]
}

#[test]
fn why_tells_what_was_seen_and_which_rule_fired() {
    let events = takeover();
    let wanted = why::notable(&events).expect("a takeover");
    assert_eq!(wanted.entry.seq, 45);
    let why = why::explain(Lang::En, &events, wanted);
    insta::assert_snapshot!(
        "why_takeover",
        why::table(&Ui::plain(Format::Table, 100), &why)
    );
    insta::assert_snapshot!(
        "why_json",
        serde_json::to_string_pretty(&why).expect("JSON")
    );
}

#[test]
fn why_of_a_plain_event_is_the_event() {
    let events = takeover();
    let why = why::explain(Lang::En, &events, &events[1]);
    assert!(why.decision.is_none() && why.phases.is_empty());
    assert_eq!(why.chain.len(), 1);
}

#[test]
fn incidents_of_an_earlier_life_are_not_mixed_in() {
    let mut events = takeover();
    events.push(logged(54, 0, 30_000, What::Started { starts: 4 }));
    events.push(logged(55, 1, 30_500, What::LeaseLost));
    let why = why::explain(Lang::En, &events, events.last().expect("an event"));
    assert_eq!(why.chain.len(), 1);
    let why = why::explain(Lang::En, &events, &events[5]);
    assert_eq!(why.chain.len(), 11);
}

/// One of each event, so that no text lacks an argument.
fn all_events() -> Vec<What> {
    [cluster_events(), service_events()].concat()
}

fn cluster_events() -> Vec<What> {
    let ms = Duration::from_millis;
    let decision = |act, rule| {
        What::Decision(Decision {
            act,
            rule,
            seen: Vec::new(),
            rejected: Vec::new(),
        })
    };
    vec![
        What::Started { starts: 3 },
        What::NodeUp { node: B },
        What::NodeSuspect {
            node: B,
            silent: ms(512),
        },
        What::LinkDown { node: B, link: 0 },
        What::LinkUp { node: B, link: 1 },
        What::RecordChanged { record: record() },
        What::RoleChanged {
            from: Role::Standby,
            to: Role::Promoting,
        },
        decision(Act::TakeOver(A), Rule::PromoteInSync),
        decision(Act::DropReplica(A), Rule::GoSolo),
        decision(Act::RestartResource(2), Rule::RestartBudget),
        decision(Act::Hold(Hold::FailedEverywhere), Rule::FailedEverywhere),
        decision(Act::Freeze, Rule::NoLease),
        What::Phase {
            phase: Phase::Resource(3),
            took: ms(2),
        },
        What::TransitionDone { took: ms(1_133) },
    ]
}

fn service_events() -> Vec<What> {
    let obstacle = Obstacle::RolledBack;
    vec![
        What::LeaseLost,
        What::LeaseGained,
        What::ReplicaLost {
            node: B,
            why: ReplicaLoss::Silent,
        },
        What::ResyncStarted {
            node: B,
            dirty: ByteCount(3_250_585),
        },
        What::ResyncDone {
            node: B,
            sent: ByteCount(3_250_585),
        },
        What::Discarded {
            node: A,
            at_most: ByteCount(65_536),
        },
        What::PutAside {
            ranges: vec![wire::ByteRange::new(65_536, 4_096).expect("it fits")],
            count: 2,
            bytes: ByteCount(69_632),
        },
        What::ResourceFailed {
            resource: 2,
            restarts: 1,
        },
        What::DiskFailed { errno: Some(5) },
        What::DiskFailed { errno: None },
        What::ProblemBegan(Problem::NoStandby {
            group: DB,
            node: B,
            obstacle,
        }),
        What::ProblemEnded(Problem::Held {
            group: DB,
            by_person: true,
        }),
        What::Asked {
            request: GroupRequest::Move(Some(B)),
            reason: "kernel update".into(),
            result: Ok(()),
        },
        What::Asked {
            request: GroupRequest::Stop,
            reason: String::new(),
            result: Err(RequestFault::Target(B, obstacle)),
        },
        What::Adopted,
    ]
}

#[test]
fn every_event_has_words() {
    let events: Vec<EventView> = (1_u64..)
        .zip(all_events())
        .map(|(seq, what)| EventView::new(Lang::En, &logged(seq, 0, seq * 1_000, what)))
        .collect();
    insta::assert_snapshot!(
        "events",
        why::events(&Ui::plain(Format::Table, 110), "", &events)
    );
}

#[test]
fn every_problem_has_words_and_a_way_out() {
    let names = names();
    let words = Words {
        lang: Lang::En,
        names: &names,
    };
    let problems = [
        Problem::NodeSilent { node: W },
        Problem::LinkSilent { node: B, link: 0 },
        Problem::RegisterUnreachable { group: DB },
        Problem::NoStandby {
            group: DB,
            node: B,
            obstacle: Obstacle::FailedHere,
        },
        Problem::Frozen { group: DB },
        Problem::Held {
            group: DB,
            by_person: false,
        },
        Problem::Down { group: DB },
        Problem::ResourceFailed {
            group: DB,
            resource: 2,
        },
        Problem::DiskFailed { group: DB, node: B },
        Problem::HeldBack { group: DB, node: B },
        Problem::WrongDisk {
            group: DB,
            node: B,
            why: WrongDisk::NoMirror,
        },
        Problem::NoVote { node: B },
    ];
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| ProblemView::new(&words, problem))
        .map(|view| format!("{}  {}\n        {}", view.code, view.message, view.action))
        .collect();
    insta::assert_snapshot!("problems", lines.join("\n"));
    let everything = lines.join("\n");
    for place in ["{", "}", " group cannot", "obstacle", "remedy"] {
        assert!(!everything.contains(place), "{place}");
    }
}

#[test]
fn every_wrong_disk_has_words_and_a_way_out() {
    let names = names();
    let words = Words {
        lang: Lang::En,
        names: &names,
    };
    let kinds = [
        WrongDisk::NoMirror,
        WrongDisk::OtherMirror,
        WrongDisk::OwnContent,
        WrongDisk::Shrunk,
        WrongDisk::TooSmall,
        WrongDisk::Damaged,
        WrongDisk::Newer,
        WrongDisk::OtherDisk,
    ];
    let mut seen = std::collections::BTreeSet::new();
    for why in kinds {
        let (group, node) = (DB, B);
        let view = ProblemView::new(&words, &Problem::WrongDisk { group, node, why });
        assert_eq!(view.code, "BS-404");
        assert!(
            view.message.starts_with("node-b has a disk "),
            "{}",
            view.message
        );
        assert!(view.action.contains("node-b"), "{}", view.action);
        assert!(!view.message.contains('{') && !view.action.contains('{'));
        assert!(seen.insert(view.message), "two kinds read the same");
    }
}

fn faults_of_a_mirror(bytes: ByteCount) -> Vec<RequestFault> {
    vec![
        RequestFault::Silent(B),
        RequestFault::Alive(B),
        RequestFault::OtherActive(B),
        RequestFault::NoMajority,
        RequestFault::LeaseRunning,
        RequestFault::Promotable(B),
        RequestFault::NameOne,
        RequestFault::NotHeldBack(B),
        RequestFault::OtherHeldBack(B, bytes),
        RequestFault::Better(B),
        RequestFault::AskThere(B),
        RequestFault::OtherRecord,
        RequestFault::Target(B, Obstacle::HeldBack(bytes)),
    ]
}

#[test]
fn what_a_person_asks_of_a_mirror_has_words() {
    let names = names();
    let words = Words {
        lang: Lang::En,
        names: &names,
    };
    let (mirror, node, bytes) = (0, B, ByteCount(8192));
    let epoch = Epoch(7);
    let resync = |node, full| GroupRequest::Resync { mirror, node, full };
    let requests = [
        resync(None, false),
        resync(None, true),
        resync(Some(B), false),
        resync(Some(B), true),
        GroupRequest::Demote {
            mirror,
            node,
            bytes,
            epoch,
        },
        GroupRequest::Promote {
            node,
            off: A,
            epoch,
        },
    ];
    let let_go = What::LetGo {
        mirror,
        ranges: vec![wire::ByteRange::new(4096, 8192).expect("a range")],
        more: true,
        bytes,
    };
    let let_go = super::event::text(
        &words,
        &Event {
            at: Time::ZERO,
            group: Some(DB),
            incident: 0,
            what: let_go,
        },
    );
    assert!(
        let_go.contains("8 KiB of pgdata") && let_go.contains("4096+8192, …"),
        "{let_go}"
    );
    let asked = requests.map(|request| words.request(Some(DB), request));
    let refused = faults_of_a_mirror(bytes).into_iter();
    let refused = refused.map(|fault| words.fault(fault));
    let rule = words.rule(Rule::Forced);
    let remedy = words.remedy(DB, B, Obstacle::HeldBack(bytes));
    let mut seen = std::collections::BTreeSet::new();
    for text in asked
        .into_iter()
        .chain(refused)
        .chain([rule, remedy, let_go])
    {
        assert!(text.contains(' ') && !text.contains('{'), "{text}");
        assert!(seen.insert(text.clone()), "two read the same: {text}");
    }
}

#[test]
fn unknown_ids_do_not_panic() {
    let names = Names::default();
    let words = Words {
        lang: Lang::En,
        names: &names,
    };
    let text = super::event::text(
        &words,
        &Event {
            at: Time::ZERO,
            group: Some(GroupId(9)),
            incident: 0,
            what: What::ResourceFailed {
                resource: 9,
                restarts: 0,
            },
        },
    );
    assert!(text.contains("resource #9"), "{text}");
}

#[test]
fn held_group_says_how_to_start_it() {
    let mut snapshot = ready();
    snapshot.problems = vec![Problem::Held {
        group: DB,
        by_person: true,
    }];
    let group = &mut snapshot.groups[0];
    (group.held, group.serving, group.role) = (true, None, Role::Held);
    group.resources = vec![ResourceState::Stopped; 4];
    let text = shown(&snapshot, 100);
    assert!(
        text.starts_with("DOWN") && text.contains("`backstay start db` starts it"),
        "{text}"
    );
    assert!(!text.contains("can fail over"), "{text}");
}
