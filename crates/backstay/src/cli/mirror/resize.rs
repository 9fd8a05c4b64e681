//! `backstay mirror resize`: makes a replica as large as its disk, while nobody runs it. Of a mirror that is served, `grow` does it.

use std::path::PathBuf;

use host::disk::{Disk, OpenOptions};
use host::ring::Buf;
use mirror::grow::{GrowFault, Growth, Step, find, named};
use mirror::inspect::{Contents, Found, PlaceFault, inspect};
use mirror::way_back;
use serde::Serialize;
use wire::layout::BlockFault;
use wire::units::BLOCK_BYTES;
use wire::{ByteCount, ByteRange};

use super::apart::{Beside, called, fits, mismatch};
use super::status::line;
use crate::cli::{Global, connect};
use crate::config::units;
use crate::create;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;
use crate::render::amount;
use crate::saved::pieces;

/// `backstay mirror resize`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Mirror that is served here; or, with a `/` in it, a disk, already enlarged, of a replica that nobody runs
    #[arg(value_name = "MIRROR|DEVICE")]
    device: PathBuf,
    #[command(flatten)]
    beside: Beside,
    /// The disk beside --metadata is not the one that it was made with, but has all of its content: a copy, or the same by another
    /// name
    #[arg(long, requires = "metadata")]
    other_disk: bool,
    /// Size of the volume afterwards, the same on all nodes [default: all that the disk, or all disks, have room for]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(super) size: Option<u64>,
    /// Size of the disk before it was enlarged [default: the metadata is searched for, from the end on]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    from: Option<u64>,
    /// Only say what would happen
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(super) yes: bool,
    /// Of a mirror that is served: why, for the event log
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
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

