//! `backstay mirror promote`: a node serves with what it has, because the active is gone (R17, G4).

use std::time::Duration;

use serde::Serialize;

use super::{Global, find};
use crate::api::body::{GroupMirror, GroupRequestBody, OFF, Taken};
use crate::api::client::Client;
use crate::api::view::Status;
use crate::cli::connect::{self, Typed};
use crate::cli::group::check_reason;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;
use crate::render::amount;

/// `backstay mirror promote`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Mirror; the whole group that it belongs to is served from the node
    mirror: String,
    /// Node that is to serve: this one, except with --dry-run
    #[arg(long, value_name = "NODE")]
    node: String,
    /// Why, for the event log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Wait until it serves, at most 60 s or as given
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true,
          default_missing_value = "60s", value_parser = connect::span)]
    wait: Option<Duration>,
    /// Only say what would be lost
    #[arg(long)]
    dry_run: bool,
    /// Do not ask; needs --confirm
    #[arg(short, long)]
    yes: bool,
    /// `NODE is off`, with the name of the active by the record, in place of typing it
    #[arg(long, value_name = "SENTENCE")]
    confirm: Option<String>,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    mirror: String,
    group: String,
    node: String,
    /// The active by the record.
    off: String,
    /// For how long, at least, the node has been out of the set; null if it is not known here.
    out_seconds: Option<f64>,
    /// False for a dry run.
    taken: bool,
    /// Null when nobody waited.
    done: Option<bool>,
}

pub(super) fn run(args: &Args, global: &Global, ui: &Ui) -> Outcome {
    check_reason(args.reason.as_deref())?;
    let client = connect::client(global)?;
    let one = find(&client, &args.mirror)?;
    let status = connect::known_status(&client, ui)?;
    connect::check_data_node(&status, &args.node)?;
    let off = recorded(args, &one, &status)?;
    let here = status.node.as_deref() == Some(args.node.as_str());
    let mut document = Document {
        schema: "backstay.mirror-promote/1",
        mirror: args.mirror.clone(),
        group: one.group.clone(),
        node: args.node.clone(),
        off,
        out_seconds: one.mirror.out_seconds.filter(|_| here),
        taken: false,
        done: None,
    };
    show(ui, &document);
    if !args.dry_run {
        connect::check_asked_there(&status, &args.node)?;
        let sentence = format!("{}{OFF}", document.off);
        let question = format!("type `{sentence}` if it is, and to go on");
        let typed = Typed {
            question: &question,
            expected: &sentence,
            given: args.confirm.as_deref(),
            yes: args.yes,
        };
        connect::confirm_typed(ui, &typed)?;
        let epoch = connect::shown_epoch(&status, &one.group);
        ask(args, &client, &one.group, (sentence, epoch))?;
        document.taken = true;
        document.done = wait(args, &client, ui, &one.group)?;
    }
    ui.document(&document, |_| String::new())?;
    Ok(Exit::Ready)
}

/// The active by the record.
fn recorded(args: &Args, one: &GroupMirror, status: &Status) -> Result<String, Failure> {
    let group = status.groups.iter().find(|it| it.name == one.group);
    group
        .and_then(|group| group.recorded.clone())
        .ok_or_else(|| {
            Failure::new(format!("cannot promote {}", args.node))
                .cause(format!("group {} has no record here", one.group))
                .hint("see `backstay status` and BS-201")
        })
}

/// Says what would be lost, and what must hold.
fn show(ui: &Ui, document: &Document) {
    let Document {
        group, node, off, ..
    } = document;
    let behind = document.out_seconds.map(|seconds| {
        let time = amount::time(Duration::try_from_secs_f64(seconds).unwrap_or_default());
        format!(
            "{node} has been out of the set for at least {time}: what {off} acknowledged since is lost, unless {off} comes back"
        )
    });
    let unknown = || {
        format!(
            "what {off} acknowledged and {node} has not is lost, unless {off} comes back; how much, this command tells on {node} only"
        )
    };
    ui.talk(format_args!(
        "{node} would serve group {group} with what it has"
    ));
    ui.talk(behind.unwrap_or_else(unknown));
    ui.talk(format_args!(
        "{off} must be off: if it still serves, two nodes do, and nothing here can stop it"
    ));
    ui.talk(format_args!(
        "let it start again only where it reaches the others: what only {off} has is then put aside, or held back (BS-403)"
    ));
}

fn ask(
    args: &Args,
    client: &Client,
    group: &str,
    (sentence, epoch): (String, Option<u64>),
) -> Result<(), Failure> {
    let body = GroupRequestBody {
        mirror: Some(args.mirror.clone()),
        node: Some(args.node.clone()),
        epoch,
        confirm: Some(sentence),
        reason: args.reason.clone(),
        ..GroupRequestBody::default()
    };
    let path = format!("/api/v1/groups/{}/promote", connect::segment(group)?);
    let what = format!("promote {} for mirror {}", args.node, args.mirror);
    let taken = client.post::<Taken>(&path, &body);
    taken.map(drop).map_err(|error| error.failure(&what))
}

fn wait(args: &Args, client: &Client, ui: &Ui, group: &str) -> Result<Option<bool>, Failure> {
    let Some(limit) = args.wait else {
        ui.talk(format_args!(
            "taken; see `backstay status` and `backstay why`"
        ));
        return Ok(None);
    };
    let serves = |status: &Status| {
        let group = status.groups.iter().find(|it| it.name == group);
        group.is_some_and(|it| it.active.as_deref() == Some(args.node.as_str()))
    };
    if connect::wait_until(client, ui, limit, serves).is_some() {
        return Ok(Some(true));
    }
    Err(Failure::new(format!("{} does not serve yet", args.node))
        .cause(format!(
            "{} are over; it may still happen: what was proposed cannot always be taken back",
            amount::time(limit)
        ))
        .hint("do not start the former active cut off from the others; see `backstay why` and `backstay events`; if it gave up, ask again")
        .exit(Exit::Unknown))
}
