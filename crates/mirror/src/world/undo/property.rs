//! Resyncs that are undone between random faults; every run ends healed and is checked.

use super::super::property::{Plan, SMALL, Step, step};
use super::*;
use crate::config::Apart;
use proptest::prelude::*;

/// With resyncs that are undone.
fn undone_plan(nodes: u8) -> impl Strategy<Value = Plan> {
    let step = prop_oneof![
        24 => step(nodes),
        1 => (0..nodes).prop_map(Step::Heir),
        1 => (0..nodes, any::<bool>()).prop_map(|(node, alone)| Step::Isolate(node, alone)),
        4 => (0..nodes, 0_u8..8).prop_map(|(node, stop)| Step::GoBack(node, stop)),
    ];
    prop::collection::vec(step, 20..400).prop_map(Plan)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn resyncs_that_are_undone_lead_back_and_replicas_end_equal(plan in undone_plan(2), room in 1_u64..80) {
        let mut world = World::new(|config| config.undo_bytes = Some(room * 16_384));
        world.run();
        world.survive(&plan);
    }

    #[test]
    fn three_replicas_whose_resyncs_are_undone_end_equal(plan in undone_plan(3), room in 1_u64..80) {
        let mut world = World::of(&[DISK_BYTES; 3], |config| config.undo_bytes = Some(room * 16_384));
        world.run();
        world.survive(&plan);
    }

    #[test]
    fn an_asynchronous_pair_whose_resyncs_are_undone_ends_equal(plan in undone_plan(2), room in 1_u64..80) {
        let mut world = World::new(|config| {
            config.apart = Some(Apart::everybody(SMALL));
            config.undo_bytes = Some(room * 16_384);
        });
        world.run();
        world.survive(&plan);
    }
}
