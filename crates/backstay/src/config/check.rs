//! What only the whole configuration can tell: clashes, dangling names, and what would break a promise.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use wire::NodeId;

use super::decode::{Parts, Read};
use super::diagnostic::{Diagnostic, Fault};
use super::model::{Filesystem, Mode, Node, NodeRole, Resource};
use super::suggest::{closest, list_or};

/// Most groups in a cluster; a group's id is one byte, and each has its own keeper process.
const GROUPS_MAX: usize = 32;
/// Most resources in a group.
const RESOURCES_MAX: usize = 64;
/// Most heartbeat links per node.
const LINKS_MAX: usize = 8;

/// Reports everything that is wrong among the parts.
pub(super) fn check(parts: &mut Parts<'_>) {
    nodes(parts);
    addresses(parts);
    links(parts);
    zones(parts);
    ports(parts);
    groups(parts);
    lone_async_mirrors(parts);
    async_nodes(parts);
    resources(parts);
    overlay_addresses(parts);
    place_disks(parts);
    devices(parts);
}

/// Reports every name that comes twice; `key` is where it stands.
fn unique<'a, 'b: 'a, T: 'b>(
    things: impl Iterator<Item = (String, &'a Read<'b, T>)>,
    key: &str,
    kind: &str,
) {
    let mut seen = BTreeSet::new();
    for (name, thing) in things {
        if name.is_empty() || seen.insert(name.clone()) {
            continue;
        }
        let what = format!("two {kind} are called `{name}`");
        let diagnostic = Diagnostic::new(Fault::Clash, thing.from.place(key), what);
        thing.from.report(diagnostic.hint("give each its own name"));
    }
}

fn nodes(parts: &Parts<'_>) {
    unique(
        parts
            .nodes
            .iter()
            .map(|node| (node.value.name.clone(), node)),
        "name",
        "nodes",
    );
    let complete = parts.root.tables("node").len() == parts.nodes.len();
    if !complete {
        return;
    }
    let data = parts
        .nodes
        .iter()
        .filter(|node| node.value.is_data())
        .count();
    let witnesses = parts.nodes.len() - data;
    let root = &parts.root;
    let wrong_votes = |why, hint| {
        let what = format!("the register `embedded` has {witnesses} witnesses");
        let diagnostic = Diagnostic::new(Fault::Unsafe, root.place("register"), what);
        root.report(diagnostic.why(why).hint(hint));
    };
    match (data, witnesses) {
        (0, 0) | (2, 1) | (3, 0) => {}
        (2, _) => wrong_votes(
            "with two votes neither node could decide alone, with four a tie is possible",
            "add one [[node]] with role = \"witness\" on a third machine",
        ),
        (3, _) => wrong_votes(
            "three data nodes decide by two of three votes; a fourth vote lets none of them fail in addition",
            "leave the [[node]] with role = \"witness\" out",
        ),
        (..) => {
            let what = format!("the cluster has {data} data nodes");
            let diagnostic = Diagnostic::new(Fault::NotYet, root.place("node"), what);
            root.report(
                diagnostic.hint("give two nodes of role data and a witness, or three of role data"),
            );
        }
    }
}

fn addresses(parts: &Parts<'_>) {
    let mut owners: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for node in &parts.nodes {
        for (key, address) in addresses_by_key(&node.value) {
            let name = node.value.name.as_str();
            match owners.insert(address, name) {
                Some(owner) if owner != name => {
                    let what =
                        format!("nodes `{owner}` and `{name}` have the same address {address}");
                    let diagnostic = Diagnostic::new(Fault::Clash, node.from.place(key), what);
                    node.from
                        .report(diagnostic.hint("give each node its own addresses"));
                }
                Some(_) | None => {}
            }
        }
    }
}

fn addresses_by_key(node: &Node) -> Vec<(&'static str, IpAddr)> {
    let mut list: Vec<_> = node
        .heartbeat
        .iter()
        .map(|address| ("heartbeat", *address))
        .collect();
    if let NodeRole::Data { service, mirror } = node.role {
        list.extend([("service", service), ("mirror", mirror)]);
    }
    list
}

