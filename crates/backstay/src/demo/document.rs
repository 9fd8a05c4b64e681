//! `backstay.demo/1`: what a demo has shown.

use serde::Serialize;

use super::scenario::{Break, Scenario};
use crate::failure::Failure;
use crate::lab::state::{Mode, Options, Profile, Switch, Workload};

/// The whole document.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    /// `backstay.demo/1`.
    pub schema: &'static str,
    /// True if every run passed.
    pub pass: bool,
    /// One per break and repeat.
    pub runs: Vec<Run>,
}

impl Document {
    /// The document of these runs.
    pub fn new(runs: Vec<Run>) -> Self {
        Self {
            schema: "backstay.demo/1",
            pass: runs.iter().all(|run| run.pass),
            runs,
        }
    }
}

/// One part of an outage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhaseTime {
    /// detect, lease, decide, mirror, filesystem, app, address.
    pub name: &'static str,
    /// Milliseconds.
    pub ms: f64,
}

/// One run of one break.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Which break.
    #[serde(rename = "break")]
    pub name: Break,
    /// Number of the repeat, from 1.
    pub repeat: u32,
    /// Shape of the lab.
    pub topology: &'static str,
    /// Replication.
    pub mode: Mode,
    /// Time limits.
    pub profile: Profile,
    /// Where the record is.
    pub register: &'static str,
    /// What wrote the rows.
    pub workload: Workload,
    /// Encryption of the mirror link.
    pub tls: Switch,
    /// Rows and power losses follow from it.
    pub seed: u64,
    /// Safety and the expected end state.
    pub pass: bool,
    /// Longest gap between two good replies from the fault on; null where service is withheld by design.
    pub outage_ms: Option<u64>,
    /// What the docs promise.
    pub bound_ms: Option<u64>,
    /// Whether the outage was within it; true where nothing is promised.
    pub within_bound: bool,
    /// Where the time went, by the daemons' own events.
    pub phases: Vec<PhaseTime>,
    /// Rows with a good reply.
    pub acknowledged: u64,
    /// Of these, read back.
    pub found: u64,
    /// Of these, not read back.
    pub lost: u64,
    /// Two nodes answered at the same time.
    pub two_actives: bool,
    /// Questions that the observer asked to find that out.
    pub observed: u64,
    /// How often the service moved to another node.
    pub failovers: u64,
    /// Replicas are the same, block by block.
    pub replicas_equal: bool,
    /// What may have changed while the replicas were apart.
    pub changed_bytes: u64,
    /// What was sent to make them equal again.
    pub resync_bytes: u64,
    /// How the volume was used.
    pub front_end: &'static str,
    /// The rule that fired, in words.
    pub why: String,
    /// Why the run did not pass.
    pub reasons: Vec<String>,
    /// Where the logs of a run that did not pass are.
    pub logs: Option<String>,
}

impl Run {
    /// A run that has shown nothing yet.
    pub fn begun(scenario: &Scenario, options: &Options, seed: u64, repeat: u32) -> Self {
        Self {
            name: scenario.name,
            repeat,
            topology: "pair",
            mode: options.mode,
            profile: options.profile,
            register: "embedded",
            workload: options.workload,
            tls: options.tls,
            seed,
            pass: false,
            outage_ms: None,
            bound_ms: scenario.bound(options.profile),
            within_bound: false,
            phases: Vec::new(),
            acknowledged: 0,
            found: 0,
            lost: 0,
            two_actives: false,
            observed: 0,
            failovers: 0,
            replicas_equal: false,
            changed_bytes: 0,
            resync_bytes: 0,
            front_end: "fuse-loop",
            why: String::new(),
            reasons: Vec::new(),
            logs: None,
        }
    }

    /// Notes a reason against the run.
    pub fn object(&mut self, reason: impl Into<String>) {
        self.reasons.push(reason.into());
    }

    /// Notes a failure, with its causes, against the run.
    pub fn object_failure(&mut self, failure: &Failure) {
        let lines: Vec<String> = failure.lines().map(|(_, text)| text.to_owned()).collect();
        self.object(lines.join(": "));
    }
}
