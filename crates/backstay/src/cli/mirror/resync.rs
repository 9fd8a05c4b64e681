//! `backstay mirror resync`: standbys are made equal to the active now.

use std::time::Duration;

use serde::Serialize;

use super::{Global, find};
use crate::api::body::{GroupMirror, GroupRequestBody, Taken};
use crate::api::client::Client;
use crate::api::view::{MirrorCondition, Status};
use crate::cli::connect;
use crate::cli::group::check_reason;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;
use crate::render::amount;

/// `backstay mirror resync`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Mirror
    mirror: String,
    /// Only this standby
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Compare everything, whatever the bitmaps say
    #[arg(long)]
    full: bool,
    /// Why, for the event log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Wait until it is done, at most 1 h or as given
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true,
          default_missing_value = "1h", value_parser = connect::span)]
    wait: Option<Duration>,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    mirror: String,
    /// Null for all standbys.
    node: Option<String>,
    full: bool,
    /// Null when nobody waited.
    done: Option<bool>,
}

pub(super) fn run(args: &Args, global: &Global, ui: &Ui) -> Outcome {
    check_reason(args.reason.as_deref())?;
    let client = connect::client(global)?;
    let before = find(&client, &args.mirror)?;
    let status = connect::known_status(&client, ui)?;
    if let Some(name) = &args.node {
        connect::check_data_node(&status, name)?;
    }
    check_free(args, &before)?;
    ask(args, &client, &before.group)?;
    if args.full {
        say_what_full_means(args, &before, &status, ui);
    }
    let Some(limit) = args.wait else {
        ui.talk(format_args!(
            "taken; `backstay mirror status` on the active node shows how far it is"
        ));
        ui.document(&document(args, None), |_| String::new())?;
        return Ok(Exit::Ready);
    };
    let done = connect::wait_for(limit, || {
        find(&client, &args.mirror)
            .ok()
            .filter(|now| is_done(&before, now, args.full))
    });
    if done.is_none() {
        let cause = format!("{} are over; it goes on by itself", amount::time(limit));
        return Err(
            Failure::new(format!("the resync of {} is not done", args.mirror))
                .cause(cause)
                .hint("see `backstay mirror status` on the active node, and `backstay events`")
                .exit(Exit::Unknown),
        );
    }
    ui.talk(format_args!("done"));
    ui.document(&document(args, Some(true)), |_| String::new())?;
    Ok(Exit::Ready)
}

/// A verification that goes on would swallow the comparison of a standby in sync.
fn check_free(args: &Args, before: &GroupMirror) -> Result<(), Failure> {
    let verify = before.mirror.verify.as_ref();
    if !args.full || verify.is_none_or(|verify| !verify.running) {
        return Ok(());
    }
    let error = format!("cannot compare all of mirror {}", args.mirror);
    Err(Failure::new(error)
        .cause("a verification goes on")
        .hint("wait until it is done: `backstay mirror status`"))
}

fn ask(args: &Args, client: &Client, group: &str) -> Result<(), Failure> {
    let body = GroupRequestBody {
        mirror: Some(args.mirror.clone()),
        node: args.node.clone(),
        full: Some(args.full),
        reason: args.reason.clone(),
        ..GroupRequestBody::default()
    };
    let path = format!("/api/v1/groups/{}/resync", connect::segment(group)?);
    let taken = client.post::<Taken>(&path, &body);
    let what = format!("resynchronise mirror {}", args.mirror);
    taken.map(drop).map_err(|error| error.failure(&what))
}

/// A standby in sync stays so; another one cannot be promoted, not even by force, until it is done.
fn say_what_full_means(args: &Args, before: &GroupMirror, status: &Status, ui: &Ui) {
    let group = status.groups.iter().find(|it| it.name == before.group);
    let active = group.and_then(|group| group.active.as_deref());
    let data = status.nodes.iter().filter(|node| node.role != "witness");
    let standbys = data
        .map(|node| node.name.as_str())
        .filter(|name| Some(*name) != active)
        .filter(|name| args.node.as_deref().is_none_or(|node| node == *name));
    for name in standbys {
        if before.in_sync.iter().any(|node| node == name) {
            ui.talk(format_args!(
                "{name} is in sync and stays so: it is compared, and what differs is sent"
            ));
        } else {
            ui.talk(format_args!(
                "{name} is not in sync: until all of it is compared it is a mixture, of no use without the active"
            ));
        }
    }
}

fn is_done(before: &GroupMirror, now: &GroupMirror, full: bool) -> bool {
    let whole = |one: &GroupMirror| one.mirror.state == MirrorCondition::InSync;
    if !(full && whole(before)) {
        return whole(now);
    }
    let started = before.mirror.verify.as_ref().map_or(0, |it| it.number);
    let verify = now.mirror.verify.as_ref();
    whole(now) && verify.is_some_and(|it| it.number > started && !it.running)
}

fn document(args: &Args, done: Option<bool>) -> Document {
    Document {
        schema: "backstay.mirror-resync/1",
        mirror: args.mirror.clone(),
        node: args.node.clone(),
        full: args.full,
        done,
    }
}
