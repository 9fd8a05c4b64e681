//! What a failover cut off goes to a file of its own: `MIRROR-epochE-N`, as [`crate::saved`] says.

use crate::saved::{Files, Source};
use host::disk::Disk;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use wire::{ByteRange, Epoch};

/// Most files of one mirror and epoch; more are refused, so that a loop of restarts does not fill the disk.
const FILES_MAX: u32 = 16;

/// One copy to be made.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) disk: Arc<Disk>,
    /// The directory.
    pub(super) to: PathBuf,
    pub(super) mirror: String,
    pub(super) epoch: Epoch,
    pub(super) ranges: Vec<ByteRange>,
}

impl Copy {
    /// Makes it, durably.
    pub(super) fn run(&self) -> io::Result<()> {
        fs::create_dir_all(&self.to)?;
        let source = Source {
            mirror: &self.mirror,
            epoch: self.epoch.0,
            ranges: &self.ranges,
            from: None,
        };
        let files = self.free_files()?;
        files.save(&source, |at, buf| self.disk.read_now(at, buf))
    }

    fn free_files(&self) -> io::Result<Files> {
        let files = |n: u32| {
            let stem = format!("{}-epoch{}-{n}.data", self.mirror, self.epoch.0);
            Files::of(&self.to.join(stem))
        };
        let found = (1..=FILES_MAX).map(files).find(|it| !it.data.exists());
        found.ok_or_else(|| {
            io::Error::other(format!(
                "{} holds {FILES_MAX} files of this epoch",
                self.to.display()
            ))
        })
    }
}
