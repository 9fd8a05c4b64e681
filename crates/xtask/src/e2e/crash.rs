//! Crashes at random moments under load, one after another in the same lab.
//!
//! - *fio*: a verifying fio and a writer of our own share the volume. After each crash the writer reads all its blocks back: what
//!   G2 promises must be there. fio must not have read anything that it did not write. The replicas are compared.
//! - *pgbench*: a real PostgreSQL on ext4. After each crash every transaction that pgbench counted must be in its history, and
//!   the balances must add up. At the end the group is stopped, the replicas are compared, and both disks pass `e2fsck -fn`.

mod pgbench;
mod writer;

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use self::pgbench::Bench;
use self::writer::{Promise, Writer};
use super::lab::{Lab, Node};
use super::running::{ONE_PROCESS, Running};
use super::{World, wait};
use crate::failure::{Failure, Outcome};
use crate::shell;

/// Size of the volume.
const SIZE: &str = "256M";
const SIZE_BYTES: u64 = 256 << 20;
/// fio ends by itself within this time.
const FIO_MAX: Duration = Duration::from_secs(120);
/// Shortest and longest load before a crash.
const DELAY_MS: std::ops::Range<u64> = 300..2_500;

/// What happens to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// Every process of the active is killed.
    Kill,
    /// The active loses power, and what its disk had not flushed.
    Power,
    /// Both data nodes do, at once.
    PowerBoth,
}

/// What runs meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// On the NBD socket.
    Fio,
    /// On ext4 on the mirror.
    Pgbench,
}

/// One crash, and what came of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Round {
    /// Load before the crash, in ms.
    pub(crate) delay_ms: u64,
    /// Writes or transactions that were acknowledged in this round.
    pub(crate) acknowledged: u64,
    /// Promised, and not there afterwards.
    pub(crate) lost: u64,
    /// Acknowledged and not flushed, and taken by a power failure, as it may.
    pub(crate) lapsed: u64,
    /// From the crash until both replicas were in sync again, in ms.
    pub(crate) whole_ms: u64,
}

impl Crash {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Power => "power",
            Self::PowerBoth => "power-both",
        }
    }

    const fn promise(self) -> Promise {
        match self {
            Self::Kill => Promise::Acknowledged,
            Self::Power | Self::PowerBoth => Promise::Flushed,
        }
    }

    /// Breaks, heals, and waits until all is well; the node that serves then.
    fn play(self, lab: &Lab, active: &Node, standby: &Node) -> Outcome {
        let fault = if self == Self::Kill { "kill" } else { "power" };
        lab.fault(&active.name, fault)?;
        if self == Self::PowerBoth {
            lab.fault(&standby.name, fault)?;
            lab.heal(&standby.name)?;
        } else {
            lab.wait_active(&standby.name)?;
        }
        lab.heal(&active.name)
    }
}

impl Load {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fio => "fio",
            Self::Pgbench => "pgbench",
        }
    }
}

/// Plays rounds `from..to` in one lab; `each` hears of every round that kept the promises.
pub(crate) fn play(
    world: &World,
    load: Load,
    crash: Crash,
    rounds: std::ops::Range<u64>,
    mut each: impl FnMut(u64, &Round) -> Outcome,
) -> Outcome {
    let name = format!("crash-{}-{}", load.name(), crash.name());
    let workload = if load == Load::Fio {
        "none"
    } else {
        "postgres"
    };
    let lab = Lab::up(world, &name, &["--workload", workload, "--size", SIZE])?;
    let active = lab.node("active")?;
    lab.wait_in_sync(&active.name)?;
    let mut writer = Writer::new();
    let mut bench = Bench::new(&active);
    if load == Load::Pgbench {
        bench.prepare(&lab)?;
    }
    for number in rounds {
        println!("-- {name}, round {number}");
        let round = match load {
            Load::Fio => under_fio(&lab, crash, number, &mut writer)?,
            Load::Pgbench => under_pgbench(&lab, crash, number, &mut bench)?,
        };
        if round.lost > 0 {
            let what = format!("{} of what was promised is gone", round.lost);
            return Err(Failure::new(what).because(format!("round {number}: {round:?}")));
        }
        each(number, &round)?;
    }
    if load == Load::Pgbench {
        let active = lab.node("active")?;
        lab.stop_group(&active.name)?;
        for node in ["node-a", "node-b"] {
            let disk = lab.dir.join(node).join("disk");
            shell::run(Command::new("e2fsck").arg("-fn").arg(disk))?;
        }
    }
    lab.compare_disks(SIZE_BYTES)?;
    lab.down()
}

