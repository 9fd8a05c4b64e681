//! The protocol as a pure state machine: one request in, one action out.

use super::abi::{
    self, Attr, AttrOut, EntryOut, FallocateIn, IN_HEADER_LEN, InHeader, InitIn, InitOut, Opcode,
    OpenOut, OutHeader, SetAttrIn, StatFsOut, TransferIn, init,
};
use super::{BACKGROUND_MAX, FILE_NAME, TRANSFER_MAX};
use crate::disk::to_u64;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// For how long the kernel may believe attributes, in seconds: it is told when the size changes.
const VALID_SECS: u64 = 3600;

/// What the kernel and an earlier daemon agreed on; kept by the keeper beside the descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Negotiated {
    /// Minor version of protocol 7.
    pub minor: u32,
    /// Accepted `FUSE_INIT` flags.
    pub flags: u64,
    /// The file's size in bytes.
    pub size: u64,
    /// Smallest unit of offsets and lengths, in bytes.
    pub block: u32,
}

impl Negotiated {
    /// For the keeper.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// From the keeper; `None` when it was written by something else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }

    /// Whether the kernel can send unanswered requests again (Linux 6.9 and later).
    #[must_use]
    pub fn can_resend(&self) -> bool {
        self.flags & init::HAS_RESEND != 0
    }
}

/// A request for the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoRequest {
    /// The kernel's mark, to be given back in the answer.
    pub unique: u64,
    /// What to do. Ranges are within the file and multiples of its block; reads may be empty.
    pub kind: IoKind,
}

impl IoRequest {
    /// It was sent to an earlier daemon, which may or may not have carried it out.
    #[must_use]
    pub fn is_resent(&self) -> bool {
        self.unique & abi::UNIQUE_RESEND != 0
    }
}

/// What the engine has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoKind {
    /// At most [`TRANSFER_MAX`] bytes.
    Read {
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u32,
    },
    /// At most [`TRANSFER_MAX`] bytes, which follow the request's head.
    Write {
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u32,
    },
    /// Everything that was answered has to be durable.
    Flush,
    /// The range has to read zero.
    Zero {
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u64,
        /// It may become a hole.
        hole: bool,
    },
}

/// What follows from a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes.
    Reply(Vec<u8>),
    /// The first request was answered: send these bytes, then tell the keeper what was agreed.
    Ready(Vec<u8>, Negotiated),
    /// Let the engine do it.
    Io(IoRequest),
    /// Nothing.
    Nothing,
}

/// The file system's side of one FUSE connection.
#[derive(Debug)]
pub struct Session {
    size: u64,
    block: u32,
    negotiated: Option<Negotiated>,
}

impl Session {
    /// For a fresh mount of a file of `size` bytes, in blocks of `block` bytes.
    #[must_use]
    pub fn new(size: u64, block: u32) -> Self {
        Self {
            size,
            block,
            negotiated: None,
        }
    }

    /// For a connection that an earlier daemon negotiated.
    #[must_use]
    pub fn adopt(negotiated: Negotiated) -> Self {
        let Negotiated { size, block, .. } = negotiated;
        Self {
            size,
            block,
            negotiated: Some(negotiated),
        }
    }

    /// The file has another size from now on.
    pub fn resize(&mut self, size: u64) {
        self.size = size;
        if let Some(negotiated) = &mut self.negotiated {
            negotiated.size = size;
        }
    }

    /// What was agreed on, once it is.
    #[must_use]
    pub fn negotiated(&self) -> Option<Negotiated> {
        self.negotiated
    }

    /// Handles one request: `message` is everything up to, but not including, the payload of a write, whose length is
    /// `payload_len`.
    #[must_use]
    pub fn handle(&mut self, message: &[u8], payload_len: usize) -> Action {
        let Ok((header, body)) = InHeader::read_from_prefix(message) else {
            return Action::Nothing;
        };
        let unique = header.unique;
        let opcode = Opcode::from_code(header.opcode);
        let outcome = match opcode {
            Opcode::Forget | Opcode::BatchForget | Opcode::Interrupt => return Action::Nothing,
            Opcode::Init => return self.on_init(unique, body),
            _ if self.negotiated.is_none() => Err(Errno::IO),
            Opcode::Read => match self.on_read(body) {
                Ok(kind) => return Action::Io(IoRequest { unique, kind }),
                Err(errno) => Err(errno),
            },
            Opcode::Write => match self.on_write(body, payload_len) {
                Ok(kind) => return Action::Io(IoRequest { unique, kind }),
                Err(errno) => Err(errno),
            },
            Opcode::Fsync => {
                return Action::Io(IoRequest {
                    unique,
                    kind: IoKind::Flush,
                });
            }
            Opcode::Fallocate => match self.on_fallocate(body) {
                Ok(Some(kind)) => return Action::Io(IoRequest { unique, kind }),
                Ok(None) => Ok(Vec::new()),
                Err(errno) => Err(errno),
            },
            Opcode::Lookup => self.on_lookup(header.node, body),
            Opcode::GetAttr => self.attr_out(header.node),
            Opcode::SetAttr => self.on_setattr(header.node, body),
            Opcode::Open => Self::on_open(header.node),
            Opcode::StatFs => Ok(self.statfs()),
            Opcode::Release | Opcode::Flush | Opcode::Destroy => Ok(Vec::new()),
            Opcode::Unknown => Err(Errno::NOSYS),
        };
        match outcome {
            Ok(body) => Action::Reply(answer(unique, &body)),
            Err(errno) => Action::Reply(refusal(unique, errno)),
        }
    }

