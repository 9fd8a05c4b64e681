//! The protocol's numbers.

use std::io;

pub(super) const GREETING: u64 = 0x4e42_444d_4147_4943; // "NBDMAGIC"
pub(super) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054; // "IHAVEOPT"
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
pub(super) const REQUEST_MAGIC: u32 = 0x2560_9513;
pub(super) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
pub(super) const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Handshake flags of either side.
pub(super) const FLAG_FIXED_NEWSTYLE: u16 = 1;
pub(super) const FLAG_NO_ZEROES: u16 = 1 << 1;

/// What a client may ask for during negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opt {
    ExportName,
    Abort,
    List,
    StartTls,
    Info,
    Go,
    StructuredReply,
    ListMetaContext,
    SetMetaContext,
    Unknown,
}

impl Opt {
    pub(super) const fn from_code(code: u32) -> Self {
        match code {
            1 => Self::ExportName,
            2 => Self::Abort,
            3 => Self::List,
            5 => Self::StartTls,
            6 => Self::Info,
            7 => Self::Go,
            8 => Self::StructuredReply,
            9 => Self::ListMetaContext,
            10 => Self::SetMetaContext,
            _ => Self::Unknown,
        }
    }
}

pub(super) const REP_ACK: u32 = 1;
pub(super) const REP_SERVER: u32 = 2;
pub(super) const REP_INFO: u32 = 3;
pub(super) const REP_META_CONTEXT: u32 = 4;
const REP_ERROR: u32 = 1 << 31;
pub(super) const REP_ERR_UNSUP: u32 = REP_ERROR | 1;
pub(super) const REP_ERR_POLICY: u32 = REP_ERROR | 2;
pub(super) const REP_ERR_INVALID: u32 = REP_ERROR | 3;
pub(super) const REP_ERR_UNKNOWN: u32 = REP_ERROR | 6;
pub(super) const REP_ERR_SHUTDOWN: u32 = REP_ERROR | 7;
pub(super) const REP_ERR_TOO_BIG: u32 = REP_ERROR | 9;

pub(super) const INFO_EXPORT: u16 = 0;
pub(super) const INFO_NAME: u16 = 1;
pub(super) const INFO_DESCRIPTION: u16 = 2;
pub(super) const INFO_BLOCK_SIZE: u16 = 3;

/// Transmission flags.
pub(super) const HAS_FLAGS: u16 = 1;
pub(super) const READ_ONLY: u16 = 1 << 1;
pub(super) const SEND_FLUSH: u16 = 1 << 2;
pub(super) const SEND_FUA: u16 = 1 << 3;
pub(super) const SEND_TRIM: u16 = 1 << 5;
pub(super) const SEND_WRITE_ZEROES: u16 = 1 << 6;
pub(super) const SEND_DF: u16 = 1 << 7;
pub(super) const CAN_MULTI_CONN: u16 = 1 << 8;
pub(super) const SEND_CACHE: u16 = 1 << 10;
pub(super) const SEND_FAST_ZERO: u16 = 1 << 11;

/// Command flags.
pub(super) const CMD_FUA: u16 = 1;
pub(super) const CMD_NO_HOLE: u16 = 1 << 1;
pub(super) const CMD_DF: u16 = 1 << 2;
pub(super) const CMD_REQ_ONE: u16 = 1 << 3;
pub(super) const CMD_FAST_ZERO: u16 = 1 << 4;

pub(super) const CHUNK_DONE: u16 = 1;
pub(super) const CHUNK_OFFSET_DATA: u16 = 1;
pub(super) const CHUNK_BLOCK_STATUS: u16 = 5;
pub(super) const CHUNK_ERROR: u16 = (1 << 15) | 1;

/// The one metadata context that is offered.
pub(super) const BASE_ALLOCATION: &str = "base:allocation";
pub(super) const STATE_HOLE: u32 = 1;
pub(super) const STATE_ZERO: u32 = 1 << 1;

/// The error numbers that the protocol knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// `EPERM`: writing to a read-only export.
    Permission,
    /// `EIO`: the mirror could not do it.
    Io,
    /// `ENOMEM`.
    Memory,
    /// `EINVAL`: the request makes no sense.
    Invalid,
    /// `ENOSPC`: a write beyond the end, or no room.
    NoSpace,
    /// `EOVERFLOW`: more than can be answered at once.
    Overflow,
    /// `ENOTSUP`: not possible, or not fast.
    NotSupported,
    /// `ESHUTDOWN`: this node has stopped serving.
    Shutdown,
}

impl ErrorCode {
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Permission => 1,
            Self::Io => 5,
            Self::Memory => 12,
            Self::Invalid => 22,
            Self::NoSpace => 28,
            Self::Overflow => 75,
            Self::NotSupported => 95,
            Self::Shutdown => 108,
        }
    }

    /// The nearest that the protocol has for an error of the system.
    #[must_use]
    pub fn from_io(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES | libc::EROFS) => Self::Permission,
            Some(libc::ENOMEM) => Self::Memory,
            Some(libc::EINVAL) => Self::Invalid,
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => Self::NoSpace,
            Some(libc::EOPNOTSUPP) => Self::NotSupported,
            Some(libc::ESHUTDOWN) => Self::Shutdown,
            Some(_) | None => Self::Io,
        }
    }
}
