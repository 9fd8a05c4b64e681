//! `backstay status`: can it fail over now, and if not, why not?

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use super::Global;
use super::connect;
use crate::api::client::Client;
use crate::api::view::Status;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{Format, Ui};
use crate::render::status::table;

/// `backstay status`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Show it again and again, every 2 s or as given
    #[arg(long, value_name = "SECS", num_args = 0..=1, require_equals = true,
          default_missing_value = "2", value_parser = connect::span)]
    watch: Option<Duration>,
    /// Wait until every group can fail over, at most 60 s or as given
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true,
          default_missing_value = "60s", value_parser = connect::span, conflicts_with = "watch")]
    wait: Option<Duration>,
}

pub(super) fn run(args: &Args, global: &Global, ui: &Ui) -> Outcome {
    let client = connect::client(global)?;
    if let Some(pause) = args.watch {
        return watch(&client, ui, pause);
    }
    if let Some(limit) = args.wait {
        // Not ready in time is told by the status itself, and by its exit code.
        connect::wait_until(&client, ui, limit, |status| status.ready);
    }
    show(&client, ui)
}

fn show(client: &Client, ui: &Ui) -> Outcome {
    let status = match connect::status(client, ui) {
        Ok(status) => status,
        Err(error) => {
            ui.fail(&error.failure("read the status"));
            Status::unknown(error.problem(ui.lang))
        }
    };
    ui.document(&status, |ui| table(ui, &status))?;
    Ok(status.exit())
}

fn watch(client: &Client, ui: &Ui, pause: Duration) -> Outcome {
    let screen = ui.is_table() && io::stdout().is_terminal();
    // Documents one after the other: only one per line can be told apart.
    let format = if ui.format == Format::Json {
        Format::Jsonl
    } else {
        ui.format
    };
    let ui = Ui {
        format,
        ..ui.clone()
    };
    loop {
        let start = Instant::now();
        if screen {
            // Home and clear, as `watch` does.
            ui.data("\x1b[H\x1b[2J")?;
        }
        let shown = show(client, &ui);
        if is_closed(&shown) {
            return Ok(Exit::Ready);
        }
        shown?;
        std::thread::sleep(pause.saturating_sub(start.elapsed()));
    }
}

/// The reader of a pipe went away: that ends a watch, and is no failure.
fn is_closed(shown: &Result<Exit, Failure>) -> bool {
    shown.as_ref().is_err_and(Failure::is_broken_pipe)
}
