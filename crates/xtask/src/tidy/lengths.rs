//! Files stay short. A file over the limit is recorded with its length, and may only become shorter.
//!
//! The unit tests at a file's end do not count; a file of tests may be twice as long.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use crate::failure::{Context, Outcome};
use crate::project::Project;

/// Lines of a Rust file. Beyond it a file needs an entry in the ratchet.
const LINES_MAX: usize = 500;

/// The same for a file that holds tests only.
const TEST_LINES_MAX: usize = 1000;

/// The recorded exceptions: `lines path`, one per line.
const RATCHET: &str = "crates/xtask/lengths.txt";

pub(crate) fn check(project: &Project, files: &[String]) -> Outcome<Vec<String>> {
    let recorded = parse(&project.read(RATCHET)?);
    let lengths = lengths(project, files)?;
    let mut findings = Vec::new();
    for (file, &lines) in &lengths {
        let limit = recorded
            .get(file)
            .copied()
            .unwrap_or_else(|| limit_of(file));
        if lines > limit {
            findings.push(format!("{file}: {lines} lines, at most {limit}; split it"));
        }
    }
    for file in recorded.keys().filter(|file| !lengths.contains_key(*file)) {
        findings.push(format!(
            "{RATCHET}: {file} does not exist; run `cargo xtask fix`"
        ));
    }
    Ok(findings)
}

/// Records shorter lengths; never longer ones.
pub(crate) fn tighten(project: &Project, files: &[String]) -> Outcome {
    let recorded = parse(&project.read(RATCHET)?);
    let lengths = lengths(project, files)?;
    let mut out = String::new();
    for (file, limit) in recorded {
        match lengths.get(&file) {
            Some(&lines) if lines > limit_of(&file) => {
                let _ = writeln!(out, "{} {file}", lines.min(limit));
            }
            Some(_) | None => {}
        }
    }
    fs::write(project.root.join(RATCHET), out).context(format!("write {RATCHET}"))
}

fn parse(text: &str) -> BTreeMap<String, usize> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(lines, file)| Some((file.to_owned(), lines.parse().ok()?)))
        .collect()
}

fn lengths(project: &Project, files: &[String]) -> Outcome<BTreeMap<String, usize>> {
    let mut lengths = BTreeMap::new();
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        lengths.insert(file.clone(), counted(&project.read(file)?));
    }
    Ok(lengths)
}

fn limit_of(file: &str) -> usize {
    if file.ends_with("/tests.rs") || file.contains("/tests/") {
        TEST_LINES_MAX
    } else {
        LINES_MAX
    }
}

/// The lines before the unit tests.
fn counted(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests {"));
    tests.unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_tests_do_not_count() {
        assert_eq!(counted("fn a() {}\n\n#[cfg(test)]\nmod tests {\n}\n"), 2);
        assert_eq!(counted("#[cfg(test)]\nmod tests;\nfn a() {}\n"), 3);
    }

    #[test]
    fn an_entry_is_a_number_and_a_path() {
        let recorded = parse("612 crates/a/src/b.rs\n");
        assert_eq!(recorded["crates/a/src/b.rs"], 612);
    }
}
