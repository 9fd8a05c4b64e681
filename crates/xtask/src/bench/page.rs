//! `docs/benchmarks.md`.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::Scale;
use crate::evidence::machine;
use crate::failure::{Context, Outcome};
use crate::project::Project;
use crate::shell;
use crate::table::Table;

const FILE: &str = "docs/benchmarks.md";

/// What does not change from run to run.
const METHOD: &str = "\
Contestants of a setup are up together and take turns, in another order each round. A row's *ratio* is the median over the
rounds of ours ÷ theirs within a round, so a machine whose speed drifts does not decide; the columns *ours* and *theirs* are
medians. Floors and aims hold for the column *ratio*, in which our mirror link is not encrypted, as the others' are not;
*with TLS* is the same with the default, TLS 1.3. What limits each row is told in [performance.md](performance.md).

- Ours is two nodes in network namespaces of their own that replicate over TCP through a bridge, made by `backstay lab`.
  The lab's fault shim is left out: it copies every write to a journal first, and is in no production path.
- *QEMU quorum* is `qemu-storage-daemon` with the quorum driver over a local file and a second daemon's export on a Unix
  socket: no network, no intent log, no checksums, nothing that survives a crash of the first daemon. Its secondary over TCP
  is several times slower in the release that was measured, and is not taken for comparison. Files are opened with
  `cache.direct=on,aio=native`, the fastest of its three ways here, in memory as on disk.
- *own, standby away* is our engine with one copy: it marks what it writes.
- Both sides are loaded by the same fio over NBD on a Unix socket, or through a loop device with direct I/O. Volumes have
  512 MiB and are written once before. Random work goes over 40 MiB, whose regions stay in the intent log (its default bound
  is 64 MiB); the row *16 GiB* is the opposite: all of a sparse volume, the same number of writes for everybody, and almost
  every write waits for the intent log of both nodes. Sequential work goes over 256 MiB. *In memory* are files in tmpfs.
- Processor time is user and system time of all processes of a contestant, daemons that keep the cluster included, divided by
  the writes. fio's own is not in it.
";

const ABSENT: &str = "\
Not in this table: PostgreSQL over a link of 1 ms, and bytes resynced after a crash beside DRBD. They need other machinery
than this command has.
";

/// Writes the page.
pub(super) fn write(project: &Project, scale: Scale, table: &Table, notes: &[String]) -> Outcome {
    let date = shell::capture(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let mut text = "# Benchmarks of the mirror\n\n".to_owned();
    for line in [
        "repeat with: `cargo xtask bench mirror`".to_owned(),
        format!("rounds: {}, of {} s each", scale.rounds, scale.seconds),
        format!("commit: `{}`, {}", machine::commit(project)?, date.trim()),
        format!("machine: {}", machine::describe()),
        format!("fio: {}", version("fio", "--version")),
        format!("QEMU: {}", version("qemu-storage-daemon", "--version")),
    ] {
        let _ = writeln!(text, "- {line}");
    }
    let _ = write!(
        text,
        "\n{}\n## How it was measured\n\n{METHOD}\n",
        table.markdown()
    );
    for note in notes {
        let _ = writeln!(text, "- {note}");
    }
    let _ = write!(text, "\n{ABSENT}");
    fs::write(project.root.join(FILE), text).context(format!("write {FILE}"))?;
    println!("wrote {FILE}");
    Ok(())
}

fn version(program: &str, argument: &str) -> String {
    let said = shell::capture(Command::new(program).arg(argument)).unwrap_or_default();
    said.lines().next().unwrap_or("unknown").to_owned()
}
