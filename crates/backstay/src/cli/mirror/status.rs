//! `backstay mirror status`.

use wire::{ByteCount, ByteRange};

use super::{Global, pick, read};
use crate::api::body::{GroupMirror, Mirrors};
use crate::api::mirror::UndoView;
use crate::api::view::{MirrorCondition, ReplicaCondition, ReplicaView};
use crate::cli::connect;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::output::{Tone, Ui};
use crate::render::amount;
use crate::render::layout::{Block, Cell};
use crate::render::status::mirror_words;

/// Places that people are shown; documents have more.
const PLACES_SHOWN: usize = 16;
/// Width of the labels.
const LABEL: usize = 14;

/// `backstay mirror status`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only this mirror, with what its disk on this node says and where the replicas differ
    name: Option<String>,
}

pub(super) fn run(args: &Args, global: &Global, ui: &Ui) -> Outcome {
    let client = connect::client(global)?;
    let all = read(&client)?;
    let Some(name) = &args.name else {
        ui.document(&all, |ui| table(ui, &all.mirrors))?;
        return Ok(exit(&all.mirrors));
    };
    let one = Mirrors {
        schema: all.schema,
        mirrors: vec![pick(all.mirrors, name)?],
    };
    ui.document(&one, |ui| {
        one.mirrors.iter().map(|it| detail(ui, it)).collect()
    })?;
    Ok(exit(&one.mirrors))
}

fn exit(mirrors: &[GroupMirror]) -> Exit {
    let whole = |one: &GroupMirror| one.mirror.state == MirrorCondition::InSync;
    if mirrors.iter().all(whole) {
        Exit::Ready
    } else {
        Exit::Degraded
    }
}

const fn tone(state: MirrorCondition) -> Tone {
    match state {
        MirrorCondition::InSync => Tone::Good,
        MirrorCondition::Resyncing | MirrorCondition::Reconciling | MirrorCondition::Alone => {
            Tone::Warn
        }
        MirrorCondition::Disconnected | MirrorCondition::Failed => Tone::Bad,
        MirrorCondition::Detached => Tone::Dim,
    }
}

fn table(ui: &Ui, mirrors: &[GroupMirror]) -> String {
    let mut block = Block::new("");
    let heads = ["MIRROR", "GROUP", "STATE", "DIFFERS", "LAG", "IN SYNC"];
    block.row(heads.map(|head| Cell::toned(Tone::Dim, head)));
    for one in mirrors {
        let mirror = &one.mirror;
        block.row([
            Cell::toned(Tone::Strong, &mirror.name),
            one.group.as_str().into(),
            Cell::toned(tone(mirror.state), mirror_words(mirror.state)),
            amount::bytes(ByteCount(mirror.out_of_sync_bytes)).into(),
            lag(one).into(),
            one.in_sync.join(", ").into(),
        ]);
    }
    block.draw(ui, 0)
}

fn lag(one: &GroupMirror) -> String {
    let bytes = amount::bytes(ByteCount(one.mirror.lag_bytes));
    format!("{bytes}, {:.1} s", one.mirror.lag_seconds)
}

fn detail(ui: &Ui, one: &GroupMirror) -> String {
    let mirror = &one.mirror;
    let bytes = |count| amount::bytes(ByteCount(count));
    let state = Cell::toned(tone(mirror.state), mirror_words(mirror.state));
    let mut text = line(ui, "mirror", Cell::toned(Tone::Strong, &mirror.name));
    text += &line(ui, "group", one.group.as_str());
    text += &line(ui, "state", state);
    text += &line(ui, "in sync", one.in_sync.join(", "));
    text += &line(ui, "lag", lag(one));
    if let Some(replica) = &mirror.replica {
        text += &replica_lines(ui, replica);
    }
    let hot = mirror
        .replica
        .as_ref()
        .map_or(0, |replica| replica.intent.len());
    let hot = format!("{}, {hot} places", bytes(mirror.intent_bytes));
    text += &line(ui, "intent log", hot);
    let others = mirror.replica.iter().flat_map(|replica| &replica.others);
    let marked = others.map(|other| other.marked_bytes).max().unwrap_or(0);
    text += &line(ui, "differs", bytes(mirror.out_of_sync_bytes.max(marked)));
    text += &places(ui, &mirror.differing, mirror.differing_more);
    for held in &mirror.held_back {
        let words = format!("{} on {}; see BS-403", bytes(held.bytes), held.node);
        text += &line(ui, "held back", Cell::toned(Tone::Bad, words));
        text += &places(ui, &held.ranges, held.more);
    }
    text
}

