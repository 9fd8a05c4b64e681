//! Every process of the active is stopped: the kernel alone must take the address off the wire.
//!
//! The witness of this test is a capture at the switch's port of the active, not anything that Backstay says. The client
//! pings the address: the kernel of a stopped node still answers pings, until the gate closes.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use super::lab::Lab;
use super::running::Running;
use super::{World, wait};
use crate::failure::{Context, Failure, Outcome};

/// The lease of profile `lan`, in seconds.
const LEASE: f64 = 1.0;
/// What the capture's own clock and the kernel's timer may add, in seconds.
const SLACK: f64 = 0.1;
/// How long the node stays stopped, and how long it is watched after it continued.
const STOPPED: Duration = Duration::from_secs(4);

pub(crate) fn stopped_active(world: &World) -> Outcome {
    let lab = Lab::up(world, "silence", &["--workload", "ledger"])?;
    let active = lab.node("active")?;
    let address = lab.status()?["address"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let prefix = active.netns.trim_end_matches(&active.name).to_owned();
    let port = if active.name == "node-a" {
        "svc-a"
    } else {
        "svc-b"
    };
    let log = lab.dir.join("capture.log");

    let _capture = capture(&format!("{prefix}switch"), port, &address, &log)?;
    let _ping = ping(&format!("{prefix}client"), &address)?;
    wait::until("the address answers", Duration::from_secs(10), || {
        (stamps(&log).len() > 10).then_some(())
    })?;
    let stopped_at = now()?;
    lab.fault(&active.name, "stop")?;
    // The time itself is what is tested here: nothing may come in it.
    sleep(STOPPED);
    lab.heal(&active.name)?;
    sleep(STOPPED);

    let last = stamps(&log).into_iter().fold(0.0, f64::max);
    println!(
        "last packet from {address} at {}: {:.3} s after the stop",
        active.name,
        last - stopped_at
    );
    if last - stopped_at > LEASE + SLACK {
        let late = format!(
            "a packet left {} {:.3} s after the stop",
            active.name,
            last - stopped_at
        );
        return Err(Failure::new(late).because(format!("the lease is {LEASE} s")));
    }
    lab.down()
}

/// Captures what the node sends from the address, ARP included, at its port of the switch.
fn capture(netns: &str, port: &str, address: &str, log: &Path) -> Outcome<Running> {
    let out = File::create(log).context("create the capture's log")?;
    let filter = format!("src host {address}");
    let mut command = Command::new("ip");
    command
        .args([
            "netns",
            "exec",
            netns,
            "tcpdump",
            "--immediate-mode",
            "-l",
            "-n",
            "-tt",
            "-Q",
            "in",
        ])
        .args(["-i", port, &filter])
        .stdout(out)
        .stderr(Stdio::null());
    Running::start(&mut command)
}

fn ping(netns: &str, address: &str) -> Outcome<Running> {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", netns])
        .args(["ping", "-n", "-q", "-i", "0.01", address])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Running::start(&mut command)
}

/// The times of the captured packets, in seconds since 1970.
fn stamps(log: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split(' ').next()?.parse().ok())
        .collect()
}

fn now() -> Outcome<f64> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since
        .map(|time| time.as_secs_f64())
        .map_err(|cause| Failure::new("this machine's clock is before 1970").because(cause))
}
