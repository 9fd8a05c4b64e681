//! Bugs that others had, one test each, and the rules that this machine keeps.
use super::*;

#[test]
fn a_fresh_pair_becomes_equal_by_itself() {
    let mut world = World::new(|_| {});
    world.run();
    assert_eq!(world.control.in_sync.len(), 2);
    world.write(0, 4096, false);
    world.heal_and_check();
}
