//! `cargo xtask ci` and `cargo xtask test quick`: the steps, in order, and what became of each.

use std::time::Instant;

use crate::failure::{Failure, Outcome};
use crate::project::Project;
use crate::shell::{self, cargo, command};
use crate::table::Table;
use crate::{e2e, tidy, tlc};

/// A named part of a check.
struct Step {
    name: &'static str,
    run: fn(&Project) -> Outcome,
}

/// Everything that must hold before a change lands. Read-only; `cargo xtask fix` mends what can be mended by itself.
pub(crate) fn all(project: &Project) -> Outcome {
    run(
        project,
        &[
            Step {
                name: "fmt",
                run: fmt,
            },
            Step {
                name: "clippy",
                run: clippy,
            },
            Step {
                name: "tidy",
                run: tidy::run,
            },
            Step {
                name: "unit tests",
                run: unit_tests,
            },
            Step {
                name: "doc",
                run: doc,
            },
            Step {
                name: "deny",
                run: deny,
            },
            Step {
                name: "sim",
                run: |project| simulate(project, &["--seeds", "500"]),
            },
            Step {
                name: "sim, fast",
                run: |project| simulate(project, &["--seeds", "200", "--profile", "fast"]),
            },
            Step {
                name: "sim, three replicas",
                run: |project| simulate(project, &["--seeds", "300", "--replicas", "3"]),
            },
            Step {
                name: "sim, short first sync",
                run: |project| simulate(project, &["--seeds", "100", "--used-only"]),
            },
            Step {
                name: "mutants",
                run: |project| simulate(project, &["--mutants"]),
            },
            Step {
                name: "bugs",
                run: bugs,
            },
            Step {
                name: "e2e",
                run: |project| e2e::run(project, e2e::Depth::Once, None),
            },
            Step {
                name: "tlc",
                run: |project| tlc::run(project, true, None),
            },
        ],
    )
}

/// What a developer runs after every change.
pub(crate) fn quick(project: &Project) -> Outcome {
    run(
        project,
        &[
            Step {
                name: "fmt",
                run: fmt,
            },
            Step {
                name: "tidy",
                run: tidy::run,
            },
            Step {
                name: "unit tests",
                run: unit_tests,
            },
        ],
    )
}

/// Runs every step, failed ones before it or not: one round shows all that is wrong.
fn run(project: &Project, steps: &[Step]) -> Outcome {
    let mut table = Table::new(&["step", "seconds", "result"]);
    let mut failed = Vec::new();
    for step in steps {
        println!("\n== {}", step.name);
        let started = Instant::now();
        let outcome = (step.run)(project);
        let result = if outcome.is_ok() { "ok" } else { "FAILED" };
        if let Err(failure) = outcome {
            eprintln!("{failure}");
            failed.push(step.name);
        }
        let seconds = format!("{:.1}", started.elapsed().as_secs_f64());
        table.row(vec![step.name.into(), seconds, result.into()]);
    }
    print!("\n{}", table.text());
    println!(
        "steps: {} passed, {} failed",
        steps.len() - failed.len(),
        failed.len()
    );
    if failed.is_empty() {
        return Ok(());
    }
    Err(
        Failure::new(format!("{} of {} steps failed", failed.len(), steps.len()))
            .because(failed.join(", ")),
    )
}

fn simulate(project: &Project, args: &[&str]) -> Outcome {
    shell::run(shell::own(&project.root)?.arg("sim").args(args))
}

fn fmt(project: &Project) -> Outcome {
    shell::run(cargo(&project.root).args(["fmt", "--all", "--check"]))
        .map_err(|failure| failure.hint("cargo xtask fix"))
}

fn clippy(project: &Project) -> Outcome {
    let args = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    shell::run(cargo(&project.root).args(args))
}

fn unit_tests(project: &Project) -> Outcome {
    if shell::present("cargo-nextest", "--version") {
        shell::run(cargo(&project.root).args(["nextest", "run", "--workspace", "--locked"]))
    } else {
        shell::run(cargo(&project.root).args(["test", "--workspace", "--locked", "--quiet"]))
    }
}

/// Every test of a historical bug, and of other defects that only the mirror's own world can show, fails with the defect.
fn bugs(project: &Project) -> Outcome {
    let args = ["test", "--package", "mirror", "--features", "mutants"];
    shell::run(
        cargo(&project.root)
            .args(args)
            .args(["--locked", "--quiet", "--"])
            .args(["bug", "is_noticed"]),
    )
}

fn doc(project: &Project) -> Outcome {
    let args = [
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
        "--locked",
    ];
    shell::run(cargo(&project.root).args(args).env(
        "RUSTDOCFLAGS",
        "-D warnings -A rustdoc::private_intra_doc_links",
    ))
}

/// Licences and sources of the dependencies; skipped where cargo-deny is not installed.
fn deny(project: &Project) -> Outcome {
    if !shell::present("cargo-deny", "--version") {
        println!("skipped: cargo-deny is not installed (cargo install cargo-deny)");
        return Ok(());
    }
    let checks = ["--offline", "check", "licenses", "bans", "sources"];
    shell::run(command("cargo-deny", &project.root).args(checks))
}
