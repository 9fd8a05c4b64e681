//! Devices of the kernel's own drivers: ublk, and the kernel's NBD client.
//!
//! ```text
//!  ext4 ─► /dev/ublkbN ─► ublk driver ─► io_uring ────► engine thread
//!  ext4 ─► /dev/nbdN ───► NBD client ──► Unix socket ─► engine thread
//! ```
//! Both drivers keep the requests of a device whose daemon has died, and hand them to the next one.

use super::{failure, in_use};
use crate::config::model::{FrontEnd, Mirror};
use crate::engine::Handle;
use crate::failure::Failure;
use crate::kernel_device::{self, KernelDevice};
use crate::run::resources::plan::Places;
use crate::run::resources::users;
use host::keeper::Step;
use host::{nbd_device, ublk};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How long the kernel may take to notice that the daemon before this one is gone.
const RECOVERY_LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(5);

/// The device.
#[derive(Debug)]
pub(in crate::run::resources) struct Device {
    which: KernelDevice,
    identity: String,
    path: PathBuf,
}

impl Device {
    fn new(which: KernelDevice, places: &Places) -> Self {
        Self {
            which,
            identity: kernel_device::identity(&places.link),
            path: which.path(),
        }
    }

    /// `/dev/ublkbN`, `/dev/nbdN`.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Which of the two it is.
    pub(super) const fn kind(&self) -> FrontEnd {
        match self.which {
            KernelDevice::Ublk(_) => FrontEnd::Ublk,
            KernelDevice::Nbd(_) => FrontEnd::Nbd,
        }
    }

    /// What the keeper does instead of [`stop`].
    pub(super) fn steps(&self) -> Vec<Step> {
        let identity = self.identity.clone();
        vec![match self.which {
            KernelDevice::Ublk(info) => Step::StopUblk {
                id: info.id,
                identity,
            },
            KernelDevice::Nbd(index) => Step::DetachNbd { index, identity },
        }]
    }
}

/// Whether this kernel has the driver. Loads it if it is a module.
///
/// # Errors
/// Why it cannot be used, in one line.
pub(super) fn probe(kind: FrontEnd) -> Result<(), String> {
    let (module, name) = match kind {
        FrontEnd::Ublk => ("ublk_drv", "ublk"),
        FrontEnd::Nbd => ("nbd", "NBD"),
        FrontEnd::Auto | FrontEnd::FuseLoop | FrontEnd::NbdSocket => return Ok(()),
    };
    let try_it = || match kind {
        FrontEnd::Ublk => ublk::Control::open().map(drop),
        FrontEnd::Auto | FrontEnd::Nbd | FrontEnd::FuseLoop | FrontEnd::NbdSocket => {
            nbd_device::probe()
        }
    };
    if try_it().is_ok() {
        return Ok(());
    }
    let loaded = Command::new("modprobe")
        .args(["-q", module])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tracing::debug!(module, ?loaded, "tried to load a module");
    try_it().map_err(|why| {
        if why.kind() == io::ErrorKind::NotFound {
            return format!("this kernel has no {name} (module {module})");
        }
        format!("{name} cannot be used: {why}")
    })
}

/// Takes over a device that an earlier daemon left; none if that is not possible.
pub(super) fn adopt(
    engine: &Handle,
    mirror: &Mirror,
    places: &Places,
    left: KernelDevice,
    size: u64,
) -> Option<Device> {
    let adopted = match size_of(&left.path()) {
        // It may have grown since: the device shows that when it is made anew.
        Ok(found) if found <= size => match left {
            KernelDevice::Ublk(info) => recover(engine, info),
            KernelDevice::Nbd(index) => reconnect(engine, places, index, found),
        },
        Ok(found) => Err(io::Error::other(format!(
            "it has {found} bytes, not {size}"
        ))),
        Err(error) => Err(error),
    };
    let device = left.path();
    match adopted {
        Ok(()) => {
            tracing::info!(mirror = mirror.name, device = %device.display(), "device of an earlier daemon is adopted");
            Some(Device::new(left, places))
        }
        Err(error) => {
            tracing::warn!(%error, device = %device.display(), "device of an earlier daemon cannot be adopted");
            None
        }
    }
}

