//! `backstay mirror export`: saves the blocks of a disk that is not served, before something replaces them.

use std::path::PathBuf;

use host::disk::DiskView;
use mirror::inspect::{Contents, Found};
use serde::Serialize;
use wire::layout::ReplicaState;
use wire::units::BLOCK_BYTES;
use wire::{ByteCount, ByteRange};

use super::apart::{Beside, fits, mismatch};
use super::inspect::look;
use super::status::{line, places};
use super::{byte_range, within};
use crate::api::mirror::session_words;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;
use crate::render::amount;
use crate::saved::{Files, Origin, Source};

/// Most places that are saved one by one; of more, `--range` names some.
const PLACES_MAX: usize = 4 << 20;

/// `backstay mirror export`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Disk that nobody serves, or a file with a disk's content
    device: PathBuf,
    #[command(flatten)]
    beside: Beside,
    /// Where to: FILE.data and FILE.json are made; neither may exist
    file: PathBuf,
    /// Save this part of the volume instead of what may differ; may be given several times
    #[arg(long, value_name = "OFFSET:LENGTH", value_parser = byte_range)]
    range: Vec<ByteRange>,
    /// Only say what would be saved
    #[arg(long)]
    dry_run: bool,
}

/// What was saved.
#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    device: String,
    data: String,
    index: String,
    /// False for a dry run.
    saved: bool,
    bytes: u64,
    ranges: Vec<(u64, u64)>,
}

pub(super) fn run(args: &Args, ui: &Ui) -> Outcome {
    let cannot = || Failure::new(format!("cannot export from {}", args.device.display()));
    let disk = args.beside.view_alone(&args.device).map_err(|error| {
        let hint = error.hint();
        cannot().from_error(&error).hint(hint)
    })?;
    let Found::Replica(contents) = look(&disk).replica else {
        return Err(cannot()
            .cause("it holds no mirror's metadata that could be used")
            .hint("`backstay mirror inspect` shows what there is"));
    };
    let here = disk.external();
    let apart = mismatch(here.as_ref(), &contents.superblock);
    let crosses = || "data and metadata lie over each other".to_owned();
    let wrong = apart.or_else(|| (!fits(here.as_ref(), contents.layout)).then(crosses));
    if let Some(why) = wrong {
        return Err(cannot()
            .cause(why)
            .hint("give the disk, and with --metadata the device that has its metadata"));
    }
    if contents.superblock.state == ReplicaState::Inconsistent {
        ui.talk("note: a resync into this disk was not finished: what is saved is a mixture");
    }
    let ranges = wanted(args, &contents).map_err(|why| cannot().cause(why).exit(Exit::Usage))?;
    let files = Files::of(&args.file);
    if !args.dry_run {
        save(&files, &disk, &contents, &ranges).map_err(|error| {
            Failure::new(format!("cannot save to {}", files.data.display()))
                .cause(error)
                .hint("give a FILE that does not exist, on a file system with room; --range leaves out what cannot be read")
        })?;
    }
    let document = Document {
        schema: "backstay.mirror-export/1",
        device: args.device.display().to_string(),
        data: files.data.display().to_string(),
        index: files.index.display().to_string(),
        saved: !args.dry_run,
        bytes: ranges.iter().map(|range| range.len()).sum(),
        ranges: ranges.iter().map(|r| (r.offset(), r.len())).collect(),
    };
    ui.document(&document, |ui| table(ui, &document))?;
    Ok(Exit::Ready)
}

/// What is to be saved, in rising order, in whole blocks.
fn wanted(args: &Args, contents: &Contents) -> Result<Vec<ByteRange>, String> {
    if args.range.is_empty() {
        let differing = contents.differing(PLACES_MAX);
        return if differing.more {
            Err(format!(
                "it differs in more than {PLACES_MAX} places: name some with --range"
            ))
        } else {
            Ok(differing.ranges)
        };
    }
    let mut blocks = Vec::new();
    for range in &args.range {
        within(*range, contents.superblock.data_bytes)?;
        blocks.push(range.cells(BLOCK_BYTES));
    }
    blocks.sort_by_key(|run| run.start);
    let mut ranges: Vec<ByteRange> = Vec::new();
    for run in blocks {
        let start = ranges
            .last()
            .map_or(0, |last| last.end())
            .max(run.start * BLOCK_BYTES);
        let len = (run.end * BLOCK_BYTES).saturating_sub(start);
        ranges.extend(ByteRange::new(start, len).filter(|range| !range.is_empty()));
    }
    Ok(ranges)
}

fn save(
    files: &Files,
    disk: &DiskView,
    contents: &Contents,
    ranges: &[ByteRange],
) -> std::io::Result<()> {
    let own = &contents.superblock;
    let mirror = own
        .mirror
        .map_or_else(|| "none".to_owned(), |id| format!("{id:032x}"));
    let baselines = own.pairs.iter().filter_map(|pair| pair.baseline);
    let source = Source {
        mirror: &mirror,
        epoch: own.epoch.0,
        ranges,
        from: Some(Origin {
            replica: format!("{:032x}", own.replica),
            generation: own.generation.0,
            baselines: baselines.map(session_words).collect(),
            data_bytes: own.data_bytes,
        }),
    };
    files.save(&source, |at, buf| disk.read_now(at, buf))
}

fn table(ui: &Ui, document: &Document) -> String {
    let bytes = amount::bytes(ByteCount(document.bytes));
    let count = document.ranges.len();
    let label = if document.saved {
        "saved"
    } else {
        "would save"
    };
    let mut text = line(ui, label, format!("{bytes} of {count} places"));
    text += &line(ui, "data", document.data.as_str());
    text += &line(ui, "index", document.index.as_str());
    text + &places(ui, &document.ranges, false)
}
