//! `backstay man`: the manual pages.

use std::path::PathBuf;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::Cli;
use super::completions::shown;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;

/// `backstay man`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Write the pages of all commands into this directory instead of printing the first one
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args, ui: &Ui) -> Outcome {
    let failed =
        |error: std::io::Error| Failure::new("cannot write the manual pages").from_error(&error);
    let mut command = shown(&Cli::command());
    command.build();
    if let Some(directory) = &args.out {
        std::fs::create_dir_all(directory).map_err(failed)?;
        for (name, page) in pages(&command).map_err(failed)? {
            std::fs::write(directory.join(format!("{name}.1")), page).map_err(failed)?;
        }
        return Ok(Exit::Ready);
    }
    let page = render(&command).map_err(failed)?;
    ui.data(String::from_utf8_lossy(&page).trim_end())?;
    Ok(Exit::Ready)
}

fn render(command: &Command) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone())
        .title(full_name(command).to_uppercase())
        .render(&mut page)?;
    Ok(page)
}

/// Such as `backstay-config-check`; clap makes it when the command is built.
fn full_name(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

/// A page for the command and for each below it.
fn pages(command: &Command) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut all = vec![(full_name(command).to_owned(), render(command)?)];
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        all.extend(pages(below)?);
    }
    Ok(all)
}
