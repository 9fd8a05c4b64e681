//! Nothing is left unfinished in the tree.

use crate::failure::Outcome;
use crate::project::Project;

/// What must not stand in code. Written in two halves, so that this file does not find itself.
const WORDS: [(&str, &str, &str); 7] = [
    ("todo", "!(", "finish it, or file it"),
    ("unimplemented", "!(", "finish it, or return an error"),
    ("FIX", "ME", "mend it, or file it"),
    ("XX", "X", "mend it, or file it"),
    ("dbg", "!(", "remove it"),
    ("#[ign", "ore", "a test that does not run proves nothing"),
    (
        "assert!(",
        "true)",
        "a test that cannot fail proves nothing",
    ),
];

const ENDINGS: [&str; 4] = [".rs", ".sh", ".toml", ".tla"];
const SCRIPTS: [&str; 3] = ["demo", "test", ".ci/run"];

pub(crate) fn check(project: &Project, files: &[String]) -> Outcome<Vec<String>> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| is_code(file)) {
        for (line, word, next) in judge(&project.read(file)?) {
            findings.push(format!("{file}:{line}: {word}: {next}"));
        }
    }
    Ok(findings)
}

fn is_code(file: &str) -> bool {
    SCRIPTS.contains(&file) || ENDINGS.iter().any(|ending| file.ends_with(ending))
}

fn judge(text: &str) -> Vec<(usize, String, &'static str)> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for (head, tail, next) in WORDS {
            let word = format!("{head}{tail}");
            if line.contains(&word) {
                findings.push((index + 1, word, next));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_line_is_found() {
        let text = format!("fn a() {{\n    {}{})\n}}", "todo", "!(");
        assert_eq!(judge(&text)[0].0, 2);
    }
}
