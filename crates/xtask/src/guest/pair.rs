//! Two guests are the nodes of a cluster, the witness and a client are beside them: the active's power is cut.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::kernel::{self, Kernel};
use super::machine::{self, Machine, Plan};
use super::rows::ADDRESS;
use crate::e2e::running::Running;
use crate::e2e::{Depth, World, wait};
use crate::failure::{Context, Failure, Outcome};
use crate::project::Project;
use crate::shell;
use crate::table::Table;

/// The scenarios: name, front end, file system, size of the volume in MiB.
const CASES: [(&str, &str, &str, u64); 2] = [
    ("pair_ext4_on_ublk_loses_power", "ublk", "ext4", 64),
    ("pair_xfs_on_nbd_loses_power", "nbd", "xfs", 320),
];
/// Room for the mirror's metadata on each disk, in MiB.
const ROOM_MIB: u64 = 16;
const MEMORY_MIB: u32 = 1024;
/// Two guests boot and agree within this time.
const READY_MAX: Duration = Duration::from_secs(240);
/// The other takes over within this time.
const TAKEOVER_MAX: Duration = Duration::from_secs(120);
/// Rows that have to be there before, and to come after.
const ROWS: usize = 50;

/// True if only scenarios of this kind are asked for.
pub(super) fn is_meant(only: &[String]) -> bool {
    !only.is_empty()
        && only
            .iter()
            .all(|part| chosen(std::slice::from_ref(part)).next().is_some())
}

fn chosen(
    only: &[String],
) -> impl Iterator<Item = &'static (&'static str, &'static str, &'static str, u64)> {
    CASES.iter().filter(move |(name, ..)| {
        only.is_empty() || only.iter().any(|part| name.contains(part.as_str()))
    })
}

/// Runs the scenarios.
pub(super) fn run(project: &Project, only: &[String]) -> Outcome {
    let world = World::build(project, Depth::Long)?;
    let kernel = kernel::prepare(project)?;
    let mut table = Table::new(&["scenario", "found", "result"]);
    let mut failed = 0;
    for (name, front_end, fstype, mib) in chosen(only) {
        println!("\n-- {name}");
        let pair = Pair::new(project, &world, front_end, fstype, *mib);
        let (found, result) = match pair.and_then(|pair| pair.lose_power(&kernel)) {
            Ok(found) => (found, "ok"),
            Err(failure) => {
                eprintln!("{failure}\nagain: cargo xtask guest {name}");
                failed += 1;
                (String::new(), "FAILED")
            }
        };
        table.row(vec![(*name).into(), found, result.into()]);
    }
    print!("\n{}", table.text());
    match failed {
        0 => Ok(()),
        _ => Err(Failure::new(format!("{failed} scenarios failed"))),
    }
}

/// What the cluster is made of. Dropping it removes its network and its files.
struct Pair {
    dir: PathBuf,
    netns: String,
    backstay: PathBuf,
    own: PathBuf,
}

impl Drop for Pair {
    fn drop(&mut self) {
        drop(shell::capture(Command::new("ip").args([
            "netns",
            "del",
            &self.netns,
        ])));
        drop(fs::remove_dir_all(&self.dir));
    }
}

impl Pair {
    fn new(
        project: &Project,
        world: &World,
        front_end: &str,
        fstype: &str,
        mib: u64,
    ) -> Outcome<Self> {
        let pair = Self {
            dir: machine::scratch(&project.cache)?,
            netns: format!("bs-guest-{}", std::process::id()),
            backstay: world.backstay.clone(),
            own: std::env::current_exe().context("find this program")?,
        };
        pair.make_network()?;
        pair.make_disks(fstype, mib)?;
        let disk = |a: &str, b: &str| format!("{{ node-a = \"{a}\", node-b = \"{b}\" }}");
        let [a, b] = ["node-a", "node-b"].map(|node| pair.disk(node).display().to_string());
        pair.write(
            "native.toml",
            &pair.configuration(&disk(&a, &b), front_end, fstype, mib),
        )?;
        let text = pair.configuration(&disk("/dev/vda", "/dev/vda"), front_end, fstype, mib);
        pair.write("backstay.toml", &text)?;
        pair.backstay("witness", &["init", "--out"], Some(&pair.dir))?;
        for (node, extra) in [("node-a", None), ("node-b", Some("--empty"))] {
            let create = ["mirror", "create", "--node", node];
            let create: Vec<&str> = create.into_iter().chain(extra).collect();
            pair.backstay(node, &create, None)?;
        }
        Ok(pair)
    }

