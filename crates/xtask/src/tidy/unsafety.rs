//! `unsafe` lives in crate `host`, and each block says why it is there and why it is sound.

use super::crate_of;
use crate::failure::Outcome;
use crate::project::Project;

/// Comment lines that are searched above a block.
const COMMENT_LINES_MAX: usize = 12;

pub(crate) fn check(project: &Project, files: &[String]) -> Outcome<Vec<String>> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        let text = project.read(file)?;
        let at_home = crate_of(file) == Some("host");
        for (line, what) in judge(&text, at_home) {
            findings.push(format!("{file}:{line}: {what}"));
        }
    }
    Ok(findings)
}

fn judge(text: &str, at_home: bool) -> Vec<(usize, &'static str)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut findings = Vec::new();
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| opens(line)) {
        let number = index + 1;
        if !at_home {
            findings.push((number, "unsafe outside of crate host"));
            continue;
        }
        // A function's contract stands in its documentation; the blocks that call it are checked.
        if line.contains("unsafe fn ") {
            continue;
        }
        let above = comment_above(&lines[..index]);
        if !above.contains("SAFETY:") && !line.contains("SAFETY:") {
            findings.push((number, "unsafe without `// SAFETY:`"));
        }
        if !above.contains("JUSTIFICATION:") {
            findings.push((number, "unsafe without `// JUSTIFICATION:`"));
        }
    }
    findings
}

/// Whether a line of code (not of comment) opens an unsafe block, impl or function.
fn opens(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    ["unsafe {", "unsafe impl ", "unsafe extern ", "unsafe fn "]
        .iter()
        .any(|form| code.contains(form) && !code.contains(&format!("\"{form}")))
}

/// The comment that ends right above, through the lines of a statement that was broken over several.
fn comment_above(lines: &[&str]) -> String {
    let last = lines.iter().rev().take(COMMENT_LINES_MAX);
    let block: Vec<&str> = last
        .map(|line| line.trim())
        .take_while(|line| !line.ends_with(';') && !line.ends_with('}') && !line.is_empty())
        .collect();
    block.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_of_host_there_is_none() {
        let text = format!("let x = {} {{ y() }};", "unsafe");
        assert_eq!(judge(&text, false), [(1, "unsafe outside of crate host")]);
    }

    #[test]
    fn in_host_both_comments_are_needed() {
        let block = format!("let x = {} {{ y() }};", "unsafe");
        assert_eq!(judge(&block, true).len(), 2);
        let text = format!("// JUSTIFICATION: no safe call.\n// SAFETY: fd is open.\n{block}");
        assert_eq!(judge(&text, true), []);
    }

    #[test]
    fn words_in_comments_do_not_count() {
        assert_eq!(judge("//! the only unsafe { code }\n", false), []);
    }
}
