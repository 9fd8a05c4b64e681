use std::collections::BTreeMap;
use std::fs;

use wire::event::{Decision, Event, Phase, ReplicaLoss, Rule, Seen, Severity, What};
use wire::problem::Problem;
use wire::record::{Intent, Member, Record, Sync};
use wire::{Duration, Epoch, Generation, GroupId, NodeId, Nonce, Time, Version};

use super::*;
use crate::render::names::GroupNames;

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("backstay-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("events.jsonl")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn names() -> Names {
    let groups = vec![GroupNames {
        name: "db".into(),
        resources: Vec::new(),
    }];
    let nodes = vec!["node-a".into(), "node-b".into()];
    Names {
        cluster: "lab".into(),
        me: "node-a".into(),
        nodes,
        groups,
    }
}

fn event(what: What) -> Event {
    Event {
        at: Time::from_nanos(7),
        group: Some(GroupId(0)),
        incident: 3,
        what,
    }
}

fn record() -> Record {
    let member = Member {
        sync: Sync::InSync,
        generation: Generation(2),
        failed: false,
    };
    Record {
        version: Version(4),
        epoch: Epoch(3),
        active: NodeId(1),
        members: BTreeMap::from([(NodeId(0), member), (NodeId(1), member)]),
        intent: Intent::Handover { from: NodeId(0) },
        nonce: Nonce(9),
    }
}

fn samples() -> Vec<What> {
    vec![
        What::Started { starts: 2 },
        What::RecordChanged { record: record() },
        What::LeaseLost,
        What::NodeSuspect {
            node: NodeId(1),
            silent: Duration::from_millis(512),
        },
        What::ReplicaLost {
            node: NodeId(1),
            why: ReplicaLoss::DiskFailed,
        },
        What::Phase {
            phase: Phase::Resource(2),
            took: Duration::from_millis(3),
        },
        What::Decision(Decision {
            act: wire::event::Act::TakeOver(NodeId(0)),
            rule: Rule::PromoteInSync,
            seen: vec![
                Seen::Silent(NodeId(0), Duration::from_millis(512)),
                Seen::AtEpoch(Epoch(3)),
            ],
            rejected: Vec::new(),
        }),
        What::ProblemBegan(Problem::Frozen { group: GroupId(0) }),
    ]
}

#[test]
fn events_come_back_as_they_were_written() {
    let scratch = Scratch::new("log-back");
    let log = EventLog::open(&scratch.0, names()).unwrap();
    let written: Vec<Event> = samples().into_iter().map(event).collect();
    for one in &written {
        log.append(one.clone());
    }
    assert!(log.flush());
    drop(log);

    let log = EventLog::open(&scratch.0, names()).unwrap();
    let found = log.after(0, 100);
    let events: Vec<Event> = found
        .iter()
        .map(|logged| logged.entry.event.clone())
        .collect();
    assert_eq!(events, written);
    assert_eq!(found[0].names.node(NodeId(1)), "node-b");
    assert_eq!(found[2].entry.severity, Severity::Critical);
    assert_eq!(log.append(event(What::Adopted)).entry.seq, 9);
}

#[test]
fn torn_last_line_is_cut_off() {
    let scratch = Scratch::new("log-torn");
    let log = EventLog::open(&scratch.0, names()).unwrap();
    log.append(event(What::LeaseLost));
    assert!(log.flush());
    drop(log);
    let mut text = fs::read_to_string(scratch.file()).unwrap();
    text.push_str("{\"seq\":2,\"time\":\"2026-");
    fs::write(scratch.file(), &text).unwrap();

    let log = EventLog::open(&scratch.0, names()).unwrap();
    assert_eq!(log.append(event(What::LeaseGained)).entry.seq, 2);
    assert!(log.flush());
    let found = files::read_all(&scratch.0).unwrap();
    assert_eq!(
        found
            .iter()
            .map(|logged| logged.entry.seq)
            .collect::<Vec<_>>(),
        [1, 2]
    );
}

#[test]
fn damage_in_the_middle_costs_only_its_line() {
    let scratch = Scratch::new("log-damage");
    let log = EventLog::open(&scratch.0, names()).unwrap();
    log.append(event(What::LeaseLost));
    log.append(event(What::LeaseGained));
    assert!(log.flush());
    drop(log);
    let mut bytes = fs::read(scratch.file()).unwrap();
    let second = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    bytes[second..second + 9].fill(0xFF);
    fs::write(scratch.file(), bytes).unwrap();

    let found = files::read_all(&scratch.0).unwrap();
    assert_eq!(
        found
            .iter()
            .map(|logged| logged.entry.seq)
            .collect::<Vec<_>>(),
        [2]
    );
}

#[test]
fn full_files_are_rotated_and_the_oldest_goes() {
    let scratch = Scratch::new("log-rotate");
    let (mut writer, _) = files::open(&scratch.0, &names()).unwrap();
    writer.limit(2_000);
    for seq in 1..=200 {
        let line = Entry::new(seq, event(What::LeaseGained)).to_line();
        writer.append(&line).unwrap();
    }
    writer.sync().unwrap();
    let files = fs::read_dir(&scratch.0).unwrap().count();
    assert_eq!(files, 5);
    let found = files::read_all(&scratch.0).unwrap();
    let seqs: Vec<u64> = found.iter().map(|logged| logged.entry.seq).collect();
    assert_eq!(seqs.last(), Some(&200));
    assert!(
        seqs.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{seqs:?}"
    );
    assert!(found.iter().all(|logged| logged.names.cluster == "lab"));
}

#[test]
fn events_older_than_memory_are_read_from_files() {
    let scratch = Scratch::new("log-old");
    let log = EventLog::open(&scratch.0, names()).unwrap();
    for _ in 0..RECENT_MAX + 10 {
        log.append(event(What::LeaseGained));
    }
    assert!(log.flush());
    let found = log.after(2, 3);
    assert_eq!(
        found
            .iter()
            .map(|logged| logged.entry.seq)
            .collect::<Vec<_>>(),
        [3, 4, 5]
    );
    assert_eq!(log.last(2).len(), 2);
    assert_eq!(log.unwritten(), 0);
}

#[test]
fn readers_learn_of_new_events() {
    let scratch = Scratch::new("log-watch");
    let log = EventLog::open(&scratch.0, names()).unwrap();
    let head = log.subscribe();
    assert_eq!(*head.borrow(), 0);
    log.append(event(What::Adopted));
    assert!(head.has_changed().unwrap());
    assert_eq!(*head.borrow(), 1);
}
