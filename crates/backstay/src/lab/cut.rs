//! Broken links: which frames the switch drops, and the packet filter rules that drop them.
//!
//! Frames are dropped while they cross a bridge, so no interface loses its carrier and nobody is told. The observers are
//! plugged into the bridge too, each with a way to its own node's port that no cut touches.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::topology::{Network, Node, Outsider, UnknownName};

/// Share of the frames that a lossy link drops, in percent.
const LOSS_PERCENT: u8 = 30;
/// Name of the switch's packet filter table.
pub const TABLE: &str = "backstay_lab";

/// What is done to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LinkFault {
    /// Nothing passes
    Cut,
    /// Nothing passes in one direction: what the first node sends is lost
    OneWay,
    /// Every frame comes 50 ms later
    Slow,
    /// Three of ten frames are lost
    Lossy,
}

/// Part of the lab's networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Link {
    /// A whole network: `hb1`.
    Network(Network),
    /// One node's port, or all of its ports: `node-a:hb1`, `node-a:all`.
    Port(Node, Option<Network>),
    /// Between two nodes, on one network or on all: `node-a/node-b:mirror`, `node-a/node-b`.
    Pair(Node, Node, Option<Network>),
}

impl Link {
    /// The nodes that it names.
    pub fn nodes(self) -> impl Iterator<Item = Node> {
        let (one, two) = match self {
            Self::Network(_) => (None, None),
            Self::Port(node, _) => (Some(node), None),
            Self::Pair(one, two, _) => (Some(one), Some(two)),
        };
        one.into_iter().chain(two)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => write!(f, "{network}"),
            Self::Port(node, Some(network)) => write!(f, "{node}:{network}"),
            Self::Port(node, None) => write!(f, "{node}:all"),
            Self::Pair(one, two, Some(network)) => write!(f, "{one}/{two}:{network}"),
            Self::Pair(one, two, None) => write!(f, "{one}/{two}"),
        }
    }
}

impl From<Link> for String {
    fn from(link: Link) -> Self {
        link.to_string()
    }
}

impl TryFrom<String> for Link {
    type Error = UnknownName;

    fn try_from(text: String) -> Result<Self, UnknownName> {
        text.parse()
    }
}

impl FromStr for Link {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let (place, network) = match text.split_once(':') {
            None => (text, None),
            Some((place, "all")) => (place, None),
            Some((place, network)) => (place, Some(network.parse()?)),
        };
        if let Some((one, two)) = place.split_once('/') {
            return Ok(Self::Pair(one.parse()?, two.parse()?, network));
        }
        if text.contains(':') {
            return Ok(Self::Port(place.parse()?, network));
        }
        text.parse().map(Self::Network).map_err(|_| UnknownName {
            name: text.to_owned(),
            known: "links service, hb1, hb2, mirror, NODE:LINK, NODE:all, NODE/NODE, NODE/NODE:LINK",
        })
    }
}

/// One broken link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Which.
    pub link: Link,
    /// How.
    pub fault: LinkFault,
}

/// One direction between two groups of switch ports.
pub(super) struct Direction {
    /// What arrives at these ports …
    pub(super) from: Vec<String>,
    /// … is lost for these.
    pub(super) to: Vec<String>,
}

impl Cut {
    /// The directions in which frames are lost.
    pub(super) fn directions(self) -> Vec<Direction> {
        let one_way = self.fault == LinkFault::OneWay;
        match self.link {
            Link::Network(network) if one_way => {
                vec![Direction {
                    from: vec![Node::NodeA.port(network)],
                    to: ports_except(network, Some(Node::NodeA)),
                }]
            }
            Link::Network(network) => {
                let all = ports_except(network, None);
                vec![Direction {
                    from: all.clone(),
                    to: all,
                }]
            }
            Link::Port(node, chosen) => networks(chosen)
                .filter(|network| node.networks().contains(network))
                .flat_map(|network| {
                    let others = ports_except(network, Some(node));
                    between(vec![node.port(network)], others, one_way)
                })
                .collect(),
            Link::Pair(one, two, chosen) => networks(chosen)
                .filter(|network| {
                    one.networks().contains(network) && two.networks().contains(network)
                })
                .flat_map(|network| {
                    between(vec![one.port(network)], vec![two.port(network)], one_way)
                })
                .collect(),
        }
    }
}

