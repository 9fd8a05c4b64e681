//! The kernel's structures, in the machine's own byte order.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(super) const MAJOR: u32 = 7;
/// The protocol that is spoken; the kernel steps down to it.
pub(super) const MINOR: u32 = 41;
/// The oldest that is accepted: Linux 5.4.
pub(super) const MINOR_MIN: u32 = 31;

pub(super) const ROOT_NODE: u64 = 1;
pub(super) const FILE_NODE: u64 = 2;

/// Set in the `unique` of a request that is sent again; the answer carries it, too.
pub(super) const UNIQUE_RESEND: u64 = 1 << 63;

/// `FUSE_INIT` flags; the upper half travels in `flags2`.
pub(super) mod init {
    pub(crate) const ASYNC_READ: u64 = 1;
    pub(crate) const BIG_WRITES: u64 = 1 << 5;
    pub(crate) const ASYNC_DIO: u64 = 1 << 15;
    pub(crate) const PARALLEL_DIROPS: u64 = 1 << 18;
    pub(crate) const MAX_PAGES: u64 = 1 << 22;
    pub(crate) const INIT_EXT: u64 = 1 << 30;
    pub(crate) const HAS_RESEND: u64 = 1 << 39;
}

/// `FUSE_OPEN` answer flags.
pub(super) const FOPEN_DIRECT_IO: u32 = 1;
pub(super) const FOPEN_PARALLEL_DIRECT_WRITES: u32 = 1 << 6;

/// `FUSE_SETATTR`: the size is to change.
pub(super) const FATTR_SIZE: u32 = 1 << 3;

/// `FUSE_NOTIFY_INVAL_INODE`.
pub(super) const NOTIFY_INVAL_INODE: i32 = 2;

/// `FUSE_NOTIFY_RESEND`.
pub(super) const NOTIFY_RESEND: i32 = 7;

/// What the kernel asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Lookup,
    Forget,
    GetAttr,
    SetAttr,
    Open,
    Read,
    Write,
    StatFs,
    Release,
    Fsync,
    Flush,
    Init,
    Interrupt,
    Destroy,
    BatchForget,
    Fallocate,
    Unknown,
}

impl Opcode {
    pub(super) const fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Lookup,
            2 => Self::Forget,
            3 => Self::GetAttr,
            4 => Self::SetAttr,
            14 => Self::Open,
            15 => Self::Read,
            16 => Self::Write,
            17 => Self::StatFs,
            18 => Self::Release,
            20 => Self::Fsync,
            25 => Self::Flush,
            26 => Self::Init,
            36 => Self::Interrupt,
            38 => Self::Destroy,
            42 => Self::BatchForget,
            43 => Self::Fallocate,
            _ => Self::Unknown,
        }
    }
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct InHeader {
    pub(super) len: u32,
    pub(super) opcode: u32,
    pub(super) unique: u64,
    pub(super) node: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) pid: u32,
    pub(super) extensions: u16,
    pub(super) padding: u16,
}

pub(super) const IN_HEADER_LEN: usize = size_of::<InHeader>();

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct OutHeader {
    pub(super) len: u32,
    pub(super) error: i32,
    pub(super) unique: u64,
}

pub(super) const OUT_HEADER_LEN: usize = size_of::<OutHeader>();

/// The part of `fuse_init_in` that every accepted kernel sends.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct InitIn {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) max_readahead: u32,
    pub(super) flags: u32,
}

#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct InitOut {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) max_readahead: u32,
    pub(super) flags: u32,
    pub(super) max_background: u16,
    pub(super) congestion_threshold: u16,
    pub(super) max_write: u32,
    pub(super) time_granularity: u32,
    pub(super) max_pages: u16,
    pub(super) map_alignment: u16,
    pub(super) flags2: u32,
    pub(super) unused: [u32; 7],
}

#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Attr {
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) blocks: u64,
    pub(super) times: [u64; 3],
    pub(super) times_nanos: [u32; 3],
    pub(super) mode: u32,
    pub(super) links: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) device: u32,
    pub(super) block: u32,
    pub(super) flags: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct EntryOut {
    pub(super) node: u64,
    pub(super) generation: u64,
    pub(super) entry_valid: u64,
    pub(super) attr_valid: u64,
    pub(super) valid_nanos: [u32; 2],
    pub(super) attr: Attr,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct AttrOut {
    pub(super) attr_valid: u64,
    pub(super) attr_valid_nanos: u32,
    pub(super) padding: u32,
    pub(super) attr: Attr,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct OpenOut {
    pub(super) handle: u64,
    pub(super) flags: u32,
    pub(super) backing: u32,
}

/// `fuse_read_in` and `fuse_write_in`, which have the same shape.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct TransferIn {
    pub(super) handle: u64,
    pub(super) offset: u64,
    pub(super) size: u32,
    pub(super) transfer_flags: u32,
    pub(super) lock_owner: u64,
    pub(super) flags: u32,
    pub(super) padding: u32,
}

/// Where the payload of a write begins.
pub(super) const WRITE_HEAD_LEN: usize = IN_HEADER_LEN + size_of::<TransferIn>();

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct WriteOut {
    pub(super) size: u32,
    pub(super) padding: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct FallocateIn {
    pub(super) handle: u64,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) mode: u32,
    pub(super) padding: u32,
}

/// The beginning of `fuse_setattr_in`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct SetAttrIn {
    pub(super) valid: u32,
    pub(super) padding: u32,
    pub(super) handle: u64,
    pub(super) size: u64,
}

/// `struct fuse_notify_inval_inode_out`.
#[derive(IntoBytes, Immutable, Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct InvalInodeOut {
    pub(super) inode: u64,
    /// Negative: attributes only.
    pub(super) offset: i64,
    pub(super) len: i64,
}

#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct StatFsOut {
    pub(super) blocks: u64,
    pub(super) blocks_free: u64,
    pub(super) blocks_available: u64,
    pub(super) files: u64,
    pub(super) files_free: u64,
    pub(super) block: u32,
    pub(super) name_max: u32,
    pub(super) fragment: u32,
    pub(super) padding: u32,
    pub(super) spare: [u32; 6],
}

const _: () = assert!(IN_HEADER_LEN == 40 && OUT_HEADER_LEN == 16 && WRITE_HEAD_LEN == 80);
const _: () = assert!(size_of::<InitOut>() == 64 && size_of::<Attr>() == 88);
const _: () = assert!(size_of::<EntryOut>() == 128 && size_of::<AttrOut>() == 104);
const _: () = assert!(size_of::<StatFsOut>() == 80 && size_of::<FallocateIn>() == 32);
