//! One run of fio.

use std::process::Command;

use serde_json::Value;

use super::rig::Target;
use super::stats::Sample;
use crate::failure::{Failure, Outcome};
use crate::shell;

/// When a run ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stop {
    /// After so long.
    Seconds(u64),
    /// After so many operations: the same work for everybody.
    Operations(u64),
    /// When every block of the span was touched once.
    Once,
}

/// What is asked of a volume.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) name: &'static str,
    /// fio's word: `randwrite`, `write`, `randread`.
    pub(crate) rw: &'static str,
    pub(crate) block_bytes: u64,
    pub(crate) depth: u32,
    /// The first so many bytes of the volume.
    pub(crate) span_bytes: u64,
}

impl Load {
    /// Writes all of a volume once, so that no run pays for the first touch of its backing files.
    pub(crate) const fn fill(span_bytes: u64) -> Self {
        Self {
            name: "fill",
            rw: "write",
            block_bytes: 1 << 20,
            depth: 8,
            span_bytes,
        }
    }

    pub(crate) fn is_write(&self) -> bool {
        self.rw.contains("write")
    }
}

/// Runs it; the sample without what fio cannot know.
pub(crate) fn run(load: &Load, stop: Stop, target: &Target) -> Outcome<(Sample, f64)> {
    let report = shell::capture(&mut command(load, stop, target))?;
    let unusable = |why: &str| Failure::new(format!("fio's report is of no use: {why}"));
    // Warnings may come before it.
    let start = report.find('{').ok_or_else(|| unusable("no JSON"))?;
    let report: Value =
        serde_json::from_str(&report[start..]).map_err(|e| unusable(&e.to_string()))?;
    let job = &report["jobs"][0];
    if job["error"].as_i64() != Some(0) {
        return Err(unusable("it saw an error"));
    }
    let side = &job[if load.is_write() { "write" } else { "read" }];
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let total = number(&side["total_ios"]);
    if total < 1.0 {
        return Err(unusable("nothing was done"));
    }
    let sample = Sample {
        iops: number(&side["iops"]),
        bandwidth: number(&side["bw_bytes"]),
        mean_us: number(&side["clat_ns"]["mean"]) / 1e3,
        p99_us: number(&side["clat_ns"]["percentile"]["99.000000"]) / 1e3,
        cpu_us: 0.0,
        hot: None,
    };
    Ok((sample, total))
}

/// The command line, for a run that goes on beside something else.
pub(crate) fn command(load: &Load, stop: Stop, target: &Target) -> Command {
    let mut fio = Command::new("fio");
    fio.args(["--name=bench", "--output-format=json", "--randrepeat=1"])
        .arg(format!("--rw={}", load.rw))
        .arg(format!("--bs={}", load.block_bytes))
        .arg(format!("--iodepth={}", load.depth))
        .arg(format!("--size={}", load.span_bytes));
    match target {
        Target::Nbd(uri) => fio.arg("--ioengine=nbd").arg(format!("--uri={uri}")),
        Target::Device(path) => fio
            .args(["--ioengine=io_uring", "--direct=1"])
            .arg(format!("--filename={path}")),
    };
    match stop {
        Stop::Seconds(seconds) => fio.arg("--time_based").arg(format!("--runtime={seconds}")),
        Stop::Operations(count) => fio.arg(format!("--number_ios={count}")),
        Stop::Once => &mut fio,
    };
    fio
}
