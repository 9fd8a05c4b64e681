//! `cargo xtask guest`: what needs another kernel than this machine's, in a virtual machine.
//!
//! One guest boots with this machine's files as its own (nothing is written to them), runs this program again with `--inside`, and so
//! the same labs as `cargo xtask e2e`, on Debian's kernel with its block drivers.

pub(crate) mod drbd;
mod inside;
mod kernel;
mod machine;
mod pair;
mod rows;

use std::time::Duration;

use crate::e2e::{Depth, World};
use crate::failure::{Context, Failure, Outcome};
use crate::project::Project;
use machine::{End, Machine, Plan};

/// One boot with every scenario that a change has to pass.
const ONCE_MAX: Duration = Duration::from_secs(600);
/// The same with the long ones.
const LONG_MAX: Duration = Duration::from_secs(3600);
/// Of a guest. Disks of labs are in it.
const MEMORY_MIB: u32 = 3072;

/// `cargo xtask guest`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// As long as the evidence asks for, not once.
    #[arg(long)]
    pub(crate) long: bool,
    /// In the guest: the program to run scenarios on.
    #[arg(long, hide = true)]
    pub(crate) inside: Option<std::path::PathBuf>,
    /// In a guest of a pair: keep rows in this folder.
    #[arg(long, hide = true)]
    pub(crate) serve_rows: Option<std::path::PathBuf>,
    /// Beside a pair: add rows, and note those that were acknowledged in this file.
    #[arg(long, hide = true)]
    pub(crate) add_rows: Option<std::path::PathBuf>,
    /// Beside a pair: look for the rows that this file notes.
    #[arg(long, hide = true)]
    pub(crate) find_rows: Option<std::path::PathBuf>,
    /// Only scenarios whose name contains one of these.
    pub(crate) only: Vec<String>,
}

/// Boots a guest that runs the scenarios, or runs them if this is the guest.
pub(crate) fn run(project: &Project, args: &Args) -> Outcome {
    let depth = if args.long { Depth::Long } else { Depth::Once };
    if let Some(backstay) = &args.inside {
        return inside::run(backstay, depth, &args.only);
    }
    if let Some(folder) = &args.serve_rows {
        return rows::serve(folder);
    }
    if let Some(journal) = &args.add_rows {
        return rows::add(journal);
    }
    if let Some(journal) = &args.find_rows {
        return rows::find(journal);
    }
    if pair::is_meant(&args.only) {
        return pair::run(project, &args.only);
    }
    boot(project, depth, &args.only)?;
    match (depth, args.only.is_empty()) {
        (Depth::Long, true) => pair::run(project, &args.only),
        (Depth::Long | Depth::Once, _) => Ok(()),
    }
}

/// The same, for `cargo xtask ci`.
pub(crate) fn boot(project: &Project, depth: Depth, only: &[String]) -> Outcome {
    inside::check(depth, only)?;
    let world = World::build(project, depth)?;
    let kernel = kernel::prepare(project)?;
    let dir = machine::scratch(&project.cache)?;
    let own = std::env::current_exe().context("find this program")?;
    let mut command = vec![own.display().to_string(), "guest".to_owned()];
    command.extend(["--inside".to_owned(), world.backstay.display().to_string()]);
    if depth == Depth::Long {
        command.push("--long".to_owned());
    }
    command.extend(only.iter().cloned());
    let plan = Plan {
        kernel: &kernel,
        dir: &dir,
        command: &command,
        hardware: &[],
        memory_mib: MEMORY_MIB,
        netns: None,
    };
    let limit = if depth == Depth::Long {
        LONG_MAX
    } else {
        ONCE_MAX
    };
    let end =
        Machine::start("scenarios", &plan).and_then(|mut guest| guest.follow(limit, |_| false));
    std::fs::remove_dir_all(&dir).context(format!("remove {}", dir.display()))?;
    match end? {
        End::Script(0) => Ok(()),
        End::Script(_) | End::Line => Err(Failure::new("scenarios failed in the guest")
            .hint("cargo xtask guest NAME repeats one")),
    }
}
