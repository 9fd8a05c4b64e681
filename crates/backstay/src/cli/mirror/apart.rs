//! Disks with their metadata on a device of its own: opening both, and telling whether they belong together.

use std::path::{Path, PathBuf};

use host::disk::{DiskView, OpenError};
use wire::External;
use wire::layout::{Layout, Superblock};

/// The option that names the metadata's device.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Beside {
    /// The device that has the disk's metadata, if that is not at the disk's end
    #[arg(long, value_name = "DEVICE")]
    pub(super) metadata: Option<PathBuf>,
}

impl Beside {
    /// Opens both to be looked at.
    pub(super) fn view(&self, disk: &Path) -> Result<DiskView, OpenError> {
        self.open(disk, DiskView::open)
    }

    /// Opens both and keeps others from using them.
    pub(super) fn view_alone(&self, disk: &Path) -> Result<DiskView, OpenError> {
        self.open(disk, DiskView::open_alone)
    }

    fn open(
        &self,
        disk: &Path,
        open: impl Fn(&Path) -> Result<DiskView, OpenError>,
    ) -> Result<DiskView, OpenError> {
        let view = open(disk)?;
        match &self.metadata {
            None => Ok(view),
            Some(device) => Ok(view.with_metadata(open(device)?)),
        }
    }
}

/// Why the metadata is not of this disk, as an own sentence; none if it is.
pub(super) fn mismatch(here: Option<&External>, found: &Superblock) -> Option<String> {
    match (here, &found.external) {
        (None, None) => None,
        (Some(here), Some(there)) if here.may_be(there) && here.disk_bytes == there.disk_bytes => {
            None
        }
        (Some(here), Some(there)) => Some(format!(
            "the metadata is of {}; beside it is {}",
            called(there),
            called(here)
        )),
        (Some(_), None) => {
            Some("the metadata is of a disk that has data and metadata on it".to_owned())
        }
        (None, Some(there)) => Some(format!("it has the metadata of {}", called(there))),
    }
}

/// The layout, if nothing of it crosses from one device to the other.
pub(super) fn fits(here: Option<&External>, layout: Layout) -> bool {
    here.is_none_or(|disk| layout.beside(disk.disk_bytes).is_some())
}

/// A disk in words.
pub(super) fn called(disk: &External) -> String {
    let bytes = disk.disk_bytes;
    match &disk.name {
        Some(name) => format!("a disk of {bytes} bytes, {name}"),
        None => format!("a disk of {bytes} bytes without a name"),
    }
}
