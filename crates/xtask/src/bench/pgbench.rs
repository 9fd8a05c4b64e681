//! PostgreSQL on a mirrored disk beside PostgreSQL's own synchronous replication, both over a link of one millisecond.
//!
//! Every contestant has a lab of its own, so that the machine is the same for all: one server, or a primary and its standby, in
//! the nodes' network namespaces, with ext4 on a block device. The link is the lab's mirror network, whose frames a process
//! carries over late; the kernel's own delay (netem) is not on every machine.

mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::rig::free_bytes;
use super::stats::{Figure, Sample, Verdict, median, ratio};
use super::{Line, Scale, Stand};
use crate::e2e::World;
use crate::e2e::lab::Lab;
use crate::failure::{Context, Failure, Outcome};
use crate::shell;
use server::{Disk, Server, in_netns};

/// All rows have names that begin with this.
pub(super) const NAME: &str = "pgbench";

/// Size of each volume: the tables, and what is written between two checkpoints.
const VOLUME_BYTES: u64 = 2 << 30;
/// Room for all of them, as far as they are filled.
const ROOM_BYTES: u64 = 10 << 30;
/// How late each frame is, in microseconds: with the way to the process that carries it and back, half a millisecond.
const LATE_US: &str = "450";
const CLIENTS: [u32; 2] = [1, 16];
/// Where servers listen; the one on a raw disk shares a namespace with another.
const PORT: u16 = 7000;
const RAW_PORT: u16 = 7001;

/// Who runs PostgreSQL, and on what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Flush,
    FlushTls,
    Write,
    WriteTls,
    Replicated,
    Raw,
}

/// The figures of all runs with one number of clients.
type Figures = BTreeMap<Who, Vec<f64>>;

/// A row of the table.
struct Row {
    name: &'static str,
    work: &'static str,
    ours: (Who, Who),
    theirs: Who,
    /// Floor and aim; a row without them tells a price.
    asked: Option<(f64, f64)>,
}

const ROWS: [Row; 3] = [
    Row {
        name: "flush",
        work: "`ack = \"flush\"`",
        ours: (Who::Flush, Who::FlushTls),
        theirs: Who::Replicated,
        asked: Some((0.8, 1.0)),
    },
    Row {
        name: "write",
        work: "`ack = \"write\"`",
        ours: (Who::Write, Who::WriteTls),
        theirs: Who::Replicated,
        asked: None,
    },
    Row {
        name: "raw",
        work: "`ack = \"flush\"`",
        ours: (Who::Flush, Who::FlushTls),
        theirs: Who::Raw,
        asked: None,
    },
];

impl Who {
    const OURS: [Self; 4] = [Self::Flush, Self::FlushTls, Self::Write, Self::WriteTls];
    const ALL: [Self; 6] = [
        Self::Flush,
        Self::FlushTls,
        Self::Write,
        Self::WriteTls,
        Self::Replicated,
        Self::Raw,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Flush => "flush",
            Self::FlushTls => "flush with TLS",
            Self::Write => "write",
            Self::WriteTls => "write with TLS",
            Self::Replicated => "PostgreSQL's replication",
            Self::Raw => "raw disk",
        }
    }

    /// Part of names of folders. None begins with another: a lab takes what lies below its folder for its own by the text of the path.
    const fn folder(self) -> &'static str {
        match self {
            Self::Flush => "pg-flush",
            Self::FlushTls => "pg-tls-flush",
            Self::Write => "pg-write",
            Self::WriteTls => "pg-tls-write",
            Self::Replicated => "pg-sync",
            Self::Raw => "pg-raw",
        }
    }

    /// `--ack` and `--tls` of its lab.
    const fn options(self) -> (&'static str, &'static str) {
        match self {
            Self::Flush | Self::Replicated | Self::Raw => ("flush", "off"),
            Self::FlushTls => ("flush", "on"),
            Self::Write => ("write", "off"),
            Self::WriteTls => ("write", "on"),
        }
    }
}