    fn make_network(&self) -> Outcome {
        let netns = self.netns.as_str();
        shell::capture(Command::new("ip").args(["netns", "add", netns]))?;
        for line in [
            "link set lo up",
            "link add br0 type bridge",
            "addr add 10.77.0.9/24 dev br0",
            "link set br0 up",
            "tuntap add tap-a mode tap",
            "tuntap add tap-b mode tap",
            "link set tap-a master br0 up",
            "link set tap-b master br0 up",
        ] {
            shell::capture(Command::new("ip").args(["-n", netns]).args(line.split(' ')))?;
        }
        Ok(())
    }

    fn disk(&self, node: &str) -> PathBuf {
        self.dir.join(format!("{node}.disk"))
    }

    fn make_disks(&self, fstype: &str, mib: u64) -> Outcome {
        let size = (mib + ROOM_MIB) << 20;
        let set_size = |node: &str| {
            let path = self.disk(node);
            File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .and_then(|file| file.set_len(size))
                .context(format!("make {}", path.display()))
        };
        set_size("node-a")?;
        set_size("node-b")?;
        let disk = self.disk("node-a").display().to_string();
        if fstype == "xfs" {
            let data = format!("file,name={disk},size={}", mib << 20);
            shell::capture(Command::new("mkfs.xfs").args(["-q", "-f", "-K", "-d", &data]))?;
            return set_size("node-a");
        }
        let blocks = ((mib << 20) / 4096).to_string();
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args([
            "-q",
            "-F",
            "-b",
            "4096",
            "-E",
            "nodiscard,lazy_itable_init=0",
        ]);
        shell::capture(mkfs.args([&disk, &blocks])).map(drop)
    }

    fn configuration(&self, disk: &str, front_end: &str, fstype: &str, mib: u64) -> String {
        let node = |name: &str, ip: &str| {
            format!(
                "[[node]]\nname = \"{name}\"\nservice = \"{ip}\"\nmirror = \"{ip}\"\nheartbeat = [\"{ip}\"]\n\n"
            )
        };
        format!(
            "cluster = \"guests\"\nprofile = \"cloud\"\n\n[register]\nkind = \"embedded\"\n\n{}{}\
             [[node]]\nname = \"witness\"\nrole = \"witness\"\nheartbeat = [\"10.77.0.9\"]\n\n\
             [[group]]\nname = \"db\"\n\n\
             [[group.resource]]\nkind = \"mirror\"\nname = \"data\"\ndisk = {disk}\nsize = \"{mib}MiB\"\n\
             front_end = \"{front_end}\"\n\n\
             [[group.resource]]\nkind = \"filesystem\"\nmirror = \"data\"\nmount = \"/srv/rows\"\nfstype = \"{fstype}\"\n\n\
             [[group.resource]]\nkind = \"exec\"\nname = \"rows\"\nstart = [\"/usr/bin/env\", \"HOME=/root\", \"{}\", \"guest\", \"--serve-rows\", \"/srv/rows\"]\n\n\
             [[group.resource]]\nkind = \"address\"\nip = \"{ADDRESS}\"\nprefix = 32\ndriver = \"l2\"\n",
            node("node-a", "10.77.0.1"),
            node("node-b", "10.77.0.2"),
            self.own.display(),
        )
    }

    fn write(&self, name: &str, text: &str) -> Outcome {
        let path = self.dir.join(name);
        fs::write(&path, text).context(format!("write {}", path.display()))
    }

    /// Runs the program for `node` with the disks as this machine sees them.
    fn backstay(&self, node: &str, args: &[&str], last: Option<&Path>) -> Outcome {
        let mut command = Command::new(&self.backstay);
        command
            .arg("--state")
            .arg(self.dir.join(node))
            .args(args)
            .args(last);
        shell::capture(command.arg("--config").arg(self.dir.join("native.toml"))).map(drop)
    }

