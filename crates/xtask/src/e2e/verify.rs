//! Places that cannot be read, and replicas that differ though nobody wrote.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::process::Command;

use serde_json::Value;

use super::World;
use super::lab::{Lab, Node};
use crate::failure::{Context, Failure, Outcome};
use crate::shell;

/// Size of the volume.
const SIZE: &str = "64M";
const SIZE_BYTES: u64 = 64 << 20;
/// Where the standby's disk changes behind everybody's back: inside one chunk, and across the border of two.
const ROTTEN: [(u64, usize); 2] = [(5 << 20, 512), ((9 << 20) - 4096, 8192)];
/// A chunk that verifying compares.
const CHUNK: u64 = 64 << 10;

pub(crate) fn spots_and_differences(world: &World) -> Outcome {
    let lab = Lab::up(world, "verify", &["--workload", "none", "--size", SIZE])?;
    let (active, standby) = (lab.node("active")?, lab.node("standby")?);
    let original = lab.dir.join("original");
    let mut make = Command::new("dd");
    make.args(["if=/dev/urandom", "bs=1M", "count=64", "status=none"]);
    shell::run(make.arg(format!("of={}", original.display())))?;
    let mut fill = Command::new("nbdcopy");
    shell::run(fill.arg("--flush").arg(&original).arg(&active.nbd))?;
    read_over_bad_spots(&lab, &active, &standby)?;
    rot(&lab, &standby)?;
    let found = verify(world, &lab, &active, &[], 3)?;
    expect(&found, "different_bytes", 3 * CHUNK)?;
    let found = verify(world, &lab, &active, &["--repair"], 0)?;
    expect(&found, "repaired_bytes", 3 * CHUNK)?;
    lab.compare_disks(SIZE_BYTES)?;
    let found = verify(world, &lab, &active, &[], 0)?;
    expect(&found, "different_bytes", 0)?;
    lab.down()
}

/// A client reads everything while a block in each MiB cannot be read: it gets what it wrote, and the node stays active.
fn read_over_bad_spots(lab: &Lab, active: &Node, standby: &Node) -> Outcome {
    let (original, back) = (lab.dir.join("original"), lab.dir.join("back"));
    for node in [active, standby] {
        lab.fault(&node.name, "disk-spots")?;
        shell::run(Command::new("nbdcopy").arg(&active.nbd).arg(&back))?;
        shell::run(Command::new("cmp").arg(&original).arg(&back))?;
        lab.heal(&node.name)?;
    }
    if lab.node("active")?.name != active.name {
        return Err(Failure::new("bad spots moved the group"));
    }
    lab.wait_in_sync(&active.name)?;
    lab.compare_disks(SIZE_BYTES)
}

fn rot(lab: &Lab, standby: &Node) -> Outcome {
    let path = lab.dir.join(&standby.name).join("disk");
    let disk = OpenOptions::new().write(true).open(&path);
    let disk = disk.context(format!("open {}", path.display()))?;
    for (offset, len) in ROTTEN {
        disk.write_all_at(&vec![0xEE; len], offset)
            .context("change the standby's disk")?;
    }
    Ok(())
}

/// Verifies to the end; the exit code must be this.
fn verify(world: &World, lab: &Lab, active: &Node, args: &[&str], code: i32) -> Outcome<Value> {
    let mut command = Command::new(&world.backstay);
    let state = lab.dir.join(&active.name).join("state");
    command.arg("--state").arg(state).args(["-o", "json"]);
    command
        .args(["mirror", "verify", "data", "--wait"])
        .args(args);
    let output = command.output().context("run backstay mirror verify")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!(
        "backstay mirror verify data --wait {}: {}",
        args.join(" "),
        said.trim()
    );
    if output.status.code() != Some(code) {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(
            Failure::new(format!("mirror verify ended with {}", output.status)).because(why),
        );
    }
    serde_json::from_str(&said)
        .map_err(std::io::Error::other)
        .context("read what it found")
}

fn expect(found: &Value, key: &str, bytes: u64) -> Outcome {
    match found["verify"][key].as_u64() {
        Some(seen) if seen == bytes => Ok(()),
        seen => Err(Failure::new(format!("{key} is {seen:?}, expected {bytes}"))),
    }
}
