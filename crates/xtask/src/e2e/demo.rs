//! Runs of `backstay demo`, as tables.

use std::process::Command;

use serde_json::Value;

use super::World;
use crate::failure::{Failure, Outcome};
use crate::shell;
use crate::table::Table;

/// The runs of one `backstay demo` with these arguments. A run that failed is in the list, not an error.
pub(crate) fn runs(world: &World, args: &[&str]) -> Outcome<Vec<Value>> {
    let mut command = Command::new(&world.backstay);
    command.arg("demo").args(args).args(["-o", "jsonl"]);
    println!("$ {}", shell::describe(&command));
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|cause| Failure::new("cannot start backstay demo").because(cause))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut runs = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let run = serde_json::from_str(line).map_err(|cause| {
            Failure::new(format!("backstay demo printed `{line}`")).because(cause)
        })?;
        runs.push(run);
    }
    if runs.is_empty() {
        return Err(Failure::new("backstay demo reported no run").because(output.status));
    }
    Ok(runs)
}

/// Whether a run kept every promise of safety.
pub(crate) fn is_safe(run: &Value) -> bool {
    run["pass"] == true
        && run["lost"] == 0
        && run["two_actives"] == false
        && run["replicas_equal"] == true
}

/// Whether a run that moved the group says why (G9).
pub(crate) fn is_explained(run: &Value) -> bool {
    let said = run["why"].as_str().is_some_and(|why| !why.is_empty());
    said || run["failovers"] == 0
}

/// One row per run.
pub(crate) fn table(runs: &[Value]) -> Table {
    let mut table = Table::new(&[
        "break",
        "profile",
        "workload",
        "pass",
        "outage ms",
        "bound ms",
        "within",
        "acknowledged",
        "found",
        "lost",
        "two actives",
        "equal",
        "changed bytes",
        "resync bytes",
    ]);
    for run in runs {
        table.row(
            [
                "break",
                "profile",
                "workload",
                "pass",
                "outage_ms",
                "bound_ms",
                "within_bound",
                "acknowledged",
                "found",
                "lost",
                "two_actives",
                "replicas_equal",
                "changed_bytes",
                "resync_bytes",
            ]
            .iter()
            .map(|key| cell(&run[*key]))
            .collect(),
        );
    }
    table
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_run_that_lost_a_row_is_not_safe() {
        let run = json!({"pass": true, "lost": 0, "two_actives": false, "replicas_equal": true});
        assert!(is_safe(&run));
        let lost = json!({"pass": true, "lost": 1, "two_actives": false, "replicas_equal": true});
        assert!(!is_safe(&lost));
        assert!(!is_safe(&json!({"pass": true})));
    }

    #[test]
    fn an_outage_withheld_by_design_is_a_dash() {
        let text = table(&[json!({"break": "app-loop", "outage_ms": null})]).text();
        assert!(text.lines().nth(1).is_some_and(|row| row.contains('–')));
    }
}
