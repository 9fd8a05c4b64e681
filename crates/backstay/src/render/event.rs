//! Events as lines.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wire::control::RequestFault;
use wire::event::{Event, Found, Severity, UndoLoss, Ungrown, What};
use wire::{ByteCount, ByteRange, NodeId};

use super::amount;
use super::catalogue::fill;
use super::problem::ProblemView;
use super::words::Words;
use crate::eventlog::entry::Logged;
use crate::output::Lang;

/// An event as the API and the listings show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    /// `NODE:NUMBER`, for `backstay why`.
    pub id: String,
    /// The node that saw it.
    pub node: String,
    /// Its number on that node.
    pub seq: u64,
    /// Wall time, RFC 3339, UTC.
    pub time: String,
    /// Nanoseconds since that node's boot.
    pub boot_ns: u64,
    /// How much a person should care.
    pub severity: Severity,
    /// Stable code.
    pub code: String,
    /// The group that it concerns.
    pub group: Option<String>,
    /// The chain of decisions that it belongs to; 0 for none.
    pub incident: u64,
    /// Arguments of the code; ids are places in the configuration.
    pub args: Value,
    /// In words.
    pub text: String,
}

impl EventView {
    /// The view of a logged event in a language.
    pub fn new(lang: Lang, logged: &Logged) -> Self {
        let words = Words {
            lang,
            names: &logged.names,
        };
        let entry = &logged.entry;
        let (code, args) = code_and_args(&entry.event.what);
        Self {
            id: format!("{}:{}", logged.names.me, entry.seq),
            node: logged.names.me.clone(),
            seq: entry.seq,
            time: entry.time.clone(),
            boot_ns: entry.event.at.as_nanos(),
            severity: entry.severity,
            code,
            group: entry.event.group.map(|group| logged.names.group(group)),
            incident: entry.event.incident,
            args,
            text: text(&words, &entry.event),
        }
    }
}

fn code_and_args(what: &What) -> (String, Value) {
    let mut value = serde_json::to_value(what).unwrap_or_default();
    let code = value
        .get("code")
        .and_then(Value::as_str)
        .unwrap_or("unknown")
        .to_owned();
    (
        code,
        value.get_mut("args").map(Value::take).unwrap_or_default(),
    )
}

/// An event in words.
pub fn text(words: &Words<'_>, event: &Event) -> String {
    let group = event.group;
    match &event.what {
        What::Decision(decision) => {
            let act = words.act(group, decision.act);
            words.fill(
                "event.decision",
                &[("act", act), ("rule", words.rule(decision.rule))],
            )
        }
        What::RecordChanged { record } => record_changed(words, record),
        What::Phase { phase, took } => words.fill(
            "event.phase",
            &[
                ("phase", words.phase(group, *phase)),
                ("took", amount::time(*took)),
            ],
        ),
        What::ProblemBegan(problem) => problem_text(words, "event.problem-began", problem),
        What::ProblemEnded(problem) => problem_text(words, "event.problem-ended", problem),
        What::ResourceFailed { resource, restarts } => words.fill(
            "event.resource-failed",
            &[
                ("resource", words.resource(group, *resource)),
                ("restarts", restarts.to_string()),
            ],
        ),
        What::Asked {
            request,
            reason,
            result,
        } => asked(words, words.request(group, *request), reason, *result),
        What::Started { .. }
        | What::NodeUp { .. }
        | What::NodeSuspect { .. }
        | What::LinkDown { .. }
        | What::LinkUp { .. }
        | What::RoleChanged { .. }
        | What::TransitionDone { .. }
        | What::LeaseLost
        | What::LeaseGained
        | What::ReplicaLost { .. }
        | What::ResyncStarted { .. }
        | What::ResyncDone { .. }
        | What::Discarded { .. }
        | What::PutAside { .. }
        | What::DiskFailed { .. }
        | What::Adopted => plain_text(words, &event.what),
        What::UndoLost { mirror, why } => undo_lost(words, words.mirror(group, *mirror), *why),
        What::Unreadable {
            mirror,
            range,
            mended,
        } => unreadable(words, words.mirror(group, *mirror), *range, *mended),
        What::Verified {
            mirror,
            node,
            found,
        } => verified(words, &words.mirror(group, *mirror), *node, found),
        What::Grown { mirror, data, why } => {
            grown(words, words.mirror(group, *mirror), *data, *why)
        }
        What::LetGo {
            mirror,
            ranges,
            more,
            bytes,
        } => let_go(words, words.mirror(group, *mirror), (ranges, *more), *bytes),
    }
}

