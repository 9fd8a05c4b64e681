//! A packed mirror link carries less than was written, in writes and in a resync, and the replicas are equal.

use std::process::Command;

use super::World;
use super::lab::{Lab, Node};
use crate::failure::{Failure, Outcome};
use crate::shell;
use crate::table::{Table, grouped};

/// Size of the volume.
const SIZE: &str = "64M";
const SIZE_BYTES: u64 = 64 << 20;

pub(crate) fn packed_link_carries_less(world: &World) -> Outcome {
    let up = ["--workload", "none", "--size", SIZE, "--compress"];
    let lab = Lab::up(world, "compress", &up)?;
    let (active, standby) = (lab.node("active")?, lab.node("standby")?);
    lab.wait_in_sync(&active.name)?;
    let mut table = Table::new(&["", "written", "on the wire"]);
    let mut too_much = Vec::new();
    let mut judge = |name: &str, sent: u64| {
        table.row(vec![name.to_owned(), grouped(SIZE_BYTES), grouped(sent)]);
        if sent > SIZE_BYTES / 2 {
            too_much.push(name.to_owned());
        }
    };
    let before = lab.sent_bytes(&active.name)?;
    write(&lab, &active)?;
    lab.compare_disks(SIZE_BYTES)?;
    judge("writes", lab.sent_bytes(&active.name)? - before);
    lab.fault(&standby.name, "kill")?;
    lab.wait_in_set(&active.name, 1)?;
    write(&lab, &active)?;
    let before = lab.sent_bytes(&active.name)?;
    lab.heal(&standby.name)?;
    lab.wait_in_sync(&active.name)?;
    judge("resync", lab.sent_bytes(&active.name)? - before);
    lab.compare_disks(SIZE_BYTES)?;
    print!("{}", table.text());
    if !too_much.is_empty() {
        let what = format!("not even half was saved: {}", too_much.join(", "));
        return Err(Failure::new(what));
    }
    lab.down()
}

/// Fills the volume with content of which four fifths pack away, new each time.
fn write(lab: &Lab, active: &Node) -> Outcome {
    let mut fio = Command::new("fio");
    fio.args(["--name=load", "--ioengine=nbd", "--rw=write", "--bs=64k"])
        .args([
            "--buffer_compress_percentage=80",
            "--buffer_compress_chunk=512",
        ])
        .args(["--refill_buffers", "--randrepeat=0", "--end_fsync=1"])
        .args(["--output=fio.log", &format!("--size={SIZE}")])
        .arg(format!("--uri={}", active.nbd))
        .current_dir(&lab.dir);
    shell::run(&mut fio)
}
