//! A standby whose resync was interrupted for good goes back to what it held before, and serves that.
//!
//! 1. The standby is away while the active writes much. Its disk is copied.
//! 2. It returns, and is being made equal when the active dies. What it has is a mixture: nobody promotes it.
//! 3. Its daemon is stopped, and the resync undone: its volume is the copy, byte by byte.
//! 4. A person promotes it. The former active comes back, lets go what it had alone, and both end equal.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::lab::{Lab, Node};
use super::{World, wait};
use crate::failure::{Context, Failure, Outcome};
use crate::shell;

const SIZE: &str = "512M";
const SIZE_BYTES: u64 = 512 << 20;
/// What is written at once.
const PIECE_BYTES: u64 = 1 << 20;
/// Both replicas have these; the rest is written while the standby is away.
const BEFORE: u64 = 64;
const PIECES: u64 = SIZE_BYTES / PIECE_BYTES - 4;
/// The resync is looked at while it runs.
const RUNNING_MAX: Duration = Duration::from_secs(30);
/// The active's lease is over, and the witness answers.
const PROMOTED_MAX: Duration = Duration::from_secs(60);

pub(crate) fn interrupted_resync_is_undone(world: &World) -> Outcome {
    let up = ["--workload", "none", "--size", SIZE, "--undo"];
    let lab = Lab::up(world, "undo", &up)?;
    let active = lab.node("active")?;
    let standby = lab.node("standby")?.name;
    lab.wait_in_sync(&active.name)?;
    write(&active, 1, 0..BEFORE)?;

    lab.fault(&standby, "kill")?;
    lab.wait_in_set(&active.name, 1)?;
    let disk = lab.dir.join(&standby).join("disk");
    let before = disk.with_extension("before");
    fs::copy(&disk, &before).context("copy the standby's disk")?;
    write(&active, 2, 8..PIECES)?;
    lab.heal(&standby)?;
    let saved = wait::until("the resync saves what it overwrites", RUNNING_MAX, || {
        saved(&lab, &standby).filter(|bytes| *bytes > 4 * PIECE_BYTES)
    })?;
    lab.fault(&active.name, "kill")?;
    println!("the active dies when {saved} bytes are saved");
    is_mixture(&lab, &standby)?;

    lab.fault(&standby, "kill")?;
    roll_back(world, &lab, &standby)?;
    let mut cmp = Command::new("cmp");
    cmp.arg(format!("--bytes={SIZE_BYTES}"))
        .args([&disk, &before]);
    shell::capture(&mut cmp).map_err(|failure| {
        Failure::new("its volume is not what it was before the resync").because(failure)
    })?;
    fs::remove_file(&before).context("remove the copy")?;

    lab.heal(&standby)?;
    promote(world, &lab, &standby, &active.name)?;
    let serving = lab.node("active")?;
    verify(&serving, 1, 0..BEFORE)?;
    write(&serving, 3, 4..12)?;
    lab.heal(&active.name)?;
    let_go(world, &lab, &active.name)?;
    lab.wait_in_set(&standby, 2)?;
    verify(&serving, 3, 4..12)?;
    lab.stop_group(&standby)?;
    lab.compare_disks(SIZE_BYTES)?;
    lab.down()
}

fn replica(lab: &Lab, node: &str) -> Option<Value> {
    Some(lab.group(node).ok()?["mirrors"][0]["replica"].clone())
}

fn saved(lab: &Lab, node: &str) -> Option<u64> {
    replica(lab, node)?["undo"]["saved_bytes"].as_u64()
}

fn is_mixture(lab: &Lab, node: &str) -> Outcome {
    let found = wait::until("the standby tells what it is", RUNNING_MAX, || {
        replica(lab, node)?["state"].as_str().map(str::to_owned)
    })?;
    if found == "inconsistent" {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the standby is {found}: its resync was over before the active died"
    )))
}

fn roll_back(world: &World, lab: &Lab, node: &str) -> Outcome {
    let mut back = Command::new(&world.backstay);
    back.args(["mirror", "rollback", "data", "--yes", "--node", node])
        .arg("--config")
        .arg(lab.dir.join("backstay.toml"));
    println!("{}", shell::capture(&mut back)?);
    Ok(())
}

fn of_node(world: &World, dir: &Path, node: &str) -> Command {
    let mut command = Command::new(&world.backstay);
    command.arg("--state").arg(dir.join(node).join("state"));
    command
}

/// The lease of the one that is off may still run, and the daemon has just started: asks until it is taken.
fn promote(world: &World, lab: &Lab, node: &str, off: &str) -> Outcome {
    let mut last = None;
    let taken = wait::until("the promotion is taken", PROMOTED_MAX, || {
        let mut promote = of_node(world, &lab.dir, node);
        promote.args(["mirror", "promote", "data", "--node", node, "--yes"]);
        promote.args(["--confirm", &format!("{off} is off"), "--wait"]);
        shell::capture(&mut promote)
            .map_err(|failure| last = Some(failure))
            .ok()
    });
    match (taken, last) {
        (Err(late), Some(refused)) => return Err(late.because(refused)),
        (taken, _) => taken.map(drop)?,
    }
    lab.wait_active(node)
}

/// What it wrote alone is more than is put aside by itself.
fn let_go(world: &World, lab: &Lab, node: &str) -> Outcome {
    wait::until("the former active holds back", PROMOTED_MAX, || {
        let mut demote = of_node(world, &lab.dir, node);
        demote.args(["mirror", "demote", "data", "--yes", "--confirm", "data"]);
        shell::capture(&mut demote).ok()
    })
    .map(drop)
}

fn write(active: &Node, pattern: u64, pieces: std::ops::Range<u64>) -> Outcome {
    qemu_io(active, "write", pattern, pieces)
}

fn verify(active: &Node, pattern: u64, pieces: std::ops::Range<u64>) -> Outcome {
    qemu_io(active, "read", pattern, pieces)
}

/// Each piece has a pattern of its own.
fn qemu_io(active: &Node, verb: &str, salt: u64, pieces: std::ops::Range<u64>) -> Outcome {
    let mut io = Command::new("qemu-io");
    io.args(["-f", "raw"]);
    for piece in pieces {
        let (pattern, place) = ((piece * 7 + salt) % 251 + 1, piece * PIECE_BYTES);
        let command = format!("{verb} -q -P {pattern} {place} {PIECE_BYTES}");
        io.args(["-c", &command]);
    }
    let said = shell::capture(io.args(["-c", "flush"]).arg(&active.nbd))?;
    if said.contains("fail") || said.contains("rror") {
        return Err(Failure::new("what was written is not there").because(said));
    }
    Ok(())
}
