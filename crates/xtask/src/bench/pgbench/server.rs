//! A PostgreSQL server on a file system of its own, in a node's network namespace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::super::stats::Sample;
use crate::e2e::running::Running;
use crate::e2e::wait;
use crate::failure::{Context, Failure, Outcome};
use crate::shell;

/// The system user that PostgreSQL runs as (Debian's packages make it).
const USER: &str = "postgres";
/// A server answers, or has stopped, within this time.
const SERVER_MAX: Duration = Duration::from_secs(60);
/// The kernel lets go of a file system or a loop device within this time.
const FREE_MAX: Duration = Duration::from_secs(20);
/// Rows of the tables: 100,000 accounts and one branch for each. No fewer branches than clients, or these wait for each other.
const SCALE: &str = "16";
/// The same for every server. Commits wait for the disk, as by default; checkpoints are made between the runs, and nobody
/// tidies up while another server is measured.
const SETTINGS: [&str; 9] = [
    "listen_addresses=*",
    "unix_socket_directories=",
    "shared_buffers=64MB",
    "max_connections=60",
    "max_wal_size=1GB",
    "checkpoint_timeout=30min",
    "autovacuum=off",
    "log_min_messages=warning",
    "fsync=on",
];

/// Where a server's files are.
#[derive(Debug)]
pub(super) enum Disk {
    /// A block device of somebody else.
    Device(String),
    /// A loop device on a new file of so many bytes.
    File(PathBuf, u64),
}

/// A server, and the file system that goes with it. Dropping it stops the one and unmounts the other.
#[derive(Debug)]
pub(super) struct Server {
    netns: String,
    port: u16,
    running: Option<Running>,
    filesystem: FileSystem,
}

/// An ext4 file system that is mounted while this lives.
#[derive(Debug)]
struct FileSystem {
    mount: PathBuf,
    loop_device: Option<String>,
}

impl Server {
    /// A server with pgbench's tables.
    pub(super) fn create(name: &str, netns: &str, port: u16, disk: &Disk) -> Outcome<Self> {
        let mut server = Self::without_data(name, netns, port, disk)?;
        let data = server.data();
        let initdb = ["--auth=trust", "--encoding=UTF8", "--no-locale", "-D"];
        shell::capture(server.program("initdb")?.args(initdb).arg(&data))?;
        let access = data.join("pg_hba.conf");
        let mut rules = fs::read_to_string(&access).context("read pg_hba.conf")?;
        rules.push_str("host replication all 10.88.3.0/24 trust\n");
        fs::write(&access, rules).context("write pg_hba.conf")?;
        server.start()?;
        let mut init = server.client("pgbench");
        shell::capture(init.args(["-i", "-q", "-s", SCALE, "postgres"]))?;
        Ok(server)
    }

    /// A server that follows `primary`, which is at `address`; from now on that one's commits wait until they are durable
    /// on both.
    pub(super) fn follow(primary: &Self, address: &str, netns: &str, disk: &Disk) -> Outcome<Self> {
        let mut standby = Self::without_data("standby", netns, primary.port, disk)?;
        let (data, port) = (standby.data(), primary.port.to_string());
        let mut copy = standby.program("pg_basebackup")?;
        copy.args(["-h", address, "-p", &port, "-U", USER, "-X", "stream", "-R"]);
        shell::capture(copy.args(["-c", "fast", "-D"]).arg(&data))?;
        standby.start()?;
        primary.ask("alter system set synchronous_standby_names = '*'")?;
        primary.ask("select pg_reload_conf()")?;
        wait::until("the standby is a synchronous one", SERVER_MAX, || {
            let count = "select count(*) from pg_stat_replication where sync_state = 'sync'";
            (primary.ask(count).ok()?.trim() == "1").then_some(())
        })?;
        Ok(standby)
    }

    fn without_data(name: &str, netns: &str, port: u16, disk: &Disk) -> Outcome<Self> {
        let filesystem = FileSystem::create(name, disk)?;
        let server = Self {
            netns: netns.to_owned(),
            port,
            running: None,
            filesystem,
        };
        let mut install = Command::new("install");
        install.args(["-d", "-m", "700", "-o", USER, "-g", USER]);
        shell::capture(install.arg(server.data()))?;
        Ok(server)
    }

    fn data(&self) -> PathBuf {
        self.filesystem.mount.join("data")
    }

    fn start(&mut self) -> Outcome {
        let log = self.filesystem.mount.join("log");
        let log = fs::File::create(&log).context(format!("create {}", log.display()))?;
        let errors = log.try_clone().context("share a log")?;
        let mut postgres = self.program("postgres")?;
        postgres.arg("-D").arg(self.data());
        postgres.args(["-p", &self.port.to_string()]);
        for setting in SETTINGS {
            postgres.args(["-c", setting]);
        }
        postgres
            .stdin(Stdio::null())
            .stdout(Stdio::from(log))
            .stderr(Stdio::from(errors));
        self.running = Some(Running::start(&mut postgres)?);
        let answered = wait::until("PostgreSQL answers", SERVER_MAX, || {
            self.ask("select 1").ok().map(drop)
        });
        answered.map_err(|failure| failure.because(self.last_words()))
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.filesystem.mount.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("; ")
    }

    /// Transactions of so many clients for so long, after a checkpoint.
    pub(super) fn run(&self, clients: u32, seconds: u64) -> Outcome<Sample> {
        self.ask("checkpoint")?;
        let threads = clients.min(2).to_string();
        let (clients, seconds) = (clients.to_string(), seconds.to_string());
        let mut bench = self.client("pgbench");
        bench.args(["-c", &clients, "-j", &threads, "-T", &seconds, "postgres"]);
        let report = shell::capture(&mut bench)?;
        sample(&report).ok_or_else(|| {
            Failure::new("pgbench does not say how many transactions it saw").because(report)
        })
    }

