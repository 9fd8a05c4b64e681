//! What a lab consists of: nodes, networks, names and addresses. Pure data.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The overlay IP of the lab's one group; it lies in the service network.
pub const OVERLAY_IP: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 10);
/// Port of the workload behind the overlay IP.
pub const WORKLOAD_PORT: u16 = 7000;
/// Port of the HTTP API inside each node's namespace.
pub const API_PORT: u16 = 9947;
/// The lab's one group.
pub const GROUP: &str = "db";
/// The mirror of the lab's one group.
pub const MIRROR: &str = "data";
/// Name of the exec resource that runs the workload.
pub const SERVICE: &str = "app";
/// Where the names of network namespaces live (iproute2's convention).
pub const NETNS_DIR: &str = "/run/netns";

/// A node of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Node {
    /// First data node; active after `lab up`.
    NodeA,
    /// Second data node; standby after `lab up`.
    NodeB,
    /// Third data node, in labs of three.
    NodeC,
    /// Votes only.
    Witness,
}

impl Node {
    /// All nodes that a lab may have.
    pub const ALL: [Self; 4] = [Self::NodeA, Self::NodeB, Self::NodeC, Self::Witness];
    /// Those that hold a replica.
    pub const DATA: [Self; 3] = [Self::NodeA, Self::NodeB, Self::NodeC];

    /// The nodes of a lab with that many replicas, in the order of the configuration. Two need a witness to decide.
    pub const fn of_lab(replicas: u8) -> [Self; 3] {
        match replicas {
            3 => Self::DATA,
            _ => [Self::NodeA, Self::NodeB, Self::Witness],
        }
    }

    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NodeA => "node-a",
            Self::NodeB => "node-b",
            Self::NodeC => "node-c",
            Self::Witness => "witness",
        }
    }

    /// True for a node with a disk.
    pub const fn is_data(self) -> bool {
        match self {
            Self::NodeA | Self::NodeB | Self::NodeC => true,
            Self::Witness => false,
        }
    }

    /// The other data node of a pair.
    pub const fn peer(self) -> Option<Self> {
        match self {
            Self::NodeA => Some(Self::NodeB),
            Self::NodeB => Some(Self::NodeA),
            Self::NodeC | Self::Witness => None,
        }
    }

    /// Letter in port names of the switch.
    const fn letter(self) -> char {
        match self {
            Self::NodeA => 'a',
            Self::NodeB => 'b',
            Self::NodeC => 'c',
            Self::Witness => 'w',
        }
    }

    /// Last octet of its addresses.
    const fn octet(self) -> u8 {
        match self {
            Self::NodeA => 11,
            Self::NodeB => 12,
            Self::Witness => 13,
            Self::NodeC => 14,
        }
    }

    /// Its address in `network`.
    pub const fn address(self, network: Network) -> Ipv4Addr {
        Ipv4Addr::new(10, 88, network.octet(), self.octet())
    }

    /// Its Ethernet address in `network` (locally administered).
    pub const fn mac(self, network: Network) -> [u8; 6] {
        [0x02, 0x88, 0, 0, network.octet(), self.octet()]
    }

    /// The networks that it is connected to.
    pub const fn networks(self) -> &'static [Network] {
        match self {
            Self::NodeA | Self::NodeB | Self::NodeC => &Network::ALL,
            Self::Witness => &[Network::Service, Network::Heartbeat1, Network::Heartbeat2],
        }
    }

    /// The switch's port that this node is plugged into.
    pub fn port(self, network: Network) -> String {
        format!("{}-{}", network.short(), self.letter())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Node {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|node| node.name() == text)
            .ok_or_else(|| UnknownName {
                name: text.to_owned(),
                known: "node-a, node-b, witness, in a lab of three node-c",
            })
    }
}

/// A network of the lab: one bridge in the switch namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Network {
    /// Clients and the overlay IP.
    #[serde(rename = "service")]
    Service,
    /// First heartbeat path.
    #[serde(rename = "hb1")]
    Heartbeat1,
    /// Second heartbeat path.
    #[serde(rename = "hb2")]
    Heartbeat2,
    /// Replication; data nodes only.
    #[serde(rename = "mirror")]
    Mirror,
}

impl Network {
    /// All networks.
    pub const ALL: [Self; 4] = [
        Self::Service,
        Self::Heartbeat1,
        Self::Heartbeat2,
        Self::Mirror,
    ];

