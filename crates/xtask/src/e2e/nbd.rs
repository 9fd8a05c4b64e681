//! Other people's tools on the mirrored volume's NBD socket.

use std::path::Path;
use std::process::Command;

use super::lab::{Lab, Node};
use super::running::{ONE_PROCESS, Running};
use super::{Depth, World};
use crate::failure::{Failure, Outcome};
use crate::shell;

/// Size of the volume.
const SIZE: &str = "256M";
const SIZE_BYTES: u64 = 256 << 20;

/// What fio reports, in the lab's directory.
const FIO_LOG: &str = "fio.log";

/// Writes, zeroes, discards and flushes that overlap, in this order; the last flush covers all of them.
const WRITES: [&str; 12] = [
    "write -P 0xa1 0 1M",
    "write -P 0xa2 4k 4k",
    "write -P 0xa3 6144 512",
    "write -f -P 0xa4 1M 64k",
    "write -P 0xa5 2M 4M",
    "flush",
    "write -z 3M 1M",
    "write -z -u 4M 512k",
    "write -P 0xa6 3584k 4k",
    "discard 5M 512k",
    "write -P 0xa7 5120k 4k",
    "flush",
];

/// What must be read back then: in each place what was written there last. What a discarded block holds is not promised, only
/// that both replicas hold the same.
const READS: [&str; 13] = [
    "read -P 0xa1 0 4k",
    "read -P 0xa2 4k 2k",
    "read -P 0xa3 6144 512",
    "read -P 0xa2 6656 1536",
    "read -P 0xa1 8k 1016k",
    "read -P 0xa4 1M 64k",
    "read -P 0xa5 2M 1M",
    "read -P 0 3M 512k",
    "read -P 0xa6 3584k 4k",
    "read -P 0 3588k 508k",
    "read -P 0 4M 512k",
    "read -P 0xa5 4608k 512k",
    "read -P 0xa7 5120k 4k",
];

pub(crate) fn tools_read_what_they_wrote(world: &World) -> Outcome {
    let lab = Lab::up(world, "nbd", &["--workload", "none", "--size", SIZE])?;
    let (active, standby) = (lab.node("active")?, lab.node("standby")?);
    shell::run(Command::new("nbdinfo").arg(&active.nbd))?;
    refused_elsewhere(&lab)?;
    copy_both_ways(&lab, &active)?;
    patterns(&active, &WRITES)?;
    patterns(&active, &READS)?;
    lab.compare_disks(SIZE_BYTES)?;
    // What was flushed is there on the other node, too, whatever this one's disk forgets.
    lab.fault(&active.name, "power")?;
    lab.wait_active(&standby.name)?;
    patterns(&standby, &READS)?;
    lab.heal(&active.name)?;
    lab.wait_in_sync(&standby.name)?;
    lab.compare_disks(SIZE_BYTES)?;
    lab.down()
}

fn patterns(node: &Node, commands: &[&str]) -> Outcome {
    println!("qemu-io at {}: {}", node.name, commands.join("; "));
    let mut io = Command::new("qemu-io");
    io.args(["-f", "raw"]);
    for command in commands {
        io.args(["-c", command]);
    }
    let said = shell::capture(io.arg(&node.nbd))?;
    let done = said.lines().filter(|line| line.contains(" ops; ")).count();
    let expected = commands.iter().filter(|one| **one != "flush").count();
    if said.contains("verification failed") || done != expected {
        return Err(
            Failure::new(format!("qemu-io did {done} of {expected} operations")).because(said),
        );
    }
    Ok(())
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
    let seconds = if world.depth == Depth::Long { 60 } else { 15 };
    let lab = Lab::up(world, "fio", &["--workload", "none", "--size", SIZE])?;
    let (active, standby) = (lab.node("active")?, lab.node("standby")?);
    let mut fio = start_fio(&active.nbd, seconds, &lab.dir)?;
    for _ in 0..2 {
        absent_once(&lab, &active, &standby, &mut fio)?;
    }
    let status = fio.end()?;
    let said = std::fs::read_to_string(lab.dir.join(FIO_LOG)).unwrap_or_default();
    if !status.success() {
        return Err(Failure::new("fio found errors").because(format!("{status}: {said}")));
    }
    tell(&said);
    lab.wait_in_sync(&active.name)?;
    lab.compare_disks(SIZE_BYTES)?;
    lab.down()
}

/// Reads back and verifies all the time, not only at the end.
fn start_fio(uri: &str, seconds: u64, dir: &Path) -> Outcome<Running> {
    let mut fio = Command::new("fio");
    fio.args(["--name=verify", "--ioengine=nbd", "--rw=randrw", "--bs=4k"])
        .arg(ONE_PROCESS)
        .args(["--iodepth=16", "--size=128M", "--time_based"])
        .args(["--verify=crc32c", "--verify_backlog=1024"])
        .args(["--verify_fatal=1", "--fsync=256"])
        .arg(format!("--runtime={seconds}"))
        .arg(format!("--uri={uri}"))
        .arg(format!("--output={FIO_LOG}"))
        // Where it leaves its report and what it would need to go on.
        .current_dir(dir);
    Running::start(&mut fio)
}

/// The lines of fio's report that say how much it read and wrote, and that there was no error.
fn tell(report: &str) {
    let told = ["err=", "read: IOPS", "write: IOPS"];
    for line in report.lines() {
        if told.iter().any(|part| line.contains(part)) {
            println!("{}", line.trim());
        }
    }
}

/// The standby dies and returns, while fio runs.
fn absent_once(lab: &Lab, active: &Node, standby: &Node, fio: &mut Running) -> Outcome {
    lab.fault(&standby.name, "kill")?;
    lab.wait_in_set(&active.name, 1)?;
    lab.heal(&standby.name)?;
    lab.wait_in_sync(&active.name)?;
    if fio.is_alive() {
        return Ok(());
    }
    Err(Failure::new(
        "fio ended before the standby had returned twice",
    ))
}
