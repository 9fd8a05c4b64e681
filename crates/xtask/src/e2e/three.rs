//! Three nodes with a replica each: one after the other goes, and what was acknowledged is there.
//!
//! 1. The active is killed: one standby takes over, and the other follows it after a copy of what was hot, not of everything.
//! 2. Blocks are written while the first is away, and the second active is killed too: nobody serves, because one of three
//!    cannot decide.
//! 3. The first one returns: the only node that has everything serves again, and both others are brought up to date.
//!
//! With the third far away (asynchronous) the active is killed: the one in sync takes over. Then the group is moved to the far one
//! and back, and everything that was acknowledged anywhere is there.

use std::process::Command;
use std::time::Duration;

use super::lab::{Lab, Node};
use super::{World, wait};
use crate::failure::{Failure, Outcome};
use crate::shell;
use crate::table::{Table, grouped};

const SIZE: &str = "256M";
const SIZE_BYTES: u64 = 256 << 20;
const BLOCK_BYTES: u64 = 65_536;
/// Blocks of each of the two loads; the second begins where the first ends.
const BLOCKS: u64 = 128;
/// The asynchronous one of three.
const FAR: &str = "node-c";
/// A new active is there within this time: several times the lease.
const TAKEOVER_MAX: Duration = Duration::from_secs(15);
/// Who may not serve does not for so long: several times what a takeover takes.
const WITHHELD: Duration = Duration::from_secs(6);

pub(crate) fn one_after_the_other_goes(world: &World) -> Outcome {
    let up = ["--nodes", "3", "--workload", "none", "--size", SIZE];
    let lab = Lab::up(world, "three", &up)?;
    let first = lab.node("active")?;
    lab.wait_in_set(&first.name, 3)?;
    write(&first, 0)?;
    lab.compare_disks(SIZE_BYTES)?;

    lab.fault(&first.name, "kill")?;
    let second = next_active(&lab, &[&first])?;
    lab.wait_in_set(&second.name, 2)?;
    let hot = copied(&lab, &second.name)?;
    write(&second, BLOCKS)?;

    lab.fault(&second.name, "kill")?;
    withheld(&lab, &[&first, &second])?;
    lab.heal(&first.name)?;
    let third = next_active(&lab, &[&first, &second])?;
    lab.wait_in_set(&third.name, 2)?;
    verify(&third)?;
    let missed = copied(&lab, &third.name)?;
    lab.heal(&second.name)?;
    lab.wait_in_set(&third.name, 3)?;
    lab.compare_disks(SIZE_BYTES)?;
    judge(hot, missed)?;
    lab.down()
}

pub(crate) fn far_away(world: &World) -> Outcome {
    let up = [
        "--nodes",
        "3",
        "--mode",
        "async",
        "--workload",
        "none",
        "--size",
        SIZE,
    ];
    let lab = Lab::up(world, "far", &up)?;
    let first = lab.node("active")?;
    lab.wait_in_set(&first.name, 3)?;
    write(&first, 0)?;

    lab.fault(&first.name, "kill")?;
    let second = next_active(&lab, &[&first])?;
    if second.name == FAR {
        return Err(Failure::new(
            "the one that may be behind took over though another had everything",
        ));
    }
    lab.wait_in_set(&second.name, 2)?;
    lab.heal(&first.name)?;
    lab.wait_in_set(&second.name, 3)?;

    lab.move_group(&second.name, FAR)?;
    let far = lab.node("active")?;
    lab.wait_in_set(FAR, 3)?;
    write(&far, BLOCKS)?;
    lab.move_group(FAR, &first.name)?;
    let home = lab.node("active")?;
    lab.wait_in_set(&home.name, 3)?;
    verify(&home)?;
    lab.stop_group(&home.name)?;
    lab.compare_disks(SIZE_BYTES)?;
    lab.down()
}

/// The node that serves once none of `gone` does.
fn next_active(lab: &Lab, gone: &[&Node]) -> Outcome<Node> {
    wait::until("another node is active", TAKEOVER_MAX, || {
        let node = lab.node_now("active").ok()??;
        let is_new = gone.iter().all(|gone| gone.name != node.name);
        is_new.then_some(node)
    })
}

/// The node that is left must not serve.
fn withheld(lab: &Lab, gone: &[&Node]) -> Outcome {
    match wait::until("nobody is active", WITHHELD, || {
        let node = lab.node_now("active").ok()??;
        gone.iter()
            .all(|gone| gone.name != node.name)
            .then_some(node)
    }) {
        Ok(node) => Err(Failure::new(format!("{} serves alone", node.name))),
        Err(_) => Ok(()),
    }
}

/// Bytes that a node's mirror has sent to make others equal, since its daemon started.
fn copied(lab: &Lab, node: &str) -> Outcome<u64> {
    let bytes = lab.group(node)?["mirrors"][0]["resync_sent_bytes"].as_u64();
    bytes.ok_or_else(|| Failure::new(format!("{node} does not tell what it copied")))
}

fn write(active: &Node, first: u64) -> Outcome {
    let patterns = (first..first + BLOCKS).map(|n| {
        let (pattern, place) = (n % 251 + 1, n * BLOCK_BYTES);
        format!("write -q -P {pattern} {place} {BLOCK_BYTES}")
    });
    qemu_io(active, patterns)
}

fn verify(active: &Node) -> Outcome {
    let patterns = (0..2 * BLOCKS).map(|n| {
        let (pattern, place) = (n % 251 + 1, n * BLOCK_BYTES);
        format!("read -q -P {pattern} {place} {BLOCK_BYTES}")
    });
    qemu_io(active, patterns)
}

fn qemu_io(active: &Node, commands: impl Iterator<Item = String>) -> Outcome {
    let mut io = Command::new("qemu-io");
    io.args(["-f", "raw"]);
    for command in commands {
        io.args(["-c", &command]);
    }
    let said = shell::capture(io.args(["-c", "flush"]).arg(&active.nbd))?;
    if said.contains("fail") || said.contains("rror") {
        return Err(Failure::new("qemu-io found another content").because(said));
    }
    Ok(())
}

/// What was copied is what was written last or while a node was away, and not the volume.
fn judge(hot: u64, missed: u64) -> Outcome {
    let load = BLOCKS * BLOCK_BYTES;
    let mut table = Table::new(&["copied to", "bytes", "at most"]);
    let rows = [
        ("the other standby after a takeover", hot, load),
        ("a node that missed a load", missed, 2 * load),
    ];
    for (what, bytes, most) in rows {
        table.row(vec![what.to_owned(), grouped(bytes), grouped(most)]);
    }
    print!("{}", table.text());
    let over: Vec<&str> = rows
        .iter()
        .filter(|(_, bytes, most)| bytes > most)
        .map(|(what, ..)| *what)
        .collect();
    if over.is_empty() {
        return Ok(());
    }
    Err(Failure::new("more was copied than may differ").because(over.join(", ")))
}
