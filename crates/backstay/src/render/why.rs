//! Why something happened: a decision, what was seen, what was rejected, and how long each phase took.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wire::event::{Act, Decision, Severity, What};

use super::amount;
use super::event::EventView;
use super::layout::{Block, Cell};
use super::words::{Words, rule_code};
use crate::eventlog::entry::Logged;
use crate::output::{Lang, Tone, Ui};

/// Schema of the document.
pub const WHY_SCHEMA: &str = "backstay.why/1";

/// An explanation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// [`WHY_SCHEMA`].
    pub schema: String,
    /// The event that is explained.
    pub event: EventView,
    /// What was decided; null when the event is not part of a decision.
    pub decision: Option<DecisionView>,
    /// How long each phase of the transition took.
    pub phases: Vec<PhaseView>,
    /// From the trigger to the end of the transition, in milliseconds; null while it goes on.
    pub total_ms: Option<f64>,
    /// All events of the incident, oldest first.
    pub chain: Vec<EventView>,
}

/// A decision in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionView {
    /// What was done.
    pub act: String,
    /// The rule's stable code.
    pub rule: String,
    /// The rule in words.
    pub because: String,
    /// What was seen.
    pub seen: Vec<String>,
    /// What else could have been done, and why it was not.
    pub rejected: Vec<RejectedView>,
}

/// A rejected alternative.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedView {
    /// What could have been done.
    pub act: String,
    /// Why it was not.
    pub because: String,
}

/// A phase of a transition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseView {
    /// Its name.
    pub name: String,
    /// How long it took, in milliseconds.
    pub ms: f64,
}

/// The newest event that a person would ask about: a takeover, a freeze, a hold and the like.
pub fn notable(events: &[Arc<Logged>]) -> Option<&Arc<Logged>> {
    let decided = |logged: &&Arc<Logged>| matches!(&logged.entry.event.what, What::Decision(one) if one.act != Act::Wait);
    let newest = |wanted: fn(&Arc<Logged>) -> bool| {
        events.iter().rev().filter(decided).find(|one| wanted(one))
    };
    let serious = newest(|one| one.entry.severity >= Severity::Warning || moves(one));
    serious.or_else(|| newest(|_| true))
}

fn moves(logged: &Arc<Logged>) -> bool {
    matches!(
        &logged.entry.event.what,
        What::Decision(Decision {
            act: Act::TakeHandover(_) | Act::HandOver(_),
            ..
        })
    )
}

/// Explains one of these events, which are one node's, oldest first.
pub fn explain(lang: Lang, events: &[Arc<Logged>], wanted: &Arc<Logged>) -> Why {
    let chain = chain_of(events, wanted);
    let decision = deciding(&chain, wanted);
    let phases = chain
        .iter()
        .filter_map(|logged| phase_of(lang, logged))
        .collect();
    let total = chain.iter().rev().find_map(total_of);
    Why {
        schema: WHY_SCHEMA.into(),
        event: EventView::new(lang, wanted),
        decision: decision.and_then(|logged| decision_of(lang, logged)),
        phases,
        total_ms: total,
        chain: chain
            .iter()
            .map(|logged| EventView::new(lang, logged))
            .collect(),
    }
}

/// Events of the same incident in the same life of the daemon: incidents are numbered anew after a restart.
fn chain_of(events: &[Arc<Logged>], wanted: &Arc<Logged>) -> Vec<Arc<Logged>> {
    let incident = wanted.entry.event.incident;
    if incident == 0 {
        return vec![Arc::clone(wanted)];
    }
    let is_start = |logged: &Arc<Logged>| matches!(logged.entry.event.what, What::Started { .. });
    let at = events
        .iter()
        .position(|logged| logged.entry.seq == wanted.entry.seq)
        .unwrap_or(0);
    let first = events[..=at.min(events.len().saturating_sub(1))]
        .iter()
        .rposition(is_start);
    let last = events.iter().skip(at + 1).position(is_start);
    let life = &events[first.unwrap_or(0)..last.map_or(events.len(), |more| at + 1 + more)];
    life.iter()
        .filter(|logged| logged.entry.event.incident == incident)
        .cloned()
        .collect()
}

/// The decision that the event is, or the one before it, or the first of its incident.
fn deciding<'a>(chain: &'a [Arc<Logged>], wanted: &Arc<Logged>) -> Option<&'a Arc<Logged>> {
    let decisions = || {
        chain
            .iter()
            .filter(|logged| matches!(logged.entry.event.what, What::Decision(_)))
    };
    let before = decisions().rfind(|logged| logged.entry.seq <= wanted.entry.seq);
    before.or_else(|| decisions().next())
}

