//! What the daemons wrote into their event logs about a fault: phases, rules, resyncs.

use std::fs;

use jiff::Timestamp;
use serde::Deserialize;
use wire::event::{Act, Event, Phase, Rule, What};

use super::document::PhaseTime;
use crate::lab::state::{Lab, Workload};
use crate::lab::topology::Node;

/// A line of an event log; other kinds of line have no event.
#[derive(Deserialize)]
struct Line {
    time: String,
    event: Event,
}

/// An event of one of the lab's nodes.
#[derive(Clone, Debug)]
pub(super) struct Traced {
    /// Whose log it was in.
    pub(super) node: Node,
    /// When, by the machine's wall clock.
    pub(super) time: Timestamp,
    /// What.
    pub(super) event: Event,
}

/// What a fault has led to, as told by the daemons.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace {
    events: Vec<Traced>,
}

impl Trace {
    /// Reads every node's event log from `since` on.
    pub(super) fn read(lab: &Lab, since: Timestamp) -> Self {
        let mut events: Vec<Traced> = Node::ALL
            .into_iter()
            .flat_map(|node| {
                let log = lab.state_dir(node).join("events.jsonl");
                let text = fs::read_to_string(log).unwrap_or_default();
                let lines: Vec<Line> = text
                    .lines()
                    .filter_map(|line| serde_json::from_str(line).ok())
                    .collect();
                lines.into_iter().filter_map(move |Line { time, event }| {
                    Some(Traced {
                        node,
                        time: time.parse().ok()?,
                        event,
                    })
                })
            })
            .filter(|traced| traced.time >= since)
            .collect();
        events.sort_by_key(|traced| traced.time);
        Self { events }
    }

    /// True if a node has put the group on hold.
    pub(super) fn has_hold(&self) -> bool {
        self.decisions()
            .any(|(_, act, _)| matches!(act, Act::Hold(_)))
    }

    /// The parts of the first transition to service on `node`.
    pub(super) fn phases(&self, node: Node, workload: Workload) -> Vec<PhaseTime> {
        let mut phases: Vec<PhaseTime> = Vec::new();
        for traced in self.events.iter().filter(|traced| traced.node == node) {
            if let What::Phase { phase, took } = &traced.event.what {
                let (name, ms) = (phase_name(*phase, workload), milliseconds(*took));
                match phases.iter_mut().find(|known| known.name == name) {
                    Some(known) => known.ms += ms,
                    None => phases.push(PhaseTime { name, ms }),
                }
            }
            let ended = matches!(traced.event.what, What::TransitionDone { .. });
            if ended && !phases.is_empty() {
                break;
            }
        }
        phases
    }

    /// The rule behind the first act that changed something.
    pub(super) fn why(&self) -> String {
        self.decisions()
            .find(|(_, act, _)| !matches!(act, Act::Wait | Act::Thaw | Act::AddReplica(_)))
            .map_or_else(
                || "no decision was needed".to_owned(),
                |(node, _, rule)| format!("{node}: {}", rule_words(rule)),
            )
    }

    /// Bytes that were marked as possibly different when resyncs began.
    pub(super) fn changed_bytes(&self) -> u64 {
        let marked = |what: &What| {
            if let What::ResyncStarted { dirty, .. } = what {
                dirty.0
            } else {
                0
            }
        };
        self.events
            .iter()
            .map(|traced| marked(&traced.event.what))
            .sum()
    }

    /// Bytes that resyncs have sent.
    pub(super) fn resync_bytes(&self) -> u64 {
        let sent = |what: &What| {
            if let What::ResyncDone { sent, .. } = what {
                sent.0
            } else {
                0
            }
        };
        self.events
            .iter()
            .map(|traced| sent(&traced.event.what))
            .sum()
    }

    fn decisions(&self) -> impl Iterator<Item = (Node, Act, Rule)> + '_ {
        self.events.iter().filter_map(|traced| {
            let What::Decision(decision) = &traced.event.what else {
                return None;
            };
            Some((traced.node, decision.act, decision.rule))
        })
    }
}

fn milliseconds(took: wire::Duration) -> f64 {
    let micros = u32::try_from(took.as_nanos() / 1000).unwrap_or(u32::MAX);
    f64::from(micros) / 1000.0
}

/// The group's resources stand in the order of the lab's configuration.
const fn phase_name(phase: Phase, workload: Workload) -> &'static str {
    let serves = !matches!(workload, Workload::None);
    match phase {
        Phase::Detect => "detect",
        Phase::Lease => "lease",
        Phase::Decide => "decide",
        Phase::Mirror | Phase::Resource(0) => "mirror",
        Phase::Resource(1) if serves => "filesystem",
        Phase::Resource(2) if serves => "app",
        Phase::Resource(_) => "address",
    }
}

const fn rule_words(rule: Rule) -> &'static str {
    match rule {
        Rule::PromoteInSync => {
            "the active was silent, every lease had run out, and the own replica was in sync"
        }
        Rule::Handover => "the active handed over",
        Rule::GoSolo => "the replica was gone: taken out of the record before acknowledging alone",
        Rule::Grow => "the replica had everything again",
        Rule::DiskFailedHere => "the own disk failed and the peer was up to date",
        Rule::StuckPeer => "the peer's heart beats but its disk does not answer",
        Rule::NoLease => "no majority confirmed the lease: nothing is answered",
        Rule::LeaseBack => "the lease was confirmed again",
        Rule::Deposed => "a newer record names another node",
        Rule::RestartBudget => "the resource failed and may be restarted here",
        Rule::BudgetSpent => "the resource was restarted here as often as allowed",
        Rule::FailedEverywhere => "the resource failed on every node",
        Rule::Asked => "a person asked for it",
        Rule::Barrier => {
            "restarted: the record was confirmed with a new epoch before acknowledging"
        }
        Rule::FirstRecord => "no record yet",
    }
}
