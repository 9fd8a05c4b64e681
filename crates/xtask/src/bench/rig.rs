//! Contestants: something that serves a volume, and the processes that do it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::fio::{self, Load, Stop};
use super::stats::Sample;
use crate::e2e::World;
use crate::e2e::lab::{Lab, Node};
use crate::e2e::running::Running;
use crate::e2e::wait;
use crate::failure::{Context, Failure, Outcome};
use crate::shell;

/// A daemon serves within this time.
const START_MAX: Duration = Duration::from_secs(10);
/// Processor time in `/proc` is told in hundredths of a second.
const TICK_US: f64 = 10_000.0;

/// What fio is pointed at.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// An NBD URI.
    Nbd(String),
    /// A block device.
    Device(String),
}

/// A volume that is served.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) target: Target,
    pub(crate) by: Server,
    /// The standby's disk, if it is not beside the active's.
    _elsewhere: Option<Elsewhere>,
}

/// A file in memory that a node of a lab has for a disk; it goes with the rig.
#[derive(Debug)]
struct Elsewhere(PathBuf);

/// Who serves.
#[derive(Debug)]
pub(crate) enum Server {
    Lab {
        lab: Lab,
        active: Node,
        standby: Node,
    },
    Daemons(Daemons),
}

/// Other people's daemons, in a directory that goes with them.
#[derive(Debug)]
pub(crate) struct Daemons {
    running: Vec<Running>,
    loop_device: Option<String>,
    dir: PathBuf,
}

/// How one of our own volumes is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ours {
    pub(crate) name: &'static str,
    pub(crate) size_bytes: u64,
    pub(crate) tls: bool,
    pub(crate) mode: &'static str,
    /// The standby is away: one copy.
    pub(crate) alone: bool,
    /// A loop device on the FUSE file, not the NBD socket.
    pub(crate) fuse: bool,
    /// The standby's disk is in memory, wherever the active's is.
    pub(crate) standby_in_memory: bool,
}

impl Rig {
    /// A cluster of our own.
    pub(crate) fn ours(world: &World, how: Ours) -> Outcome<Self> {
        let size = format!("{}K", how.size_bytes / 1024);
        let tls = if how.tls { "on" } else { "off" };
        let mut args = vec!["--workload", "none", "--plain-disks", "--size", &size];
        args.extend(["--tls", tls, "--mode", how.mode]);
        if how.fuse {
            args.extend(["--front-end", "fuse-loop"]);
        }
        let lab = Lab::up(world, &format!("bench-{}", how.name), &args)?;
        let (active, standby) = (lab.node("active")?, lab.node("standby")?);
        if how.alone {
            lab.fault(&standby.name, "kill")?;
            lab.wait_in_set(&active.name, 1)?;
        }
        let elsewhere = how
            .standby_in_memory
            .then(|| Elsewhere::take(how.name, &lab, &active, &standby))
            .transpose()?;
        let target = if how.fuse {
            Target::Device(lab.device()?)
        } else {
            Target::Nbd(active.nbd.clone())
        };
        let by = Server::Lab {
            lab,
            active,
            standby,
        };
        Ok(Self {
            target,
            by,
            _elsewhere: elsewhere,
        })
    }