    fn on_init(&mut self, unique: u64, body: &[u8]) -> Action {
        let Ok((asked, rest)) = InitIn::read_from_prefix(body) else {
            return Action::Reply(refusal(unique, Errno::INVAL));
        };
        if asked.major != abi::MAJOR || asked.minor < abi::MINOR_MIN {
            return Action::Reply(refusal(unique, Errno::PROTO));
        }
        let mut offered = u64::from(asked.flags);
        if offered & init::INIT_EXT != 0
            && let Ok((more, _)) = u32::read_from_prefix(rest)
        {
            offered |= u64::from(more) << 32;
        }
        let wanted = init::ASYNC_READ
            | init::BIG_WRITES
            | init::ASYNC_DIO
            | init::PARALLEL_DIROPS
            | init::MAX_PAGES
            | init::INIT_EXT
            | init::HAS_RESEND;
        let flags = offered & wanted;
        let minor = asked.minor.min(abi::MINOR);
        let reply = InitOut {
            major: abi::MAJOR,
            minor: abi::MINOR,
            max_readahead: asked.max_readahead,
            flags: low_half(flags),
            max_background: BACKGROUND_MAX,
            congestion_threshold: BACKGROUND_MAX / 4 * 3,
            max_write: TRANSFER_MAX,
            time_granularity: 1,
            max_pages: u16::try_from(TRANSFER_MAX / 4096).unwrap_or(u16::MAX),
            flags2: low_half(flags >> 32),
            ..InitOut::default()
        };
        let negotiated = Negotiated {
            minor,
            flags,
            size: self.size,
            block: self.block,
        };
        self.negotiated = Some(negotiated);
        Action::Ready(answer(unique, reply.as_bytes()), negotiated)
    }

    fn on_read(&self, body: &[u8]) -> Result<IoKind, Errno> {
        let wanted = parse::<TransferIn>(body)?;
        if wanted.size > TRANSFER_MAX {
            return Err(Errno::INVAL);
        }
        let left = self.size.saturating_sub(wanted.offset);
        let len = u32::try_from(left).unwrap_or(u32::MAX).min(wanted.size);
        self.aligned(wanted.offset, len.into())?;
        Ok(IoKind::Read {
            offset: wanted.offset,
            len,
        })
    }

    fn on_write(&self, body: &[u8], payload_len: usize) -> Result<IoKind, Errno> {
        let wanted = parse::<TransferIn>(body)?;
        let (offset, len) = (wanted.offset, wanted.size);
        if len == 0 || len > TRANSFER_MAX || u64::from(len) != to_u64(payload_len) {
            return Err(Errno::INVAL);
        }
        self.within(offset, len.into())?;
        self.aligned(offset, len.into())?;
        Ok(IoKind::Write { offset, len })
    }

    /// `None`: nothing has to be done, the file has its full size from the start.
    fn on_fallocate(&self, body: &[u8]) -> Result<Option<IoKind>, Errno> {
        let wanted = parse::<FallocateIn>(body)?;
        let (offset, len) = (wanted.offset, wanted.len);
        self.within(offset, len)?;
        let mode = rustix::fs::FallocateFlags::from_bits_retain(wanted.mode);
        let keep = rustix::fs::FallocateFlags::KEEP_SIZE;
        let zero = rustix::fs::FallocateFlags::ZERO_RANGE;
        let hole = if mode == crate::disk::PUNCH {
            true
        } else if mode.difference(keep) == zero {
            false
        } else if mode.difference(keep).is_empty() {
            return Ok(None);
        } else {
            return Err(Errno::OPNOTSUPP);
        };
        self.aligned(offset, len)?;
        Ok(Some(IoKind::Zero { offset, len, hole }))
    }

