//! The campaign of crashes: long, so every round is written down at once, and a campaign that was interrupted goes on.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Found;
use crate::e2e::crash::{self, Crash, Load, Round};
use crate::e2e::{Depth, World};
use crate::failure::{Context, Outcome};
use crate::project::Project;
use crate::table::{Table, grouped};

/// Rounds of a part, unless told otherwise; three tenths of it for power failures of both.
const ROUNDS: u64 = 100;

const PARTS: [(Load, Crash); 6] = [
    (Load::Fio, Crash::Kill),
    (Load::Fio, Crash::Power),
    (Load::Fio, Crash::PowerBoth),
    (Load::Pgbench, Crash::Kill),
    (Load::Pgbench, Crash::Power),
    (Load::Pgbench, Crash::PowerBoth),
];

/// Plays what is missing of every part, and tells of all.
pub(super) fn run(project: &Project, commit: &str, count: Option<u64>) -> Outcome<Found> {
    let world = World::build(project, Depth::Long)?;
    let folder = project
        .cache
        .join("crash-campaign")
        .join(commit.replace(' ', "-"));
    fs::create_dir_all(&folder).context(format!("make {}", folder.display()))?;
    let mut table = Table::new(&[
        "load",
        "crash",
        "rounds",
        "of",
        "acknowledged",
        "lost",
        "lapsed",
        "whole again, median ms",
        "longest ms",
        "end",
    ]);
    let mut passed = true;
    for (load, crash) in PARTS {
        let all = count.unwrap_or(ROUNDS);
        let wanted = if crash == Crash::PowerBoth {
            (all * 3).div_ceil(10)
        } else {
            all
        };
        let file = folder.join(format!("{}-{}.jsonl", load.name(), crash.name()));
        let done = u64::try_from(rounds(&file).len()).unwrap_or(u64::MAX);
        let end = if done < wanted {
            crash::play(&world, load, crash, done..wanted, |n, round| {
                note(&file, n, round)
            })
        } else {
            Ok(())
        };
        let said = match &end {
            Ok(()) if load == Load::Fio => "equal".to_owned(),
            Ok(()) => "equal, e2fsck clean".to_owned(),
            Err(failure) => failure
                .to_string()
                .lines()
                .take(2)
                .collect::<Vec<_>>()
                .join("; "),
        };
        if let Err(failure) = &end {
            eprintln!("{failure}");
        }
        passed &= end.is_ok();
        table.row(row(load, crash, wanted, &rounds(&file), said));
    }
    print!("{}", table.text());
    let explained = "acknowledged: writes of 4 KiB by the checking writer (fio's own come on top), or transactions. lost: promised by G2, and \
        not there. lapsed: acknowledged, not flushed, and taken by the power failure, as it may. Each round also compares the \
        replicas (fio), or counts the history and adds up the balances (pgbench).";
    Ok(Found {
        commands: vec![format!(
            "cargo xtask evidence crash-campaign --count {}",
            count.unwrap_or(ROUNDS)
        )],
        body: format!("{}\n{explained}\n", table.markdown()),
        passed,
    })
}

fn note(file: &Path, number: u64, round: &Round) -> Outcome {
    let line = json!({
        "round": number,
        "delay_ms": round.delay_ms,
        "acknowledged": round.acknowledged,
        "lost": round.lost,
        "lapsed": round.lapsed,
        "whole_ms": round.whole_ms,
    });
    let path: PathBuf = file.to_owned();
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .context(format!("open {}", path.display()))?;
    writeln!(file, "{line}").context(format!("write {}", path.display()))
}

fn rounds(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn row(load: Load, crash: Crash, wanted: u64, rounds: &[Value], end: String) -> Vec<String> {
    let sum = |key: &str| {
        rounds
            .iter()
            .filter_map(|round| round[key].as_u64())
            .sum::<u64>()
    };
    let mut times: Vec<u64> = rounds
        .iter()
        .filter_map(|round| round["whole_ms"].as_u64())
        .collect();
    times.sort_unstable();
    let count = u64::try_from(rounds.len()).unwrap_or(u64::MAX);
    vec![
        load.name().to_owned(),
        crash.name().to_owned(),
        count.to_string(),
        wanted.to_string(),
        grouped(sum("acknowledged")),
        sum("lost").to_string(),
        sum("lapsed").to_string(),
        grouped(times.get(times.len() / 2).copied().unwrap_or(0)),
        grouped(times.last().copied().unwrap_or(0)),
        end,
    ]
}
