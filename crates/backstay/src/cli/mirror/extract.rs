//! `backstay mirror extract`: reads what was saved from a disk, by an export or before a failover's losses were replaced.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use host::disk::DiskView;
use mirror::inspect::Found;
use serde::Serialize;
use wire::{ByteCount, ByteRange};

use super::byte_range;
use super::inspect::look;
use super::status::{line, places};
use crate::cli::connect;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;
use crate::render::amount;
use crate::saved::Saved;

/// `backstay mirror extract`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What was saved: FILE.data and FILE.json
    file: PathBuf,
    /// Only this part of the volume; may be given several times
    #[arg(long, value_name = "OFFSET:LENGTH", value_parser = byte_range)]
    range: Vec<ByteRange>,
    /// Make an image of the volume with the saved blocks in their places and holes elsewhere; `-`: the bytes of the one --range
    #[arg(long, value_name = "IMAGE", conflicts_with = "onto")]
    to: Option<PathBuf>,
    /// Write the saved blocks over their places in this file or device, which nobody may use meanwhile
    #[arg(long, value_name = "PATH")]
    onto: Option<PathBuf>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// What was saved, and what became of it.
#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    mirror: String,
    epoch: u64,
    generation: Option<u64>,
    baselines: Vec<String>,
    volume_bytes: u64,
    bytes: u64,
    ranges: Vec<(u64, u64)>,
    /// Where they were written to; none if they were only looked at.
    written: Option<String>,
}

pub(super) fn run(args: &Args, ui: &Ui) -> Outcome {
    let saved = Saved::open(&args.file)?;
    if let Some(range) = args.range.iter().find(|range| !saved.has(**range)) {
        let place = amount::range(*range);
        return Err(Failure::new(format!("not all of {place} was saved"))
            .hint("without --range the command lists what was")
            .exit(Exit::Usage));
    }
    match (&args.to, &args.onto) {
        (Some(to), _) if to == Path::new("-") => return print(args, &saved),
        (Some(to), _) => make_image(args, &saved, to)?,
        (None, Some(onto)) => overwrite(args, &saved, onto, ui)?,
        (None, None) => {}
    }
    let document = document(args, &saved);
    ui.document(&document, |ui| table(ui, &document))?;
    Ok(Exit::Ready)
}

/// What is asked for.
fn wanted(args: &Args, saved: &Saved) -> Vec<ByteRange> {
    if args.range.is_empty() {
        saved.ranges().collect()
    } else {
        args.range.clone()
    }
}

/// The plain bytes, on standard output.
fn print(args: &Args, saved: &Saved) -> Outcome {
    let [range] = args.range[..] else {
        return Err(Failure::new("plain bytes are of one --range")
            .hint("give one, or a file instead of `-`")
            .exit(Exit::Usage));
    };
    let mut out = io::stdout().lock();
    let done = saved.each(range, |_, bytes| out.write_all(bytes));
    done.map_err(|error| Failure::new("cannot write to standard output").cause(error))?;
    Ok(Exit::Ready)
}

fn make_image(args: &Args, saved: &Saved, to: &Path) -> Result<(), Failure> {
    let written = File::create_new(to).and_then(|file| {
        let written = file
            .set_len(saved.volume_bytes())
            .and_then(|()| put(args, saved, &file));
        // An unfinished one is of no use, and would be in the way of the next try.
        written.inspect_err(|_| drop(fs::remove_file(to)))
    });
    written.map_err(|error| {
        Failure::new(format!("cannot make {}", to.display()))
            .cause(error)
            .hint("give a file that does not exist, on a file system with room")
    })
}

fn overwrite(args: &Args, saved: &Saved, onto: &Path, ui: &Ui) -> Result<(), Failure> {
    let cannot = |error: io::Error| {
        Failure::new(format!("cannot write onto {}", onto.display())).cause(error)
    };
    // Held until the end: nobody else may use it meanwhile.
    let held = DiskView::open_alone(onto).map_err(|error| {
        let hint = error.hint();
        Failure::new(format!("cannot write onto {}", onto.display()))
            .from_error(&error)
            .hint(hint)
    })?;
    if let Found::Replica(_) | Found::Shrunk(_) = look(&held).replica {
        return Err(cannot(io::Error::other(
            "it is a mirror's disk: what is written there is in no bitmap, and the replicas would differ unnoticed",
        ))
        .hint("write through the mirror of the running group: its device, or its NBD socket with --to and nbdcopy"));
    }
    let file = File::options().write(true).open(onto).map_err(cannot)?;
    let size = held.size();
    let needed = wanted(args, saved)
        .iter()
        .map(|r| r.end())
        .max()
        .unwrap_or(0);
    if size < needed {
        return Err(cannot(io::Error::other(format!(
            "it has {size} bytes, and the saved blocks reach to {needed}"
        ))));
    }
    let bytes: u64 = wanted(args, saved).iter().map(|r| r.len()).sum();
    let bytes = amount::bytes(ByteCount(bytes));
    let question = format!(
        "overwrite {bytes} of {} with what was saved?",
        onto.display()
    );
    connect::confirm(ui, &question, args.yes)?;
    put(args, saved, &file).map_err(cannot)
}

fn put(args: &Args, saved: &Saved, file: &File) -> io::Result<()> {
    for range in wanted(args, saved) {
        saved.each(range, |at, bytes| file.write_all_at(bytes, at))?;
    }
    file.sync_all()
}

fn document(args: &Args, saved: &Saved) -> Document {
    let ranges = wanted(args, saved);
    let from = saved.index.from.as_ref();
    let written = args.to.as_ref().or(args.onto.as_ref());
    Document {
        schema: "backstay.mirror-extract/1",
        mirror: saved.index.mirror.clone(),
        epoch: saved.index.epoch,
        generation: from.map(|from| from.generation),
        baselines: from.map_or_else(Vec::new, |from| from.baselines.clone()),
        volume_bytes: saved.volume_bytes(),
        bytes: ranges.iter().map(|range| range.len()).sum(),
        ranges: ranges.iter().map(|r| (r.offset(), r.len())).collect(),
        written: written.map(|path| path.display().to_string()),
    }
}

fn table(ui: &Ui, document: &Document) -> String {
    let bytes = amount::bytes(ByteCount(document.bytes));
    let mut text = line(ui, "mirror", document.mirror.as_str());
    text += &line(ui, "epoch", document.epoch.to_string());
    text += &line(
        ui,
        "holds",
        format!("{bytes} of {} places, whole", document.ranges.len()),
    );
    if let Some(written) = &document.written {
        text += &line(ui, "written to", written.as_str());
    }
    text + &places(ui, &document.ranges, false)
}
