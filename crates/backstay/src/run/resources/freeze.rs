//! A mirror that stands still while somebody takes a snapshot of its disk.
//!
//! ```text
//!  asked ──► freeze (a thread): fsfreeze, flush ──► stands still ──► thaw ──► over
//!                                                      ▲ ends it: the asker is gone, the time is over, or anything of the
//!                                                      │ group is to start or to stop
//! ```
//! The thread holds the file system's directory open, and so can thaw it whatever becomes of the mount. Both are done by
//! fsfreeze(8), for the reason why mount(8) mounts: this process serves the blocks that they write. A daemon that dies leaves
//! the thaw to its successor ([`leftover`]), and both to the keeper.

use super::filesystem;
use super::plan::Plan;
use super::shared::{Shared, lock};
use super::watch::one_line;
use crate::api::body::Thawed;
use crate::api::server::{FreezeRequest, Hold, Standstill};
use crate::config::model::{Filesystem, Mirror};
use crate::failure::Failure;
use crate::nbd_client::Export;
use rustix::fs::{major, minor};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long an act of the group waits for a thaw.
pub(super) const THAW_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at a program that freezes or thaws.
const PAUSE: Duration = Duration::from_millis(2);
/// How long nobody may need to make a flush durable, beside what the asker allows.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// The freeze of a group; there is one at a time.
#[derive(Debug, Default)]
pub(super) struct Freezer {
    /// Where the one under way is told to end.
    under_way: Mutex<Option<mpsc::Sender<Thawed>>>,
    over: Condvar,
}

impl Freezer {
    /// True while a file system of the group may stand still.
    pub(super) fn is_on(&self) -> bool {
        lock(&self.under_way).is_some()
    }

