//! `include/uapi/linux/ublk_cmd.h`.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Commands to `/dev/ublk-control`: `_IOR('u', …, struct ublksrv_ctrl_cmd)` and `_IOWR`.
pub(super) mod control {
    const READ: u32 = 2 << 30 | 32 << 16 | 0x75 << 8;
    const BOTH: u32 = 3 << 30 | 32 << 16 | 0x75 << 8;
    pub(in super::super) const GET_DEV_INFO: u32 = READ | 0x02;
    pub(in super::super) const ADD_DEV: u32 = BOTH | 0x04;
    pub(in super::super) const DEL_DEV: u32 = BOTH | 0x05;
    pub(in super::super) const START_DEV: u32 = BOTH | 0x06;
    pub(in super::super) const STOP_DEV: u32 = BOTH | 0x07;
    pub(in super::super) const SET_PARAMS: u32 = BOTH | 0x08;
    pub(in super::super) const START_USER_RECOVERY: u32 = BOTH | 0x10;
    pub(in super::super) const END_USER_RECOVERY: u32 = BOTH | 0x11;
    pub(in super::super) const GET_FEATURES: u32 = READ | 0x13;
}

/// Commands to `/dev/ublkcN`: `_IOWR('u', …, struct ublksrv_io_cmd)`.
pub(super) mod io {
    const BOTH: u32 = 3 << 30 | 16 << 16 | 0x75 << 8;
    pub(in super::super) const FETCH_REQ: u32 = BOTH | 0x20;
    pub(in super::super) const COMMIT_AND_FETCH_REQ: u32 = BOTH | 0x21;
}

pub(super) const F_USER_RECOVERY: u64 = 1 << 3;
pub(super) const F_USER_RECOVERY_REISSUE: u64 = 1 << 4;
pub(super) const F_CMD_IOCTL_ENCODE: u64 = 1 << 6;

pub(super) const S_DEV_DEAD: u16 = 0;
pub(super) const S_DEV_LIVE: u16 = 1;

pub(super) const OP_READ: u32 = 0;
pub(super) const OP_WRITE: u32 = 1;
pub(super) const OP_FLUSH: u32 = 2;
pub(super) const OP_DISCARD: u32 = 3;
pub(super) const OP_WRITE_ZEROES: u32 = 5;
/// The operation in `op_flags`.
pub(super) const OP_MASK: u32 = 0xff;
pub(super) const IO_F_FUA: u32 = 1 << 13;

pub(super) const ATTR_VOLATILE_CACHE: u32 = 1 << 2;
pub(super) const ATTR_FUA: u32 = 1 << 3;

pub(super) const PARAM_TYPE_BASIC: u32 = 1 << 0;
pub(super) const PARAM_TYPE_DISCARD: u32 = 1 << 1;

/// Any device, or any queue.
pub(super) const NEW_DEVICE: u32 = u32::MAX;
pub(super) const NO_QUEUE: u16 = u16::MAX;

/// `struct ublksrv_ctrl_cmd`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes)]
#[repr(C)]
pub(super) struct CtrlCmd {
    pub(super) dev_id: u32,
    pub(super) queue_id: u16,
    pub(super) len: u16,
    pub(super) addr: u64,
    pub(super) data: u64,
    pub(super) dev_path_len: u16,
    pub(super) pad: u16,
    pub(super) reserved: u32,
}

/// `struct ublksrv_ctrl_dev_info`.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes)]
#[repr(C)]
pub(super) struct DevInfo {
    pub(super) nr_hw_queues: u16,
    pub(super) queue_depth: u16,
    pub(super) state: u16,
    pub(super) pad0: u16,
    pub(super) max_io_buf_bytes: u32,
    pub(super) dev_id: u32,
    pub(super) ublksrv_pid: i32,
    pub(super) pad1: u32,
    pub(super) flags: u64,
    /// Of no interest to the driver: whose the device is.
    pub(super) ublksrv_flags: u64,
    pub(super) owner_uid: u32,
    pub(super) owner_gid: u32,
    pub(super) reserved: [u64; 2],
}

/// `struct ublk_params` up to and without `devt`.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes)]
#[repr(C)]
pub(super) struct Params {
    pub(super) len: u32,
    pub(super) types: u32,
    // struct ublk_param_basic
    pub(super) attrs: u32,
    pub(super) logical_bs_shift: u8,
    pub(super) physical_bs_shift: u8,
    pub(super) io_opt_shift: u8,
    pub(super) io_min_shift: u8,
    pub(super) max_sectors: u32,
    pub(super) chunk_sectors: u32,
    pub(super) dev_sectors: u64,
    pub(super) virt_boundary_mask: u64,
    // struct ublk_param_discard
    pub(super) discard_alignment: u32,
    pub(super) discard_granularity: u32,
    pub(super) max_discard_sectors: u32,
    pub(super) max_write_zeroes_sectors: u32,
    pub(super) max_discard_segments: u16,
    pub(super) reserved: u16,
    /// The first word of what follows and is not given.
    pub(super) devt: u32,
}

/// `struct ublksrv_io_desc`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct IoDesc {
    pub(super) op_flags: u32,
    pub(super) nr_sectors: u32,
    pub(super) start_sector: u64,
    pub(super) addr: u64,
}

/// `struct ublksrv_io_cmd`.
#[derive(Clone, Copy, Debug, Immutable, IntoBytes)]
#[repr(C)]
pub(super) struct IoCmd {
    pub(super) q_id: u16,
    pub(super) tag: u16,
    pub(super) result: i32,
    pub(super) addr: u64,
}

const _: () = assert!(size_of::<CtrlCmd>() == 32 && size_of::<DevInfo>() == 64);
const _: () = assert!(size_of::<Params>() == 64 && size_of::<IoDesc>() == 24);
const _: () = assert!(size_of::<IoCmd>() == 16);
