//! A loop device on a FUSE file.
//!
//! ```text
//!  ext4 ─► /dev/loopN ─► FUSE file `volume` ─► /dev/fuse ─► engine thread
//!                                                 └──── a copy is with the keeper: the mount outlives the daemon
//! ```
//! The loop device clears itself when its last user closes it, so that nothing of it outlives a machine's mounts.

use super::{failure, in_use};
use crate::config::model::Mirror;
use crate::engine::Handle;
use crate::failure::Failure;
use crate::run::resources::plan::Places;
use crate::run::resources::shared::Shared;
use host::fuse::{Channel, Negotiated};
use host::keeper::{Client, Step};
use host::loopdev::{self, Attach, LoopDevice};
use host::mount::{self, Unmount};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// How long the kernel and the engine may take to agree on a fresh mount.
const NEGOTIATION_LIMIT: Duration = Duration::from_secs(5);

/// The device.
#[derive(Debug)]
pub(in crate::run::resources) struct Device {
    path: PathBuf,
    /// Keeps the loop device while nothing is mounted from it.
    open: LoopDevice,
    /// For another keeper, if the present one dies.
    fuse: OwnedFd,
    negotiated: Negotiated,
}

impl Device {
    /// `/dev/loopN`.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives what the keeper has to hold to another one, because the first is gone.
    pub(super) fn entrust(&self, client: &Client, places: &Places) -> Result<(), Failure> {
        client
            .put(&places.item, &self.fuse, self.negotiated.to_bytes())
            .map_err(|e| {
                Failure::new(format!("cannot give {} to the keeper", places.item)).from_error(&e)
            })
    }

    /// The volume has grown: the engine has told the kernel to look at the file again.
    pub(super) fn grown(
        &mut self,
        shared: &Shared,
        mirror: &Mirror,
        size: u64,
    ) -> Result<(), Failure> {
        let places = shared.plan.places(&mirror.name);
        self.take_size(&places, size)
            .map_err(|e| failure(mirror).cause(e))?;
        self.negotiated.size = size;
        let client = shared.guard.ensure()?;
        self.entrust(&client, &places)
    }

    /// The kernel looks at the file's size, then at the device's.
    fn take_size(&self, places: &Places, size: u64) -> io::Result<()> {
        let shown = fs::metadata(&places.file)?.len();
        if shown != size {
            let why = format!("the kernel still takes it for {shown} bytes instead of {size}");
            return Err(io::Error::other(why));
        }
        self.open.take_size()
    }

    /// What the keeper does instead of [`stop`].
    pub(super) fn steps(&self, places: &Places) -> Vec<Step> {
        vec![
            Step::AbortFuse {
                target: places.mount.clone(),
            },
            Step::DetachLoop {
                device: self.path.clone(),
            },
            Step::Unmount {
                target: places.mount.clone(),
            },
            Step::Close {
                name: places.item.clone(),
            },
        ]
    }
}

/// Whether an earlier daemon left something of this kind.
pub(super) fn is_left(places: &Places) -> Result<bool, Failure> {
    let read = |e: io::Error| Failure::new("cannot read the mount table").cause(e);
    Ok(mount::mounted_at(&places.mount).map_err(read)?.is_some())
}

/// Takes over what an earlier daemon left; none if that is not possible.
pub(super) fn adopt(
    shared: &Shared,
    engine: &Handle,
    mirror: &Mirror,
    size: u64,
) -> Result<Option<Device>, Failure> {
    let places = shared.plan.places(&mirror.name);
    let client = shared.guard.ensure()?;
    let Some((fuse, negotiated)) = adopt_connection(engine, &client, &places, size) else {
        return Ok(None);
    };
    let device = attach_loop(mirror, &places, engine.logical_block())?;
    let device = Device {
        path: device.path().to_owned(),
        open: device,
        fuse,
        negotiated,
    };
    // It may have grown behind the earlier daemon's back.
    if let Err(error) = device.take_size(&places, size) {
        tracing::warn!(%error, mirror = mirror.name, "the device does not show the volume's size");
    }
    device.entrust(&client, &places)?;
    Ok(Some(device))
}

/// Makes a new one.
pub(super) fn make(
    shared: &Shared,
    engine: &Handle,
    mirror: &Mirror,
    size: u64,
) -> Result<Device, Failure> {
    let places = shared.plan.places(&mirror.name);
    let client = shared.guard.ensure()?;
    client.forget(&places.item).ok();
    let (fuse, negotiated) = mount_fresh(engine, &client, &places, mirror, size)?;
    let device = attach_loop(mirror, &places, engine.logical_block())?;
    Ok(Device {
        path: device.path().to_owned(),
        open: device,
        fuse,
        negotiated,
    })
}

