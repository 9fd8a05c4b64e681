use super::fault::{PowerLoss, power_loss};
use super::*;
use crate::clock;
use crate::ring::{Backend, Op, Ring};
use crate::scratch::Scratch;
use std::collections::BTreeSet;
use std::sync::Arc;
use wire::Duration;

/// A disk with a shim, its ring, and the directory that holds both.
struct Bench {
    scratch: Scratch,
    ring: Ring,
    disk: Arc<Disk>,
}

impl Bench {
    fn new(name: &str, len: u64) -> Self {
        let scratch = Scratch::new(name);
        File::create(scratch.path().join("disk"))
            .unwrap()
            .set_len(len)
            .unwrap();
        let disk = open(&scratch);
        Self {
            scratch,
            ring: Ring::new(None).unwrap(),
            disk,
        }
    }

    fn write(&mut self, offset: u64, byte: u8, len: usize, durable: bool) {
        let mut data = Buf::new(len);
        data.fill(byte);
        let disk = Arc::clone(&self.disk);
        self.run(Op::Write {
            disk,
            offset,
            data: data.freeze(),
            durable,
        });
    }

    fn flush(&mut self) {
        let disk = Arc::clone(&self.disk);
        self.run(Op::Flush { disk });
    }

    fn run(&mut self, op: Op) {
        self.ring.submit(0, op);
        self.drain();
    }

    fn drain(&mut self) {
        let mut done = Vec::new();
        let all = self.ring.in_flight();
        self.ring
            .wait(all, Some(clock::now() + Duration::from_secs(10)), &mut done)
            .unwrap();
        assert_eq!(done.len(), all);
        assert!(done.iter().all(|completion| completion.result.is_ok()));
    }

    /// Everything that used the disk is gone, then the power fails; the result and the disk's bytes.
    fn lose_power(self, seed: u64) -> (PowerLoss, Vec<u8>) {
        let Self {
            scratch,
            ring,
            disk,
        } = self;
        drop(ring);
        drop(disk);
        let path = scratch.path().join("disk");
        let loss = power_loss(&path, &scratch.path().join("fault"), seed).unwrap();
        (loss, std::fs::read(path).unwrap())
    }
}

fn open(scratch: &Scratch) -> Arc<Disk> {
    let options = OpenOptions {
        fault_dir: Some(scratch.path().join("fault")),
        ..OpenOptions::default()
    };
    Arc::new(Disk::open(&scratch.path().join("disk"), &options).unwrap())
}

fn block(bytes: &[u8], index: usize) -> BTreeSet<u8> {
    bytes[index * 4096..(index + 1) * 4096]
        .iter()
        .copied()
        .collect()
}

#[test]
fn unflushed_writes_are_lost_kept_or_torn_and_flushed_ones_stay() {
    let (mut lost, mut kept, mut torn) = (0, 0, 0);
    for seed in 0..40 {
        let mut bench = Bench::new("power", 1 << 20);
        bench.write(0, 1, 4096, false);
        bench.flush();
        bench.write(0, 2, 4096, false);
        bench.write(4096, 3, 4096, true);
        let (loss, bytes) = bench.lose_power(seed);
        assert_eq!(loss.kept + loss.lost + loss.torn, 1);
        assert_eq!(block(&bytes, 1), BTreeSet::from([3]), "FUA stays");
        match block(&bytes, 0).into_iter().collect::<Vec<u8>>()[..] {
            [1] => lost += 1,
            [2] => kept += 1,
            [1, 2] => torn += 1,
            ref other => panic!("content {other:?} was never written"),
        }
    }
    assert!(
        lost > 0 && kept > 0 && torn > 0,
        "{lost} lost, {kept} kept, {torn} torn"
    );
}

#[test]
fn later_durable_write_is_not_undone_by_an_older_lost_one() {
    for seed in 0..20 {
        let mut bench = Bench::new("power-fua", 1 << 20);
        bench.write(0, 1, 8192, false);
        bench.write(4096, 2, 4096, true);
        let (_, bytes) = bench.lose_power(seed);
        assert_eq!(block(&bytes, 1), BTreeSet::from([2]));
        assert!(block(&bytes, 0).is_subset(&BTreeSet::from([0, 1])));
    }
}

