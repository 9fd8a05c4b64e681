//! `backstay events`: what happened, newest last.

use std::ops::ControlFlow;

use wire::event::Severity;

use super::Global;
use super::connect;
use crate::api::body::Events;
use crate::api::client::Client;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{Format, Ui};
use crate::render::event::EventView;
use crate::render::why;

/// `backstay events`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Go on with new events as they come
    #[arg(short, long, visible_alias = "watch")]
    follow: bool,
    /// Most events, up to 1000
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 50,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only events with a higher number
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
    /// Only events of this group
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Only events that are at least so serious
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    level: Level,
}

/// How serious an event must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Level {
    Info,
    Warning,
    Critical,
}

impl Args {
    fn wants(&self, event: &EventView) -> bool {
        let least = match self.level {
            Level::Info => Severity::Info,
            Level::Warning => Severity::Warning,
            Level::Critical => Severity::Critical,
        };
        let of_group = self.group.is_none() || self.group == event.group;
        event.severity >= least && of_group
    }
}

pub(super) fn run(args: &Args, global: &Global, ui: &Ui) -> Outcome {
    let client = connect::client(global)?;
    let after = args
        .after
        .map(|after| format!("&after={after}"))
        .unwrap_or_default();
    let path = connect::with_lang(&format!("/api/v1/events?limit={}{after}", args.limit), ui);
    let mut list: Events = client
        .get(&path)
        .map_err(|error| error.failure("read the events"))?;
    list.events.retain(|event| args.wants(event));
    let last = list
        .events
        .last()
        .map_or(list.head, |event| event.seq.max(list.head));
    if args.follow || ui.format == Format::Jsonl {
        for event in &list.events {
            one(ui, event)?;
        }
    } else {
        ui.document(&list, |ui| why::events(ui, "", &list.events))?;
    }
    if args.follow {
        follow(args, &client, ui, last)
    } else {
        Ok(Exit::Ready)
    }
}

fn one(ui: &Ui, event: &EventView) -> Result<(), Failure> {
    let format = if ui.format == Format::Json {
        Format::Jsonl
    } else {
        ui.format
    };
    let ui = Ui {
        format,
        ..ui.clone()
    };
    ui.document(event, |ui| why::events(ui, "", std::slice::from_ref(event)))
}

fn follow(args: &Args, client: &Client, ui: &Ui, after: u64) -> Outcome {
    let path = connect::with_lang(&format!("/api/v1/events?after={after}"), ui);
    let mut failed = None;
    let followed = client.follow(&path, |data| {
        // An event that this release cannot read is of a newer daemon; the next one may be readable.
        let Ok(event) = serde_json::from_str::<EventView>(data) else {
            return ControlFlow::Continue(());
        };
        if !args.wants(&event) {
            return ControlFlow::Continue(());
        }
        match one(ui, &event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                failed = Some(failure);
                ControlFlow::Break(())
            }
        }
    });
    followed.map_err(|error| error.failure("follow the events"))?;
    match failed {
        Some(failure) if !failure.is_broken_pipe() => Err(failure),
        Some(_) => Ok(Exit::Ready),
        None => Err(Failure::new("the daemon ended, and the events with it").exit(Exit::Unknown)),
    }
}
