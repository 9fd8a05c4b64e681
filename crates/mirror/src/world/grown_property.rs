//! Random faults in any order, while the volume grows.

use super::property::{Plan, SMALL, Step, step};
use super::*;
use crate::config::Apart;
use proptest::prelude::*;

/// Of a world whose volume may grow.
fn growing_plan(nodes: u8) -> impl Strategy<Value = Plan> {
    let step = prop_oneof![
        24 => step(nodes),
        1 => prop_oneof![1 => Just(0_u8), 4 => 1_u8..6].prop_map(Step::Grow),
        1 => (0..nodes).prop_map(Step::Heir),
    ];
    prop::collection::vec(step, 20..400).prop_map(Plan)
}

const SMALL_BYTES: u64 = 1 << 20;

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_pair_that_grows_survives_anything(plan in growing_plan(2)) {
        let mut world = World::with_room(&[DISK_BYTES; 2], SMALL_BYTES, |_| {});
        world.run();
        prop_assert_eq!(world.control.in_sync.len(), 2);
        world.survive(&plan);
    }

    #[test]
    fn three_that_grow_survive_anything(plan in growing_plan(3)) {
        let far = Apart { nodes: BTreeSet::from([NodeId(2)]), bound: SMALL };
        let apart = plan.0.len().is_multiple_of(2).then_some(far);
        let mut world = World::with_room(&[DISK_BYTES; 3], SMALL_BYTES, |config| config.apart = apart);
        world.run();
        prop_assert_eq!(world.control.in_sync.len(), 3);
        world.survive(&plan);
    }

    #[test]
    fn an_eligible_pair_that_grows_survives_anything(plan in growing_plan(2)) {
        let mut world = World::with_room(&[DISK_BYTES; 2], SMALL_BYTES, |config| {
            config.apart = Some(Apart::everybody(SMALL));
        });
        world.run();
        world.survive(&plan);
    }
}
