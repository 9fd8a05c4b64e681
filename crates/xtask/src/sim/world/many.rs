//! Many seeds, at random or in one scenario: which break a promise, and how much was tried.

use super::{Args, options, play, print_story, profile_flag, replicas_flags, switch, workers};
use crate::failure::{Failure, Outcome};
use crate::table::{Table, grouped};
use std::time::Instant;

/// Failures that are told with their story.
const STORIES_MAX: usize = 3;

/// Sums over many runs.
#[derive(Debug, Default)]
struct Sums {
    seeds: u64,
    events: u64,
    faults: u64,
    simulated: f64,
    moves: u64,
    answered: u64,
    cpu: f64,
    hash: u64,
}

pub(super) fn run(args: &Args) -> Outcome {
    let started = Instant::now();
    let seeds: Vec<u64> = (args.from..args.from + args.seeds).collect();
    let jobs = workers::jobs(args.jobs);
    let runs = workers::map(
        &seeds,
        jobs,
        |seed| workers::timed(|| try_seed(args, *seed)),
        |(outcome, _)| args.first && outcome.as_ref().is_ok_and(|o| o.violation.is_some()),
    );
    let mut sums = Sums::default();
    let mut failed = Vec::new();
    for (outcome, cpu) in runs {
        let outcome = outcome?;
        sums.add(&outcome, cpu);
        if outcome.violation.is_some() {
            tell_failure(args, &outcome, failed.len() < STORIES_MAX);
            failed.push(outcome.seed);
        }
    }
    sums.print(failed.len(), started.elapsed().as_secs_f64());
    judge(args, sums.seeds, &failed)
}

fn try_seed(args: &Args, seed: u64) -> Outcome<sim::Outcome> {
    switch(args)?;
    match &args.scenario {
        Some(name) => play(args, name, seed, 50),
        None => Ok(sim::run(options(args, seed, 50))),
    }
}

fn tell_failure(args: &Args, outcome: &sim::Outcome, story: bool) {
    if let Some(violation) = &outcome.violation {
        println!("\nseed {} breaks a promise: {violation}", outcome.seed);
    }
    if story {
        print_story(outcome);
    }
    println!("repeat it with: {}", repeat(args, outcome.seed));
}

fn repeat(args: &Args, seed: u64) -> String {
    let flag = |name: &str, value: &Option<String>| {
        value
            .as_ref()
            .map_or_else(String::new, |value| format!(" --{name} {value}"))
    };
    format!(
        "cargo xtask sim --seed {seed}{}{}{}{}",
        profile_flag(args),
        replicas_flags(args),
        flag("scenario", &args.scenario),
        flag("mutant", &args.mutant),
    )
}

fn judge(args: &Args, seeds: u64, failed: &[u64]) -> Outcome {
    let Some(first) = failed.first() else {
        return Ok(());
    };
    let what = format!("{} of {seeds} seeds break a promise", failed.len());
    Err(Failure::new(what)
        .because(format!("seeds {failed:?}"))
        .hint(repeat(args, *first)))
}

impl Sums {
    fn add(&mut self, outcome: &sim::Outcome, cpu: f64) {
        self.seeds += 1;
        self.events += outcome.events;
        self.faults += outcome.faults;
        self.simulated += outcome.simulated.as_secs_f64();
        self.moves += outcome.moves;
        self.answered += outcome.answered;
        self.cpu += cpu;
        self.hash = self.hash.rotate_left(5) ^ outcome.hash;
    }

    fn print(&self, violations: usize, elapsed: f64) {
        let mut table = Table::new(&["", "in all", "per CPU second"]);
        let mut row = |name: &str, count: u64, exact: f64| {
            let per = if self.cpu > 0.0 {
                format!("{:.0}", exact / self.cpu)
            } else {
                String::new()
            };
            table.row(vec![name.into(), grouped(count), per]);
        };
        let mut count = |name: &str, value: u64| {
            row(
                name,
                value,
                f64::from(u32::try_from(value).unwrap_or(u32::MAX)),
            );
        };
        count("seeds", self.seeds);
        count("events", self.events);
        count("faults", self.faults);
        count("moves of the group", self.moves);
        count("answers to the application", self.answered);
        count("simulated seconds", whole(self.simulated));
        print!("{}", table.text());
        println!(
            "violations: {violations}; {:.1} CPU seconds in {elapsed:.1} s, hash of all: {:016x}",
            self.cpu, self.hash
        );
    }
}

/// Whole seconds of a sum that is neither negative nor beyond all bounds.
fn whole(seconds: f64) -> u64 {
    std::time::Duration::try_from_secs_f64(seconds).map_or(0, |d| d.as_secs())
}
