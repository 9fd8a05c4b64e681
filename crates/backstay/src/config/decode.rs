//! Builds the model from tables. What one table alone can tell is checked here, the rest in `check`.

use std::path::PathBuf;
use std::time::Duration;

use wire::NodeId;

use super::diagnostic::{Diagnostic, Fault};
use super::model::{
    Ack, Address, AddressDriver, Config, Exec, Filesystem, FrontEnd, Group, Lab, Mirror, Mode,
    Node, NodeRole, Ports, Register, Resource,
};
use super::profile::Profile;
use super::reader::{Located, PathPerNode, Reader};
use super::suggest::{closest, list_or};

/// An object with the table that it was read from, so that later checks can name the place.
#[derive(Debug)]
pub(super) struct Read<'a, T> {
    pub(super) value: T,
    pub(super) from: Reader<'a>,
}

/// All objects that could be read; incomplete ones are missing and were reported.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) root: Reader<'a>,
    pub(super) nodes: Vec<Read<'a, Node>>,
    pub(super) groups: Vec<Read<'a, String>>,
    /// Resources with the index of their group.
    pub(super) resources: Vec<(usize, Read<'a, Resource>)>,
    pub(super) ports: Option<Read<'a, Ports>>,
    cluster: Option<String>,
    profile: Option<Profile>,
    tls: Option<bool>,
    lab: Lab,
}

impl<'a> Parts<'a> {
    pub(super) fn read(root: Reader<'a>) -> Self {
        let mut nodes = Vec::new();
        // Incomplete nodes are included, so that a disk given for one is no second mistake.
        let mut data_names = Vec::new();
        for reader in root.tables("node") {
            let name = reader.text("name").map(|name| name.value);
            let is_data = reader.text("role").is_none_or(|role| role.value == "data");
            data_names.extend(name.filter(|_| is_data));
            if let Some(value) = node(&reader) {
                nodes.push(Read {
                    value,
                    from: reader,
                });
            }
        }
        let mut groups = Vec::new();
        let mut resources = Vec::new();
        for reader in root.tables("group") {
            let index = groups.len();
            for (kind, table) in reader.kinds("resource") {
                if let Some(value) = resource(kind, &table, &data_names) {
                    resources.push((index, Read { value, from: table }));
                }
            }
            let value = reader
                .text("name")
                .map(|name| name.value)
                .unwrap_or_default();
            groups.push(Read {
                value,
                from: reader,
            });
        }
        let cluster = root.text("cluster").map(|cluster| cluster.value);
        let profile = root
            .text("profile")
            .and_then(|profile| Profile::from_name(&profile.value));
        let tls = root.flag("tls");
        root.table("register")
            .and_then(|register| register.text("kind"));
        let ports = root
            .table("ports")
            .and_then(|from| ports(&from).map(|value| Read { value, from }));
        let fault_shim = root
            .table("lab")
            .and_then(|lab| lab.flag("fault_shim"))
            .unwrap_or(false);
        let lab = Lab { fault_shim };
        Self {
            root,
            nodes,
            groups,
            resources,
            ports,
            cluster,
            profile,
            tls,
            lab,
        }
    }

    /// The model. Call it only when nothing was reported; none if something is missing all the same.
    pub(super) fn into_config(self) -> Option<Config> {
        let (cluster, profile, tls) = (self.cluster?, self.profile?, self.tls?);
        let nodes = self.nodes.into_iter().map(|node| node.value).collect();
        let mut groups: Vec<Group> = self
            .groups
            .into_iter()
            .map(|group| Group {
                name: group.value,
                resources: Vec::new(),
            })
            .collect();
        for (index, resource) in self.resources {
            groups.get_mut(index)?.resources.push(resource.value);
        }
        let ports = self.ports.map_or(PORTS_DEFAULT, |ports| ports.value);
        let register = Register::Embedded;
        Some(Config {
            cluster,
            profile,
            tls,
            ports,
            nodes,
            register,
            groups,
            lab: self.lab,
        })
    }
}