fn disk_failed(words: &Words<'_>, errno: Option<i32>) -> String {
    let error = errno.map_or_else(
        || words.plain("disk.hang"),
        |number| std::io::Error::from_raw_os_error(number).to_string(),
    );
    words.fill("event.disk-failed", &[("error", error)])
}

fn grown(words: &Words<'_>, mirror: String, data: ByteCount, why: Option<Ungrown>) -> String {
    let key = if why.is_some() {
        "event.not-grown"
    } else {
        "event.grown"
    };
    let why = why.map(|why| words.ungrown(why)).unwrap_or_default();
    let size = amount::bytes(data);
    words.fill(key, &[("mirror", mirror), ("size", size), ("why", why)])
}

fn put_aside_text(words: &Words<'_>, told: &[ByteRange], count: u64, bytes: ByteCount) -> String {
    let more = u64::try_from(told.len()).is_ok_and(|told| told < count);
    let args = [
        ("at_most", amount::bytes(bytes)),
        ("count", count.to_string()),
        ("ranges", range_list(told, more)),
    ];
    words.fill("event.put-aside", &args)
}

fn undo_lost(words: &Words<'_>, mirror: String, why: UndoLoss) -> String {
    let why = words.plain(undo_loss(why));
    words.fill("event.undo-lost", &[("mirror", mirror), ("why", why)])
}

const fn undo_loss(why: UndoLoss) -> &'static str {
    match why {
        UndoLoss::Full => "undo.full",
        UndoLoss::Failed => "undo.failed",
        UndoLoss::Silent => "undo.silent",
        UndoLoss::Gone => "undo.gone",
        UndoLoss::Resized => "undo.resized",
    }
}

fn let_go(
    words: &Words<'_>,
    mirror: String,
    (ranges, more): (&[ByteRange], bool),
    bytes: ByteCount,
) -> String {
    let args = [
        ("mirror", mirror),
        ("amount", amount::bytes(bytes)),
        ("ranges", range_list(ranges, more)),
    ];
    words.fill("event.let-go", &args)
}

fn range_list(told: &[ByteRange], more: bool) -> String {
    let name = |range: &ByteRange| format!("{}+{}", range.offset(), range.len());
    let mut ranges: Vec<String> = told.iter().map(name).collect();
    if more {
        ranges.push("…".to_owned());
    }
    ranges.join(", ")
}

