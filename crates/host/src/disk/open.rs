//! Opening: exclusively, past the page cache, and with an answer when it cannot be had.

use super::fault::FaultShim;
use super::{Disk, busy, name, whole_blocks};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, SeekFrom, StatxFlags};
use rustix::io::Errno;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The smallest unit in which a disk is read and written, in bytes.
const LOGICAL_BLOCK_MIN: u32 = 512;
/// The largest logical block that the mirror can work with, in bytes.
const LOGICAL_BLOCK_MAX: u32 = 4096;

/// What tmpfs calls itself in `statfs(2)`.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// How to open a [`Disk`].
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Work through the page cache where the file system has no `O_DIRECT`. Durability then rests on flushes alone.
    pub allow_buffered: bool,
    /// Put the lab's fault shim into the path; its control file and journal are in this directory.
    pub fault_dir: Option<PathBuf>,
    /// The device that the metadata is on; none: it is at the disk's end. It has a fault shim of its own, in `metadata` below
    /// `fault_dir`.
    pub metadata: Option<PathBuf>,
}

/// Why a backing disk could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// There is nothing at the path.
    Missing {
        /// The configured path.
        path: PathBuf,
    },
    /// Neither a block device nor a regular file.
    NotADisk {
        /// The configured path.
        path: PathBuf,
    },
    /// Someone else uses it.
    InUse {
        /// The configured path.
        path: PathBuf,
        /// A mount point, a device or a process.
        by: String,
    },
    /// Its file system cannot bypass the page cache.
    NoDirect {
        /// The configured path.
        path: PathBuf,
    },
    /// It holds no whole block, or its blocks are larger than 4096 bytes.
    Geometry {
        /// The configured path.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// Its logical block in bytes.
        logical_block: u32,
    },
    /// The kernel refused a step.
    Io {
        /// The configured path.
        path: PathBuf,
        /// The step, as a verb phrase.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl OpenError {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Missing { path } => {
                format!(
                    "check the disk's path in the configuration, or create {}",
                    path.display()
                )
            }
            Self::NotADisk { .. } => "give a block device or a regular file".to_owned(),
            Self::InUse { by, .. } => {
                format!("stop {by} from using it; a mirror needs the disk for itself")
            }
            Self::NoDirect { .. } => {
                "put the file on ext4, XFS or tmpfs, or use a device".to_owned()
            }
            Self::Geometry { .. } => {
                "use a disk with blocks of 512 to 4096 bytes and at least one of them".to_owned()
            }
            Self::Io { .. } => "check the kernel log and the rights of this process".to_owned(),
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path } => write!(f, "disk {} does not exist", path.display()),
            Self::NotADisk { path } => {
                write!(
                    f,
                    "{} is neither a block device nor a regular file",
                    path.display()
                )
            }
            Self::InUse { path, by } => write!(f, "disk {} is in use by {by}", path.display()),
            Self::NoDirect { path } => {
                write!(
                    f,
                    "disk {} cannot be accessed past the page cache",
                    path.display()
                )
            }
            Self::Geometry {
                path,
                size,
                logical_block,
            } => write!(
                f,
                "disk {} has {size} bytes in blocks of {logical_block}",
                path.display()
            ),
            Self::Io { path, step, .. } => write!(f, "cannot {step} disk {}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Missing { .. }
            | Self::NotADisk { .. }
            | Self::InUse { .. }
            | Self::NoDirect { .. }
            | Self::Geometry { .. } => None,
        }
    }
}

