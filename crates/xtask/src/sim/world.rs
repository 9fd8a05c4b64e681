//! `cargo xtask sim` in the build that contains the world.

mod hunts;
mod many;
mod workers;

use super::{Args, Profile};
use crate::failure::{Failure, Outcome};
use crate::project::Project;
use crate::table::grouped;
use sim::mutants;
use sim::{Options, Timing};

pub(crate) fn run(_: &Project, args: &Args) -> Outcome {
    // A failed assertion of a node is a finding like any other: told with its seed, not here.
    std::panic::set_hook(Box::new(|_| {}));
    if args.mutants {
        return hunts::run(args);
    }
    match (args.seed, &args.scenario) {
        (Some(seed), None) => one(args, seed),
        (Some(seed), Some(name)) => scenario(args, name, seed),
        (None, _) => many::run(args),
    }
}

/// Switches the defect that was asked for on, in this thread.
fn switch(args: &Args) -> Outcome {
    let Some(name) = &args.mutant else {
        return Ok(());
    };
    let mutant = mutants::named(name).ok_or_else(|| {
        Failure::new(format!("there is no deliberate defect {name}"))
            .hint("cargo xtask sim --mutants lists them")
    })?;
    mutants::switch(Some(mutant));
    Ok(())
}

fn timing(args: &Args) -> Timing {
    match args.profile {
        Profile::Lan => Timing::LAN,
        Profile::Fast => Timing::FAST,
    }
}

fn options(args: &Args, seed: u64, keep: usize) -> Options {
    let options = Options {
        keep: args.lines.unwrap_or(keep),
        watch: args.watch,
        used_only: args.used_only,
        ..Options::of_seed(seed, timing(args))
    };
    if args.replicas > 2 {
        options.with_three()
    } else {
        options
    }
}

fn one(args: &Args, seed: u64) -> Outcome {
    switch(args)?;
    let outcome = sim::run(options(args, seed, 100_000));
    tell(&format!("seed {seed}"), &outcome)
}

fn scenario(args: &Args, name: &str, seed: u64) -> Outcome {
    switch(args)?;
    let outcome = play(args, name, seed, 100_000)?;
    tell(&format!("scenario {name}, seed {seed}"), &outcome)
}

fn play(args: &Args, name: &str, seed: u64, keep: usize) -> Outcome<sim::Outcome> {
    let keep = args.lines.unwrap_or(keep);
    sim::scenario::play(name, seed, keep).ok_or_else(|| {
        let known: Vec<&str> = sim::scenario::names().collect();
        Failure::new(format!("there is no scenario {name}")).hint(known.join(", "))
    })
}

/// The story of one run, and what came of it.
fn tell(what: &str, outcome: &sim::Outcome) -> Outcome {
    print_story(outcome);
    println!(
        "{what}: {} events, {} faults, {:.1} s simulated, {} moves, {} answers, hash {:016x}",
        grouped(outcome.events),
        outcome.faults,
        outcome.simulated.as_secs_f64(),
        outcome.moves,
        grouped(outcome.answered),
        outcome.hash
    );
    match &outcome.violation {
        None => Ok(()),
        Some(violation) => Err(Failure::new(format!("{what} breaks a promise")).because(violation)),
    }
}

fn print_story(outcome: &sim::Outcome) {
    for line in &outcome.story {
        println!("{line}");
    }
}

fn profile_flag(args: &Args) -> &'static str {
    match args.profile {
        Profile::Fast => " --profile fast",
        Profile::Lan => "",
    }
}

fn replicas_flags(args: &Args) -> &'static str {
    match (args.replicas > 2, args.used_only) {
        (true, true) => " --replicas 3 --used-only",
        (true, false) => " --replicas 3",
        (false, true) => " --used-only",
        (false, false) => "",
    }
}
