//! The daemon dies, the mount does not: FUSE, loop and ext4 over a daemon that is killed in the middle of writes.
//!
//! The keeper and the daemon are other processes of this same test binary, told what to be by the environment.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use host::disk::{self, Disk};
use host::fuse::{Channel, FILE_NAME, Incoming, IoKind, IoRequest, Negotiated};
use host::keeper::{self, Client, Lease, Step};
use host::loopdev::{self, Attach, LoopDevice};
use host::mount::{Unmount, mounted_at, unmount};
use host::ring::{Buf, Descriptor, Interest, Op, Ring, Watch};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use wire::Duration;

const SIZE: u64 = 96 << 20;
const ROLE: &str = "BACKSTAY_TEST_ROLE";
const DIR: &str = "BACKSTAY_TEST_DIR";

/// Where everything of one run is. Dropping it cleans up whatever is left.
struct Stage {
    dir: PathBuf,
    children: Vec<Child>,
}

impl Stage {
    fn new(name: &str) -> Self {
        let dir = PathBuf::from(format!("/dev/shm/backstay-{name}-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("fuse")).unwrap();
        std::fs::create_dir_all(dir.join("ext4")).unwrap();
        File::create(dir.join("disk"))
            .unwrap()
            .set_len(SIZE)
            .unwrap();
        Self {
            dir,
            children: Vec::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn volume(&self) -> PathBuf {
        self.path("fuse").join(FILE_NAME)
    }

    /// Starts this binary as a keeper or daemon; returns its place among the children.
    fn start(&mut self, role: &str) -> usize {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(ROLE, role)
            .env(DIR, &self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.children.push(child);
        self.children.len() - 1
    }

    fn kill(&mut self, index: usize) {
        self.children[index].kill().unwrap();
        self.children[index].wait().unwrap();
    }

    fn keeper(&self) -> Client {
        let connected = eventually(|| Client::connect(&self.path("keeper.sock")).ok());
        connected.0
    }

    /// A keeper, a daemon, a loop device with ext4 on it, mounted.
    fn up(&mut self) -> (usize, PathBuf) {
        self.start("keeper");
        let keeper = self.keeper();
        let daemon = self.start("daemon");
        eventually(|| keeper.get("fuse").ok());
        let how = Attach {
            block_size: 4096,
            autoclear: false,
        };
        let device = LoopDevice::attach(&self.volume(), how).unwrap();
        let path = device.path().to_owned();
        drop(device);
        run("mkfs.ext4", &["-q", "-F", path.to_str().unwrap()]);
        let at = self.path("ext4");
        run(
            "mount",
            &[
                "-n",
                "-o",
                "noatime",
                path.to_str().unwrap(),
                at.to_str().unwrap(),
            ],
        );
        (daemon, path)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What a failed test leaves: the device is broken first, so that nothing waits for a daemon.
        host::mount::abort(&self.path("fuse")).ok();
        unmount(&self.path("ext4"), Unmount::Lazy).ok();
        for device in loopdev::find(&self.volume()).unwrap_or_default() {
            LoopDevice::open(&device).and_then(LoopDevice::detach).ok();
        }
        unmount(&self.path("fuse"), Unmount::Lazy).ok();
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = attempt() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it did not happen within 10 s");
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {text}");
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self")
        .is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

/// Not a test: what this binary is when another one started it.
#[test]
fn child() {
    let (Ok(role), Some(dir)) = (std::env::var(ROLE), std::env::var_os(DIR)) else {
        return;
    };
    let dir = PathBuf::from(dir);
    match role.as_str() {
        "keeper" => keeper::serve("db", &dir.join("keeper.sock")).unwrap(),
        _ => Daemon::start(&dir).run(),
    }
}

const READY: u64 = u64::MAX;

struct Daemon {
    ring: Ring,
    disk: Arc<Disk>,
    channel: Channel,
    keeper: Client,
    requests: BTreeMap<u64, IoRequest>,
    next: u64,
}

impl Daemon {
    fn start(dir: &Path) -> Self {
        let (keeper, _) = Client::connect(&dir.join("keeper.sock")).unwrap();
        // The dead daemon's descriptors may still be closing.
        let disk = eventually(|| Disk::open(&dir.join("disk"), &disk::OpenOptions::default()).ok());
        let channel = match keeper.get("fuse") {
            Ok((fd, blob)) => Channel::adopt(fd, Negotiated::from_bytes(&blob).unwrap()).unwrap(),
            Err(_) => Channel::mount(&dir.join("fuse"), "db", SIZE, 512).unwrap(),
        };
        let ring = Ring::new(None).unwrap();
        let (disk, requests) = (Arc::new(disk), BTreeMap::new());
        Self {
            ring,
            disk,
            channel,
            keeper,
            requests,
            next: 0,
        }
    }

    fn run(mut self) {
        let fd: Descriptor = Arc::new(self.channel.try_clone_fd().unwrap());
        let mut watch = Watch::new(fd, READY);
        let mut done = Vec::new();
        loop {
            if !self.receive() {
                return;
            }
            watch.want(&mut self.ring, Some(Interest::READ));
            self.ring.wait(1, None, &mut done).unwrap();
            for completion in done.drain(..) {
                if completion.token == READY {
                    watch.fired();
                    continue;
                }
                let request = self.requests.remove(&completion.token).unwrap();
                match (completion.result, completion.buf) {
                    (Err(why), _) => self.channel.error(&request, &why).unwrap(),
                    (Ok(_), Some(buf)) => self.channel.data(&request, &buf.freeze()).unwrap(),
                    (Ok(_), None) => self.channel.done(&request).unwrap(),
                }
            }
        }
    }

    /// False when the file system is unmounted.
    fn receive(&mut self) -> bool {
        while let Some(incoming) = self.channel.receive().unwrap() {
            match incoming {
                Incoming::Unmounted => return false,
                Incoming::Ready(negotiated) => {
                    let fd = self.channel.try_clone_fd().unwrap();
                    self.keeper.put("fuse", fd, negotiated.to_bytes()).unwrap();
                }
                Incoming::Io(request, payload) => {
                    self.note_resent(&request);
                    self.submit(request, payload);
                }
            }
        }
        true
    }

    /// Leaves a byte in a file for every request that the dead daemon had taken and not answered.
    fn note_resent(&self, request: &IoRequest) {
        if request.is_resent() {
            let path = self.disk.path().with_file_name("resent");
            let mut file = OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .unwrap();
            file.write_all(b"r").unwrap();
        }
    }

    fn submit(&mut self, request: IoRequest, payload: Option<Buf>) {
        let disk = Arc::clone(&self.disk);
        let op = match request.kind {
            IoKind::Read { offset, len } => Op::Read {
                disk,
                offset,
                buf: Buf::new(usize::try_from(len).unwrap()),
            },
            IoKind::Write { offset, .. } => Op::Write {
                disk,
                offset,
                data: payload.unwrap().freeze(),
                durable: false,
            },
            IoKind::Flush => Op::Flush { disk },
            IoKind::Zero { offset, len, hole } => Op::Zero {
                disk,
                offset,
                len,
                hole,
            },
        };
        self.next += 1;
        self.requests.insert(self.next, request);
        self.ring.submit(self.next, op);
    }
}

/// Content of the file with this number.
fn content(number: usize) -> Vec<u8> {
    let byte = u8::try_from(number % 251).unwrap();
    vec![byte; 4096 + number % 7 * 65_536]
}

/// Writes and syncs numbered files until told to stop; returns the first error.
fn write_files(dir: &Path, stop: &AtomicBool, written: &AtomicUsize) -> std::io::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let number = written.load(Ordering::Relaxed);
        let mut file = File::create(dir.join(format!("f{}", number % 40)))?;
        file.write_all(&content(number))?;
        file.sync_all()?;
        written.store(number + 1, Ordering::Relaxed);
    }
    Ok(())
}

#[test]
fn killed_daemon_is_replaced_without_an_io_error() {
    if !is_root() {
        return;
    }
    let mut stage = Stage::new("adopt");
    let (mut daemon, device) = stage.up();
    let (stop, written) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let writer = {
        let (dir, stop, written) = (stage.path("ext4"), Arc::clone(&stop), Arc::clone(&written));
        std::thread::spawn(move || write_files(&dir, &stop, &written))
    };
    let resent =
        |stage: &Stage| std::fs::metadata(stage.path("resent")).map_or(0, |meta| meta.len());
    for kill in 1..=60 {
        let before = written.load(Ordering::Relaxed);
        eventually(|| (written.load(Ordering::Relaxed) > before + 5).then_some(()));
        std::thread::sleep(Duration::from_millis(7 * (kill % 6)));
        stage.kill(daemon);
        std::thread::sleep(Duration::from_millis(30));
        daemon = stage.start("daemon");
        if kill >= 6 && resent(&stage) >= 3 {
            break;
        }
    }
    let before = written.load(Ordering::Relaxed);
    eventually(|| (written.load(Ordering::Relaxed) > before + 5).then_some(()));
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap().unwrap();
    assert!(resent(&stage) > 0, "no kill hit a request");

    unmount(&stage.path("ext4"), Unmount::Clean).unwrap();
    run("e2fsck", &["-fn", device.to_str().unwrap()]);
    let at = stage.path("ext4");
    run(
        "mount",
        &[
            "-n",
            "-o",
            "ro",
            device.to_str().unwrap(),
            at.to_str().unwrap(),
        ],
    );
    let written = written.load(Ordering::Relaxed);
    for number in written.saturating_sub(40)..written {
        let mut bytes = Vec::new();
        let path = stage.path("ext4").join(format!("f{}", number % 40));
        File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
        assert!(bytes == content(number), "file {number} has other content");
    }
    unmount(&stage.path("ext4"), Unmount::Clean).unwrap();
    LoopDevice::open(&device).unwrap().detach().unwrap();
    unmount(&stage.path("fuse"), Unmount::Clean).unwrap();
    stage.children[daemon].wait().unwrap();
    stage.keeper().release().unwrap();
}

#[test]
fn hung_daemon_is_torn_down_when_its_lease_is_over() {
    if !is_root() {
        return;
    }
    let mut stage = Stage::new("hang");
    let (daemon, device) = stage.up();
    let keeper = stage.keeper();
    let steps = vec![
        Step::AbortFuse {
            target: stage.path("fuse"),
        },
        Step::Unmount {
            target: stage.path("ext4"),
        },
        Step::DetachLoop {
            device: device.clone(),
        },
        Step::Unmount {
            target: stage.path("fuse"),
        },
        Step::Close {
            name: "fuse".into(),
        },
    ];
    keeper.set_steps(steps).unwrap();
    let grace = Duration::from_millis(100);
    let mut file = File::create(stage.path("ext4").join("file")).unwrap();
    file.write_all(&content(6)).unwrap();
    file.sync_all().unwrap();

    run("kill", &["-STOP", &stage.children[daemon].id().to_string()]);
    let writer =
        std::thread::spawn(move || file.write_all(&content(5)).and_then(|()| file.sync_all()));
    keeper
        .set_lease(Lease {
            until: host::clock::now() + grace,
            grace,
        })
        .unwrap();
    let torn_down = eventually(|| keeper.overview().unwrap().torn_down);
    for step in &torn_down.steps {
        assert_eq!(step.error, None, "{}", step.step);
    }
    assert!(
        writer.join().unwrap().is_err(),
        "a write got through to a hung daemon"
    );
    assert_eq!(mounted_at(&stage.path("ext4")).unwrap(), None);
    assert_eq!(mounted_at(&stage.path("fuse")).unwrap(), None);
    eventually(|| loopdev::backing_file(&device).is_none().then_some(()));

    run("kill", &["-CONT", &stage.children[daemon].id().to_string()]);
    let status = stage.children[daemon].wait().unwrap();
    assert!(
        status.success(),
        "the woken daemon finds the file system gone and ends"
    );
    keeper.release().unwrap();
}
