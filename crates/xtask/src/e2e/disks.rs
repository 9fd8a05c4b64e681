//! Disks that a person puts in: a wrong one is named, an enlarged one is used.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::World;
use super::lab::Lab;
use crate::failure::{Context, Failure, Outcome};
use crate::shell;

/// The volume before, and by how much the disks grow.
const SIZE: &str = "32M";
const SIZE_BYTES: u64 = 32 << 20;
const GAIN_BYTES: u64 = 16 << 20;
/// A daemon that starts has told the others what is wrong within this time.
const TOLD_MAX: Duration = Duration::from_secs(60);

/// A foreign disk is told as such by both nodes; the right one comes back, and both grow.
pub(crate) fn wrong_and_larger(world: &World) -> Outcome {
    let lab = Lab::up(world, "disks", &["--workload", "none", "--size", SIZE])?;
    let (active, standby) = (lab.node("active")?.name, lab.node("standby")?.name);
    lab.wait_in_sync(&active)?;
    lab.fault(&standby, "kill")?;
    let disk = lab.dir.join(&standby).join("disk");
    let kept = disk.with_extension("kept");
    let size = fs::metadata(&disk).context("measure the disk")?.len();
    fs::rename(&disk, &kept).context("take the disk out")?;
    let foreign = fs::File::create_new(&disk).context("put another one in")?;
    foreign.set_len(size).context("make it as large")?;
    lab.heal(&standby)?;
    is_named(&lab, &[&active, &standby])?;
    lab.fault(&standby, "kill")?;
    fs::rename(&kept, &disk).context("put the right one back")?;
    lab.heal(&standby)?;
    lab.wait_in_sync(&active)?;
    grow(world, &lab, &[&standby, &active])?;
    lab.down()
}

fn is_named(lab: &Lab, nodes: &[&String]) -> Outcome {
    for node in nodes {
        lab.wait_wrong_disk(node, "holds no mirror", TOLD_MAX)?;
    }
    Ok(())
}

fn grow(world: &World, lab: &Lab, nodes: &[&String]) -> Outcome {
    for node in nodes {
        lab.fault(node, "kill")?;
    }
    for node in nodes {
        let disk: PathBuf = lab.dir.join(node).join("disk");
        let file = OpenOptions::new().write(true).open(&disk);
        let file = file.context(format!("open {}", disk.display()))?;
        let size = file.metadata().context("measure the disk")?.len();
        file.set_len(size + GAIN_BYTES)
            .context("enlarge the disk")?;
        let mut resize = Command::new(&world.backstay);
        shell::run(resize.args(["mirror", "resize", "--yes"]).arg(&disk))?;
    }
    lab.heal("all")?;
    let active = lab.node("active")?.name;
    lab.wait_in_sync(&active)?;
    let data = &lab.group(&active)?["mirrors"][0]["replica"]["data_bytes"];
    let data = data.as_u64().unwrap_or(0);
    println!("the volume has {data} bytes");
    if data < SIZE_BYTES + GAIN_BYTES / 2 {
        return Err(Failure::new(format!("the volume has only {data} bytes")));
    }
    lab.compare_disks(data)
}
