//! Network namespaces, bridges and cables of a lab.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use host::netlink::route::Routes;

use super::cut::{Cut, ruleset};
use super::state::Lab;
use super::tools;
use super::topology::{LabId, NETNS_DIR, Network, Node, Outsider, mac_text, netns_path};
use crate::failure::Failure;

/// Longest wait for the kernel to close the connections of ended processes.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// The state of an open connection in the kernel's table.
const ESTABLISHED: &str = "01";

/// Makes the switch and the outsiders; nodes are plugged in by [`add_node`].
///
/// # Errors
/// When the kernel refuses, or when a namespace of this name exists.
pub(super) fn create(lab: &Lab) -> Result<(), Failure> {
    let id = &lab.id;
    let switch = id.switch_netns();
    add_netns(&switch)?;
    let mut script = String::new();
    for network in Network::ALL {
        let bridge = network.bridge();
        let _ = writeln!(
            script,
            "link add {bridge} type bridge mcast_snooping 0 forward_delay 0"
        );
        let _ = writeln!(script, "link set {bridge} up");
    }
    batch(&switch, &script)?;
    let observers = lab.data_nodes().map(Outsider::Observer);
    for outsider in std::iter::once(Outsider::Client).chain(observers) {
        add_outsider(id, outsider)?;
    }
    apply_cuts(id, &[])
}

fn add_outsider(id: &LabId, outsider: Outsider) -> Result<(), Failure> {
    let netns = id.outsider_netns(outsider);
    add_netns(&netns)?;
    let cable = Cable {
        port: outsider.port(),
        netns: &netns,
        interface: Network::Service.short(),
        network: Network::Service,
        mac: outsider.mac(),
    };
    batch(&id.switch_netns(), &cable.script())?;
    batch(
        &netns,
        &address_script(Network::Service, outsider.address()),
    )
}

/// Makes a node's namespace and plugs it into its networks.
///
/// # Errors
/// When the kernel refuses, or when the namespace exists.
pub(super) fn add_node(id: &LabId, node: Node) -> Result<(), Failure> {
    let netns = id.node_netns(node);
    add_netns(&netns)?;
    let (mut cables, mut addresses) = (String::new(), String::new());
    for network in node.networks() {
        let cable = Cable {
            port: node.port(*network),
            netns: &netns,
            interface: network.short(),
            network: *network,
            mac: node.mac(*network),
        };
        cables.push_str(&cable.script());
        addresses.push_str(&address_script(*network, node.address(*network)));
    }
    batch(&id.switch_netns(), &cables)?;
    batch(&netns, &addresses)
}

/// Waits until the kernel has closed the connections of a node's ended processes: it does so a little after their end. What is
/// open still when the patience is over, because nobody answers, is cut.
///
/// # Errors
/// When the node's network cannot be looked at.
pub(super) fn await_farewells(id: &LabId, node: Node) -> Result<(), Failure> {
    let netns = id.node_netns(node);
    if !netns_path(&netns).exists() {
        // Killed before: its network is gone already.
        return Ok(());
    }
    let closed = tools::inside(&netns, || {
        tools::wait_for("the end of all connections", FAREWELL_MAX, || {
            let table = fs::read_to_string("/proc/thread-self/net/tcp").ok()?;
            (!has_connection(&table)).then_some(())
        })
    })?;
    closed.ok();
    Ok(())
}

/// True if a table of TCP sockets (`proc_pid_net(5)`) has one with an open connection.
fn has_connection(table: &str) -> bool {
    let states = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3));
    states.into_iter().any(|state| state == ESTABLISHED)
}

/// Pulls a node's plugs at the switch: nothing that its kernel still sends gets out.
///
/// # Errors
/// When the kernel refuses. A plug that is not there is fine.
pub(super) fn unplug_node(id: &LabId, node: Node) -> Result<(), Failure> {
    change_ports(id, node, "link set {} down")
}

