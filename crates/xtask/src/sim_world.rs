//! `cargo xtask sim` in the build that contains the world.

use super::{Args, Profile};
use crate::failure::{Failure, Outcome};
use crate::project::Project;
use crate::table::{Table, grouped};
use sim::mutants::{self, Caught};
use sim::{Options, Timing};
use std::time::Instant;

/// Most seeds that a deliberate defect may survive.
const MUTANT_SEEDS_MAX: u64 = 400;

pub(crate) fn run(_: &Project, args: &Args) -> Outcome {
    // A failed assertion of a node is a finding like any other: told with its seed, not here.
    std::panic::set_hook(Box::new(|_| {}));
    if args.mutants {
        return all_mutants(args);
    }
    if let Some(name) = &args.mutant {
        mutants::switch(Some(mutants::named(name).ok_or_else(|| unknown(name))?));
    }
    match (args.seed, &args.scenario) {
        (Some(seed), None) => one(args, seed),
        (seed, Some(name)) => scenario(args, name, seed.unwrap_or(1)),
        (None, None) => many(args),
    }
}

fn unknown(name: &str) -> Failure {
    Failure::new(format!("there is no deliberate defect {name}"))
        .hint("cargo xtask sim --mutants lists them")
}

fn timing(args: &Args) -> Timing {
    match args.profile {
        Profile::Lan => Timing::LAN,
        Profile::Fast => Timing::FAST,
    }
}

fn options(args: &Args, seed: u64, keep: usize) -> Options {
    Options {
        keep: args.lines.unwrap_or(keep),
        ..Options::of_seed(seed, timing(args))
    }
}

fn one(args: &Args, seed: u64) -> Outcome {
    let outcome = sim::run(options(args, seed, 100_000));
    print_story(&outcome);
    println!(
        "seed {seed}: {} events, {} faults, {:.1} s simulated, {} moves, {} answers, hash {:016x}",
        grouped(outcome.events),
        outcome.faults,
        outcome.simulated.as_secs_f64(),
        outcome.moves,
        grouped(outcome.answered),
        outcome.hash
    );
    match outcome.violation {
        None => Ok(()),
        Some(violation) => {
            Err(Failure::new(format!("seed {seed} breaks a promise")).because(violation))
        }
    }
}

fn scenario(args: &Args, name: &str, seed: u64) -> Outcome {
    let keep = args.lines.unwrap_or(100_000);
    let outcome = sim::scenario::play(name, seed, keep)
        .ok_or_else(|| Failure::new(format!("there is no scenario {name}")))?;
    print_story(&outcome);
    match outcome.violation {
        None => Ok(()),
        Some(violation) => Err(Failure::new(format!("scenario {name} fails")).because(violation)),
    }
}

fn print_story(outcome: &sim::Outcome) {
    for line in &outcome.story {
        println!("{line}");
    }
}

/// Sums over many runs.
#[derive(Debug, Default)]
struct Sums {
    events: u64,
    faults: u64,
    simulated: f64,
    moves: u64,
    answered: u64,
    hash: u64,
}

fn many(args: &Args) -> Outcome {
    let started = Instant::now();
    let mut sums = Sums::default();
    let mut failed = Vec::new();
    for seed in args.from..args.from + args.seeds {
        let outcome = sim::run(options(args, seed, 50));
        sums.events += outcome.events;
        sums.faults += outcome.faults;
        sums.simulated += outcome.simulated.as_secs_f64();
        sums.moves += outcome.moves;
        sums.answered += outcome.answered;
        sums.hash = sums.hash.rotate_left(5) ^ outcome.hash;
        if let Some(violation) = &outcome.violation {
            println!("\nseed {seed} breaks a promise: {violation}");
            if failed.len() < 3 {
                print_story(&outcome);
            }
            println!(
                "repeat it with: cargo xtask sim --seed {seed}{}",
                profile_flag(args)
            );
            failed.push(seed);
            if args.first {
                break;
            }
        }
    }
    print_sums(args, &sums, started.elapsed().as_secs_f64());
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{} of {} seeds break a promise",
        failed.len(),
        args.seeds
    ))
    .because(format!("seeds {failed:?}"))
    .hint(format!(
        "cargo xtask sim --seed {}{}",
        failed[0],
        profile_flag(args)
    )))
}

fn profile_flag(args: &Args) -> &'static str {
    if args.profile == Profile::Fast {
        " --profile fast"
    } else {
        ""
    }
}

fn print_sums(args: &Args, sums: &Sums, seconds: f64) {
    let mut table = Table::new(&["", "in all", "per CPU second"]);
    let mut row = |name: &str, value: f64| {
        let per = if seconds > 0.0 { value / seconds } else { 0.0 };
        table.row(vec![
            name.into(),
            format!("{value:.0}"),
            format!("{per:.0}"),
        ]);
    };
    row(
        "seeds",
        f64::from(u32::try_from(args.seeds).unwrap_or(u32::MAX)),
    );
    row("simulated seconds", sums.simulated);
    let count = |value: u64| f64::from(u32::try_from(value).unwrap_or(u32::MAX));
    row("events", count(sums.events));
    row("faults", count(sums.faults));
    row("moves of the group", count(sums.moves));
    row("answers to the application", count(sums.answered));
    print!("{}", table.text());
    println!("CPU seconds: {seconds:.1}, hash of all: {:016x}", sums.hash);
}

fn all_mutants(args: &Args) -> Outcome {
    let mut table = Table::new(&["defect", "rule", "noticed by", "where", "seeds", "CPU s"]);
    let (mut survivors, mut killed) = (Vec::new(), 0);
    for entry in mutants::catalog() {
        let name = format!("{:?}", entry.mutant);
        if args
            .mutant
            .as_ref()
            .is_some_and(|only| !name.to_lowercase().contains(&only.to_lowercase()))
        {
            continue;
        }
        let started = Instant::now();
        let row = |by: String, place: String, seeds: u64, spent: f64| {
            vec![
                name.clone(),
                entry.rule.into(),
                by,
                place,
                seeds.to_string(),
                format!("{spent:.1}"),
            ]
        };
        if let Some(why) = entry.not_built {
            table.row(row(format!("not built: {why}"), String::new(), 0, 0.0));
            continue;
        }
        let limit = MUTANT_SEEDS_MAX.min(args.seeds.max(200));
        let found = mutants::hunt(entry, limit, timing(args));
        let spent = started.elapsed().as_secs_f64();
        match found {
            Caught::By {
                checker,
                place,
                runs,
            } => {
                println!("{name}: {checker}, {place}, {spent:.1} s");
                table.row(row(checker.to_owned(), place, runs, spent));
                killed += 1;
            }
            Caught::Never { runs } => {
                println!("{name}: SURVIVED {runs} runs");
                table.row(row("SURVIVED".to_owned(), String::new(), runs, spent));
                survivors.push(name);
            }
        }
    }
    print!("\n{}", table.text());
    println!("defects: {killed} caught, {} survived", survivors.len());
    if survivors.is_empty() {
        return Ok(());
    }
    Err(Failure::new("deliberate defects went unnoticed").because(survivors.join(", ")))
}
