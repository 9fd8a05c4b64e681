//! `/dev/ublk-control`: devices from their beginning to their end.
#![allow(
    unsafe_code,
    reason = "control commands are submission queue entries with raw pointers"
)]

use super::abi::{self, CtrlCmd, DevInfo, Params, control};
use super::{DEPTH, LOOK, TRANSFER_MAX, ZERO_MAX};
use io_uring::squeue::Entry128;
use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode};
use rustix::fs::{Mode, OFlags};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use zerocopy::IntoBytes;

const DEVICE: &str = "/dev/ublk-control";
/// Where the kernel lists the devices.
const LIST: &str = "/sys/class/ublk-char";

/// What a new device is like.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Whose it is.
    pub identity: u64,
    /// In bytes, a multiple of `block`.
    pub size: u64,
    /// Smallest unit of reads and writes, in bytes: a power of two from 512 to 4096.
    pub block: u32,
}

/// A device's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Made, not started; or stopped.
    Dead,
    /// In use.
    Live,
    /// Its server is gone, its requests wait for another one.
    Quiesced,
}

/// What the kernel says about a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// N of `/dev/ublkbN`.
    pub id: u32,
    /// As given by [`Spec::identity`].
    pub identity: u64,
    /// Its state.
    pub state: State,
    /// The process that serves it, or did, as that one named itself.
    pub pid: i32,
}

/// The driver. Commands wait for their end, most of them not long.
pub struct Control {
    ring: IoUring<Entry128>,
    device: OwnedFd,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Control")
    }
}

impl Control {
    /// Opens the driver.
    ///
    /// # Errors
    /// `NotFound` when it is not loaded, `Unsupported` when it cannot give a device to another daemon or there is no io_uring.
    pub fn open() -> io::Result<Self> {
        let device = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let ring = IoUring::builder().dontfork().build(4)?;
        let mut control = Self { ring, device };
        let wanted = abi::F_USER_RECOVERY | abi::F_USER_RECOVERY_REISSUE | abi::F_CMD_IOCTL_ENCODE;
        if control.features()? & wanted != wanted {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(control)
    }

    fn features(&mut self) -> io::Result<u64> {
        let mut features = [0; 8];
        self.exchange(control::GET_FEATURES, abi::NEW_DEVICE, &mut features)?;
        Ok(u64::from_ne_bytes(features))
    }

    /// Makes a device; returns its number. It has to be started once its queue waits for requests.
    ///
    /// # Errors
    /// What the driver says.
    pub fn add(&mut self, spec: Spec) -> io::Result<u32> {
        let mut info = DevInfo {
            nr_hw_queues: 1,
            queue_depth: DEPTH,
            max_io_buf_bytes: TRANSFER_MAX,
            dev_id: abi::NEW_DEVICE,
            flags: abi::F_USER_RECOVERY | abi::F_USER_RECOVERY_REISSUE | abi::F_CMD_IOCTL_ENCODE,
            ublksrv_flags: spec.identity,
            ..DevInfo::default()
        };
        self.exchange(control::ADD_DEV, abi::NEW_DEVICE, info.as_mut_bytes())?;
        let id = info.dev_id;
        let mut params = params(spec);
        let set = self.exchange(control::SET_PARAMS, id, params.as_mut_bytes());
        set.or_else(|error| self.delete(id).and(Err(error)))?;
        Ok(id)
    }

    /// Shows the device to the system. The kernel looks for partitions, so the queue has to be served meanwhile.
    ///
    /// # Errors
    /// What the driver says.
    pub fn start(&mut self, id: u32) -> io::Result<()> {
        self.command(control::START_DEV, id, own_pid())?;
        look_often(id);
        Ok(())
    }

    /// Takes a device whose server is gone over. A new queue has to wait for requests then, before [`Control::end_recovery`].
    ///
    /// # Errors
    /// `ResourceBusy` while the kernel has not done with the dead server.
    pub fn begin_recovery(&mut self, id: u32) -> io::Result<()> {
        self.command(control::START_USER_RECOVERY, id, 0)
    }

    /// Lets requests through again, first those that the dead server had not answered.
    ///
    /// # Errors
    /// What the driver says.
    pub fn end_recovery(&mut self, id: u32) -> io::Result<()> {
        self.command(control::END_USER_RECOVERY, id, own_pid())
    }

    /// Takes the device out of the system: every slot of its queue completes with an error. Requests that its server has taken
    /// are waited for as long as that server lives; without one they fail. Fine if it is stopped already.
    ///
    /// # Errors
    /// What the driver says.
    pub fn stop(&mut self, id: u32) -> io::Result<()> {
        self.command(control::STOP_DEV, id, 0)
    }

    /// Forgets the device, as soon as nobody has its queue open.
    ///
    /// # Errors
    /// What the driver says.
    pub fn delete(&mut self, id: u32) -> io::Result<()> {
        self.command(control::DEL_DEV, id, 0)
    }

    /// What the kernel knows about a device.
    ///
    /// # Errors
    /// `NotFound` (or `ENODEV`) when there is none of this number.
    pub fn info(&mut self, id: u32) -> io::Result<Info> {
        let mut info = DevInfo::default();
        self.exchange(control::GET_DEV_INFO, id, info.as_mut_bytes())?;
        let state = match info.state {
            abi::S_DEV_DEAD => State::Dead,
            abi::S_DEV_LIVE => State::Live,
            _ => State::Quiesced,
        };
        Ok(Info {
            id,
            identity: info.ublksrv_flags,
            state,
            pid: info.ublksrv_pid,
        })
    }

    /// The devices with this identity.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn find(&mut self, identity: u64) -> io::Result<Vec<Info>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(LIST)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("ublkc"));
            let Some(id) = number.and_then(|number| number.parse().ok()) else {
                continue;
            };
            // It may be deleted just now.
            found.extend(self.info(id).ok().filter(|info| info.identity == identity));
        }
        found.sort_unstable_by_key(|info| info.id);
        Ok(found)
    }

    /// A command without a buffer.
    fn command(&mut self, op: u32, id: u32, data: u64) -> io::Result<()> {
        check(self.submit(op, ctrl(id, data))?)
    }

    /// A command whose buffer is read or written by the driver.
    fn exchange(&mut self, op: u32, id: u32, buffer: &mut [u8]) -> io::Result<()> {
        let mut shared = buffer.to_vec();
        let address = shared.as_mut_ptr().expose_provenance();
        let command = CtrlCmd {
            len: u16::try_from(shared.len()).map_err(io::Error::other)?,
            addr: u64::try_from(address).map_err(io::Error::other)?,
            ..ctrl(id, 0)
        };
        match self.submit(op, command) {
            Ok(result) => {
                buffer.copy_from_slice(&shared);
                check(result)
            }
            Err(error) => {
                // It may still be under way.
                std::mem::forget(shared);
                Err(error)
            }
        }
    }

    /// Hands a command over and waits for its end, whatever signals come; its result. After an error it may be under way.
    fn submit(&mut self, op: u32, command: CtrlCmd) -> io::Result<i32> {
        let mut bytes = [0; 80];
        bytes[..size_of::<CtrlCmd>()].copy_from_slice(command.as_bytes());
        let entry = opcode::UringCmd80::new(Fd(self.device.as_raw_fd()), op)
            .cmd(bytes)
            .build();
        // JUSTIFICATION: ublk takes control commands by io_uring only.
        // SAFETY: the descriptor is open as long as `self`; a buffer that the command points to is kept by the caller until
        // this returns a result, and for ever otherwise.
        unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)?;
        loop {
            match self.ring.submit_and_wait(1) {
                Err(why) if why.kind() != io::ErrorKind::Interrupted => return Err(why),
                Ok(_) | Err(_) => {}
            }
            let completed = self.ring.completion().next();
            if let Some(entry) = completed {
                return Ok(cqueue::Entry::result(&entry));
            }
        }
    }
}

