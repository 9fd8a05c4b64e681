//! `backstay demo`: breaks a real cluster on this machine, and shows what came of it.
//!
//! Each run has a fresh lab, a client that journals every acknowledged row outside of it, and an observer that looks for two
//! active nodes; at the end every row is read back and the replicas are compared block by block.

mod document;
mod html;
mod journal;
mod observer;
mod postgres;
mod runner;
mod scenario;
mod story;
mod trace;
mod verify;
mod writer;

use std::path::PathBuf;

use clap::ValueEnum;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::lab::state::{
    Bench, FileSystem, FrontEnd, Mode, Options, Profile, Switch, Workload, word,
};
use crate::lab::{Topology, interrupt, lifecycle, tools};
use crate::output::{Format, Ui};
use document::{Document, Run};
use runner::Request;
use scenario::{Break, PAIR, Scenario};
use story::Story;

/// Most repeats of each break.
const REPEAT_MAX: i64 = 1000;
/// Size of the mirrored volume for the ledger: small, so that comparing takes no time.
const LEDGER_BYTES: u64 = 64 << 20;
/// Size of the mirrored volume for XFS, which takes no less than 300 MiB.
const XFS_BYTES: u64 = 320 << 20;
/// Size of the mirrored volume for PostgreSQL, which starts with 40 MB and logs a lot.
const POSTGRES_BYTES: u64 = 320 << 20;

/// `backstay demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Breaks, separated by commas, or all
    #[arg(
        long = "break",
        value_name = "NAME[,NAME…]",
        default_value = "node",
        value_delimiter = ','
    )]
    breaks: Vec<Choice>,
    /// Replication
    #[arg(long, default_value = "sync")]
    mode: Mode,
    /// Encryption of the mirror link
    #[arg(long, default_value = "on")]
    tls: Switch,
    /// What writes the rows
    #[arg(long, default_value = "ledger")]
    workload: DemoWorkload,
    /// What is built
    #[arg(long, default_value = "pair")]
    topology: Topology,
    /// Time limits of the cluster
    #[arg(long, default_value = "default")]
    profile: DemoProfile,
    /// How the service reaches the volume [default: the best block device that this kernel has]
    #[arg(long)]
    front_end: Option<FrontEnd>,
    /// The file system on it
    #[arg(long, default_value = "ext4")]
    fstype: FileSystem,
    /// Runs of each break
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=REPEAT_MAX))]
    repeat: u32,
    /// Rows and power losses follow from it [default: by the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Leave the last run's lab running
    #[arg(long)]
    keep: bool,
    /// Write a page for people
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Directory of the lab [default: backstay-demo in memory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// A break, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    All,
    One(Break),
}

impl std::str::FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        Break::from_str(text, false).map(Self::One).map_err(|_| {
            let known: Vec<String> = Break::value_variants().iter().copied().map(word).collect();
            format!(
                "there is no break '{text}'; there are all, {}",
                known.join(", ")
            )
        })
    }
}

/// Workloads that write rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DemoWorkload {
    /// The embedded ledger
    Ledger,
    /// A real PostgreSQL server
    Postgres,
}

/// Profiles as the demo names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DemoProfile {
    /// Profile lan
    Default,
    /// Profile fast
    Fast,
    /// Profile cloud
    Cloud,
}

impl Args {
    const fn options(&self) -> Options {
        let (workload, size_bytes) = match (self.workload, self.fstype) {
            (DemoWorkload::Ledger, FileSystem::Ext4) => (Workload::Ledger, LEDGER_BYTES),
            (DemoWorkload::Ledger, FileSystem::Xfs) => (Workload::Ledger, XFS_BYTES),
            (DemoWorkload::Postgres, _) => (Workload::Postgres, POSTGRES_BYTES),
        };
        let profile = match self.profile {
            DemoProfile::Default => Profile::Lan,
            DemoProfile::Fast => Profile::Fast,
            DemoProfile::Cloud => Profile::Cloud,
        };
        Options {
            replicas: 2,
            mode: self.mode,
            size_bytes,
            tls: self.tls,
            profile,
            workload,
            bench: Bench::NONE,
            front_end: self.front_end,
            fstype: self.fstype,
            compress: false,
            used_only: false,
            external: false,
            undo: false,
        }
    }

