//! `backstay mirror inspect`: what a disk's metadata says, whether or not anybody runs it.

use std::path::PathBuf;

use host::disk::DiskView;
use host::ring::Buf;
use mirror::inspect::{Contents, Found, Inspection, PlaceFault, SuperPlace, inspect};
use mirror::way_back::run_words;
use serde::Serialize;
use wire::layout::{BlockFault, Pair, Slot, Superblock};
use wire::{ByteCount, External};

use super::apart::{Beside, called, fits, mismatch};
use super::status::{condition, line, places};
use crate::api::mirror::{pairs, session_words};
use crate::api::view::ReplicaCondition;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{Tone, Ui};
use crate::render::amount;
use crate::render::layout::Cell;

/// Schema of the document.
const SCHEMA: &str = "backstay.mirror-inspect/1";
/// Places that the document names.
const PLACES_MAX: usize = 256;

/// `backstay mirror inspect`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Disk, or a file with a disk's content; or the device that has a disk's metadata
    device: PathBuf,
    #[command(flatten)]
    beside: Beside,
}

/// The document.
#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    device: String,
    disk_bytes: u64,
    /// The process or mount that has the disk open for itself: what is shown may be old by now.
    in_use_by: Option<String>,
    superblocks: Vec<Place>,
    /// `replica`, `damaged` (one, but something of its metadata is lost), `shrunk`, `other-disk` (the metadata is of another
    /// disk than the one beside it) or `none`.
    found: &'static str,
    /// Why it is another disk's.
    other_disk: Option<String>,
    replica: Option<Replica>,
}

