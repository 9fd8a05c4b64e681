//! What the daemons wrote into their event logs about a fault: phases, rules, resyncs.

use std::fs;

use jiff::Timestamp;
use wire::event::{Act, Decision, Event, Phase, What};

use super::document::PhaseTime;
use crate::eventlog::entry::{Entry, Header};
use crate::lab::state::{Lab, Workload};
use crate::lab::topology::Node;
use crate::output::Lang;
use crate::render::names::Names;
use crate::render::words::Words;

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
    names: Names,
    events: Vec<Traced>,
}

impl Trace {
    /// Reads every node's event log from `since` on. What cannot be read has not been told.
    pub(super) fn read(lab: &Lab, since: Timestamp) -> Self {
        let mut trace = Self::default();
        for node in lab.members() {
            let text = fs::read_to_string(lab.event_log(node)).unwrap_or_default();
            for line in text.lines() {
                trace.take(node, line, since);
            }
        }
        trace.events.sort_by_key(|traced| traced.time);
        trace
    }

    fn take(&mut self, node: Node, line: &str, since: Timestamp) {
        if let Ok(Entry { time, event, .. }) = serde_json::from_str(line) {
            let time = time.parse().ok().filter(|time| *time >= since);
            self.events
                .extend(time.map(|time| Traced { node, time, event }));
        } else if let Ok(Header { names, .. }) = serde_json::from_str(line) {
            self.names = names;
        }
    }

    /// True if a node has put the group on hold.
    pub(super) fn has_hold(&self) -> bool {
        self.decisions()
            .any(|(_, decision)| matches!(decision.act, Act::Hold(_)))
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

    /// The first act that changed something, and the rule behind it.
    pub(super) fn why(&self) -> String {
        let words = Words {
            lang: Lang::En,
            names: &self.names,
        };
        let first = self.decisions().find(|(_, decision)| {
            !matches!(decision.act, Act::Wait | Act::Thaw | Act::AddReplica(_))
        });
        first.map_or_else(
            || "nothing had to be decided".to_owned(),
            |(traced, decision)| {
                let act = words.act(traced.event.group, decision.act);
                format!(
                    "{} decided to {act}: {}",
                    traced.node,
                    words.rule(decision.rule)
                )
            },
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

    /// True if as many resyncs have ended as began.
    pub(super) fn tells_every_end(&self) -> bool {
        let count = |is: fn(&What) -> bool| {
            let events = self.events.iter();
            events.filter(|traced| is(&traced.event.what)).count()
        };
        count(|what| matches!(what, What::ResyncStarted { .. }))
            <= count(|what| matches!(what, What::ResyncDone { .. }))
    }

    fn decisions(&self) -> impl Iterator<Item = (&Traced, &Decision)> {
        self.events.iter().filter_map(|traced| {
            let What::Decision(decision) = &traced.event.what else {
                return None;
            };
            Some((traced, decision))
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