/// Ports when the file has no `[ports]`.
const PORTS_DEFAULT: Ports = Ports {
    heartbeat: 9_944,
    control: 9_945,
    mirror: 9_946,
    api: 9_947,
};

fn ports(reader: &Reader<'_>) -> Option<Ports> {
    let port = |key| u16::try_from(reader.count(key)?.value).ok();
    let (heartbeat, control) = (port("heartbeat"), port("control"));
    let (mirror, api) = (port("mirror"), port("api"));
    Some(Ports {
        heartbeat: heartbeat?,
        control: control?,
        mirror: mirror?,
        api: api?,
    })
}

fn node(reader: &Reader<'_>) -> Option<Node> {
    // Everything is read before the first `?`, so that all mistakes of the table are reported.
    let name = reader.text("name");
    let role = reader.text("role");
    let zone = reader.text("zone");
    let heartbeat = reader.addresses("heartbeat");
    let role = match role?.value.as_str() {
        "witness" => witness(reader),
        _ => data_node(reader),
    };
    let heartbeat: Vec<_> = heartbeat?
        .into_iter()
        .map(|address| address.value)
        .collect();
    if heartbeat.is_empty() {
        return None;
    }
    Some(Node {
        name: name?.value,
        role: role?,
        zone: zone.map(|zone| zone.value),
        heartbeat,
    })
}

fn data_node(reader: &Reader<'_>) -> Option<NodeRole> {
    let address = |key: &str| {
        if !reader.has(key) {
            let what = format!("`{key}` is missing in {}", reader.object());
            let hint = format!("add {key} = …, its address on the {key} network");
            reader.report(Diagnostic::new(Fault::Missing, reader.at(), what).hint(hint));
        }
        reader.address(key).map(|found| found.value)
    };
    let (service, mirror) = (address("service"), address("mirror"));
    Some(NodeRole::Data {
        service: service?,
        mirror: mirror?,
    })
}

fn witness(reader: &Reader<'_>) -> Option<NodeRole> {
    for key in ["service", "mirror"] {
        if reader.has(key) {
            let what = format!(
                "`{key}` in {} is not used: a witness only votes",
                reader.object()
            );
            let diagnostic = Diagnostic::new(Fault::Clash, reader.place(key), what);
            reader.report(diagnostic.hint("leave it out; its heartbeat addresses are enough"));
        }
    }
    Some(NodeRole::Witness)
}

fn resource(kind: &str, reader: &Reader<'_>, data_names: &[String]) -> Option<Resource> {
    match kind {
        "mirror" => mirror(reader, data_names).map(Resource::Mirror),
        "filesystem" => filesystem(reader).map(Resource::Filesystem),
        "exec" => exec(reader).map(Resource::Exec),
        "address" => address(reader).map(Resource::Address),
        _ => None,
    }
}

fn mirror(reader: &Reader<'_>, data_names: &[String]) -> Option<Mirror> {
    let name = reader.text("name");
    let disk = reader.path_per_node("disk");
    let metadata = reader.path_per_node("metadata");
    let undo = reader.path_per_node("undo");
    let undo_bound = reader.bytes("undo_bound");
    let mode = reader.text("mode");
    let size = reader.bytes("size");
    let ack = reader.text("ack");
    let max_lag = reader.bytes("max_lag");
    let max_lag_seconds = reader.count("max_lag_seconds");
    let front_end = reader.text("front_end");
    let intent_bound = reader.bytes("intent_bound");
    let compress = reader.text("compress");
    let mode = match mode?.value.as_str() {
        "async" => Mode::Async,
        _ => Mode::Sync,
    };
    let async_node = reader.text("async_node");
    only_async(reader, mode);
    only_sync(reader, mode);
    if let Some(node) = &async_node {
        only_data_node(reader, "async_node", node, data_names);
    }
    let ack = match ack?.value.as_str() {
        "flush" => Ack::Flush,
        _ => Ack::Write,
    };
    let front_end = match front_end?.value.as_str() {
        "ublk" => FrontEnd::Ublk,
        "nbd" => FrontEnd::Nbd,
        "fuse-loop" => FrontEnd::FuseLoop,
        "nbd-socket" => FrontEnd::NbdSocket,
        _ => FrontEnd::Auto,
    };
    let metadata = metadata.map(|given| paths(reader, "metadata", given, data_names));
    let undo = undo.map(|given| paths(reader, "undo", given, data_names));
    let disks = paths(reader, "disk", disk?, data_names);
    complete(reader, &disks, data_names);
    Some(Mirror {
        name: name?.value,
        disks,
        metadata: metadata.unwrap_or_default(),
        undo: undo.unwrap_or_default(),
        undo_bound: undo_bound?,
        mode,
        async_node: async_node.map(|node| node.value),
        ack,
        max_lag: max_lag?,
        max_lag_time: Duration::from_secs(max_lag_seconds?.value),
        size,
        front_end,
        intent_bound: intent_bound?,
        compress: compress?.value == "lz4",
    })
}