/// Everything that is up. Servers stop before labs go down, and those before their files are removed.
struct Stage {
    servers: Vec<(Who, Server)>,
    /// Of PostgreSQL's own replication.
    standby: Option<Server>,
    labs: Vec<(Who, Lab)>,
    dir: Folder,
}

/// A folder that is removed with everything in it.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Measures all rows.
pub(super) fn measure(
    stand: &Stand<'_>,
    scale: Scale,
    notes: &mut Vec<String>,
) -> Outcome<Vec<Line>> {
    println!("\n-- {NAME}");
    let world = &stand.disk;
    let room = free_bytes(&world.scratch)?;
    if room < ROOM_BYTES {
        let (need, have) = (ROOM_BYTES >> 20, room >> 20);
        return Err(Failure::new(format!("{NAME} needs {need} MiB"))
            .because(format!("{} has {have} MiB", world.scratch.display())));
    }
    let stage = Stage::set(world)?;
    notes.push(stage.round_trips()?);
    let mut lines = Vec::new();
    for clients in CLIENTS {
        let figures = stage.rounds(clients, scale)?;
        let told: Vec<String> = Who::ALL
            .iter()
            .map(|who| format!("{} {:.0}", who.name(), middle(&figures, *who)))
            .collect();
        notes.push(format!(
            "pgbench, {clients} clients, transactions per second: {}",
            told.join(", ")
        ));
        lines.extend(ROWS.iter().map(|row| line(row, clients, &figures)));
    }
    stage.end()?;
    Ok(lines)
}

impl Stage {
    /// First all labs, whose nodes copy the mounts that there are; then everything that mounts.
    fn set(world: &World) -> Outcome<Self> {
        let dir = world
            .scratch
            .join(format!("backstay-bench-{}-pgbench", std::process::id()));
        fs::create_dir_all(&dir).context(format!("create {}", dir.display()))?;
        let mut stage = Self {
            servers: Vec::new(),
            standby: None,
            labs: Vec::new(),
            dir: Folder(dir),
        };
        for who in Who::OURS.into_iter().chain([Who::Replicated]) {
            let lab = lab(world, who)?;
            stage.labs.push((who, lab));
        }
        for at in 0..stage.labs.len() {
            stage.serve(at)?;
        }
        Ok(stage)
    }

    /// Starts what runs in a lab.
    fn serve(&mut self, at: usize) -> Outcome {
        let (who, lab) = &self.labs[at];
        let who = *who;
        let (active, standby) = (lab.node("active")?, lab.node("standby")?);
        if who != Who::Replicated {
            let disk = Disk::Device(lab.device()?);
            let server = Server::create(who.folder(), &active.netns, PORT, &disk)?;
            self.servers.push((who, server));
            return Ok(());
        }
        let primary = Server::create(who.folder(), &active.netns, PORT, &self.file("primary"))?;
        let address = mirror_address(&active.name);
        let file = self.file("standby");
        self.standby = Some(Server::follow(&primary, address, &standby.netns, &file)?);
        self.servers.push((who, primary));
        let file = self.file("raw");
        let raw = Server::create(Who::Raw.folder(), &active.netns, RAW_PORT, &file)?;
        self.servers.push((Who::Raw, raw));
        Ok(())
    }

    fn file(&self, name: &str) -> Disk {
        Disk::File(self.dir.0.join(name), VOLUME_BYTES)
    }

    /// What a small packet needs there and back on each link.
    fn round_trips(&self) -> Outcome<String> {
        let mut all = Vec::new();
        for (_, lab) in &self.labs {
            let (active, standby) = (lab.node("active")?, lab.node("standby")?);
            let mut ping = in_netns(&active.netns);
            ping.args(["ping", "-q", "-n", "-c", "50", "-i", "0.02"]);
            let said = shell::capture(ping.arg(mirror_address(&standby.name)))?;
            let mean = mean_ms(&said).ok_or_else(|| {
                Failure::new("ping does not tell a round trip").because(said.trim())
            })?;
            all.push(format!("{mean:.2}"));
        }
        let all = all.join(", ");
        Ok(format!(
            "pgbench: mean round trip of each contestant's link, by ping: {all} ms"
        ))
    }

