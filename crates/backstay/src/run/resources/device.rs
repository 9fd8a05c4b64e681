//! A mirror's front ends: the NBD socket, and the block device for a file system.
//!
//! Which kind of block device: the configured one; without a wish that of an earlier daemon, or else the first that this kernel
//! can do of ublk, kernel NBD, and a loop device on a FUSE file.

mod fuse_loop;
mod kernel;

pub(super) use kernel::{break_now, is_claimed};

use super::plan::Places;
use super::shared::Shared;
use super::{teardown, users};
use crate::config::model::{FrontEnd, Mirror};
use crate::engine::Handle;
use crate::failure::Failure;
use crate::kernel_device::{self, KernelDevice};
use host::keeper::Step;
use std::fs;
use std::io;
use std::path::Path;

/// Kinds of block devices, best first.
const KINDS: [FrontEnd; 3] = [FrontEnd::Ublk, FrontEnd::Nbd, FrontEnd::FuseLoop];

/// A mirror that can be used here.
#[derive(Debug)]
pub(super) enum Front {
    /// By its NBD socket only.
    Socket,
    /// As a block device, too.
    Device(Device),
}

/// A mirror's block device.
#[derive(Debug)]
pub(super) enum Device {
    /// A loop device.
    FuseLoop(fuse_loop::Device),
    /// A device of another driver.
    Kernel(kernel::Device),
}

impl Device {
    /// `/dev/loopN`, `/dev/ublkbN`, `/dev/nbdN`.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::FuseLoop(device) => device.path(),
            Self::Kernel(device) => device.path(),
        }
    }

    const fn kind(&self) -> FrontEnd {
        match self {
            Self::FuseLoop(_) => FrontEnd::FuseLoop,
            Self::Kernel(device) => device.kind(),
        }
    }

    /// The name of what the keeper has to hold of it.
    pub(super) const fn wants_item(&self) -> bool {
        matches!(self, Self::FuseLoop(_))
    }
}

/// How programs reach a mirror here, and why that way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) kind: FrontEnd,
    /// Why not a better one, if it was not asked for.
    pub(super) why: Option<String>,
}

/// Serves the mirror here. A device that an earlier daemon left is adopted, with what it had not answered.
pub(super) fn start(shared: &Shared, index: u8, mirror: &Mirror) -> Result<Front, Failure> {
    let engine = engine(shared, index, mirror)?;
    if !shared.plan.wants_device(mirror) {
        engine.serve(true);
        let (kind, why) = (FrontEnd::NbdSocket, None);
        shared.set_choice(index, Choice { kind, why });
        return Ok(Front::Socket);
    }
    shared.guard.ensure()?;
    let places = shared.plan.places(&mirror.name);
    let size = shared.size(index).ok_or_else(|| {
        failure(mirror)
            .cause("the replica is not attached")
            .hint("see the log for what its disk lacks")
    })?;
    let (device, why) = match adopt(shared, engine, mirror, size)? {
        Some(device) => (device, None),
        None => {
            let (kind, why) = choose(mirror)?;
            (make(shared, engine, mirror, kind, size)?, why)
        }
    };
    let path = device.path().to_owned();
    link(&places.link, &path).map_err(|e| failure(mirror).cause(e))?;
    engine.serve(true);
    let kind = device.kind();
    tracing::info!(mirror = mirror.name, device = %path.display(), front_end = kind.word(), why, "device is up");
    shared.set_choice(index, Choice { kind, why });
    Ok(Front::Device(device))
}

/// Takes the device and the NBD export away. Everything that was written has reached the engine.
pub(super) fn stop(
    shared: &Shared,
    index: u8,
    mirror: &Mirror,
    known: Option<Front>,
) -> Result<(), Failure> {
    // The descriptors held here would keep the device and the connection open.
    drop(known);
    let engine = engine(shared, index, mirror)?;
    if shared.plan.wants_device(mirror) {
        let places = shared.plan.places(&mirror.name);
        for found in left(mirror, &places)? {
            kernel::stop(mirror, found)?;
        }
        fuse_loop::stop(shared, engine, mirror)?;
        fs::remove_file(&places.link).ok();
        tracing::info!(mirror = mirror.name, "device is gone");
    }
    engine.serve(false);
    shared.forget_choice(index);
    Ok(())
}

/// The volume has grown: its device shows that, where the driver lets it while the device is in use.
pub(super) fn grown(
    shared: &Shared,
    index: u8,
    mirror: &Mirror,
    device: &mut Device,
) -> Result<(), Failure> {
    let size = shared.size(index).unwrap_or(0);
    match device {
        Device::FuseLoop(device) => device.grown(shared, mirror, size),
        Device::Kernel(device) => {
            tracing::warn!(
                mirror = mirror.name,
                device = %device.path().display(),
                "the volume has grown; this kind of device shows it after it is made anew: stop and start the group, or move it"
            );
            Ok(())
        }
    }
}