#[test]
fn flush_covers_only_what_completed_before_it_was_submitted() {
    let mut undone = 0;
    for seed in 0..40 {
        let mut bench = Bench::new("power-race", 1 << 20);
        let mut data = Buf::new(4096);
        data.fill(5);
        let disk = Arc::clone(&bench.disk);
        bench.ring.submit(
            1,
            Op::Write {
                disk,
                offset: 0,
                data: data.freeze(),
                durable: false,
            },
        );
        let disk = Arc::clone(&bench.disk);
        bench.ring.submit(2, Op::Flush { disk });
        bench.drain();
        let (loss, bytes) = bench.lose_power(seed);
        assert_eq!(
            loss.kept + loss.lost + loss.torn,
            1,
            "the write is not covered"
        );
        undone += usize::from(block(&bytes, 0) == BTreeSet::from([0]));
    }
    assert!(undone > 0);
}

#[test]
fn journal_survives_the_process_and_goes_on_in_the_next() {
    let mut bench = Bench::new("power-adopt", 1 << 20);
    bench.write(0, 1, 4096, false);
    bench.flush();
    bench.write(0, 2, 4096, false);
    let Bench {
        scratch,
        ring,
        disk,
    } = bench;
    drop(ring);
    drop(disk);
    let disk = open(&scratch);
    let mut bench = Bench {
        scratch,
        ring: Ring::new(None).unwrap(),
        disk,
    };
    bench.write(4096, 3, 4096, false);
    let fault = bench.scratch.path().join("fault");
    let (loss, _) = bench.lose_power(1);
    assert_eq!(loss.kept + loss.lost + loss.torn, 2);
    drop(fault);

    let mut bench = Bench::new("power-adopt-flush", 1 << 20);
    bench.write(0, 2, 4096, false);
    let Bench {
        scratch,
        ring,
        disk,
    } = bench;
    drop(ring);
    drop(disk);
    let disk = open(&scratch);
    let mut bench = Bench {
        scratch,
        ring: Ring::new(None).unwrap(),
        disk,
    };
    bench.flush();
    let (loss, bytes) = bench.lose_power(1);
    assert_eq!(
        loss,
        PowerLoss::default(),
        "a flush covers what the process before wrote"
    );
    assert_eq!(block(&bytes, 0), BTreeSet::from([2]));
}

#[test]
fn same_seed_gives_the_same_disk() {
    let outcome = |seed| {
        let mut bench = Bench::new("power-seed", 1 << 20);
        for index in 0..64_u8 {
            bench.write(
                u64::from(index % 32) * 4096,
                index + 1,
                8192,
                index % 7 == 0,
            );
        }
        bench.lose_power(seed)
    };
    assert_eq!(outcome(5), outcome(5));
    assert_ne!(outcome(5).1, outcome(6).1);
}

