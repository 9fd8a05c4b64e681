//! Labs do not disturb each other, and leave nothing behind.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::lab::Lab;
use super::{World, wait};
use crate::failure::{Context, Failure, Outcome};
use crate::shell;

/// The rest of a lab is down this long after `lab down` at the latest: the kernel is slow to free a loop device.
const GONE_MAX: Duration = Duration::from_secs(5);

/// Every fault of a node.
const NODE_FAULTS: [&str; 11] = [
    "kill",
    "stop",
    "pause",
    "power",
    "disk-error",
    "disk-hang",
    "disk-slow",
    "disk-full",
    "disk-spots",
    "daemon",
    "app",
];

/// Every fault of a link, here of the mirror's network.
const LINK_FAULTS: [&str; 4] = ["cut", "one-way", "slow", "lossy"];

/// How often each of two labs is made and taken down.
const COME_AND_GO: usize = 8;

/// What a running lab has of each at least: without them this test would look in the wrong places.
const KINDS: [&str; 4] = ["namespace", "loop device", "process", "mount"];

pub(crate) fn two_labs(world: &World) -> Outcome {
    let one = Lab::up(world, "one", &["--workload", "ledger"])?;
    let two = Lab::up(world, "two", &["--workload", "ledger"])?;
    let marks = [Marks::of(&one)?, Marks::of(&two)?];
    let active = one.node("active")?;
    one.fault(&active.name, "kill")?;
    let other = two.node("active")?;
    two.wait_in_sync(&other.name)?;
    one.heal("all")?;
    one.down()?;
    two.wait_in_sync(&other.name)?;
    two.down()?;
    marks.iter().try_for_each(Marks::nothing_left)?;
    come_and_go(world)
}

/// Two labs, each made and taken down again and again: one comes while the other goes.
fn come_and_go(world: &World) -> Outcome {
    let rounds = |name: &str| {
        (0..COME_AND_GO).try_for_each(|_| Lab::up(world, name, &["--size", "32M"])?.down())
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| rounds("other"));
        rounds("one")?;
        let other = other.join();
        other.unwrap_or_else(|_| Err(Failure::new("a lab's thread ended early")))
    })
}

/// One lab after the other, each taken down while it is broken: that is when something could be left.
pub(crate) fn every_break(world: &World) -> Outcome {
    for fault in NODE_FAULTS {
        down_while_broken(world, None, fault)?;
    }
    for fault in LINK_FAULTS {
        down_while_broken(world, Some("node-a:mirror"), fault)?;
    }
    Ok(())
}

/// Breaks `link`, or if there is none the active.
fn down_while_broken(world: &World, link: Option<&str>, fault: &str) -> Outcome {
    let args = ["--workload", "ledger", "--size", "32M"];
    let lab = Lab::up(world, "leftovers", &args)?;
    let marks = Marks::of(&lab)?;
    match link {
        Some(link) => lab.fault(link, fault)?,
        None => lab.fault(&lab.node("active")?.name, fault)?,
    }
    lab.down()?;
    marks
        .nothing_left()
        .map_err(|failure| failure.hint(format!("after break {fault}")))
}

/// What everything of one lab carries in its name, its path or its environment. Other labs may come and go meanwhile.
struct Marks {
    dir: PathBuf,
    /// What the names of its namespaces and control groups contain.
    id: String,
}

impl Marks {
    /// The marks of a running lab, of which everything that is looked for is found.
    fn of(lab: &Lab) -> Outcome<Self> {
        let active = lab.node("active")?;
        let marks = Self {
            dir: lab.dir.clone(),
            id: active
                .netns
                .split('-')
                .nth(1)
                .unwrap_or_default()
                .to_owned(),
        };
        let found = marks.traces()?;
        for kind in KINDS {
            if !found.iter().any(|trace| trace.starts_with(kind)) {
                return Err(Failure::new(format!("a running lab has no {kind}"))
                    .because(format!("found: {}", found.join("; "))));
            }
        }
        Ok(marks)
    }

    fn nothing_left(&self) -> Outcome {
        let mut left = Vec::new();
        let gone = wait::until("nothing of the lab is left", GONE_MAX, || {
            left = self.traces().ok()?;
            left.is_empty().then_some(())
        });
        gone.map_err(|_| Failure::new("lab down left something behind").because(left.join("; ")))
    }

    /// Namespaces, loop devices, mounts, processes, control groups and files of the lab.
    fn traces(&self) -> Outcome<Vec<String>> {
        let run = |program: &str, args: &[&str]| shell::capture(Command::new(program).args(args));
        let dir = self.dir.display().to_string();
        let mut found = Vec::new();
        for (kind, text) in [
            ("namespace", run("ip", &["netns", "list"])?),
            ("loop device", run("losetup", &["--list", "--noheadings"])?),
            (
                "mount",
                fs::read_to_string("/proc/mounts").context("read the mounts")?,
            ),
            ("process", processes(&dir)),
            ("control group", control_groups()),
        ] {
            let ours = |line: &&str| line.contains(&dir) || line.contains(&self.id);
            let lines = text.lines().filter(ours);
            found.extend(lines.map(|line| format!("{kind} {}", line.trim())));
        }
        found.extend(self.dir.exists().then(|| format!("directory {dir}")));
        Ok(found)
    }
}

/// Processes with `dir` among their arguments or in their environment. One that has ended and was not yet reaped by the
/// machine's own first process has neither.
fn processes(dir: &str) -> String {
    let mut found = String::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let text = [read("cmdline"), read("environ")].concat();
        let text = String::from_utf8_lossy(&text).replace('\0', " ");
        if text.contains(dir) {
            let pid = entry.file_name();
            found.push_str(&format!("{} {text}\n", pid.display()));
        }
    }
    found
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