    fn start_guest(&self, kernel: &Kernel, node: &str, ip: &str) -> Outcome<Machine> {
        let tap = format!("tap-{}", &node[5..]);
        let mac = format!("52:54:00:77:00:0{}", &ip[ip.len() - 1..]);
        let drive = format!(
            "file={},if=virtio,format=raw,cache=none",
            self.disk(node).display()
        );
        let hardware = [
            "-drive".to_owned(),
            drive,
            "-netdev".to_owned(),
            format!("tap,id=n,ifname={tap},script=no,downscript=no"),
            "-device".to_owned(),
            format!("virtio-net-pci,netdev=n,mac={mac}"),
        ];
        let state = self.dir.join(node).display().to_string();
        let line = format!(
            "ip addr add {ip}/24 dev eth0; ip link set eth0 up; mkdir -p /srv/rows /state; \
             cp -r {state}/pki /state/; {} --state /state run --config {} --node {node}",
            self.backstay.display(),
            self.dir.join("backstay.toml").display(),
        );
        let plan = Plan {
            kernel,
            dir: &self.dir,
            command: &[line],
            hardware: &hardware,
            memory_mib: MEMORY_MIB,
            netns: Some(&self.netns),
        };
        Machine::start(node, &plan)
    }

    fn beside(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns]).arg(program);
        command
    }

    /// What the witness says of the group.
    fn group(&self) -> Option<Value> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--fail", "--max-time", "5", "--unix-socket"])
            .arg(self.dir.join("witness/run/api.sock"))
            .arg("http://backstay/api/v1/status");
        let status: Value = serde_json::from_str(&shell::capture(&mut curl).ok()?).ok()?;
        Some(status["groups"][0].clone())
    }

    fn rows(&self) -> usize {
        let journal = fs::read_to_string(self.dir.join("journal")).unwrap_or_default();
        journal.lines().count()
    }

    fn lose_power(&self, kernel: &Kernel) -> Outcome<String> {
        let mut witness = self.beside(&self.backstay);
        witness
            .arg("--state")
            .arg(self.dir.join("witness"))
            .args(["run", "--node", "witness"]);
        let log = File::create(self.dir.join("witness.log")).context("create a log")?;
        let errors = log.try_clone().context("create a log")?;
        witness
            .arg("--config")
            .arg(self.dir.join("backstay.toml"))
            .stdout(log)
            .stderr(errors);
        let _witness = Running::start(&mut witness)?;
        let mut guests = vec![
            ("node-a", self.start_guest(kernel, "node-a", "10.77.0.1")?),
            ("node-b", self.start_guest(kernel, "node-b", "10.77.0.2")?),
        ];
        let mut client = self.beside(&self.own);
        client
            .args(["guest", "--add-rows"])
            .arg(self.dir.join("journal"));
        let client = Running::start(&mut client)?;
        let ready = wait::until("rows flow and the group can fail over", READY_MAX, || {
            let group = self.group()?;
            let both = group["in_sync"].as_array()?.len() == 2;
            (both && self.rows() >= ROWS).then_some(group)
        });
        let group = ready.map_err(|failure| self.explain(failure, &mut guests))?;
        let active = group["active"].as_str().unwrap_or_default().to_owned();
        println!("{} rows; the power of {active} is cut", self.rows());
        guests.retain(|(node, _)| *node != active);
        let (before, cut) = (self.rows(), Instant::now());
        let back = wait::until("rows flow again", TAKEOVER_MAX, || {
            (self.rows() > before + 1).then(|| cut.elapsed())
        });
        let back = back.map_err(|failure| self.explain(failure, &mut guests))?;
        wait::until("some more rows", TAKEOVER_MAX, || {
            (self.rows() > before + ROWS).then_some(())
        })?;
        drop(client);
        let mut find = self.beside(&self.own);
        let said = shell::capture(
            find.args(["guest", "--find-rows"])
                .arg(self.dir.join("journal")),
        )?;
        print!("{said}");
        Ok(format!(
            "{}; rows again after {} ms",
            said.trim(),
            back.as_millis()
        ))
    }

    /// The last words of the guests.
    fn explain(&self, failure: Failure, guests: &mut [(&str, Machine)]) -> Failure {
        for (node, guest) in guests {
            println!("-- last of {node}");
            guest.drain();
        }
        let group = self.group().unwrap_or(Value::Null);
        failure.because(format!("{} rows; the witness says {group}", self.rows()))
    }
}
