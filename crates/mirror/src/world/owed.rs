//! What a replica wrote alone is named by its log until it is made equal.

use super::property::{Plan, Step, run};

/// A wrote into region 5 alone. B takes over, writes into a part of it, and lets it leave its log, with marks for that part only,
/// while A is being brought up to date: A's log must go on naming the region, for the session may die.
#[test]
fn what_was_written_alone_outlives_what_the_new_active_lets_go() {
    use Step::{Boot, Cut, Deliver, Disk, Move, Pass, Progress, TakeOver, Write};
    let alone = [
        Progress(9),
        Pass(10),
        Progress(108),
        Progress(57),
        TakeOver,
        Disk(0, 0),
        Write(0, 0, false),
        Disk(0, 0),
        Boot(0),
        Progress(48),
        Move,
        Progress(6),
        Cut,
        Write(89, 8, false),
        Disk(0, 0),
        Deliver(0, 0),
        Write(0, 2, false),
        Pass(10),
        Write(21, 2, false),
        Progress(44),
    ];
    let taken_over = [
        Write(0, 0, false),
        Disk(0, 0),
        TakeOver,
        Disk(1, 0),
        Disk(1, 0),
        Write(209, 34, false),
        Progress(202),
        Write(10, 0, false),
        Write(11, 0, false),
        Disk(0, 0),
        Write(0, 0, false),
        Progress(10),
    ];
    let steps = alone.into_iter().chain(taken_over);
    run(&Plan(steps.collect()), |_| {});
}

#[cfg(feature = "mutants")]
#[test]
fn a_region_that_is_let_go_too_early_is_noticed() {
    use std::panic::catch_unwind;
    use wire::mutant::{self, Bug};
    mutant::bring_back(Some(Bug::OwedLetGo));
    let survived =
        catch_unwind(what_was_written_alone_outlives_what_the_new_active_lets_go).is_ok();
    mutant::bring_back(None);
    assert!(!survived, "a difference was forgotten");
}
