//! `backstay mirror resync`: standbys are made equal to the active now.

use std::time::Duration;

use serde::Serialize;

use super::{Global, find};
use crate::api::body::{GroupMirror, GroupRequestBody, Taken};
use crate::api::client::Client;
use crate::api::view::{GroupView, MirrorCondition, Status};
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
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Do not ask; only --full asks
    #[arg(short, long)]
    yes: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    mirror: String,
    /// Null for all standbys.
    node: Option<String>,
    full: bool,
    /// False for a dry run.
    taken: bool,
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
    let group = connect::find_group(&status, &before.group)?;
    check_free(args, &before)?;
    check_wait(args, &status, group)?;
    let standbys = standbys(args, &status, group);
    if args.full || args.dry_run {
        say(args, &before, &standbys, ui);
    }
    if args.dry_run {
        ui.document(&document(args, None), |_| String::new())?;
        return Ok(Exit::Ready);
    }
    if args.full {
        let question = format!("compare all of mirror {}: go on?", args.mirror);
        connect::confirm(ui, &question, args.yes)?;
    }
    ask(args, &client, &before.group)?;
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
            .filter(|now| is_done(args, &before, now))
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

/// Only the active knows how far it is.
fn check_wait(args: &Args, status: &Status, group: &GroupView) -> Result<(), Failure> {
    if args.wait.is_none() || group.active.is_some() && group.active == status.node {
        return Ok(());
    }
    let active = group.active.as_deref().unwrap_or("the active node");
    let error = format!("cannot wait for mirror {} here", args.mirror);
    Err(Failure::new(error)
        .cause("only the active node knows how far it is")
        .hint(format!("run it on {active}, or without --wait")))
}

/// Who is concerned.
fn standbys<'s>(args: &Args, status: &'s Status, group: &GroupView) -> Vec<&'s str> {
    let data = status.nodes.iter().filter(|node| node.role != "witness");
    data.map(|node| node.name.as_str())
        .filter(|name| Some(*name) != group.active.as_deref())
        .filter(|name| args.node.as_deref().is_none_or(|node| node == *name))
        .collect()
}

/// A standby in sync stays so; another one cannot be promoted, not even by force, until all of it is compared.
fn say(args: &Args, before: &GroupMirror, standbys: &[&str], ui: &Ui) {
    for name in standbys {
        let in_sync = before.in_sync.iter().any(|node| node == name);
        match (in_sync, args.full) {
            (true, true) => ui.talk(format_args!(
                "{name} is in sync and stays so: it is compared, and what differs is sent"
            )),
            (false, true) => ui.talk(format_args!(
                "{name} is not in sync: until all of it is compared it is a mixture, of no use without the active"
            )),
            (true, false) => ui.talk(format_args!("{name} is in sync: nothing is done")),
            (false, false) => ui.talk(format_args!("{name} is made equal now")),
        }
    }
}

/// Of a named standby, only that counts.
fn is_done(args: &Args, before: &GroupMirror, now: &GroupMirror) -> bool {
    let whole = |one: &GroupMirror| {
        let all = one.mirror.state == MirrorCondition::InSync;
        let named = args.node.as_ref();
        named.map_or(all, |node| one.in_sync.contains(node))
    };
    if !(args.full && whole(before)) {
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
        taken: !args.dry_run,
        done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::view::MirrorView;
    use serde_json::json;

    fn args(node: Option<&str>) -> Args {
        Args {
            mirror: "pgdata".into(),
            node: node.map(str::to_owned),
            full: false,
            reason: None,
            wait: Some(Duration::from_secs(1)),
            dry_run: false,
            yes: false,
        }
    }

    fn mirror(state: MirrorCondition, in_sync: &[&str]) -> GroupMirror {
        let mirror = json!({
            "name": "pgdata", "state": "resyncing", "lag_bytes": 0, "lag_seconds": 0.0, "out_of_sync_bytes": 0,
            "intent_bytes": 0, "resync_sent_bytes": 0, "cold_writes": 0, "front_end": null, "front_end_why": null,
        });
        let mirror: MirrorView = serde_json::from_value(mirror).expect("a mirror");
        GroupMirror {
            group: "db".into(),
            in_sync: in_sync.iter().map(|node| (*node).to_owned()).collect(),
            mirror: MirrorView { state, ..mirror },
        }
    }

    #[test]
    fn of_a_named_standby_only_that_one_is_waited_for() {
        let before = mirror(MirrorCondition::Resyncing, &["node-a"]);
        let now = mirror(MirrorCondition::Resyncing, &["node-a", "node-b"]);
        assert!(is_done(&args(Some("node-b")), &before, &now));
        assert!(!is_done(&args(Some("node-c")), &before, &now));
        assert!(!is_done(&args(None), &before, &now));
        let all = mirror(MirrorCondition::InSync, &["node-a", "node-b", "node-c"]);
        assert!(is_done(&args(None), &before, &all));
    }
}
