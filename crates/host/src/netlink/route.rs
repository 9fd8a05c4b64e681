//! Interfaces and their addresses (`rtnetlink(7)`).

use super::{Family, Message, NetlinkError, Socket, attributes};
use rustix::io::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

// include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 0x1_0000;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Size of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// Size of `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number of it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; none for interfaces without (tunnels).
    pub mac: Option<[u8; 6]>,
    /// Longest packet, in bytes.
    pub mtu: u32,
    /// Switched on by the administrator.
    pub up: bool,
    /// The other end is there.
    pub carrier: bool,
}

/// An address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Assigned {
    /// The interface.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// Length of its network's prefix, in bits.
    pub prefix: u8,
}

/// Asks for and changes interfaces and addresses of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Routes {
    socket: Socket,
}

impl Routes {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            socket: Socket::open(Family::Route)?,
        })
    }

    /// All interfaces.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut links = Vec::new();
        let request = Message::new(RTM_GETLINK, 0).raw(&[0; LINK_HEADER]);
        self.socket.dump("list interfaces", request, |body| {
            links.push(parse_link(body).ok_or(NetlinkError::Malformed)?);
            Ok(())
        })?;
        Ok(links)
    }

    /// The interface of this name.
    ///
    /// # Errors
    /// [`NetlinkError::NoInterface`] if there is none.
    pub fn link(&mut self, name: &str) -> Result<Link, NetlinkError> {
        let found = self.links()?.into_iter().find(|link| link.name == name);
        found.ok_or_else(|| NetlinkError::NoInterface {
            name: name.to_owned(),
        })
    }

    /// The interface that carries this address.
    ///
    /// # Errors
    /// [`NetlinkError::NoInterface`] if there is none.
    pub fn link_with(&mut self, ip: IpAddr) -> Result<Link, NetlinkError> {
        let none = || NetlinkError::NoInterface {
            name: format!("with address {ip}"),
        };
        let assigned = self
            .addresses()?
            .into_iter()
            .find(|assigned| assigned.ip == ip);
        let index = assigned.ok_or_else(none)?.index;
        self.links()?
            .into_iter()
            .find(|link| link.index == index)
            .ok_or_else(none)
    }

    /// All addresses on all interfaces.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn addresses(&mut self) -> Result<Vec<Assigned>, NetlinkError> {
        let mut all = Vec::new();
        let request = Message::new(RTM_GETADDR, 0).raw(&[0; ADDRESS_HEADER]);
        self.socket.dump("list addresses", request, |body| {
            all.extend(parse_address(body));
            Ok(())
        })?;
        Ok(all)
    }

    /// Adds an address; fine if it is there already. IPv6 skips the kernel's own duplicate detection, which would delay
    /// it by a second: the driver probes beforehand.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`].
    pub fn add(&mut self, address: Assigned) -> Result<(), NetlinkError> {
        let request = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
        let flags = match address.ip {
            IpAddr::V4(_) => IFA_F_NOPREFIXROUTE,
            IpAddr::V6(_) => IFA_F_NOPREFIXROUTE | IFA_F_NODAD,
        };
        let request = describe(request, address).attribute(IFA_FLAGS, &flags.to_ne_bytes());
        match self.socket.change("add an address", request) {
            Err(e) if e.errno() == Some(Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    /// Removes an address; fine if it is not there.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`].
    pub fn remove(&mut self, address: Assigned) -> Result<(), NetlinkError> {
        let request = describe(Message::new(RTM_DELADDR, 0), address);
        match self.socket.change("remove an address", request) {
            Err(e) if matches!(e.errno(), Some(Errno::ADDRNOTAVAIL | Errno::NODEV)) => Ok(()),
            other => other,
        }
    }

    /// Switches an interface on.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`].
    pub fn set_up(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut header = [0; LINK_HEADER];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        header[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
        header[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
        let request = Message::new(RTM_NEWLINK, 0).raw(&header);
        self.socket.change("switch an interface on", request)
    }
}

fn describe(request: Message, address: Assigned) -> Message {
    let family = if address.ip.is_ipv4() {
        AF_INET
    } else {
        AF_INET6
    };
    let mut header = [family, address.prefix, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&address.index.to_ne_bytes());
    let request = request.raw(&header);
    match address.ip {
        IpAddr::V4(ip) => request
            .attribute(IFA_LOCAL, &ip.octets())
            .attribute(IFA_ADDRESS, &ip.octets()),
        IpAddr::V6(ip) => request.attribute(IFA_LOCAL, &ip.octets()),
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let flags = number(body, 8)?;
    let mut link = Link {
        index: number(body, 4)?,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0,
    };
    for (kind, payload) in attributes(body.get(LINK_HEADER..)?) {
        match kind {
            IFLA_IFNAME => {
                let text = payload.strip_suffix(&[0]).unwrap_or(payload);
                link.name = String::from_utf8_lossy(text).into_owned();
            }
            IFLA_ADDRESS => link.mac = payload.try_into().ok(),
            IFLA_MTU => link.mtu = number(payload, 0)?,
            _ => {}
        }
    }
    Some(link)
}

/// None for families other than IP.
fn parse_address(body: &[u8]) -> Option<Assigned> {
    let (family, prefix, index) = (*body.first()?, *body.get(1)?, number(body, 4)?);
    let mut found = None;
    for (kind, payload) in attributes(body.get(ADDRESS_HEADER..)?) {
        // On a point-to-point interface IFA_ADDRESS is the other end; IFA_LOCAL is ours and comes second.
        if kind == IFA_LOCAL || (kind == IFA_ADDRESS && found.is_none()) {
            found = parse_ip(family, payload);
        }
    }
    Some(Assigned {
        index,
        ip: found?,
        prefix,
    })
}

fn parse_ip(family: u8, payload: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(IpAddr::V4(Ipv4Addr::from(
            <[u8; 4]>::try_from(payload).ok()?,
        ))),
        AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(
            <[u8; 16]>::try_from(payload).ok()?,
        ))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::isolated;

    #[test]
    fn addresses_come_and_go_and_repeats_are_fine() {
        isolated(|| {
            let mut routes = Routes::open().unwrap();
            let lo = routes.link("lo").unwrap();
            routes.set_up(lo.index).unwrap();
            assert!(routes.link("lo").unwrap().up);
            for ip in ["10.9.0.10", "fd00::10"] {
                let ip: IpAddr = ip.parse().unwrap();
                let prefix = if ip.is_ipv4() { 32 } else { 128 };
                let address = Assigned {
                    index: lo.index,
                    ip,
                    prefix,
                };
                routes.remove(address).unwrap();
                routes.add(address).unwrap();
                routes.add(address).unwrap();
                assert!(routes.addresses().unwrap().contains(&address));
                assert_eq!(routes.link_with(ip).unwrap().name, "lo");
                routes.remove(address).unwrap();
                assert!(!routes.addresses().unwrap().contains(&address));
            }
            let refused = routes.link("nope0").unwrap_err().to_string();
            assert_eq!(refused, "there is no interface nope0");
        });
    }
}
