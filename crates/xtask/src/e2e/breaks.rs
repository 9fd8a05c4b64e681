//! The demo as a test: every break, and a real database.

use super::{Depth, World, demo};
use crate::failure::{Failure, Outcome};

pub(crate) fn every_break_passes(world: &World) -> Outcome {
    check(world, &["--break", "all"])?;
    if world.depth == Depth::Long {
        check(world, &["--break", "all", "--profile", "fast"])?;
    }
    Ok(())
}

pub(crate) fn postgres_loses_no_row(world: &World) -> Outcome {
    let repeat = if world.depth == Depth::Long { "3" } else { "1" };
    let breaks = ["--break", "node,power,hang", "--repeat", repeat];
    check(world, &[&["--workload", "postgres"], &breaks[..]].concat())
}

fn check(world: &World, args: &[&str]) -> Outcome {
    let runs = demo::runs(world, args)?;
    print!("{}", demo::table(&runs).text());
    let bad: Vec<String> = runs
        .iter()
        .filter(|run| !demo::is_safe(run) || !demo::is_explained(run))
        .map(|run| format!("{} ({})", run["break"], run["why"]))
        .collect();
    if bad.is_empty() {
        return Ok(());
    }
    Err(
        Failure::new(format!("{} of {} demo runs failed", bad.len(), runs.len()))
            .because(bad.join(", "))
            .hint("repeat one with ./demo --break NAME"),
    )
}
