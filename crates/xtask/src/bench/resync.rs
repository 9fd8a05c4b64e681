//! Resync: its speed beside a sequential mirrored write, and what the application feels of it.

use std::time::Duration;

use serde_json::Value;

use super::fio::{Load, Stop};
use super::rig::{Ours, Rig, Server};
use super::rows::{SEQUENTIAL, WRITES};
use super::stats::{Verdict, median};
use super::{Line, Scale, Stand};
use crate::e2e::lab::Lab;
use crate::e2e::wait;
use crate::failure::{Failure, Outcome};

/// Both rows have names that begin with this.
pub(super) const NAME: &str = "resync";

/// What differs when the standby returns, in bytes: enough for a resync of some seconds.
const DIFFERENT_BYTES: u64 = 1 << 30;
const RESYNC_MAX: Duration = Duration::from_secs(120);

/// The application that is looked at: not at the machine's limit, as one that is would feel anything.
const APPLICATION: Load = Load {
    name: "application",
    depth: 1,
    ..WRITES
};
/// Length of its run, in seconds; shorter than the resync.
const APPLICATION_SECONDS: u64 = 1;

/// One round.
struct Round {
    /// Resync without load ÷ sequential write, in bytes per second.
    speed: (f64, f64),
    /// 99th percentile during a resync, and without one, in microseconds.
    p99: (f64, f64),
}

/// Measures both rows, with TLS off.
pub(super) fn measure(
    stand: &Stand<'_>,
    scale: Scale,
    notes: &mut Vec<String>,
) -> Outcome<Vec<Line>> {
    println!("\n-- {NAME}");
    let how = Ours {
        name: "resync",
        size_bytes: 2 * DIFFERENT_BYTES,
        tls: false,
        mode: "sync",
        alone: false,
        fuse: false,
        standby_in_memory: false,
    };
    let rig = Rig::ours(&stand.memory, how)?;
    rig.run(&Load::fill(how.size_bytes), Stop::Once)?;
    let rounds = (0..scale.rounds)
        .map(|_| round(&rig, scale))
        .collect::<Outcome<Vec<Round>>>()?;
    rig.end()?;
    notes.push(format!(
        "resync: {} MiB differ; the application writes 4 KiB at depth 1 while it runs",
        DIFFERENT_BYTES >> 20
    ));
    let of = |pick: fn(&Round) -> f64| median(rounds.iter().map(pick).collect());
    let mega = |value: f64| format!("{:.0} MB/s", value / 1e6);
    let micro = |value: f64| format!("{value:.0} µs");
    Ok(vec![
        line(
            "resync-speed",
            "speed of a resync",
            "own sequential mirrored write",
            (mega(of(|r| r.speed.0)), mega(of(|r| r.speed.1))),
            of(|r| r.speed.0 / r.speed.1),
            (0.7, 0.9),
        ),
        line(
            "resync-p99",
            "99th percentile of an application's writes during a resync",
            "own, without resync",
            (micro(of(|r| r.p99.0)), micro(of(|r| r.p99.1))),
            of(|r| r.p99.0 / r.p99.1),
            (3.0, 2.0),
        ),
    ])
}

pub(super) fn line(
    name: &str,
    work: &str,
    against: &str,
    (ours, theirs): (String, String),
    ratio: f64,
    (floor, aim): (f64, f64),
) -> Line {
    let bound = if aim > floor { "≥" } else { "≤" };
    Line {
        name: name.to_owned(),
        work: work.to_owned(),
        against: against.to_owned(),
        ours,
        theirs,
        plain: format!("{ratio:.2}"),
        tls: "–".to_owned(),
        floor: format!("{bound} {floor}"),
        aim: format!("{bound} {aim}"),
        verdict: Verdict::of(ratio, floor, aim),
    }
}

fn round(rig: &Rig, scale: Scale) -> Outcome<Round> {
    let sequential = rig.run(&SEQUENTIAL, Stop::Seconds(scale.seconds))?;
    let normal = rig.run(&APPLICATION, Stop::Seconds(scale.seconds))?;
    let speed = resync(rig, || Ok(()))?.0;
    let during = resync(rig, || {
        rig.run(&APPLICATION, Stop::Seconds(APPLICATION_SECONDS))
    })?
    .1;
    println!(
        "resync {:.0} MB/s, sequential {:.0} MB/s, p99 {:.0} µs, without resync {:.0} µs",
        speed / 1e6,
        sequential.bandwidth / 1e6,
        during.p99_us,
        normal.p99_us
    );
    Ok(Round {
        speed: (speed, sequential.bandwidth),
        p99: (during.p99_us, normal.p99_us),
    })
}

/// The standby is away while half of the volume is written, and returns; `beside` runs while it is brought up to date.
fn resync<T>(rig: &Rig, beside: impl FnOnce() -> Outcome<T>) -> Outcome<(f64, T)> {
    let Server::Lab {
        lab,
        active,
        standby,
    } = &rig.by
    else {
        return Err(Failure::new("only our own mirror is resynced here"));
    };
    lab.fault(&standby.name, "kill")?;
    lab.wait_in_set(&active.name, 1)?;
    rig.run(&Load::fill(DIFFERENT_BYTES), Stop::Once)?;
    let seen = last_event(lab, &active.name)?;
    lab.heal(&standby.name)?;
    wait::until("the resync has begun", RESYNC_MAX, || {
        event(lab, &active.name, seen, "resync-started").ok()?
    })?;
    let value = beside()?;
    lab.wait_in_sync(&active.name)?;
    let started = event(lab, &active.name, seen, "resync-started")?;
    let done = event(lab, &active.name, seen, "resync-done")?;
    let (Some(started), Some(done)) = (started, done) else {
        return Err(Failure::new("the events do not tell of a resync"));
    };
    let sent = done["args"]["sent"].as_f64().unwrap_or(0.0);
    Ok((sent / (seconds(&done) - seconds(&started)).max(1e-6), value))
}

fn last_event(lab: &Lab, node: &str) -> Outcome<u64> {
    let head = lab.ask(node, "events?limit=1")?["head"].as_u64();
    head.ok_or_else(|| Failure::new(format!("{node} does not number its events")))
}

/// The newest event of a code after the event `seen`.
fn event(lab: &Lab, node: &str, seen: u64, code: &str) -> Outcome<Option<Value>> {
    let events = lab.ask(node, &format!("events?limit=1000&after={seen}"))?;
    let all = events["events"].as_array().cloned().unwrap_or_default();
    Ok(all.into_iter().rev().find(|event| event["code"] == code))
}

/// Seconds within the day of an event's time; a run over midnight shows a nonsensical figure, once.
fn seconds(event: &Value) -> f64 {
    let time = event["time"].as_str().unwrap_or_default();
    let clock = time.split_once('T').map_or("", |(_, clock)| clock);
    clock
        .trim_end_matches('Z')
        .split(':')
        .filter_map(|part| part.parse::<f64>().ok())
        .fold(0.0, |sum, part| sum * 60.0 + part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_event_is_read_to_the_microsecond() {
        let event = serde_json::json!({"time": "2026-11-22T01:02:03.250000Z"});
        assert!((seconds(&event) - 3723.25).abs() < 1e-9);
    }
}
