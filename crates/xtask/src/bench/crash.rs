//! What is copied after a crash of the active, beside DRBD: the same writes on both.
//!
//! DRBD is a part of another kernel than this machine's, so it runs in guests. Bytes do not depend on speed, so ours, which needs
//! no such kernel, does not: its first sync of a volume of this size takes many minutes without hardware support.

use super::resync::line;
use super::stats::median;
use super::{Line, Scale, Stand};
use crate::e2e::resync::{self, CRASH_WORK};
use crate::failure::Outcome;
use crate::guest;

/// The row's name.
pub(super) const NAME: &str = "crash-bytes";

/// Measures the row.
pub(super) fn measure(
    stand: &Stand<'_>,
    scale: Scale,
    notes: &mut Vec<String>,
) -> Outcome<Vec<Line>> {
    println!("\n-- {NAME}");
    let theirs = (0..scale.rounds)
        .map(|_| guest::drbd::bytes_after_crash(stand.project, CRASH_WORK))
        .collect::<Outcome<Vec<u64>>>()?;
    let ours = (0..scale.rounds)
        .map(|_| resync::bytes_after_crash(&stand.memory))
        .collect::<Outcome<Vec<u64>>>()?;
    let told = |all: &[u64]| {
        let each: Vec<String> = all.iter().map(|bytes| format!("{}", bytes >> 20)).collect();
        each.join(", ")
    };
    notes.push(format!(
        "crash-bytes: {} random writes over {} GiB, then a crash of the active while writes go on; MiB that are copied: \
         ours {}; DRBD {}",
        CRASH_WORK.writes,
        CRASH_WORK.span_bytes >> 30,
        told(&ours),
        told(&theirs),
    ));
    let (ours, theirs) = (middle_mib(&ours), middle_mib(&theirs));
    Ok(vec![line(
        NAME,
        "bytes copied after a crash of the active, 4 KiB random writes over 5 GiB",
        "DRBD 8.4",
        (format!("{ours:.1} MiB"), format!("{theirs:.1} MiB")),
        ours / theirs.max(1e-9),
        (0.1, 0.02),
    )])
}

fn middle_mib(bytes: &[u64]) -> f64 {
    // Whole KiB of a volume of some GiB fit in 32 bits.
    let kib = bytes
        .iter()
        .filter_map(|bytes| u32::try_from(bytes >> 10).ok());
    median(kib.map(|kib| f64::from(kib) / 1024.0).collect())
}
