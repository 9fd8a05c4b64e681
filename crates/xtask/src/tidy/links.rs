//! Links between the documents lead somewhere.

use std::path::Path;

use crate::failure::Outcome;
use crate::project::Project;

pub(crate) fn check(project: &Project, files: &[String]) -> Outcome<Vec<String>> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.ends_with(".md")) {
        let text = project.read(file)?;
        let folder = Path::new(file).parent().unwrap_or_else(|| Path::new(""));
        for (line, target) in targets(&text) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || project.root.join(folder).join(path).exists() {
                continue;
            }
            findings.push(format!("{file}:{line}: {target} does not exist"));
        }
    }
    Ok(findings)
}

/// The relative targets of `[text](target)`, with their line numbers.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for rest in line.split("](").skip(1) {
            let Some((target, _)) = rest.split_once(')') else {
                continue;
            };
            let external = target.contains("://") || target.starts_with("mailto:");
            if !external && !target.contains(char::is_whitespace) {
                found.push((index + 1, target));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_relative_links_are_looked_up() {
        let text = "[a](b.md) and [c](https://d.example/e)\n[f](../g.md#h)";
        assert_eq!(targets(text), [(1, "b.md"), (2, "../g.md#h")]);
    }
}
