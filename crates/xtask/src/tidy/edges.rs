//! Who may depend on whom. A new edge is a decision: change it here and in `docs/ARCHITECTURE.md`.

use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::project::Project;
use crate::shell;

/// Each crate of the workspace, and the crates of the workspace that it may use.
const ALLOWED: [(&str, &[&str]); 8] = [
    ("wire", &[]),
    ("cluster", &["wire"]),
    ("mirror", &["wire"]),
    ("node", &["wire", "cluster", "mirror"]),
    ("host", &["wire"]),
    ("sim", &["wire", "cluster", "mirror", "node"]),
    ("backstay", &["wire", "cluster", "mirror", "node", "host"]),
    ("xtask", &["sim", "mirror", "wire"]),
];

/// The pure crates: no clock, socket, file, thread or random source.
const PURE: [&str; 5] = ["wire", "cluster", "mirror", "node", "sim"];

/// What a pure crate must not pull in.
const IMPURE: [&str; 7] = [
    "tokio",
    "rustix",
    "libc",
    "io-uring",
    "rand",
    "getrandom",
    "ring",
];

pub(crate) fn check(project: &Project, _: &[String]) -> Outcome<Vec<String>> {
    let args = [
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--locked",
        "--offline",
    ];
    let text = shell::capture(shell::cargo(&project.root).args(args))?;
    let metadata: Value = serde_json::from_str(&text)
        .map_err(|cause| Failure::new("cannot read `cargo metadata`").because(cause))?;
    let mut findings = Vec::new();
    for package in array(&metadata["packages"]) {
        let name = package["name"].as_str().unwrap_or_default();
        let dependencies: Vec<Dependency<'_>> = array(&package["dependencies"])
            .iter()
            .map(Dependency::read)
            .collect();
        findings.extend(judge(name, &dependencies));
    }
    Ok(findings)
}

struct Dependency<'a> {
    name: &'a str,
    /// Inside this workspace.
    local: bool,
    /// Only for tests and benches.
    dev: bool,
}

impl<'a> Dependency<'a> {
    fn read(value: &'a Value) -> Self {
        Self {
            name: value["name"].as_str().unwrap_or_default(),
            local: value["path"].is_string(),
            dev: value["kind"] == "dev",
        }
    }
}

fn judge(name: &str, dependencies: &[Dependency<'_>]) -> Vec<String> {
    let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
        return vec![format!(
            "crate {name} is not in the table of crates/xtask/src/tidy/edges.rs"
        )];
    };
    let mut findings = Vec::new();
    for dependency in dependencies {
        let used = dependency.name;
        if dependency.local && !allowed.contains(&used) {
            findings.push(format!("crate {name} must not depend on crate {used}"));
        }
        if PURE.contains(&name) && !dependency.dev && IMPURE.contains(&used) {
            findings.push(format!("pure crate {name} must not depend on {used}"));
        }
    }
    findings
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(name: &str, local: bool) -> Dependency<'_> {
        Dependency {
            name,
            local,
            dev: false,
        }
    }

    #[test]
    fn the_core_must_not_reach_the_host() {
        assert_eq!(
            judge("node", &[on("cluster", true), on("wire", true)]),
            [""; 0]
        );
        assert_eq!(judge("cluster", &[on("host", true)]).len(), 1);
    }

    #[test]
    fn a_pure_crate_has_no_runtime() {
        assert_eq!(judge("mirror", &[on("tokio", false)]).len(), 1);
        assert_eq!(judge("backstay", &[on("tokio", false)]), [""; 0]);
    }

    #[test]
    fn an_unknown_crate_is_reported() {
        assert_eq!(judge("manager", &[]).len(), 1);
    }
}
