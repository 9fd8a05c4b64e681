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
const METHOD: &str = r#"Contestants of a setup are up together and take turns, in another order each round. A row's *ratio* is the median over the
rounds of ours ÷ theirs within a round, so a machine whose speed drifts does not decide; the columns *ours* and *theirs* are
medians. Floors and aims hold for the column *ratio*, in which our mirror link is not encrypted, as the others' are not;
*with TLS* is the same with the default, TLS 1.3. What limits each row is told in [performance.md](performance.md).

- Ours is two nodes in network namespaces of their own that replicate over TCP through a bridge, made by `backstay lab`.
  The lab's fault shim is left out: it copies every write to a journal first, and is in no production path.
- *QEMU quorum* is `qemu-storage-daemon` with the quorum driver over a local file and a second daemon's export on a Unix
  socket: no network, no intent log, no checksums, nothing that survives a crash of the first daemon. Its secondary over TCP
  is several times slower in the release that was measured, and is not taken for comparison. Files are opened with
  `cache.direct=on,aio=native`, the fastest of its three ways here, in memory as on disk.
- *own, standby away* is our engine with one copy: it marks what it writes. In the row *async* the standby's disk is in
  memory: nobody waits for it, and on one disk its writes would be counted against the active's, which two servers' never are.
- Both sides are loaded by the same fio over NBD on a Unix socket, or through a loop device with direct I/O. Volumes have
  512 MiB and are written once before. Random work goes over 40 MiB, whose regions stay in the intent log (its default bound
  is 64 MiB); the row *16 GiB* is the opposite: all of a sparse volume, the same number of writes for everybody, and almost
  every write waits for the intent log of both nodes. Sequential work goes over 256 MiB. *In memory* are files in tmpfs.
- Processor time is user and system time of all processes of a contestant, daemons that keep the cluster included, divided by
  the writes. fio's own is not in it.

### PostgreSQL

- The rows *pgbench* compare PostgreSQL on our mirror, its standby knowing nothing of PostgreSQL, with a primary and a standby of
  PostgreSQL's own synchronous replication (`synchronous_standby_names = '*'`, `synchronous_commit = on`: a commit waits until
  it is durable on both), and with one server on a disk that is not replicated. All run at the same time and are loaded in
  turn, for each number of clients; the first round is not counted.
- Every server has an ext4 file system of its own on a block device, in files on the same disk: ours on FUSE and loop with a
  mirror behind it, the others on a loop device with direct I/O. Settings are the same for all: `fsync` and full-page writes on,
  64 MiB of shared buffers, no autovacuum, and a checkpoint before each run instead of during one. Tables are of scale 16, so
  that 16 clients do not wait for one branch. pgbench runs beside its server: only replication crosses the link.
- The link is the mirror network of a lab. It is slow because a process takes each frame from the switch and passes it on 450 µs
  later; with its own work a small packet needs about 1 ms there and back, and each contestant's link is measured by ping.
  PostgreSQL's replication runs in a lab of its own over that lab's link, whose mirror is idle.
- Rows without a floor tell the price of something: of `ack = "write"`, and of replication itself beside a raw disk.

### Bytes after a crash

- The row *crash-bytes* counts bytes, not time: nothing is interleaved, and DRBD may run in virtual machines without hardware
  support, which show no speed.
- Both get the same writes of the same fio: 6000 random blocks of 4 KiB over 5 GiB, and then slower ones, 100 a second, while
  the active crashes. The other node takes over and writes nothing, and the first comes back.
- DRBD 8.4, the one in Linux, runs in two guests with Debian's kernel that are connected by a network cable; protocol C, and
  otherwise its defaults. The crash is the end of the virtual machine, killed. Its figure is what the survivor's kernel says
  it will copy when the other is back: the extents of 4 MiB in the activity log, 1237 at most.
- Ours is a lab on the machine itself, not in such a guest: there, behind the lab's fault shim, its first sync of a volume of
  that size was not done after 220 s (DRBD's is left out by telling it that the empty disks are equal). The crash is a node
  killed with everything on it. Its figure is what the event `resync-done` says was sent: the regions in the intent logs of
  both nodes, 64 MiB at most by default.
"#;

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
        format!("PostgreSQL: {}", version("pgbench", "--version")),
    ] {
        let _ = writeln!(text, "- {line}");
    }
    let _ = write!(
        text,
        "\n{}\n## How it was measured\n\n{METHOD}\n### What the runs told besides\n\n",
        table.markdown()
    );
    for note in notes {
        let _ = writeln!(text, "- {note}");
    }
    fs::write(project.root.join(FILE), text).context(format!("write {FILE}"))?;
    println!("wrote {FILE}");
    Ok(())
}

fn version(program: &str, argument: &str) -> String {
    let said = shell::capture(Command::new(program).arg(argument)).unwrap_or_default();
    said.lines().next().unwrap_or("unknown").to_owned()
}
