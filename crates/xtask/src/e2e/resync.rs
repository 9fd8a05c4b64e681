//! What a resync sends: what changed, and no more than the intent log adds to that.
//!
//! The bytes changed are what this test itself wrote, as distinct blocks of 4 KiB. The bytes sent are those of the event
//! `resync-done` of the node that sent them. What the intent log may add is its regions of 64 KiB: those that were in it when the
//! standby left, read from the status, and those that the writes themselves made hot, counted here.
//!
//! - *whole regions*: blocks in a row. They fill the regions that they make hot, so that these add nothing to them.
//! - *scattered*: one block in each region. Each makes its region hot, and the region is sent.
//! - *active at full load*: random blocks all over the volume until the active is killed, or loses power. The writer dies
//!   with its connection and nobody writes afterwards, so nothing changes while the other node is alone, and all that is
//!   sent is what the intent logs of both nodes name: together no more than the configured bound, a sixteenth of the volume.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::lab::{Lab, Node};
use super::running::{ONE_PROCESS, Running};
use super::{Depth, World, wait};
use crate::failure::{Failure, Outcome};
use crate::shell;
use crate::table::{Table, grouped};

const BLOCK_BYTES: u64 = 4096;
/// Size of one region of the intent log.
const REGION_BYTES: u64 = 64 << 10;
/// Default of a mirror's `intent_bound`, which labs have.
const INTENT_BOUND: u64 = 64 << 20;
/// The log is that full at least when the active crashes: then its bound is put to the test.
const INTENT_FULL: u64 = INTENT_BOUND / 2;
/// The writer fills it within this time.
const FULL_MAX: Duration = Duration::from_secs(30);

/// Writes while the standby is away.
struct Load {
    name: &'static str,
    /// What takes the standby away: a target of `lab break`, or none for the standby itself, and a fault.
    away: (Option<&'static str>, &'static str),
    /// Place of the first block.
    start: u64,
    /// From block to block.
    stride: u64,
    blocks: u64,
}

const LOADS: [Load; 3] = [
    Load {
        name: "whole regions, standby killed",
        away: (None, "kill"),
        start: 16 << 20,
        stride: BLOCK_BYTES,
        blocks: 2048,
    },
    Load {
        name: "whole regions, mirror cut",
        away: (Some("mirror"), "cut"),
        start: 32 << 20,
        stride: BLOCK_BYTES,
        blocks: 2048,
    },
    Load {
        name: "scattered, standby lost power",
        away: (None, "power"),
        start: 64 << 20,
        stride: REGION_BYTES,
        blocks: 1024,
    },
];

impl Load {
    const fn changed(&self) -> u64 {
        self.blocks * BLOCK_BYTES
    }

    /// What the writes' own regions add to the blocks.
    const fn hot_bytes(&self) -> u64 {
        if self.stride == BLOCK_BYTES {
            0
        } else {
            self.blocks * REGION_BYTES
        }
    }

    /// Each block with a pattern that its neighbours do not have.
    fn patterns(&self) -> Vec<String> {
        (0..self.blocks)
            .map(|n| {
                let (pattern, place) = (n % 251 + 1, self.start + n * self.stride);
                format!("write -q -P {pattern} {place} {BLOCK_BYTES}")
            })
            .collect()
    }
}

/// Writes before a crash that is looked at beside somebody else's, all over a volume.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CrashWork {
    pub(crate) span_bytes: u64,
    /// So many random blocks first; more of them, slowly, while the power goes.
    pub(crate) writes: u64,
}

/// Many times what an intent log holds, and DRBD's activity log.
pub(crate) const CRASH_WORK: CrashWork = CrashWork {
    span_bytes: 5 << 30,
    writes: 6000,
};

/// One line of the result.
struct Resync {
    name: String,
    changed: u64,
    /// Regions in the intent log when the standby left.
    log: u64,
    sent: u64,
    allowed: u64,
}

