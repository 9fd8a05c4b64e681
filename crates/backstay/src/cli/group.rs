//! `backstay move`, `start` and `stop`: what a person asks of a group.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::Global;
use super::connect;
use crate::api::body::{GroupRequestBody, REASON_BYTES_MAX, Taken};
use crate::api::client::{Client, ClientError};
use crate::api::view::{GroupView, Service, Status};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;
use crate::render::amount;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Move,
    Start,
    Stop,
}

impl Action {
    const fn word(self) -> &'static str {
        match self {
            Self::Move => "move",
            Self::Start => "start",
            Self::Stop => "stop",
        }
    }
}

/// Options of all three.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Group
    group: String,
    /// Why, for the event log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Wait until it is done, at most 60 s or as given
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true,
          default_missing_value = "60s", value_parser = connect::span)]
    wait: Option<Duration>,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// `backstay move`.
#[derive(Clone, Debug, clap::Args)]
pub struct MoveArgs {
    #[command(flatten)]
    common: Args,
    /// Node to move to [default: the best standby]
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Done {
    schema: &'static str,
    group: String,
    action: &'static str,
    /// False for a dry run, and when it already was as asked.
    taken: bool,
    /// Null when nobody waited.
    done: Option<bool>,
    /// The node that serves the group afterwards, if it is known.
    active: Option<String>,
    /// From the request to its end, in milliseconds; null when nobody waited.
    took_ms: Option<f64>,
}

/// The whole request.
struct Ask<'a> {
    action: Action,
    args: &'a Args,
    to: Option<&'a str>,
}

pub(super) fn run_move(args: &MoveArgs, global: &Global, ui: &Ui) -> Outcome {
    let ask = Ask {
        action: Action::Move,
        args: &args.common,
        to: args.to.as_deref(),
    };
    ask.run(global, ui)
}

pub(super) fn run(action: Action, args: &Args, global: &Global, ui: &Ui) -> Outcome {
    Ask {
        action,
        args,
        to: None,
    }
    .run(global, ui)
}