#[derive(Debug, Serialize)]
struct Place {
    slot: &'static str,
    offset: u64,
    /// `whole`, `foreign`, `torn`, `damaged`, `newer`, `misplaced` or `unreadable`.
    state: &'static str,
    sequence: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Replica {
    mirror: Option<String>,
    replica: String,
    state: ReplicaCondition,
    generation: u64,
    epoch: u64,
    led: bool,
    /// The run of the undo log that leads back from the mixture.
    undo: Option<String>,
    data_bytes: u64,
    /// The disk whose metadata is on a device of its own.
    disk: Option<Disk>,
    /// What it remembers of other replicas.
    others: Vec<Other>,
    /// None where the layout does not fit the disk.
    metadata: Option<Metadata>,
}

#[derive(Debug, Serialize)]
struct Disk {
    disk_bytes: u64,
    name: Option<String>,
}

#[derive(Debug, Serialize)]
struct Other {
    /// Its place among the nodes of the configuration, from 0.
    node: u8,
    /// The session in which the two were made equal last.
    baseline: Option<String>,
    /// The session that the other one may know instead.
    offered: Option<String>,
}

#[derive(Debug, Serialize)]
struct Metadata {
    slot: &'static str,
    /// The other place of the superblock is damaged and may have held a newer one.
    doubtful: bool,
    bitmap_offset: u64,
    bitmap_blocks: u64,
    bitmap_lost_blocks: u64,
    intent_offset: u64,
    intent_regions: u64,
    intent_incomplete: bool,
    marked_bytes: u64,
    /// Bitmap and intent log together: where this replica may hold what others do not.
    differing_bytes: u64,
    differing: Vec<(u64, u64)>,
    differing_more: bool,
    intent: Vec<(u64, u64)>,
}

pub(super) fn run(args: &Args, ui: &Ui) -> Outcome {
    let disk = open(args)?;
    let document = document(args, &disk, &look(&disk));
    ui.document(&document, |ui| table(ui, &document))?;
    Ok(match document.found {
        "replica" => Exit::Ready,
        "none" => Exit::Error,
        _ => Exit::Degraded,
    })
}

fn open(args: &Args) -> Result<DiskView, Failure> {
    args.beside.view(&args.device).map_err(|error| {
        let hint = error.hint();
        Failure::new(format!("cannot look at {}", args.device.display()))
            .from_error(&error)
            .hint(hint)
    })
}

/// Reads the metadata of an opened disk.
pub(super) fn look(disk: &DiskView) -> Inspection {
    let read = |offset, len| {
        let mut buf = Buf::new(usize::try_from(len).ok()?);
        disk.read_now(offset, &mut buf).ok()?;
        Some(buf.to_vec())
    };
    let seen = inspect(disk.size(), |range| read(range.offset(), range.len()));
    let alone = match (&seen.replica, disk.external()) {
        (Found::Shrunk(superblock), None) => superblock.external.as_ref(),
        (Found::Shrunk(_) | Found::Replica(_) | Found::Nothing, _) => None,
    };
    match alone {
        None => seen,
        // The metadata's device without the disk: everything is as far behind it as if the disk were there.
        Some(missing) => inspect(missing.disk_bytes + disk.size(), |range| {
            read(range.offset().checked_sub(missing.disk_bytes)?, range.len())
        }),
    }
}

fn document(args: &Args, disk: &DiskView, seen: &Inspection) -> Document {
    let (found, replica) = match &seen.replica {
        Found::Nothing => ("none", None),
        Found::Shrunk(superblock) => ("shrunk", Some(replica(superblock, None))),
        Found::Replica(contents) => {
            let lost = contents.bitmap_lost > 0 || contents.intent_incomplete || contents.doubtful;
            let found = if lost { "damaged" } else { "replica" };
            (
                found,
                Some(replica(&contents.superblock, Some(metadata(contents)))),
            )
        }
    };
    let here = disk.external();
    let other_disk = match &seen.replica {
        Found::Nothing => None,
        // Without the disk there is nothing to compare.
        Found::Shrunk(_) | Found::Replica(_) if here.is_none() => None,
        Found::Shrunk(superblock) => mismatch(here.as_ref(), superblock),
        Found::Replica(contents) => mismatch(here.as_ref(), &contents.superblock),
    };
    let crosses = match &seen.replica {
        Found::Replica(contents) => !fits(here.as_ref(), contents.layout),
        Found::Nothing | Found::Shrunk(_) => false,
    };
    let found = match &other_disk {
        Some(_) => "other-disk",
        None if crosses => "shrunk",
        None => found,
    };
    Document {
        schema: SCHEMA,
        device: args.device.display().to_string(),
        disk_bytes: seen.disk.0.min(disk.size()),
        in_use_by: disk.user(),
        superblocks: ["A", "B"]
            .into_iter()
            .zip(&seen.places)
            .map(place)
            .collect(),
        found,
        other_disk,
        replica,
    }
}

fn place((slot, place): (&'static str, &SuperPlace)) -> Place {
    Place {
        slot,
        offset: place.offset,
        state: match &place.content {
            Ok(_) => "whole",
            Err(PlaceFault::Unreadable) => "unreadable",
            Err(PlaceFault::Block(fault)) => match fault {
                BlockFault::Foreign => "foreign",
                BlockFault::Torn => "torn",
                BlockFault::Damaged { .. } => "damaged",
                BlockFault::Newer(_) => "newer",
                BlockFault::Misplaced => "misplaced",
            },
        },
        sequence: place.content.as_ref().ok().map(|(sequence, _)| *sequence),
    }
}

fn replica(superblock: &Superblock, metadata: Option<Metadata>) -> Replica {
    Replica {
        mirror: superblock.mirror.map(|id| format!("{id:032x}")),
        replica: format!("{:032x}", superblock.replica),
        state: superblock.state.into(),
        generation: superblock.generation.0,
        epoch: superblock.epoch.0,
        led: superblock.led,
        undo: superblock.undo.map(run_words),
        data_bytes: superblock.data_bytes,
        disk: superblock.external.as_ref().map(|disk| Disk {
            disk_bytes: disk.disk_bytes,
            name: disk.name.clone(),
        }),
        others: superblock.pairs.iter().map(other).collect(),
        metadata,
    }
}

fn other(pair: &Pair) -> Other {
    Other {
        node: pair.node.0,
        baseline: pair.baseline.map(session_words),
        offered: pair.offered.map(session_words),
    }
}

fn metadata(contents: &Contents) -> Metadata {
    let layout = &contents.layout;
    let differing = contents.differing(PLACES_MAX);
    Metadata {
        slot: match contents.slot {
            Slot::A => "A",
            Slot::B => "B",
        },
        doubtful: contents.doubtful,
        bitmap_offset: layout.metadata_offset(),
        bitmap_blocks: layout.bitmap_blocks,
        bitmap_lost_blocks: contents.bitmap_lost,
        intent_offset: layout.intent_offset(Slot::B),
        intent_regions: contents.hot_regions,
        intent_incomplete: contents.intent_incomplete,
        marked_bytes: contents.marked_bytes().0,
        differing_bytes: contents.differing_bytes().0,
        differing: pairs(&differing),
        differing_more: differing.more,
        intent: pairs(&contents.hot(PLACES_MAX)),
    }
}

fn table(ui: &Ui, document: &Document) -> String {
    let bytes = |count| amount::bytes(ByteCount(count));
    let device = Cell::toned(Tone::Strong, &document.device);
    let mut text = line(ui, "disk", device);
    text += &line(
        ui,
        "size",
        format!(
            "{} ({} bytes)",
            bytes(document.disk_bytes),
            document.disk_bytes
        ),
    );
    if let Some(user) = &document.in_use_by {
        let warning = format!("in use by {user}: what is shown may be old by now");
        text += &line(ui, "note", Cell::toned(Tone::Warn, warning));
    }
    for place in &document.superblocks {
        let sequence = place
            .sequence
            .map(|n| format!(", sequence {n}"))
            .unwrap_or_default();
        let words = format!(
            "{} at byte {}: {}{sequence}",
            place.slot, place.offset, place.state
        );
        text += &line(ui, "superblock", words);
    }
    if let Some(why) = &document.other_disk {
        text += &line(ui, "note", Cell::toned(Tone::Bad, why.as_str()));
    }
    match &document.replica {
        None => text + &line(ui, "found", Cell::toned(Tone::Bad, "no mirror's metadata")),
        Some(replica) => text + &replica_table(ui, replica),
    }
}

fn replica_table(ui: &Ui, replica: &Replica) -> String {
    let bytes = |count| amount::bytes(ByteCount(count));
    let none = "none yet";
    let mut text = line(ui, "mirror", replica.mirror.as_deref().unwrap_or(none));
    text += &line(ui, "replica", replica.replica.as_str());
    let served = if replica.led {
        ", served since it was last made equal"
    } else {
        ""
    };
    text += &line(ui, "state", format!("{}{served}", condition(replica.state)));
    if let Some(run) = &replica.undo {
        let words = format!("by `mirror rollback`, log {run}");
        text += &line(ui, "way back", words);
    }
    text += &line(
        ui,
        "generation",
        format!("{}, epoch {}", replica.generation, replica.epoch),
    );
    for other in &replica.others {
        let baseline = other.baseline.as_deref().unwrap_or(none);
        let whose = format!("{baseline}, with the configuration's node {}", other.node);
        text += &line(ui, "baseline", whose);
    }
    text += &line(
        ui,
        "data",
        format!(
            "{} ({} bytes)",
            bytes(replica.data_bytes),
            replica.data_bytes
        ),
    );
    if let Some(disk) = &replica.disk {
        let words = called(&External {
            disk_bytes: disk.disk_bytes,
            name: disk.name.clone(),
        });
        text += &line(ui, "metadata of", words);
    }
    let Some(metadata) = &replica.metadata else {
        let why = "the disk is smaller than when the mirror was made";
        return text + &line(ui, "metadata", Cell::toned(Tone::Bad, why));
    };
    let lost = match metadata.bitmap_lost_blocks {
        0 => String::new(),
        lost => format!(", {lost} lost (count as marked)"),
    };
    let bitmap = format!(
        "{} marked; {} blocks at byte {}{lost}",
        bytes(metadata.marked_bytes),
        metadata.bitmap_blocks,
        metadata.bitmap_offset
    );
    let incomplete = if metadata.intent_incomplete {
        ", lost (counts as everything)"
    } else {
        ""
    };
    let (regions, at) = (metadata.intent_regions, metadata.intent_offset);
    text += &line(ui, "bitmap", bitmap);
    text += &line(
        ui,
        "intent log",
        format!("{regions} regions; at byte {at}{incomplete}"),
    );
    text += &line(ui, "may differ", bytes(metadata.differing_bytes));
    text + &places(ui, &metadata.differing, metadata.differing_more)
}