    /// The scenarios that were asked for, in the order of a full run.
    fn scenarios(&self) -> Vec<&'static Scenario> {
        let mut chosen = Vec::new();
        for scenario in &PAIR {
            let named = self.breaks.contains(&Choice::One(scenario.name));
            if named || self.breaks.contains(&Choice::All) {
                chosen.push(scenario);
            }
        }
        chosen
    }
}

/// Runs `backstay demo`.
///
/// # Errors
/// When the machine lacks something, or the document cannot be written; a run that fails is part of the document.
pub fn run(args: &Args, ui: &Ui) -> Outcome {
    tools::preflight()?;
    let scenarios = args.scenarios();
    let seed = args.seed.unwrap_or_else(seed_of_now);
    let dir = args.dir.clone().unwrap_or_else(default_dir);
    interrupt::listen()?;
    let story = Story::new(ui);
    let count = scenarios.len() * usize::try_from(args.repeat).unwrap_or(1);
    story.title(&args.options(), count, seed);
    let mut runs = Vec::new();
    let requests = scenarios
        .iter()
        .flat_map(|scenario| (1..=args.repeat).map(move |n| (scenario, n)));
    for ((scenario, repeat), number) in requests.zip(1..) {
        let request = Request {
            scenario,
            options: args.options(),
            seed: seed.wrapping_add(u64::from(repeat) - 1),
            repeat,
            dir: dir.join(format!("{number:03}-{}", word(scenario.name))),
            keep: args.keep && number == count,
        };
        story.begin(scenario, number, count);
        let run = runner::run(&request, &story);
        story.end(&run, &again(args, &run));
        if ui.format == Format::Jsonl {
            ui.document(&run, |_| String::new())?;
        }
        let is_interrupted = run.is_interrupted;
        runs.push(run);
        if is_interrupted {
            break;
        }
    }
    // Only if it is empty: failed runs keep their logs in it.
    std::fs::remove_dir(&dir).ok();
    let is_cut_short = runs.len() < count;
    let exit = finish(args, Document::new(runs), ui)?;
    if is_cut_short {
        return Err(Failure::new("interrupted before all runs were done"));
    }
    Ok(exit)
}

fn finish(args: &Args, document: Document, ui: &Ui) -> Outcome {
    if ui.format != Format::Jsonl {
        ui.document(&document, |ui| story::table(&document, ui))?;
    }
    if let Some(path) = &args.report {
        html::write(&document, path)?;
        ui.talk(format_args!("report: {}", path.display()));
    }
    Ok(if document.pass {
        Exit::Ready
    } else {
        Exit::Error
    })
}

/// The command that repeats a run.
fn again(args: &Args, run: &Run) -> String {
    format!(
        "backstay demo --break {} --mode {} --tls {} --workload {} --profile {} --seed {} --keep",
        word(run.name),
        word(run.mode),
        word(run.tls),
        word(run.workload),
        word(args.profile),
        run.seed
    )
}

fn default_dir() -> PathBuf {
    lifecycle::default_dir().with_file_name(format!("backstay-demo-{}", std::process::id()))
}

fn seed_of_now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        Cli::parse_from(std::iter::once("demo").chain(words.iter().copied())).args
    }

    #[test]
    fn all_breaks_apply_to_either_mode() {
        for mode in ["sync", "async"] {
            let chosen = args(&["--break", "all", "--mode", mode]).scenarios();
            assert_eq!(chosen.len(), PAIR.len());
        }
    }

    #[test]
    fn breaks_are_named_by_a_list() {
        let chosen = args(&["--break", "power,node"]).scenarios();
        let names: Vec<_> = chosen.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names, [Break::Node, Break::Power]);
        assert!(Cli::try_parse_from(["demo", "--break", "nod"]).is_err());
    }
}
