//! The command line: global options, the list of commands, and the way to each of them.
//!
//! A command that does not exist yet is not listed.

mod address;
mod completions;
mod config;
pub(crate) mod connect;
mod events;
mod group;
mod help;
mod init;
mod man;
mod mirror;
mod status;
mod verify;
mod version;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::failure::Outcome;
use crate::output::{ColorChoice, Format, Lang, Ui};

/// Where a node keeps its files unless `--state` says otherwise.
pub const STATE_DIR_DEFAULT: &str = "/var/lib/backstay";

/// Shown below the help.
const EXIT_CODES: &str = "Exit codes: 0 fine or ready, 1 error, 2 usage, 3 degraded (serving, but could not fail over), \
                          4 down, 5 unknown.";

/// Keeps a service reachable and its data whole while servers fail under it.
#[derive(Debug, Parser)]
#[command(
    name = "backstay",
    version,
    max_term_width = 110,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = EXIT_CODES
)]
pub struct Cli {
    /// Options that every command has.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command has.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Form of the data on standard output
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub output: Format,
    /// When to use colours (`NO_COLOR` is respected)
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,
    /// Only ASCII characters in tables
    #[arg(long, global = true)]
    pub ascii: bool,
    /// Language of texts [default: from LANG]
    #[arg(long, global = true, value_name = "LANG")]
    pub lang: Option<Lang>,
    /// State directory of this node
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "BACKSTAY_STATE",
        hide_env_values = true,
        default_value = STATE_DIR_DEFAULT
    )]
    pub state: PathBuf,
    /// Socket of the daemon to talk to [default: run/api.sock in the state directory]
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "BACKSTAY_SOCKET",
        hide_env_values = true
    )]
    pub socket: Option<PathBuf>,
}

impl Global {
    /// The socket that commands talk to.
    pub fn socket_path(&self) -> PathBuf {
        self.socket
            .clone()
            .unwrap_or_else(|| self.state.join("run").join("api.sock"))
    }

    /// How this run talks.
    pub fn ui(&self) -> Ui {
        Ui::new(self.output, self.color, self.ascii, self.lang)
    }
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show whether every group can fail over now, and if not, why not
    Status(status::Args),
    /// Show what happened
    Events(events::Args),
    /// Explain a decision: what was seen, which rule fired, what was rejected
    Why(why::Args),
    /// Move a group to another node
    Move(group::MoveArgs),
    /// Start a group that is held
    Start(group::Args),
    /// Stop a group and hold it
    Stop(group::Args),
    /// Show mirrors
    #[command(subcommand)]
    Mirror(mirror::Command),
    /// Show addresses
    #[command(subcommand)]
    Address(address::Command),
    /// Check or describe the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Make the cluster's certificate authority and the nodes' certificates
    Init(init::Args),
    /// Run this node's daemon
    Run(crate::run::Args),
    /// Explain a problem code or a command
    Help(help::Args),
    /// Print a shell's completions
    Completions(completions::Args),
    /// Print the manual page, or write all of them
    Man(man::Args),
    /// Show the version
    Version,
    /// Break a real cluster on this machine, and show what came of it
    Demo(crate::demo::Args),
    /// A whole cluster on this machine, to break
    Lab(crate::lab::Args),
    /// The demo's database
    #[command(hide = true)]
    Ledger(crate::ledger::Args),
    /// First process of a lab node
    #[command(hide = true)]
    LabInit(crate::lab::init::Args),
    /// Starts a lab node and holds its mounts until it has ended
    #[command(hide = true)]
    LabNode(crate::lab::holder::Args),
    /// Carries the frames of a lab's slow links
    #[command(hide = true)]
    LabSlow(crate::lab::slow::Args),
    /// Guards a group when the daemon does not
    #[command(hide = true, name = crate::keeper::COMMAND)]
    Keeper(crate::keeper::Args),
    /// Becomes a program of a group
    #[command(hide = true, name = crate::keeper::LAUNCHER)]
    Launcher,
    /// Holds a file system still for a snapshot
    #[command(hide = true, name = crate::freezer::COMMAND)]
    Freezer(crate::freezer::Args),
}

/// Parses the command line, runs the command, and reports a failure.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let ui = cli.global.ui();
    match dispatch(&cli, &ui) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            ui.fail(&failure);
            failure.exit_code().into()
        }
    }
}

fn dispatch(cli: &Cli, ui: &Ui) -> Outcome {
    let global = &cli.global;
    match &cli.command {
        Command::Status(args) => status::run(args, global, ui),
        Command::Events(args) => events::run(args, global, ui),
        Command::Why(args) => why::run(args, global, ui),
        Command::Move(args) => group::run_move(args, global, ui),
        Command::Start(args) => group::run(group::Action::Start, args, global, ui),
        Command::Stop(args) => group::run(group::Action::Stop, args, global, ui),
        Command::Mirror(command) => mirror::run(command, global, ui),
        Command::Address(command) => address::run(command, global, ui),
        Command::Config(command) => config::run(command, ui),
        Command::Init(args) => init::run(args, global, ui),
        Command::Run(args) => crate::run::run(args, &global.state, ui),
        Command::Help(args) => help::run(args, ui),
        Command::Completions(args) => completions::run(args, ui),
        Command::Man(args) => man::run(args, ui),
        Command::Version => version::run(ui),
        Command::Demo(args) => crate::demo::run(args, ui),
        Command::Lab(args) => crate::lab::run(args, ui),
        Command::Ledger(args) => crate::ledger::run(args),
        Command::LabInit(args) => crate::lab::init::run(args),
        Command::LabNode(args) => crate::lab::holder::run(args),
        Command::LabSlow(args) => crate::lab::slow::run(args),
        Command::Keeper(args) => crate::keeper::run(args, ui),
        Command::Launcher => crate::keeper::launch(),
        Command::Freezer(args) => crate::freezer::run(args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