fn links(parts: &Parts<'_>) {
    let Some(first) = parts.nodes.first() else {
        return;
    };
    for node in &parts.nodes {
        let links = &node.value.heartbeat;
        let place = node.from.place("heartbeat");
        let object = node.from.object();
        if links
            .iter()
            .enumerate()
            .any(|(index, link)| links[..index].contains(link))
        {
            let what = format!("`heartbeat` in {object} has one address twice");
            node.from.report(Diagnostic::new(Fault::Clash, place, what));
        }
        if links.len() > LINKS_MAX {
            let what = format!("`heartbeat` in {object} has more than {LINKS_MAX} links");
            node.from.report(Diagnostic::new(Fault::Value, place, what));
        }
        if links.len() != first.value.heartbeat.len() {
            let (here, there) = (links.len(), first.value.heartbeat.len());
            let what = format!(
                "{object} has {here} heartbeat links, {} has {there}",
                first.from.object()
            );
            let why = "the first address of each node is one link, the second the next, and so on";
            let diagnostic = Diagnostic::new(Fault::Clash, place, what).why(why);
            node.from
                .report(diagnostic.hint("give every node one address per link"));
        }
        let families = links.iter().zip(&first.value.heartbeat);
        if families
            .into_iter()
            .any(|(a, b)| a.is_ipv4() != b.is_ipv4())
        {
            let what = format!("a heartbeat link of {object} mixes IPv4 and IPv6");
            node.from.report(Diagnostic::new(Fault::Clash, place, what));
        }
    }
}

fn zones(parts: &Parts<'_>) {
    let (data, witnesses): (Vec<_>, Vec<_>) =
        parts.nodes.iter().partition(|node| node.value.is_data());
    for witness in witnesses {
        let Some(zone) = &witness.value.zone else {
            continue;
        };
        for node in data
            .iter()
            .filter(|node| node.value.zone.as_ref() == Some(zone))
        {
            let what = format!(
                "{} is in zone `{zone}`, as {} is",
                witness.from.object(),
                node.from.object()
            );
            let why = "when that zone fails, the other node has no majority and cannot take over";
            let diagnostic = Diagnostic::new(Fault::Unsafe, witness.from.place("zone"), what);
            witness.from.report(
                diagnostic
                    .why(why)
                    .hint("put the witness into a third zone"),
            );
        }
    }
}

fn ports(parts: &Parts<'_>) {
    let Some(ports) = &parts.ports else {
        return;
    };
    let tcp = [
        ("control", ports.value.control),
        ("mirror", ports.value.mirror),
        ("api", ports.value.api),
    ];
    for (index, (key, port)) in tcp.iter().enumerate() {
        if let Some((other, _)) = tcp[..index].iter().find(|(_, taken)| taken == port) {
            let what = format!("ports `{other}` and `{key}` are both {port}");
            ports
                .from
                .report(Diagnostic::new(Fault::Clash, ports.from.place(key), what));
        }
    }
}

/// The order of an asynchronous standby's writes is kept per mirror; two of them could show moments that never were together.
fn lone_async_mirrors(parts: &Parts<'_>) {
    for index in 0..parts.groups.len() {
        let mirrors: Vec<_> = in_group(parts, index)
            .filter_map(|resource| match &resource.value {
                Resource::Mirror(mirror) => Some((resource, mirror)),
                Resource::Filesystem(_) | Resource::Exec(_) | Resource::Address(_) => None,
            })
            .collect();
        let asynchronous = mirrors.iter().find(|(_, mirror)| mirror.has_followers());
        if let (Some((resource, mirror)), true) = (asynchronous, mirrors.len() > 1) {
            let (key, which) = match mirror.mode {
                Mode::Async => ("mode", "is asynchronous"),
                Mode::Sync => ("async_node", "has an asynchronous replica"),
            };
            let object = resource.from.object();
            let what = format!("{object} {which}, and its group has other mirrors");
            let why = "after a failover each mirror would show another moment";
            let hint = "put the data on one mirror, give each mirror its own group, or use mode = \"sync\"";
            let diagnostic = Diagnostic::new(Fault::Unsafe, resource.from.place(key), what);
            resource.from.report(diagnostic.why(why).hint(hint));
        }
    }
}