/// Removes a node's namespace with its addresses, packet filter and cables. One that is gone is fine.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn remove_node(id: &LabId, node: Node) -> Result<(), Failure> {
    // The kernel removes a dead namespace's cables some time later; a node that is started again needs their names now.
    change_ports(id, node, "link del {}")?;
    remove_netns(&id.node_netns(node))
}

/// Does something to those of a node's ports that the switch has; `{}` stands for the port.
fn change_ports(id: &LabId, node: Node, command: &str) -> Result<(), Failure> {
    let switch = id.switch_netns();
    if !netns_path(&switch).exists() {
        return Ok(());
    }
    let links = tools::inside(&switch, || {
        Routes::open().and_then(|mut routes| routes.links())
    })?
    .map_err(|error| Failure::new("cannot list the ports of the switch").from_error(&error))?;
    let ports = node.networks().iter().map(|network| node.port(*network));
    let script: String = ports
        .filter(|port| links.iter().any(|link| link.name == *port))
        .map(|port| command.replace("{}", &port) + "\n")
        .collect();
    batch(&switch, &script)
}

/// Removes every namespace of the lab.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn remove(id: &LabId) -> Result<(), Failure> {
    namespaces(id)
        .iter()
        .try_for_each(|netns| remove_netns(netns))
}

/// The lab's namespaces that exist.
pub(super) fn namespaces(id: &LabId) -> Vec<String> {
    let Ok(entries) = fs::read_dir(NETNS_DIR) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(&id.prefix()))
        .collect();
    names.sort_unstable();
    names
}

/// Replaces the broken links by `cuts`, atomically.
///
/// # Errors
/// When the packet filter refuses.
pub(super) fn apply_cuts(id: &LabId, cuts: &[Cut]) -> Result<(), Failure> {
    let script = ruleset(cuts);
    tools::inside(&id.switch_netns(), || {
        tools::run("nft", &["-f", "-"], &script)
    })?
    .map(drop)
}

/// One cable from the switch to a namespace.
struct Cable<'a> {
    port: String,
    netns: &'a str,
    interface: &'a str,
    network: Network,
    mac: [u8; 6],
}

impl Cable<'_> {
    fn script(&self) -> String {
        let Self {
            port,
            netns,
            interface,
            network,
            mac,
        } = self;
        let (mac, bridge) = (mac_text(*mac), network.bridge());
        format!(
            "link add {port} type veth peer name {interface} address {mac} netns {netns}\n\
             link set {port} master {bridge} up\n"
        )
    }
}

fn address_script(network: Network, address: std::net::Ipv4Addr) -> String {
    let interface = network.short();
    format!("address add {address}/24 dev {interface}\nlink set {interface} up\n")
}

/// Makes a namespace with loopback up and without IPv6, whose own chatter would only blur captures.
fn add_netns(name: &str) -> Result<(), Failure> {
    tools::run("ip", &["netns", "add", name], "")?;
    tools::inside(name, || {
        for scope in ["all", "default"] {
            // A kernel without IPv6 has no such file, and nothing to switch off.
            fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1").ok();
        }
    })?;
    batch(name, "link set lo up\n")
}

fn remove_netns(name: &str) -> Result<(), Failure> {
    if !netns_path(name).exists() {
        return Ok(());
    }
    tools::run("ip", &["netns", "delete", name], "").map(drop)
}

fn batch(netns: &str, script: &str) -> Result<(), Failure> {
    tools::run("ip", &["-n", netns, "-batch", "-"], script).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_and_closing_sockets_are_no_connections() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue\n";
        let listening = "   0: 0100007F:26DA 00000000:0000 0A 00000000:00000000 00:00000000 0\n";
        let open = "   1: 0B03580A:8F1C 0C03580A:26DA 01 00000000:00000000 00:00000000 0\n";
        let closing = open.replace(" 01 ", " 04 ");
        assert!(!has_connection(&format!("{head}{listening}{closing}")));
        assert!(has_connection(&format!("{head}{listening}{open}")));
    }
}