fn plain_text(words: &Words<'_>, what: &What) -> String {
    let node = |id| ("node", words.names.node(id));
    let link = |index: u8| ("link", (u16::from(index) + 1).to_string());
    match what {
        What::Started { starts } => words.fill("event.started", &[("starts", starts.to_string())]),
        What::NodeUp { node: id } => words.fill("event.node-up", &[node(*id)]),
        What::NodeSuspect { node: id, silent } => words.fill(
            "event.node-suspect",
            &[node(*id), ("silent", amount::time(*silent))],
        ),
        What::LinkDown {
            node: id,
            link: index,
        } => words.fill("event.link-down", &[node(*id), link(*index)]),
        What::LinkUp {
            node: id,
            link: index,
        } => words.fill("event.link-up", &[node(*id), link(*index)]),
        What::RoleChanged { from, to } => {
            let args = [
                ("me", words.names.me.clone()),
                ("from", words.role(*from)),
                ("to", words.role(*to)),
            ];
            words.fill("event.role-changed", &args)
        }
        What::TransitionDone { took } => {
            words.fill("event.transition-done", &[("took", amount::time(*took))])
        }
        What::ReplicaLost { node: id, why } => words.fill(
            "event.replica-lost",
            &[node(*id), ("why", words.loss(*why))],
        ),
        What::ResyncStarted { node: id, dirty } => words.fill(
            "event.resync-started",
            &[node(*id), ("dirty", amount::bytes(*dirty))],
        ),
        What::ResyncDone { node: id, sent } => words.fill(
            "event.resync-done",
            &[node(*id), ("sent", amount::bytes(*sent))],
        ),
        What::Discarded { node: id, at_most } => words.fill(
            "event.discarded",
            &[node(*id), ("at_most", amount::bytes(*at_most))],
        ),
        What::PutAside {
            ranges,
            count,
            bytes,
        } => put_aside_text(words, ranges, *count, *bytes),
        What::DiskFailed { errno } => disk_failed(words, *errno),
        What::LeaseLost => words.plain("event.lease-lost"),
        What::LeaseGained => words.plain("event.lease-gained"),
        What::Adopted => words.plain("event.adopted"),
        What::RecordChanged { .. }
        | What::Unreadable { .. }
        | What::Verified { .. }
        | What::Grown { .. }
        | What::LetGo { .. }
        | What::UndoLost { .. }
        | What::Decision(_)
        | What::Phase { .. }
        | What::ResourceFailed { .. }
        | What::ProblemBegan(_)
        | What::ProblemEnded(_)
        | What::Asked { .. } => String::new(),
    }
}

fn asked(
    words: &Words<'_>,
    request: String,
    reason: &str,
    result: Result<(), RequestFault>,
) -> String {
    let reason = if reason.is_empty() {
        words.plain("reason.none")
    } else {
        reason.to_owned()
    };
    let result = match result {
        Ok(()) => words.plain("result.taken"),
        Err(fault) => words.fault(fault),
    };
    let args = [("request", request), ("reason", reason), ("result", result)];
    words.fill("event.asked", &args)
}

fn unreadable(words: &Words<'_>, mirror: String, range: ByteRange, mended: bool) -> String {
    let key = if mended {
        "event.unreadable-mended"
    } else {
        "event.unreadable"
    };
    let args = [("mirror", mirror), ("range", amount::range(range))];
    words.fill(key, &args)
}

fn verified(words: &Words<'_>, mirror: &str, node: NodeId, found: &Found) -> String {
    let key = if found.is_clean() {
        "event.verified-clean"
    } else {
        "event.verified"
    };
    let args = [
        ("mirror", mirror.to_owned()),
        ("node", words.names.node(node)),
        ("checked", amount::bytes(found.checked)),
        ("different", amount::bytes(found.different)),
        ("unreadable", amount::bytes(found.unreadable)),
        ("repaired", amount::bytes(found.repaired)),
    ];
    words.fill(key, &args)
}

fn record_changed(words: &Words<'_>, record: &wire::Record) -> String {
    let members: Vec<String> = record
        .promotable()
        .into_iter()
        .map(|id| words.names.node(id))
        .collect();
    words.fill(
        "event.record-changed",
        &[
            ("version", record.version.to_string()),
            ("active", words.names.node(record.active)),
            ("epoch", record.epoch.to_string()),
            ("members", members.join(", ")),
        ],
    )
}

fn problem_text(words: &Words<'_>, key: &str, problem: &wire::problem::Problem) -> String {
    let view = ProblemView::new(words, problem);
    words.fill(key, &[("code", view.code), ("problem", view.message)])
}

impl Words<'_> {
    /// The text with this key and its places filled.
    pub fn fill(&self, key: &str, args: &[(&str, String)]) -> String {
        fill(self.lang, key, args)
    }
}