pub(super) fn run(args: &Args, global: &Global, ui: &Ui) -> Outcome {
    let name = args.device.to_string_lossy();
    let of_disk = args.beside.metadata.is_some() || args.from.is_some();
    if !of_disk && !name.contains('/') {
        return super::grow::run(&name, args, global, ui);
    }
    let options = OpenOptions {
        metadata: args.beside.metadata.clone(),
        ..OpenOptions::default()
    };
    let disk = Disk::open(&args.device, &options).map_err(|error| {
        let hint = error.hint();
        cannot(args).from_error(&error).hint(hint)
    })?;
    let mut contents = look(args, &disk)?;
    let stale = is_apart(args, &disk, &contents)?;
    has_no_way_back(args, &contents)?;
    if stale {
        contents.superblock.external = disk.external();
    }
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
        Err(GrowFault::NotLarger { now })
            if args.size.is_none_or(|size| size == now.0) && !has_moved(&disk, &contents) =>
        {
            if stale && !args.dry_run {
                rename(args, ui, &disk, &contents)?;
                document.resized = true;
            }
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
        let mirror = contents.superblock.mirror;
        let mirror = mirror.map_or_else(|| "none yet".to_owned(), |id| format!("{id:032x}"));
        let found = contents.layout.disk_bytes;
        let question = format!(
            "make the volume on {device} (mirror {mirror}, metadata found before byte {found}) larger, from {old} to {new}?"
        );
        connect::confirm(ui, &question, args.yes)?;
        for step in growth.steps() {
            perform(&disk, &step).map_err(|error| unfinished(args, error))?;
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

fn unfinished(args: &Args, error: std::io::Error) -> Failure {
    cannot(args)
        .cause(error)
        .hint("nothing is lost; the same command goes on where it ended")
}

/// True if the metadata is on a device of its own and names the disk otherwise than it is. Refuses metadata of another disk.
fn is_apart(args: &Args, disk: &Disk, contents: &Contents) -> Result<bool, Failure> {
    let (here, found) = (disk.external(), &contents.superblock);
    let Some(why) = mismatch(here.as_ref(), found) else {
        return match fits(here.as_ref(), contents.layout) {
            true => Ok(false),
            false => Err(cannot(args).cause("its data and metadata lie over each other")),
        };
    };
    let refused = |hint| Err(cannot(args).cause(why).hint(hint));
    let (Some(here), Some(there)) = (&here, &found.external) else {
        return refused("give the disk, and with --metadata the device that has its metadata");
    };
    if here.disk_bytes < found.data_bytes {
        return refused("volumes become larger only; give the disk its size back");
    }
    if !here.may_be(there) && !args.other_disk {
        return refused(
            "if it is the same disk by another name, or has a copy of all of it: --other-disk",
        );
    }
    Ok(true)
}

/// Refuses a mixture whose resync can be undone: the log is of the volume as it is.
fn has_no_way_back(args: &Args, contents: &Contents) -> Result<(), Failure> {
    if way_back::key(&contents.superblock).is_none() {
        return Ok(());
    }
    Err(cannot(args)
        .cause("its resync is unfinished and can be undone, which it could not be afterwards")
        .hint(
            "start the daemon and let the resync end; or undo it by `backstay mirror rollback`; either finds \
             metadata at a disk's end only while the disk has its old size",
        ))
}

/// Writes down which disk the metadata is of.
fn rename(args: &Args, ui: &Ui, disk: &Disk, contents: &Contents) -> Result<(), Failure> {
    let Some(here) = disk.external() else {
        return Ok(());
    };
    let device = args.device.display();
    let question = format!(
        "is {device}, {}, the disk that the metadata is of?",
        called(&here)
    );
    connect::confirm(ui, &question, args.yes)?;
    perform(disk, &named(contents, &here)).map_err(|error| unfinished(args, error))
}

/// The replica, where the disk's end is or was.
fn look(args: &Args, disk: &Disk) -> Result<Box<Contents>, Failure> {
    let read = |range: ByteRange| {
        let mut buf = Buf::new(usize::try_from(range.len()).ok()?);
        disk.read_now(range.offset(), &mut buf).ok()?;
        Some(buf.to_vec())
    };
    let at_end = inspect(disk.size(), read);
    if let Found::Replica(contents) = at_end.replica {
        // Whatever --from says: what is at the end is what a daemon uses.
        return Ok(contents);
    }
    if let Found::Shrunk(superblock) = &at_end.replica
        && let Some(why) = mismatch(disk.external().as_ref(), superblock)
    {
        return Err(cannot(args)
            .cause(why)
            .hint("volumes become larger only; give the disk its size back"));
    }
    let hidden = at_end.places.iter().any(|place| {
        matches!(
            place.content,
            Err(PlaceFault::Unreadable | PlaceFault::Block(BlockFault::Newer(_)))
        )
    });
    if hidden {
        return Err(cannot(args)
            .cause("what is at the disk's end cannot be read, or is of a newer release")
            .hint("`backstay mirror inspect` shows it"));
    }
    let contents = match args.from {
        Some(end) => match inspect(end.min(disk.size()), read).replica {
            Found::Replica(contents) => Some(contents),
            Found::Nothing | Found::Shrunk(_) => None,
        },
        None => find(begins(disk), disk.size(), read).map(|(_, contents)| contents),
    };
    let contents = contents.ok_or_else(|| {
        cannot(args)
            .cause("no whole mirror metadata was found on it")
            .hint("`backstay mirror inspect` shows what is at the disk's end; --from names where it ended before")
    })?;
    is_no_copy(args, &contents, read)?;
    Ok(contents)
}

/// Where metadata may begin: not before its own device.
fn begins(disk: &Disk) -> u64 {
    disk.external().map_or(0, |disk| disk.disk_bytes)
}

/// Refuses metadata below the end of a file system: it is in a file there, a copy of another disk's.
fn is_no_copy(
    args: &Args,
    contents: &Contents,
    read: impl Fn(ByteRange) -> Option<Vec<u8>>,
) -> Result<(), Failure> {
    let head = ByteRange::new(0, BLOCK_BYTES).and_then(read);
    let reaches = head.and_then(|head| create::filesystem(&head));
    match reaches {
        Some((kind, bytes)) if bytes > contents.layout.data_bytes => Err(cannot(args)
            .cause(format!(
                "its {kind} file system has {bytes} bytes, and the mirror's metadata that was found lies inside it"
            ))
            .hint("is this the right disk? --from names where it ended before")),
        Some(_) | None => Ok(()),
    }
}

/// True if the disk is not as large any more as its metadata says.
fn has_moved(disk: &Disk, contents: &Contents) -> bool {
    disk.size() / BLOCK_BYTES * BLOCK_BYTES != contents.layout.disk_bytes
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
            .hint("`backstay mirror inspect` shows what; give the disk its old size back, and start the node once, so that it is written anew"),
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
        let note = if document.resized {
            "the metadata names this disk now; the volume is as large as before"
        } else {
            "nothing to do: it is as large as it can be"
        };
        return text + &line(ui, "note", note);
    }
    text += &line(ui, "before", bytes(document.old_data_bytes));
    text + &line(
        ui,
        "next",
        "the same on the other nodes, then start them; the gain is resynchronised",
    )
}
