//! `backstay why`: what was seen, which rule fired, what was rejected, and how long it took.

use super::Global;
use super::connect;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::output::Ui;
use crate::render::why::{Why, table};

/// `backstay why`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Event to explain, as `backstay events` shows it [default: the newest decision]
    event: Option<String>,
}

pub(super) fn run(args: &Args, global: &Global, ui: &Ui) -> Outcome {
    let path = match &args.event {
        Some(event) => format!("/api/v1/why/{}", connect::segment(event)?),
        None => "/api/v1/why".into(),
    };
    let client = connect::client(global)?;
    let why: Why = client
        .get(&connect::with_lang(&path, ui))
        .map_err(|error| error.failure("explain the event"))?;
    ui.document(&why, |ui| table(ui, &why))?;
    Ok(Exit::Ready)
}
