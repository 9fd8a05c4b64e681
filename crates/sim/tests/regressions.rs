//! Runs that must stay well: seeds that once broke a promise, every scenario, and the replay itself.

use sim::{Level, Options, Outcome, Timing, run, scenario};

/// Scenarios are played with so many seeds here; `cargo xtask sim --mutants` plays twenty.
const SCENARIO_SEEDS: u64 = 4;

fn broken(outcome: &Outcome) -> Option<String> {
    outcome.violation.as_ref().map(ToString::to_string)
}

/// The options that a line of `seeds.txt` stands for; none for a comment.
fn recorded(line: &str) -> Option<Options> {
    let mut words = line.split_whitespace();
    let seed = words.next()?.parse().ok()?;
    let timing = match words.next()? {
        "lan" => Timing::LAN,
        "fast" => Timing::FAST,
        other => panic!("there is no profile {other}"),
    };
    let level = match words.next() {
        Some("flush") => Level::Flush,
        Some("async") => Level::Async,
        Some(_) | None => Level::Write,
    };
    Some(Options {
        level,
        ..Options::of_seed(seed, timing)
    })
}

#[test]
fn recorded_seeds_break_no_promise() {
    let seeds = include_str!("../seeds.txt").lines().filter_map(recorded);
    let mut played = 0;
    for options in seeds {
        played += 1;
        let seed = options.seed;
        assert_eq!(broken(&run(options)), None, "seed {seed}");
    }
    assert!(played > 0, "seeds.txt names no seed");
}

#[test]
fn every_scenario_breaks_no_promise() {
    for name in scenario::names() {
        for seed in 1..=SCENARIO_SEEDS {
            let outcome = scenario::play(name, seed, 0).unwrap();
            assert_eq!(broken(&outcome), None, "{name}, seed {seed}");
        }
    }
}

#[test]
fn equal_seeds_give_equal_runs() {
    let hash = |seed| run(Options::of_seed(seed, Timing::LAN)).hash;
    assert_eq!(hash(7), hash(7));
    assert_ne!(hash(7), hash(8));
}
