//! `backstay mirror resize`: makes a replica as large as its disk, while nobody runs it.

use std::path::PathBuf;

use host::disk::{Disk, OpenOptions};
use host::ring::Buf;
use mirror::grow::{GrowFault, Growth, Step, find};
use mirror::inspect::{Contents, Found, inspect};
use serde::Serialize;
use wire::{ByteCount, ByteRange};

use super::status::line;
use crate::cli::connect;
use crate::config::units;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;
use crate::render::amount;
use crate::saved::pieces;

/// `backstay mirror resize`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Disk, already enlarged, of a replica that nobody runs
    device: PathBuf,
    /// Size of the volume afterwards, the same on all nodes [default: all that the disk has room for]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    size: Option<u64>,
    /// Size of the disk before it was enlarged [default: the metadata is searched for, from the end on]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    from: Option<u64>,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    device: String,
    replica: String,
    disk_bytes: u64,
    old_disk_bytes: u64,
    old_data_bytes: u64,
    data_bytes: u64,
    /// False for a dry run, and when there was nothing to do.
    resized: bool,
}

fn size(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(bytes) => Ok(bytes),
        Err(_) => units::bytes(text)
            .map(|count| count.0)
            .map_err(|fault| fault.words().to_owned()),
    }
}

pub(super) fn run(args: &Args, ui: &Ui) -> Outcome {
    let disk = Disk::open(&args.device, &OpenOptions::default()).map_err(|error| {
        let hint = error.hint();
        cannot(args).from_error(&error).hint(hint)
    })?;
    let contents = look(args, &disk)?;
    let mut document = Document {
        schema: "backstay.mirror-resize/1",
        device: args.device.display().to_string(),
        replica: format!("{:032x}", contents.superblock.replica),
        disk_bytes: disk.size(),
        old_disk_bytes: contents.layout.disk_bytes,
        old_data_bytes: contents.layout.data_bytes,
        data_bytes: contents.layout.data_bytes,
        resized: false,
    };
    let growth = match Growth::plan(&contents, disk.size(), args.size) {
        Ok(growth) => growth,
        // Asked again after it was done.
        Err(GrowFault::NotLarger { now }) if args.size.is_none_or(|size| size == now.0) => {
            ui.document(&document, |ui| table(ui, &document))?;
            return Ok(Exit::Ready);
        }
        Err(fault) => return Err(told(args, fault)),
    };
    document.data_bytes = growth.layout.data_bytes;
    if !args.dry_run {
        let (old, new) = (document.old_data_bytes, document.data_bytes);
        let (old, new) = (amount::bytes(ByteCount(old)), amount::bytes(ByteCount(new)));
        let device = args.device.display();
        let question = format!("make the volume on {device} larger, from {old} to {new}?");
        connect::confirm(ui, &question, args.yes)?;
        for step in growth.steps() {
            perform(&disk, &step).map_err(|error| {
                cannot(args)
                    .cause(error)
                    .hint("nothing is lost; the same command goes on where it ended")
            })?;
        }
        document.resized = true;
    }
    ui.document(&document, |ui| table(ui, &document))?;
    Ok(Exit::Ready)
}

fn cannot(args: &Args) -> Failure {
    Failure::new(format!(
        "cannot resize the replica on {}",
        args.device.display()
    ))
}

/// The replica, where the disk's end is or was.
fn look(args: &Args, disk: &Disk) -> Result<Box<Contents>, Failure> {
    let read = |range: ByteRange| {
        let mut buf = Buf::new(usize::try_from(range.len()).ok()?);
        disk.read_now(range.offset(), &mut buf).ok()?;
        Some(buf.to_vec())
    };
    let at_end = inspect(
        args.from.unwrap_or_else(|| disk.size()).min(disk.size()),
        read,
    );
    if let Found::Replica(contents) = at_end.replica {
        return Ok(contents);
    }
    let found = args
        .from
        .is_none()
        .then(|| find(disk.size(), read))
        .flatten();
    found.map(|(_, contents)| contents).ok_or_else(|| {
        cannot(args)
            .cause("no whole mirror metadata was found on it")
            .hint("`backstay mirror inspect` shows what is at the disk's end; --from names where it ended before")
    })
}

fn told(args: &Args, fault: GrowFault) -> Failure {
    match fault {
        GrowFault::NotLarger { now } => cannot(args)
            .cause(format!("its volume has {} bytes already", now.0))
            .hint("volumes become larger only; leave --size out to take all of the disk")
            .exit(Exit::Usage),
        GrowFault::DoesNotFit { most } => cannot(args)
            .cause(format!("the disk has room for a volume of {} bytes", most.0))
            .hint("give a multiple of 4096 up to that, or enlarge the disk")
            .exit(Exit::Usage),
        GrowFault::Overlap { needed } => cannot(args)
            .cause("the disk grew by less than the metadata needs at its new place")
            .hint(format!("enlarge the disk to {} bytes or more", needed.0)),
        GrowFault::Damaged => cannot(args)
            .cause("something of its metadata is lost, and moving it would hide that")
            .hint("`backstay mirror inspect` shows what; start the node once, so that it is written anew"),
    }
}

/// Does one step, durably.
fn perform(disk: &Disk, step: &Step) -> std::io::Result<()> {
    match step {
        Step::Write { offset, bytes } => disk.write_now(*offset, &Buf::copy_of(bytes).freeze()),
        Step::Zero(range) => {
            for piece in pieces(*range) {
                let len = usize::try_from(piece.len()).map_err(std::io::Error::other)?;
                disk.write_now(piece.offset(), &Buf::zeroed(len).freeze())?;
            }
            Ok(())
        }
    }
}

fn table(ui: &Ui, document: &Document) -> String {
    let bytes = |count| format!("{} ({count} bytes)", amount::bytes(ByteCount(count)));
    let label = if document.resized {
        "volume now"
    } else {
        "volume"
    };
    let mut text = line(ui, "disk", bytes(document.disk_bytes));
    text += &line(ui, label, bytes(document.data_bytes));
    if document.data_bytes == document.old_data_bytes {
        return text + &line(ui, "note", "nothing to do: it is as large as it can be");
    }
    text += &line(ui, "before", bytes(document.old_data_bytes));
    text + &line(
        ui,
        "next",
        "the same on the other nodes, then start them; the gain is resynchronised",
    )
}
