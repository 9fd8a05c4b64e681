//! Each promise of `docs/guarantees.md` names a test, a model or a scenario that exists, or says *pending*.
//!
//! A promise is a heading `## G1 …`. Its evidence stands in the lines that start with `Shown by:`, as code spans:
//! `crate::module::test_name` (the function's name is looked up), `spec/Late.tla`, `e2e: name`, `sim: checker`.

use crate::failure::Outcome;
use crate::project::Project;

const FILE: &str = "docs/guarantees.md";

/// The number of promises of the design.
const PROMISES: usize = 10;

pub(crate) fn check(project: &Project, files: &[String]) -> Outcome<Vec<String>> {
    let text = project.read(FILE)?;
    let promises = promises(&text);
    let mut findings = Vec::new();
    if promises.len() != PROMISES {
        findings.push(format!(
            "{FILE}: {} promises, not {PROMISES}",
            promises.len()
        ));
    }
    let sources = sources(project, files)?;
    for promise in &promises {
        let title = promise.title;
        if promise.evidence.is_empty() && !promise.pending {
            findings.push(format!(
                "{FILE}: {title}: names no test and does not say *pending*"
            ));
        }
        for evidence in &promise.evidence {
            if !exists(evidence, files, &sources) {
                findings.push(format!("{FILE}: {title}: {evidence} does not exist"));
            }
        }
    }
    Ok(findings)
}

struct Promise<'a> {
    title: &'a str,
    evidence: Vec<&'a str>,
    pending: bool,
}

fn promises(text: &str) -> Vec<Promise<'_>> {
    let mut promises: Vec<Promise<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## G") {
            let title = title.split([' ', ':']).next().unwrap_or(title);
            promises.push(Promise {
                title,
                evidence: Vec::new(),
                pending: false,
            });
        } else if let (Some(last), true) = (promises.last_mut(), line.starts_with("Shown by:")) {
            last.evidence.extend(line.split('`').skip(1).step_by(2));
            last.pending |= line.contains("*pending*");
        }
    }
    promises
}

/// The text of every Rust source, for the names of functions and scenarios.
fn sources(project: &Project, files: &[String]) -> Outcome<String> {
    let mut all = String::new();
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        all.push_str(&project.read(file)?);
        all.push('\n');
    }
    Ok(all)
}

fn exists(evidence: &str, files: &[String], sources: &str) -> bool {
    if evidence.contains('/') {
        return files.iter().any(|file| file == evidence);
    }
    if let Some(scenario) = evidence.strip_prefix("e2e: ") {
        return sources.contains(&format!("name: \"{scenario}\""));
    }
    if let Some(checker) = evidence.strip_prefix("sim: ") {
        return files
            .iter()
            .any(|f| f.starts_with("crates/sim/") && f.ends_with(&format!("/{checker}.rs")));
    }
    let function = evidence.rsplit("::").next().unwrap_or(evidence);
    sources.contains(&format!("fn {function}("))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_read_from_the_code_spans() {
        let text = "## G1 one active\nShown by: `spec/Lease.tla`, `a::b`; *pending* on hardware\n";
        let promises = promises(text);
        assert_eq!(promises[0].title, "1");
        assert_eq!(promises[0].evidence, ["spec/Lease.tla", "a::b"]);
        assert!(promises[0].pending);
    }

    #[test]
    fn a_test_is_found_by_its_function() {
        assert!(exists("cluster::lease::ends_once", &[], "fn ends_once() {"));
        assert!(!exists(
            "cluster::lease::ends_twice",
            &[],
            "fn ends_once() {"
        ));
        assert!(exists("spec/Late.tla", &["spec/Late.tla".to_owned()], ""));
    }
}
