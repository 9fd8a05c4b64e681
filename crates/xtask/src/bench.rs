//! `cargo xtask bench mirror`: our mirror beside what people use instead, interleaved in one run.
//!
//! Contestants of a setup are up together and take turns; a row's figure is the median over the rounds of the ratio within
//! one round, so that a machine whose speed drifts spoils nothing. Ours always replicates over TCP between network namespaces.

mod crash;
mod fio;
mod page;
mod pgbench;
mod resync;
mod rig;
mod rows;
mod stats;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::e2e::{Depth, World};
use crate::failure::{Context, Failure, Outcome};
use crate::project::Project;
use crate::table::Table;
use fio::{Load, Stop};
use rig::Rig;
use rows::{Backing, ROWS, Row, SETUPS, Setup};
use stats::{Sample, Verdict, median, ratio};

/// Rounds and lengths.
const ROUNDS: usize = 5;
const SECONDS: u64 = 3;
const QUICK_ROUNDS: usize = 3;
const QUICK_SECONDS: u64 = 1;

/// `cargo xtask bench …`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The mirror against its peers; writes docs/benchmarks.md unless only a part was asked for
    Mirror(Mirror),
}

#[derive(Debug, clap::Args)]
struct Mirror {
    /// Only rows whose name contains this
    #[arg(long)]
    row: Option<String>,
    /// Short runs, to see whether a change helps
    #[arg(long)]
    quick: bool,
    /// Rounds of each load
    #[arg(long)]
    rounds: Option<usize>,
    /// Measure this program instead of building one
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// Who a sample is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Column {
    /// Ours, the mirror link in the clear: what peers without encryption are compared with.
    Plain,
    /// Ours, the mirror link encrypted.
    Tls,
    /// Whom we are compared with.
    Peer,
}

/// Lengths of everything.
#[derive(Debug, Clone, Copy)]
struct Scale {
    rounds: usize,
    seconds: u64,
}

/// All samples of one load in one setup, in the order of the rounds.
type Samples = BTreeMap<Column, Vec<Sample>>;

/// What measures rows that are not loads of fio on a volume.
type Special = fn(&Stand<'_>, Scale, &mut Vec<String>) -> Outcome<Vec<Line>>;

/// Where such rows are measured.
struct Stand<'a> {
    project: &'a Project,
    memory: World,
    disk: World,
}

/// A line that is ready to be shown.
struct Line {
    name: String,
    work: String,
    against: String,
    ours: String,
    theirs: String,
    plain: String,
    tls: String,
    floor: String,
    aim: String,
    verdict: Verdict,
}

/// Runs what was asked for and prints the table.
pub(crate) fn run(project: &Project, args: &Args) -> Outcome {
    let What::Mirror(mirror) = &args.what;
    let scale = mirror.scale();
    let world = match &mirror.binary {
        Some(binary) => World::of(project, Depth::Long, binary.clone()),
        None => World::build(project, Depth::Long)?,
    };
    let disk = project.cache.join("bench");
    fs::create_dir_all(&disk).context(format!("create {}", disk.display()))?;
    let on_disk = World {
        backstay: world.backstay.clone(),
        scratch: disk,
        logs: world.logs.clone(),
        depth: world.depth,
        is_guest: false,
    };
    let mut lines = Vec::new();
    let mut notes = Vec::new();
    let mut failed = Vec::new();
    for setup in &SETUPS {
        let wanted: Vec<&Row> = ROWS
            .iter()
            .filter(|row| row.setup == setup.name && mirror.wants(row.name))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let world = match setup.backing {
            Backing::Memory => &world,
            Backing::Disk => &on_disk,
        };
        if let Err(failure) = measure(world, setup, &wanted, scale, &mut lines, &mut notes) {
            eprintln!("{failure}");
            notes.push(format!("{}: not measured, it failed", setup.name));
            failed.push(setup.name);
        }
    }
    let stand = Stand {
        project,
        memory: world,
        disk: on_disk,
    };
    for (name, measure) in [
        (resync::NAME, resync::measure as Special),
        (pgbench::NAME, pgbench::measure),
        (crash::NAME, crash::measure),
    ] {
        if !mirror.wants(name) {
            continue;
        }
        match measure(&stand, scale, &mut notes) {
            Ok(more) => lines.extend(more),
            Err(failure) => {
                eprintln!("{failure}");
                notes.push(format!("{name}: not measured, it failed"));
                failed.push(name);
            }
        }
    }
    let table = table(&lines);
    print!("\n{}", table.text());
    notes.iter().for_each(|note| println!("{note}"));
    if mirror.row.is_none() && !mirror.quick && mirror.binary.is_none() {
        page::write(project, scale, &table, &notes)?;
    }
    judge(&lines, &failed)
}

/// Success only if everything was measured, and every floor is reached.
fn judge(lines: &[Line], failed: &[&str]) -> Outcome {
    let below = lines.iter().filter(|l| l.verdict == Verdict::Below);
    let below: Vec<&str> = below.map(|l| l.name.as_str()).collect();
    if !failed.is_empty() {
        return Err(Failure::new("not everything could be measured").because(failed.join(", ")));
    }
    match (lines.is_empty(), below.is_empty()) {
        (true, _) => Err(Failure::new("no row has such a name")),
        (false, true) => Ok(()),
        (false, false) => Err(Failure::new("not every floor is reached").because(below.join(", "))),
    }
}

