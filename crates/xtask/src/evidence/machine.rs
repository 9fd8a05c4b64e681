//! Where and on what a figure was measured.

use std::fs;

use crate::failure::Outcome;
use crate::project::Project;
use crate::shell;

/// The commit, and whether the tree differs from it.
pub(crate) fn commit(project: &Project) -> Outcome<String> {
    let mut git = shell::command("git", &project.root);
    let head = shell::capture(git.args(["rev-parse", "--short=12", "HEAD"]))?;
    let mut git = shell::command("git", &project.root);
    let changed = shell::capture(git.args(["status", "--porcelain"]))?;
    let mark = if changed.trim().is_empty() {
        ""
    } else {
        " with changes"
    };
    Ok(format!("{}{mark}", head.trim()))
}

/// Processor, memory and kernel, as far as they can be told.
pub(crate) fn describe() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = value(&read("/proc/cpuinfo"), "model name");
    let memory = value(&read("/proc/meminfo"), "MemTotal");
    let kernel = read("/proc/sys/kernel/osrelease");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "{cores} cores ({cpu}), {memory} memory, Linux {}",
        kernel.trim()
    )
}

fn value(text: &str, key: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(key));
    let value = line
        .and_then(|line| line.split_once(':'))
        .map(|(_, value)| value.trim());
    value.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_follows_its_key() {
        assert_eq!(
            value("a : 1\nmodel name\t: Fast CPU\n", "model name"),
            "Fast CPU"
        );
        assert_eq!(value("", "MemTotal"), "unknown");
    }
}
