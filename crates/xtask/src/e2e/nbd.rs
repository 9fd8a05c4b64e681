//! Other people's tools on the mirrored volume's NBD socket.

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use super::lab::{Lab, Node};
use super::{Depth, World, wait};
use crate::failure::{Context, Failure, Outcome};
use crate::shell;

/// Size of the volume.
const SIZE: &str = "256M";
const SIZE_BYTES: u64 = 256 << 20;

/// Writes, flushes, discards and patterns that overlap; what is read back must be what was written last.
const PATTERNS: [&str; 10] = [
    "write -P 0xa1 0 1M",
    "write -P 0xa2 4k 4k",
    "write -f -P 0xa3 1M 64k",
    "flush",
    "write -z 2M 1M",
    "discard 3M 1M",
    "read -P 0xa1 0 4k",
    "read -P 0xa2 4k 4k",
    "read -P 0xa3 1M 64k",
    "read -P 0 2M 1M",
];

pub(crate) fn tools_read_what_they_wrote(world: &World) -> Outcome {
    let lab = Lab::up(world, "nbd", &["--workload", "none", "--size", SIZE])?;
    let active = lab.node("active")?;
    shell::run(Command::new("nbdinfo").arg(&active.nbd))?;
    refused_elsewhere(&lab)?;
    copy_both_ways(&lab, &active)?;
    let mut io = Command::new("qemu-io");
    io.args(["-f", "raw"]);
    for pattern in PATTERNS {
        io.args(["-c", pattern]);
    }
    let said = shell::capture(io.arg(&active.nbd))?;
    if said.contains("verification failed") {
        return Err(Failure::new("qemu-io read other bytes than it wrote").because(said));
    }
    lab.wait_in_sync(&active.name)?;
    lab.compare_disks(SIZE_BYTES)?;
    lab.down()
}

fn refused_elsewhere(lab: &Lab) -> Outcome {
    let standby = lab.node("standby")?;
    match shell::capture(Command::new("nbdinfo").arg(&standby.nbd)) {
        Ok(_) => Err(Failure::new(format!(
            "{} serves the volume as well",
            standby.name
        ))),
        Err(_) => Ok(()),
    }
}

fn copy_both_ways(lab: &Lab, active: &Node) -> Outcome {
    let (original, back) = (lab.dir.join("original"), lab.dir.join("back"));
    let mut make = Command::new("dd");
    make.args(["if=/dev/urandom", "bs=1M", "count=256", "status=none"]);
    shell::run(make.arg(format!("of={}", original.display())))?;
    shell::run(
        Command::new("nbdcopy")
            .arg("--flush")
            .arg(&original)
            .arg(&active.nbd),
    )?;
    shell::run(Command::new("nbdcopy").arg(&active.nbd).arg(&back))?;
    shell::run(Command::new("cmp").arg(&original).arg(&back))
}

pub(crate) fn fio_verifies(world: &World) -> Outcome {
    let seconds = if world.depth == Depth::Long { 60 } else { 20 };
    let lab = Lab::up(world, "fio", &["--workload", "none", "--size", SIZE])?;
    let (active, standby) = (lab.node("active")?, lab.node("standby")?);
    let mut fio = start_fio(&active.nbd, seconds, &lab.dir)?;
    let outcome = kill_twice(&lab, &active, &standby, seconds);
    if outcome.is_err() {
        fio.kill().context("end fio")?;
    }
    let status = fio.wait().context("wait for fio")?;
    outcome?;
    if !status.success() {
        let log = std::fs::read_to_string(lab.dir.join("fio.log")).unwrap_or_default();
        return Err(Failure::new("fio found errors").because(format!("{status}: {log}")));
    }
    lab.wait_in_sync(&active.name)?;
    lab.compare_disks(SIZE_BYTES)?;
    lab.down()
}

fn start_fio(uri: &str, seconds: u64, dir: &Path) -> Outcome<Child> {
    let mut fio = Command::new("fio");
    fio.args([
        "--name=verify",
        "--ioengine=nbd",
        "--rw=randrw",
        "--bs=4k",
        "--iodepth=16",
    ])
    .args([
        "--size=128M",
        "--time_based",
        "--verify=crc32c",
        "--verify_backlog=1024",
    ])
    .args(["--verify_fatal=1", "--fsync=256"])
    .arg(format!("--runtime={seconds}"))
    .arg(format!("--uri={uri}"))
    .arg(format!("--output={}", dir.join("fio.log").display()))
    .current_dir(dir);
    println!("$ {}", shell::describe(&fio));
    fio.spawn().context("start fio")
}

/// The standby dies and returns twice, spread over the time that fio runs.
fn kill_twice(lab: &Lab, active: &Node, standby: &Node, seconds: u64) -> Outcome {
    let limit = Duration::from_secs(seconds);
    for _ in 0..2 {
        lab.fault(&standby.name, "kill")?;
        wait::until("the standby is out of the set", limit, || {
            let group = lab.group(&active.name).ok()?;
            (group["in_sync"].as_array()?.len() == 1).then_some(())
        })?;
        lab.heal(&standby.name)?;
        lab.wait_in_sync(&active.name)?;
    }
    Ok(())
}
