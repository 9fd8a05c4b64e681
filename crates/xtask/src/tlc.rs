//! `cargo xtask tlc`: the TLA+ models of `spec/`, and their mutants.
//!
//! A model is a configuration `spec/NAME.cfg` for the module `spec/NAME.tla`. Its comments say what must happen:
//!
//! ```text
//! \* mutant R1 breaks NoAckedLost: what the mutant does wrong     (above `CONSTANT = FALSE`)
//! \* reach PowerLosesUnflushed: why this state must be reachable  (an invariant that has to fail)
//! ```
//!
//! The model itself must hold. Each mutant, with its constant set to TRUE and only the named invariant checked, must be
//! caught. Every invariant is named by a mutant, so none can be true by construction.

mod checker;
mod jar;
mod model;

use std::time::Duration;

use crate::failure::{Failure, Outcome};
use crate::project::Project;
use crate::table::{Table, grouped};

use checker::{Checker, Verdict};
use model::Model;

/// One run of TLC and whether it ended as it must.
#[derive(Debug)]
struct Run {
    name: String,
    expected: Expected,
    verdict: Verdict,
    generated: u64,
    distinct: u64,
    took: Duration,
}

#[derive(Debug)]
enum Expected {
    Holds,
    Violated { invariant: String, why: String },
}

impl Run {
    fn passed(&self) -> bool {
        match (&self.expected, &self.verdict) {
            (Expected::Holds, Verdict::Holds) => true,
            (Expected::Violated { invariant, .. }, Verdict::Violated(found)) => invariant == found,
            (Expected::Holds | Expected::Violated { .. }, _) => false,
        }
    }

    fn result(&self) -> String {
        let found = match &self.verdict {
            Verdict::Holds => "holds".to_owned(),
            Verdict::Violated(invariant) => format!("{invariant} violated"),
            Verdict::Broken(why) => format!("TLC: {why}"),
        };
        let mark = if self.passed() { "ok" } else { "FAILED" };
        match &self.expected {
            Expected::Holds => format!("{mark}: {found}"),
            Expected::Violated { why, .. } => format!("{mark}: {found} ({why})"),
        }
    }
}

/// Runs every model whose name contains `only`, and its mutants when asked.
pub(crate) fn run(project: &Project, mutants: bool, only: Option<&str>) -> Outcome {
    let models = models(project, only)?;
    let checker = Checker::new(project)?;
    let mut runs = Vec::new();
    for model in &models {
        runs.push(checked(&checker, model, Expected::Holds, None)?);
        for reach in &model.reaches {
            let expected = Expected::Violated {
                invariant: reach.invariant.clone(),
                why: reach.why.clone(),
            };
            runs.push(checked(&checker, model, expected, None)?);
        }
        for mutant in model.mutants.iter().filter(|_| mutants) {
            let expected = Expected::Violated {
                invariant: mutant.breaks.clone(),
                why: format!("{}: {}", mutant.rule, mutant.why),
            };
            runs.push(checked(&checker, model, expected, Some(&mutant.constant))?);
        }
    }
    report(&runs)
}

fn models(project: &Project, only: Option<&str>) -> Outcome<Vec<Model>> {
    let mut models = Vec::new();
    for file in project.files()? {
        let name = file
            .strip_prefix("spec/")
            .and_then(|f| f.strip_suffix(".cfg"));
        let Some(name) = name.filter(|name| only.is_none_or(|part| name.contains(part))) else {
            continue;
        };
        models.push(Model::parse(name, &project.read(&file)?)?);
    }
    if models.is_empty() {
        return Err(Failure::new("no model to check").hint("see spec/README.md for their names"));
    }
    Ok(models)
}

fn checked(
    checker: &Checker,
    model: &Model,
    expected: Expected,
    mutant: Option<&str>,
) -> Outcome<Run> {
    let invariants = match &expected {
        Expected::Holds => model.invariants.clone(),
        Expected::Violated { invariant, .. } => vec![invariant.clone()],
    };
    let name = match mutant {
        Some(constant) => format!("{} {constant}", model.name),
        None => model.name.clone(),
    };
    let config = model.config(&invariants, mutant);
    let checked = checker.check(&model.name, &config)?;
    let run = Run {
        name,
        expected,
        verdict: checked.verdict,
        generated: checked.generated,
        distinct: checked.distinct,
        took: checked.took,
    };
    eprintln!("tlc: {}: {}", run.name, run.result());
    if !run.passed() {
        eprintln!("{}", checked.output);
    }
    Ok(run)
}

fn report(runs: &[Run]) -> Outcome {
    let mut table = Table::new(&["model", "generated", "distinct", "seconds", "result"]);
    for run in runs {
        table.row(vec![
            run.name.clone(),
            grouped(run.generated),
            grouped(run.distinct),
            format!("{:.1}", run.took.as_secs_f64()),
            run.result(),
        ]);
    }
    print!("{}", table.text());
    let failed = runs.iter().filter(|run| !run.passed()).count();
    println!("tlc: {} passed, {failed} failed", runs.len() - failed);
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{failed} model runs did not end as they must"
    )))
}
