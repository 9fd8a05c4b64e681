//! The daemon is killed under a busy volume: no I/O error, and how long the longest request waited.

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use super::lab::{Lab, Node};
use super::running::Running;
use super::{Depth, World, wait};
use crate::failure::{Context, Failure, Outcome};

/// A request may wait so long, whatever the front end.
const STALL_MAX: Duration = Duration::from_secs(3);
/// Between two deaths of the daemon, and before the first: some of the time it has to be busy with nothing else.
const BUSY: Duration = Duration::from_secs(5);
/// Size of the volume: half of it is written.
const SIZE: &str = "64M";
/// What fio reports, in the lab's directory.
const REPORT: &str = "stall.json";

/// What was seen.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The longest time from the beginning of a request to its end.
    pub(crate) longest: Duration,
    /// Requests that ended.
    pub(crate) requests: u64,
}

pub(crate) fn fuse_loop(world: &World) -> Outcome {
    on_device(world, "fuse-loop").and_then(|seen| tell(world, "fuse-loop", &seen))
}

pub(crate) fn nbd_socket(world: &World) -> Outcome {
    on_socket(world).and_then(|seen| tell(world, "nbd-socket", &seen))
}

/// Says what was seen. More than the bound is a failure only of a long run on the machine itself: a guest's time means nothing.
pub(crate) fn tell(world: &World, front_end: &str, seen: &Seen) -> Outcome {
    let (ms, requests) = (seen.longest.as_millis(), seen.requests);
    println!("{front_end}: {requests} requests, no error, the longest took {ms} ms");
    if world.depth == Depth::Long && !world.is_guest && seen.longest > STALL_MAX {
        return Err(Failure::new(format!("{front_end}: a request took {ms} ms"))
            .because(format!("the bound is {} ms", STALL_MAX.as_millis())));
    }
    Ok(())
}

/// On the block device of the named front end.
pub(crate) fn on_device(world: &World, front_end: &str) -> Outcome<Seen> {
    let args = [
        "--workload",
        "none",
        "--size",
        SIZE,
        "--front-end",
        front_end,
    ];
    let args = [&args[..], world.lab_profile()].concat();
    let lab = Lab::up(world, &format!("stall-{front_end}"), &args)?;
    let active = lab.node("active")?;
    let device = device(&lab, &active)?;
    let mut fio = fio(world, &lab.dir);
    fio.args(["--ioengine=libaio", "--direct=1"]);
    fio.arg(format!("--filename={device}"));
    let seen = under_load(world, &lab, &active, &mut fio)?;
    lab.down()?;
    Ok(seen)
}

/// On the NBD socket, through a client that connects again.
fn on_socket(world: &World) -> Outcome<Seen> {
    let args = [&["--workload", "none", "--size", SIZE], world.lab_profile()].concat();
    let lab = Lab::up(world, "stall-socket", &args)?;
    let active = lab.node("active")?;
    let socket = active.nbd.split("socket=").nth(1).unwrap_or_default();
    let export = active.nbd.trim_start_matches("nbd+unix:///");
    let export = export.split('?').next().unwrap_or_default();
    let relay = lab.dir.join("relay.sock");
    let mut nbd = Command::new("qemu-nbd");
    nbd.args([
        "--persistent",
        "--shared=4",
        "--discard=unmap",
        "--aio=threads",
    ])
    .arg("-k")
    .arg(&relay)
    .arg("--image-opts")
    .arg(format!(
        "driver=nbd,server.type=unix,server.path={socket},export={export},reconnect-delay=60"
    ));
    let _relay = Running::start(&mut nbd)?;
    wait::until("the relay listens", Duration::from_secs(10), || {
        relay.exists().then_some(())
    })?;
    let mut fio = fio(world, &lab.dir);
    fio.arg("--ioengine=nbd");
    fio.arg(format!("--uri=nbd+unix:///?socket={}", relay.display()));
    let seen = under_load(world, &lab, &active, &mut fio)?;
    drop(_relay);
    lab.down()?;
    Ok(seen)
}

fn device(lab: &Lab, active: &Node) -> Outcome<String> {
    let status = lab.status()?;
    let nodes = status["nodes"].as_array().into_iter().flatten();
    nodes
        .filter(|node| node["name"] == active.name.as_str())
        .find_map(|node| node["device"].as_str())
        .map(str::to_owned)
        .ok_or_else(|| Failure::new(format!("{} has no block device", active.name)))
}

fn deaths(world: &World) -> u32 {
    if world.depth == Depth::Long { 5 } else { 1 }
}

/// Reads back and verifies all the time.
fn fio(world: &World, dir: &Path) -> Command {
    let seconds = (BUSY * (deaths(world) + 1)).as_secs();
    let mut fio = Command::new("fio");
    fio.args(["--name=stall", "--rw=randrw", "--bs=4k", "--iodepth=8"])
        .args(["--size=32M", "--time_based", "--verify=crc32c"])
        .args(["--verify_backlog=256", "--verify_fatal=1", "--fsync=64"])
        .arg(format!("--runtime={seconds}"))
        .args([
            "--eta=never",
            "--output-format=json",
            &format!("--output={REPORT}"),
        ])
        // Where it leaves its report and what it would need to go on.
        .current_dir(dir);
    fio
}

fn under_load(world: &World, lab: &Lab, active: &Node, fio: &mut Command) -> Outcome<Seen> {
    let epoch = lab.group(&active.name)?["epoch"].clone();
    let mut fio = Running::start(fio)?;
    for _ in 0..deaths(world) {
        sleep(BUSY);
        if !fio.is_alive() {
            break;
        }
        lab.fault(&active.name, "daemon")?;
    }
    let status = fio.end()?;
    let report = std::fs::read_to_string(lab.dir.join(REPORT)).context("read fio's report")?;
    if !status.success() {
        return Err(Failure::new("fio found errors").because(format!("{status}: {report}")));
    }
    lab.wait_active(&active.name)?;
    let after = lab.group(&active.name)?["epoch"].clone();
    let seen = seen(&report)?;
    println!("epoch {epoch} before, {after} after");
    Ok(seen)
}

fn seen(report: &str) -> Outcome<Seen> {
    // Lines before the document are notes of fio's.
    let start = report.find('{').unwrap_or(0);
    let report: Value = serde_json::from_str(&report[start..])
        .map_err(|cause| Failure::new("cannot understand fio's report").because(cause))?;
    let job = &report["jobs"][0];
    let of = |way: &str| {
        let way = &job[way];
        let longest = way["clat_ns"]["max"].as_u64().unwrap_or(0);
        (longest, way["total_ios"].as_u64().unwrap_or(0))
    };
    let (read, write) = (of("read"), of("write"));
    if job["error"] != 0 || write.1 == 0 {
        return Err(Failure::new("fio found errors").because(&job["error"]));
    }
    Ok(Seen {
        longest: Duration::from_nanos(read.0.max(write.0)),
        requests: read.1 + write.1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_request_of_both_ways_counts() {
        let report = r#"note
            {"jobs":[{"error":0,"read":{"total_ios":2,"clat_ns":{"max":7}},
            "write":{"total_ios":3,"clat_ns":{"max":9}}}]}"#;
        let found = seen(report).unwrap();
        assert_eq!((found.longest.as_nanos(), found.requests), (9, 5));
        assert!(seen(&report.replace("\"error\":0", "\"error\":5")).is_err());
    }
}
