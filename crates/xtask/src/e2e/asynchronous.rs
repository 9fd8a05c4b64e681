//! An asynchronous mirror: never past its bound while somebody could take over, and what a failover finds is a prefix.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::chain::Chain;
use super::lab::Lab;
use super::nbd_client::Client;
use super::running::{ONE_PROCESS, Running};
use super::{Depth, World, wait};
use crate::failure::{Context, Failure, Outcome};
use crate::table::{Table, grouped};

/// What `lab up --mode async` configures.
const MAX_LAG: u64 = 64 << 20;
const MAX_LAG_SECONDS: f64 = 5.0;
/// What takes the standby away, one after the other; none is the standby itself.
const FAULTS: [(Option<&str>, &str); 3] = [
    (Some("mirror"), "cut"),
    (Some("mirror"), "slow"),
    (None, "stop"),
];
/// Random writes a second, in MiB: at the first the bound in seconds comes first, at the other the bound in bytes.
const RATES_MIB: [u64; 2] = [4, 40];
/// How long each lasts: longer than the bound, so that the standby has to be taken out.
const LASTS: Duration = Duration::from_secs(8);
/// How long the chain grows before each failover.
const CHAIN_GROWS: Duration = Duration::from_secs(2);

/// The most that was seen while a failover was possible.
#[derive(Default)]
struct Seen {
    samples: u64,
    possible: u64,
    bytes: u64,
    seconds: f64,
}

pub(crate) fn never_past_its_bound(world: &World) -> Outcome {
    let args = ["--mode", "async", "--workload", "none", "--size", "256M"];
    let lab = Lab::up(world, "async-bound", &args)?;
    let mut table = Table::new(&[
        "MiB/s",
        "fault",
        "samples",
        "failover possible",
        "most bytes",
        "most seconds",
    ]);
    let rates = if world.depth == Depth::Long { 2 } else { 1 };
    for rate_mib in RATES_MIB.into_iter().take(rates) {
        every_fault(&lab, rate_mib, &mut table)?;
    }
    print!("{}", table.text());
    lab.down()
}

/// One fault after the other, beside writes of that many MiB a second.
fn every_fault(lab: &Lab, rate_mib: u64, table: &mut Table) -> Outcome {
    let (active, standby) = (lab.node("active")?, lab.node("standby")?);
    lab.wait_in_sync(&active.name)?;
    let _load = writer(&active.nbd, rate_mib)?;
    for (target, fault) in FAULTS {
        let target = target.unwrap_or(&standby.name);
        lab.fault(target, fault)?;
        let seen = sample(lab, &active.name)?;
        lab.heal(target)?;
        table.row(vec![
            rate_mib.to_string(),
            format!("{target} {fault}"),
            seen.samples.to_string(),
            seen.possible.to_string(),
            grouped(seen.bytes),
            format!("{:.2}", seen.seconds),
        ]);
        // It returns by itself, under the same load, and what is said of it then is true at once.
        lab.wait_in_sync(&active.name)?;
        within_bound(&lab.group(&active.name)?, &mut Seen::default())?;
    }
    Ok(())
}

/// Looks at the lag for as long as the fault lasts; fails as soon as it is past the bound while somebody could take over.
fn sample(lab: &Lab, node: &str) -> Outcome<Seen> {
    let mut seen = Seen::default();
    let began = Instant::now();
    while began.elapsed() < LASTS {
        let group = lab.group(node)?;
        within_bound(&group, &mut seen)?;
    }
    Ok(seen)
}

fn within_bound(group: &Value, seen: &mut Seen) -> Outcome {
    seen.samples += 1;
    if group["can_fail_over"] != true {
        return Ok(());
    }
    seen.possible += 1;
    let mirror = &group["mirrors"][0];
    let bytes = mirror["lag_bytes"].as_u64().unwrap_or(u64::MAX);
    let seconds = mirror["lag_seconds"].as_f64().unwrap_or(f64::MAX);
    seen.bytes = seen.bytes.max(bytes);
    seen.seconds = seen.seconds.max(seconds);
    if bytes <= MAX_LAG && seconds <= MAX_LAG_SECONDS {
        return Ok(());
    }
    let past = Failure::new("the standby is past its bound and could take over");
    Err(past.because(format!("{bytes} bytes, {seconds} s")))
}

/// Random blocks: more of them than a slow link takes, fewer than a busy machine does.
fn writer(nbd: &str, rate_mib: u64) -> Outcome<Running> {
    let mut fio = Command::new("fio");
    fio.args(["--name=load", "--ioengine=nbd", "--rw=randwrite", "--bs=4k"])
        .arg(ONE_PROCESS)
        .args([
            "--iodepth=4",
            "--time_based",
            "--runtime=600",
            "--size=256m",
        ])
        .args(["--norandommap", &format!("--uri={nbd}")])
        .arg(format!("--rate={rate_mib}m"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Running::start(&mut fio)
}

/// A hash chain on the new active is a prefix of what was acknowledged, whatever state the link was in.
pub(crate) fn chain_is_a_prefix(world: &World) -> Outcome {
    let args = ["--mode", "async", "--workload", "none", "--size", "64M"];
    let lab = Lab::up(world, "async-chain", &args)?;
    let mut table = Table::new(&["link", "acknowledged", "found", "cut off"]);
    for (seed, slow) in (1..).zip([false, true, false, true]) {
        let (active, standby) = (lab.node("active")?, lab.node("standby")?);
        lab.wait_in_sync(&active.name)?;
        let mut chain = Chain::new(0xC4A1_0000 + seed);
        let mut client = Client::open(&active.nbd)?;
        if slow {
            lab.fault("mirror", "slow")?;
        }
        let began = Instant::now();
        while began.elapsed() < CHAIN_GROWS {
            chain.append(&mut client).context("write the chain")?;
        }
        lab.fault(&active.name, "kill")?;
        lab.wait_active(&standby.name)?;
        let mut client = wait::until("the new active serves", Duration::from_secs(15), || {
            Client::open(&standby.nbd).ok()
        })?;
        let (found, beyond) = chain.found(&mut client).context("read the chain")?;
        let cut_off = chain.acknowledged.saturating_sub(found);
        table.row(vec![
            if slow { "slow" } else { "well" }.into(),
            grouped(chain.acknowledged),
            grouped(found),
            grouped(cut_off),
        ]);
        if beyond > 0 || cut_off * 4096 > MAX_LAG {
            let what = format!("of {} blocks {found} are there", chain.acknowledged);
            return Err(
                Failure::new("the standby's chain is no prefix within the bound")
                    .because(format!("{what}, and {beyond} beyond a gap")),
            );
        }
        lab.heal("all")?;
        lab.wait_in_sync(&standby.name)?;
    }
    print!("{}", table.text());
    lab.compare_disks(60 << 20)?;
    lab.down()
}
