//! `backstay mirror`.

use wire::ByteCount;

use super::Global;
use super::connect;
use crate::api::body::{GroupMirror, Mirrors};
use crate::api::client::Client;
use crate::api::view::MirrorCondition;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{Tone, Ui};
use crate::render::amount;
use crate::render::layout::{Block, Cell};
use crate::render::status::mirror_words;

/// Commands about mirrors.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Make a disk a replica: on the first node its content is kept
    Create(crate::create::Args),
    /// Show how the replicas of every mirror stand
    Status,
    /// Compare the replicas of a mirror, block by block, while it is in use
    Verify(super::verify::Args),
}

pub(super) fn run(command: &Command, global: &Global, ui: &Ui) -> Outcome {
    match command {
        Command::Create(args) => crate::create::run(args, ui),
        Command::Status => status(global, ui),
        Command::Verify(args) => super::verify::run(args, global, ui),
    }
}

fn status(global: &Global, ui: &Ui) -> Outcome {
    let client = connect::client(global)?;
    let mirrors = read(&client)?;
    ui.document(&mirrors, |ui| table(ui, &mirrors.mirrors))?;
    let whole = |one: &GroupMirror| one.mirror.state == MirrorCondition::InSync;
    Ok(if mirrors.mirrors.iter().all(whole) {
        Exit::Ready
    } else {
        Exit::Degraded
    })
}

fn read(client: &Client) -> Result<Mirrors, Failure> {
    client.get("/api/v1/mirrors").map_err(|error| {
        error
            .failure("read the state of the mirrors")
            .exit(Exit::Unknown)
    })
}

/// Every mirror of every group.
pub(super) fn mirrors(client: &Client) -> Result<Vec<GroupMirror>, Failure> {
    Ok(read(client)?.mirrors)
}

fn table(ui: &Ui, mirrors: &[GroupMirror]) -> String {
    let mut block = Block::new("");
    let heads = ["MIRROR", "GROUP", "STATE", "DIFFERS", "LAG", "IN SYNC"];
    block.row(heads.map(|head| Cell::toned(Tone::Dim, head)));
    for one in mirrors {
        let mirror = &one.mirror;
        let tone = match mirror.state {
            MirrorCondition::InSync => Tone::Good,
            MirrorCondition::Resyncing | MirrorCondition::Reconciling | MirrorCondition::Alone => {
                Tone::Warn
            }
            MirrorCondition::Disconnected | MirrorCondition::Failed => Tone::Bad,
            MirrorCondition::Detached => Tone::Dim,
        };
        let lag = amount::bytes(ByteCount(mirror.lag_bytes));
        block.row([
            Cell::toned(Tone::Strong, &mirror.name),
            one.group.as_str().into(),
            Cell::toned(tone, mirror_words(mirror.state)),
            amount::bytes(ByteCount(mirror.out_of_sync_bytes)).into(),
            format!("{lag}, {:.1} s", mirror.lag_seconds).into(),
            one.in_sync.join(", ").into(),
        ]);
    }
    block.draw(ui, 0)
}