    /// The name as a link of the lab.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Heartbeat1 => "hb1",
            Self::Heartbeat2 => "hb2",
            Self::Mirror => "mirror",
        }
    }

    /// What it carries.
    pub const fn purpose(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Heartbeat1 | Self::Heartbeat2 => "heartbeat",
            Self::Mirror => "mirror",
        }
    }

    /// Name of the interface inside a node, and prefix of the switch's ports.
    pub const fn short(self) -> &'static str {
        match self {
            Self::Service => "svc",
            Self::Heartbeat1 => "hb1",
            Self::Heartbeat2 => "hb2",
            Self::Mirror => "mir",
        }
    }

    /// Third octet of its subnet 10.88.x.0/24.
    const fn octet(self) -> u8 {
        match self {
            Self::Service => 0,
            Self::Heartbeat1 => 1,
            Self::Heartbeat2 => 2,
            Self::Mirror => 3,
        }
    }

    /// Name of its bridge in the switch namespace.
    pub fn bridge(self) -> String {
        format!("br-{}", self.short())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Network {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|network| network.name() == text)
            .ok_or_else(|| UnknownName {
                name: text.to_owned(),
                known: "service, hb1, hb2, mirror",
            })
    }
}

/// A place on the service network that is not a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outsider {
    /// The workload's client.
    Client,
    /// Sees one node's port and nothing else, whatever is cut.
    Observer(Node),
}

impl Outsider {
    /// All that a lab may have.
    pub const ALL: [Self; 4] = [
        Self::Client,
        Self::Observer(Node::NodeA),
        Self::Observer(Node::NodeB),
        Self::Observer(Node::NodeC),
    ];

    /// Part of the namespace's name.
    pub fn name(self) -> String {
        match self {
            Self::Client => "client".to_owned(),
            Self::Observer(node) => format!("observer-{}", node.letter()),
        }
    }

    /// The switch's port that it is plugged into.
    pub fn port(self) -> String {
        match self {
            Self::Client => "svc-client".to_owned(),
            Self::Observer(node) => format!("svc-obs-{}", node.letter()),
        }
    }

    /// Its address in the service network.
    pub const fn address(self) -> Ipv4Addr {
        match self {
            Self::Client => Ipv4Addr::new(10, 88, 0, 100),
            Self::Observer(node) => Ipv4Addr::new(10, 88, 0, 200 + node.octet()),
        }
    }

    /// Its Ethernet address (locally administered).
    pub const fn mac(self) -> [u8; 6] {
        let octets = self.address().octets();
        [0x02, 0x88, 0, 0, octets[2], octets[3]]
    }
}

/// Writes an Ethernet address as `02:88:00:00:00:0b`.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Short identity of a lab, derived from its directory, so that labs run side by side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabId(String);

impl LabId {
    /// The identity of the lab in `dir`, which is an absolute path without links.
    pub fn of_dir(dir: &Path) -> Self {
        Self(format!(
            "{:06x}",
            crc32c::crc32c(dir.as_os_str().as_encoded_bytes()) & 0x00ff_ffff
        ))
    }

    /// What the names of all namespaces of the lab start with.
    pub fn prefix(&self) -> String {
        format!("bs-{}-", self.0)
    }

    /// Name of a node's network namespace.
    pub fn node_netns(&self, node: Node) -> String {
        format!("{}{node}", self.prefix())
    }

    /// Name of an outsider's network namespace.
    pub fn outsider_netns(&self, outsider: Outsider) -> String {
        format!("{}{}", self.prefix(), outsider.name())
    }

    /// Name of the network namespace with the bridges.
    pub fn switch_netns(&self) -> String {
        format!("{}switch", self.prefix())
    }

    /// Name of the lab's control group.
    pub fn cgroup(&self) -> String {
        format!("backstay-lab-{}", self.0)
    }
}

/// Path of a named network namespace.
pub fn netns_path(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

/// A name that the lab does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownName {
    /// What was asked for.
    pub name: String,
    /// What there is.
    pub known: &'static str,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the lab has no '{}'; it has {}", self.name, self.known)
    }
}

impl std::error::Error for UnknownName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit_into_the_kernels_15_bytes() {
        for outsider in Outsider::ALL {
            assert!(outsider.port().len() <= 15, "{}", outsider.port());
        }
        for node in Node::ALL {
            for network in node.networks() {
                assert!(node.port(*network).len() <= 15);
            }
        }
    }

    #[test]
    fn labs_in_different_directories_share_no_name() {
        let (one, two) = (
            LabId::of_dir(Path::new("/x/1")),
            LabId::of_dir(Path::new("/x/2")),
        );
        assert_ne!(one.prefix(), two.prefix());
        assert_eq!(one, LabId::of_dir(Path::new("/x/1")));
    }

    #[test]
    fn no_two_stations_share_an_ethernet_address() {
        let mut macs: Vec<_> = Outsider::ALL.map(Outsider::mac).to_vec();
        for node in Node::ALL {
            macs.extend(node.networks().iter().map(|network| node.mac(*network)));
        }
        let all = macs.len();
        macs.sort_unstable();
        macs.dedup();
        assert_eq!(macs.len(), all);
    }
}
