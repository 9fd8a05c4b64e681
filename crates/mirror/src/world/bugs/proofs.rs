//! Which test is about which bug, and which deliberate defect makes it fail.

use super::{damage, front, identity, log, order, resync};
use wire::mutant::{Bug, Mutant};

/// What a test must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Defect {
    Bug(Bug),
    Mutant(Mutant),
}

/// A test, the number of its bug, and the defects that it must notice.
pub(super) struct Proof {
    pub(super) bug: u8,
    pub(super) name: &'static str,
    pub(super) test: fn(),
    pub(super) notices: &'static [Defect],
}

macro_rules! proof {
    ($bug:literal, $module:ident :: $test:ident, $($kind:ident :: $defect:ident),*) => {
        Proof {
            bug: $bug,
            name: stringify!($test),
            test: $module::$test,
            notices: &[$(Defect::$kind($kind::$defect)),*],
        }
    };
}

pub(super) const PROOFS: &[Proof] = &[
    proof!(
        1,
        front::bug_1_one_stable_buffer_feeds_both_replicas,
        Bug::BufferReleasedEarly
    ),
    proof!(
        2,
        log::bug_2_no_data_is_written_after_a_failed_log_write,
        Bug::FailedLogIgnored,
        Mutant::WriteBeforeIntent
    ),
    proof!(
        2,
        log::bug_2_no_data_is_written_after_a_failed_bitmap_write,
        Bug::FailedLogIgnored
    ),
    proof!(
        3,
        log::bug_3_a_crash_forgets_no_write_that_the_peer_lacks,
        Bug::MarksEvicted
    ),
    proof!(
        3,
        log::bug_3_what_was_hot_when_the_peer_left_is_marked_against_it,
        Bug::HotUnmarked
    ),
    proof!(
        4,
        resync::bug_4_a_write_during_a_resync_wins_over_the_chunk,
        Mutant::OverlapUnordered
    ),
    proof!(
        4,
        resync::bug_4_a_chunk_is_not_read_before_an_older_write_has_landed,
        Bug::ChunkUnlocked
    ),
    proof!(
        4,
        resync::bug_4_a_mark_made_while_the_commit_is_on_its_way_stays,
        Bug::FreshMarksForgotten
    ),
    proof!(
        5,
        resync::bug_5_marks_stay_until_the_target_committed,
        Mutant::BitsClearedEarly
    ),
    proof!(
        5,
        resync::bug_5_what_the_target_committed_is_durable_there,
        Bug::CommitUnflushed
    ),
    proof!(
        6,
        resync::bug_6_a_target_whose_resync_did_not_end_refuses_to_serve,
        Bug::MixturePromoted
    ),
    proof!(
        6,
        resync::bug_6_a_target_stays_a_mixture_when_the_source_dies_and_ends_equal,
        Mutant::ResyncConsistentEarly
    ),
    proof!(
        7,
        identity::bug_7_no_peer_hears_of_an_epoch_that_is_not_durable,
        Bug::EpochNotDurable
    ),
    proof!(
        7,
        identity::bug_7_a_standby_answers_when_epoch_and_generation_are_durable,
        Bug::EpochNotDurable
    ),
    proof!(
        8,
        front::bug_8_a_write_waits_for_a_required_peer_until_it_is_out,
        Bug::AckWithoutPeer
    ),
    proof!(
        8,
        front::bug_8_a_write_that_the_new_active_lacks_was_never_acknowledged,
        Bug::AckWithoutPeer
    ),
    proof!(
        9,
        order::bug_9_overlapping_writes_go_to_the_peer_in_the_order_of_the_local_disk,
        Mutant::OverlapUnordered
    ),
    proof!(
        9,
        order::bug_9_a_short_write_does_not_overtake_a_deferred_big_one,
        Bug::SmallOvertakes
    ),
    proof!(
        10,
        order::bug_10_a_flush_needs_both_sides_and_fua_reaches_both,
        Mutant::FlushLocalOnly,
        Bug::FuaDropped
    ),
    proof!(
        10,
        order::bug_10_a_standby_flushes_after_the_writes_before_it,
        Bug::FlushOvertakes
    ),
    proof!(
        10,
        order::bug_10_an_asynchronous_standby_applies_nothing_ahead_of_a_flush,
        Bug::OrderedFlushIgnored
    ),
    proof!(
        11,
        front::bug_11_after_a_failed_flush_nothing_starts_any_more,
        Mutant::FlushRetried
    ),
    proof!(
        11,
        front::bug_11_no_read_is_served_from_a_leg_whose_write_failed,
        Bug::FailedWriteIgnored
    ),
    proof!(
        12,
        damage::bug_12_a_torn_superblock_leaves_the_older_one,
        Bug::SlotsNotAlternated
    ),
    proof!(
        12,
        damage::bug_12_two_damaged_superblocks_are_refused,
        Bug::ChecksumIgnored
    ),
    proof!(
        12,
        damage::bug_12_a_torn_intent_log_leaves_the_older_one,
        Bug::SlotsNotAlternated
    ),
    proof!(
        12,
        damage::bug_12_a_torn_bitmap_leaves_the_older_one_and_is_written_again,
        Bug::SlotsNotAlternated
    ),
    proof!(
        13,
        order::bug_13_zeroes_read_back_equal_and_large_ones_go_in_pieces,
        Bug::ZeroNotApplied
    ),
    proof!(
        13,
        order::bug_13_unaligned_ends_are_copied_to_a_peer_that_returns,
        Bug::PartialBlocksUnmarked
    ),
    proof!(
        13,
        resync::bug_13_a_zeroing_during_a_resync_stays,
        Bug::ZeroNotApplied
    ),
    proof!(
        14,
        front::bug_14_a_reissued_write_lands_in_the_same_order_on_both,
        Mutant::OverlapUnordered
    ),
    proof!(
        14,
        front::bug_14_an_activation_ends_after_its_last_write,
        Mutant::NoDrain
    ),
    proof!(
        15,
        order::bug_15_frames_of_an_old_session_or_epoch_end_the_session,
        Mutant::OldSessionAccepted
    ),
    proof!(
        15,
        order::bug_15_late_packets_of_a_closed_connection_change_nothing,
        Mutant::OldSessionAccepted
    ),
    proof!(
        16,
        damage::bug_16_a_rotten_list_of_hot_regions_is_not_taken_for_a_torn_one,
        Bug::RotTakenForTorn
    ),
    proof!(
        16,
        damage::bug_16_a_rotten_bitmap_is_not_taken_for_a_torn_one,
        Bug::RotTakenForTorn
    ),
    proof!(
        16,
        damage::bug_16_a_rotten_superblock_is_not_replaced_by_the_one_before,
        Bug::RotTakenForTorn
    ),
    proof!(
        17,
        identity::bug_17_a_smaller_standby_is_refused_with_both_sizes,
        Bug::SizeIgnored
    ),
    proof!(
        17,
        identity::bug_17_a_disk_with_data_of_its_own_is_never_overwritten,
        Bug::ForeignOverwritten
    ),
    proof!(
        17,
        identity::bug_17_a_disk_of_another_mirror_is_not_attached,
        Bug::WrongMirrorAttached
    ),
    proof!(
        18,
        damage::bug_18_a_lost_bitmap_or_intent_log_means_a_full_resync,
        Bug::LostMetadataClean
    ),
    proof!(
        18,
        resync::bug_18_whole_metadata_never_means_a_full_resync,
        Bug::AlwaysFullResync
    ),
];