    /// Every server in turn, in another order each round; the first round is not counted.
    fn rounds(&self, clients: u32, scale: Scale) -> Outcome<Figures> {
        let mut figures = Figures::new();
        for round in 0..=scale.rounds {
            let seconds = if round == 0 { 1 } else { scale.seconds };
            for turn in 0..self.servers.len() {
                let (who, server) = &self.servers[(round + turn) % self.servers.len()];
                let sample = server.run(clients, seconds)?;
                if round > 0 {
                    figures.entry(*who).or_default().push(sample.iops);
                    tell(*who, clients, &sample);
                }
            }
        }
        Ok(figures)
    }

    fn end(self) -> Outcome {
        let Self {
            servers,
            standby,
            labs,
            dir,
        } = self;
        drop((servers, standby));
        let down = labs.into_iter().try_for_each(|(_, lab)| lab.down());
        drop(dir);
        down
    }
}

fn tell(who: Who, clients: u32, sample: &Sample) {
    println!(
        "pgbench, {clients:>2} clients  {:<24} {:>7.0}/s  mean {:>7.2} ms",
        who.name(),
        sample.iops,
        sample.mean_us / 1e3
    );
}

/// A lab whose mirror network is slow from here on.
fn lab(world: &World, who: Who) -> Outcome<Lab> {
    let size = format!("{}K", VOLUME_BYTES / 1024);
    let (ack, tls) = who.options();
    let mut args = vec!["--workload", "none", "--plain-disks", "--size", &size];
    // Many programs share the machine: time limits that no scheduling delay exceeds. They are on no write's way.
    args.extend(["--profile", "cloud", "--front-end", "fuse-loop"]);
    args.extend(["--tls", tls, "--ack", ack, "--slow-us", LATE_US]);
    let lab = Lab::up(world, &format!("bench-{}", who.folder()), &args)?;
    lab.fault("mirror", "slow")?;
    Ok(lab)
}

/// A node's address in the lab's mirror network.
fn mirror_address(node: &str) -> &'static str {
    if node == "node-a" {
        "10.88.3.11"
    } else {
        "10.88.3.12"
    }
}

/// The second figure of ping's last line, `rtt min/avg/max/mdev = …`.
fn mean_ms(said: &str) -> Option<f64> {
    let line = said.lines().find(|line| line.starts_with("rtt "))?;
    line.split(" = ").nth(1)?.split('/').nth(1)?.parse().ok()
}

fn middle(figures: &Figures, who: Who) -> f64 {
    median(figures.get(&who).cloned().unwrap_or_default())
}

fn line(row: &Row, clients: u32, figures: &Figures) -> Line {
    let of = |who| figures.get(&who).cloned().unwrap_or_default();
    let theirs = of(row.theirs);
    let judged = ratio(&of(row.ours.0), &theirs);
    let (floor, aim, verdict) = match row.asked {
        Some((floor, aim)) => (
            format!("≥ {floor}"),
            format!("≥ {aim}"),
            Verdict::of(judged, floor, aim),
        ),
        None => ("–".to_owned(), "–".to_owned(), Verdict::NotAsked),
    };
    let some = if clients == 1 { "client" } else { "clients" };
    Line {
        name: format!("{NAME}-{clients}-{}", row.name),
        work: format!(
            "PostgreSQL transactions, {clients} {some}, round trip 1 ms, {}",
            row.work
        ),
        against: row.theirs.name().to_owned(),
        ours: Figure::Iops.show(middle(figures, row.ours.0)),
        theirs: Figure::Iops.show(median(theirs.clone())),
        plain: format!("{judged:.2}"),
        tls: format!("{:.2}", ratio(&of(row.ours.1), &theirs)),
        floor,
        aim,
        verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_round_trip_is_the_second_figure() {
        let said = "50 packets\nrtt min/avg/max/mdev = 0.95/1.04/2.20/0.10 ms\n";
        assert!((mean_ms(said).unwrap() - 1.04).abs() < 1e-9);
        assert_eq!(mean_ms("100% packet loss"), None);
    }
}