    /// The answer to a question in SQL.
    pub(super) fn ask(&self, question: &str) -> Outcome<String> {
        shell::capture(
            self.client("psql")
                .args(["-qAtX", "-c", question, "postgres"]),
        )
    }

    /// A client on the server's own machine: only replication crosses the link.
    fn client(&self, program: &str) -> Command {
        let mut command = in_netns(&self.netns);
        command.args([program, "-h", "127.0.0.1", "-U", USER]);
        command.args(["-p", &self.port.to_string()]);
        command.env("PGCONNECT_TIMEOUT", "5");
        command
    }

    /// One of PostgreSQL's own programs, as its user.
    fn program(&self, name: &str) -> Outcome<Command> {
        let mut command = in_netns(&self.netns);
        command
            .arg("setpriv")
            .arg(format!("--reuid={USER}"))
            .arg(format!("--regid={USER}"))
            .arg("--init-groups")
            .arg(programs()?.join(name));
        command.current_dir("/");
        Ok(command)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        // SIGQUIT ends its children too, without a farewell to a standby that may be gone.
        let mut kill = Command::new("kill");
        drop(shell::capture(
            kill.args(["-QUIT", &running.pid().to_string()]),
        ));
        drop(wait::until("PostgreSQL has stopped", SERVER_MAX, || {
            (!running.is_alive()).then_some(())
        }));
    }
}

impl FileSystem {
    fn create(name: &str, disk: &Disk) -> Outcome<Self> {
        // Where PostgreSQL's user gets to; the cache folder may be behind a closed door.
        let mount =
            std::env::temp_dir().join(format!("backstay-bench-{}-{name}", std::process::id()));
        fs::create_dir_all(&mount).context(format!("create {}", mount.display()))?;
        let mut filesystem = Self {
            mount,
            loop_device: None,
        };
        let device = match disk {
            Disk::Device(device) => device.clone(),
            Disk::File(path, bytes) => {
                let device = attach(path, *bytes)?;
                filesystem.loop_device = Some(device.clone());
                device
            }
        };
        let features = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
        let mut mkfs = Command::new("mkfs.ext4");
        shell::capture(mkfs.args(["-q", "-F", "-E", features, &device]))?;
        let mut command = Command::new("mount");
        command.args(["-t", "ext4", "-o", "noatime", &device]);
        shell::capture(command.arg(&filesystem.mount))?;
        Ok(filesystem)
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        let unmounted = wait::until("the file system is unmounted", FREE_MAX, || {
            let mut umount = Command::new("umount");
            let done = shell::capture(umount.arg(&self.mount)).is_ok();
            (done || !is_mounted(&self.mount)).then_some(())
        });
        if let Err(failure) = unmounted {
            eprintln!("{failure}");
        }
        if let Some(device) = &self.loop_device
            && let Err(failure) = shell::capture(Command::new("losetup").args(["--detach", device]))
        {
            eprintln!("{failure}");
        }
        if let Err(error) = fs::remove_dir(&self.mount) {
            eprintln!("cannot remove {}: {error}", self.mount.display());
        }
    }
}

fn attach(path: &Path, bytes: u64) -> Outcome<String> {
    fs::File::create(path)
        .and_then(|file| file.set_len(bytes))
        .context(format!("make {}", path.display()))?;
    let mut losetup = Command::new("losetup");
    losetup.args(["--find", "--show", "--direct-io=on"]);
    Ok(shell::capture(losetup.arg(path))?.trim().to_owned())
}

fn is_mounted(place: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .any(|at| Path::new(at) == place)
}

/// A command in a network namespace, and in no other: `ip netns exec` would keep a copy of every mount.
pub(super) fn in_netns(netns: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{netns}")).arg("--");
    command
}

/// Directory of PostgreSQL's programs: Debian keeps them out of `PATH`, by version.
fn programs() -> Outcome<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut found: Vec<PathBuf> = versions
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("postgres").is_file())
        .collect();
    found.sort_unstable();
    found.pop().ok_or_else(|| {
        Failure::new("there is no PostgreSQL server")
            .because("/usr/lib/postgresql holds none")
            .hint("./test installs the programs that the checks need")
    })
}

/// Transactions per second and their mean latency, from pgbench's report.
fn sample(report: &str) -> Option<Sample> {
    let number = |start: &str| -> Option<f64> {
        let line = report.lines().find_map(|line| line.strip_prefix(start))?;
        line.split(' ').next()?.parse().ok()
    };
    let failed = number("number of failed transactions: ").unwrap_or(0.0);
    let (iops, mean_ms) = (number("tps = ")?, number("latency average = ")?);
    (iops > 0.0 && failed < 1.0).then_some(Sample {
        iops,
        bandwidth: 0.0,
        mean_us: mean_ms * 1e3,
        p99_us: 0.0,
        cpu_us: 0.0,
        hot: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_with_failed_transactions_is_of_no_use() {
        let good = "number of failed transactions: 0 (0.000%)\nlatency average = 2.5 ms\n\
             tps = 400.25 (without initial connection time)\n";
        let found = sample(good).unwrap();
        assert!((found.iops - 400.25).abs() < 1e-9);
        assert!((found.mean_us - 2500.0).abs() < 1e-9);
        assert!(sample(&good.replace(": 0 ", ": 3 ")).is_none());
        assert!(sample("aborted").is_none());
    }
}
