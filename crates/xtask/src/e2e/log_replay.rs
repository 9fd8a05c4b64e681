//! Every prefix of what a daemon wrote to its disk recovers.
//!
//! Below the active's disk lies QEMU's `blklogwrites`, which notes every write and flush in order. The standby is cast out and
//! its disk stays as it is, so the promise can be checked in each prefix, without the daemon: it attaches, neither generation nor
//! epoch goes back, and each block that differs from the standby's is in the bitmap or the intent log. One prefix that ends with a
//! flush becomes the disk of the real daemon: it serves exactly that, and the standby ends equal to it.

mod offline;
mod write_log;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use self::offline::Named;
use self::write_log::Entry;
use super::lab::{Lab, Node};
use super::running::Running;
use super::{Depth, World, wait};
use crate::failure::{Context, Failure, Outcome};
use crate::shell;
use crate::table::{Table, grouped};

const BLOCK: usize = 4096;
const SECTOR: usize = 512;
/// A FUSE export is there within this time.
const EXPORT_MAX: Duration = Duration::from_secs(20);

/// What the daemon writes, as arguments of fio.
const LOADS: [(&str, &[&str]); 3] = [
    (
        "random 4 KiB, a flush every 16",
        &["--bs=4k", "--number_ios=2500", "--fsync=16"],
    ),
    (
        "random 4 to 64 KiB, a flush every 8",
        &["--bsrange=4k-64k", "--number_ios=900", "--fsync=8"],
    ),
    (
        "random 4 KiB, depth 32, no flush",
        &["--bs=4k", "--number_ios=4000", "--iodepth=32"],
    ),
];

/// The same for every change: the log overflows into the bitmap once.
const SHORT: [(&str, &[&str]); 1] = [(
    "random 4 KiB, a flush every 16",
    &["--bs=4k", "--number_ios=900", "--fsync=16"],
)];

pub(crate) fn every_prefix_recovers(world: &World) -> Outcome {
    let mut table = Table::new(&[
        "load",
        "writes",
        "flushes",
        "prefixes",
        "largest difference",
        "served",
    ]);
    let loads = match world.depth {
        Depth::Long => &LOADS[..],
        Depth::Once => &SHORT[..],
    };
    for (number, (name, fio)) in (1..).zip(loads) {
        let found = one_load(world, fio, number)?;
        let figures = [
            found.writes,
            found.flushes,
            found.prefixes,
            found.differs_max,
            found.served,
        ];
        let figures = figures.map(grouped);
        table.row([vec![(*name).to_owned()], figures.to_vec()].concat());
    }
    print!("{}", table.text());
    println!("prefixes: the start of the log up to each entry, and to the middle of each write");
    println!(
        "largest difference: blocks that were not as on the standby; served: the entry that the real daemon went on from"
    );
    Ok(())
}

/// What one log held.
#[derive(Debug, Default)]
struct Found {
    writes: u64,
    flushes: u64,
    prefixes: u64,
    differs_max: u64,
    served: u64,
}

fn one_load(world: &World, fio: &[&str], number: usize) -> Outcome<Found> {
    let lab = Lab::up(
        world,
        "log-replay",
        &["--workload", "none", "--size", "256M"],
    )?;
    let (active, standby) = (lab.node("active")?, lab.node("standby")?);
    write(&active, &["--bs=64k", "--number_ios=200"], &lab.dir)?;
    lab.wait_in_sync(&active.name)?;
    lab.fault(&standby.name, "kill")?;
    lab.wait_in_set(&active.name, 1)?;
    lab.fault(&active.name, "kill")?;
    let disk = lab.dir.join(&active.name).join("disk");
    let base = read(&disk)?;
    let there = read(&lab.dir.join(&standby.name).join("disk"))?;
    let logged = Logged::under(&disk, &lab.dir)?;
    lab.heal(&active.name)?;
    lab.wait_active(&active.name)?;
    write(&active, fio, &lab.dir)?;
    lab.fault(&active.name, "kill")?;
    let (log, end) = logged.end()?;
    let entries = write_log::parse(&log)?;
    let (found, image) = replay(base, &there, &entries, number)?;
    if found.replayed != end {
        return Err(Failure::new(
            "the whole log is not what the disk held at the end",
        ));
    }
    fs::write(&disk, &image).context("write a prefix as the disk")?;
    serve(&lab, &active, &standby, &image)?;
    lab.down()?;
    Ok(found.figures)
}

