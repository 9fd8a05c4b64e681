//! A file with what a failover cut off: the ranges' content one after the other, and an index beside it.
//!
//! `MIRROR-epochE-N.data` is written first and made durable, then `MIRROR-epochE-N.json`, which says where each piece was. A
//! data file without an index was not finished.

use host::disk::Disk;
use host::ring::Buf;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
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

#[derive(Serialize)]
struct Index<'a> {
    schema: &'static str,
    mirror: &'a str,
    epoch: u64,
    data: String,
    crc32c: u32,
    /// Byte offset in the volume, and length; in the order of the data file.
    ranges: Vec<(u64, u64)>,
}

impl Copy {
    /// Makes it, durably.
    pub(super) fn run(&self) -> io::Result<()> {
        fs::create_dir_all(&self.to)?;
        let stem = self.free_name()?;
        let data = self.to.join(format!("{stem}.data"));
        let mut file = File::create_new(&data)?;
        let crc = self.copy(&mut file)?;
        file.sync_all()?;
        let index = Index {
            schema: "backstay.cut-off/1",
            mirror: &self.mirror,
            epoch: self.epoch.0,
            data: format!("{stem}.data"),
            crc32c: crc,
            ranges: self.ranges.iter().map(|r| (r.offset(), r.len())).collect(),
        };
        let text = serde_json::to_vec_pretty(&index).map_err(io::Error::other)?;
        let mut file = File::create_new(self.to.join(format!("{stem}.json")))?;
        file.write_all(&text)?;
        file.sync_all()?;
        sync_directory(&self.to)
    }

    fn free_name(&self) -> io::Result<String> {
        let name = |n: u32| format!("{}-epoch{}-{n}", self.mirror, self.epoch.0);
        let free = |stem: &String| !self.to.join(format!("{stem}.data")).exists();
        let found = (1..=FILES_MAX).map(name).find(free);
        found.ok_or_else(|| {
            io::Error::other(format!(
                "{} holds {FILES_MAX} files of this epoch",
                self.to.display()
            ))
        })
    }

    fn copy(&self, file: &mut File) -> io::Result<u32> {
        let mut crc = 0;
        for range in &self.ranges {
            let len = usize::try_from(range.len()).map_err(io::Error::other)?;
            let mut buf = Buf::new(len);
            self.disk.read_now(range.offset(), &mut buf)?;
            crc = crc32c::crc32c_append(crc, &buf);
            file.write_all(&buf)?;
        }
        Ok(crc)
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