pub(crate) fn sends_what_changed(world: &World) -> Outcome {
    let mut resyncs = after_absence(world)?;
    let crashes: &[&str] = match world.depth {
        Depth::Once => &["kill"],
        Depth::Long => &["kill", "power", "kill", "power", "kill", "power"],
    };
    for fault in crashes {
        resyncs.push(after_crash(world, fault)?);
    }
    print!("{}", table(&resyncs).text());
    let over: Vec<&str> = resyncs
        .iter()
        .filter(|one| one.sent > one.allowed)
        .map(|one| one.name.as_str())
        .collect();
    if over.is_empty() {
        return Ok(());
    }
    Err(Failure::new("a resync sent more than it may").because(over.join(", ")))
}

fn table(resyncs: &[Resync]) -> Table {
    let mut table = Table::new(&["resync", "changed bytes", "in the log", "sent", "at most"]);
    for one in resyncs {
        let figures = [one.changed, one.log, one.sent, one.allowed].map(grouped);
        table.row([vec![one.name.clone()], figures.to_vec()].concat());
    }
    table
}

/// The standby is away while blocks are written, and returns.
fn after_absence(world: &World) -> Outcome<Vec<Resync>> {
    let size = 256 << 20;
    let lab = Lab::up(world, "resync", &["--workload", "none", "--size", "256M"])?;
    let (active, standby) = (lab.node("active")?, lab.node("standby")?);
    let mut resyncs = Vec::new();
    for load in &LOADS {
        let log = intent_bytes(&lab, &active.name)?;
        let seen = last_event(&lab, &active.name)?;
        let target = load.away.0.unwrap_or(&standby.name);
        lab.fault(target, load.away.1)?;
        lab.wait_in_set(&active.name, 1)?;
        write(load, &active)?;
        lab.heal(target)?;
        lab.wait_in_sync(&active.name)?;
        let sent = sent_since(&lab, &active.name, seen)?;
        if sent < load.changed() {
            return Err(Failure::new(format!("only {sent} bytes were sent"))
                .because(format!("{} had changed", load.changed())));
        }
        lab.compare_disks(size)?;
        resyncs.push(Resync {
            name: load.name.to_owned(),
            changed: load.changed(),
            log,
            sent,
            allowed: load.changed() * 11 / 10 + log + load.hot_bytes(),
        });
    }
    lab.down()?;
    Ok(resyncs)
}

fn write(load: &Load, active: &Node) -> Outcome {
    let mut io = Command::new("qemu-io");
    io.args(["-f", "raw"]);
    for pattern in load.patterns() {
        io.args(["-c", &pattern]);
    }
    shell::capture(io.args(["-c", "flush"]).arg(&active.nbd)).map(drop)
}

/// The active crashes at full write load, the standby takes over, the crashed node returns.
fn after_crash(world: &World, fault: &str) -> Outcome<Resync> {
    let size = 16 * INTENT_BOUND;
    let lab = Lab::up(world, "crash", &["--workload", "none", "--size", "1G"])?;
    let (active, standby) = (lab.node("active")?, lab.node("standby")?);
    let mut fio = start_writer(&active)?;
    let log = wait::until("the intent log is full", FULL_MAX, || {
        let bytes = intent_bytes(&lab, &active.name).ok()?;
        (bytes >= INTENT_FULL).then_some(bytes)
    })?;
    if !fio.is_alive() {
        return Err(Failure::new("fio ended before the active crashed"));
    }
    let seen = last_event(&lab, &standby.name)?;
    lab.fault(&active.name, fault)?;
    lab.wait_active(&standby.name)?;
    drop(fio);
    lab.heal(&active.name)?;
    lab.wait_in_sync(&standby.name)?;
    let sent = sent_since(&lab, &standby.name, seen)?;
    lab.compare_disks(size)?;
    lab.down()?;
    Ok(Resync {
        name: format!("active at full load, {fault}"),
        changed: 0,
        log,
        sent,
        allowed: INTENT_BOUND,
    })
}