    fn on_lookup(&self, node: u64, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        if node != abi::ROOT_NODE || name != FILE_NAME.as_bytes() {
            return Err(Errno::NOENT);
        }
        let entry = EntryOut {
            node: abi::FILE_NODE,
            generation: 0,
            entry_valid: VALID_SECS,
            attr_valid: VALID_SECS,
            valid_nanos: [0; 2],
            attr: self.attr(abi::FILE_NODE)?,
        };
        Ok(entry.as_bytes().to_vec())
    }

    fn on_setattr(&self, node: u64, body: &[u8]) -> Result<Vec<u8>, Errno> {
        let wanted = parse::<SetAttrIn>(body)?;
        if wanted.valid & abi::FATTR_SIZE != 0 && wanted.size != self.size {
            return Err(Errno::PERM);
        }
        self.attr_out(node)
    }

    fn on_open(node: u64) -> Result<Vec<u8>, Errno> {
        if node != abi::FILE_NODE {
            return Err(Errno::ISDIR);
        }
        let flags = abi::FOPEN_DIRECT_IO | abi::FOPEN_PARALLEL_DIRECT_WRITES;
        Ok(OpenOut {
            handle: 1,
            flags,
            backing: 0,
        }
        .as_bytes()
        .to_vec())
    }

    fn attr_out(&self, node: u64) -> Result<Vec<u8>, Errno> {
        let attr = self.attr(node)?;
        let out = AttrOut {
            attr_valid: VALID_SECS,
            attr_valid_nanos: 0,
            padding: 0,
            attr,
        };
        Ok(out.as_bytes().to_vec())
    }

    fn attr(&self, node: u64) -> Result<Attr, Errno> {
        let common = Attr {
            inode: node,
            block: 4096,
            ..Attr::default()
        };
        match node {
            abi::ROOT_NODE => Ok(Attr {
                mode: libc::S_IFDIR | 0o700,
                links: 2,
                ..common
            }),
            abi::FILE_NODE => Ok(Attr {
                mode: libc::S_IFREG | 0o600,
                links: 1,
                size: self.size,
                blocks: self.size / 512,
                ..common
            }),
            _ => Err(Errno::NOENT),
        }
    }

    fn statfs(&self) -> Vec<u8> {
        let statfs = StatFsOut {
            blocks: self.size / 4096,
            files: 1,
            block: 4096,
            fragment: 4096,
            name_max: 255,
            ..StatFsOut::default()
        };
        statfs.as_bytes().to_vec()
    }

    fn within(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let end = offset.checked_add(len).ok_or(Errno::INVAL)?;
        if end <= self.size {
            Ok(())
        } else {
            Err(Errno::NOSPC)
        }
    }

    fn aligned(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let block = u64::from(self.block);
        if offset.is_multiple_of(block) && len.is_multiple_of(block) {
            Ok(())
        } else {
            Err(Errno::INVAL)
        }
    }
}

fn parse<T: FromBytes + Immutable>(body: &[u8]) -> Result<T, Errno> {
    T::read_from_prefix(body)
        .map(|(value, _)| value)
        .map_err(|_| Errno::INVAL)
}

/// The lower 32 bits.
fn low_half(flags: u64) -> u32 {
    u32::try_from(flags & u64::from(u32::MAX)).unwrap_or(0)
}

/// The header of an answer with `len` bytes after it.
pub(super) fn out_header(unique: u64, errno: Option<Errno>, len: usize) -> OutHeader {
    let len = u32::try_from(len + abi::OUT_HEADER_LEN).unwrap_or(u32::MAX);
    OutHeader {
        len,
        error: errno.map_or(0, |errno| -errno.raw_os_error()),
        unique,
    }
}

/// An answer with a short body.
pub(super) fn answer(unique: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = out_header(unique, None, body.len()).as_bytes().to_vec();
    bytes.extend(body);
    bytes
}

/// An answer that says no.
pub(super) fn refusal(unique: u64, errno: Errno) -> Vec<u8> {
    out_header(unique, Some(errno), 0).as_bytes().to_vec()
}

/// Length and kind of a raw message: where its payload begins, if it is a write.
pub(super) fn payload_start(message: &[u8]) -> Option<usize> {
    let (header, _) = InHeader::read_from_prefix(message).ok()?;
    let is_write = Opcode::from_code(header.opcode) == Opcode::Write;
    is_write.then_some(abi::WRITE_HEAD_LEN)
}

const _: () = assert!(IN_HEADER_LEN < abi::WRITE_HEAD_LEN);
