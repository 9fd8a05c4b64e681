//! What is measured, against whom, and what is asked for.

use super::Column;
use super::fio::{Load, Stop};
use super::rig::{Ours, Rig};
use super::stats::Figure;
use crate::e2e::World;
use crate::failure::Outcome;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Size of the volumes, and the part of them that is written, in all setups but the wide one.
const VOLUME_BYTES: u64 = 512 * MIB;
/// Its regions stay in the intent log, whose default bound is 64 MiB.
const SPAN_BYTES: u64 = 40 * MIB;
const SEQUENTIAL_BYTES: u64 = 256 * MIB;
const WIDE_BYTES: u64 = 16 * GIB;

/// Random writes, many at a time.
pub(super) const WRITES: Load = Load {
    name: "write-qd32",
    rw: "randwrite",
    block_bytes: 4096,
    depth: 32,
    span_bytes: SPAN_BYTES,
};
/// Random writes, one at a time.
const SINGLE_WRITES: Load = Load {
    name: "write-qd1",
    depth: 1,
    ..WRITES
};
/// Writes in a row.
pub(super) const SEQUENTIAL: Load = Load {
    name: "seq-1m",
    rw: "write",
    block_bytes: MIB,
    depth: 8,
    span_bytes: SEQUENTIAL_BYTES,
};
const READS: Load = Load {
    name: "read-qd32",
    rw: "randread",
    ..WRITES
};
/// Random writes all over a volume that is much larger than what the intent log holds.
const WIDE_WRITES: Load = Load {
    name: "write-wide",
    span_bytes: WIDE_BYTES,
    ..WRITES
};

/// Where backing files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backing {
    Memory,
    Disk,
}

/// Who takes turns.
type Contestants = Vec<(Column, Rig)>;

/// Contestants that are up together.
pub(super) struct Setup {
    pub(super) name: &'static str,
    pub(super) backing: Backing,
    pub(super) build: fn(&World) -> Outcome<Contestants>,
    /// Written once before anything is measured.
    pub(super) fill_bytes: Option<u64>,
    pub(super) loads: &'static [Load],
    /// Room that it may need, in bytes.
    pub(super) room_bytes: u64,
}

/// A line of the table.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) work: &'static str,
    pub(super) against: &'static str,
    pub(super) setup: &'static str,
    pub(super) load: &'static str,
    pub(super) figure: Figure,
    pub(super) floor: f64,
    pub(super) aim: f64,
}

pub(super) const SETUPS: [Setup; 6] = [
    Setup {
        name: "memory",
        backing: Backing::Memory,
        build: against_quorum,
        fill_bytes: Some(VOLUME_BYTES),
        loads: &[WRITES, SINGLE_WRITES, SEQUENTIAL, READS],
        room_bytes: 7 * VOLUME_BYTES,
    },
    Setup {
        name: "disk",
        backing: Backing::Disk,
        build: against_quorum,
        fill_bytes: Some(VOLUME_BYTES),
        loads: &[WRITES, SINGLE_WRITES, SEQUENTIAL],
        room_bytes: 7 * VOLUME_BYTES,
    },
    Setup {
        name: "wide",
        backing: Backing::Disk,
        build: wide_against_quorum,
        fill_bytes: None,
        loads: &[WIDE_WRITES],
        // Sparse: the same blocks are written in every round.
        room_bytes: 4 * GIB,
    },
    Setup {
        name: "one-copy",
        backing: Backing::Disk,
        build: against_one_copy,
        fill_bytes: Some(VOLUME_BYTES),
        loads: &[SINGLE_WRITES],
        room_bytes: 7 * VOLUME_BYTES,
    },
    Setup {
        name: "async",
        backing: Backing::Disk,
        build: async_against_one_copy,
        fill_bytes: Some(VOLUME_BYTES),
        loads: &[SINGLE_WRITES],
        room_bytes: 7 * VOLUME_BYTES,
    },
    Setup {
        name: "fuse",
        backing: Backing::Memory,
        build: against_fuse_export,
        fill_bytes: Some(VOLUME_BYTES),
        loads: &[WRITES, SINGLE_WRITES],
        room_bytes: 4 * VOLUME_BYTES,
    },
];

const QUORUM: &str = "QEMU quorum";

macro_rules! rows {
    ($($name:literal, $work:literal, $against:expr, $setup:literal, $load:expr, $figure:ident, $floor:literal, $aim:literal;)*) => {
        &[$(Row {
            name: $name,
            work: $work,
            against: $against,
            setup: $setup,
            load: $load.name,
            figure: Figure::$figure,
            floor: $floor,
            aim: $aim,
        }),*]
    };
}