/// What is copied after the active crashed during [`CRASH_WORK`], in bytes. The disks are plain: a shim before them would make the
/// first sync of such a volume long, and the crash of a node is one either way.
pub(crate) fn bytes_after_crash(world: &World) -> Outcome<u64> {
    let size = format!("{}M", CRASH_WORK.span_bytes >> 20);
    let options = [
        &["--workload", "none", "--size", &size],
        world.lab_profile(),
    ]
    .concat();
    let lab = Lab::up(world, "crash-bytes", &options)?;
    let (active, standby) = (lab.node("active")?, lab.node("standby")?);
    let writes = format!("--number_ios={}", CRASH_WORK.writes);
    shell::capture(crash_writer(&active).arg(writes))?;
    let before = lab.cold_writes(&active.name)?;
    let mut further = crash_writer(&active);
    further.args(["--rate_iops=100", "--randseed=2", "--time_based"]);
    let fio = Running::start(further.arg("--runtime=600").stderr(Stdio::null()))?;
    wait::until("writes go on", FULL_MAX, || {
        (lab.cold_writes(&active.name).ok()? > before).then_some(())
    })?;
    let seen = last_event(&lab, &standby.name)?;
    lab.fault(&active.name, "kill")?;
    lab.wait_active(&standby.name)?;
    drop(fio);
    lab.heal(&active.name)?;
    lab.wait_in_sync(&standby.name)?;
    let sent = sent_since(&lab, &standby.name, seen)?;
    lab.down()?;
    Ok(sent)
}

/// The same words as for DRBD's device, but for the engine.
fn crash_writer(active: &Node) -> Command {
    let mut fio = Command::new("fio");
    fio.args(["--name=work", "--ioengine=nbd", "--rw=randwrite"])
        .args(["--bs=4096", "--iodepth=32", "--norandommap", "--eta=never"])
        .arg(format!("--size={}", CRASH_WORK.span_bytes))
        .args(["--output=/dev/null", &format!("--uri={}", active.nbd)]);
    fio
}

/// Random blocks all over the volume, until its server is killed.
fn start_writer(active: &Node) -> Outcome<Running> {
    let mut fio = Command::new("fio");
    fio.args(["--name=load", "--ioengine=nbd", "--rw=randwrite", "--bs=4k"])
        .arg(ONE_PROCESS)
        .args(["--iodepth=32", "--size=1G", "--time_based", "--runtime=120"])
        .arg(format!("--uri={}", active.nbd));
    Running::start(fio.stdout(Stdio::null()).stderr(Stdio::null()))
}

/// Size of the regions in the intent log of a node.
fn intent_bytes(lab: &Lab, node: &str) -> Outcome<u64> {
    let group = lab.group(node)?;
    let bytes = group["mirrors"][0]["intent_bytes"].as_u64();
    bytes.ok_or_else(|| Failure::new(format!("{node} does not tell the size of its intent log")))
}

/// Number of a node's newest event.
fn last_event(lab: &Lab, node: &str) -> Outcome<u64> {
    let head = lab.ask(node, "events?limit=1")?["head"].as_u64();
    head.ok_or_else(|| Failure::new(format!("{node} does not number its events")))
}

/// What the node's resyncs sent after its event `seen`.
pub(super) fn sent_since(lab: &Lab, node: &str, seen: u64) -> Outcome<u64> {
    let events = lab.ask(node, &format!("events?limit=1000&after={seen}"))?;
    let done = events["events"].as_array().into_iter().flatten();
    let sent: Vec<u64> = done
        .filter(|event| event["code"] == "resync-done")
        .filter_map(|event: &Value| event["args"]["sent"].as_u64())
        .collect();
    if sent.is_empty() {
        return Err(Failure::new(format!("{node} does not tell of a resync")));
    }
    Ok(sent.iter().sum())
}
