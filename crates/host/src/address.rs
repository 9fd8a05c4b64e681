//! Telling the neighbours where an address lives, and asking whether somebody else has it (ARP: RFC 826, RFC 5227).

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

const ETHERTYPE_ARP: u16 = 0x0806;
const BROADCAST: Mac = [0xff; 6];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
/// An Ethernet frame with an ARP packet of Ethernet and IPv4.
const FRAME_BYTES: usize = 42;
/// Foreign frames that are looked at while waiting for one answer; a flood ends the wait as if nobody had answered.
const FRAMES_MAX: usize = 100_000;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// The interface could not be used for ARP.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} for ARP on interface {index}")]
pub struct ArpError {
    /// What was tried.
    pub doing: &'static str,
    /// The interface's number.
    pub index: u32,
    /// Why not.
    pub source: io::Error,
}

/// Sends and hears ARP on one interface.
#[derive(Debug)]
pub struct Arp {
    socket: OwnedFd,
    index: u32,
    mac: Mac,
}

impl Arp {
    /// Opens a packet socket on the interface with this number and Ethernet address.
    ///
    /// # Errors
    /// [`ArpError`].
    pub fn open(index: u32, mac: Mac) -> Result<Self, ArpError> {
        let fail = |doing| {
            move |source| ArpError {
                doing,
                index,
                source,
            }
        };
        let protocol = NonZeroU32::new(u32::from(ETHERTYPE_ARP.to_be())).map(Protocol::from_raw);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, protocol)
                .map_err(|e| fail("open a socket")(e.into()))?;
        bind_to_interface(&socket, index, ETHERTYPE_ARP).map_err(fail("bind a socket"))?;
        Ok(Self { socket, index, mac })
    }

    /// Tells all neighbours once that `ip` lives here: a request and a reply, because some update their tables by one
    /// only. Repeat it a few times over the first seconds; frames get lost.
    ///
    /// # Errors
    /// [`ArpError`].
    pub fn announce(&self, ip: Ipv4Addr) -> Result<(), ArpError> {
        self.send(&packet(REQUEST, self.mac, ip, [0; 6], ip))?;
        self.send(&packet(REPLY, self.mac, ip, BROADCAST, ip))
    }

    /// Asks `tries` times, `pause` apart, whether another host holds `ip`; the Ethernet address of the first that says so.
    /// Blocks for at most `tries` × `pause`. Asks without a sender's address, so that no table changes (RFC 5227 §2.1).
    ///
    /// # Errors
    /// [`ArpError`].
    pub fn find_holder(
        &self,
        ip: Ipv4Addr,
        tries: u32,
        pause: Duration,
    ) -> Result<Option<Mac>, ArpError> {
        for _ in 0..tries {
            self.send(&packet(
                REQUEST,
                self.mac,
                Ipv4Addr::UNSPECIFIED,
                [0; 6],
                ip,
            ))?;
            let deadline = Instant::now() + pause;
            if let Some(holder) = self.hear(ip, deadline)? {
                return Ok(Some(holder));
            }
        }
        Ok(None)
    }

    fn send(&self, frame: &[u8]) -> Result<(), ArpError> {
        rustix::net::send(&self.socket, frame, SendFlags::empty())
            .map(drop)
            .map_err(|e| self.failed("send", e.into()))
    }

    /// Waits for a frame in which another host speaks for `ip`.
    fn hear(&self, ip: Ipv4Addr, deadline: Instant) -> Result<Option<Mac>, ArpError> {
        for _ in 0..FRAMES_MAX {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = Timespec::try_from(left).unwrap_or_default();
            let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut polled, Some(&limit)) {
                Ok(0) => return Ok(None),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(self.failed("wait", e.into())),
            }
            let mut frame = [0; 128];
            match rustix::net::recv(&self.socket, &mut frame[..], RecvFlags::empty()) {
                Ok((length, _)) => {
                    let speaker = frame.get(..length).and_then(|frame| speaker_for(frame, ip));
                    if let Some(mac) = speaker.filter(|mac| *mac != self.mac) {
                        return Ok(Some(mac));
                    }
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(e) => return Err(self.failed("receive", e.into())),
            }
        }
        Ok(None)
    }

    const fn failed(&self, doing: &'static str, source: io::Error) -> ArpError {
        ArpError {
            doing,
            index: self.index,
            source,
        }
    }
}

fn packet(operation: u16, sender: Mac, sender_ip: Ipv4Addr, target: Mac, ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_BYTES);
    frame.extend(BROADCAST);
    frame.extend(sender);
    frame.extend(ETHERTYPE_ARP.to_be_bytes());
    // Ethernet, IPv4, addresses of 6 and 4 bytes.
    frame.extend([0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(sender);
    frame.extend(sender_ip.octets());
    frame.extend(target);
    frame.extend(ip.octets());
    frame
}

/// The Ethernet address that speaks for `ip` in an ARP frame of Ethernet and IPv4, if one does.
fn speaker_for(frame: &[u8], ip: Ipv4Addr) -> Option<Mac> {
    let packet = frame.get(14..FRAME_BYTES)?;
    let is_arp = frame.get(12..14)? == ETHERTYPE_ARP.to_be_bytes();
    if !is_arp || packet[..6] != [0, 1, 8, 0, 6, 4] || packet[14..18] != ip.octets() {
        return None;
    }
    packet[8..14].try_into().ok()
}

/// Ties a packet socket to an interface and a protocol.
pub(crate) fn bind_to_interface(socket: &OwnedFd, index: u32, ethertype: u16) -> io::Result<()> {
    let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(too_large)?,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: i32::try_from(index).map_err(too_large)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(too_large)?;
    // JUSTIFICATION: rustix has no link-layer addresses.
    // SAFETY: `address` is a valid sockaddr_ll of `length` bytes that lives over the call; the kernel only reads it.
    #[expect(unsafe_code, reason = "see the justification")]
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::route::Routes;
    use crate::netns::Cable;

    fn arp() -> Arp {
        let link = Routes::open().unwrap().link("eth0").unwrap();
        Arp::open(link.index, link.mac.unwrap()).unwrap()
    }

    #[test]
    fn a_holder_is_found_and_a_free_address_is_not() {
        let cable = Cable::new("arp");
        let node = cable.on_node(|| Routes::open().unwrap().link("eth0").unwrap().mac);
        cable.on_client(|| {
            let pause = Duration::from_millis(200);
            let (held, free) = ([10, 9, 0, 1].into(), [10, 9, 0, 77].into());
            assert_eq!(arp().find_holder(held, 3, pause).unwrap(), node);
            assert_eq!(
                arp()
                    .find_holder(free, 2, Duration::from_millis(30))
                    .unwrap(),
                None
            );
        });
    }

    #[test]
    fn an_announcement_is_heard_by_neighbours() {
        let cable = Cable::new("garp");
        let ip = [10, 9, 0, 10].into();
        let listener = cable.on_client(arp);
        let mac = cable.on_node(|| {
            let arp = arp();
            arp.announce(ip).unwrap();
            arp.mac
        });
        let deadline = Instant::now() + Duration::from_secs(2);
        assert_eq!(listener.hear(ip, deadline).unwrap(), Some(mac));
    }

    #[test]
    fn malformed_frames_name_nobody() {
        let ip = [10, 9, 0, 10].into();
        let good = packet(REPLY, [2; 6], ip, BROADCAST, ip);
        assert_eq!(speaker_for(&good, ip), Some([2; 6]));
        for end in 0..good.len() {
            assert_eq!(speaker_for(&good[..end], ip), None);
        }
    }
}