pub(super) const ROWS: &[Row] = rows![
    "memory-write-qd32", "4 KiB random writes, depth 32, in memory", QUORUM, "memory", WRITES, Iops, 1.5, 2.5;
    "disk-write-qd32", "4 KiB random writes, depth 32, on disk", QUORUM, "disk", WRITES, Iops, 1.5, 2.5;
    "wide-write-qd32", "the same over 16 GiB on disk", QUORUM, "wide", WIDE_WRITES, Iops, 1.0, 1.5;
    "memory-write-qd1", "4 KiB random writes, depth 1, in memory", QUORUM, "memory", SINGLE_WRITES, Iops, 1.0, 1.3;
    "memory-write-qd1-p99", "the same, 99th percentile", QUORUM, "memory", SINGLE_WRITES, P99, 1.0, 0.8;
    "disk-write-qd1", "4 KiB random writes, depth 1, on disk", QUORUM, "disk", SINGLE_WRITES, Iops, 1.0, 1.3;
    "disk-write-qd1-p99", "the same, 99th percentile", QUORUM, "disk", SINGLE_WRITES, P99, 1.0, 0.8;
    "memory-seq-1m", "1 MiB sequential writes, in memory", QUORUM, "memory", SEQUENTIAL, Bandwidth, 1.0, 1.5;
    "disk-seq-1m", "1 MiB sequential writes, on disk", QUORUM, "disk", SEQUENTIAL, Bandwidth, 1.0, 1.5;
    "memory-read-qd32", "4 KiB random reads, depth 32, in memory", QUORUM, "memory", READS, Iops, 1.0, 1.5;
    "memory-write-cpu", "processor time per mirrored 4 KiB write, in memory", QUORUM, "memory", WRITES, Cpu, 0.8, 0.5;
    "one-copy-qd1", "latency of a mirrored write, depth 1, on disk", "own, standby away", "one-copy", SINGLE_WRITES, Mean, 1.6, 1.3;
    "async-qd1", "latency of an asynchronous write, depth 1, on disk, the standby's in memory", "own, standby away", "async", SINGLE_WRITES, Mean, 1.15, 1.05;
    "fuse-qd32", "one copy by FUSE and loop, depth 32", "QEMU FUSE export", "fuse", WRITES, Iops, 1.0, 1.3;
    "fuse-qd1", "one copy by FUSE and loop, depth 1", "QEMU FUSE export", "fuse", SINGLE_WRITES, Iops, 1.0, 1.3;
];

/// How long a run takes.
pub(super) const fn stop(load: &Load, seconds: u64) -> Stop {
    if load.span_bytes == WIDE_BYTES {
        // About what a fast contestant does in that time; everybody pays for the same new blocks.
        return Stop::Operations(12_000 * seconds);
    }
    Stop::Seconds(seconds)
}

const fn ours(name: &'static str) -> Ours {
    Ours {
        name,
        size_bytes: VOLUME_BYTES,
        tls: false,
        mode: "sync",
        alone: false,
        fuse: false,
        standby_in_memory: false,
    }
}

fn pair(world: &World, size_bytes: u64) -> Outcome<Contestants> {
    let plain = Ours {
        size_bytes,
        ..ours("plain")
    };
    let tls = Ours {
        tls: true,
        name: "tls",
        ..plain
    };
    Ok(vec![
        (Column::Plain, Rig::ours(world, plain)?),
        (Column::Tls, Rig::ours(world, tls)?),
    ])
}

fn against_quorum(world: &World) -> Outcome<Contestants> {
    let mut all = pair(world, VOLUME_BYTES)?;
    all.push((Column::Peer, Rig::quorum(world, VOLUME_BYTES)?));
    Ok(all)
}

fn wide_against_quorum(world: &World) -> Outcome<Contestants> {
    let mut all = pair(world, WIDE_BYTES)?;
    all.push((Column::Peer, Rig::quorum(world, WIDE_BYTES)?));
    Ok(all)
}

fn alone(world: &World) -> Outcome<(Column, Rig)> {
    let how = Ours {
        alone: true,
        ..ours("alone")
    };
    Ok((Column::Peer, Rig::ours(world, how)?))
}

fn against_one_copy(world: &World) -> Outcome<Contestants> {
    let mut all = pair(world, VOLUME_BYTES)?;
    all.push(alone(world)?);
    Ok(all)
}

fn async_against_one_copy(world: &World) -> Outcome<Contestants> {
    let plain = Ours {
        mode: "async",
        standby_in_memory: true,
        ..ours("async-plain")
    };
    let tls = Ours {
        tls: true,
        name: "async-tls",
        ..plain
    };
    Ok(vec![
        (Column::Plain, Rig::ours(world, plain)?),
        (Column::Tls, Rig::ours(world, tls)?),
        alone(world)?,
    ])
}

fn against_fuse_export(world: &World) -> Outcome<Contestants> {
    let how = Ours {
        alone: true,
        fuse: true,
        ..ours("fuse")
    };
    Ok(vec![
        (Column::Plain, Rig::ours(world, how)?),
        (Column::Peer, Rig::fuse_export(world, VOLUME_BYTES)?),
    ])
}