/// Nothing, or the error in a command's result.
fn check(result: i32) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        negative => Err(io::Error::from_raw_os_error(negative.saturating_neg())),
    }
}

fn ctrl(id: u32, data: u64) -> CtrlCmd {
    CtrlCmd {
        dev_id: id,
        queue_id: abi::NO_QUEUE,
        len: 0,
        addr: 0,
        data,
        dev_path_len: 0,
        pad: 0,
        reserved: 0,
    }
}

fn params(spec: Spec) -> Params {
    let shift = |bytes: u32| u8::try_from(bytes.trailing_zeros()).unwrap_or(9);
    Params {
        len: u32::try_from(size_of::<Params>()).unwrap_or(0),
        types: abi::PARAM_TYPE_BASIC | abi::PARAM_TYPE_DISCARD,
        attrs: abi::ATTR_VOLATILE_CACHE | abi::ATTR_FUA,
        logical_bs_shift: shift(spec.block),
        physical_bs_shift: shift(spec.block.max(4096)),
        io_opt_shift: shift(spec.block.max(4096)),
        io_min_shift: shift(spec.block.max(4096)),
        max_sectors: TRANSFER_MAX / 512,
        dev_sectors: spec.size / 512,
        discard_granularity: spec.block.max(4096),
        max_discard_sectors: ZERO_MAX / 512,
        max_write_zeroes_sectors: ZERO_MAX / 512,
        max_discard_segments: 1,
        ..Params::default()
    }
}

fn own_pid() -> u64 {
    u64::from(std::process::id())
}

fn look_often(id: u32) {
    let file = format!("/sys/block/ublkb{id}/queue/io_timeout");
    if let Err(error) = fs::write(&file, LOOK.as_millis().to_string()) {
        tracing::warn!(%error, file, "the death of a very busy daemon may be noticed late");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_in_the_kernels_units() {
        let params = params(Spec {
            identity: 1,
            size: 1 << 30,
            block: 512,
        });
        assert_eq!((params.logical_bs_shift, params.physical_bs_shift), (9, 12));
        assert_eq!((params.dev_sectors, params.max_sectors), (1 << 21, 512));
        assert_eq!(params.len, 64);
    }

    #[test]
    fn commands_have_the_kernels_numbers() {
        // As `strace` shows them.
        assert_eq!(control::ADD_DEV, 0xc020_7504);
        assert_eq!(control::GET_DEV_INFO, 0x8020_7502);
        assert_eq!(abi::io::COMMIT_AND_FETCH_REQ, 0xc010_7521);
    }
}
