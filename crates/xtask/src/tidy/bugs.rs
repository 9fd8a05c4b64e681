//! Each historical bug of `docs/bugs.md` names a test that exists, and a deliberate defect that exists.
//!
//! A row is `| number | text | tests | defects |`, with tests and defects as code spans.

use crate::failure::Outcome;
use crate::project::Project;

const FILE: &str = "docs/bugs.md";
const DEFECTS: &str = "crates/wire/src/mutant.rs";
const TESTS: &str = "crates/mirror/src/world/bugs/";

/// How many bugs the list has.
const BUGS: u32 = 18;

pub(crate) fn check(project: &Project, files: &[String]) -> Outcome<Vec<String>> {
    let text = project.read(FILE)?;
    let defects = project.read(DEFECTS)?;
    let mut tests = String::new();
    for file in files.iter().filter(|file| file.starts_with(TESTS)) {
        tests.push_str(&project.read(file)?);
    }
    Ok(findings(&text, &tests, &defects))
}

fn findings(text: &str, tests: &str, defects: &str) -> Vec<String> {
    let rows: Vec<Row<'_>> = text.lines().filter_map(row).collect();
    let missing = (1..=BUGS)
        .filter(|bug| rows.iter().all(|row| row.bug != *bug))
        .map(|bug| format!("{FILE}: bug {bug} has no test"));
    let mut findings: Vec<String> = missing.collect();
    for row in &rows {
        let bug = row.bug;
        if row.tests.is_empty() || row.defects.is_empty() {
            findings.push(format!("{FILE}: bug {bug}: a row without test or defect"));
        }
        let lost = |test: &&&str| !tests.contains(&format!("fn {test}("));
        for test in row.tests.iter().filter(lost) {
            findings.push(format!("{FILE}: bug {bug}: {test} does not exist"));
        }
        let lost = |defect: &&&str| !defects.contains(&format!("    {defect},\n"));
        for defect in row.defects.iter().filter(lost) {
            findings.push(format!("{FILE}: bug {bug}: there is no defect {defect}"));
        }
    }
    findings
}

struct Row<'a> {
    bug: u32,
    tests: Vec<&'a str>,
    defects: Vec<&'a str>,
}

fn row(line: &str) -> Option<Row<'_>> {
    let cells: Vec<&str> = line.strip_prefix('|')?.split('|').collect();
    let [bug, _, tests, defects, ..] = cells[..] else {
        return None;
    };
    Some(Row {
        bug: bug.trim().parse().ok()?,
        tests: tests.split('`').skip(1).step_by(2).collect(),
        defects: defects.split('`').skip(1).step_by(2).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_names_tests_and_defects() {
        let row = row("| 9 | order | `bug_9_a`, `bug_9_b` | `Late` |").unwrap();
        assert_eq!(
            (row.bug, row.tests, row.defects),
            (9, vec!["bug_9_a", "bug_9_b"], vec!["Late"])
        );
        assert!(super::row("|---|---|---|---|").is_none());
    }

    #[test]
    fn what_does_not_exist_is_found() {
        let text: String = (1..=BUGS)
            .map(|n| format!("| {n} | x | `t` | `D` |\n"))
            .collect();
        assert!(findings(&text, "fn t() {", "    D,\n").is_empty());
        let bugs = usize::try_from(BUGS).unwrap();
        assert_eq!(findings(&text, "fn other() {", "    D,\n").len(), bugs);
        assert_eq!(findings(&text, "fn t() {", "    E,\n").len(), bugs);
        assert_eq!(findings("", "", "").len(), bugs);
    }
}