fn replica_lines(ui: &Ui, replica: &ReplicaView) -> String {
    let bytes = |count| amount::bytes(ByteCount(count));
    let data = format!(
        "{}, {}",
        condition(replica.state),
        bytes(replica.data_bytes)
    );
    let age = format!("{}, epoch {}", replica.generation, replica.epoch);
    let mut text = line(ui, "disk here", data);
    text += &line(ui, "generation", age);
    for other in &replica.others {
        let baseline = other.baseline.as_deref();
        let since = baseline.unwrap_or("none: never made equal");
        let marked = bytes(other.marked_bytes);
        let whose = format!("{since}, with {}; {marked} marked", other.node);
        text += &line(ui, "baseline", whose);
    }
    if let Some(undo) = &replica.undo {
        text += &line(ui, "way back", way_back(undo));
    }
    for resync in &replica.resyncs {
        let (left, sent) = (bytes(resync.left_bytes), bytes(resync.sent_bytes));
        let how_far = format!("to {}: {left} left, {sent} sent", resync.node);
        text += &line(ui, "resync", how_far);
    }
    text
}

/// What leads back from an unfinished resync.
fn way_back(undo: &UndoView) -> String {
    let bytes = |count| amount::bytes(ByteCount(count));
    let bound = bytes(undo.bound_bytes);
    match (undo.began_unix, undo.used_bytes) {
        (Some(at), Some(used)) => format!(
            "to {}, by `mirror rollback`; {} of {bound} used",
            instant(at),
            bytes(used)
        ),
        (_, _) => format!("by `mirror rollback`, at most {bound}"),
    }
}

/// A time of the wall clock.
pub(super) fn instant(unix: u64) -> String {
    let at = i64::try_from(unix).ok().map(jiff::Timestamp::from_second);
    match at {
        Some(Ok(at)) => at.to_string(),
        Some(Err(_)) | None => format!("{unix} s after 1970"),
    }
}

/// What a replica's data is, for people.
pub(super) const fn condition(state: ReplicaCondition) -> &'static str {
    match state {
        ReplicaCondition::Origin => "content kept, the mirror starts from it",
        ReplicaCondition::Blank => "blank, to be filled by the active",
        ReplicaCondition::Consistent => "consistent",
        ReplicaCondition::Inconsistent => "a mixture: a resync was not finished",
    }
}

/// One line with a label.
pub(super) fn line(ui: &Ui, label: &str, value: impl Into<Cell>) -> String {
    let mut block = Block::toned(Tone::Dim, label);
    block.row([value.into()]);
    block.draw(ui, LABEL)
}

/// The first places, one a line.
pub(super) fn places(ui: &Ui, places: &[(u64, u64)], more: bool) -> String {
    let ranges = places
        .iter()
        .filter_map(|(at, len)| ByteRange::new(*at, *len));
    let shown = ranges.take(PLACES_SHOWN);
    // As `--range` takes them.
    let exact = |one: ByteRange| format!("{}:{}", one.offset(), one.len());
    let words = |one| format!("{:<24}{}", exact(one), amount::range(one));
    let mut text: String = shown.map(|one| line(ui, "", words(one))).collect();
    let rest = places.len().saturating_sub(PLACES_SHOWN);
    if more {
        text += &line(ui, "", "and more; -o json names the first 256");
    } else if rest > 0 {
        text += &line(ui, "", format!("and {rest} more; -o json names them"));
    }
    text
}
