//! Labs do not disturb each other, and leave nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use super::lab::Lab;
use super::{World, wait};
use crate::failure::{Context, Failure, Outcome};
use crate::shell;

/// The rest of a lab is down this long after `lab down` at the latest: the kernel is slow to free a loop device.
const GONE_MAX: Duration = Duration::from_secs(5);

/// Every fault of a node.
const NODE_FAULTS: [&str; 10] = [
    "kill",
    "stop",
    "pause",
    "power",
    "disk-error",
    "disk-hang",
    "disk-slow",
    "disk-full",
    "daemon",
    "app",
];

/// Every fault of a link, here of the mirror's network.
const LINK_FAULTS: [&str; 4] = ["cut", "one-way", "slow", "lossy"];

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

/// One lab after the other, each taken down while it is broken: that is when something could be left.
pub(crate) fn every_break(world: &World) -> Outcome {
    let before = traces()?;
    for fault in NODE_FAULTS {
        down_while_broken(world, &before, None, fault)?;
    }
    for fault in LINK_FAULTS {
        down_while_broken(world, &before, Some("node-a:mirror"), fault)?;
    }
    Ok(())
}

/// Breaks `link`, or if there is none the active.
fn down_while_broken(
    world: &World,
    before: &BTreeSet<String>,
    link: Option<&str>,
    fault: &str,
) -> Outcome {
    let lab = Lab::up(
        world,
        "leftovers",
        &["--workload", "ledger", "--size", "32M"],
    )?;
    let dir = lab.dir.clone();
    match link {
        Some(link) => lab.fault(link, fault)?,
        None => lab.fault(&lab.node("active")?.name, fault)?,
    }
    lab.down()?;
    if dir.exists() {
        return Err(Failure::new(format!(
            "lab down after break {fault} left its directory"
        )));
    }
    nothing_new(before).map_err(|failure| failure.hint(format!("after break {fault}")))
}

/// What a lab could leave: namespaces, network interfaces, mounts, loop devices, processes of ours, control groups.
fn traces() -> Outcome<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let run = |program: &str, args: &[&str]| shell::capture(Command::new(program).args(args));
    for (kind, text) in [
        ("namespace", run("ip", &["netns", "list"])?),
        ("interface", run("ip", &["-brief", "link", "show"])?),
        ("loop device", run("losetup", &["--list", "--noheadings"])?),
        ("process", processes()?),
        (
            "mount",
            fs::read_to_string("/proc/mounts").context("read the mounts")?,
        ),
        ("control group", control_groups()),
    ] {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        found.extend(lines.map(|line| format!("{kind} {}", line.trim())));
    }
    Ok(found)
}

/// Processes that run the binary `backstay`. One that has ended and was not yet reaped by the machine's own first process
/// is no trace of ours.
fn processes() -> Outcome<String> {
    let all = shell::capture(Command::new("ps").args(["-e", "-o", "comm=,stat=,pid=,args="]))?;
    let ours = all.lines().filter(|line| {
        let mut fields = line.split_whitespace();
        fields.next() == Some("backstay")
            && fields.next().is_some_and(|stat| !stat.starts_with('Z'))
    });
    Ok(ours.collect::<Vec<_>>().join("\n"))
}

/// The control groups of labs, wherever cgroup2 is mounted.
fn control_groups() -> String {
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let entries = roots
        .iter()
        .filter_map(|root| fs::read_dir(root).ok())
        .flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let labs: Vec<String> = names.filter(|name| name.starts_with("backstay")).collect();
    labs.join("\n")
}

fn nothing_new(before: &BTreeSet<String>) -> Outcome {
    let mut left = BTreeSet::new();
    let gone = wait::until("nothing of the lab is left", GONE_MAX, || {
        left = traces().ok()?.difference(before).cloned().collect();
        left.is_empty().then_some(())
    });
    gone.map_err(|_| {
        let left: Vec<String> = left.into_iter().collect();
        Failure::new("lab down left something behind").because(left.join("; "))
    })
}
