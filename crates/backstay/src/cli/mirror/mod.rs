//! `backstay mirror`.

mod apart;
mod demote;
mod export;
mod extract;
mod grow;
mod inspect;
mod promote;
mod resize;
mod resync;
mod rollback;
mod snapshot;
mod status;

use wire::ByteRange;

use super::{Global, verify};
use crate::api::body::{GroupMirror, Mirrors};
use crate::api::client::Client;
use crate::config::units;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;

/// Commands about mirrors.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Make a disk a replica: on the first node its content is kept
    Create(crate::create::Args),
    /// Show how the replicas stand; of one mirror, also where they differ
    Status(status::Args),
    /// Compare the replicas of a mirror, block by block, while it is in use
    Verify(verify::Args),
    /// Make standbys equal to the active now
    Resync(resync::Args),
    /// Have a node serve that is not in sync, because the active is gone: what it lacks is lost
    Promote(promote::Args),
    /// Let go what a replica holds back, so that it follows
    Demote(demote::Args),
    /// Show what a disk's mirror metadata says, without a daemon and without changing anything
    Inspect(inspect::Args),
    /// Save the blocks of a disk that nobody serves: those that may differ from the other replica's, or others
    Export(export::Args),
    /// Check and read what was saved from a disk
    Extract(extract::Args),
    /// Make a mirror's volume larger while it is served, or a replica that nobody runs as large as its disk has become
    Resize(resize::Args),
    /// Undo an unfinished resync of a replica that nobody runs, by its undo log
    Rollback(rollback::Args),
    /// Run a command while the mirror's file system stands still: to take a snapshot of its disk
    Snapshot(snapshot::Args),
}

pub(super) fn run(command: &Command, global: &Global, ui: &Ui) -> Outcome {
    match command {
        Command::Create(args) => crate::create::run(args, ui),
        Command::Status(args) => status::run(args, global, ui),
        Command::Verify(args) => verify::run(args, global, ui),
        Command::Resync(args) => resync::run(args, global, ui),
        Command::Promote(args) => promote::run(args, global, ui),
        Command::Demote(args) => demote::run(args, global, ui),
        Command::Inspect(args) => inspect::run(args, ui),
        Command::Export(args) => export::run(args, ui),
        Command::Extract(args) => extract::run(args, ui),
        Command::Resize(args) => resize::run(args, global, ui),
        Command::Rollback(args) => rollback::run(args, ui),
        Command::Snapshot(args) => snapshot::run(args, global, ui),
    }
}

fn read(client: &Client) -> Result<Mirrors, Failure> {
    client.get("/api/v1/mirrors").map_err(|error| {
        error
            .failure("read the state of the mirrors")
            .exit(Exit::Unknown)
    })
}

/// The mirror of this name.
pub(super) fn find(client: &Client, name: &str) -> Result<GroupMirror, Failure> {
    pick(read(client)?.mirrors, name)
}

fn pick(mirrors: Vec<GroupMirror>, name: &str) -> Result<GroupMirror, Failure> {
    let names: Vec<String> = mirrors.iter().map(|one| one.mirror.name.clone()).collect();
    let found = mirrors.into_iter().find(|one| one.mirror.name == name);
    found.ok_or_else(|| {
        Failure::new(format!("there is no mirror {name}"))
            .cause(format!("the mirrors are {}", names.join(", ")))
            .exit(Exit::Usage)
    })
}

/// A part of a volume on the command line: `OFFSET:LENGTH`, in bytes or with units.
fn byte_range(text: &str) -> Result<ByteRange, String> {
    let (offset, len) = text.split_once(':').ok_or("it must be OFFSET:LENGTH")?;
    let amount = |text: &str| match text.parse() {
        Ok(bytes) => Ok(bytes),
        Err(_) => units::bytes(text).map(|count| count.0),
    };
    let words = |fault: units::AmountFault| fault.words().to_owned();
    let range = ByteRange::new(amount(offset).map_err(words)?, amount(len).map_err(words)?);
    range
        .filter(|range| !range.is_empty())
        .ok_or_else(|| "it is empty, or too large".to_owned())
}

/// A part of a volume is a part of this volume.
fn within(range: ByteRange, data_bytes: u64) -> Result<(), String> {
    if range.end() <= data_bytes {
        return Ok(());
    }
    let end = range.end();
    Err(format!(
        "the volume has {data_bytes} bytes, and the range ends at {end}"
    ))
}
