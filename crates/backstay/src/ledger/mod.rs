//! `backstay ledger`: a small database to lose rows with, if there is a way to lose them.
//!
//! It keeps numbered, checksummed rows in one append-only file. A row is acknowledged once it is durable; rows that arrive
//! together become durable together. Adding the same row twice is the same as adding it once, so a client that did
//! not get an answer asks again.
//!
//! On the wire ([`protocol`]) and in the file ([`row`]) everything has a fixed size; nothing needs a length to be trusted.

pub mod client;
mod log;
pub mod protocol;
pub mod row;
mod server;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Subcommand;

use crate::failure::{Failure, Outcome};

/// `backstay ledger`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Serve the ledger in a directory until killed
    Serve {
        /// Directory of the ledger's file
        #[arg(long)]
        dir: PathBuf,
        /// Address and port to listen on
        #[arg(long)]
        listen: SocketAddr,
    },
}

/// Runs `backstay ledger …`.
///
/// # Errors
/// When the file or the address cannot be used; afterwards, when rows cannot be made durable.
pub fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::Serve { dir, listen } => server::serve(dir, *listen).map_err(|error| {
            Failure::new(format!("cannot serve the ledger in {}", dir.display()))
                .from_error(&error)
                .hint("is the file system mounted, and the port free?")
        }),
    }
}
