//! What DRBD copies after its active node lost its power: two guests, the power of one taken away by killing its QEMU.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::kernel::{self, Kernel};
use super::machine::{self, End, Machine, Plan};
use crate::e2e::resync::CrashWork;
use crate::e2e::wait;
use crate::failure::{Context, Failure, Outcome};
use crate::project::Project;
use crate::shell;

const SCRIPT: &str = include_str!("drbd.sh");
const PACKAGE: &str = "drbd-utils";
/// A guest boots, writes, and sees the other go within this time.
const STEP_MAX: Duration = Duration::from_secs(420);
const SOCKET_MAX: Duration = Duration::from_secs(20);
const MEMORY_MIB: u32 = 1024;

/// Where one round's files are.
struct Stand<'a> {
    kernel: &'a Kernel,
    dir: &'a Path,
    package: &'a Path,
    work: CrashWork,
}

/// One round: bytes that the surviving node found to be copied.
pub(crate) fn bytes_after_crash(project: &Project, work: CrashWork) -> Outcome<u64> {
    let kernel = kernel::prepare(project)?;
    let package = package(project)?;
    let dir = machine::scratch(&project.cache)?;
    let stand = Stand {
        kernel: &kernel,
        dir: &dir,
        package: &package,
        work,
    };
    let found = stand.round();
    fs::remove_dir_all(&dir).context(format!("remove {}", dir.display()))?;
    found
}

impl Stand<'_> {
    fn round(&self) -> Outcome<u64> {
        fs::write(self.dir.join("drbd.sh"), SCRIPT).context("write drbd.sh")?;
        for node in ["active", "peer"] {
            let path = self.disk(node);
            // Behind the volume, room for DRBD's own notes.
            fs::File::create(&path)
                .and_then(|file| file.set_len(self.work.span_bytes + (16 << 20)))
                .context(format!("make {}", path.display()))?;
        }
        let mut peer = self.start("peer", "peer", "on")?;
        wait::until("the network cable is there", SOCKET_MAX, || {
            self.cable().exists().then_some(())
        })?;
        let mut active = self.start("active", "active", "off")?;
        match active.follow(STEP_MAX, |line| line.contains("DRBD-WROTE"))? {
            End::Line => drop(active),
            End::Script(code) => return Err(ended("active", code)),
        }
        let _returned = self.start("return", "active", "off")?;
        let found = Cell::new(None);
        let end = peer.follow(STEP_MAX, |line| {
            let kib = line
                .strip_prefix("DRBD-KIB ")
                .and_then(|n| n.parse::<u64>().ok());
            found.set(found.get().or(kib));
            found.get().is_some()
        })?;
        match (end, found.get()) {
            (End::Line, Some(kib)) => Ok(1024 * kib),
            (End::Script(code), _) => Err(ended("peer", code)),
            (End::Line, None) => Err(Failure::new("the peer does not say what it copies")),
        }
    }

    fn start(&self, role: &str, node: &str, server: &str) -> Outcome<Machine> {
        let script = self.dir.join("drbd.sh").display().to_string();
        let package = self.package.display().to_string();
        let (writes, span) = (
            self.work.writes.to_string(),
            self.work.span_bytes.to_string(),
        );
        let command = [
            "sh".to_owned(),
            script,
            role.to_owned(),
            package,
            writes,
            span,
        ];
        let drive = format!(
            "file={},if=virtio,format=raw,cache=writeback",
            self.disk(node).display()
        );
        let cable = format!(
            "stream,id=cable,server={server},addr.type=unix,addr.path={}",
            self.cable().display()
        );
        let address = if node == "active" { "01" } else { "02" };
        let card = format!("virtio-net-pci,netdev=cable,mac=02:88:77:00:00:{address}");
        let hardware = ["-drive", &drive, "-netdev", &cable, "-device", &card].map(str::to_owned);
        let plan = Plan {
            kernel: self.kernel,
            dir: self.dir,
            command: &command,
            hardware: &hardware,
            memory_mib: MEMORY_MIB,
            netns: None,
        };
        Machine::start(role, &plan)
    }

    fn disk(&self, node: &str) -> PathBuf {
        self.dir.join(format!("{node}.disk"))
    }

    fn cable(&self) -> PathBuf {
        self.dir.join("cable")
    }
}

fn ended(node: &str, code: i32) -> Failure {
    Failure::new(format!("DRBD's {node} node gave up"))
        .because(format!("its script ended with {code}"))
        .hint("its last lines say why")
}

/// Debian's package of DRBD's programs, in the cache folder; guests unpack it for themselves.
fn package(project: &Project) -> Outcome<PathBuf> {
    let dir = project.cache.join("guest").join(PACKAGE);
    let found = || -> Option<PathBuf> {
        let mut files = fs::read_dir(&dir).ok()?.flatten().map(|entry| entry.path());
        files.find(|path| path.extension().is_some_and(|end| end == "deb"))
    };
    if let Some(path) = found() {
        return Ok(path);
    }
    fs::create_dir_all(&dir).context(format!("create {}", dir.display()))?;
    shell::capture(shell::command("apt-get", &dir).args(["download", "-q", PACKAGE]))?;
    found().ok_or_else(|| Failure::new(format!("apt-get did not bring {PACKAGE}")))
}