/// Of three replicas one may be asynchronous; of two, both stand to each other the same way.
fn async_nodes(parts: &Parts<'_>) {
    let three = parts
        .nodes
        .iter()
        .filter(|node| node.value.is_data())
        .count()
        > 2;
    for (_, resource) in &parts.resources {
        let Resource::Mirror(mirror) = &resource.value else {
            continue;
        };
        let object = resource.from.object();
        let (key, fault, what, hint) = match (mirror.mode, &mirror.async_node, three) {
            (Mode::Async, _, true) => (
                "mode",
                Fault::NotYet,
                format!("{object} is asynchronous, and there are three data nodes"),
                "use mode = \"sync\" and name one as `async_node`, or two data nodes and a witness",
            ),
            (Mode::Sync, Some(_), false) => (
                "async_node",
                Fault::Clash,
                format!("`async_node` in {object} is for three data nodes"),
                "use mode = \"async\": of two replicas neither waits for the other then",
            ),
            (Mode::Async, _, false) | (Mode::Sync, None, _) | (Mode::Sync, Some(_), true) => {
                continue;
            }
        };
        let diagnostic = Diagnostic::new(fault, resource.from.place(key), what);
        resource.from.report(diagnostic.hint(hint));
    }
}

fn groups(parts: &Parts<'_>) {
    unique(
        parts
            .groups
            .iter()
            .map(|group| (group.value.clone(), group)),
        "name",
        "groups",
    );
    if parts.groups.len() > GROUPS_MAX {
        let what = format!("there are more than {GROUPS_MAX} groups");
        parts.root.report(Diagnostic::new(
            Fault::Value,
            parts.root.place("group"),
            what,
        ));
    }
    for (index, group) in parts.groups.iter().enumerate() {
        let list: Vec<_> = in_group(parts, index).collect();
        let place = group.from.place("resource");
        if list.len() > RESOURCES_MAX {
            let what = format!(
                "{} has more than {RESOURCES_MAX} resources",
                group.from.object()
            );
            group
                .from
                .report(Diagnostic::new(Fault::Value, place, what));
        }
        let tables = group.from.has("resource") && group.from.kinds("resource").len() == list.len();
        if tables
            && !list
                .iter()
                .any(|read| matches!(read.value, Resource::Mirror(_)))
        {
            let what = format!("{} has no mirror", group.from.object());
            let diagnostic = Diagnostic::new(Fault::NotYet, place, what);
            group
                .from
                .report(diagnostic.hint("this release runs groups with a mirrored disk: add one"));
        }
    }
}

fn in_group<'p, 'a>(
    parts: &'p Parts<'a>,
    group: usize,
) -> impl Iterator<Item = &'p Read<'a, Resource>> {
    parts
        .resources
        .iter()
        .filter(move |(index, _)| *index == group)
        .map(|(_, resource)| resource)
}

fn resources(parts: &Parts<'_>) {
    for index in 0..parts.groups.len() {
        for kind in ["exec", "filesystem"] {
            let same_kind = in_group(parts, index).filter(|read| read.value.kind() == kind);
            let key = if kind == "exec" { "name" } else { "mount" };
            unique(
                same_kind.map(|read| (read.value.name(), read)),
                key,
                "resources of the group",
            );
        }
        filesystems(parts, index);
    }
    let all = || parts.resources.iter().map(|(_, resource)| resource);
    for (kind, key, words) in [
        ("mirror", "name", "mirrors"),
        ("address", "ip", "address resources"),
    ] {
        let same_kind = all().filter(|read| read.value.kind() == kind);
        unique(same_kind.map(|read| (read.value.name(), read)), key, words);
    }
}

fn filesystems(parts: &Parts<'_>, group: usize) {
    let mut earlier: Vec<&str> = Vec::new();
    let mut mounted: Vec<&str> = Vec::new();
    for read in in_group(parts, group) {
        match &read.value {
            Resource::Mirror(mirror) => earlier.push(&mirror.name),
            Resource::Filesystem(filesystem) => {
                filesystem_on(parts, group, read, filesystem, &earlier);
                if mounted.contains(&filesystem.mirror.as_str()) {
                    let what = format!("mirror `{}` has two file systems", filesystem.mirror);
                    let place = read.from.place("mirror");
                    read.from.report(Diagnostic::new(Fault::Clash, place, what));
                }
                mounted.push(&filesystem.mirror);
            }
            Resource::Exec(_) | Resource::Address(_) => {}
        }
    }
}