/// A bound of the lag says nothing about a mirror that has none.
fn only_async(reader: &Reader<'_>, mode: Mode) {
    for key in ["max_lag", "max_lag_seconds"] {
        if mode == Mode::Sync && reader.has(key) && !reader.has("async_node") {
            let what = format!("`{key}` in {} is for mode = \"async\"", reader.object());
            let diagnostic = Diagnostic::new(Fault::Clash, reader.place(key), what);
            reader.report(diagnostic.hint("leave it out: a synchronous mirror has no lag"));
        }
    }
}

/// An asynchronous mirror waits for nobody, whatever is written.
fn only_sync(reader: &Reader<'_>, mode: Mode) {
    for key in ["ack", "async_node"] {
        if mode == Mode::Async && reader.has(key) {
            let what = format!("`{key}` in {} is for mode = \"sync\"", reader.object());
            let diagnostic = Diagnostic::new(Fault::Clash, reader.place(key), what);
            reader.report(diagnostic.hint("leave it out: an asynchronous mirror waits for nobody"));
        }
    }
}

/// A name that must be a data node's.
fn only_data_node(reader: &Reader<'_>, key: &str, node: &Located<String>, data_names: &[String]) {
    if data_names.contains(&node.value) {
        return;
    }
    let what = format!(
        "`{key}` of {} is `{}`, which is no data node",
        reader.object(),
        node.value
    );
    let diagnostic = Diagnostic::new(Fault::Reference, &node.at, what);
    reader.report(diagnostic.hint(which_node(&node.value, data_names)));
}

/// What may have been meant.
fn which_node(given: &str, data_names: &[String]) -> String {
    let names = || data_names.iter().map(String::as_str);
    closest(given, names()).map_or_else(
        || format!("data nodes are {}", list_or(names())),
        |name| format!("did you mean `{name}`?"),
    )
}

/// Options by which something else than the mirror would be mounted, or nothing at all.
const OTHER_MOUNTS: [&str; 6] = ["loop", "bind", "rbind", "move", "remount", "nofail"];

fn only_plain_options(reader: &Reader<'_>, options: &str) {
    let names = options
        .split(',')
        .map(|option| option.split('=').next().unwrap_or(option));
    for name in names.filter(|name| OTHER_MOUNTS.contains(name)) {
        let what = format!(
            "mount option `{name}` in {} does not mount the mirror",
            reader.object()
        );
        let diagnostic = Diagnostic::new(Fault::Clash, reader.place("options"), what);
        reader.report(diagnostic.hint("leave it out"));
    }
}

