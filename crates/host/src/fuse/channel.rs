//! `/dev/fuse`: receiving requests and sending answers.

use super::TRANSFER_MAX;
use super::abi::{self, IN_HEADER_LEN, OutHeader, WRITE_HEAD_LEN, WriteOut};
use super::session::{Action, IoKind, IoRequest, Negotiated, Session};
use super::session::{answer, out_header, payload_start, refusal};
use crate::disk::to_u64;
use crate::ring::{Buf, Frozen};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::mount::{MountFlags, mount};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use zerocopy::IntoBytes;

/// Payloads up to this many bytes are copied out of the large receive buffer; larger ones take it with them.
const COPY_MAX: usize = 64 << 10;

/// What came through the channel.
#[derive(Debug)]
pub enum Incoming {
    /// A request, with the payload of a write.
    Io(IoRequest, Option<Buf>),
    /// Negotiation is over: hand a copy of the descriptor and this to the keeper.
    Ready(Negotiated),
    /// The file system was unmounted, or the connection aborted: the channel is of no more use.
    Unmounted,
}

/// A FUSE connection.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
    session: Session,
    head: [u8; WRITE_HEAD_LEN],
    body: Buf,
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Channel {
    /// Mounts a file system with one file of `size` bytes at `target`; `source` is what `mount` shows.
    ///
    /// # Errors
    /// When `/dev/fuse` is missing or the kernel refuses the mount.
    pub fn mount(target: &Path, source: &str, size: u64, block: u32) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open("/dev/fuse", flags, Mode::empty())?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,max_read={TRANSFER_MAX}",
            fd.as_raw_fd()
        );
        let options = CString::new(options)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount(source, target, "fuse.backstay", flags, options.as_c_str())?;
        Ok(Self::over(fd, Session::new(size, block)))
    }

    /// Takes over the connection of a daemon that is gone, and has the kernel send again what it had not answered.
    ///
    /// # Errors
    /// When the descriptor is no connection any more, or the kernel cannot send again.
    pub fn adopt(fd: OwnedFd, negotiated: Negotiated) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        // A notification has no `unique` and carries its code in place of an error.
        let len = u32::try_from(abi::OUT_HEADER_LEN).unwrap_or(0);
        let notice = OutHeader {
            len,
            error: abi::NOTIFY_RESEND,
            unique: 0,
        };
        rustix::io::write(&fd, notice.as_bytes())?;
        // Its size may have changed while nobody was there to say so.
        forget_attributes(&fd)?;
        Ok(Self::over(fd, Session::adopt(negotiated)))
    }

    fn over(fd: OwnedFd, session: Session) -> Self {
        let body = Buf::new(usize::try_from(TRANSFER_MAX).unwrap_or(0));
        Self {
            fd,
            session,
            head: [0; WRITE_HEAD_LEN],
            body,
        }
    }

    /// A second handle, for the ring to poll or the keeper to keep.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn try_clone_fd(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// The file has another size from now on: the kernel finds it at the next look.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn resize(&mut self, size: u64) -> io::Result<()> {
        self.session.resize(size);
        forget_attributes(&self.fd)
    }

    /// The protocol's state.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The next thing for the engine; `None` when the kernel has no more for now.
    ///
    /// # Errors
    /// When reading fails for another reason than an unmount.
    pub fn receive(&mut self) -> io::Result<Option<Incoming>> {
        loop {
            let len = match self.read() {
                Ok(len) => len,
                // The request was interrupted before it was read.
                Err(Errno::NOENT | Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::NODEV | Errno::CONNABORTED) => return Ok(Some(Incoming::Unmounted)),
                Err(errno) => return Err(errno.into()),
            };
            if let Some(incoming) = self.on_message(len)? {
                return Ok(Some(incoming));
            }
        }
    }

    fn read(&mut self) -> rustix::io::Result<usize> {
        // The split makes the payload of a write land on a page boundary.
        let mut slices = [
            IoSliceMut::new(&mut self.head),
            IoSliceMut::new(&mut self.body),
        ];
        rustix::io::readv(&self.fd, &mut slices)
    }

    fn on_message(&mut self, len: usize) -> io::Result<Option<Incoming>> {
        if len < IN_HEADER_LEN {
            return Ok(None);
        }
        let in_body = len.saturating_sub(WRITE_HEAD_LEN);
        let action = if payload_start(&self.head).is_some() {
            self.session
                .handle(&self.head[..len.min(WRITE_HEAD_LEN)], in_body)
        } else {
            let mut message = self.head[..len.min(WRITE_HEAD_LEN)].to_vec();
            message.extend(&self.body[..in_body]);
            self.session.handle(&message, 0)
        };
        match action {
            Action::Nothing => Ok(None),
            Action::Reply(bytes) => self.send(&[IoSlice::new(&bytes)]).map(|()| None),
            Action::Ready(bytes, negotiated) => {
                self.send(&[IoSlice::new(&bytes)])?;
                Ok(Some(Incoming::Ready(negotiated)))
            }
            Action::Io(request) => {
                let is_write = matches!(request.kind, IoKind::Write { .. });
                let payload = is_write.then(|| self.take_payload(in_body));
                Ok(Some(Incoming::Io(request, payload)))
            }
        }
    }

    fn take_payload(&mut self, len: usize) -> Buf {
        if len <= COPY_MAX {
            return Buf::copy_of(&self.body[..len]);
        }
        let fresh = Buf::new(self.body.len());
        let mut payload = std::mem::replace(&mut self.body, fresh);
        payload.set_len(len);
        payload
    }

    /// Answers a read.
    ///
    /// # Errors
    /// As for [`Channel::done`].
    pub fn data(&self, request: &IoRequest, data: &Frozen) -> io::Result<()> {
        let header = out_header(request.unique, None, data.len());
        self.send(&[IoSlice::new(header.as_bytes()), IoSlice::new(data)])
    }

    /// Answers a write, a flush or a zeroing that succeeded.
    ///
    /// # Errors
    /// When the connection is broken. A request that nobody waits for any more is not an error.
    pub fn done(&self, request: &IoRequest) -> io::Result<()> {
        let bytes = match request.kind {
            IoKind::Write { len, .. } => answer(
                request.unique,
                WriteOut {
                    size: len,
                    padding: 0,
                }
                .as_bytes(),
            ),
            IoKind::Read { .. } | IoKind::Flush | IoKind::Zero { .. } => {
                answer(request.unique, &[])
            }
        };
        self.send(&[IoSlice::new(&bytes)])
    }

    /// Answers a request that failed.
    ///
    /// # Errors
    /// As for [`Channel::done`].
    pub fn error(&self, request: &IoRequest, error: &io::Error) -> io::Result<()> {
        let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
        self.send(&[IoSlice::new(&refusal(request.unique, errno))])
    }

    fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        match rustix::io::writev(&self.fd, slices) {
            Ok(sent) if to_u64(sent) == to_u64(wanted) => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            // The request was aborted, or the file system unmounted meanwhile.
            Err(Errno::NOENT | Errno::NODEV) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Has the kernel ask for the file's attributes again. One that does not know the file has none to forget.
fn forget_attributes(fd: &OwnedFd) -> io::Result<()> {
    let notice = abi::InvalInodeOut {
        inode: abi::FILE_NODE,
        offset: -1,
        len: 0,
    };
    let len = abi::OUT_HEADER_LEN + size_of::<abi::InvalInodeOut>();
    // A notification has no `unique` and carries its code in place of an error.
    let header = OutHeader {
        len: u32::try_from(len).unwrap_or(0),
        error: abi::NOTIFY_INVAL_INODE,
        unique: 0,
    };
    let parts = [
        IoSlice::new(header.as_bytes()),
        IoSlice::new(notice.as_bytes()),
    ];
    match rustix::io::writev(fd, &parts) {
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
