//! A small durable file of two slots: one is always whole, whatever a crash does to the other.
//!
//! ```text
//! 0                 256 KiB             512 KiB
//! | slot A: header, payload | slot B: header, payload |
//! ```
//! Writes alternate between the slots, each with the next sequence number, and are synced before they count. A write
//! that a power cut tore leaves the other slot, with the value before it, untouched.
//!
//! A failed write or sync is final: the kernel may have dropped the dirty pages, so a second sync that succeeds proves
//! nothing. [`SaveError::Failed`] means that the process must end and start again from what is on the disk.

use rustix::fs::{RenameFlags, renameat_with};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use wire::version::Features;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Size of one slot, in bytes.
pub const SLOT_BYTES: usize = 256 * 1024;
/// Longest payload, in bytes. A longer one is refused before anything is written.
pub const PAYLOAD_MAX: usize = SLOT_BYTES - HEADER_BYTES;
/// Version of the file's format. A newer one is refused.
pub const FORMAT: u16 = 1;

const MAGIC: [u8; 8] = *b"BKSTSLOT";
const HEADER_BYTES: usize = 48;
const SECTOR_BYTES: usize = 512;

/// Little-endian, at the start of a slot; fits in one sector, so that it is never torn itself.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    format: U16,
    reserved: U16,
    payload_bytes: U32,
    compatible: U32,
    incompatible: U32,
    sequence: U64,
    payload_crc: U32,
    reserved_too: [u8; 8],
    /// CRC-32C of all bytes before it.
    header_crc: U32,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// The file could not be opened; the variants are what an operator has to tell apart.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such file: a node that never ran, or one that lost its state.
    #[error("{path} does not exist")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file has no content: it was emptied, or restored without its data.
    #[error("{path} is empty")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a state file.
    #[error("{path} is not a Backstay state file; it was left as it is")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Neither slot is whole.
    #[error("{path} is damaged: neither of its two copies is whole")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A newer release wrote it.
    #[error("{path} has format {format}, this release knows {FORMAT}: a newer release wrote it")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u16,
    },
    /// It needs features that this release lacks.
    #[error("{path} needs features {bits:#x} that this release does not know")]
    Features {
        /// The file.
        path: PathBuf,
        /// Its incompatible feature bits.
        bits: u32,
    },
    /// The system refused.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A payload was not saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Too long; nothing was written.
    #[error("state of {bytes} bytes does not fit in a slot of {PAYLOAD_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The disk failed. What it holds is unknown: end the process, never try again.
    #[error("cannot {doing} {path}; the state on disk is unknown")]
    Failed {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An earlier save failed.
    #[error("an earlier write of {path} failed; the state on disk is unknown")]
    FailedBefore {
        /// The file.
        path: PathBuf,
    },
}

/// What was found in the slot that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherSlot {
    /// Never written.
    Blank,
    /// The value before the one that was taken.
    Older,
    /// Not whole: most likely a write that a crash interrupted.
    Broken,
}

/// An open file and its content.
#[derive(Debug)]
pub struct Opened {
    /// For further saves.
    pub slots: Slots,
    /// The newest whole payload.
    pub payload: Vec<u8>,
    /// The state of the slot that was not taken, for the log.
    pub other: OtherSlot,
}

/// The file, open for saving.
#[derive(Debug)]
pub struct Slots {
    file: File,
    path: PathBuf,
    /// Sequence number of the newest durable payload; its lowest bit names the slot.
    sequence: u64,
    failed: bool,
}

enum Slot {
    Blank,
    Foreign,
    Broken,
    Newer { format: u16, sequence: u64 },
    Features { bits: u32, sequence: u64 },
    Whole { sequence: u64, payload: Vec<u8> },
}

impl Slots {
    /// Makes a new file with `payload` in it, durable with its name when this returns.
    ///
    /// # Errors
    /// [`SaveError::Failed`] also when the file exists already: nothing is ever overwritten.
    pub fn create(path: &Path, payload: &[u8]) -> Result<Self, SaveError> {
        let fail = |doing, source| SaveError::Failed {
            doing,
            path: path.to_owned(),
            source,
        };
        let draft = path.with_extension("new");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .map_err(|e| fail("create", e))?;
        // Real zeros, so that later saves change no block mapping.
        let zeros = vec![0; 2 * SLOT_BYTES];
        file.write_all_at(&zeros, 0).map_err(|e| fail("write", e))?;
        let mut slots = Self {
            file,
            path: path.to_owned(),
            sequence: 0,
            failed: false,
        };
        slots.save(payload)?;
        slots.file.sync_all().map_err(|e| fail("sync", e))?;
        let cwd = rustix::fs::CWD;
        renameat_with(cwd, &draft, cwd, path, RenameFlags::NOREPLACE)
            .map_err(|e| fail("create", e.into()))?;
        sync_parent(path).map_err(|e| fail("sync the directory of", e))?;
        Ok(slots)
    }