    /// QEMU's quorum of a local file and one that another daemon exports on a Unix socket.
    pub(crate) fn quorum(world: &World, size_bytes: u64) -> Outcome<Self> {
        let mut daemons = Daemons::in_dir(world, "quorum")?;
        let (near, far) = (
            daemons.file("a", size_bytes)?,
            daemons.file("b", size_bytes)?,
        );
        let (near_socket, far_socket) = (daemons.dir.join("a.sock"), daemons.dir.join("b.sock"));
        daemons.start(&[
            disk(&far),
            "--blockdev=driver=raw,node-name=top,file=disk".to_owned(),
            format!(
                "--nbd-server=addr.type=unix,addr.path={}",
                far_socket.display()
            ),
            "--export=type=nbd,id=e,node-name=top,writable=on,name=b".to_owned(),
        ])?;
        daemons.wait_for(&far_socket)?;
        daemons.start(&[
            disk(&near),
            "--blockdev=driver=raw,node-name=near,file=disk".to_owned(),
            format!(
                "--blockdev=driver=nbd,node-name=far,server.type=unix,server.path={},export=b",
                far_socket.display()
            ),
            "--blockdev=driver=quorum,node-name=top,children.0=near,children.1=far,\
             vote-threshold=2"
                .to_owned(),
            format!(
                "--nbd-server=addr.type=unix,addr.path={}",
                near_socket.display()
            ),
            "--export=type=nbd,id=e,node-name=top,writable=on,name=q".to_owned(),
        ])?;
        daemons.wait_for(&near_socket)?;
        let uri = format!("nbd+unix:///q?socket={}", near_socket.display());
        Ok(Self {
            target: Target::Nbd(uri),
            by: Server::Daemons(daemons),
            _elsewhere: None,
        })
    }

    /// A loop device on the FUSE export of QEMU's storage daemon: one copy.
    pub(crate) fn fuse_export(world: &World, size_bytes: u64) -> Outcome<Self> {
        let mut daemons = Daemons::in_dir(world, "fuse")?;
        let (file, mount) = (daemons.file("a", size_bytes)?, daemons.dir.join("export"));
        fs::write(&mount, "").context(format!("write {}", mount.display()))?;
        daemons.start(&[
            disk(&file),
            "--blockdev=driver=raw,node-name=top,file=disk".to_owned(),
            format!(
                "--export=type=fuse,id=e,node-name=top,mountpoint={},writable=on",
                mount.display()
            ),
        ])?;
        wait::until("the export has its size", START_MAX, || {
            (fs::metadata(&mount).ok()?.len() == size_bytes).then_some(())
        })?;
        let mut losetup = Command::new("losetup");
        let device = shell::capture(
            losetup
                .args(["--find", "--show", "--direct-io=on"])
                .arg(&mount),
        )?;
        let device = device.trim().to_owned();
        daemons.loop_device = Some(device.clone());
        Ok(Self {
            target: Target::Device(device),
            by: Server::Daemons(daemons),
            _elsewhere: None,
        })
    }

    /// One run, with what it cost.
    pub(crate) fn run(&self, load: &Load, stop: Stop) -> Outcome<Sample> {
        let cpu = self.cpu_us();
        let cold = self.cold_writes();
        let (mut sample, operations) = fio::run(load, stop, &self.target)?;
        sample.cpu_us = (self.cpu_us() - cpu) / operations;
        sample.hot = cold
            .zip(self.cold_writes())
            .map(|(before, after)| 1.0 - (after - before) / operations);
        Ok(sample)
    }

    /// Processor time that the contestant's processes have used, in microseconds.
    fn cpu_us(&self) -> f64 {
        let ticks = match &self.by {
            Server::Lab {
                active, standby, ..
            } => processes()
                .filter(|pid| {
                    let namespace = fs::read_link(format!("/proc/{pid}/ns/net")).ok();
                    [active, standby]
                        .iter()
                        .any(|node| same_netns(&namespace, &node.netns))
                })
                .map(|pid| ticks(&pid))
                .sum::<f64>(),
            Server::Daemons(daemons) => {
                let pids = daemons.running.iter().map(|one| one.pid().to_string());
                pids.map(|pid| ticks(&pid)).sum()
            }
        };
        ticks * TICK_US
    }

    /// Writes so far that had to wait for the intent log, by the active's own word.
    fn cold_writes(&self) -> Option<f64> {
        match &self.by {
            Server::Lab { lab, active, .. } => lab.cold_writes(&active.name).ok(),
            Server::Daemons(_) => None,
        }
    }

    /// Ends it, and says so when that fails.
    pub(crate) fn end(self) -> Outcome {
        match self.by {
            Server::Lab { lab, .. } => lab.down(),
            Server::Daemons(daemons) => {
                drop(daemons);
                Ok(())
            }
        }
    }
}

