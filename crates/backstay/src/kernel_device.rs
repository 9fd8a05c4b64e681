//! Block devices of the kernel's own drivers that a daemon serves: ublk and NBD. They outlive the daemon, and are found again by
//! whose they are.

use host::{nbd_device, ublk};
use std::io;
use std::path::{Path, PathBuf};

/// Where the kernel lists ublk devices, once the driver is loaded.
const UBLK_LIST: &str = "/sys/class/ublk-char";

/// A device that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KernelDevice {
    /// `/dev/ublkbN`.
    Ublk(ublk::Info),
    /// `/dev/nbdN`.
    Nbd(u32),
}

impl KernelDevice {
    /// Its node in `/dev`.
    pub(crate) fn path(self) -> PathBuf {
        match self {
            Self::Ublk(info) => ublk::path(info.id),
            Self::Nbd(index) => nbd_device::path(index),
        }
    }

    /// Takes it out of the system. What is under way on it fails, unless it is a ublk device whose server is alive: that one is
    /// waited for.
    pub(crate) fn stop(self) -> io::Result<()> {
        match self {
            Self::Ublk(info) => {
                let mut control = ublk::Control::open()?;
                control.stop(info.id)?;
                control.delete(info.id)
            }
            Self::Nbd(index) => nbd_device::disconnect(index),
        }
    }
}

/// Whose the devices of the mirror are to which `link` is the link.
pub(crate) fn identity(link: &Path) -> String {
    format!("backstay:{}", link.display())
}

/// The devices of that mirror, whoever serves them. Usually one or none.
pub(crate) fn find(link: &Path) -> io::Result<Vec<KernelDevice>> {
    let identity = identity(link);
    let nbd = nbd_device::find(&identity)?;
    let mut found: Vec<KernelDevice> = nbd.into_iter().map(KernelDevice::Nbd).collect();
    if Path::new(UBLK_LIST).is_dir() {
        let ublk = ublk::Control::open()?.find(ublk::identity(&identity))?;
        found.extend(ublk.into_iter().map(KernelDevice::Ublk));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_devices_of_a_mirror_that_is_not() {
        let link = Path::new("/nowhere/run/data.device");
        assert_eq!(identity(link), "backstay:/nowhere/run/data.device");
        assert_eq!(find(link).unwrap(), Vec::new());
    }
}
