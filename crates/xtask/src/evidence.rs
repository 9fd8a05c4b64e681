//! `cargo xtask evidence NAME`: long campaigns, and the files that they leave in `docs/evidence/`.
//!
//! A file states the commands, the commit, the machine and a table. Figures in other documents come from these files only. A
//! campaign that fails writes its file as well, and says so in it.

mod crashes;
pub(crate) mod machine;

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::e2e::{self, Depth, World};
use crate::failure::{Context, Failure, Outcome};
use crate::project::Project;
use crate::shell;
use crate::table::Table;

/// A named long run.
struct Campaign {
    name: &'static str,
    /// The claim that it shows, as a sentence.
    shows: &'static str,
    what: What,
}

/// What a campaign runs.
enum What {
    /// `backstay demo`, once per list of arguments; one row per run.
    Demo(&'static [&'static [&'static str]]),
    /// Unit tests; what they print goes into the file.
    Tests(&'static [&'static str]),
    /// Crashes at random moments, resumed where they were interrupted.
    Crashes,
    /// Our own commands; their output goes into the file as it is.
    Xtask(&'static [&'static [&'static str]]),
}

/// What came out.
struct Found {
    commands: Vec<String>,
    body: String,
    passed: bool,
}

const CAMPAIGNS: &[Campaign] = &[
    Campaign {
        name: "breaks-lan",
        shows: "Every break, five times each, profile lan, workload ledger: nothing lost, never two actives, replicas equal.",
        what: What::Demo(&[&["--break", "all", "--repeat", "5"]]),
    },
    Campaign {
        name: "breaks-fast",
        shows: "Every break, five times each, profile fast, workload ledger: nothing lost, never two actives, replicas equal.",
        what: What::Demo(&[&["--break", "all", "--repeat", "5", "--profile", "fast"]]),
    },
    Campaign {
        name: "postgres",
        shows: "A real PostgreSQL on the mirrored file system loses no acknowledged row.",
        what: What::Demo(&[&[
            "--workload",
            "postgres",
            "--break",
            "node,power,hang",
            "--repeat",
            "3",
        ]]),
    },
    Campaign {
        name: "nbd-tools",
        shows: "Stock NBD tools and a verifying fio see no error while the standby dies and returns.",
        what: What::Xtask(&[&["e2e", "--long", "nbd"], &["e2e", "--long", "fio"]]),
    },
    Campaign {
        name: "restart",
        shows: "A daemon that is killed under load costs no I/O error, natively on FUSE and loop and on the NBD socket.",
        what: What::Xtask(&[&["e2e", "--long", "killed_daemon"]]),
    },
    Campaign {
        name: "async",
        shows: "An asynchronous standby that could take over is never past its bound in bytes or seconds, and always a prefix.",
        what: What::Xtask(&[
            &["e2e", "--long", "async_"],
            &["e2e", "--long", "third_replica"],
        ]),
    },
    Campaign {
        name: "guests",
        shows: "In a guest with Debian's kernel: ext4 and XFS on ublk, on NBD devices and on FUSE and loop, while daemons and nodes die.",
        what: What::Xtask(&[&["guest", "--long"]]),
    },
    Campaign {
        name: "resync",
        shows: "A resync sends what changed and what the intent log names; after a crash at full load no more than the log's bound.",
        what: What::Xtask(&[&["e2e", "--long", "resync"]]),
    },
    Campaign {
        name: "silence",
        shows: "A stopped active falls silent within its lease, and stays silent when it continues.",
        what: What::Xtask(&[&["e2e", "--long", "silent"]]),
    },
    Campaign {
        name: "leftovers",
        shows: "Two labs run side by side; lab down leaves nothing after every break.",
        what: What::Xtask(&[&["e2e", "--long", "lab"]]),
    },
    Campaign {
        name: "sim",
        shows: "5,000 seeds of random faults, profile lan, break no promise; one seed twice gives the same trace.",
        what: What::Xtask(&[
            &["sim", "--seeds", "5000"],
            &["sim", "--seed", "1", "--lines", "0"],
            &["sim", "--seed", "1", "--lines", "0"],
        ]),
    },
    Campaign {
        name: "sim-three",
        shows: "3,000 seeds of random faults with three replicas and no witness, profile lan, break no promise.",
        what: What::Xtask(&[&["sim", "--seeds", "3000", "--replicas", "3"]]),
    },
    Campaign {
        name: "sim-mutants",
        shows: "Every deliberate defect in the code is noticed by a checker of the simulation.",
        what: What::Xtask(&[&["sim", "--mutants"]]),
    },
    Campaign {
        name: "bugs",
        shows: "Each of the eighteen historical bugs has tests, and each test fails with the defect that brings the bug back.",
        what: What::Tests(&["--package", "mirror", "--features", "mutants", "bug"]),
    },
    Campaign {
        name: "crash-states",
        shows: "Every state that a power failure leaves of the metadata, at every step of seven workloads, keeps the promises.",
        what: What::Tests(&["--package", "mirror", "--package", "host", "crash_state"]),
    },
    Campaign {
        name: "log-replay",
        shows: "Every prefix of what a daemon wrote to its disk attaches and names all that differs; the daemon goes on from it.",
        what: What::Xtask(&[&["e2e", "--long", "write_log"]]),
    },
    Campaign {
        name: "crash-campaign",
        shows: "Crashes of the active, and of both, at random moments under fio and under pgbench lose nothing that G2 promises.",
        what: What::Crashes,
    },
    Campaign {
        name: "models",
        shows: "Every TLA+ model holds and every mutant of a rule is caught.",
        what: What::Xtask(&[&["tlc", "--mutants"]]),
    },
];

/// Runs the campaign, or lists all of them.
pub(crate) fn run(project: &Project, name: Option<&str>, count: Option<u64>) -> Outcome {
    let Some(name) = name else {
        print!("{}", list().text());
        return Ok(());
    };
    let campaign = CAMPAIGNS
        .iter()
        .find(|campaign| campaign.name == name)
        .ok_or_else(|| {
            Failure::new(format!("there is no campaign {name}"))
                .hint("cargo xtask evidence lists them")
        })?;
    let commit = machine::commit(project)?;
    let started = Instant::now();
    let found = match campaign.what {
        What::Demo(calls) => demo(project, calls)?,
        What::Xtask(calls) => xtask(project, calls)?,
        What::Tests(args) => tests(project, args)?,
        What::Crashes => crashes::run(project, &commit, count)?,
    };
    let text = page(campaign, &found, &commit, started.elapsed())?;
    let file = project.root.join(format!("docs/evidence/{name}.md"));
    fs::create_dir_all(project.root.join("docs/evidence")).context("create docs/evidence")?;
    fs::write(&file, text).context(format!("write {}", file.display()))?;
    println!("wrote docs/evidence/{name}.md");
    if found.passed {
        return Ok(());
    }
    Err(Failure::new(format!("campaign {name} failed")).hint("its file says what"))
}

fn list() -> Table {
    let mut table = Table::new(&["campaign", "shows"]);
    for campaign in CAMPAIGNS {
        table.row(vec![campaign.name.into(), campaign.shows.into()]);
    }
    table
}

fn demo(project: &Project, calls: &[&[&str]]) -> Outcome<Found> {
    let world = World::build(project, Depth::Long)?;
    let mut found = Found {
        commands: Vec::new(),
        body: String::new(),
        passed: true,
    };
    for args in calls {
        found
            .commands
            .push(format!("backstay demo {} -o jsonl", args.join(" ")));
        let runs = e2e::demo::runs(&world, args)?;
        let safe = runs.iter().filter(|run| e2e::demo::is_safe(run)).count();
        found.passed &= safe == runs.len();
        let _ = write!(
            found.body,
            "{}\n{safe} of {} runs passed.\n",
            e2e::demo::table(&runs).markdown(),
            runs.len()
        );
    }
    Ok(found)
}

fn xtask(project: &Project, calls: &[&[&str]]) -> Outcome<Found> {
    let mut found = Found {
        commands: Vec::new(),
        body: String::new(),
        passed: true,
    };
    for args in calls {
        found
            .commands
            .push(format!("cargo xtask {}", args.join(" ")));
        let output = shell::own(&project.root)?
            .args(*args)
            .stderr(std::process::Stdio::inherit())
            .output()
            .context(format!("run xtask {}", args.join(" ")))?;
        found.passed &= output.status.success();
        let said = String::from_utf8_lossy(&output.stdout);
        print!("{said}");
        let _ = write!(found.body, "```text\n{}\n```\n", said.trim_end());
    }
    Ok(found)
}

/// Optimised: the same tests as in CI, with more states.
fn tests(project: &Project, args: &[&str]) -> Outcome<Found> {
    let mut cargo = shell::cargo(&project.root);
    cargo.args(["test", "--profile", "sim", "--locked", "--lib"]);
    cargo.args(args).args(["--", "--show-output"]);
    cargo.env("CRASH_STATES_PER_POINT", "1024");
    let line = shell::describe(&cargo);
    let output = cargo
        .stderr(std::process::Stdio::inherit())
        .output()
        .context(format!("run {line}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let told = |line: &&str| line.starts_with("test ") || line.starts_with("crash states:");
    let told: Vec<&str> = said.lines().filter(told).collect();
    println!("{}", told.join("\n"));
    Ok(Found {
        commands: vec![line],
        body: format!("```text\n{}\n```\n", told.join("\n")),
        passed: output.status.success(),
    })
}

fn page(campaign: &Campaign, found: &Found, commit: &str, took: Duration) -> Outcome<String> {
    let mut out = format!("# {}\n\n{}\n\n", campaign.name, campaign.shows);
    let result = if found.passed { "passed" } else { "**failed**" };
    let date = shell::capture(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let minutes = took.as_secs_f64() / 60.0;
    for line in [
        format!("- result: {result}, {minutes:.1} minutes, {}", date.trim()),
        format!("- repeat with: `cargo xtask evidence {}`", campaign.name),
        format!("- commit: `{commit}`"),
        format!("- machine: {}", machine::describe()),
    ] {
        let _ = writeln!(out, "{line}");
    }
    for command in &found.commands {
        let _ = writeln!(out, "- ran: `{command}`");
    }
    let _ = write!(out, "\n{}", found.body);
    Ok(out)
}