#[test]
fn volatile_data_is_bounded() {
    let mut bench = Bench::new("power-bound", 8 << 20);
    for round in 0..100_u8 {
        bench.write(u64::from(round % 8) << 20, round, 1 << 20, false);
    }
    let used: u64 = std::fs::read_dir(bench.scratch.path().join("fault"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(
        used <= fault::CACHE_MAX + (10 << 20),
        "{used} bytes of journal"
    );
    bench.flush();
    bench.write(0, 200, 4096, false);
    bench.flush();
    assert_eq!(bench.lose_power(3).0, PowerLoss::default());
}

#[test]
fn busy_missing_and_unfit_disks_are_refused_with_a_reason() {
    let scratch = Scratch::new("open");
    let path = scratch.path().join("disk");
    let options = OpenOptions::default();
    let missing = Disk::open(&path, &options).unwrap_err();
    assert!(matches!(missing, OpenError::Missing { .. }), "{missing}");

    File::create(&path).unwrap();
    let empty = Disk::open(&path, &options).unwrap_err();
    assert!(
        matches!(empty, OpenError::Geometry { size: 0, .. }),
        "{empty}"
    );

    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let held = Disk::open(&path, &options).unwrap();
    assert_eq!(held.size(), 1 << 20);
    let OpenError::InUse { by, .. } = Disk::open(&path, &options).unwrap_err() else {
        panic!("opened twice")
    };
    assert!(by.contains(&std::process::id().to_string()), "{by}");

    let dir = Disk::open(scratch.path(), &options).unwrap_err();
    assert!(matches!(dir, OpenError::NotADisk { .. }), "{dir}");
    assert!(!dir.hint().is_empty());
}

#[test]
fn holes_and_data_are_told_apart() {
    let bench = Bench::new("extent", 1 << 20);
    let mut data = Buf::new(65536);
    data.fill(9);
    bench.disk.write_now(131_072, &data.freeze()).unwrap();
    let end = bench.disk.size();
    assert_eq!(
        bench.disk.extent_at(0, end).unwrap(),
        Extent {
            len: 131_072,
            hole: true
        }
    );
    let extent = bench.disk.extent_at(131_072, 140_000).unwrap();
    assert_eq!(
        extent,
        Extent {
            len: 140_000 - 131_072,
            hole: false
        }
    );
    let mut back = Buf::new(4096);
    bench.disk.read_now(131_072, &mut back).unwrap();
    assert!(back.iter().all(|byte| *byte == 9));
}

/// A disk with its metadata on a device of its own: what is where, and the files of both.
fn apart(scratch: &Scratch, data: u64, metadata: u64, faults: bool) -> Arc<Disk> {
    for (name, len) in [("data", data), ("meta", metadata)] {
        let file = File::create(scratch.path().join(name)).unwrap();
        file.set_len(len).unwrap();
    }
    let options = OpenOptions {
        metadata: Some(scratch.path().join("meta")),
        fault_dir: faults.then(|| scratch.path().join("fault")),
        ..OpenOptions::default()
    };
    Arc::new(Disk::open(&scratch.path().join("data"), &options).unwrap())
}

fn filled(byte: u8, len: usize) -> Frozen {
    let mut buf = Buf::new(len);
    buf.fill(byte);
    buf.freeze()
}

fn once(ring: &mut Ring, op: Op) -> io::Result<u32> {
    ring.submit(0, op);
    let mut done = Vec::new();
    let limit = clock::now() + Duration::from_secs(10);
    ring.wait(1, Some(limit), &mut done).unwrap();
    done.pop().expect("it ends in time").result
}

const SEAM: u64 = 64 << 10;

#[test]
fn metadata_apart_lies_behind_the_disk() {
    for backend in [Backend::Uring, Backend::Threads] {
        let scratch = Scratch::new("apart");
        // What is beyond the last whole block of the disk is nobody's.
        let disk = apart(&scratch, SEAM + 512, 32 << 10, false);
        assert_eq!(disk.size(), SEAM + (32 << 10));
        let external = disk.external().unwrap();
        assert_eq!(external.disk_bytes, SEAM);
        assert!(external.name.is_some(), "a file has an inode");
        let mut ring = Ring::new(Some(backend)).unwrap();
        // Over the seam, by each way to write: the ring, at once, and zeroing.
        for (offset, byte) in [(SEAM - 8192, 1), (SEAM - 4096, 2), (SEAM, 3)] {
            let write = Op::Write {
                disk: Arc::clone(&disk),
                offset,
                data: filled(byte, 8192),
                durable: byte == 3,
            };
            assert_eq!(once(&mut ring, write).unwrap(), 8192);
        }
        once(
            &mut ring,
            Op::Flush {
                disk: Arc::clone(&disk),
            },
        )
        .unwrap();
        disk.write_now(SEAM - 4096, &filled(4, 8192)).unwrap();
        let data = std::fs::read(scratch.path().join("data")).unwrap();
        let meta = std::fs::read(scratch.path().join("meta")).unwrap();
        let at = |index: u64| usize::try_from(index).unwrap();
        assert_eq!(block(&data, at(SEAM / 4096 - 2)), BTreeSet::from([1]));
        assert_eq!(block(&data, at(SEAM / 4096 - 1)), BTreeSet::from([4]));
        assert_eq!(data[at(SEAM)..], [0; 512]);
        assert_eq!(block(&meta, 0), BTreeSet::from([4]));
        assert_eq!(block(&meta, 1), BTreeSet::from([3]));
        let mut buf = Buf::new(12 << 10);
        disk.read_now(SEAM - 4096, &mut buf).unwrap();
        assert_eq!((buf[0], buf[4096], buf[8192]), (4, 4, 3));
        for hole in [true, false] {
            let zero = Op::Zero {
                disk: Arc::clone(&disk),
                offset: SEAM - 4096,
                len: 8192,
                hole,
            };
            once(&mut ring, zero).unwrap();
        }
        disk.read_now(SEAM - 4096, &mut buf).unwrap();
        assert_eq!((buf[0], buf[4096], buf[8192]), (0, 0, 3));
        drop(ring);
        drop(disk);
        let view = |name: &str| DiskView::open(&scratch.path().join(name)).unwrap();
        let both = view("data").with_metadata(view("meta"));
        both.read_now(SEAM - 4096, &mut buf).unwrap();
        assert_eq!((buf[0], buf[4096], buf[8192]), (0, 0, 3));
        assert_eq!(
            (both.size(), both.external()),
            (SEAM + (32 << 10), Some(external))
        );
    }
}

#[test]
fn both_devices_are_held_alone() {
    let scratch = Scratch::new("apart-held");
    let disk = apart(&scratch, SEAM, 32 << 10, false);
    for name in ["data", "meta"] {
        let again = Disk::open(&scratch.path().join(name), &OpenOptions::default());
        assert!(matches!(again, Err(OpenError::InUse { .. })), "{name}");
    }
    drop(disk);
    let same = OpenOptions {
        metadata: Some(scratch.path().join("data")),
        ..OpenOptions::default()
    };
    let twice = Disk::open(&scratch.path().join("data"), &same);
    assert!(matches!(twice, Err(OpenError::InUse { .. })));
    let missing = OpenOptions {
        metadata: Some(scratch.path().join("nowhere")),
        ..OpenOptions::default()
    };
    let alone = Disk::open(&scratch.path().join("data"), &missing);
    assert!(matches!(alone, Err(OpenError::Missing { .. })));
}

#[test]
fn either_device_fails_the_flush_and_its_own_writes() {
    use super::fault::{Fault, Faults};
    let scratch = Scratch::new("apart-faults");
    let disk = apart(&scratch, SEAM, 32 << 10, true);
    let mut ring = Ring::new(None).unwrap();
    let fault = scratch.path().join("fault");
    let shims = [fault.clone(), fault.join("metadata")];
    for (broken, at) in [(0, 0), (1, SEAM)] {
        Faults::all(Fault::Error).set(&shims[broken]).unwrap();
        let mut write = |offset| {
            let op = Op::Write {
                disk: Arc::clone(&disk),
                offset,
                data: filled(9, 4096),
                durable: true,
            };
            once(&mut ring, op)
        };
        assert!(write(at).is_err());
        assert!(write(SEAM - at).is_ok(), "the other one works");
        let flush = Op::Flush {
            disk: Arc::clone(&disk),
        };
        assert!(once(&mut ring, flush).is_err());
        Faults::NONE.set(&shims[broken]).unwrap();
    }
    // A durable write of the metadata is in its own journal only until it is done.
    drop(ring);
    drop(disk);
    for (name, dir) in [("data", &shims[0]), ("meta", &shims[1])] {
        let loss = power_loss(&scratch.path().join(name), dir, 1).unwrap();
        assert_eq!(loss.lost + loss.torn, 0, "{name}");
    }
}

#[test]
fn a_part_that_is_made_zeros_reads_as_zeros_and_nothing_else_does() {
    let mut bench = Bench::new("zero-now", 4 << 20);
    bench.write(0, 7, 4 << 20, true);
    bench.disk.zero_now(8192, 2 << 20).unwrap();
    bench.disk.sync_now().unwrap();
    bench.disk.write_zeros(3 << 20, (1 << 20) - 4096).unwrap();
    let mut read = Buf::zeroed(4 << 20);
    bench.disk.read_now(0, &mut read).unwrap();
    let zeros = [8192..8192 + (2 << 20), 3 << 20..(4 << 20) - 4096];
    for (at, byte) in read.iter().enumerate() {
        let zero = zeros.iter().any(|range| range.contains(&at));
        assert_eq!(*byte, if zero { 0 } else { 7 }, "byte {at}");
    }
}