/// A path for each data node that has one. Ids are places among the data nodes; `check` puts them right.
fn paths(
    reader: &Reader<'_>,
    key: &str,
    given: PathPerNode,
    data_names: &[String],
) -> Vec<(NodeId, PathBuf)> {
    let ids = (0..=NodeId::MAX.0).map(NodeId);
    let each = match given {
        PathPerNode::Same(path) => {
            return ids
                .take(data_names.len())
                .map(|id| (id, PathBuf::from(&path)))
                .collect();
        }
        PathPerNode::Each(each) => each,
    };
    for (node, _) in &each {
        if data_names.contains(&node.value) {
            continue;
        }
        let what = format!(
            "{key} of {} is given for `{}`, which is no data node",
            reader.object(),
            node.value
        );
        let hint = which_node(&node.value, data_names);
        reader.report(Diagnostic::new(Fault::Reference, &node.at, what).hint(hint));
    }
    let of = |name: &String| each.iter().find(|(node, _)| node.value == *name);
    ids.zip(data_names)
        .filter_map(|(id, name)| of(name).map(|(_, path)| (id, PathBuf::from(path))))
        .collect()
}

/// Every data node needs a disk.
fn complete(reader: &Reader<'_>, disks: &[(NodeId, PathBuf)], data_names: &[String]) {
    for (id, name) in (0..=NodeId::MAX.0).map(NodeId).zip(data_names) {
        if disks.iter().any(|(given, _)| *given == id) {
            continue;
        }
        let what = format!("{} has no disk on node `{name}`", reader.object());
        let hint = format!("add {name} = \"/dev/…\" to the table");
        reader.report(Diagnostic::new(Fault::Missing, reader.place("disk"), what).hint(hint));
    }
}

fn filesystem(reader: &Reader<'_>) -> Option<Filesystem> {
    let mirror = reader.text("mirror");
    let mount = reader.text("mount");
    let fstype = reader.text("fstype");
    let options = reader
        .text("options")
        .map(|options| options.value)
        .unwrap_or_default();
    only_plain_options(reader, &options);
    let mount = mount?;
    if PathBuf::from(&mount.value).components().count() < 2 {
        let what = format!("`mount` in {} is the root directory", reader.object());
        reader.report(Diagnostic::new(Fault::Unsafe, &mount.at, what).hint("mount it below"));
    }
    let mount = PathBuf::from(mount.value);
    Some(Filesystem {
        mirror: mirror?.value,
        mount,
        fstype: fstype?.value,
        options,
    })
}

fn exec(reader: &Reader<'_>) -> Option<Exec> {
    let name = reader.text("name");
    let start = reader.command("start");
    let stop = reader.command("stop");
    let monitor = reader.command("monitor");
    let user = reader.text("user").map(|user| user.value);
    let monitor_interval = reader.time("monitor_interval");
    let restart = reader.count("restart");
    let restart_window = reader.time("restart_window");
    let start_timeout = reader.time("start_timeout");
    let stop_timeout = reader.time("stop_timeout");
    Some(Exec {
        name: name?.value,
        start: start?,
        stop,
        monitor,
        user,
        monitor_interval: monitor_interval?,
        restart: u32::try_from(restart?.value).ok()?,
        restart_window: restart_window?,
        start_timeout: start_timeout?,
        stop_timeout: stop_timeout?,
    })
}

fn address(reader: &Reader<'_>) -> Option<Address> {
    let ip = reader.address("ip");
    let prefix = reader.count("prefix");
    let driver = reader.text("driver").map(|_| AddressDriver::L2);
    let interface = reader.text("interface").map(|interface| interface.value);
    let ip = ip?;
    let bits: u8 = if ip.value.is_ipv4() { 32 } else { 128 };
    if !reader.has("prefix") {
        let what = format!("`prefix` is missing in {}", reader.object());
        let why = "driver l2 puts the address on an interface, with the length of its prefix";
        let hint = format!("add prefix = {bits} for a single address, or the subnet's length");
        reader.report(
            Diagnostic::new(Fault::Missing, reader.at(), what)
                .why(why)
                .hint(hint),
        );
    }
    let prefix = prefix?;
    let Some(length) = u8::try_from(prefix.value)
        .ok()
        .filter(|length| *length <= bits)
    else {
        let what = format!("`prefix` in {} must be from 0 to {bits}", reader.object());
        reader.report(Diagnostic::new(Fault::Value, &prefix.at, what));
        return None;
    };
    Some(Address {
        ip: ip.value,
        prefix: length,
        driver: driver?,
        interface,
    })
}