impl Mirror {
    fn scale(&self) -> Scale {
        let (rounds, seconds) = if self.quick {
            (QUICK_ROUNDS, QUICK_SECONDS)
        } else {
            (ROUNDS, SECONDS)
        };
        Scale {
            rounds: self.rounds.unwrap_or(rounds).max(1),
            seconds,
        }
    }

    fn wants(&self, row: &str) -> bool {
        self.row.as_ref().is_none_or(|part| row.contains(part))
    }
}

/// Brings a setup's contestants up, runs the loads that the rows need, and adds the rows' lines.
fn measure(
    world: &World,
    setup: &Setup,
    rows: &[&Row],
    scale: Scale,
    lines: &mut Vec<Line>,
    notes: &mut Vec<String>,
) -> Outcome {
    println!("\n-- {}", setup.name);
    let room = rig::free_bytes(&world.scratch)?;
    if room < setup.room_bytes {
        let (need, have) = (setup.room_bytes >> 20, room >> 20);
        return Err(
            Failure::new(format!("setup {} needs {need} MiB", setup.name))
                .because(format!("{} has {have} MiB", world.scratch.display())),
        );
    }
    let rigs = (setup.build)(world)?;
    if let Some(bytes) = setup.fill_bytes {
        for (_, rig) in &rigs {
            rig.run(&Load::fill(bytes), Stop::Once)?;
        }
    }
    for load in setup.loads {
        let of_load: Vec<&&Row> = rows.iter().filter(|row| row.load == load.name).collect();
        if of_load.is_empty() {
            continue;
        }
        let samples = rounds(&rigs, load, scale)?;
        notes.extend(hit_rate(setup.name, load, &samples));
        lines.extend(of_load.iter().map(|row| line(row, &samples)));
    }
    rigs.into_iter().try_for_each(|(_, rig)| rig.end())
}

/// Every contestant in turn, in another order each round; the first round is not counted.
fn rounds(rigs: &[(Column, Rig)], load: &Load, scale: Scale) -> Outcome<Samples> {
    let mut samples = Samples::new();
    for round in 0..=scale.rounds {
        let seconds = if round == 0 { 1 } else { scale.seconds };
        for turn in 0..rigs.len() {
            let (column, rig) = &rigs[(round + turn) % rigs.len()];
            let sample = rig.run(load, rows::stop(load, seconds))?;
            if round > 0 {
                samples.entry(*column).or_default().push(sample);
            }
        }
    }
    for (column, of_it) in &samples {
        let middle = |f: fn(&Sample) -> f64| median(of_it.iter().map(f).collect());
        println!(
            "{:<11} {:<6} {:>8.0}/s {:>6.0} MB/s  mean {:>7.1} µs  p99 {:>7.1} µs  cpu {:>6.1} µs",
            load.name,
            format!("{column:?}").to_lowercase(),
            middle(|s| s.iops),
            middle(|s| s.bandwidth) / 1e6,
            middle(|s| s.mean_us),
            middle(|s| s.p99_us),
            middle(|s| s.cpu_us),
        );
    }
    Ok(samples)
}

fn hit_rate(setup: &str, load: &Load, samples: &Samples) -> Option<String> {
    let of_plain = samples.get(&Column::Plain)?;
    let hot: Vec<f64> = of_plain.iter().filter_map(|sample| sample.hot).collect();
    (load.is_write() && !hot.is_empty()).then(|| {
        let percent = 100.0 * median(hot);
        let name = load.name;
        format!(
            "{setup}, {name}: {percent:.1} % of the writes found their region in the intent log"
        )
    })
}

fn line(row: &Row, samples: &Samples) -> Line {
    let of = |column| -> Vec<f64> {
        let found = samples.get(&column).into_iter().flatten();
        found.map(|sample| row.figure.of(sample)).collect()
    };
    let (plain, tls, peer) = (of(Column::Plain), of(Column::Tls), of(Column::Peer));
    let judged = ratio(&plain, &peer);
    let encrypted = if tls.is_empty() {
        "–".to_owned()
    } else {
        format!("{:.2}", ratio(&tls, &peer))
    };
    let bound = if row.figure.more_is_better() {
        "≥"
    } else {
        "≤"
    };
    Line {
        name: row.name.to_owned(),
        work: row.work.to_owned(),
        against: row.against.to_owned(),
        ours: row.figure.show(median(plain)),
        theirs: row.figure.show(median(peer)),
        plain: format!("{judged:.2}"),
        tls: encrypted,
        floor: format!("{bound} {}", row.floor),
        aim: format!("{bound} {}", row.aim),
        verdict: Verdict::of(judged, row.floor, row.aim),
    }
}

fn table(lines: &[Line]) -> Table {
    let mut table = Table::new(&[
        "row", "work", "against", "ours", "theirs", "ratio", "with TLS", "floor", "aim", "reached",
    ]);
    for line in lines {
        table.row(vec![
            line.name.clone(),
            line.work.clone(),
            line.against.clone(),
            line.ours.clone(),
            line.theirs.clone(),
            line.plain.clone(),
            line.tls.clone(),
            line.floor.clone(),
            line.aim.clone(),
            line.verdict.word().to_owned(),
        ]);
    }
    table
}