/// Gives what the keeper has to hold to another one, because the first is gone.
pub(super) fn entrust(shared: &Shared, places: &Places, device: &Device) -> Result<(), Failure> {
    let client = shared.guard.ensure()?;
    match device {
        Device::FuseLoop(device) => device.entrust(&client, places),
        Device::Kernel(_) => Ok(()),
    }
}

/// What the keeper does instead of [`stop`].
pub(super) fn steps(places: &Places, device: &Device) -> Vec<Step> {
    match device {
        Device::FuseLoop(device) => device.steps(places),
        Device::Kernel(device) => device.steps(),
    }
}

fn engine<'a>(shared: &'a Shared, index: u8, mirror: &Mirror) -> Result<&'a Handle, Failure> {
    shared
        .engines
        .get(&index)
        .ok_or_else(|| failure(mirror).cause("it has no engine on this node"))
}

/// Takes over what an earlier daemon left. What cannot be taken over, or is not of the wanted kind any more, is torn down: it
/// holds the places of what is to come, and programs may still wait for it.
fn adopt(
    shared: &Shared,
    engine: &Handle,
    mirror: &Mirror,
    size: u64,
) -> Result<Option<Device>, Failure> {
    let places = shared.plan.places(&mirror.name);
    let fits = |kind| mirror.front_end == FrontEnd::Auto || mirror.front_end == kind;
    let adopted = match (
        left(mirror, &places)?.as_slice(),
        fuse_loop::is_left(&places)?,
    ) {
        ([], false) => return Ok(None),
        ([], true) if fits(FrontEnd::FuseLoop) => {
            fuse_loop::adopt(shared, engine, mirror, size)?.map(Device::FuseLoop)
        }
        ([one], false) if fits(kind_of(*one)) => {
            kernel::adopt(engine, mirror, &places, *one, size).map(Device::Kernel)
        }
        (_, true | false) => None,
    };
    if adopted.is_none() {
        teardown::run(shared)?;
        shared.guard.ensure()?;
    }
    Ok(adopted)
}

const fn kind_of(device: KernelDevice) -> FrontEnd {
    match device {
        KernelDevice::Ublk(_) => FrontEnd::Ublk,
        KernelDevice::Nbd(_) => FrontEnd::Nbd,
    }
}

/// The wished kind, or the best that this kernel can do, with the reason why no better one.
fn choose(mirror: &Mirror) -> Result<(FrontEnd, Option<String>), Failure> {
    if mirror.front_end != FrontEnd::Auto {
        return match kernel::probe(mirror.front_end) {
            Ok(()) => Ok((mirror.front_end, None)),
            Err(why) => Err(failure(mirror).cause(why).hint(
                "install the kernel's module, or let front_end = \"auto\" choose what this kernel has",
            )),
        };
    }
    let mut reasons = Vec::new();
    for kind in KINDS {
        match kernel::probe(kind) {
            Ok(()) => {
                let why = (!reasons.is_empty()).then(|| reasons.join("; "));
                return Ok((kind, why));
            }
            Err(why) => reasons.push(why),
        }
    }
    Err(failure(mirror).cause(reasons.join("; ")))
}

fn make(
    shared: &Shared,
    engine: &Handle,
    mirror: &Mirror,
    kind: FrontEnd,
    size: u64,
) -> Result<Device, Failure> {
    let places = shared.plan.places(&mirror.name);
    match kind {
        FrontEnd::Ublk | FrontEnd::Nbd => {
            kernel::make(kind, engine, mirror, &places, size).map(Device::Kernel)
        }
        FrontEnd::FuseLoop | FrontEnd::NbdSocket | FrontEnd::Auto => {
            fuse_loop::make(shared, engine, mirror, size).map(Device::FuseLoop)
        }
    }
}

/// Devices of the kernel's drivers that are this mirror's.
fn left(mirror: &Mirror, places: &Places) -> Result<Vec<KernelDevice>, Failure> {
    kernel_device::find(&places.link)
        .map_err(|e| failure(mirror).cause(format!("cannot look for its devices: {e}")))
}

fn in_use(mirror: &Mirror, path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(format!("cannot close the device of mirror {}", mirror.name))
        .cause(format!("{}: {error}", path.display()));
    match users::of(path).as_slice() {
        [] => failure.hint("find out who uses it: a mount elsewhere, swap, another device on it"),
        users => failure.cause(format!("used by {}", users::list(users))),
    }
}

/// Replaces the link in one step.
fn link(link: &Path, device: &Path) -> io::Result<()> {
    let fresh = link.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    std::os::unix::fs::symlink(device, &fresh)?;
    fs::rename(&fresh, link)
}

fn failure(mirror: &Mirror) -> Failure {
    Failure::new(format!("cannot serve mirror {}", mirror.name))
}