fn filesystem_on(
    parts: &Parts<'_>,
    group: usize,
    read: &Read<'_, Resource>,
    filesystem: &Filesystem,
    earlier: &[&str],
) {
    let wanted = filesystem.mirror.as_str();
    if earlier.contains(&wanted) {
        return;
    }
    let place = read.from.place("mirror");
    let object = read.from.object();
    let all: Vec<String> = in_group(parts, group)
        .filter(|read| matches!(read.value, Resource::Mirror(_)))
        .map(|read| read.value.name())
        .collect();
    if all.iter().any(|name| name == wanted) {
        let what = format!("{object} comes before its mirror `{wanted}`");
        let diagnostic = Diagnostic::new(Fault::Clash, place, what);
        read.from.report(
            diagnostic
                .why("resources start in the order written")
                .hint("write the mirror first"),
        );
        return;
    }
    let what = format!("{object} is on mirror `{wanted}`, which its group does not have");
    let names = || all.iter().map(String::as_str);
    let hint = match closest(wanted, names()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if all.is_empty() => "add a resource of kind = \"mirror\" before it".into(),
        None => format!("mirrors of the group are {}", list_or(names())),
    };
    read.from
        .report(Diagnostic::new(Fault::Reference, place, what).hint(hint));
}

/// An address that follows the active must not be a node's own.
fn overlay_addresses(parts: &Parts<'_>) {
    for (_, read) in &parts.resources {
        let Resource::Address(address) = &read.value else {
            continue;
        };
        let owner = parts
            .nodes
            .iter()
            .find(|node| node.value.addresses().any(|ip| ip == address.ip));
        if let Some(node) = owner {
            let what = format!(
                "{} is an own address of {}",
                read.from.object(),
                node.from.object()
            );
            let why = "it would stay on that node after a failover";
            let diagnostic = Diagnostic::new(Fault::Unsafe, read.from.place("ip"), what).why(why);
            read.from
                .report(diagnostic.hint("use an address that no node has"));
        }
    }
}

/// Disks were numbered among the data nodes; ids count the witness too.
fn place_disks(parts: &mut Parts<'_>) {
    let ids: Vec<NodeId> = (0..=NodeId::MAX.0)
        .map(NodeId)
        .zip(&parts.nodes)
        .filter(|(_, node)| node.value.is_data())
        .map(|(id, _)| id)
        .collect();
    for (_, read) in &mut parts.resources {
        if let Resource::Mirror(mirror) = &mut read.value {
            let paths = mirror.disks.iter_mut().chain(&mut mirror.metadata);
            for (place, _) in paths.chain(&mut mirror.undo) {
                if let Some(id) = ids.get(usize::from(place.0)) {
                    *place = *id;
                }
            }
        }
    }
}

/// On one node a device is one disk, or the metadata of one.
fn devices(parts: &Parts<'_>) {
    let mut users: BTreeMap<(NodeId, &PathBuf), String> = BTreeMap::new();
    for (_, read) in &parts.resources {
        let Resource::Mirror(mirror) = &read.value else {
            continue;
        };
        let used = [
            ("disk", &mirror.disks),
            ("metadata", &mirror.metadata),
            ("undo", &mirror.undo),
        ];
        for (key, paths) in used {
            for (node, path) in paths {
                let user = format!("`{key}` of mirror `{}`", mirror.name);
                let Some(other) = users.insert((*node, path), user) else {
                    continue;
                };
                let node = parts.nodes.get(usize::from(node.0));
                let node = node.map_or("", |node| node.value.name.as_str());
                let what = format!(
                    "{} is `{key}` of mirror `{}` and {other} on node `{node}`",
                    path.display(),
                    mirror.name
                );
                let place = read.from.place(key);
                let diagnostic = Diagnostic::new(Fault::Clash, place, what);
                read.from
                    .report(diagnostic.hint("give each mirror devices of its own"));
            }
        }
    }
}
