//! Metadata on a device of its own: a full disk is mirrored, fails over, and is told from another one.

use std::fs;
use std::path::Path;

use super::World;
use super::lab::Lab;
use crate::failure::{Context, Failure, Outcome};

/// The volume, which is all of each disk.
const SIZE: &str = "64M";
const SIZE_BYTES: u64 = 64 << 20;
/// How long a node may take to tell what it found.
const TOLD_MAX: std::time::Duration = std::time::Duration::from_secs(20);

/// A pair loses its active, then power, then one node is given another disk beside its metadata.
pub(crate) fn metadata_apart(world: &World) -> Outcome {
    let args = ["--workload", "ledger", "--size", SIZE, "--external"];
    let lab = Lab::up(world, "apart", &args)?;
    let (active, standby) = (lab.node("active")?.name, lab.node("standby")?.name);
    lab.wait_in_sync(&active)?;
    for node in [&active, &standby] {
        let bytes = fs::metadata(lab.dir.join(node).join("disk"));
        let bytes = bytes.context("measure the disk")?.len();
        if bytes != SIZE_BYTES {
            return Err(Failure::new(format!(
                "the disk of {node} has {bytes} bytes"
            )));
        }
    }
    for fault in ["kill", "power"] {
        let failed = lab.node("active")?.name;
        let other = if failed == active { &standby } else { &active };
        lab.fault(&failed, fault)?;
        lab.wait_active(other)?;
        lab.heal(&failed)?;
        lab.wait_in_sync(other)?;
    }
    let (active, standby) = (lab.node("active")?.name, lab.node("standby")?.name);
    other_disk(&lab, &active, &standby)?;
    lab.stop_group(&active)?;
    lab.compare_disks(SIZE_BYTES)?;
    lab.down()
}

/// The standby gets a copy of its disk: as good, but not the one that the metadata is of.
fn other_disk(lab: &Lab, active: &str, standby: &str) -> Outcome {
    let disk = lab.dir.join(standby).join("disk");
    let kept = disk.with_extension("kept");
    lab.fault(standby, "kill")?;
    swap(&disk, &kept)?;
    fs::copy(&kept, &disk).context("put a copy in")?;
    lab.heal(standby)?;
    for node in [active, standby] {
        lab.wait_wrong_disk(node, "another disk's metadata", TOLD_MAX)?;
    }
    lab.fault(standby, "kill")?;
    swap(&kept, &disk)?;
    lab.heal(standby)?;
    lab.wait_in_sync(active)
}

fn swap(from: &Path, to: &Path) -> Outcome {
    fs::rename(from, to).context(format!("move {}", from.display()))
}
