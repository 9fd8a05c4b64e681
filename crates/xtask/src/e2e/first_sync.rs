//! A first sync that copies used blocks only: a real ext4, on disks that were full of something else before.

use std::fs;

use super::World;
use super::lab::Lab;
use super::resync::sent_since;
use super::way_out::keep_and_compare;
use crate::failure::{Context, Failure, Outcome};

const SIZE: &str = "192M";
const SIZE_BYTES: u64 = 192 << 20;

/// Little is sent, the whole volumes are equal, and so are the files, of which each disk has all on its own.
pub(crate) fn copies_used_blocks(world: &World) -> Outcome {
    let options = ["--workload", "ledger", "--size", SIZE, "--used-only"];
    let lab = Lab::up(world, "first-sync", &options)?;
    let active = lab.node("active")?;
    lab.wait_in_sync(&active.name)?;
    let sent = sent_since(&lab, &active.name, 0)?;
    println!("sent {sent} bytes of {SIZE_BYTES}");
    if sent > SIZE_BYTES / 4 {
        return Err(Failure::new(format!(
            "the first sync sent {sent} bytes of {SIZE_BYTES}, and its ext4 is all but empty"
        )));
    }
    let file = format!("of={}", lab.dir.join("mnt/kept").display());
    lab.exec(
        &active.name,
        &["dd", "if=/dev/urandom", &file, "bs=1M", "count=8"],
    )?;
    lab.stop_group(&active.name)?;
    lab.compare_disks(SIZE_BYTES)?;
    let copies = world.scratch.join(format!(
        "backstay-e2e-{}-first-sync-copies",
        std::process::id()
    ));
    fs::create_dir_all(&copies).context(format!("make {}", copies.display()))?;
    let compared = keep_and_compare(lab, &copies);
    fs::remove_dir_all(&copies).context(format!("remove {}", copies.display()))?;
    compared
}
