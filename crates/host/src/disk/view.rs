//! A disk that is only looked at: nothing is written, nobody is kept out, and nobody keeps us out.

use super::{OpenError, Spot, busy, name, to_u64, whole_blocks};
use crate::ring::Buf;
use rustix::fs::{FlockOperation, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use wire::External;

/// A disk or a file, open for reading. Reads go past the page cache where the file system lets them.
#[derive(Debug)]
pub struct DiskView {
    path: PathBuf,
    file: File,
    size: u64,
    name: Option<String>,
    metadata: Option<Box<Self>>,
}

impl DiskView {
    /// Opens `path` whoever uses it.
    ///
    /// # Errors
    /// [`OpenError`] when there is no disk, or it may not be read.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_with(path, OFlags::empty())
    }

    /// Opens `path` and keeps others from using it as a mirror's disk until this is dropped.
    ///
    /// # Errors
    /// As [`DiskView::open`]; [`OpenError::InUse`] when somebody uses it.
    pub fn open_alone(path: &Path) -> Result<Self, OpenError> {
        let view = Self::open_with(path, OFlags::EXCL)?;
        match rustix::fs::flock(&view.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(view),
            Err(_) => Err(OpenError::InUse {
                path: path.to_owned(),
                by: view.user().unwrap_or_else(|| "another process".to_owned()),
            }),
        }
    }

    /// The same disk with its metadata on a device of its own, behind it in the address space.
    #[must_use]
    pub fn with_metadata(self, device: Self) -> Self {
        Self {
            metadata: Some(Box::new(device)),
            ..self
        }
    }

    /// Which disk the metadata on a device of its own is of; none if it is at the disk's end.
    #[must_use]
    pub fn external(&self) -> Option<External> {
        let own = External::new(whole_blocks(self.size), self.name.as_deref());
        self.metadata.as_ref().map(|_| own)
    }

    fn open_with(path: &Path, exclusive: OFlags) -> Result<Self, OpenError> {
        let failed = |step| {
            let path = path.to_owned();
            move |source: io::Error| OpenError::Io { path, step, source }
        };
        let path_owned = path.to_owned();
        let meta = match std::fs::metadata(path) {
            Ok(meta) => meta,
            Err(why) if why.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::Missing { path: path_owned });
            }
            Err(why) => return Err(failed("examine")(why)),
        };
        let is_device = meta.file_type().is_block_device();
        if !is_device && !meta.is_file() {
            return Err(OpenError::NotADisk { path: path_owned });
        }
        let exclusive = if is_device {
            exclusive
        } else {
            OFlags::empty()
        };
        let plain = OFlags::RDONLY | OFlags::CLOEXEC | exclusive;
        let opened = match rustix::fs::open(path, plain | OFlags::DIRECT, Mode::empty()) {
            Err(Errno::INVAL) => rustix::fs::open(path, plain, Mode::empty()),
            other => other,
        };
        let file = match opened {
            Err(Errno::BUSY) => {
                let by = busy::device_user(path, meta.rdev());
                return Err(OpenError::InUse {
                    path: path_owned,
                    by,
                });
            }
            other => File::from(other.map_err(|errno| failed("open")(errno.into()))?),
        };
        let size = rustix::fs::seek(&file, SeekFrom::End(0))
            .map_err(|errno| failed("measure")(errno.into()))?;
        Ok(Self {
            path: path_owned,
            file,
            size,
            name: name::of(&meta),
            metadata: None,
        })
    }

    /// Size in bytes; with the metadata's device.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.metadata {
            None => self.size,
            Some(metadata) => whole_blocks(self.size) + whole_blocks(metadata.size),
        }
    }

    /// Who uses it at the moment, if anybody keeps it for himself.
    #[must_use]
    pub fn user(&self) -> Option<String> {
        let of_metadata = || self.metadata.as_ref().and_then(|device| device.user());
        self.own_user().or_else(of_metadata)
    }

    fn own_user(&self) -> Option<String> {
        let meta = self.file.metadata().ok()?;
        if !meta.file_type().is_block_device() {
            return busy::lock_owner(meta.ino());
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::EXCL;
        match rustix::fs::open(&self.path, flags, Mode::empty()) {
            Err(Errno::BUSY) => Some(busy::device_user(&self.path, meta.rdev())),
            Ok(_) | Err(_) => None,
        }
    }

    /// Reads all of `buf` at `offset`. Both are multiples of 4096, for disks that need it.
    ///
    /// # Errors
    /// What the disk reports; `UnexpectedEof` beyond the end.
    pub fn read_now(&self, offset: u64, buf: &mut Buf) -> io::Result<()> {
        let mut at = 0;
        while at < buf.len() {
            let behind = self.metadata.as_ref().map(|device| &device.file);
            let spot = Spot::of(offset + to_u64(at), &self.file, self.size, behind);
            let end = spot.end_of(at, buf.len());
            let done = rustix::io::pread(spot.file, &mut buf[at..end], spot.offset)?;
            if done == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at += done;
        }
        Ok(())
    }
}