impl Elsewhere {
    /// Moves the standby's disk while the standby is away.
    fn take(name: &str, lab: &Lab, active: &Node, standby: &Node) -> Outcome<Self> {
        let disk = lab.dir.join(&standby.name).join("disk");
        let file = format!("backstay-bench-{}-{name}", std::process::id());
        let moved = Self(Path::new("/dev/shm").join(file));
        lab.fault(&standby.name, "kill")?;
        lab.wait_in_set(&active.name, 1)?;
        shell::capture(
            Command::new("cp")
                .arg("--sparse=always")
                .arg(&disk)
                .arg(&moved.0),
        )?;
        fs::remove_file(&disk)
            .and_then(|()| std::os::unix::fs::symlink(&moved.0, &disk))
            .context(format!("move {}", disk.display()))?;
        lab.heal(&standby.name)?;
        lab.wait_in_sync(&active.name)?;
        Ok(moved)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

impl Daemons {
    fn in_dir(world: &World, name: &str) -> Outcome<Self> {
        let dir = world
            .scratch
            .join(format!("backstay-bench-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).context(format!("create {}", dir.display()))?;
        Ok(Self {
            running: Vec::new(),
            loop_device: None,
            dir,
        })
    }

    fn file(&self, name: &str, bytes: u64) -> Outcome<PathBuf> {
        let path = self.dir.join(name);
        fs::File::create(&path)
            .and_then(|file| file.set_len(bytes))
            .context(format!("make {}", path.display()))?;
        Ok(path)
    }

    fn start(&mut self, args: &[String]) -> Outcome {
        let mut daemon = Command::new("qemu-storage-daemon");
        self.running.push(Running::start(daemon.args(args))?);
        Ok(())
    }

    fn wait_for(&self, socket: &Path) -> Outcome {
        let what = format!("{} is there", socket.display());
        wait::until(&what, START_MAX, || socket.exists().then_some(()))
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        if let Some(device) = &self.loop_device
            && let Err(failure) = shell::capture(Command::new("losetup").args(["--detach", device]))
        {
            eprintln!("{failure}");
        }
        // The kernel gives a loop device's file back a moment later, and ends the export's mount with its daemon.
        drop(wait::until("the export is free", START_MAX, || {
            let device = self.loop_device.as_deref().unwrap_or_default();
            let said = shell::capture(Command::new("losetup").args(["--list", "--noheadings"]));
            (device.is_empty() || !said.ok()?.contains(device)).then_some(())
        }));
        self.running.clear();
        drop(shell::capture(
            Command::new("umount")
                .args(["--quiet", "--lazy"])
                .arg(self.dir.join("export")),
        ));
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("cannot remove {}: {error}", self.dir.display());
        }
    }
}

/// The file as QEMU opens it fastest, of the three ways that it has: past the page cache, by the kernel's own queue.
fn disk(path: &Path) -> String {
    format!(
        "--blockdev=driver=file,node-name=disk,filename={},cache.direct=on,aio=native",
        path.display()
    )
}

fn processes() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

fn same_netns(namespace: &Option<PathBuf>, name: &str) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let inode = fs::metadata(Path::new("/run/netns").join(name)).map(|meta| meta.ino());
    match (namespace, inode) {
        (Some(link), Ok(inode)) => link.to_string_lossy() == format!("net:[{inode}]"),
        (None, _) | (_, Err(_)) => false,
    }
}

/// User and system time of a process, in ticks; zero of one that is gone.
fn ticks(pid: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let number = |at: usize| fields.split_whitespace().nth(at)?.parse::<f64>().ok();
    number(11)
        .zip(number(12))
        .map_or(0.0, |(user, system)| user + system)
}

/// Room that is left where a path is, in bytes.
pub(crate) fn free_bytes(path: &Path) -> Outcome<u64> {
    let mut df = Command::new("df");
    let said = shell::capture(df.args(["--output=avail", "--block-size=1"]).arg(path))?;
    let number = said
        .lines()
        .nth(1)
        .and_then(|line| line.trim().parse().ok());
    number.ok_or_else(|| Failure::new(format!("df tells nothing about {}", path.display())))
}
