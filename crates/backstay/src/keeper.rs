//! Hidden commands: processes of this binary that outlive the daemon which starts them.
//!
//! `backstay keeper` guards a group ([`host::keeper`]), `backstay launcher` becomes a program of a group
//! ([`host::process`]). Nobody types them.

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;
use std::path::PathBuf;

/// Name of the keeper's command.
pub const COMMAND: &str = "keeper";
/// Name of the launcher's command.
pub const LAUNCHER: &str = "launcher";

/// What a keeper needs to know; given by the daemon.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Name of the group
    #[arg(long)]
    pub group: String,
    /// Socket to listen on
    #[arg(long)]
    pub socket: PathBuf,
}

/// Guards a group until the daemon says that nothing is left to guard.
///
/// # Errors
/// When the group has a keeper already, or the system refuses.
pub fn run(args: &Args, _ui: &Ui) -> Outcome {
    let filter = tracing_subscriber::EnvFilter::new("info");
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init()
        .ok();
    host::keeper::serve(&args.group, &args.socket).map_err(|error| {
        Failure::new(format!("cannot guard group {}", args.group)).from_error(&error)
    })?;
    Ok(Exit::Ready)
}

/// Becomes the program that the daemon names on standard input; returns only when that fails, which the daemon has been told.
///
/// # Errors
/// None.
pub fn launch() -> Outcome {
    let _reason_was_told = host::process::run_launcher();
    Ok(Exit::Error)
}
