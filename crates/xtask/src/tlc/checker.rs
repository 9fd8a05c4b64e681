//! One run of TLC.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::jar;
use crate::failure::{Context, Failure, Outcome};
use crate::project::Project;
use crate::shell;

/// Threads of one run.
const WORKERS: &str = "2";
/// Heap of one run; the largest model needs less than half of it.
const HEAP: &str = "-Xmx3g";

/// A ready model checker.
#[derive(Debug)]
pub(crate) struct Checker {
    jar: PathBuf,
    spec: PathBuf,
    scratch: PathBuf,
}

/// What TLC found.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) verdict: Verdict,
    /// States generated, repeated ones included.
    pub(crate) generated: u64,
    pub(crate) distinct: u64,
    pub(crate) took: Duration,
    /// Everything that TLC printed; holds the counterexample.
    pub(crate) output: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every reachable state satisfies every invariant.
    Holds,
    /// The named invariant fails.
    Violated(String),
    /// TLC could not do its work: a syntax error, too little memory.
    Broken(String),
}

impl Checker {
    pub(crate) fn new(project: &Project) -> Outcome<Self> {
        if !shell::present("java", "-version") {
            return Err(Failure::new("no Java runtime")
                .because("`java -version` does not run")
                .hint("apt-get install openjdk-17-jre-headless, or run ./test"));
        }
        let scratch = project.cache.join(format!("tlc-{}", std::process::id()));
        fs::create_dir_all(&scratch).context(format!("create {}", scratch.display()))?;
        Ok(Self {
            jar: jar::find(project)?,
            spec: project.root.join("spec"),
            scratch,
        })
    }

    /// Checks `module` under the text of a configuration.
    pub(crate) fn check(&self, module: &str, config: &str) -> Outcome<Checked> {
        let file = self.scratch.join("model.cfg");
        fs::write(&file, config).context(format!("write {}", file.display()))?;
        let started = Instant::now();
        let output = shell::command("java", &self.spec)
            .args(["-XX:+UseParallelGC", HEAP, "-cp"])
            .arg(&self.jar)
            .args([
                "tlc2.TLC",
                "-deadlock",
                "-cleanup",
                "-workers",
                WORKERS,
                "-metadir",
            ])
            .arg(self.scratch.join("states"))
            .arg("-config")
            .arg(&file)
            .arg(module)
            .output()
            .context("run TLC")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (generated, distinct) = counts(&text);
        Ok(Checked {
            verdict: verdict(&text),
            generated,
            distinct,
            took: started.elapsed(),
            output: text,
        })
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        // Scratch space only; a leftover is removed with the cache.
        drop(fs::remove_dir_all(&self.scratch));
    }
}

fn verdict(text: &str) -> Verdict {
    if let Some(name) = text.lines().find_map(violated) {
        return Verdict::Violated(name.to_owned());
    }
    if text.contains("Model checking completed. No error has been found.") {
        return Verdict::Holds;
    }
    let why = text
        .lines()
        .find(|line| line.contains("rror"))
        .unwrap_or("it printed no verdict");
    Verdict::Broken(why.to_owned())
}

fn violated(line: &str) -> Option<&str> {
    line.strip_prefix("Error: Invariant ")?
        .split(' ')
        .next()
        .filter(|_| line.contains("is violated"))
}

/// States generated and distinct states, of the last line that says so.
fn counts(text: &str) -> (u64, u64) {
    let line = text
        .lines()
        .rfind(|line| line.contains("states generated, ") && !line.starts_with("Progress"));
    let mut numbers = line
        .into_iter()
        .flat_map(|line| line.split(' '))
        .filter_map(|word| word.parse().ok());
    let generated = numbers.next().unwrap_or_default();
    (generated, numbers.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_names_its_invariant() {
        let text = "Error: Invariant NoAckedLost is violated.\n\
                    758 states generated, 334 distinct states found, 228 states left on queue.\n";
        assert_eq!(verdict(text), Verdict::Violated("NoAckedLost".to_owned()));
        assert_eq!(counts(text), (758, 334));
    }

    #[test]
    fn a_run_without_a_verdict_is_broken() {
        let text = "***Parse Error***\nFatal errors while parsing\n";
        assert_eq!(
            verdict(text),
            Verdict::Broken("***Parse Error***".to_owned())
        );
    }
}
