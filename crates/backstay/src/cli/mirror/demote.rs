//! `backstay mirror demote`: a person lets go what a replica holds back, so that it follows.

use serde::Serialize;
use wire::ByteCount;

use super::status::{line, places};
use super::{Global, find};
use crate::api::body::{GroupMirror, GroupRequestBody, Taken};
use crate::api::client::Client;
use crate::api::view::{HeldView, Status};
use crate::cli::connect::{self, Typed};
use crate::cli::group::check_reason;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;
use crate::render::amount;

/// `backstay mirror demote`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Mirror
    mirror: String,
    /// Node whose replica is to follow; another one's only with --dry-run [default: this node]
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Why, for the event log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only show what would be let go
    #[arg(long)]
    dry_run: bool,
    /// Do not ask; needs --confirm
    #[arg(short, long)]
    yes: bool,
    /// The mirror's name once more, in place of typing it
    #[arg(long, value_name = "MIRROR")]
    confirm: Option<String>,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    mirror: String,
    node: String,
    /// What is let go, at most.
    bytes: u64,
    /// Where, as (offset, length) in bytes; empty if only the node itself knows.
    ranges: Vec<(u64, u64)>,
    /// There are more places.
    more: bool,
    /// False for a dry run.
    taken: bool,
}

pub(super) fn run(args: &Args, global: &Global, ui: &Ui) -> Outcome {
    check_reason(args.reason.as_deref())?;
    let client = connect::client(global)?;
    let one = find(&client, &args.mirror)?;
    let status = connect::known_status(&client, ui)?;
    let node = node(args, &status)?;
    let held = one.mirror.held_back.iter().find(|held| held.node == node);
    let held = held.ok_or_else(|| nothing_held(args, &one, &node))?;
    show(ui, &one, held);
    if !args.dry_run {
        connect::check_asked_there(&status, &node)?;
        let question = format!(
            "type the mirror's name, {}, to let these writes go for good",
            args.mirror
        );
        let typed = Typed {
            question: &question,
            expected: &args.mirror,
            given: args.confirm.as_deref(),
            yes: args.yes,
        };
        connect::confirm_typed(ui, &typed)?;
        let epoch = connect::shown_epoch(&status, &one.group);
        ask(args, &client, &one.group, (held, epoch))?;
        ui.talk(format_args!(
            "taken: {node} follows; `backstay mirror status` shows how far it is"
        ));
    }
    document(args, ui, held)?;
    Ok(Exit::Ready)
}

/// Whose replica; this node's unless told otherwise.
fn node(args: &Args, status: &Status) -> Result<String, Failure> {
    let Some(name) = &args.node else {
        return Ok(status.node.clone().unwrap_or_default());
    };
    connect::check_data_node(status, name)?;
    Ok(name.clone())
}

fn nothing_held(args: &Args, one: &GroupMirror, node: &str) -> Failure {
    let held = &one.mirror.held_back;
    let others: Vec<&str> = held.iter().map(|held| held.node.as_str()).collect();
    let failure = Failure::new(format!(
        "cannot let go writes of mirror {} on {node}",
        args.mirror
    ))
    .cause(format!(
        "{node} holds nothing back, as far as this node knows"
    ));
    if others.is_empty() {
        failure.hint(
            "a replica that waits for a person shows as BS-403 in `backstay status` on its node",
        )
    } else {
        failure.hint(format!("{} does: --node", others.join(", ")))
    }
}

/// Says what would be lost, and how to save it.
fn show(ui: &Ui, one: &GroupMirror, held: &HeldView) {
    let (mirror, node) = (&one.mirror.name, &held.node);
    let bytes = amount::bytes(ByteCount(held.bytes));
    ui.talk(format_args!(
        "{node} holds at most {bytes} of acknowledged writes of mirror {mirror} that a failover cut off. They will be replaced:"
    ));
    if held.ranges.is_empty() {
        ui.talk(line(ui, "where", format!("shown by this command on {node} only")).trim_end());
    } else {
        ui.talk(places(ui, &held.ranges, held.more).trim_end());
    }
    ui.talk(format_args!(
        "to save them first: stop the daemon on {node}, `backstay mirror export DEVICE FILE` there, start it again"
    ));
}

fn ask(
    args: &Args,
    client: &Client,
    group: &str,
    (held, epoch): (&HeldView, Option<u64>),
) -> Result<(), Failure> {
    let body = GroupRequestBody {
        mirror: Some(args.mirror.clone()),
        node: Some(held.node.clone()),
        bytes: Some(held.bytes),
        epoch,
        confirm: Some(args.mirror.clone()),
        reason: args.reason.clone(),
        ..GroupRequestBody::default()
    };
    let path = format!("/api/v1/groups/{}/demote", connect::segment(group)?);
    let what = format!("let go writes of mirror {} on {}", args.mirror, held.node);
    let taken = client.post::<Taken>(&path, &body);
    taken.map(drop).map_err(|error| error.failure(&what))
}

fn document(args: &Args, ui: &Ui, held: &HeldView) -> Result<(), Failure> {
    let document = Document {
        schema: "backstay.mirror-demote/1",
        mirror: args.mirror.clone(),
        node: held.node.clone(),
        bytes: held.bytes,
        ranges: held.ranges.clone(),
        more: held.more,
        taken: !args.dry_run,
    };
    ui.document(&document, |_| String::new())
}
