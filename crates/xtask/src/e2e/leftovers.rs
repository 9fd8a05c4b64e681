//! Labs do not disturb each other, and leave nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::lab::Lab;
use super::{Depth, World};
use crate::failure::{Context, Failure, Outcome};
use crate::shell;

const BREAKS: [&str; 5] = ["kill", "stop", "pause", "power", "disk-error"];

pub(crate) fn two_labs(world: &World) -> Outcome {
    let before = traces()?;
    let one = Lab::up(world, "one", &["--workload", "ledger"])?;
    let two = Lab::up(world, "two", &["--workload", "ledger"])?;
    let active = one.node("active")?;
    one.fault(&active.name, "kill")?;
    let other = two.node("active")?;
    two.wait_in_sync(&other.name)?;
    one.heal("all")?;
    one.down()?;
    two.wait_in_sync(&other.name)?;
    two.down()?;
    nothing_new(&before)
}

pub(crate) fn every_break(world: &World) -> Outcome {
    let before = traces()?;
    let breaks = if world.depth == Depth::Long {
        &BREAKS[..]
    } else {
        &BREAKS[..2]
    };
    for fault in breaks {
        let lab = Lab::up(world, "leftovers", &["--workload", "ledger"])?;
        let active = lab.node("active")?;
        lab.fault(&active.name, fault)?;
        lab.down()?;
        nothing_new(&before).map_err(|failure| failure.hint(format!("after break {fault}")))?;
    }
    Ok(())
}

/// What a lab could leave: namespaces, mounts, loop devices, processes of ours, control groups.
fn traces() -> Outcome<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for (kind, text) in [
        (
            "namespace",
            shell::capture(Command::new("ip").args(["netns", "list"]))?,
        ),
        (
            "loop device",
            shell::capture(Command::new("losetup").args(["--list", "--noheadings"]))?,
        ),
        ("process", processes()?),
        (
            "mount",
            fs::read_to_string("/proc/mounts").context("read the mounts")?,
        ),
    ] {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        found.extend(lines.map(|line| format!("{kind} {}", line.trim())));
    }
    Ok(found)
}

/// Processes that run the binary `backstay`, with their ids.
fn processes() -> Outcome<String> {
    let all = shell::capture(Command::new("ps").args(["-e", "-o", "pid=,comm="]))?;
    let ours = all
        .lines()
        .filter(|line| line.trim_end().ends_with("backstay"));
    Ok(ours.collect::<Vec<_>>().join("\n"))
}

fn nothing_new(before: &BTreeSet<String>) -> Outcome {
    let now = traces()?;
    let left: Vec<&str> = now.difference(before).map(String::as_str).collect();
    if left.is_empty() {
        return Ok(());
    }
    Err(Failure::new("lab down left something behind").because(left.join("; ")))
}