impl Ask<'_> {
    fn run(&self, global: &Global, ui: &Ui) -> Outcome {
        check_reason(self.args.reason.as_deref())?;
        let name = connect::segment(&self.args.group)?;
        let client = connect::client(global)?;
        let status = connect::known_status(&client, ui)?;
        let group = connect::find_group(&status, name)?;
        self.check_target(&status)?;
        let sentence = self.sentence(&status, group);
        if self.args.dry_run {
            return self.dry_run(ui, group, &sentence);
        }
        if self.action != Action::Start {
            connect::confirm(ui, &format!("{sentence}: go on?"), self.args.yes)?;
        }
        let start = Instant::now();
        let body = GroupRequestBody {
            to: self.to.map(Into::into),
            reason: self.args.reason.clone(),
            ..GroupRequestBody::default()
        };
        let path = format!("/api/v1/groups/{name}/{}", self.action.word());
        match client.post::<Taken>(&path, &body) {
            Ok(_) => self.finish(&client, ui, group, start),
            Err(error) => self.not_taken(ui, group, &error),
        }
    }

    fn check_target(&self, status: &Status) -> Result<(), Failure> {
        let Some(to) = self.to else {
            return Ok(());
        };
        let data = || status.nodes.iter().filter(|node| node.role != "witness");
        if data().any(|node| node.name == to) {
            return Ok(());
        }
        let names: Vec<&str> = data().map(|node| node.name.as_str()).collect();
        Err(Failure::new(format!(
            "{to} is not a node that can hold group {}",
            self.args.group
        ))
        .cause(format!("nodes with data are {}", names.join(", ")))
        .exit(Exit::Usage))
    }

    fn sentence(&self, status: &Status, group: &GroupView) -> String {
        let name = &group.name;
        let now = group
            .active
            .as_ref()
            .map(|node| format!(" from {node}"))
            .unwrap_or_default();
        match self.action {
            Action::Move => {
                let best = status.nodes.iter().find(|node| {
                    Some(&node.name) != group.active.as_ref() && group.in_sync.contains(&node.name)
                });
                let to = self.to.or_else(|| best.map(|node| node.name.as_str()));
                let to = to.map(|node| format!(" to {node}")).unwrap_or_default();
                format!("move group {name}{now}{to}")
            }
            Action::Start => format!("start group {name}"),
            Action::Stop => format!("stop group {name}, so that nobody serves it"),
        }
    }

    fn dry_run(&self, ui: &Ui, group: &GroupView, sentence: &str) -> Outcome {
        ui.talk(format_args!("would {sentence}; nothing was changed"));
        let nobody = !group
            .in_sync
            .iter()
            .any(|node| Some(node) != group.active.as_ref());
        let blocked = self.action == Action::Move && nobody;
        if let (true, Some(why)) = (blocked, &group.why_not) {
            ui.talk(format_args!("it would be refused: {why}"));
        }
        self.document(ui, false, None, group.active.clone(), None)?;
        Ok(if blocked { Exit::Error } else { Exit::Ready })
    }

    fn not_taken(&self, ui: &Ui, group: &GroupView, error: &ClientError) -> Outcome {
        if error.reason() == Some("already") {
            ui.talk(format_args!("group {} already is as asked", group.name));
            self.document(ui, false, Some(true), group.active.clone(), None)?;
            return Ok(Exit::Ready);
        }
        Err(error.failure(&format!("{} group {}", self.action.word(), group.name)))
    }

    fn finish(&self, client: &Client, ui: &Ui, before: &GroupView, start: Instant) -> Outcome {
        let name = &before.name;
        let Some(limit) = self.args.wait else {
            ui.talk(format_args!("taken; follow it with `backstay events -f`"));
            self.document(ui, true, None, None, None)?;
            return Ok(Exit::Ready);
        };
        let reached = |status: &Status| {
            status
                .groups
                .iter()
                .any(|group| group.name == *name && self.is_done(before, group))
        };
        let Some(status) = connect::wait_until(client, ui, limit, reached) else {
            let failure = format!("{} of group {name} is not done", self.action.word());
            return Err(Failure::new(failure)
                .cause(format!(
                    "{} are over; it goes on by itself",
                    amount::time(limit)
                ))
                .hint("see `backstay status` and `backstay why`")
                .exit(Exit::Unknown));
        };
        let took = start.elapsed();
        let group = status.groups.iter().find(|group| group.name == *name);
        let active = group.and_then(|group| group.active.clone());
        ui.talk(format_args!("done after {}", amount::time(took)));
        self.document(ui, true, Some(true), active, Some(took))?;
        Ok(Exit::Ready)
    }

    fn is_done(&self, before: &GroupView, group: &GroupView) -> bool {
        let served = group.state == Service::Active;
        match self.action {
            Action::Move => {
                let there = match self.to {
                    Some(to) => group.active.as_deref() == Some(to),
                    None => group.active != before.active,
                };
                served && there
            }
            Action::Start => served,
            Action::Stop => group.state == Service::Held && group.active.is_none(),
        }
    }

    fn document(
        &self,
        ui: &Ui,
        taken: bool,
        done: Option<bool>,
        active: Option<String>,
        took: Option<Duration>,
    ) -> Result<(), Failure> {
        if ui.is_table() {
            return Ok(());
        }
        let document = Done {
            schema: "backstay.request/1",
            group: self.args.group.clone(),
            action: self.action.word(),
            taken,
            done,
            active,
            took_ms: took.map(amount::ms),
        };
        ui.document(&document, |_| String::new())
    }
}

pub(super) fn check_reason(reason: Option<&str>) -> Result<(), Failure> {
    let reason = reason.unwrap_or_default();
    if reason.len() <= REASON_BYTES_MAX && !reason.chars().any(char::is_control) {
        return Ok(());
    }
    let rule = format!("it must be one line of at most {REASON_BYTES_MAX} bytes");
    Err(Failure::new("--reason cannot be recorded")
        .cause(rule)
        .exit(Exit::Usage))
}
