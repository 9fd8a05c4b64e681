//! Ends a group's activation on this machine without asking: found by what the system shows, so that it also ends what a
//! crashed daemon left, at whatever point it crashed.
//!
//! Order: the address falls silent, clients are cut off, programs are killed, file systems leave the tree, then the device goes
//! and the keeper last. Each step may find nothing to do. Whatever hangs on the device is freed by breaking it: at once when the
//! lease is over, after a moment when it is not.

use super::plan::Places;
use super::shared::{Shared, lock};
use super::watch::one_line;
use super::{address, device, filesystem, users};
use crate::config::model::{Filesystem, Mirror};
use crate::failure::Failure;
use crate::freezer;
use crate::kernel_device;
use host::loopdev::{self, LoopDevice};
use host::mount::{self, Unmount};
use host::netlink::route::Routes;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long killed processes may take before the device is broken under them.
const KILL_LIMIT: Duration = Duration::from_millis(500);
/// How long a thaw may take: it writes a block.
const THAW_LIMIT: Duration = Duration::from_millis(300);
/// How long an unmount may take before the device is broken under it.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(1);
/// How long a device may take to let go.
const DEVICE_LIMIT: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(5);
/// Rounds of a teardown before a caller that can do without gives up.
const ROUNDS_MAX: u32 = 3;
/// Between two rounds, and between two complaints.
const ROUND_PAUSE: Duration = Duration::from_millis(200);
const COMPLAINT_PAUSE: Duration = Duration::from_secs(5);

/// Tears everything down, however long it takes.
pub(super) fn insist(shared: &Shared) {
    let mut complaint = Instant::now();
    while let Err(failure) = run(shared) {
        if complaint <= Instant::now() {
            tracing::error!(
                group = shared.plan.name,
                why = one_line(&failure),
                "teardown goes on"
            );
            complaint = Instant::now() + COMPLAINT_PAUSE;
        }
        thread::sleep(ROUND_PAUSE);
    }
}

/// Tears everything down.
///
/// # Errors
/// When something is left: what.
pub(super) fn run(shared: &Shared) -> Result<(), Failure> {
    let _alone = lock(&shared.teardown);
    let mut left = Vec::new();
    for _ in 0..ROUNDS_MAX {
        once(shared);
        left = remains(shared);
        if left.is_empty() {
            shared.clear_steps();
            return shared.guard.release();
        }
    }
    Err(
        Failure::new(format!("cannot tear group {} down", shared.plan.name))
            .cause(format!("left: {}", left.join(", "))),
    )
}

/// What is there of an activation; empty when there is none.
pub(super) fn remains(shared: &Shared) -> Vec<String> {
    let mut left = Vec::new();
    match address::find(shared) {
        Ok(found) => left.extend(
            found
                .iter()
                .map(|assigned| format!("address {}", assigned.ip)),
        ),
        Err(error) => left.push(format!("addresses unknown: {error}")),
    }
    let plan = &shared.plan;
    if let Some(cgroup) = &plan.cgroup
        && !cgroup.is_empty().unwrap_or(false)
    {
        left.push(format!("processes in {}", cgroup.path().display()));
    }
    if shared.freezer.is_on() {
        left.push("a file system that is frozen".to_owned());
    }
    left.extend(
        mounted(shared)
            .iter()
            .map(|target| format!("mount {}", target.display())),
    );
    for (_, mirror) in devices(shared) {
        let places = plan.places(&mirror.name);
        let loops = loopdev::find(&places.file).unwrap_or_default();
        left.extend(
            loops
                .iter()
                .map(|path| format!("device {}", path.display())),
        );
        if mount::mounted_at(&places.mount).ok().flatten().is_some() {
            left.push(format!("mount {}", places.mount.display()));
        }
        match kernel_device::find(&places.link) {
            Ok(found) => left.extend(
                found
                    .iter()
                    .map(|d| format!("device {}", d.path().display())),
            ),
            Err(error) => left.push(format!("devices unknown: {error}")),
        }
    }
    left
}

fn once(shared: &Shared) {
    drop_addresses(shared);
    for engine in shared.engines.values() {
        engine.serve(false);
    }
    let targets = mounted(shared);
    kill_programs(shared);
    if !shared.guard.has_lease() {
        // Nothing that is still written here counts, and what waits for the device would wait for its limit.
        for (index, mirror) in devices(shared) {
            let places = shared.plan.places(&mirror.name);
            abort(&places);
            break_kernel_devices(shared, index, &places);
        }
    }
    // What writes to a frozen file system cannot end.
    let _act = shared.freezer.act(THAW_LIMIT);
    for target in targets.clone() {
        within(THAW_LIMIT, "thaw", move || {
            gone_is_fine(host::freeze::thaw(&target).map(drop))
        });
    }
    wait_for_programs(shared);
    targets.iter().for_each(|target| kill_users(target));
    for target in targets {
        let step = move || gone_is_fine(mount::unmount(&target, Unmount::Lazy));
        within(UNMOUNT_LIMIT, "unmount", step);
    }
    for (index, mirror) in devices(shared) {
        let places = shared.plan.places(&mirror.name);
        break_device(&places);
        wait_until_unclaimed(&places);
        break_kernel_devices(shared, index, &places);
        if let Some(engine) = shared.engines.get(&index) {
            engine.detach_fuse();
        }
        close_device(places);
    }
    // What hung on the device is free now.
    kill_programs(shared);
    wait_for_programs(shared);
}

fn drop_addresses(shared: &Shared) {
    shared.announcer.silence();
    let dropped = address::find(shared).and_then(|found| {
        let mut routes = Routes::open()?;
        found
            .into_iter()
            .try_for_each(|assigned| routes.remove(assigned))
    });
    if let Err(error) = dropped {
        tracing::warn!(%error, group = shared.plan.name, "an address is still up; its gate is closed");
    }
}