/// The outcome of a replay.
struct Replayed {
    figures: Found,
    /// The disk at the end of the log.
    replayed: Vec<u8>,
}

/// Replays and checks every prefix; returns the disk as of a flush in the later part, too.
fn replay(
    base: Vec<u8>,
    there: &[u8],
    entries: &[Entry<'_>],
    number: usize,
) -> Outcome<(Replayed, Vec<u8>)> {
    let mut state = State::new(base, there)?;
    let flushes: Vec<usize> = (0..entries.len()).filter(|n| entries[*n].flush).collect();
    // In the second half, so that the last start of the daemon is in it.
    let pick = flushes.len() / 2 + number * 7919 % (flushes.len() / 2).max(1);
    let keep = *flushes
        .get(pick)
        .ok_or_else(|| Failure::new("the log has no flush"))?;
    let mut kept = None;
    let mut figures = Found::default();
    for (at, entry) in entries.iter().enumerate() {
        if entry.flush {
            figures.flushes += 1;
        } else {
            figures.writes += 1;
            let half = entry.data.len() / SECTOR / 2 * SECTOR;
            if half > 0 {
                state.apply(entry.offset, &entry.data[..half], there)?;
                figures.prefixes += 1;
                let middle = format!("in the middle of entry {at}, {entry}");
                state
                    .check()
                    .map_err(|why| Failure::new(middle).because(why))?;
            }
            state.apply(entry.offset, entry.data, there)?;
        }
        figures.prefixes += 1;
        state
            .check()
            .map_err(|why| Failure::new(format!("after entry {at}, {entry}")).because(why))?;
        let differs = u64::try_from(state.differs.len()).unwrap_or(0);
        figures.differs_max = figures.differs_max.max(differs);
        if at == keep {
            figures.served = u64::try_from(at).unwrap_or(0);
            kept = Some(state.image.clone());
        }
    }
    let kept_image = kept.ok_or_else(|| Failure::new("no prefix was kept"))?;
    let replayed = Replayed {
        figures,
        replayed: state.image,
    };
    Ok((replayed, kept_image))
}

/// The disk as of one prefix.
struct State {
    image: Vec<u8>,
    data_end: usize,
    /// Blocks that are not as on the standby.
    differs: BTreeSet<u64>,
    floor: (wire::Generation, wire::Epoch),
}

impl State {
    fn new(image: Vec<u8>, there: &[u8]) -> Outcome<Self> {
        let named = Named::of(&image).ok_or_else(|| Failure::new("the base has no superblock"))?;
        let data_end = usize::try_from(named.data_bytes()).unwrap_or(0);
        let floor = offline::attach(&image)?;
        let mut state = Self {
            image,
            data_end,
            differs: BTreeSet::new(),
            floor,
        };
        state.compare(0..data_end / BLOCK, there);
        Ok(state)
    }

    fn compare(&mut self, blocks: std::ops::Range<usize>, there: &[u8]) {
        for block in blocks {
            let at = block * BLOCK..(block + 1) * BLOCK;
            let id = u64::try_from(block).unwrap_or(u64::MAX);
            if self.image.get(at.clone()) == there.get(at) {
                self.differs.remove(&id);
            } else {
                self.differs.insert(id);
            }
        }
    }

    fn apply(&mut self, offset: usize, data: &[u8], there: &[u8]) -> Outcome {
        let end = offset.saturating_add(data.len());
        let place = self.image.get_mut(offset..end);
        let place = place.ok_or_else(|| Failure::new("the log writes behind the disk's end"))?;
        place.copy_from_slice(data);
        let (first, last) = (offset.min(self.data_end), end.min(self.data_end));
        self.compare(first / BLOCK..last.div_ceil(BLOCK), there);
        Ok(())
    }

    fn check(&mut self) -> Outcome {
        let now = offline::attach(&self.image)?;
        if now.0 < self.floor.0 || now.1 < self.floor.1 {
            let what = format!("{now:?} after {:?}", self.floor);
            return Err(Failure::new("generation or epoch went back").because(what));
        }
        self.floor = now;
        let named = Named::of(&self.image).ok_or_else(|| Failure::new("no superblock is whole"))?;
        match self.differs.iter().find(|block| !named.has(**block)) {
            None => Ok(()),
            Some(block) => Err(Failure::new(format!(
                "block {block} differs from the standby's, and the metadata does not name it"
            ))),
        }
    }
}

/// The real daemon goes on from a prefix.
fn serve(lab: &Lab, active: &Node, standby: &Node, image: &[u8]) -> Outcome {
    lab.heal(&active.name)?;
    lab.wait_active(&active.name)?;
    let copy = lab.dir.join("served");
    shell::run(Command::new("nbdcopy").arg(&active.nbd).arg(&copy))?;
    let served = read(&copy)?;
    if image.get(..served.len()) != Some(&served[..]) {
        return Err(Failure::new(
            "the daemon serves something else than its disk held",
        ));
    }
    lab.heal(&standby.name)?;
    lab.wait_in_sync(&active.name)?;
    lab.compare_disks(u64::try_from(served.len()).unwrap_or(0))
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    fs::read(path).context(format!("read {}", path.display()))
}

/// Random writes, read back and verified at the end.
fn write(active: &Node, args: &[&str], dir: &Path) -> Outcome {
    let mut fio = Command::new("fio");
    fio.args([
        "--name=load",
        "--ioengine=nbd",
        "--rw=randwrite",
        "--size=256M",
    ])
    .args(["--verify=crc32c", "--randrepeat=0", "--output=fio.log"])
    .args(args)
    .arg(format!("--uri={}", active.nbd))
    .current_dir(dir);
    shell::run(&mut fio)
}

/// A disk with `blklogwrites` below it.
struct Logged {
    /// The daemon, and what makes a file of its export.
    running: Option<(Running, Running)>,
    at: PathBuf,
    data: PathBuf,
    log: PathBuf,
}

impl Logged {
    /// Moves the disk away, and puts an export of it in its place. By NBD: the FUSE export of QEMU 7.2 takes the next request
    /// into the buffer of the one that it is still logging.
    fn under(disk: &Path, dir: &Path) -> Outcome<Self> {
        let (data, log) = (dir.join("logged.data"), dir.join("logged.log"));
        fs::rename(disk, &data).context("move the disk away")?;
        for file in [disk, &log] {
            fs::write(file, b"").context(format!("make {}", file.display()))?;
        }
        let bytes = fs::metadata(&data).context("look at the disk")?.len();
        let mut daemon = Command::new("qemu-storage-daemon");
        let file = |name: &str, path: &Path| {
            format!("driver=file,node-name={name},filename={}", path.display())
        };
        daemon.args([
            "--blockdev",
            &file("data", &data),
            "--blockdev",
            &file("log", &log),
        ]);
        let top = "driver=blklogwrites,node-name=top,file=data,log=log,log-super-update-interval=1";
        let socket = dir.join("logged.sock");
        let listen = format!("addr.type=unix,addr.path={}", socket.display());
        daemon.args(["--blockdev", top, "--nbd-server", &listen]);
        daemon.args(["--export", "type=nbd,id=export,node-name=top,writable=on"]);
        let daemon = Running::start(&mut daemon)?;
        wait::until("the disk is exported", EXPORT_MAX, || {
            socket.exists().then_some(())
        })?;
        let uri = format!("nbd+unix:///top?socket={}", socket.display());
        let file = Running::start(Command::new("nbdfuse").arg(disk).arg(uri))?;
        let logged = Self {
            running: Some((daemon, file)),
            at: disk.to_owned(),
            data,
            log,
        };
        wait::until("the export is a file", EXPORT_MAX, || {
            (fs::metadata(disk).ok()?.len() == bytes).then_some(())
        })?;
        Ok(logged)
    }

    /// Takes the export away; the log, and what the disk held at the end.
    fn end(mut self) -> Outcome<(Vec<u8>, Vec<u8>)> {
        shell::run(Command::new("umount").arg(&self.at))?;
        if let Some((daemon, file)) = self.running.take() {
            // The file's program ends with its mount.
            drop(file);
            daemon.terminate()?;
        }
        Ok((read(&self.log)?, read(&self.data)?))
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        if self.running.take().is_some() {
            drop(shell::run(
                Command::new("umount").arg("--lazy").arg(&self.at),
            ));
        }
    }
}
