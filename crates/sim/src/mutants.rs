//! Deliberate defects, and the hunt for each: random seeds and directed scenarios until a checker notices.

use crate::options::{Options, Outcome};
use crate::{run, scenario};
use node::Timing;
pub use wire::mutant::Mutant;

/// One defect.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Which.
    pub mutant: Mutant,
    /// The rule that it breaks.
    pub rule: &'static str,
    /// Why it cannot be hunted in this release; none if it can.
    pub not_built: Option<&'static str>,
    /// Scenarios in which it is likely to show.
    pub scenarios: &'static [&'static str],
}

/// What came of a hunt.
#[derive(Clone, Debug)]
pub enum Caught {
    /// A checker noticed it.
    By {
        /// Which.
        checker: &'static str,
        /// In which seed or scenario.
        place: String,
        /// After how many runs.
        runs: u64,
    },
    /// Nobody noticed.
    Never {
        /// In how many runs.
        runs: u64,
    },
}

/// Switches a defect on, or all off.
pub fn switch(mutant: Option<Mutant>) {
    wire::mutant::switch(mutant);
}

/// The defect of this name, whatever its case.
#[must_use]
pub fn named(name: &str) -> Option<Mutant> {
    Mutant::ALL
        .into_iter()
        .find(|m| format!("{m:?}").eq_ignore_ascii_case(name))
}

/// Runs scenarios and then seeds with the defect until a promise breaks.
#[must_use]
pub fn hunt(entry: Entry, seeds: u64, timing: Timing) -> Caught {
    switch(Some(entry.mutant));
    let caught = hunt_switched(entry, seeds, timing);
    switch(None);
    caught
}

fn hunt_switched(entry: Entry, seeds: u64, timing: Timing) -> Caught {
    let mut runs = 0;
    let caught = |outcome: &Outcome, place: String, runs| {
        outcome.violation.as_ref().map(|v| Caught::By {
            checker: v.checker,
            place,
            runs,
        })
    };
    for name in entry.scenarios {
        for seed in 1..=20 {
            runs += 1;
            let outcome = scenario::play(name, seed, 0);
            let place = format!("{name}, seed {seed}");
            if let Some(caught) = outcome.and_then(|o| caught(&o, place, runs)) {
                return caught;
            }
        }
    }
    for seed in 1..=seeds {
        runs += 1;
        let outcome = run(Options {
            keep: 0,
            ..Options::of_seed(seed, timing)
        });
        if let Some(caught) = caught(&outcome, format!("seed {seed}"), runs) {
            return caught;
        }
    }
    Caught::Never { runs }
}

/// Every defect.
#[must_use]
pub fn catalog() -> Vec<Entry> {
    Mutant::ALL.into_iter().map(entry).collect()
}

const fn entry(mutant: Mutant) -> Entry {
    let (rule, scenarios): (_, &'static [&'static str]) = match mutant {
        Mutant::AckKnownSetOnly => ("R1", &["grow_unheard"]),
        Mutant::UnchangedResolves => ("R2", &["grow_unheard"]),
        Mutant::PromoteOutOfSync => ("R3", &[]),
        Mutant::PromoteWithoutFence => ("R3", &[]),
        Mutant::OldSessionAccepted => ("R4", &[]),
        Mutant::GrowLate => ("R5", &["grow_unheard"]),
        Mutant::NoBarrier => ("R6", &["grown_without_knowing"]),
        Mutant::ProposalNotDurable => ("R6", &["proposal_survives_a_crash"]),
        Mutant::AckBeforeShrink => ("R7", &[]),
        Mutant::GrantorAmnesia => ("R8", &["grantors_remember_their_leases"]),
        Mutant::LeaseFromReceipt
        | Mutant::GrantWhileTaking
        | Mutant::EndlessLeaseWhileGrowing
        | Mutant::TakeoverBeforeGrantsEnd => ("R8", &[]),
        Mutant::ServeBeforeReconcile => ("R9", &["restarted_active_reconciles_first"]),
        Mutant::ReconnectCountsAtOnce | Mutant::IntentDroppedEarly => ("R10", &[]),
        Mutant::BitsClearedEarly => ("R10", &["interrupted_resync_starts_again"]),
        Mutant::WriteBeforeIntent => ("R9", &[]),
        Mutant::AsyncPromoted => ("R11", &[]),
        Mutant::GateIgnoresLease => ("R12", &[]),
        Mutant::AnyMirrorInSync => ("R13", &[]),
        Mutant::GenerationIgnored => ("R14", &[]),
        Mutant::InstanceIgnored => ("R15", &[]),
        Mutant::NoDrain => ("R16", &["late_writes_do_not_land"]),
        Mutant::StuckPeerKept => ("R18", &[]),
        Mutant::AcceptorNotDurable | Mutant::PromiseIgnored => ("register", &[]),
        Mutant::FlushLocalOnly | Mutant::FlushRetried => ("G2", &[]),
        Mutant::RenewalSkipped => ("G2", &["failed_flush_is_not_forgotten"]),
        Mutant::OverlapUnordered => ("G5", &[]),
        Mutant::ResyncConsistentEarly => ("G4", &[]),
    };
    let not_built = match mutant {
        Mutant::AsyncPromoted => Some("asynchronous eligibility; automatic failover is refused"),
        _ => None,
    };
    Entry {
        mutant,
        rule,
        not_built,
        scenarios,
    }
}
