//! Every deliberate defect: which promise notices it, and where.

use super::{Args, timing, workers};
use crate::failure::{Failure, Outcome};
use crate::table::Table;
use sim::mutants::{self, Catch, Entry, Hunt, SCENARIO_SEEDS};

/// Random seeds that a defect may survive, at least.
const SEEDS: u64 = 200;
/// Places without meaning that are named in the table.
const VOID_MAX: usize = 3;

pub(super) fn run(args: &Args) -> Outcome {
    let entries: Vec<Entry> = (mutants::catalog().into_iter())
        .filter(|entry| is_asked_for(args, *entry))
        .collect();
    let hunts = workers::map(
        &entries,
        workers::jobs(args.jobs),
        |entry| {
            let hunt =
                workers::timed(|| mutants::hunt(*entry, args.seeds.max(SEEDS), timing(args)));
            println!("{:?}: {}", entry.mutant, verdict(&hunt.0));
            hunt
        },
        |_| false,
    );
    report(&entries, &hunts)
}

fn is_asked_for(args: &Args, entry: Entry) -> bool {
    let name = format!("{:?}", entry.mutant).to_lowercase();
    args.mutant
        .as_ref()
        .is_none_or(|only| name.contains(&only.to_lowercase()))
}

fn verdict(hunt: &Hunt) -> String {
    hunt.catch
        .as_ref()
        .map_or_else(|| "SURVIVED".to_owned(), |catch| catch.checker.to_owned())
}

fn report(entries: &[Entry], hunts: &[(Hunt, f64)]) -> Outcome {
    let mut table = Table::new(&[
        "defect",
        "rule",
        "noticed by",
        "where",
        "seeds",
        "runs",
        "CPU s",
        "void",
    ]);
    let mut survivors = Vec::new();
    for (entry, (hunt, cpu)) in entries.iter().zip(hunts) {
        if hunt.catch.is_none() {
            survivors.push(format!("{:?}", entry.mutant));
        }
        table.row(row(*entry, hunt, *cpu));
    }
    let cpu: f64 = hunts.iter().map(|(_, cpu)| cpu).sum();
    let killed = entries.len() - survivors.len();
    print!("\n{}", table.text());
    println!(
        "defects: {killed} of {} noticed, {cpu:.0} CPU seconds",
        entries.len()
    );
    if survivors.is_empty() {
        return Ok(());
    }
    Err(Failure::new("deliberate defects went unnoticed").because(survivors.join(", ")))
}

fn row(entry: Entry, hunt: &Hunt, cpu: f64) -> Vec<String> {
    let catch = hunt.catch.as_ref();
    vec![
        format!("{:?}", entry.mutant),
        entry.rule.to_owned(),
        verdict(hunt),
        catch.map_or_else(String::new, |catch| catch.place.clone()),
        catch.map_or_else(String::new, of_seeds),
        hunt.runs.to_string(),
        format!("{cpu:.1}"),
        void(hunt),
    ]
}

/// In how many seeds of its scenario it is noticed; a random run is one of its own.
fn of_seeds(catch: &Catch) -> String {
    catch.of_seeds.map_or_else(
        || "random".to_owned(),
        |caught| format!("{caught}/{SCENARIO_SEEDS}"),
    )
}

/// Places that fail without the defect too.
fn void(hunt: &Hunt) -> String {
    let named: Vec<&str> = (hunt.void.iter())
        .take(VOID_MAX)
        .map(String::as_str)
        .collect();
    named.join("; ")
}