fn recover(engine: &Handle, info: ublk::Info) -> io::Result<()> {
    let mut control = ublk::Control::open()?;
    let deadline = Instant::now() + RECOVERY_LIMIT;
    loop {
        match control.begin_recovery(info.id) {
            Ok(()) => break,
            // The kernel is not done with the daemon that died.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::BUSY) => {
                if Instant::now() > deadline {
                    return Err(error);
                }
                thread::sleep(PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
    engine.attach_ublk(Arc::new(ublk::Queue::open(info.id)?));
    control.end_recovery(info.id)
}

fn reconnect(engine: &Handle, places: &Places, index: u32, size: u64) -> io::Result<()> {
    let (ours, kernels) = UnixStream::pair()?;
    engine.attach_nbd(ours, size);
    let identity = kernel_device::identity(&places.link);
    nbd_device::reconnect(index, &identity, &[kernels.as_fd()])
}

/// Makes a new one.
pub(super) fn make(
    kind: FrontEnd,
    engine: &Handle,
    mirror: &Mirror,
    places: &Places,
    size: u64,
) -> Result<Device, Failure> {
    let made = match kind {
        FrontEnd::Ublk => make_ublk(engine, places, size),
        FrontEnd::Auto | FrontEnd::Nbd | FrontEnd::FuseLoop | FrontEnd::NbdSocket => {
            make_nbd(engine, places, size)
        }
    };
    let which = made.map_err(|e| {
        let hint = "see the kernel's log, or choose another front_end for the mirror";
        failure(mirror)
            .cause(format!("{}: {e}", kind.word()))
            .hint(hint)
    })?;
    Ok(Device::new(which, places))
}

fn make_ublk(engine: &Handle, places: &Places, size: u64) -> io::Result<KernelDevice> {
    let mut control = ublk::Control::open()?;
    let id = control.add(ublk::Spec {
        identity: ublk::identity(&kernel_device::identity(&places.link)),
        size,
        block: engine.logical_block(),
    })?;
    let started = ublk::Queue::open(id).and_then(|queue| {
        engine.attach_ublk(Arc::new(queue));
        control.start(id)
    });
    if let Err(error) = started {
        engine.fail_ublk();
        control.stop(id)?;
        control.delete(id)?;
        return Err(error);
    }
    control.info(id).map(KernelDevice::Ublk)
}

fn make_nbd(engine: &Handle, places: &Places, size: u64) -> io::Result<KernelDevice> {
    let (ours, kernels) = UnixStream::pair()?;
    engine.attach_nbd(ours, size);
    let identity = kernel_device::identity(&places.link);
    let spec = nbd_device::Spec {
        identity: &identity,
        size,
        block: engine.logical_block(),
    };
    nbd_device::connect(spec, &[kernels.as_fd()]).map(KernelDevice::Nbd)
}

/// Takes the device away, if nobody uses it. Everything that was written has reached the engine.
pub(super) fn stop(mirror: &Mirror, found: KernelDevice) -> Result<(), Failure> {
    let path = found.path();
    if !users::of(&path).is_empty() || is_claimed(&path) {
        return Err(in_use(mirror, &path, &Errno::BUSY.into()));
    }
    found.stop().map_err(|e| in_use(mirror, &path, &e))
}

/// Takes the device away, whoever uses it: what is under way on it fails.
pub(in crate::run::resources) fn break_now(
    engine: Option<&Handle>,
    found: KernelDevice,
) -> io::Result<()> {
    if let Some(engine) = engine {
        engine.fail_ublk();
    }
    found.stop()
}

/// A file system is mounted from it, or another device lies on it.
pub(in crate::run::resources) fn is_claimed(path: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
    matches!(
        rustix::fs::open(path, flags, Mode::empty()),
        Err(Errno::BUSY)
    )
}

/// In bytes.
fn size_of(device: &Path) -> io::Result<u64> {
    let name = device.file_name().unwrap_or_default();
    let text = fs::read_to_string(Path::new("/sys/class/block").join(name).join("size"))?;
    let sectors: u64 = text.trim_end().parse().map_err(io::Error::other)?;
    Ok(sectors.saturating_mul(512))
}