/// Spread over the range, the same for the same round.
fn delay_ms(load: Load, crash: Crash, round: u64) -> u64 {
    let salt = u64::try_from(load.name().len() + 16 * crash.name().len()).unwrap_or(0);
    let mixed = (round + salt * 1_000).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    DELAY_MS.start + (mixed >> 33) % (DELAY_MS.end - DELAY_MS.start)
}

fn under_fio(lab: &Lab, crash: Crash, number: u64, writer: &mut Writer) -> Outcome<Round> {
    let (active, standby) = (lab.node("active")?, lab.node("standby")?);
    let delay_ms = delay_ms(Load::Fio, crash, number);
    let before = writer.acknowledged;
    let mut fio = start_fio(lab, &active)?;
    let (crashed, wrote) = thread::scope(|scope| {
        let writing = scope.spawn(|| writer.write_until_gone(&active.nbd, number));
        // The moment is the point of it: there is nothing to wait for.
        thread::sleep(Duration::from_millis(delay_ms));
        let started = Instant::now();
        let crashed = crash.play(lab, &active, &standby).map(|()| started);
        let wrote = writing
            .join()
            .unwrap_or_else(|_| Err(Failure::new("the writer panicked")));
        (crashed, wrote)
    });
    let started = crashed?;
    wrote?;
    // It ends with its connection; one that does not is killed.
    drop(wait::until("fio ends", FIO_MAX, || {
        (!fio.is_alive()).then_some(())
    }));
    drop(fio);
    let report = std::fs::read_to_string(lab.dir.join("fio.log")).unwrap_or_default();
    writer::fio_saw_no_wrong_content(&report)?;
    let now = lab.node("active")?;
    lab.wait_in_sync(&now.name)?;
    let whole_ms = millis(started.elapsed());
    let checked = writer.check(&now.nbd, crash.promise())?;
    lab.compare_disks(SIZE_BYTES)?;
    Ok(Round {
        delay_ms,
        acknowledged: writer.acknowledged - before,
        lost: checked.lost,
        lapsed: checked.lapsed,
        whole_ms,
    })
}

fn start_fio(lab: &Lab, active: &Node) -> Outcome<Running> {
    let mut fio = Command::new("fio");
    fio.args(["--name=load", "--ioengine=nbd", "--rw=randrw", "--bs=4k"])
        .arg(ONE_PROCESS)
        .args(["--iodepth=16", "--time_based", "--runtime=60"])
        .args([
            "--verify=crc32c",
            "--verify_backlog=256",
            "--verify_fatal=1",
            "--fsync=64",
        ])
        .arg(format!("--size={}", writer::START))
        .arg(format!("--uri={}", active.nbd))
        .arg("--output=fio.log")
        .current_dir(&lab.dir)
        .stderr(Stdio::null());
    Running::start(&mut fio)
}

fn under_pgbench(lab: &Lab, crash: Crash, number: u64, bench: &mut Bench) -> Outcome<Round> {
    let (active, standby) = (lab.node("active")?, lab.node("standby")?);
    let delay_ms = delay_ms(Load::Pgbench, crash, number);
    let before = bench.history()?;
    let running = bench.start(lab, before)?;
    thread::sleep(Duration::from_millis(delay_ms));
    let started = Instant::now();
    crash.play(lab, &active, &standby)?;
    let counted = bench.end(lab, running)?;
    let now = lab.node("active")?;
    lab.wait_in_sync(&now.name)?;
    let whole_ms = millis(started.elapsed());
    let lost = bench.check(before + counted)?;
    Ok(Round {
        delay_ms,
        acknowledged: counted,
        lost,
        lapsed: 0,
        whole_ms,
    })
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

/// Each once, for every change.
pub(crate) fn lose_nothing(world: &World) -> Outcome {
    for crash in [Crash::Kill, Crash::Power, Crash::PowerBoth] {
        play(world, Load::Fio, crash, 0..2, |_, _| Ok(()))?;
    }
    play(world, Load::Pgbench, Crash::Power, 0..1, |_, _| Ok(()))
}
