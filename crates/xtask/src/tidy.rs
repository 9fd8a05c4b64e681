//! `cargo xtask tidy`: the rules of the code base that no compiler knows. One file per rule.

mod bugs;
mod edges;
mod lengths;
mod links;
mod promises;
mod unsafety;
mod words;

use crate::failure::{Failure, Outcome};
use crate::project::Project;

/// A rule lists what breaks it, one line each: `file:line: what is wrong`.
type Rule = fn(&Project, &[String]) -> Outcome<Vec<String>>;

const RULES: [(&str, Rule); 7] = [
    ("dependency edges", edges::check),
    ("unsafe only in host", unsafety::check),
    ("links of the docs", links::check),
    ("named tests exist", promises::check),
    ("historical bugs have tests", bugs::check),
    ("file lengths", lengths::check),
    ("unfinished words", words::check),
];

/// Checks every rule.
pub(crate) fn run(project: &Project) -> Outcome {
    let files = project.files()?;
    let mut broken = 0;
    for (name, rule) in RULES {
        let findings = rule(project, &files)?;
        broken += usize::from(!findings.is_empty());
        println!(
            "tidy: {name}: {}",
            if findings.is_empty() { "ok" } else { "FAILED" }
        );
        for finding in findings {
            println!("  {finding}");
        }
    }
    println!("tidy: {} passed, {broken} failed", RULES.len() - broken);
    if broken == 0 {
        return Ok(());
    }
    Err(
        Failure::new(format!("{broken} rules of the code base are broken"))
            .hint("docs/hacking.md explains each rule"),
    )
}

/// Lowers the recorded lengths of files that became shorter.
pub(crate) fn tighten(project: &Project) -> Outcome {
    lengths::tighten(project, &project.files()?)
}

/// The name of the crate that a file belongs to.
fn crate_of(file: &str) -> Option<&str> {
    file.strip_prefix("crates/")?.split('/').next()
}