    /// Ends a freeze, and waits until what stood still runs again.
    pub(super) fn end(&self, limit: Duration) {
        let under_way = lock(&self.under_way);
        let Some(orders) = under_way.as_ref() else {
            return;
        };
        // A thread that is thawing already has stopped to listen.
        orders.send(Thawed::Stopped).ok();
        let waited = self
            .over
            .wait_timeout_while(under_way, limit, |under_way| under_way.is_some());
        let (under_way, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(under_way);
        if timeout.timed_out() {
            tracing::error!("a file system does not thaw; what hangs on it cannot end");
        }
    }

    fn begin(&self, orders: mpsc::Sender<Thawed>) -> bool {
        let mut under_way = lock(&self.under_way);
        let free = under_way.is_none();
        if free {
            *under_way = Some(orders);
        }
        free
    }

    fn done(&self) {
        *lock(&self.under_way) = None;
        self.over.notify_all();
    }
}

/// Carries a request out, on a thread of its own.
pub(super) fn start(shared: &Arc<Shared>, request: FreezeRequest) {
    let shared = Arc::clone(shared);
    let spawned = thread::Builder::new()
        .name(format!("freeze {}", shared.plan.name))
        .spawn(move || run(&shared, request));
    if let Err(error) = spawned {
        tracing::error!(%error, "there is no thread for a freeze");
    }
}

fn run(shared: &Shared, request: FreezeRequest) {
    let (orders, told) = mpsc::channel();
    if !shared.freezer.begin(orders.clone()) {
        let why = "another snapshot is being taken of this group".to_owned();
        request.answer.send(Err(why)).ok();
        return;
    }
    let round = shared.round();
    let deadline = Instant::now() + request.limit;
    let frozen = freeze(shared, &request.mirror, &told, deadline);
    match frozen {
        Err(failure) => {
            tracing::warn!(
                mirror = request.mirror,
                why = one_line(&failure),
                "not frozen"
            );
            request.answer.send(Err(one_line(&failure))).ok();
        }
        Ok((still, place)) if shared.check(round).is_ok() => {
            let (over, ended) = oneshot::channel();
            let still = still.standstill(Hold(orders), ended);
            tracing::info!(mirror = request.mirror, "stands still for a snapshot");
            // The asker may have gone: then its hold is dropped right here.
            request.answer.send(Ok(still)).ok();
            let left = deadline.saturating_duration_since(Instant::now());
            let why = told.recv_timeout(left).unwrap_or(Thawed::Timeout);
            drop(place);
            tracing::info!(mirror = request.mirror, ?why, "goes on");
            over.send(why).ok();
        }
        Ok((_, place)) => {
            drop(place);
            let why = "the group is being torn down".to_owned();
            request.answer.send(Err(why)).ok();
        }
    }
    shared.freezer.done();
}

/// What the asker is told of.
struct Still {
    mount: Option<PathBuf>,
    disk: PathBuf,
    metadata: Option<PathBuf>,
}

impl Still {
    fn standstill(self, hold: Hold, over: oneshot::Receiver<Thawed>) -> Standstill {
        Standstill {
            mount: self.mount,
            disk: self.disk,
            metadata: self.metadata,
            over,
            hold,
        }
    }
}

/// Freezes the mirror's file system, if it has one, and makes everything before that durable on every replica.
fn freeze(
    shared: &Shared,
    name: &str,
    told: &mpsc::Receiver<Thawed>,
    deadline: Instant,
) -> Result<(Still, Option<Place>), Failure> {
    let cannot = || Failure::new(format!("mirror {name} does not stand still"));
    let plan = &shared.plan;
    let found = plan.mirrors().find(|(_, mirror)| mirror.name == name);
    let Some((index, mirror)) = found else {
        return Err(cannot().cause("the group has no such mirror"));
    };
    if shared.choice(index).is_none() {
        return Err(cannot().cause("it is not served by this node; ask the active one"));
    }
    let on_it = plan.filesystems().find(|one| one.mirror == name);
    let mut place = on_it.map(Place::open).transpose()?;
    if let Some(place) = &mut place {
        place
            .freeze(told, deadline)
            .map_err(|why| cannot().cause(why))?;
    }
    // From here on the place thaws when it is dropped.
    let left = deadline.saturating_duration_since(Instant::now());
    flush(plan, mirror, left.max(PAUSE)).map_err(|error| {
        cannot().cause(format!(
            "what was written could not be made durable: {error}"
        ))
    })?;
    let still = Still {
        mount: place.as_ref().map(|place| place.target.clone()),
        disk: plan.disk(mirror).unwrap_or_default(),
        metadata: plan.metadata(mirror),
    };
    Ok((still, place))
}

/// Durable on every replica that has to have it.
fn flush(plan: &Plan, mirror: &Mirror, limit: Duration) -> std::io::Result<()> {
    let socket = plan.nbd_socket(&mirror.name);
    Export::open(&socket, &mirror.name, limit.max(CONNECT_LIMIT))?.flush()
}

/// A mounted file system. Dropped, it runs again.
struct Place {
    target: PathBuf,
    directory: File,
    /// It may be frozen by us; somebody else's freeze is theirs to end.
    is_frozen: bool,
}

impl Place {
    fn open(filesystem: &Filesystem) -> Result<Self, Failure> {
        let target = filesystem::target(filesystem)?;
        let cannot = || Failure::new(format!("cannot freeze {}", target.display()));
        let mounted = filesystem::mounted_at(&target)?;
        let mounted = mounted.ok_or_else(|| cannot().cause("nothing is mounted there"))?;
        let directory = File::open(&target).map_err(|error| cannot().cause(error))?;
        let meta = directory
            .metadata()
            .map_err(|error| cannot().cause(error))?;
        let device = format!("{}:{}", major(meta.dev()), minor(meta.dev()));
        if device != mounted.device {
            // It was unmounted meanwhile: what is seen there is the machine's own file system.
            return Err(cannot().cause("nothing is mounted there any more"));
        }
        Ok(Self {
            target,
            directory,
            is_frozen: false,
        })
    }

    /// The directory by its descriptor: whatever is mounted over it, or not any more.
    fn path(&self) -> String {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.directory.as_raw_fd()
        )
    }

