//! `backstay.demo/1`: what a demo has shown.

use serde::Serialize;

use super::scenario::{Break, Scenario};
use crate::failure::Failure;
use crate::lab::state::{Mode, Options, Profile, Switch, Workload};

/// The whole document.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Document {
    /// `backstay.demo/1`.
    pub(super) schema: &'static str,
    /// True if every run passed.
    pub(super) pass: bool,
    /// One per break and repeat.
    pub(super) runs: Vec<Run>,
}

impl Document {
    /// The document of these runs.
    pub(super) fn new(runs: Vec<Run>) -> Self {
        Self {
            schema: "backstay.demo/1",
            pass: runs.iter().all(|run| run.pass),
            runs,
        }
    }
}

/// One part of an outage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct PhaseTime {
    /// detect, lease, decide, mirror, filesystem, app, address.
    pub(super) name: &'static str,
    /// Milliseconds.
    pub(super) ms: f64,
}

/// One run of one break.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Run {
    /// Which break.
    #[serde(rename = "break")]
    pub(super) name: Break,
    /// Number of the repeat, from 1.
    pub(super) repeat: u32,
    /// Shape of the lab.
    pub(super) topology: &'static str,
    /// Replication.
    pub(super) mode: Mode,
    /// Time limits.
    pub(super) profile: Profile,
    /// Where the record is.
    pub(super) register: &'static str,
    /// What wrote the rows.
    pub(super) workload: Workload,
    /// Encryption of the mirror link.
    pub(super) tls: Switch,
    /// Rows and power losses follow from it.
    pub(super) seed: u64,
    /// Safety and the expected end state.
    pub(super) pass: bool,
    /// Longest gap between two good replies from the fault on; null where service is withheld by design.
    pub(super) outage_ms: Option<u64>,
    /// What the docs promise.
    pub(super) bound_ms: Option<u64>,
    /// Whether the outage was within it; true where nothing is promised.
    pub(super) within_bound: bool,
    /// Where the time went, by the daemons' own events.
    pub(super) phases: Vec<PhaseTime>,
    /// Rows with a good reply.
    pub(super) acknowledged: u64,
    /// Of these, read back.
    pub(super) found: u64,
    /// Of these, not read back.
    pub(super) lost: u64,
    /// Two nodes answered at the same time.
    pub(super) two_actives: bool,
    /// Questions that the observer asked to find that out.
    pub(super) observed: u64,
    /// How often the service moved to another node.
    pub(super) failovers: u64,
    /// Replicas are the same, block by block.
    pub(super) replicas_equal: bool,
    /// What may have changed while the replicas were apart.
    pub(super) changed_bytes: u64,
    /// What was sent to make them equal again.
    pub(super) resync_bytes: u64,
    /// How the volume was used.
    pub(super) front_end: String,
    /// The rule that fired, in words.
    pub(super) why: String,
    /// Why the run did not pass.
    pub(super) reasons: Vec<String>,
    /// Ended by Ctrl-C.
    #[serde(skip)]
    pub(super) is_interrupted: bool,
    /// Where the logs of a run that did not pass are.
    pub(super) logs: Option<String>,
}

impl Run {
    /// A run that has shown nothing yet.
    pub(super) fn begun(scenario: &Scenario, options: &Options, seed: u64, repeat: u32) -> Self {
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
            front_end: String::new(),
            why: String::new(),
            reasons: Vec::new(),
            is_interrupted: false,
            logs: None,
        }
    }

    /// Notes a reason against the run.
    pub(super) fn object(&mut self, reason: impl Into<String>) {
        self.reasons.push(reason.into());
    }

    /// Notes a failure, with its causes, against the run.
    pub(super) fn object_failure(&mut self, failure: &Failure) {
        let lines: Vec<String> = failure.lines().map(|(_, text)| text.to_owned()).collect();
        self.object(lines.join(": "));
    }
}