/// From one group of ports to another, and back unless the fault is one-way.
fn between(one: Vec<String>, two: Vec<String>, one_way: bool) -> Vec<Direction> {
    let forth = Direction {
        from: one.clone(),
        to: two.clone(),
    };
    if one_way {
        vec![forth]
    } else {
        vec![forth, Direction { from: two, to: one }]
    }
}

fn networks(chosen: Option<Network>) -> impl Iterator<Item = Network> {
    Network::ALL
        .into_iter()
        .filter(move |network| chosen.is_none_or(|only| only == *network))
}

/// The ports of `network`, the client's included, without those of one node.
fn ports_except(network: Network, without: Option<Node>) -> Vec<String> {
    let nodes = Node::ALL
        .into_iter()
        .filter(|node| without != Some(*node) && node.networks().contains(&network))
        .map(|node| node.port(network));
    let client = (network == Network::Service).then(|| Outsider::Client.port());
    nodes.chain(client).collect()
}

/// The packet filter of the switch, as one atomic nft script.
pub fn ruleset(cuts: &[Cut]) -> String {
    let mut rules = String::new();
    for node in Node::DATA {
        let observer = Outsider::Observer(node).port();
        let own = node.port(Network::Service);
        let _ = writeln!(
            rules,
            "    iifname \"{observer}\" oifname != \"{own}\" drop"
        );
        let _ = writeln!(
            rules,
            "    oifname \"{observer}\" iifname != \"{own}\" drop"
        );
    }
    for cut in cuts {
        for direction in cut.directions() {
            if !direction.from.is_empty() && !direction.to.is_empty() {
                let _ = writeln!(rules, "    {}", rule(&direction, cut.fault));
            }
        }
    }
    format!(
        "table bridge {TABLE}\ndelete table bridge {TABLE}\ntable bridge {TABLE} {{\n  chain forward {{\n    \
         type filter hook forward priority 0; policy accept;\n{rules}  }}\n}}\n"
    )
}

fn rule(direction: &Direction, fault: LinkFault) -> String {
    let set = |ports: &[String]| {
        let quoted: Vec<_> = ports.iter().map(|port| format!("\"{port}\"")).collect();
        format!("{{ {} }}", quoted.join(", "))
    };
    let ends = format!(
        "iifname {} oifname {}",
        set(&direction.from),
        set(&direction.to)
    );
    match fault {
        LinkFault::Cut | LinkFault::OneWay => format!("{ends} drop"),
        LinkFault::Lossy => format!("{ends} numgen random mod 100 < {LOSS_PERCENT} drop"),
        // A slow link's frames leave the bridge: a process carries them over, late.
        LinkFault::Slow => format!("{ends} drop"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules_of(link: &str, fault: LinkFault) -> Vec<String> {
        let cut = Cut {
            link: link.parse().unwrap(),
            fault,
        };
        ruleset(&[cut])
            .lines()
            .filter(|line| line.contains("iifname {"))
            .map(|line| line.trim().to_owned())
            .collect()
    }

    #[test]
    fn links_are_read_as_they_are_written() {
        for text in [
            "hb1",
            "service",
            "node-a:hb1",
            "node-a:all",
            "node-a/node-b",
            "node-a/witness:hb2",
        ] {
            assert_eq!(text.parse::<Link>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "hb3",
            "node-d:hb1",
            "node-a:",
            "node-a/",
            "/",
            "node-a:hb1:hb2",
        ] {
            assert!(text.parse::<Link>().is_err(), "{text}");
        }
    }

    #[test]
    fn cut_between_two_nodes_leaves_the_witness_reachable() {
        let rules = rules_of("node-a/node-b", LinkFault::Cut);
        assert_eq!(rules.len(), 8);
        assert!(rules.iter().all(|rule| !rule.contains("-w\"")));
    }

    #[test]
    fn one_way_drops_only_what_the_first_node_sends() {
        let rules = rules_of("node-a/node-b:hb1", LinkFault::OneWay);
        assert_eq!(rules, [r#"iifname { "hb1-a" } oifname { "hb1-b" } drop"#]);
    }

    #[test]
    fn isolated_node_loses_every_port_and_keeps_its_observer() {
        let rules = rules_of("node-a:all", LinkFault::Cut).join("\n");
        for port in ["svc-client", "hb1-w", "hb2-b", "mir-b"] {
            assert!(rules.contains(port), "{port}");
        }
        assert!(!rules.contains("svc-obs"));
    }
}