#[test]
fn each_of_the_eighteen_bugs_has_a_test_that_notices_it() {
    for number in 1..=18 {
        let prefix = format!("bug_{number}_");
        let mut of_it = PROOFS.iter().filter(|proof| proof.bug == number);
        assert!(of_it.all(|proof| proof.name.starts_with(&prefix) && !proof.notices.is_empty()));
        assert!(
            PROOFS.iter().any(|proof| proof.bug == number),
            "bug {number}"
        );
    }
    assert!(
        PROOFS
            .iter()
            .all(|proof| std::ptr::fn_addr_eq(proof.test, proof.test))
    );
}

#[cfg(feature = "mutants")]
mod hunt {
    use super::*;
    use std::panic::catch_unwind;
    use wire::mutant;

    fn with(defect: Option<Defect>, test: fn()) -> bool {
        match defect {
            None => {}
            Some(Defect::Bug(bug)) => mutant::bring_back(Some(bug)),
            Some(Defect::Mutant(mutant)) => mutant::switch(Some(mutant)),
        }
        let passed = catch_unwind(test).is_ok();
        mutant::bring_back(None);
        mutant::switch(None);
        passed
    }

    #[test]
    fn every_bug_test_fails_without_its_protection() {
        let mut survivors = Vec::new();
        let mut noticed = 0;
        for proof in PROOFS {
            assert!(with(None, proof.test), "{} fails anyway", proof.name);
            for defect in proof.notices {
                if with(Some(*defect), proof.test) {
                    survivors.push(format!("{}: {defect:?}", proof.name));
                }
                noticed += 1;
            }
        }
        assert!(survivors.is_empty(), "not noticed: {survivors:#?}");
        assert!(noticed >= 40, "only {noticed} pairs of test and defect");
    }
}
