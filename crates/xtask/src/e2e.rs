//! `cargo xtask e2e`: the release binary on real processes, namespaces, disks and tools.
//!
//! A scenario makes its own lab in its own directory and takes it down again. It fails with a sentence; its lab's logs are
//! kept then. `cargo xtask e2e NAME` repeats one.

mod apart;
mod asynchronous;
mod breaks;
mod chain;
mod compress;
pub(crate) mod crash;
pub(crate) mod demo;
mod disks;
mod first_sync;
mod grown;
pub(crate) mod lab;
mod leftovers;
mod log_replay;
mod nbd;
mod nbd_client;
pub(crate) mod resync;
pub(crate) mod running;
mod silence;
mod snapshot;
pub(crate) mod stall;
mod three;
mod undo;
mod verify;
pub(crate) mod wait;
mod way_out;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome};
use crate::project::Project;
use crate::shell;
use crate::table::Table;

/// How much time a scenario may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Each thing once: for every change.
    Once,
    /// As long as the evidence asks for.
    Long,
}

/// What a scenario needs.
#[derive(Debug)]
pub(crate) struct World {
    /// The release binary.
    pub(crate) backstay: PathBuf,
    /// Where labs are made; in memory if the machine has such a place.
    pub(crate) scratch: PathBuf,
    /// Where the logs of failed scenarios are kept.
    pub(crate) logs: PathBuf,
    pub(crate) depth: Depth,
    /// The machine is a guest, where everything takes longer.
    pub(crate) is_guest: bool,
}

/// A claim about the whole system.
struct Scenario {
    name: &'static str,
    run: fn(&World) -> Outcome,
}

const SCENARIOS: [Scenario; 26] = [
    Scenario {
        name: "every_break_passes",
        run: breaks::every_break_passes,
    },
    Scenario {
        name: "postgres_loses_no_row",
        run: breaks::postgres_loses_no_row,
    },
    Scenario {
        name: "nbd_tools_read_what_they_wrote",
        run: nbd::tools_read_what_they_wrote,
    },
    Scenario {
        name: "fio_verifies_while_the_standby_dies_twice",
        run: nbd::fio_verifies,
    },
    Scenario {
        name: "killed_daemon_stalls_fuse_and_loop_briefly",
        run: stall::fuse_loop,
    },
    Scenario {
        name: "killed_daemon_stalls_the_nbd_socket_briefly",
        run: stall::nbd_socket,
    },
    Scenario {
        name: "resync_sends_what_changed",
        run: resync::sends_what_changed,
    },
    Scenario {
        name: "bad_spots_are_mended_and_differences_found",
        run: verify::spots_and_differences,
    },
    Scenario {
        name: "stopped_active_falls_silent_within_its_lease",
        run: silence::stopped_active,
    },
    Scenario {
        name: "async_never_past_its_bound",
        run: asynchronous::never_past_its_bound,
    },
    Scenario {
        name: "async_chain_is_a_prefix",
        run: asynchronous::chain_is_a_prefix,
    },
    Scenario {
        name: "three_replicas_one_after_the_other_goes",
        run: three::one_after_the_other_goes,
    },
    Scenario {
        name: "third_replica_far_away_takes_over_when_asked",
        run: three::far_away,
    },
    Scenario {
        name: "two_labs_run_side_by_side",
        run: leftovers::two_labs,
    },
    Scenario {
        name: "lab_down_leaves_nothing_after_every_break",
        run: leftovers::every_break,
    },
    Scenario {
        name: "crashes_under_load_lose_nothing",
        run: crash::lose_nothing,
    },
    Scenario {
        name: "every_prefix_of_the_disks_write_log_recovers",
        run: log_replay::every_prefix_recovers,
    },
    Scenario {
        name: "packed_link_carries_less",
        run: compress::packed_link_carries_less,
    },
    Scenario {
        name: "wrong_disks_are_named_and_larger_ones_used",
        run: disks::wrong_and_larger,
    },
    Scenario {
        name: "a_first_sync_copies_used_blocks_only",
        run: first_sync::copies_used_blocks,
    },
    Scenario {
        name: "a_volume_grows_while_it_is_served",
        run: grown::while_served,
    },
    Scenario {
        name: "nodes_die_while_a_volume_grows",
        run: grown::while_nodes_die,
    },
    Scenario {
        name: "metadata_apart_survives_failovers",
        run: apart::metadata_apart,
    },
    Scenario {
        name: "an_interrupted_resync_is_undone",
        run: undo::interrupted_resync_is_undone,
    },
    Scenario {
        name: "snapshot_stands_still_and_never_for_long",
        run: snapshot::stands_still,
    },
    Scenario {
        name: "disks_are_plain_without_backstay",
        run: way_out::disks_are_plain,
    },
];

impl World {
    /// Builds the release binary.
    pub(crate) fn build(project: &Project, depth: Depth) -> Outcome<Self> {
        let build = ["build", "--release", "--locked", "--package", "backstay"];
        shell::run(shell::cargo(&project.root).args(build))?;
        let backstay = project.target().join("release/backstay");
        Ok(Self::of(project, depth, backstay))
    }

    /// With a binary that is there already.
    pub(crate) fn of(project: &Project, depth: Depth, backstay: PathBuf) -> Self {
        let memory = PathBuf::from("/dev/shm");
        Self {
            backstay,
            scratch: if memory.is_dir() {
                memory
            } else {
                project.cache.clone()
            },
            logs: project.cache.join("e2e"),
            depth,
            is_guest: false,
        }
    }

    /// The time limits that fit the machine, for `backstay lab up`.
    pub(crate) fn lab_profile(&self) -> &'static [&'static str] {
        if self.is_guest {
            &["--profile", "cloud"]
        } else {
            &[]
        }
    }
}

/// Runs every scenario whose name contains `only`.
pub(crate) fn run(project: &Project, depth: Depth, only: Option<&str>) -> Outcome {
    let world = World::build(project, depth)?;
    let mut table = Table::new(&["scenario", "seconds", "result"]);
    let (mut passed, mut failed) = (0, 0);
    for scenario in SCENARIOS
        .iter()
        .filter(|s| only.is_none_or(|part| s.name.contains(part)))
    {
        println!("\n-- {}", scenario.name);
        let started = Instant::now();
        let outcome = (scenario.run)(&world);
        let result = if outcome.is_ok() { "ok" } else { "FAILED" };
        if let Err(failure) = outcome {
            eprintln!("{failure}\nagain: cargo xtask e2e {}", scenario.name);
            failed += 1;
        } else {
            passed += 1;
        }
        table.row(vec![
            scenario.name.into(),
            seconds(started.elapsed()),
            result.into(),
        ]);
    }
    print!("\n{}", table.text());
    println!("e2e: {passed} passed, {failed} failed");
    match (passed, failed) {
        (0, 0) => Err(Failure::new("no scenario has such a name")),
        (_, 0) => Ok(()),
        _ => Err(Failure::new(format!("{failed} scenarios failed"))),
    }
}

pub(crate) fn seconds(took: Duration) -> String {
    format!("{:.1}", took.as_secs_f64())
}
