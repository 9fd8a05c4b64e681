//! Resources on real parts of the kernel: control groups, network namespaces, loop devices, a keeper process.

use super::*;
use crate::config;
use crate::config::model::{Exec, Filesystem, Resource};
use crate::run::daemon::{Event, ResourceEvent};
use host::cgroup::Cgroup;
use host::loopdev::{Attach, LoopDevice};
use host::mount::mounted_at;
use host::netlink::route::Routes;
use host::process::Launcher;
use rustix::thread::UnshareFlags;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;

const SETTLE: Duration = Duration::from_secs(20);
const GROUP: GroupId = GroupId(0);
const PROGRAM: u8 = 1;
const ADDRESS: u8 = 2;

/// Not a test by itself: what the launcher is in tests. Its order comes through a socket.
#[test]
fn launcher() {
    let input = rustix::fs::fstat(std::io::stdin()).map(|stat| stat.st_mode);
    if !input.is_ok_and(|mode| rustix::fs::FileType::from_raw_mode(mode).is_socket()) {
        return;
    }
    let _failed = host::process::run_launcher();
    std::process::exit(127);
}

/// Not a test by itself: what the keeper is in tests.
#[test]
fn keeper() {
    let (Some(group), Some(socket)) = (variable("GROUP"), variable("SOCKET")) else {
        return;
    };
    host::keeper::serve(&group, Path::new(&socket)).unwrap();
}

fn variable(name: &str) -> Option<String> {
    std::env::var(format!("BACKSTAY_TEST_{name}")).ok()
}

fn play(role: &str) -> Vec<String> {
    let test = format!("run::resources::tests::{role}");
    ["--exact", &test, "--nocapture", "--test-threads=1"]
        .map(str::to_owned)
        .to_vec()
}

/// A node with its files; several daemons may run on it, one after the other.
struct Place {
    directory: PathBuf,
    config: Arc<Config>,
}

/// One daemon's resources.
struct Daemon {
    resources: Resources,
    events: UnboundedReceiver<Event>,
    token: u64,
}

impl Place {
    /// `exec` is the program's part of the configuration.
    fn new(test: &str, exec: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("bs-res-{test}-{}", std::process::id()));
        fs::remove_dir_all(&directory).ok();
        fs::create_dir_all(&directory).unwrap();
        let text = format!(
            r#"
cluster = "test"
[[node]]
name = "node-a"
service = "10.9.0.1"
heartbeat = ["10.9.0.1"]
mirror = "10.9.0.1"
[[node]]
name = "node-b"
service = "10.9.0.2"
heartbeat = ["10.9.0.2"]
mirror = "10.9.0.2"
[[node]]
name = "node-w"
role = "witness"
heartbeat = ["10.9.0.3"]
[register]
kind = "embedded"
[[group]]
name = "{test}"
[[group.resource]]
kind = "mirror"
name = "data"
disk = "/dev/null"
mode = "sync"
front_end = "nbd-socket"
[[group.resource]]
kind = "exec"
name = "app"
{exec}
[[group.resource]]
kind = "address"
ip = "10.9.0.10"
prefix = 32
driver = "l2"
"#
        );
        let path = directory.join("backstay.toml");
        fs::write(&path, text).unwrap();
        let config = config::load(&path).unwrap_or_else(|found| panic!("{found}"));
        Self {
            directory,
            config: Arc::new(config),
        }
    }

    fn daemon(&self) -> Daemon {
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let mut plan = Plan::new(&self.config, NodeId(0), GROUP, &self.directory)
            .unwrap()
            .unwrap();
        let launcher: Vec<String> = play("launcher");
        plan.launcher =
            Launcher::this_binary(&launcher.iter().map(String::as_str).collect::<Vec<_>>());
        let script = format!(
            "BACKSTAY_TEST_GROUP=\"$2\" BACKSTAY_TEST_SOCKET=\"$4\" exec '{}' {}",
            std::env::current_exe().unwrap().display(),
            play("keeper").join(" ")
        );
        plan.keeper = ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
        let group = Group::start(Arc::new(Shared::new(plan, BTreeMap::new(), sender))).unwrap();
        let found = if group.resume().unwrap() {
            vec![GROUP]
        } else {
            Vec::new()
        };
        let resources = Resources {
            groups: BTreeMap::from([(GROUP, group)]),
            found,
        };
        Daemon {
            resources,
            events,
            token: 0,
        }
    }

    fn cgroup(&self) -> Cgroup {
        let text = fs::read_to_string(self.directory.join(format!("run/{}.cgroup", self.group())));
        Cgroup::at(text.unwrap().into())
    }

    fn group(&self) -> &str {
        &self.config.groups[0].name
    }

    fn pid(&self) -> u32 {
        let path = self
            .directory
            .join(format!("run/{}-app.process", self.group()));
        let note: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        u32::try_from(note["process"]["pid"].as_u64().unwrap()).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let cgroup = self.cgroup();
        cgroup.kill().ok();
        cgroup.wait_empty(SETTLE).ok();
        cgroup.remove().ok();
        // A keeper that a failed test left.
        let socket = self
            .directory
            .join(format!("run/keeper-{}.sock", self.group()));
        if let Ok((client, _)) = host::keeper::Client::connect(&socket) {
            client.release().ok();
        }
        fs::remove_dir_all(&self.directory).ok();
    }
}

