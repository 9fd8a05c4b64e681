//! Short lives of a mirror that write all of its metadata.

use super::*;

/// The steps of one.
pub(super) type Workload = fn(&mut Explorer);

/// Name and steps; each begins with a pair that was just created.
pub(super) const ALL: &[(&str, Workload)] = &[
    ("first sync", first_sync),
    ("writes and flushes of a pair", pair_writes),
    ("solo, the log overflows into the bitmap", solo_overflow),
    ("the standby returns", standby_returns),
    ("takeover and return of the active", takeover),
    ("planned move", planned_move),
    ("power failures in a row", failures_in_a_row),
];

fn region(number: u64) -> u64 {
    number * 65_536
}

fn first_sync(e: &mut Explorer) {
    e.run();
}

/// The first sync is another workload's matter.
fn pair(e: &mut Explorer) {
    e.skip();
}

fn pair_writes(e: &mut Explorer) {
    pair(e);
    for n in 0..6 {
        e.act(|w| {
            w.write(region(n % 5), 512, n == 3);
        });
        e.act(|w| {
            w.write(region(n % 5) + 512, 1024, false);
        });
        e.run();
        if n % 2 == 1 {
            e.act(|w| {
                w.flush();
            });
            e.run();
        }
    }
    e.act(|w| {
        w.zero(region(1), 512);
    });
    e.run();
}

/// The standby is gone, and cast out.
fn solo(e: &mut Explorer) {
    pair(e);
    e.act(|w| w.crash(B, true));
    e.skip();
}

fn solo_overflow(e: &mut Explorer) {
    solo(e);
    for n in 0..9 {
        e.act(|w| {
            w.write(region(n), 512, false);
        });
        if n % 2 == 0 {
            e.run();
        }
        if n % 4 == 3 {
            e.act(|w| {
                w.flush();
            });
            e.run();
        }
    }
    e.run();
}

fn standby_returns(e: &mut Explorer) {
    solo(e);
    for n in 0..5 {
        e.act(|w| {
            w.write(region(n), 1024, false);
        });
    }
    e.skip();
    e.act(|w| w.boot(B, true));
    for _ in 0..12 {
        e.steps(4);
    }
    e.act(|w| {
        w.write(region(2) + 512, 512, false);
    });
    e.run();
    e.act(|w| {
        w.flush();
    });
    e.run();
}

fn takeover(e: &mut Explorer) {
    pair(e);
    e.act(|w| {
        w.write(region(0), 512, false);
    });
    e.act(|w| {
        w.flush();
    });
    e.run();
    e.act(|w| {
        w.write(region(1), 1024, false);
    });
    e.steps(2);
    e.act(|w| w.crash(A, true));
    e.act(World::take_over);
    e.run();
    e.act(|w| {
        w.write(region(2), 512, false);
    });
    e.run();
    e.act(|w| w.boot(A, true));
    e.run();
}

fn planned_move(e: &mut Explorer) {
    pair(e);
    e.act(|w| {
        w.write(region(0), 1024, false);
    });
    e.act(|w| {
        w.write(region(7), 512, false);
    });
    e.run();
    e.act(World::begin_move);
    e.run();
    e.act(|w| {
        w.write(region(3), 512, true);
    });
    e.run();
}

fn failures_in_a_row(e: &mut Explorer) {
    pair(e);
    for n in 0..3 {
        e.act(|w| {
            w.write(region(n), 512, false);
        });
        e.steps(3);
        e.act(|w| w.crash(A, true));
        e.act(|w| w.boot(A, true));
        e.run();
        e.act(|w| w.crash(B, true));
        e.steps(2);
        e.act(|w| w.boot(B, true));
        e.run();
    }
}