/// Takes the device away. Everything that was written has reached the engine.
pub(super) fn stop(shared: &Shared, engine: &Handle, mirror: &Mirror) -> Result<(), Failure> {
    let places = shared.plan.places(&mirror.name);
    detach_loops(mirror, &places)?;
    unmount(mirror, &places)?;
    engine.detach_fuse();
    if let Some((client, _)) = shared.guard.find() {
        // It may hold nothing, after a start that failed.
        client.forget(&places.item).ok();
    }
    fs::remove_dir(&places.mount).ok();
    Ok(())
}

/// The connection that the keeper holds, if it is one to the file that is mounted.
fn adopt_connection(
    engine: &Handle,
    client: &Client,
    places: &Places,
    size: u64,
) -> Option<(OwnedFd, Negotiated)> {
    mount::mounted_at(&places.mount).ok().flatten()?;
    let (fd, blob) = client.get(&places.item).ok()?;
    let negotiated = Negotiated::from_bytes(&blob).filter(|before| before.size <= size)?;
    let negotiated = Negotiated { size, ..negotiated };
    let copy = fd.try_clone().ok()?;
    match Channel::adopt(fd, negotiated) {
        Ok(channel) => {
            // Nothing is negotiated again.
            let (sender, _) = mpsc::channel();
            engine.attach_fuse(channel, sender);
            tracing::info!(item = places.item, "mount of an earlier daemon is adopted");
            Some((copy, negotiated))
        }
        Err(error) => {
            tracing::warn!(%error, item = places.item, "mount of an earlier daemon cannot be adopted");
            None
        }
    }
}

fn mount_fresh(
    engine: &Handle,
    client: &Client,
    places: &Places,
    mirror: &Mirror,
    size: u64,
) -> Result<(OwnedFd, Negotiated), Failure> {
    let fail = |e: io::Error| failure(mirror).cause(e);
    fs::create_dir_all(&places.mount).map_err(fail)?;
    let source = format!("backstay:{}", mirror.name);
    let channel =
        Channel::mount(&places.mount, &source, size, engine.logical_block()).map_err(|e| {
            fail(e).hint("FUSE is needed: is the module fuse loaded and /dev/fuse there?")
        })?;
    let undo = |failure: Failure| {
        engine.detach_fuse();
        if let Err(error) = mount::abort(&places.mount) {
            tracing::warn!(%error, mount = %places.mount.display(), "half a mount is left");
        }
        failure
    };
    let copy = channel.try_clone_fd().map_err(|e| undo(fail(e)))?;
    let (sender, receiver) = mpsc::channel();
    engine.attach_fuse(channel, sender);
    let negotiated = receiver.recv_timeout(NEGOTIATION_LIMIT).map_err(|_| {
        undo(failure(mirror).cause("the kernel and the engine do not come to terms"))
    })?;
    client
        .put(&places.item, &copy, negotiated.to_bytes())
        .map_err(|e| undo(failure(mirror).from_error(&e)))?;
    Ok((copy, negotiated))
}

fn attach_loop(mirror: &Mirror, places: &Places, block: u32) -> Result<LoopDevice, Failure> {
    let fail = |e: io::Error| failure(mirror).cause(e);
    let found = loopdev::find(&places.file).map_err(fail)?;
    if let Some(path) = found.first() {
        let device = LoopDevice::open(path).map_err(fail)?;
        // It may have cleared itself just before it was opened.
        if loopdev::backing_file(path).as_deref() == Some(places.file.as_path()) {
            return Ok(device);
        }
    }
    let how = Attach {
        block_size: block,
        autoclear: true,
    };
    LoopDevice::attach(&places.file, how).map_err(|e| {
        fail(e).hint("loop devices are needed: is the module loop loaded and a /dev/loopN free?")
    })
}

fn detach_loops(mirror: &Mirror, places: &Places) -> Result<(), Failure> {
    for path in loopdev::find(&places.file).map_err(|e| failure(mirror).cause(e))? {
        let detached = LoopDevice::open(&path).and_then(LoopDevice::detach);
        detached.map_err(|e| in_use(mirror, &path, &e))?;
    }
    Ok(())
}

fn unmount(mirror: &Mirror, places: &Places) -> Result<(), Failure> {
    match mount::unmount(&places.mount, Unmount::Clean) {
        Ok(()) => Ok(()),
        Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::INVAL | Errno::NOENT)) => Ok(()),
        Err(e) => Err(in_use(mirror, &places.mount, &e)),
    }
}