    /// Opens a file and reads its newest whole payload.
    ///
    /// # Errors
    /// See [`OpenError`]; the file is never changed.
    pub fn open(path: &Path) -> Result<Opened, OpenError> {
        let fail = |doing, source| OpenError::Io {
            doing,
            path: path.to_owned(),
            source,
        };
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let file = match opened {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::Missing {
                    path: path.to_owned(),
                });
            }
            Err(e) => return Err(fail("open", e)),
        };
        let mut bytes = vec![0; 2 * SLOT_BYTES];
        let read = read_as_far_as_it_goes(&file, &mut bytes).map_err(|e| fail("read", e))?;
        if read == 0 {
            return Err(OpenError::Empty {
                path: path.to_owned(),
            });
        }
        let (a, b) = bytes.split_at(SLOT_BYTES);
        let (sequence, payload, other) = choose(path, read_slot(a), read_slot(b))?;
        let slots = Self {
            file,
            path: path.to_owned(),
            sequence,
            failed: false,
        };
        Ok(Opened {
            slots,
            payload,
            other,
        })
    }

    /// Writes `payload` into the older slot and syncs it: durable when this returns.
    ///
    /// # Errors
    /// [`SaveError::Failed`] ends this file's use: every later call fails too.
    pub fn save(&mut self, payload: &[u8]) -> Result<(), SaveError> {
        if self.failed {
            return Err(SaveError::FailedBefore {
                path: self.path.clone(),
            });
        }
        let sequence = self.sequence.saturating_add(1);
        let bytes = encode(sequence, payload)?;
        self.failed = true;
        let fail = |doing, source| SaveError::Failed {
            doing,
            path: self.path.clone(),
            source,
        };
        self.file
            .write_all_at(&bytes, offset_of(sequence))
            .map_err(|e| fail("write", e))?;
        self.file.sync_data().map_err(|e| fail("sync", e))?;
        self.failed = false;
        self.sequence = sequence;
        Ok(())
    }

    /// Sequence number of the newest durable payload; rises by one with each save.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }
}

const fn offset_of(sequence: u64) -> u64 {
    if sequence % 2 == 1 {
        0
    } else {
        SLOT_BYTES as u64
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

fn read_as_far_as_it_goes(file: &File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        let offset = u64::try_from(done).map_err(io::Error::other)?;
        match file.read_at(&mut bytes[done..], offset) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// One slot's bytes, padded to whole sectors.
fn encode(sequence: u64, payload: &[u8]) -> Result<Vec<u8>, SaveError> {
    let too_long = || SaveError::TooLong {
        bytes: payload.len(),
    };
    if payload.len() > PAYLOAD_MAX {
        return Err(too_long());
    }
    let mut header = Header {
        magic: MAGIC,
        format: U16::new(FORMAT),
        reserved: U16::ZERO,
        payload_bytes: U32::new(u32::try_from(payload.len()).map_err(|_| too_long())?),
        compatible: U32::new(Features::OURS.compatible),
        incompatible: U32::new(Features::OURS.incompatible),
        sequence: U64::new(sequence),
        payload_crc: U32::new(crc32c::crc32c(payload)),
        reserved_too: [0; 8],
        header_crc: U32::ZERO,
    };
    header.header_crc = U32::new(header_crc(&header));
    let padded = (HEADER_BYTES + payload.len()).next_multiple_of(SECTOR_BYTES);
    let mut bytes = Vec::with_capacity(padded);
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(payload);
    bytes.resize(padded, 0);
    Ok(bytes)
}

fn header_crc(header: &Header) -> u32 {
    crc32c::crc32c(&header.as_bytes()[..HEADER_BYTES - 4])
}

fn read_slot(slot: &[u8]) -> Slot {
    let Ok((header, rest)) = Header::read_from_prefix(slot) else {
        return Slot::Broken;
    };
    if header.as_bytes().iter().all(|b| *b == 0) {
        return Slot::Blank;
    }
    if header.magic != MAGIC {
        return Slot::Foreign;
    }
    if header.header_crc.get() != header_crc(&header) {
        return Slot::Broken;
    }
    let sequence = header.sequence.get();
    if header.format.get() > FORMAT {
        return Slot::Newer {
            format: header.format.get(),
            sequence,
        };
    }
    let bits = header.incompatible.get();
    if !(Features {
        compatible: 0,
        incompatible: bits,
    })
    .understood()
    {
        return Slot::Features { bits, sequence };
    }
    let payload = usize::try_from(header.payload_bytes.get())
        .ok()
        .and_then(|n| rest.get(..n));
    match payload {
        Some(payload) if crc32c::crc32c(payload) == header.payload_crc.get() => Slot::Whole {
            sequence,
            payload: payload.to_vec(),
        },
        Some(_) | None => Slot::Broken,
    }
}

impl Slot {
    const fn sequence(&self) -> Option<u64> {
        match self {
            Self::Blank | Self::Foreign | Self::Broken => None,
            Self::Newer { sequence, .. }
            | Self::Features { sequence, .. }
            | Self::Whole { sequence, .. } => Some(*sequence),
        }
    }
}

/// The newest slot decides, also when this release cannot read it: an older value must not come back to life.
fn choose(path: &Path, a: Slot, b: Slot) -> Result<(u64, Vec<u8>, OtherSlot), OpenError> {
    let path = path.to_owned();
    let (newest, other) = if a.sequence() >= b.sequence() {
        (a, b)
    } else {
        (b, a)
    };
    let other = match (&newest, &other) {
        (Slot::Broken | Slot::Foreign, _) | (_, Slot::Broken | Slot::Foreign) => OtherSlot::Broken,
        (_, Slot::Blank) => OtherSlot::Blank,
        (_, Slot::Newer { .. } | Slot::Features { .. } | Slot::Whole { .. }) => OtherSlot::Older,
    };
    match newest {
        Slot::Whole { sequence, payload } => Ok((sequence, payload, other)),
        Slot::Newer { format, .. } => Err(OpenError::Newer { path, format }),
        Slot::Features { bits, .. } => Err(OpenError::Features { path, bits }),
        Slot::Blank if other == OtherSlot::Blank => Err(OpenError::Empty { path }),
        Slot::Foreign => Err(OpenError::Foreign { path }),
        Slot::Blank | Slot::Broken => Err(OpenError::Damaged { path }),
    }
}

#[cfg(test)]
mod tests;