    /// Freezes it. It is thawed again if that was told to end, or the time was over, before it was done.
    fn freeze(&mut self, told: &mpsc::Receiver<Thawed>, deadline: Instant) -> Result<(), String> {
        let mut child = fsfreeze("--freeze", &self.path())?;
        let mut given_up = None;
        loop {
            if let Some(ended) = child.try_wait().map_err(|error| error.to_string())? {
                self.is_frozen = ended.success();
                return match (given_up, self.is_frozen) {
                    (Some(why), _) => Err(why),
                    (None, true) => self.is_in_place(),
                    (None, false) => Err(complaint(child)),
                };
            }
            // It cannot be interrupted while it writes, so it is waited for all the same.
            if given_up.is_none() {
                given_up = match told.try_recv() {
                    Ok(_) => Some("it was given up before it stood still".to_owned()),
                    Err(_) if Instant::now() >= deadline => {
                        Some("it did not stand still in time".to_owned())
                    }
                    Err(_) => None,
                };
            }
            thread::sleep(PAUSE);
        }
    }
}

impl Place {
    /// Fails if a teardown took it out of the tree meanwhile.
    fn is_in_place(&self) -> Result<(), String> {
        match host::mount::mounted_at(&self.target) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("it was unmounted meanwhile".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_frozen {
            return;
        }
        let thawed = fsfreeze("--unfreeze", &self.path()).and_then(|child| {
            let output = child.wait_with_output();
            output.map_err(|error| error.to_string())
        });
        if let Err(error) = thawed {
            // By ourselves then: a daemon that dies in it waits for its successor, but nothing stays frozen.
            let result = host::freeze::thaw(Path::new(&self.path()));
            tracing::error!(error, ?result, mount = %self.target.display(), "fsfreeze(8) cannot be run");
        }
    }
}

fn fsfreeze(what: &str, path: &str) -> Result<Child, String> {
    Command::new("fsfreeze")
        .args([what, path])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run fsfreeze(8): {error}"))
}

fn complaint(child: Child) -> String {
    let output = child.wait_with_output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
    let text = text.unwrap_or_default();
    match text.trim() {
        "" => "fsfreeze(8) failed".to_owned(),
        text => text.to_owned(),
    }
}

/// Thaws what an earlier daemon may have frozen. It may wait for the device, which is not served yet: so nobody waits for it.
pub(super) fn leftover(targets: Vec<PathBuf>) {
    for target in targets {
        // Of a file system that is not frozen it complains, which is as good.
        match fsfreeze("--unfreeze", &target.display().to_string()) {
            Ok(mut child) => {
                let waits = thread::Builder::new().name("thaw".to_owned());
                waits.spawn(move || child.wait()).ok();
            }
            Err(error) => tracing::error!(error, mount = %target.display(), "may be frozen"),
        }
    }
}

impl Plan {
    fn disk(&self, mirror: &Mirror) -> Option<PathBuf> {
        mirror.disk(self.me).cloned()
    }

    fn metadata(&self, mirror: &Mirror) -> Option<PathBuf> {
        mirror.metadata(self.me).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_ends_the_freeze_and_waits_until_it_is_over() {
        let freezer = Arc::new(Freezer::default());
        freezer.end(THAW_LIMIT);
        let (orders, told) = mpsc::channel();
        assert!(freezer.begin(orders.clone()));
        assert!(!freezer.begin(orders), "there is one at a time");
        let thread = {
            let freezer = Arc::clone(&freezer);
            thread::spawn(move || {
                let why = told.recv().expect("an order");
                thread::sleep(PAUSE);
                freezer.done();
                why
            })
        };
        freezer.end(THAW_LIMIT);
        assert!(!freezer.is_on());
        assert_eq!(thread.join().expect("it ends"), Thawed::Stopped);
    }

    #[test]
    fn an_act_does_not_wait_for_ever() {
        let freezer = Freezer::default();
        let (orders, _told) = mpsc::channel();
        assert!(freezer.begin(orders));
        freezer.end(PAUSE);
        assert!(freezer.is_on(), "who waits for it looks again");
    }

    /// Else the file system that the directory is in would stand still: the machine's own.
    #[test]
    fn a_directory_without_a_mount_is_not_frozen() {
        let mount = std::env::temp_dir().join(format!("backstay-freeze-{}", std::process::id()));
        let filesystem = Filesystem {
            mirror: "pgdata".to_owned(),
            mount: mount.clone(),
            fstype: "ext4".to_owned(),
            options: String::new(),
        };
        let opened = Place::open(&filesystem);
        std::fs::remove_dir(&mount).expect("the directory was made");
        let failure = opened.err().expect("nothing is mounted");
        assert!(one_line(&failure).contains("nothing is mounted there"));
    }
}
