//! Loop devices: a block device on top of a file.
#![allow(
    unsafe_code,
    reason = "the loop driver is driven by ioctls that have no safe wrapper"
)]

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Ioctl, IoctlOutput, Opcode, Setter};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LOOP_CLR_FD: Opcode = 0x4c01;
const LOOP_SET_CAPACITY: Opcode = 0x4c07;
const LOOP_CONFIGURE: Opcode = 0x4c0a;
const LOOP_CTL_GET_FREE: Opcode = 0x4c82;

const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// Attempts to get a free device before giving up; another process may be faster each time.
const ATTEMPTS_MAX: u32 = 64;

/// How long a detached device may take until it is free.
const DETACH_MAX: Duration = Duration::from_secs(5);

/// `struct loop_info64`.
#[derive(Clone, Copy)]
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[derive(Clone, Copy)]
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);

/// How to attach a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attach {
    /// Logical block in bytes: 512 or 4096.
    pub block_size: u32,
    /// The device detaches itself when its last user closes it.
    pub autoclear: bool,
}

/// An attached loop device. Dropping it does not detach it.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    fd: OwnedFd,
}

impl AsFd for LoopDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl LoopDevice {
    /// Attaches `file` to a free device, with direct I/O. The file is opened past the page cache.
    ///
    /// # Errors
    /// When the file cannot be opened that way, no device is free, or the driver is missing.
    pub fn attach(file: &Path, how: Attach) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::DIRECT;
        let backing = rustix::fs::open(file, flags, Mode::empty())?;
        let config = config(&backing, file, how)?;
        let control = open_device(Path::new("/dev/loop-control"))?;
        for _ in 0..ATTEMPTS_MAX {
            let path = PathBuf::from(format!("/dev/loop{}", free_number(&control)?));
            let fd = open_device(&path)?;
            match configure(&fd, config) {
                Ok(()) => return Ok(Self { path, fd }),
                Err(Errno::BUSY) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(Errno::BUSY.into())
    }

    /// Opens the device at `path`, such as one that [`find`] found.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            fd: open_device(path)?,
        })
    }

    /// `/dev/loopN`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has the driver take the file's present size.
    ///
    /// # Errors
    /// What the driver says, such as that no file is attached.
    pub fn take_size(&self) -> io::Result<()> {
        Ok(set_capacity(&self.fd)?)
    }

    /// Detaches it and waits until it is free.
    ///
    /// # Errors
    /// `TimedOut` when somebody still has it open; it will be free when they close it.
    pub fn detach(self) -> io::Result<()> {
        let path = self.detach_soon()?;
        let deadline = Instant::now() + DETACH_MAX;
        while backing_file(&path).is_some() {
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Tells the driver to detach it as soon as nobody has it open; returns its path.
    ///
    /// # Errors
    /// What the driver says; a device without a file is not an error.
    pub fn detach_soon(self) -> io::Result<PathBuf> {
        match clear(&self.fd) {
            Ok(()) | Err(Errno::NXIO) => Ok(self.path),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The devices that are attached to `file`, as the kernel names it.
///
/// # Errors
/// When `/sys/block` cannot be read.
pub fn find(file: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        let device = Path::new("/dev").join(&name);
        if name.as_encoded_bytes().starts_with(b"loop")
            && backing_file(&device).as_deref() == Some(file)
        {
            found.push(device);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The file behind a device; `None` when it is free. A path outside this mount namespace is as the kernel shows it.
#[must_use]
pub fn backing_file(device: &Path) -> Option<PathBuf> {
    let name = device.file_name()?;
    let path = Path::new("/sys/block").join(name).join("loop/backing_file");
    let text = fs::read_to_string(path).ok()?;
    Some(PathBuf::from(text.trim_end_matches('\n')))
}

fn config(backing: &OwnedFd, file: &Path, how: Attach) -> io::Result<LoopConfig> {
    let mut file_name = [0; 64];
    let name = file.as_os_str().as_encoded_bytes();
    let shown = name.len().min(file_name.len() - 1);
    file_name[..shown].copy_from_slice(&name[..shown]);
    let autoclear = if how.autoclear { LO_FLAGS_AUTOCLEAR } else { 0 };
    let info = LoopInfo {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: LO_FLAGS_DIRECT_IO | autoclear,
        file_name,
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    let fd = u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?;
    Ok(LoopConfig {
        fd,
        block_size: how.block_size,
        info,
        reserved: [0; 8],
    })
}

fn open_device(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        path,
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

fn configure(device: &OwnedFd, config: LoopConfig) -> rustix::io::Result<()> {
    // JUSTIFICATION: LOOP_CONFIGURE has no safe wrapper.
    // SAFETY: the opcode reads one `struct loop_config`, whose layout `LoopConfig` has; the backing descriptor in it is
    // open for the duration of the call, after which the driver holds its own reference.
    let request = unsafe { Setter::<LOOP_CONFIGURE, LoopConfig>::new(config) };
    // JUSTIFICATION: as above.
    // SAFETY: as above; the request is only used with a loop device.
    unsafe { rustix::ioctl::ioctl(device, request) }
}

fn clear(device: &OwnedFd) -> rustix::io::Result<()> {
    // JUSTIFICATION: LOOP_CLR_FD has no safe wrapper.
    // SAFETY: the opcode takes an integer that the driver ignores.
    let request = unsafe { IntegerSetter::<LOOP_CLR_FD>::new_usize(0) };
    // JUSTIFICATION: as above.
    // SAFETY: as above; the request is only used with a loop device.
    unsafe { rustix::ioctl::ioctl(device, request) }
}

fn set_capacity(device: &OwnedFd) -> rustix::io::Result<()> {
    // JUSTIFICATION: LOOP_SET_CAPACITY has no safe wrapper.
    // SAFETY: the opcode takes an integer that the driver ignores.
    let request = unsafe { IntegerSetter::<LOOP_SET_CAPACITY>::new_usize(0) };
    // JUSTIFICATION: as above.
    // SAFETY: as above; the request is only used with a loop device.
    unsafe { rustix::ioctl::ioctl(device, request) }
}

/// `LOOP_CTL_GET_FREE`, whose answer is the return value.
struct GetFree;

// JUSTIFICATION: rustix has no pattern for an ioctl that answers by its return value.
// SAFETY: the opcode takes no argument and writes no memory.
unsafe impl Ioctl for GetFree {
    type Output = i32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        LOOP_CTL_GET_FREE
    }

    fn as_ptr(&mut self) -> *mut rustix::ffi::c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(
        out: IoctlOutput,
        _: *mut rustix::ffi::c_void,
    ) -> rustix::io::Result<i32> {
        Ok(out)
    }
}

fn free_number(control: &OwnedFd) -> rustix::io::Result<i32> {
    // JUSTIFICATION: as for `GetFree`.
    // SAFETY: the descriptor is /dev/loop-control's, and the request has no argument.
    unsafe { rustix::ioctl::ioctl(control, GetFree) }
}