impl Disk {
    /// Opens `path` for this process alone: a block device with `O_EXCL`, a file with an exclusive lock. The metadata's device
    /// likewise.
    ///
    /// # Errors
    /// [`OpenError`] names the path, the reason and, through [`OpenError::hint`], the next step.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, OpenError> {
        let mut disk = Self::open_one(path, options)?;
        if let Some(metadata) = &options.metadata {
            let own = OpenOptions {
                fault_dir: options.fault_dir.as_ref().map(|dir| dir.join("metadata")),
                metadata: None,
                ..options.clone()
            };
            let metadata = Self::open_one(metadata, &own)?;
            for one in [&disk, &metadata] {
                if whole_blocks(one.size) == 0 {
                    return Err(OpenError::Geometry {
                        path: one.path.clone(),
                        size: one.size,
                        logical_block: one.logical_block,
                    });
                }
            }
            disk.metadata = Some(Box::new(metadata));
        }
        Ok(disk)
    }

    fn open_one(path: &Path, options: &OpenOptions) -> Result<Self, OpenError> {
        let failed = |step| {
            let path = path.to_owned();
            move |source: io::Error| OpenError::Io { path, step, source }
        };
        let meta = match std::fs::metadata(path) {
            Ok(meta) => meta,
            Err(why) if why.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::Missing {
                    path: path.to_owned(),
                });
            }
            Err(why) => return Err(failed("examine")(why)),
        };
        let is_device = meta.file_type().is_block_device();
        if !is_device && !meta.is_file() {
            return Err(OpenError::NotADisk {
                path: path.to_owned(),
            });
        }
        let file = open_exclusively(path, &meta, is_device, options.allow_buffered)?;
        let (bytes, logical_block) = if is_device {
            device_geometry(&file).map_err(failed("measure"))?
        } else {
            (meta.len(), file_block(&file))
        };
        let in_memory = !is_device && is_in_memory(&file);
        let size = bytes - bytes % u64::from(logical_block.max(1));
        if size == 0 || !(LOGICAL_BLOCK_MIN..=LOGICAL_BLOCK_MAX).contains(&logical_block) {
            return Err(OpenError::Geometry {
                path: path.to_owned(),
                size: bytes,
                logical_block,
            });
        }
        let fault = match &options.fault_dir {
            None => None,
            Some(dir) => {
                let shim = FaultShim::open(dir).map_err(failed("put the fault shim before"))?;
                Some(Arc::new(shim))
            }
        };
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            logical_block,
            is_device,
            in_memory,
            fault,
            name: name::of(&meta),
            metadata: None,
        })
    }
}

fn open_exclusively(
    path: &Path,
    meta: &std::fs::Metadata,
    is_device: bool,
    allow_buffered: bool,
) -> Result<File, OpenError> {
    let failed = |source: Errno| OpenError::Io {
        path: path.to_owned(),
        step: "open",
        source: source.into(),
    };
    let exclusive = if is_device {
        OFlags::EXCL
    } else {
        OFlags::empty()
    };
    let plain = OFlags::RDWR | OFlags::CLOEXEC | exclusive;
    let opened = match rustix::fs::open(path, plain | OFlags::DIRECT, Mode::empty()) {
        Err(Errno::INVAL) if allow_buffered => rustix::fs::open(path, plain, Mode::empty()),
        Err(Errno::INVAL) => {
            return Err(OpenError::NoDirect {
                path: path.to_owned(),
            });
        }
        other => other,
    };
    let file = match opened {
        Err(Errno::BUSY) => {
            let by = busy::device_user(path, meta.rdev());
            return Err(OpenError::InUse {
                path: path.to_owned(),
                by,
            });
        }
        other => File::from(other.map_err(failed)?),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => {
            let by = busy::file_user(meta.ino());
            Err(OpenError::InUse {
                path: path.to_owned(),
                by,
            })
        }
        Err(errno) => Err(failed(errno)),
    }
}

/// True for files of tmpfs.
fn is_in_memory(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|fs| fs.f_type == TMPFS_MAGIC)
}

/// Size in bytes and logical block of a block device.
fn device_geometry(file: &File) -> io::Result<(u64, u32)> {
    let size = rustix::fs::seek(file, SeekFrom::End(0))?;
    Ok((size, rustix::fs::ioctl_blksszget(file)?))
}

/// The alignment that direct I/O on a file needs, where the kernel (6.1 and later) tells; 512 elsewhere.
fn file_block(file: &File) -> u32 {
    match rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) {
        Ok(stat) if stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0 => {
            stat.stx_dio_offset_align.max(LOGICAL_BLOCK_MIN)
        }
        Ok(_) | Err(_) => LOGICAL_BLOCK_MIN,
    }
}
