//! What the lab looks like now, from the outside and by the daemons' own words.

use serde::Serialize;
use serde_json::Value;

use super::state::{Condition, Lab};
use super::topology::{API_PORT, MIRROR, Network, Node, OVERLAY_IP, netns_path};
use super::{api, devices};
use crate::output::{Tone, Ui};

/// `backstay.lab/1`.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    schema: &'static str,
    dir: String,
    nodes: Vec<NodeDocument>,
    links: Vec<LinkDocument>,
    address: String,
    broken: Vec<String>,
}

/// One node in `backstay.lab/1`.
#[derive(Clone, Debug, Serialize)]
struct NodeDocument {
    name: &'static str,
    role: Role,
    netns: String,
    pid: Option<i32>,
    api: String,
    nbd: Option<String>,
    device: Option<String>,
    condition: Condition,
}

/// One link in `backstay.lab/1`.
#[derive(Clone, Debug, Serialize)]
struct LinkDocument {
    name: &'static str,
    #[serde(rename = "use")]
    purpose: &'static str,
}

/// A node's part in the lab's one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serves.
    Active,
    /// Could serve, or will once it is back.
    Standby,
    /// Votes.
    Witness,
}

/// Looks at the lab.
pub fn document(lab: &Lab) -> Document {
    let active = active_node(lab);
    let node_document = |node: Node| NodeDocument {
        name: node.name(),
        role: match (node.is_data(), active == Some(node)) {
            (false, _) => Role::Witness,
            (true, true) => Role::Active,
            (true, false) => Role::Standby,
        },
        netns: lab.id.node_netns(node),
        pid: lab.live_pid(node).map(|pid| pid.as_raw_nonzero().get()),
        api: format!("http://127.0.0.1:{API_PORT}"),
        nbd: node.is_data().then(|| nbd_uri(lab, node)),
        device: device(lab, node, active),
        condition: condition(lab, node),
    };
    Document {
        schema: "backstay.lab/1",
        dir: lab.dir.display().to_string(),
        nodes: lab.members().map(node_document).collect(),
        links: Network::ALL
            .map(|network| LinkDocument {
                name: network.name(),
                purpose: network.purpose(),
            })
            .to_vec(),
        address: OVERLAY_IP.to_string(),
        broken: lab
            .cuts
            .iter()
            .map(|cut| format!("{} {:?}", cut.link, cut.fault))
            .collect(),
    }
}

/// What the lab has done to the node, or that somebody else has ended it.
fn condition(lab: &Lab, node: Node) -> Condition {
    match lab.condition(node) {
        Condition::Up if lab.live_pid(node).is_none() => Condition::Killed,
        known @ (Condition::Up | Condition::Killed | Condition::Stopped | Condition::Paused) => {
            known
        }
    }
}

/// The URI under which NBD clients open a node's export.
pub fn nbd_uri(lab: &Lab, node: Node) -> String {
    format!(
        "nbd+unix:///{MIRROR}?socket={}",
        lab.nbd_socket(node).display()
    )
}

/// The block device of the mirrored volume: the active's, if it has one.
fn device(lab: &Lab, node: Node, active: Option<Node>) -> Option<String> {
    if active != Some(node) {
        return None;
    }
    let device = std::fs::read_link(devices::link(&lab.state_dir(node))).ok()?;
    Some(device.display().to_string())
}

/// The node that serves the group, by the newest epoch that any living daemon tells. Of two that tell the same epoch the one
/// that knows of an active counts: a member that has not heard from the active for a moment does not.
pub fn active_node(lab: &Lab) -> Option<Node> {
    lab.members()
        .filter(|node| lab.condition(*node) == Condition::Up)
        .filter_map(|node| group(lab, node))
        .max_by_key(|group| {
            let epoch = group["epoch"].as_u64().unwrap_or(0);
            (epoch, group["active"].is_string())
        })
        .and_then(|group| group["active"].as_str()?.parse().ok())
}

/// What the daemon of `node` says about the lab's one group.
pub fn group(lab: &Lab, node: Node) -> Option<Value> {
    let status = api::get(&lab.api_socket(node), "/api/v1/status").ok()?;
    status["groups"].get(0).cloned()
}

/// For people.
pub fn table(document: &Document, ui: &Ui) -> String {
    let mut text = format!(
        "{}  {}\naddress {}\n",
        ui.paint(Tone::Strong, "lab"),
        document.dir,
        document.address
    );
    for node in &document.nodes {
        let (tone, what) = match node.condition {
            Condition::Up => (Tone::Good, "up"),
            Condition::Killed => (Tone::Bad, "killed"),
            Condition::Stopped => (Tone::Bad, "stopped"),
            Condition::Paused => (Tone::Bad, "paused"),
        };
        let role = format!("{:?}", node.role).to_lowercase();
        text.push_str(&format!(
            "  {:<8} {:<8} {}  netns {}{}\n",
            node.name,
            role,
            ui.paint(tone, &format!("{what:<7}")),
            node.netns,
            node.pid
                .map(|pid| format!("  pid {pid}"))
                .unwrap_or_default(),
        ));
        if let Some(nbd) = &node.nbd {
            text.push_str(&format!("           {}\n", ui.paint(Tone::Dim, nbd)));
        }
    }
    for broken in &document.broken {
        text.push_str(&format!("  {} {broken}\n", ui.paint(Tone::Bad, "broken")));
    }
    text
}

/// True if the namespace of the node exists.
pub fn has_netns(lab: &Lab, node: Node) -> bool {
    netns_path(&lab.id.node_netns(node)).exists()
}
