//! `backstay run`: the daemon of one node.
//!
//! ```text
//!  UDP sockets ──┐                      ┌──► UDP sockets (sealed)
//!  handshakes ───┤   ┌─────────────┐    ├──► member file (thread)
//!  engines ──────┼──►│ node::Node  │────┼──► engines (one thread per mirror)
//!  resources ────┤   └─────────────┘    ├──► resources, address gate, keeper
//!  API, timer ───┘    one at a time     └──► event log, snapshot for the API
//! ```
//!
//! One thread owns the node and does everything in the order in which the node says it; whatever may block runs elsewhere
//! and comes back as an [`Event`](daemon::Event).

mod convert;
mod daemon;
mod gate;
mod links;
mod member;
mod resources;
mod serve;
mod snapshot;
mod startup;

use crate::failure::Outcome;
use crate::output::Ui;
use std::path::{Path, PathBuf};

pub(crate) use startup::{find_self, intent_blocks, load_config};

/// What `backstay run` needs to know.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Configuration file of the cluster
    #[arg(long, default_value = "/etc/backstay/backstay.toml")]
    pub config: PathBuf,
    /// This node's name; found by the machine's addresses if not given
    #[arg(long)]
    pub node: Option<String>,
}

/// Runs until the process is told to end.
///
/// # Errors
/// When the node cannot start, or must not go on: its member file could not be written.
pub fn run(args: &Args, state: &Path, ui: &Ui) -> Outcome {
    startup::run(args, state, ui)
}
