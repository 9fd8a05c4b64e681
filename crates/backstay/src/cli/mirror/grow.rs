//! `backstay mirror resize MIRROR`: makes a volume larger on every replica while it is served.

use std::time::{Duration, Instant};

use serde::Serialize;
use wire::ByteCount;
use wire::units::BLOCK_BYTES;

use super::resize::Args;
use super::status::line;
use super::{Global, find};
use crate::api::body::{GroupMirror, GroupRequestBody, Taken};
use crate::api::client::Client;
use crate::api::view::GrowthView;
use crate::cli::connect;
use crate::cli::group::check_reason;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;
use crate::render::amount;

/// How long it is waited for. What is gained is made zero, which a disk that cannot do that by itself takes a while for.
const WAIT_MAX: Duration = Duration::from_hours(24);
/// This node's daemon may be unreachable for so long.
const SILENT_MAX: Duration = Duration::from_secs(30);
/// It may know nothing of a growth that it was asked for, for so long.
const UNKNOWN_MAX: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: &'static str,
    mirror: &'a str,
    old_data_bytes: u64,
    data_bytes: u64,
}

pub(super) fn run(name: &str, args: &Args, global: &Global, ui: &Ui) -> Outcome {
    check(args)?;
    let client = connect::client(global)?;
    let before = find(&client, name)?;
    let status = connect::known_status(&client, ui)?;
    let group = connect::find_group(&status, &before.group)?;
    if group.active.is_none() || group.active != status.node {
        let active = group.active.as_deref().unwrap_or("the active node");
        return Err(cannot(name)
            .cause("only the active node knows how far it is")
            .hint(format!("run it on {active}")));
    }
    if before.mirror.growth.as_ref().is_some_and(|it| it.running) {
        return Err(cannot(name)
            .cause("it is growing already")
            .hint("`backstay events` tells when that is over"));
    }
    let old = size_of(&before);
    let to = args.size.map_or_else(
        || "all that the disks of all replicas have room for".to_owned(),
        |size| amount::bytes(ByteCount(size)),
    );
    let now = amount::bytes(ByteCount(old));
    let question = format!("make the volume of mirror {name} larger, from {now} to {to}?");
    connect::confirm(ui, &question, args.yes)?;
    let body = GroupRequestBody {
        mirror: Some(name.to_owned()),
        size: args.size,
        reason: args.reason.clone(),
        ..GroupRequestBody::default()
    };
    let path = format!("/api/v1/groups/{}/grow", connect::segment(&before.group)?);
    let taken = client.post::<Taken>(&path, &body);
    taken.map_err(|error| error.failure(&format!("resize mirror {name}")))?;
    let started = before.mirror.growth.as_ref().map_or(0, |it| it.number);
    let growth = await_end(&client, name, started)?;
    if let Some(why) = &growth.refused {
        return Err(refused(name, why, &growth));
    }
    if args.size.is_some_and(|size| size != growth.to_bytes) {
        return Err(cannot(name)
            .cause(format!(
                "another request was carried out instead: its volume has {} bytes now",
                growth.to_bytes
            ))
            .hint("the same command again, if that is less than it is to have"));
    }
    let document = Document {
        schema: "backstay.mirror-grow/1",
        mirror: name,
        old_data_bytes: old,
        data_bytes: growth.to_bytes,
    };
    ui.document(&document, |ui| table(ui, &document))?;
    Ok(Exit::Ready)
}

/// What can be told without asking the daemon.
fn check(args: &Args) -> Result<(), Failure> {
    check_reason(args.reason.as_deref())?;
    if args.dry_run {
        return Err(Failure::new("a mirror that is served has no dry run")
            .cause("whether every disk has room is found out when it is asked to grow; it is refused with nothing changed if one has none")
            .hint("leave --dry-run out, or name a DEVICE that nobody runs")
            .exit(Exit::Usage));
    }
    if args
        .size
        .is_some_and(|size| size == 0 || !size.is_multiple_of(BLOCK_BYTES))
    {
        return Err(Failure::new("--size is refused")
            .cause(format!("a volume is a multiple of {BLOCK_BYTES} bytes"))
            .hint("give such a size, or none for all that the disks have room for")
            .exit(Exit::Usage));
    }
    Ok(())
}