fn kill_programs(shared: &Shared) {
    let Some(cgroup) = &shared.plan.cgroup else {
        return;
    };
    if let Err(error) = cgroup.kill() {
        tracing::warn!(%error, group = shared.plan.name, "programs could not be killed");
    }
}

fn wait_for_programs(shared: &Shared) {
    let Some(cgroup) = &shared.plan.cgroup else {
        return;
    };
    match cgroup.wait_empty(KILL_LIMIT) {
        Ok(true) => {
            // It is made again with the next start.
            cgroup.remove().ok();
        }
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(%error, group = shared.plan.name, "programs cannot be counted");
        }
    }
}

/// Whoever else uses a mount keeps the device, and with it the way to a new activation.
fn kill_users(target: &Path) {
    let users = users::of(target);
    if users.is_empty() {
        return;
    }
    tracing::warn!(mount = %target.display(), users = users::list(&users), "users are killed");
    for user in users {
        let pid = i32::try_from(user.pid).ok().and_then(Pid::from_raw);
        // Without the one that freezes nobody would thaw, and what is frozen keeps its device for ever. It ends by itself.
        if user.pid == std::process::id() || user.pid == 1 || freezer::is_one(user.pid) {
            continue;
        }
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, Signal::KILL)
        {
            tracing::debug!(%error, pid = user.pid, "the user is gone already");
        }
    }
}

/// Gives the device a moment to let go by itself, then fails all I/O on it.
fn break_device(places: &Places) {
    for path in loopdev::find(&places.file).unwrap_or_default() {
        if let Err(error) = LoopDevice::open(&path).and_then(LoopDevice::detach_soon) {
            tracing::warn!(%error, device = %path.display(), "device could not be detached");
        }
    }
    wait_until_free(places);
    abort(places);
}

/// Fails all I/O on the device, under way and to come.
fn abort(places: &Places) {
    if mount::mounted_at(&places.mount).ok().flatten().is_some() {
        let target = places.mount.clone();
        within(UNMOUNT_LIMIT, "abort", move || {
            gone_is_fine(mount::abort(&target))
        });
    }
}

/// Gives file systems that are being unmounted a moment for their last writes.
fn wait_until_unclaimed(places: &Places) {
    let deadline = Instant::now() + DEVICE_LIMIT;
    let found = kernel_device::find(&places.link).unwrap_or_default();
    while found.iter().any(|found| device::is_claimed(&found.path())) && Instant::now() < deadline {
        thread::sleep(PAUSE);
    }
}

/// Ends the devices of the kernel's drivers, under whatever is on them.
fn break_kernel_devices(shared: &Shared, index: u8, places: &Places) {
    for found in kernel_device::find(&places.link).unwrap_or_default() {
        let engine = shared.engines.get(&index).cloned();
        within(UNMOUNT_LIMIT, "device stop", move || {
            device::break_now(engine.as_ref(), found)
        });
    }
}

fn close_device(places: Places) {
    wait_until_free(&places);
    let target = places.mount.clone();
    within(UNMOUNT_LIMIT, "unmount", move || {
        gone_is_fine(mount::unmount(&target, Unmount::Lazy))
    });
    fs::remove_file(&places.link).ok();
    fs::remove_dir(&places.mount).ok();
}

fn wait_until_free(places: &Places) {
    let deadline = Instant::now() + DEVICE_LIMIT;
    while Instant::now() < deadline {
        if loopdev::find(&places.file).is_ok_and(|found| found.is_empty()) {
            return;
        }
        thread::sleep(PAUSE);
    }
}

/// Runs a step that may hang in the kernel on a thread of its own; what hangs there ends when the device is broken.
fn within(
    limit: Duration,
    what: &'static str,
    step: impl FnOnce() -> io::Result<()> + Send + 'static,
) {
    let (sender, receiver) = mpsc::channel();
    let spawned = thread::Builder::new().name(what.to_owned()).spawn(move || {
        sender.send(step()).ok();
    });
    if let Err(error) = spawned {
        tracing::error!(%error, what, "teardown has no thread for a step");
        return;
    }
    match receiver.recv_timeout(limit) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, what, "teardown step failed"),
        Err(_) => tracing::warn!(what, "teardown step hangs"),
    }
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::INVAL | Errno::NOENT)) => Ok(()),
        other => other,
    }
}

fn devices(shared: &Shared) -> impl Iterator<Item = (u8, &Mirror)> {
    shared
        .plan
        .mirrors()
        .rev()
        .filter(|(_, mirror)| shared.plan.wants_device(mirror))
}

/// The group's file systems that are mounted from one of its devices, last first.
fn mounted(shared: &Shared) -> Vec<PathBuf> {
    let ours = |filesystem: &Filesystem| {
        let target = filesystem::target(filesystem).ok()?;
        let found = mount::mounted_at(&target).ok().flatten()?;
        is_ours(&shared.plan.places(&filesystem.mirror), &found.source).then_some(target)
    };
    shared.plan.filesystems().rev().filter_map(ours).collect()
}

/// True for the device of these places: by the file behind it, or by the link if it has none any more.
pub(super) fn is_ours(places: &Places, source: &str) -> bool {
    let source = Path::new(source);
    if let Ok(found) = kernel_device::find(&places.link)
        && found.iter().any(|found| found.path() == source)
    {
        return true;
    }
    match loopdev::backing_file(source) {
        Some(file) => file == places.file,
        None => fs::read_link(&places.link).is_ok_and(|device| device == source),
    }
}
