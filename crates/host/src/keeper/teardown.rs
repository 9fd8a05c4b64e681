//! The teardown itself: each step on its own thread, so that one that hangs in the kernel does not keep the others.

use super::message::{Step, StepReport};
use crate::cgroup::Cgroup;
use crate::clock;
use crate::freeze;
use crate::loopdev::LoopDevice;
use crate::mount::{self, Unmount};
use crate::netlink::route::{Assigned, Routes};
use crate::{nbd_device, ublk};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use wire::Duration;

/// How long one step may take before the next is begun.
const STEP_MAX: Duration = Duration::from_secs(1);

/// How long killed processes may take to be gone. What hangs on the device goes when the device is broken.
const KILL_MAX: Duration = Duration::from_millis(300);

/// How long a thaw may take: it writes a block, to a device that may hang.
const THAW_MAX: Duration = Duration::from_millis(300);

/// Carries out `steps` in order. Closing is the caller's, who has the descriptors.
pub(super) fn run(steps: Vec<Step>, mut close: impl FnMut(&str)) -> Vec<StepReport> {
    let mut reports = Vec::with_capacity(steps.len());
    let mut frozen = file_systems(&steps);
    for step in steps {
        if !matches!(step, Step::DropAddress { .. }) {
            // What writes to a frozen file system cannot be killed, and a frozen one cannot be left.
            std::mem::take(&mut frozen).into_iter().for_each(thaw);
        }
        let begin = clock::now();
        let result = if let Step::Close { name } = &step {
            close(name);
            Ok(())
        } else {
            with_limit(step.clone())
        };
        let error = result.err();
        match &error {
            None => tracing::warn!(%step, "torn down"),
            Some(error) => tracing::error!(%step, %error, "teardown step failed"),
        }
        let took = clock::now().since(begin);
        reports.push(StepReport { step, took, error });
    }
    reports
}

/// Mounts that may be frozen: those on devices, not the ones that devices are made of.
fn file_systems(steps: &[Step]) -> Vec<PathBuf> {
    let fuse = |target: &PathBuf| {
        let of_fuse = |step: &Step| matches!(step, Step::AbortFuse { target: of } if of == target);
        steps.iter().any(of_fuse)
    };
    let mount = |step: &Step| match step {
        Step::Unmount { target } if !fuse(target) => Some(target.clone()),
        Step::Unmount { .. }
        | Step::KillCgroup { .. }
        | Step::DropAddress { .. }
        | Step::AbortFuse { .. }
        | Step::DetachLoop { .. }
        | Step::StopUblk { .. }
        | Step::DetachNbd { .. }
        | Step::Close { .. } => None,
    };
    steps.iter().filter_map(mount).collect()
}

/// Thaws a file system, in case it is frozen; if its device hangs, the end of that ends this.
fn thaw(target: PathBuf) {
    let (sender, receiver) = mpsc::channel();
    let worker = std::thread::Builder::new().name("backstay-thaw".to_owned());
    let name = target.display().to_string();
    if let Err(error) = worker.spawn(move || sender.send(freeze::thaw(&target)).ok()) {
        tracing::error!(%error, "nothing thaws file systems");
        return;
    }
    match receiver.recv_timeout(THAW_MAX) {
        Ok(Ok(false)) => {}
        Ok(Ok(true)) => tracing::warn!(name, "file system was frozen"),
        Ok(Err(error)) => tracing::debug!(%error, name, "file system is not thawed"),
        Err(_) => tracing::warn!(name, "thawing hangs"),
    }
}

fn with_limit(step: Step) -> Result<(), String> {
    let (sender, receiver) = mpsc::channel();
    let worker = std::thread::Builder::new().name("backstay-step".to_owned());
    worker
        .spawn(move || sender.send(carry_out(&step)).ok())
        .map_err(|why| why.to_string())?;
    match receiver.recv_timeout(STEP_MAX) {
        Ok(result) => result,
        Err(_) => Err(format!("still going after {} ms", STEP_MAX.as_millis())),
    }
}

fn carry_out(step: &Step) -> Result<(), String> {
    match step {
        Step::KillCgroup { dir } => kill(dir),
        Step::DropAddress {
            interface,
            ip,
            prefix,
        } => {
            let address = Assigned {
                index: *interface,
                ip: *ip,
                prefix: *prefix,
            };
            let removed = Routes::open().and_then(|mut routes| routes.remove(address));
            removed.map_err(|why| why.to_string())
        }
        Step::AbortFuse { target } => gone_is_fine(mount::abort(target)),
        Step::Unmount { target } => gone_is_fine(mount::unmount(target, Unmount::Lazy)),
        Step::DetachLoop { device } => gone_is_fine(
            LoopDevice::open(device)
                .and_then(LoopDevice::detach_soon)
                .map(|_| ()),
        ),
        Step::StopUblk { id, identity } => {
            stop_ublk(*id, identity).or_else(|why| gone_is_fine(Err(why)))
        }
        Step::DetachNbd { index, identity } => detach_nbd(*index, identity),
        Step::Close { .. } => Ok(()),
    }
}

fn stop_ublk(id: u32, identity: &str) -> io::Result<()> {
    let mut control = ublk::Control::open()?;
    let info = control.info(id)?;
    if info.identity != ublk::identity(identity) {
        // The number is somebody else's by now.
        return Ok(());
    }
    if info.state == ublk::State::Live
        && let Some(pid) = Pid::from_raw(info.pid)
    {
        kill_process(pid, Signal::KILL).ok();
    }
    control.stop(id)?;
    control.delete(id)
}

fn detach_nbd(index: u32, identity: &str) -> Result<(), String> {
    match nbd_device::find(identity) {
        Ok(found) if found.contains(&index) => {
            nbd_device::disconnect(index).map_err(|why| why.to_string())
        }
        Ok(_) => Ok(()),
        Err(why) => Err(why.to_string()),
    }
}

fn kill(dir: &Path) -> Result<(), String> {
    let cgroup = Cgroup::at(dir.to_owned());
    cgroup.kill().map_err(|why| why.to_string())?;
    match cgroup.wait_empty(KILL_MAX) {
        Ok(true) => Ok(()),
        Ok(false) => Err("processes were killed but are not gone yet".to_owned()),
        Err(why) => Err(why.to_string()),
    }
}

/// What is not there any more needs no teardown.
fn gone_is_fine(result: io::Result<()>) -> Result<(), String> {
    match result {
        Ok(()) => Ok(()),
        Err(why) => match Errno::from_io_error(&why) {
            Some(Errno::INVAL | Errno::NOENT | Errno::NXIO | Errno::NODEV) => Ok(()),
            Some(_) | None => Err(why.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_on_devices_are_thawed_and_devices_are_not() {
        let (fuse, mount) = (PathBuf::from("/run/fuse"), PathBuf::from("/srv"));
        let unmount = |target: &PathBuf| Step::Unmount {
            target: target.clone(),
        };
        let abort = Step::AbortFuse {
            target: fuse.clone(),
        };
        let steps = [abort, unmount(&mount), unmount(&fuse)];
        assert_eq!(file_systems(&steps), [mount]);
    }

    #[test]
    fn what_cannot_be_thawed_keeps_nothing_from_being_done() {
        let missing = Step::Unmount {
            target: "/no/such/place".into(),
        };
        let closed = Step::Close { name: "x".into() };
        let mut names = Vec::new();
        let reports = run(vec![closed, missing], |name| names.push(name.to_owned()));
        assert_eq!((reports.len(), names), (2, vec!["x".to_owned()]));
    }
}