fn decision_of(lang: Lang, logged: &Arc<Logged>) -> Option<DecisionView> {
    let What::Decision(decision) = &logged.entry.event.what else {
        return None;
    };
    let words = Words {
        lang,
        names: &logged.names,
    };
    let group = logged.entry.event.group;
    let rejected = |(act, because): &(Act, wire::event::Because)| RejectedView {
        act: words.act(group, *act),
        because: words.because(*because),
    };
    Some(DecisionView {
        act: words.act(group, decision.act),
        rule: rule_code(decision.rule).into(),
        because: words.rule(decision.rule),
        seen: decision
            .seen
            .iter()
            .map(|seen| words.seen(group, *seen))
            .collect(),
        rejected: decision.rejected.iter().map(rejected).collect(),
    })
}

fn phase_of(lang: Lang, logged: &Arc<Logged>) -> Option<PhaseView> {
    let What::Phase { phase, took } = &logged.entry.event.what else {
        return None;
    };
    let words = Words {
        lang,
        names: &logged.names,
    };
    let name = words.phase(logged.entry.event.group, *phase);
    Some(PhaseView {
        name,
        ms: amount::ms(*took),
    })
}

fn total_of(logged: &Arc<Logged>) -> Option<f64> {
    let What::TransitionDone { took } = &logged.entry.event.what else {
        return None;
    };
    Some(amount::ms(*took))
}

const LABEL_WIDTH: usize = 11;

/// The explanation for people.
pub fn table(ui: &Ui, why: &Why) -> String {
    let mut text = head(ui, why);
    if let Some(decision) = &why.decision {
        text.push_str(&decision_block(ui, decision));
    }
    text.push_str(&phases_block(ui, why));
    if why.chain.len() > 1 {
        text.push('\n');
        text.push_str(&events(ui, "EVENTS", &why.chain));
    }
    text
}

fn head(ui: &Ui, why: &Why) -> String {
    let mut block = Block::new("EVENT");
    block.row([
        Cell::toned(Tone::Strong, &why.event.id),
        why.event.text.as_str().into(),
    ]);
    let dot = ui.dot();
    let mut about = vec![
        clock(&why.event.time, true),
        format!("seen by {}", why.event.node),
    ];
    about.extend(why.event.group.iter().map(|group| format!("group {group}")));
    block.row(["".into(), Cell::toned(Tone::Dim, about.join(dot))]);
    block.draw(ui, LABEL_WIDTH)
}

fn decision_block(ui: &Ui, decision: &DecisionView) -> String {
    let mut text = String::from("\n");
    let mut one = |label: &str, lines: Vec<String>| {
        let mut block = Block::new(label);
        for line in lines {
            block.row([line.into()]);
        }
        text.push_str(&block.draw(ui, LABEL_WIDTH));
    };
    one("SEEN", decision.seen.clone());
    one("DECIDED", vec![decision.act.clone()]);
    one(
        "BECAUSE",
        vec![format!("{} [{}]", decision.because, decision.rule)],
    );
    let rejected = decision
        .rejected
        .iter()
        .map(|one| format!("{}: {}", one.act, one.because));
    one("REJECTED", rejected.collect());
    text
}

fn phases_block(ui: &Ui, why: &Why) -> String {
    let mut block = Block::new("PHASES");
    for phase in &why.phases {
        block.row([
            phase.name.as_str().into(),
            format!("{:>9.1} ms", phase.ms).into(),
        ]);
    }
    if let Some(total) = why.total_ms {
        let total = format!("{total:>9.1} ms");
        block.row([
            Cell::toned(Tone::Strong, "total"),
            Cell::toned(Tone::Strong, total),
        ]);
    }
    if block.is_empty() {
        String::new()
    } else {
        format!("\n{}", block.draw(ui, LABEL_WIDTH))
    }
}

/// A list of events.
pub fn events(ui: &Ui, label: &str, list: &[EventView]) -> String {
    let mut block = Block::new(label);
    for event in list {
        block.row(event_cells(event));
    }
    let label_width = if label.is_empty() { 0 } else { LABEL_WIDTH };
    block.draw(ui, label_width)
}

fn event_cells(event: &EventView) -> Vec<Cell> {
    let tone = match event.severity {
        Severity::Info => Tone::Dim,
        Severity::Warning => Tone::Warn,
        Severity::Critical => Tone::Bad,
    };
    let severity = match event.severity {
        Severity::Info => "info",
        Severity::Warning => "warn",
        Severity::Critical => "CRIT",
    };
    let group = event.group.as_deref().unwrap_or("-");
    vec![
        Cell::toned(Tone::Dim, clock(&event.time, false)),
        Cell::toned(tone, severity),
        event.id.as_str().into(),
        group.into(),
        event.text.as_str().into(),
    ]
}

/// `2026-08-01 14:02:11.004Z`, or without the date.
fn clock(time: &str, date: bool) -> String {
    let Some((day, clock)) = time.split_once('T') else {
        return time.to_owned();
    };
    let clock: String = clock.chars().take("14:02:11.004".len()).collect();
    if date {
        format!("{day} {clock}Z")
    } else {
        clock
    }
}
