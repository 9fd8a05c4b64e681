//! `backstay completions`.

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::output::Ui;

/// `backstay completions`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Shell
    shell: Shell,
}

pub(super) fn run(args: &Args, ui: &Ui) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut shown(&Cli::command()),
        "backstay",
        &mut script,
    );
    ui.data(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Ready)
}

/// The command line without what nobody types: generators would list hidden commands too.
pub(super) fn shown(command: &Command) -> Command {
    Command::new("backstay")
        .version(env!("CARGO_PKG_VERSION"))
        .about(command.get_about().cloned().unwrap_or_default())
        .after_help(command.get_after_help().cloned().unwrap_or_default())
        .args(command.get_arguments())
        .subcommands(
            command
                .get_subcommands()
                .filter(|below| !below.is_hide_set())
                .cloned(),
        )
        .disable_help_subcommand(true)
}
