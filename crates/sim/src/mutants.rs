//! Deliberate defects, and the hunt for each: directed scenarios and random seeds until a checker notices.
//!
//! A place (a scenario or a random run, with its seed) counts only if it passes without the defect: what fails anyway
//! proves nothing about the defect.

use crate::options::{FaultMix, Level, Options, Outcome};
use crate::{run, scenario};
use node::Timing;
pub use wire::mutant::Mutant;

/// Every scenario is played with so many seeds, with the defect and without it.
pub const SCENARIO_SEEDS: u64 = 20;

/// One defect.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Which.
    pub mutant: Mutant,
    /// The rule that it breaks.
    pub rule: &'static str,
    /// Where it is hunted first.
    pub scenarios: &'static [&'static str],
    /// What makes it likely to show in a random run.
    pub bend: fn(&mut Options),
}

/// A promise that broke with the defect, and held without it.
#[derive(Clone, Debug)]
pub struct Catch {
    /// Which checker noticed.
    pub checker: &'static str,
    /// In which scenario or random run, with the first seed.
    pub place: String,
    /// In a scenario: with how many of its seeds.
    pub of_seeds: Option<u64>,
}

/// What came of a hunt.
#[derive(Clone, Debug, Default)]
pub struct Hunt {
    /// None: the defect survived.
    pub catch: Option<Catch>,
    /// Runs with the defect.
    pub runs: u64,
    /// Places that fail without the defect too, and count for nothing.
    pub void: Vec<String>,
}

/// Switches a defect on for this thread, or all off.
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

/// Plays the defect's scenarios, and then random seeds, until a promise breaks that holds without it.
#[must_use]
pub fn hunt(entry: Entry, seeds: u64, timing: Timing) -> Hunt {
    let mut hunt = Hunt::default();
    for name in entry.scenarios {
        hunt.in_scenario(entry.mutant, name);
        if hunt.catch.is_some() {
            return hunt;
        }
    }
    hunt.at_random(entry, seeds, timing);
    hunt
}

impl Hunt {
    /// Every seed counts, so that the table tells how sure a scenario is.
    fn in_scenario(&mut self, mutant: Mutant, name: &str) {
        let mut first = None;
        let mut caught = 0;
        for seed in 1..=SCENARIO_SEEDS {
            let place = format!("{name}, seed {seed}");
            let play = || scenario::play(name, seed, 0);
            let Some(checker) = self.try_place(mutant, &place, play) else {
                continue;
            };
            caught += 1;
            first.get_or_insert((checker, place));
        }
        self.catch = first.map(|(checker, place)| Catch {
            checker,
            place,
            of_seeds: Some(caught),
        });
    }

    fn at_random(&mut self, entry: Entry, seeds: u64, timing: Timing) {
        for seed in 1..=seeds {
            let place = format!("seed {seed}");
            let mut options = Options {
                keep: 0,
                ..Options::of_seed(seed, timing)
            };
            (entry.bend)(&mut options);
            let play = || Some(run(options.clone()));
            if let Some(checker) = self.try_place(entry.mutant, &place, play) {
                self.catch = Some(Catch {
                    checker,
                    place,
                    of_seeds: None,
                });
                return;
            }
        }
    }

    /// The checker that notices the defect here; none also if the place fails anyway.
    fn try_place(
        &mut self,
        mutant: Mutant,
        place: &str,
        play: impl Fn() -> Option<Outcome>,
    ) -> Option<&'static str> {
        self.runs += 1;
        switch(Some(mutant));
        let with = play();
        switch(None);
        let broken = with?.violation?;
        if play()?.violation.is_some() {
            self.void.push(place.to_owned());
            return None;
        }
        Some(broken.checker)
    }
}

/// Every defect.
#[must_use]
pub fn catalog() -> Vec<Entry> {
    Mutant::ALL.into_iter().map(entry).collect()
}

fn entry(mutant: Mutant) -> Entry {
    let (rule, scenarios) = hunted(mutant);
    Entry {
        mutant,
        rule,
        scenarios,
        bend: bend(mutant),
    }
}

