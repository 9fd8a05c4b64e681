//! The teardown itself: each step on its own thread, so that one that hangs in the kernel does not keep the others.

use super::message::{Step, StepReport};
use crate::cgroup::Cgroup;
use crate::clock;
use crate::loopdev::LoopDevice;
use crate::mount::{self, Unmount};
use crate::netlink::route::{Assigned, Routes};
use crate::{nbd_device, ublk};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::io;
use std::path::Path;
use std::sync::mpsc;
use wire::Duration;

/// How long one step may take before the next is begun.
const STEP_MAX: Duration = Duration::from_secs(1);

/// How long killed processes may take to be gone. What hangs on the device goes when the device is broken.
const KILL_MAX: Duration = Duration::from_millis(300);

/// Carries out `steps` in order. Closing is the caller's, who has the descriptors.
pub(super) fn run(steps: Vec<Step>, mut close: impl FnMut(&str)) -> Vec<StepReport> {
    let mut reports = Vec::with_capacity(steps.len());
    for step in steps {
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
