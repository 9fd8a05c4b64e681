//! `cargo xtask sim`: random seeds, one seed with its story, or every deliberate defect.
//!
//! The simulation is built apart, optimised and with the deliberate defects compiled in: the feature `world` of this
//! crate. Without it this module only starts cargo again with it, so that no other build ever contains a defect.

/// What to simulate.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 200)]
    pub(crate) seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    pub(crate) from: u64,
    /// This seed alone, with the whole story.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How many of the last lines are told of a failure.
    #[arg(long)]
    pub(crate) lines: Option<usize>,
    /// Each deliberate defect: which promise notices it, and when.
    #[arg(long)]
    pub(crate) mutants: bool,
    /// With this deliberate defect; with `--mutants`, only those whose name contains it.
    #[arg(long)]
    pub(crate) mutant: Option<String>,
    /// A directed scenario instead of random faults.
    #[arg(long)]
    pub(crate) scenario: Option<String>,
    /// The nodes' times.
    #[arg(long, value_enum, default_value = "lan")]
    pub(crate) profile: Profile,
    /// Data nodes: 2 and a witness, or 3 and none.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=3))]
    pub(crate) replicas: u8,
    /// The first sync copies used blocks only.
    #[arg(long)]
    pub(crate) used_only: bool,
    /// Tells everything that happens to this sector of the volume.
    #[arg(long)]
    pub(crate) watch: Option<u64>,
    /// Ends at the first failure.
    #[arg(long)]
    pub(crate) first: bool,
    /// How many at a time; as many as there are processors, if not given.
    #[arg(long)]
    pub(crate) jobs: Option<usize>,
}

/// A profile's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Profile {
    /// One rack or one data centre.
    Lan,
    /// Quiet machines on a quiet network.
    Fast,
}

#[cfg(not(feature = "world"))]
pub(crate) use without_world::run;

#[cfg(not(feature = "world"))]
mod without_world {
    use super::Args;
    use crate::failure::{Failure, Outcome};
    use crate::project::Project;
    use crate::shell;

    /// Runs it, in a build that contains the world.
    pub(crate) fn run(project: &Project, _: &Args) -> Outcome {
        let mut cargo = shell::cargo(&project.root);
        cargo.args(["run", "--quiet", "--locked", "--profile", "sim"]);
        cargo.args(["--package", "xtask", "--features", "world", "--"]);
        cargo.args(std::env::args_os().skip(1));
        let status = cargo
            .status()
            .map_err(|cause| Failure::new("cannot start cargo").because(cause))?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::new("the simulation found a broken promise"))
    }
}

#[cfg(feature = "world")]
pub(crate) use world::run;

#[cfg(feature = "world")]
mod world;