impl Daemon {
    fn begin(&mut self, resource: u8, act: ResourceAct) -> u64 {
        self.token += 1;
        self.resources.act(GROUP, resource, act, self.token);
        self.token
    }

    /// Orders an act and waits for its end.
    fn act(&mut self, resource: u8, act: ResourceAct) -> bool {
        let token = self.begin(resource, act);
        self.until(|event| match event {
            ResourceEvent::Done {
                token: done, ok, ..
            } => (done == token).then_some(ok),
            ResourceEvent::Failed { .. } | ResourceEvent::Abandoned { .. } => None,
        })
    }

    fn until<T>(&mut self, wanted: impl Fn(ResourceEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + SETTLE;
        loop {
            match self.events.try_recv() {
                Ok(Event::Resource(event)) => {
                    if let Some(found) = wanted(event) {
                        return found;
                    }
                }
                Ok(other) => panic!("{other:?}"),
                Err(_) => {
                    assert!(Instant::now() < deadline, "nothing came");
                    thread::sleep(Duration::from_millis(2));
                }
            }
        }
    }

    fn abandon(&mut self) -> Duration {
        let begin = Instant::now();
        self.resources.abandon(GROUP);
        self.until(|event| (event == ResourceEvent::Abandoned { group: GROUP }).then_some(()));
        begin.elapsed()
    }

    fn failure(&self) -> String {
        self.resources.failure(GROUP, PROGRAM).unwrap_or_default()
    }
}

/// Runs `body` in a network namespace of its own, with `eth0` at 10.9.0.1/24 and nobody at the other end.
#[expect(
    deprecated,
    reason = "only UnshareFlags::FILES is unsound; the safe call is enough here"
)]
fn in_namespace(body: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
            ip("link add eth0 type veth peer name eth1");
            ip("addr add 10.9.0.1/24 dev eth0");
            ip("link set eth0 up");
            ip("link set eth1 up");
            body();
        });
        run.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn ip(arguments: &str) {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn has_address() -> bool {
    let assigned = Routes::open().unwrap().addresses().unwrap();
    assigned
        .iter()
        .any(|assigned| assigned.ip.to_string() == "10.9.0.10")
}

fn is_alive(pid: u32) -> bool {
    // A zombie has no command line.
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|text| !text.is_empty())
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + SETTLE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

const SLEEPER: &str = "start = [\"sleep\", \"600\"]\nstop_timeout = \"5s\"";

#[test]
fn program_and_address_come_and_go() {
    in_namespace(|| {
        let place = Place::new("comego", SLEEPER);
        let mut daemon = place.daemon();
        assert!(daemon.resources.found().is_empty());
        assert!(daemon.act(PROGRAM, ResourceAct::Start));
        assert!(daemon.act(ADDRESS, ResourceAct::Start));
        let pid = place.pid();
        assert!(is_alive(pid) && has_address());
        assert!(!place.cgroup().is_empty().unwrap());
        // Starting what runs changes nothing.
        assert!(daemon.act(PROGRAM, ResourceAct::Start));
        assert!(daemon.act(ADDRESS, ResourceAct::Start));
        assert_eq!(place.pid(), pid);
        let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        for wanted in [
            "BACKSTAY_NODE=node-a",
            "BACKSTAY_RESOURCE=app",
            "BACKSTAY_ADDRESS=10.9.0.10",
        ] {
            assert!(environment.contains(wanted), "{environment}");
        }
        assert!(daemon.act(ADDRESS, ResourceAct::Stop));
        assert!(daemon.act(PROGRAM, ResourceAct::Stop));
        assert!(!is_alive(pid) && !has_address());
        assert!(place.cgroup().is_empty().unwrap());
        // Stopping what does not run succeeds, and the keeper is gone.
        assert!(daemon.act(PROGRAM, ResourceAct::Stop));
        assert!(place.daemon().resources.found().is_empty());
    });
}

#[test]
fn the_next_daemon_finds_and_adopts() {
    in_namespace(|| {
        let place = Place::new("adopt", SLEEPER);
        let mut first = place.daemon();
        assert!(first.act(PROGRAM, ResourceAct::Start));
        assert!(first.act(ADDRESS, ResourceAct::Start));
        let pid = place.pid();
        drop(first);
        let mut second = place.daemon();
        assert_eq!(second.resources.found(), [GROUP]);
        assert!(second.act(PROGRAM, ResourceAct::Start));
        assert!(second.act(ADDRESS, ResourceAct::Start));
        assert_eq!(place.pid(), pid);
        // It is watched: its end is told.
        Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status()
            .unwrap();
        let failed = ResourceEvent::Failed {
            group: GROUP,
            resource: PROGRAM,
        };
        second.until(|event| (event == failed).then_some(()));
        assert!(second.act(PROGRAM, ResourceAct::Start));
        assert_ne!(place.pid(), pid);
        second.abandon();
        assert!(!has_address() && place.cgroup().is_empty().unwrap());
    });
}

#[test]
fn abandoning_overtakes_a_stop_that_hangs() {
    in_namespace(|| {
        // Neither the program nor its child hears SIGTERM.
        let stubborn = "start = [\"sh\", \"-c\", \"trap '' TERM; sleep 600 & while :; do wait; done\"]\n\
                        stop_timeout = \"600s\"";
        let place = Place::new("stubborn", stubborn);
        let mut daemon = place.daemon();
        assert!(daemon.act(PROGRAM, ResourceAct::Start));
        assert!(daemon.act(ADDRESS, ResourceAct::Start));
        wait_until("the child runs", || {
            let cgroup = place.cgroup().child("app").unwrap();
            cgroup.processes().unwrap().len() == 2
        });
        daemon.begin(PROGRAM, ResourceAct::Stop);
        thread::sleep(Duration::from_millis(100));
        let took = daemon.abandon();
        assert!(took < Duration::from_secs(3), "{took:?}");
        assert!(!has_address() && place.cgroup().is_empty().unwrap());
        // Again, with nothing there; then everything anew.
        daemon.abandon();
        assert!(daemon.act(PROGRAM, ResourceAct::Start));
        daemon.abandon();
    });
}

#[test]
fn acts_of_an_earlier_round_are_not_carried_out() {
    let place = Place::new("round", SLEEPER);
    let mut daemon = place.daemon();
    // Both are in the queue before the worker sees the second.
    let slow = daemon.begin(PROGRAM, ResourceAct::Start);
    let late = daemon.begin(PROGRAM, ResourceAct::Start);
    daemon.resources.abandon(GROUP);
    let mut ended = Vec::new();
    loop {
        let abandoned = daemon.until(|event| match event {
            ResourceEvent::Done { token, ok, .. } => Some(Some((token, ok))),
            ResourceEvent::Abandoned { .. } => Some(None),
            ResourceEvent::Failed { .. } => None,
        });
        match abandoned {
            Some(done) => ended.push(done),
            None => break,
        }
    }
    assert_eq!(ended.len(), 2);
    assert_eq!((ended[0].0, ended[1]), (slow, (late, false)));
    assert!(place.cgroup().is_empty().unwrap());
}

#[test]
fn a_start_waits_for_its_monitor_and_tells_why_it_failed() {
    let place = Place::new(
        "monitor",
        "start = [\"sh\", \"-c\", \"sleep 0.2; touch \\\"$0\\\"; exec sleep 600\", \"/tmp/bs-res-ready\"]\n\
         monitor = [\"sh\", \"-c\", \"test -e /tmp/bs-res-ready || { echo not ready; exit 1; }\"]\n\
         monitor_interval = \"1s\"\nstart_timeout = \"10s\"\nstop_timeout = \"5s\"",
    );
    fs::remove_file("/tmp/bs-res-ready").ok();
    let mut daemon = place.daemon();
    assert!(
        daemon.act(PROGRAM, ResourceAct::Start),
        "{}",
        daemon.failure()
    );
    assert!(Path::new("/tmp/bs-res-ready").exists());
    // Unwell: told, and told again.
    fs::remove_file("/tmp/bs-res-ready").unwrap();
    for _ in 0..2 {
        let failed = ResourceEvent::Failed {
            group: GROUP,
            resource: PROGRAM,
        };
        daemon.until(|event| (event == failed).then_some(()));
    }
    let pid = place.pid();
    // Well again before the restart comes: it is left alone.
    fs::write("/tmp/bs-res-ready", "").unwrap();
    assert!(daemon.act(PROGRAM, ResourceAct::Start));
    assert_eq!(place.pid(), pid);
    assert!(daemon.act(PROGRAM, ResourceAct::Stop));
    fs::remove_file("/tmp/bs-res-ready").unwrap();

    let missing = Place::new("missing", "start = [\"/no/such/program\"]");
    let mut daemon = missing.daemon();
    assert!(!daemon.act(PROGRAM, ResourceAct::Start));
    assert!(
        daemon
            .failure()
            .starts_with("cannot start app: /no/such/program: cannot run it"),
        "{}",
        daemon.failure()
    );
    let short = Place::new(
        "short",
        "start = [\"sh\", \"-c\", \"sleep 0.1; exit 3\"]\nmonitor = [\"false\"]\nmonitor_interval = \"1s\"",
    );
    let mut daemon = short.daemon();
    assert!(!daemon.act(PROGRAM, ResourceAct::Start));
    assert!(
        daemon.failure().contains("it ended with code 3"),
        "{}",
        daemon.failure()
    );
    daemon.abandon();
}

/// A loop device with ext4 on it.
struct Volume {
    device: LoopDevice,
    directory: PathBuf,
}

impl Volume {
    fn new(test: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("bs-fs-{test}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("volume");
        fs::File::create(&file).unwrap().set_len(32 << 20).unwrap();
        let made = Command::new("mkfs.ext4")
            .arg("-q")
            .arg(&file)
            .stderr(Stdio::null())
            .status();
        assert!(made.unwrap().success());
        let device = LoopDevice::attach(
            &file,
            Attach {
                block_size: 512,
                autoclear: true,
            },
        )
        .unwrap();
        Self { device, directory }
    }

    fn filesystem(&self) -> Filesystem {
        Filesystem {
            mirror: "data".to_owned(),
            mount: self.directory.join("made/mnt"),
            fstype: "ext4".to_owned(),
            options: "noatime".to_owned(),
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let target = self.directory.join("made/mnt");
        host::mount::unmount(&target, host::mount::Unmount::Lazy).ok();
        fs::remove_dir_all(&self.directory).ok();
    }
}

#[test]
fn a_file_system_is_mounted_once_and_busy_ones_name_their_users() {
    let volume = Volume::new("busy");
    let wanted = volume.filesystem();
    filesystem::start(&wanted, volume.device.path()).unwrap();
    filesystem::start(&wanted, volume.device.path()).unwrap();
    let mounted = mounted_at(&wanted.mount.canonicalize().unwrap())
        .unwrap()
        .unwrap();
    assert_eq!(mounted.source, volume.device.path().display().to_string());
    let mut child = Command::new("sleep")
        .arg("600")
        .current_dir(&wanted.mount)
        .spawn()
        .unwrap();
    let refused = filesystem::stop(&wanted).unwrap_err().to_string();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        refused.contains(&format!("used by sleep ({})", child.id())),
        "{refused}"
    );
    let foreign = filesystem::start(&wanted, Path::new("/dev/loop4242"))
        .unwrap_err()
        .to_string();
    assert!(foreign.contains("is mounted there"), "{foreign}");
    filesystem::stop(&wanted).unwrap();
    filesystem::stop(&wanted).unwrap();
    assert_eq!(
        mounted_at(&wanted.mount.canonicalize().unwrap()).unwrap(),
        None
    );
}

#[test]
fn a_device_without_a_file_system_says_what_to_do() {
    let volume = Volume::new("blank");
    fs::write(volume.directory.join("volume"), vec![0; 1 << 20]).unwrap();
    let refused = filesystem::start(&volume.filesystem(), volume.device.path());
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("mkfs.ext4 /dev/loop"), "{refused}");
}

#[test]
fn only_resources_of_this_node_are_planned() {
    let place = Place::new("plan", SLEEPER);
    let witness = Plan::new(&place.config, NodeId(2), GROUP, &place.directory).unwrap();
    assert!(witness.is_none());
    let plan = Plan::new(&place.config, NodeId(0), GROUP, &place.directory)
        .unwrap()
        .unwrap();
    assert!(plan.wants_keeper());
    assert!(plan.mirrors().all(|(_, mirror)| !plan.wants_device(mirror)));
    let is_app = |resource: &Resource| matches!(resource, Resource::Exec(Exec { name, .. }) if name == "app");
    assert!(is_app(&plan.resources[usize::from(PROGRAM)]));
}

/// Else the machine's own file system would stand still, or somebody's who mounted over it.
#[test]
fn only_the_groups_own_file_system_is_frozen() {
    let place = Place::new("freeze", SLEEPER);
    let plan = Plan::new(&place.config, NodeId(0), GROUP, &place.directory)
        .unwrap()
        .unwrap();
    for (mount, why) in [
        (place.directory.join("none"), "nothing is mounted there"),
        ("/proc".into(), "not a device of mirror data"),
    ] {
        let filesystem = Filesystem {
            mirror: "data".to_owned(),
            mount,
            fstype: "ext4".to_owned(),
            options: String::new(),
        };
        let failure = freeze::ours(&plan, &filesystem).unwrap_err();
        let failure = watch::one_line(&failure);
        assert!(failure.contains(why), "{failure}");
    }
}
