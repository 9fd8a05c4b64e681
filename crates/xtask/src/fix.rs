//! `cargo xtask fix`: what a machine can mend by itself.

use crate::failure::Outcome;
use crate::project::Project;
use crate::shell::{self, cargo};
use crate::tidy;

/// Formats, applies clippy's certain suggestions and tightens the length ratchet.
pub(crate) fn run(project: &Project) -> Outcome {
    shell::run(cargo(&project.root).args([
        "clippy",
        "--fix",
        "--workspace",
        "--all-targets",
        "--allow-dirty",
        "--allow-staged",
    ]))?;
    shell::run(cargo(&project.root).args(["fmt", "--all"]))?;
    tidy::tighten(project)
}
