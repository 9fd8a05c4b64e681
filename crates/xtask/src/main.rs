//! The project's own commands: `cargo xtask ci`, `tlc`, `tidy`, `e2e`, `guest`, `evidence`, `fix`.
//!
//! One module per command. Everything here is a thin layer over cargo, TLC and the `backstay` binary: what a step checks
//! lives in the crate, the model or the scenario that it runs.

#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool talks to its terminal"
)]

mod bench;
mod ci;
mod e2e;
mod evidence;
mod failure;
mod fix;
mod guest;
mod project;
mod shell;
mod sim;
mod table;
mod tidy;
mod tlc;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Outcome;
use crate::project::Project;

/// Checks, simulations and measurements of the backstay workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything that must hold before a change lands; read-only.
    Ci,
    /// The inner loop.
    Test {
        /// What to run.
        #[arg(value_enum, default_value = "quick")]
        set: TestSet,
    },
    /// Rules of the code base: dependency edges, unsafe, links, named tests, file lengths, words.
    Tidy,
    /// The TLA+ models of `spec/`.
    Tlc {
        /// Also run every mutant; each must be caught.
        #[arg(long)]
        mutants: bool,
        /// Only models whose name contains this.
        only: Option<String>,
    },
    /// Scenarios on real processes: needs root and the programs that ./test installs.
    E2e {
        /// As long as the evidence asks for, not once.
        #[arg(long)]
        long: bool,
        /// Only scenarios whose name contains this.
        only: Option<String>,
    },
    /// Measures beside others, interleaved.
    Bench(bench::Args),
    /// Scenarios that need another kernel, in a virtual machine.
    Guest(guest::Args),
    /// Runs a long campaign and writes docs/evidence/NAME.md; without a name, lists them.
    Evidence {
        /// The campaign.
        name: Option<String>,
        /// Of crash-campaign: rounds per part (100, and three tenths of that for power failures of both nodes).
        #[arg(long)]
        count: Option<u64>,
    },
    /// A seeded world of nodes with everything that can go wrong, or every deliberate defect in it.
    Sim(sim::Args),
    /// Brings formatting, simple lints and the length ratchet up to date; changes files.
    Fix,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum TestSet {
    /// Formatting, tidy and the unit tests.
    Quick,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Outcome {
    let project = Project::find()?;
    match &args.command {
        Command::Ci => ci::all(&project),
        Command::Test {
            set: TestSet::Quick,
        } => ci::quick(&project),
        Command::Tidy => tidy::run(&project),
        Command::Tlc { mutants, only } => tlc::run(&project, *mutants, only.as_deref()),
        Command::E2e { long, only } => {
            let depth = if *long {
                e2e::Depth::Long
            } else {
                e2e::Depth::Once
            };
            e2e::run(&project, depth, only.as_deref())
        }
        Command::Bench(args) => bench::run(&project, args),
        Command::Guest(args) => guest::run(&project, args),
        Command::Evidence { name, count } => evidence::run(&project, name.as_deref(), *count),
        Command::Sim(args) => sim::run(&project, args),
        Command::Fix => fix::run(&project),
    }
}
