//! The scenarios, in the guest.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use crate::e2e::Depth::{self, Long, Once};
use crate::e2e::{self, World, stall};
use crate::failure::{Failure, Outcome};
use crate::table::Table;

/// So much of a log is told when a run fails.
const LOG_LINES: usize = 60;

/// A claim about a front end.
struct Scenario {
    name: &'static str,
    depth: Depth,
    what: What,
}

/// How it is shown.
enum What {
    /// The service on a file system on the device, and a break.
    Demo {
        front_end: &'static str,
        fstype: &'static str,
        breaks: &'static str,
    },
    /// fio on the device itself, while the daemon is killed.
    Stall { front_end: &'static str },
    /// The front end that is chosen when none is configured.
    Choice,
}

const fn demo(
    name: &'static str,
    depth: Depth,
    front_end: &'static str,
    fstype: &'static str,
    breaks: &'static str,
) -> Scenario {
    let what = What::Demo {
        front_end,
        fstype,
        breaks,
    };
    Scenario { name, depth, what }
}

const fn stall(name: &'static str, front_end: &'static str) -> Scenario {
    Scenario {
        name,
        depth: Once,
        what: What::Stall { front_end },
    }
}

const SCENARIOS: [Scenario; 14] = [
    Scenario {
        name: "auto_is_ublk_where_the_kernel_has_it",
        depth: Once,
        what: What::Choice,
    },
    stall("ublk_outlives_its_daemon", "ublk"),
    stall("nbd_outlives_its_daemon", "nbd"),
    stall("fuse_loop_outlives_its_daemon", "fuse-loop"),
    demo("ext4_on_ublk", Once, "ublk", "ext4", "daemon,node"),
    demo("xfs_on_nbd", Once, "nbd", "xfs", "daemon,node"),
    demo("xfs_on_ublk", Long, "ublk", "xfs", "daemon,node"),
    demo("ext4_on_nbd", Long, "nbd", "ext4", "daemon,node"),
    demo("xfs_on_fuse_loop", Long, "fuse-loop", "xfs", "daemon,node"),
    demo(
        "ext4_on_fuse_loop",
        Long,
        "fuse-loop",
        "ext4",
        "daemon,node",
    ),
    demo(
        "ublk_and_the_other_breaks",
        Long,
        "ublk",
        "ext4",
        "hang,power,disk-error",
    ),
    demo(
        "nbd_and_the_other_breaks",
        Long,
        "nbd",
        "ext4",
        "hang,power,disk-error",
    ),
    demo(
        "ublk_when_cut_off",
        Long,
        "ublk",
        "ext4",
        "isolate,partition",
    ),
    demo("nbd_when_cut_off", Long, "nbd", "ext4", "isolate,partition"),
];

/// Whether there is anything to do.
pub(super) fn check(depth: Depth, only: &[String]) -> Outcome {
    match chosen(depth, only).next() {
        Some(_) => Ok(()),
        None => Err(Failure::new("no scenario has such a name")),
    }
}

fn chosen(depth: Depth, only: &[String]) -> impl Iterator<Item = &'static Scenario> {
    SCENARIOS.iter().filter(move |scenario| {
        let named = only
            .iter()
            .any(|part| scenario.name.contains(part.as_str()));
        let due = only.is_empty() && (depth == Long || scenario.depth == Once);
        named || due
    })
}

/// Runs the scenarios on the program at `backstay`.
pub(super) fn run(backstay: &Path, depth: Depth, only: &[String]) -> Outcome {
    let world = World {
        backstay: backstay.to_owned(),
        scratch: PathBuf::from("/dev/shm"),
        logs: PathBuf::from("/tmp/backstay-guest-logs"),
        depth,
        is_guest: true,
    };
    let mut table = Table::new(&["scenario", "seconds", "found", "result"]);
    let (mut passed, mut failed) = (0, 0);
    for scenario in chosen(depth, only) {
        println!("\n-- {}", scenario.name);
        let started = Instant::now();
        let outcome = play(&world, &scenario.what);
        let (found, result) = match outcome {
            Ok(found) => {
                passed += 1;
                (found, "ok")
            }
            Err(failure) => {
                eprintln!("{failure}\nagain: cargo xtask guest {}", scenario.name);
                failed += 1;
                (String::new(), "FAILED")
            }
        };
        let seconds = e2e::seconds(started.elapsed());
        table.row(vec![scenario.name.into(), seconds, found, result.into()]);
    }
    print!("\n{}", table.text());
    println!("guest: {passed} passed, {failed} failed");
    match failed {
        0 => Ok(()),
        _ => Err(Failure::new(format!("{failed} scenarios failed"))),
    }
}

fn play(world: &World, what: &What) -> Outcome<String> {
    match what {
        What::Demo {
            front_end,
            fstype,
            breaks,
        } => demo_run(world, front_end, fstype, breaks),
        What::Stall { front_end } => {
            let seen = stall::on_device(world, front_end)?;
            stall::tell(world, front_end, &seen)?;
            Ok(format!(
                "longest stall {} ms, 0 errors",
                seen.longest.as_millis()
            ))
        }
        What::Choice => choice(world),
    }
}

fn demo_run(world: &World, front_end: &str, fstype: &str, breaks: &str) -> Outcome<String> {
    let mut args = vec!["--break", breaks, "--front-end", front_end];
    args.extend(["--fstype", fstype, "--profile", "cloud"]);
    let runs = e2e::demo::runs(world, &args)?;
    print!("{}", e2e::demo::table(&runs).text());
    for run in &runs {
        println!("{run}");
        if !e2e::demo::is_safe(run) || run["front_end"] != front_end {
            tell_logs(run);
            return Err(
                Failure::new(format!("break {} on {front_end}", run["break"]))
                    .because(&run["reasons"]),
            );
        }
        if run["break"] == "daemon" && run["failovers"] != 0 {
            return Err(Failure::new("the device was given up, not adopted"));
        }
    }
    Ok(runs.iter().map(outage).collect::<Vec<_>>().join(", "))
}

/// The ends of the logs of a run that failed: they go with the guest.
fn tell_logs(run: &Value) {
    let Some(lab) = run["logs"].as_str() else {
        return;
    };
    for node in ["node-a", "node-b", "witness"] {
        let log = Path::new(lab).join(node).join("daemon.log");
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.len().saturating_sub(LOG_LINES);
        println!(
            "-- the end of {}\n{}",
            log.display(),
            lines[last..].join("\n")
        );
    }
}

fn outage(run: &Value) -> String {
    let name = run["break"].as_str().unwrap_or_default();
    format!("{name} {} ms, {} lost", run["outage_ms"], run["lost"])
}

fn choice(world: &World) -> Outcome<String> {
    let args = [&["--workload", "ledger"], world.lab_profile()].concat();
    let lab = e2e::lab::Lab::up(world, "choice", &args)?;
    let active = lab.node("active")?;
    let mirror = lab.group(&active.name)?["mirrors"][0].clone();
    lab.down()?;
    match mirror["front_end"].as_str() {
        Some("ublk") => Ok("ublk".to_owned()),
        other => {
            Err(Failure::new(format!("{other:?} was chosen")).because(&mirror["front_end_why"]))
        }
    }
}