/// Waits for the growth after number `started`: how it ended, or why nobody knows.
fn await_end(client: &Client, name: &str, started: u64) -> Result<GrowthView, Failure> {
    let (mut reached, mut known) = (Instant::now(), Instant::now());
    let ended = connect::wait_for(WAIT_MAX, || {
        match find(client, name) {
            Err(_) if reached.elapsed() > SILENT_MAX => Some(Err(gone(name, "cannot be reached"))),
            Err(_) => {
                // What it knows is asked for as soon as it is back.
                known = Instant::now();
                None
            }
            Ok(found) => {
                reached = Instant::now();
                match found.mirror.growth.filter(|it| it.number > started) {
                    Some(growth) => {
                        known = reached;
                        (!growth.running).then_some(Ok(growth))
                    }
                    // A daemon that was restarted does not know of it.
                    None if known.elapsed() > UNKNOWN_MAX => {
                        Some(Err(gone(name, "does not know of it (any more)")))
                    }
                    None => None,
                }
            }
        }
    });
    ended.unwrap_or_else(|| Err(late(name)))
}

fn gone(name: &str, why: &str) -> Failure {
    Failure::new(format!("nobody knows whether mirror {name} has grown"))
        .cause(format!("this node's daemon {why}"))
        .hint("`backstay events` tells what came of it; the same command on the active node does what is left")
        .exit(Exit::Unknown)
}

fn size_of(mirror: &GroupMirror) -> u64 {
    let replica = mirror.mirror.replica.as_ref();
    replica.map_or(0, |replica| replica.data_bytes)
}

fn cannot(name: &str) -> Failure {
    Failure::new(format!("cannot resize mirror {name}"))
}

fn late(name: &str) -> Failure {
    Failure::new(format!("mirror {name} is still growing"))
        .cause("the wait is over; it goes on by itself")
        .hint("see `backstay events`")
        .exit(Exit::Unknown)
}

/// Why the volume stays as it is, and what to do.
fn refused(name: &str, why: &str, growth: &GrowthView) -> Failure {
    let node = growth.node.as_deref().unwrap_or("a node");
    let failure = cannot(name);
    match why {
        "not-larger" => failure
            .cause(format!("its volume has {} bytes already", growth.from_bytes))
            .hint("volumes become larger only; leave --size out to take all that the disks have")
            .exit(Exit::Usage),
        "away" => failure
            .cause(format!("the replica of {node} is away, or does not hold everything yet"))
            .hint("it would come back too small: wait until `backstay mirror status` shows it in sync"),
        "older" => failure
            .cause(format!("the release of Backstay on {node} cannot do it"))
            .hint(format!("update {node} first")),
        "cramped" => failure
            .cause(format!(
                "the metadata device of {node} has room for the bitmaps of a volume of {} bytes",
                growth.most_bytes.unwrap_or(0)
            ))
            .hint(format!(
                "give {node} a larger metadata device: about 131 MiB per TiB of volume"
            )),
        "no-room" => failure
            .cause(format!(
                "the disk of {node} has room for a volume of {} bytes",
                growth.most_bytes.unwrap_or(0)
            ))
            .hint(format!("enlarge the disk of {node} first")),
        "stranded" => failure
            .cause(format!(
                "the disk of {node} was enlarged, and the mirror's metadata still lies where its end was"
            ))
            .hint(format!(
                "on {node}, as a standby: stop its daemon, `backstay mirror resize DEVICE --size {}`, start it and wait until it is in sync; for the active, move the group first",
                growth.from_bytes
            )),
        "lost" => failure
            .cause(format!("the connection to {node} was lost on the way"))
            .hint("nothing has changed; the same command again once it is in sync"),
        "unusable" => failure
            .cause(format!("the disk of {node} failed to write zeros behind the volume"))
            .hint(format!(
                "nothing has changed; see the kernel's log on {node}, and whether a thin pool is full"
            )),
        "ended" => failure
            .cause("this node stopped serving on the way")
            .hint("the same command again on the node that is active now"),
        _ => failure
            .cause("the mirror is not served at the moment, or an earlier growth is not over everywhere")
            .hint("the same command again in a moment"),
    }
}

fn table(ui: &Ui, document: &Document<'_>) -> String {
    let bytes = |count| format!("{} ({count} bytes)", amount::bytes(ByteCount(count)));
    let mut text = line(ui, "mirror", document.mirror.to_owned());
    text += &line(ui, "volume now", bytes(document.data_bytes));
    text += &line(ui, "before", bytes(document.old_data_bytes));
    text + &line(
        ui,
        "next",
        "once the device shows it, make the file system larger, such as with resize2fs or xfs_growfs",
    )
}