/// The rule that it breaks, and the scenarios for it.
const fn hunted(mutant: Mutant) -> (&'static str, &'static [&'static str]) {
    match mutant {
        Mutant::AckKnownSetOnly => ("R1", &["grown_slowly_and_gone"]),
        Mutant::UnchangedResolves => ("R2", &["grow_unheard"]),
        Mutant::PromoteOutOfSync => ("R3", &["out_of_sync_waits"]),
        Mutant::PromoteWithoutFence => ("R3", &["fenced_standby_is_silent"]),
        Mutant::OldSessionAccepted => ("R4", &["old_connection_is_not_heard"]),
        Mutant::GrowLate => ("R5", &["grown_and_gone"]),
        Mutant::NoBarrier => ("R6", &["grown_without_knowing"]),
        Mutant::ProposalNotDurable => ("R6", &["proposal_survives_a_crash"]),
        Mutant::AckBeforeShrink => ("R7", &["alone_only_by_the_register"]),
        Mutant::GrantorAmnesia => ("R8", &["grantors_remember_their_leases"]),
        Mutant::LeaseFromReceipt => ("R8", &["late_grants_count_from_the_request"]),
        Mutant::GrantWhileTaking => ("R8", &["no_grant_while_taking_over"]),
        Mutant::EndlessLeaseWhileGrowing => ("R8", &["gate_is_finite_before_a_grow"]),
        Mutant::TakeoverBeforeGrantsEnd => ("R8", &["isolated_active_freezes_and_steps_down"]),
        Mutant::ServeBeforeReconcile => ("R9", &["restarted_active_reconciles_first"]),
        Mutant::ReconnectCountsAtOnce => ("R10", &["reset_writes_are_sent_again"]),
        Mutant::IntentDroppedEarly => ("R10", &["lost_caches_are_filled_again"]),
        Mutant::BitsClearedEarly => ("R10", &["interrupted_resync_starts_again"]),
        Mutant::WriteBeforeIntent => ("R9", &["differences_are_written_down_first"]),
        Mutant::AsyncPromoted => ("R11", &["async_beyond_its_bound_waits"]),
        Mutant::BoundIgnored => ("R11", &["async_standby_hung", "async_link_silent"]),
        Mutant::CutOffForgotten => ("G3", &["async_cut_off_is_put_aside"]),
        Mutant::HeldBackFollows => ("G3", &["async_held_back_waits_for_a_person"]),
        Mutant::ForcedForgets => ("R17", &["forced_promotion"]),
        Mutant::ForcedMixture => ("G4", &["forced_promotion_of_a_mixture_is_refused"]),
        Mutant::EpochsUnordered => ("R11", &["async_epochs_stay_in_order"]),
        Mutant::ThirdForgotten => ("R10", &["what_the_third_missed_is_remembered"]),
        Mutant::GateIgnoresLease => ("R12", &["paused_active_answers_nothing"]),
        Mutant::AnyMirrorInSync => ("R13", &["half_a_group_does_not_count"]),
        Mutant::GenerationIgnored => ("R14", &["old_snapshot_is_noticed"]),
        Mutant::OldRecordTrusted => ("R14", &["old_snapshot_of_everything_is_noticed"]),
        Mutant::BaselineIgnored => ("R14", &["old_snapshot_after_a_commit_is_noticed"]),
        Mutant::InstanceIgnored => ("R15", &["old_instance_is_torn_down"]),
        Mutant::HalfAdopted => ("R15", &["half_adopted_instance_is_torn_down"]),
        Mutant::NoDrain => ("R16", &["late_writes_do_not_land"]),
        Mutant::StuckPeerKept => ("R18", &["stuck_standby_is_dropped"]),
        Mutant::AcceptorNotDurable => ("register", &["decided_survives_the_voters"]),
        Mutant::PromiseIgnored => ("register", &["duel_of_two_proposals"]),
        Mutant::FlushLocalOnly => ("G2", &["flushed_is_on_both_disks"]),
        Mutant::FlushOvertakes => ("G2", &["flush_covers_what_was_sent"]),
        Mutant::FlushRetried => ("G2", &["failed_flush_is_final"]),
        Mutant::RenewalSkipped => ("G2", &["failed_flush_is_not_forgotten"]),
        Mutant::OverlapUnordered => ("G5", &["planned_move"]),
        Mutant::ResyncConsistentEarly => ("G4", &["mixture_is_marked"]),
    }
}

/// Random runs in which it is likely to show.
fn bend(mutant: Mutant) -> fn(&mut Options) {
    if mutant == Mutant::AnyMirrorInSync {
        |options| options.mirrors = 2
    } else if mutant == Mutant::StuckPeerKept {
        // One fault at a time, and a bound for each.
        |options| options.faults = FaultMix::Polite
    } else if matches!(
        mutant,
        Mutant::AsyncPromoted
            | Mutant::BoundIgnored
            | Mutant::EpochsUnordered
            | Mutant::CutOffForgotten
            | Mutant::HeldBackFollows
    ) {
        |options| options.level = Level::Async
    } else if mutant == Mutant::ThirdForgotten {
        |options| *options = options.clone().with_three()
    } else if mutant == Mutant::FlushOvertakes {
        |options| options.level = Level::Flush
    } else {
        |_| {}
    }
}
