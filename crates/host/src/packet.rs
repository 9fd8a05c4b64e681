//! Whole Ethernet frames of one interface, for the lab's slow links.
//!
//! Frames travel with their `virtio_net_hdr`: between virtual interfaces checksums are not filled in and large segments not cut
//! yet, and the header says so to whoever takes them on.

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// All protocols (include/uapi/linux/if_ether.h).
const ETH_P_ALL: u16 = 3;
/// The largest frame with its header, in bytes: a segment that is still to be cut, and room for headers.
pub const FRAME_MAX: usize = (64 << 10) + 256;

/// Hears what arrives at an interface, and sends through it.
#[derive(Debug)]
pub struct Port {
    socket: OwnedFd,
}

impl Port {
    /// Opens the interface with this number in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel refuses: not root, or no such interface.
    pub fn open(index: u32) -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // Without a protocol nothing is heard until the interface is chosen.
            None,
        )?;
        set_option(&socket, libc::PACKET_VNET_HDR)?;
        set_option(&socket, libc::PACKET_IGNORE_OUTGOING)?;
        crate::address::bind_to_interface(&socket, index, ETH_P_ALL)?;
        Ok(Self { socket })
    }

    /// Lets so many bytes of frames wait until they are received; beyond that the kernel drops what arrives.
    ///
    /// # Errors
    /// When the kernel refuses: not root.
    pub fn make_room(&self, bytes: usize) -> io::Result<()> {
        Ok(rustix::net::sockopt::set_socket_recv_buffer_size_force(
            &self.socket,
            bytes,
        )?)
    }

    /// Waits for a frame that arrives; the length of what was written to `frame`.
    ///
    /// # Errors
    /// When the interface is gone.
    pub fn receive(&self, frame: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::net::recv(&self.socket, &mut *frame, RecvFlags::empty()) {
                Ok((length, _)) => return Ok(length),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends a frame as it was received.
    ///
    /// # Errors
    /// When the interface is gone, down or full.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        Ok(rustix::net::send(&self.socket, frame, SendFlags::empty()).map(drop)?)
    }
}

/// Switches an option of packet sockets on.
fn set_option(socket: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).map_err(io::Error::other)?;
    let fd = socket.as_raw_fd();
    // JUSTIFICATION: rustix has no options of packet sockets.
    // SAFETY: `on` is a valid int of `length` bytes that lives over the call; the kernel only reads it.
    #[expect(unsafe_code, reason = "see the justification")]
    let result =
        unsafe { libc::setsockopt(fd, libc::SOL_PACKET, option, (&raw const on).cast(), length) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
