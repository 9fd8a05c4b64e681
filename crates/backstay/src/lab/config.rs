//! Files that a lab's nodes start from: configuration, identity, disks.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use host::pki::{Authority, CA_LIFETIME, NODE_LIFETIME};

use super::state::{FileSystem, FrontEnd, Lab, Mode, Switch, Workload, word};
use super::topology::{GROUP, MIRROR, Network, Node, OVERLAY_IP, SERVICE};
use super::{tools, workload};
use crate::failure::Failure;

/// Name of the lab's cluster.
const CLUSTER: &str = "lab";
/// Room on each disk behind the mirrored volume, or on a device of its own, for the mirror's metadata.
const METADATA_ROOM_BYTES: u64 = 16 << 20;
/// Smallest volume that a file system with its journal makes sense on.
pub(super) const SIZE_MIN_BYTES: u64 = 32 << 20;

/// Writes everything that nodes need before they start.
///
/// # Errors
/// Names the file that could not be written or the step that failed.
pub(super) fn prepare(lab: &Lab) -> Result<(), Failure> {
    tools::make_dir(&lab.mount())?;
    write_identity(lab)?;
    workload::write_start_script(lab)?;
    tools::write_file(&lab.config(), &configuration(lab))?;
    lab.data_nodes().try_for_each(|node| make_disk(lab, node))?;
    if lab.options.workload != Workload::None || lab.options.used_only {
        make_filesystem(lab)?;
    }
    create_mirror(lab)
}

fn write_identity(lab: &Lab) -> Result<(), Failure> {
    let failed = |error: host::pki::PkiError| {
        Failure::new("cannot make the certificates of the lab's nodes").from_error(&error)
    };
    let now = SystemTime::now();
    let authority = Authority::create(CLUSTER, now, CA_LIFETIME).map_err(failed)?;
    authority.save(&lab.dir.join("pki")).map_err(failed)?;
    for node in lab.members() {
        let files = authority
            .issue(node.name(), now, NODE_LIFETIME)
            .map_err(failed)?;
        files
            .save(&lab.state_dir(node).join("pki"))
            .map_err(failed)?;
    }
    Ok(())
}

/// The cluster's configuration file.
pub(super) fn configuration(lab: &Lab) -> String {
    let options = &lab.options;
    let mut text = format!(
        "# Made by `backstay lab up`.\ncluster = \"{CLUSTER}\"\nprofile = \"{}\"\ntls = {}\n\n\
         [register]\nkind = \"embedded\"\n\n[lab]\nfault_shim = {}\n",
        word(options.profile),
        options.tls == Switch::On,
        !options.bench.plain_disks,
    );
    for node in lab.members() {
        text.push_str(&node_table(node));
    }
    text.push_str(&format!("\n[[group]]\nname = \"{GROUP}\"\n"));
    text.push_str(&mirror_table(lab));
    if options.workload != Workload::None {
        text.push_str(&service_tables(lab));
    }
    text.push_str(&format!(
        "\n[[group.resource]]\nkind = \"address\"\nip = \"{OVERLAY_IP}\"\nprefix = 32\ndriver = \"l2\"\n"
    ));
    text
}

fn node_table(node: Node) -> String {
    let role = match node.is_data() {
        true => format!(
            "service = \"{}\"\nmirror = \"{}\"\n",
            node.address(Network::Service),
            node.address(Network::Mirror)
        ),
        false => "role = \"witness\"\n".to_owned(),
    };
    format!(
        "\n[[node]]\nname = \"{node}\"\n{role}heartbeat = [\"{}\", \"{}\"]\n",
        node.address(Network::Heartbeat1),
        node.address(Network::Heartbeat2),
    )
}

fn mirror_table(lab: &Lab) -> String {
    let front_end = match (lab.options.front_end, lab.options.workload) {
        (Some(wanted), _) => word(wanted),
        (None, Workload::None) => word(FrontEnd::NbdSocket),
        (None, Workload::Ledger | Workload::Postgres) => word(FrontEnd::Auto),
    };
    let disk = |node: Node| format!("{node} = \"{}\"", lab.disk(node).display());
    let disks: Vec<String> = lab.data_nodes().map(disk).collect();
    let disks = disks.join(", ");
    let metadata = per_node(lab, "metadata", |node| lab.metadata(node));
    let undo = per_node(lab, "undo", |node| lab.undo(node));
    let bound = "max_lag = \"64MiB\"\nmax_lag_seconds = 5\n";
    let mode = match (lab.options.mode, lab.options.replicas) {
        (Mode::Sync, _) => "mode = \"sync\"\n".to_owned(),
        (Mode::Async, 3..) => format!("mode = \"sync\"\nasync_node = \"{}\"\n{bound}", Node::NodeC),
        (Mode::Async, _) => format!("mode = \"async\"\n{bound}"),
    };
    let compress = if lab.options.compress {
        "compress = \"lz4\"\n"
    } else {
        ""
    };
    let ack = match lab.options.bench.ack {
        Some(ack) => format!("ack = \"{}\"\n", word(ack)),
        None => String::new(),
    };
    format!(
        "\n[[group.resource]]\nkind = \"mirror\"\nname = \"{MIRROR}\"\ndisk = {{ {disks} }}\n{metadata}{undo}\
         size = \"{}KiB\"\n{mode}{ack}{compress}front_end = \"{front_end}\"\n",
        lab.options.size_bytes / 1024,
    )
}

/// A table of node name to path, if any node has one.
fn per_node(lab: &Lab, key: &str, path: impl Fn(Node) -> Option<PathBuf>) -> String {
    let entry = |node: Node| Some(format!("{node} = \"{}\"", path(node)?.display()));
    let entries: Vec<String> = lab.data_nodes().filter_map(entry).collect();
    match entries.as_slice() {
        [] => String::new(),
        entries => format!("{key} = {{ {} }}\n", entries.join(", ")),
    }
}

fn service_tables(lab: &Lab) -> String {
    // A new PostgreSQL first makes its data directory.
    let start_timeout = if lab.options.workload == Workload::Postgres {
        "60s"
    } else {
        "10s"
    };
    format!(
        "\n[[group.resource]]\nkind = \"filesystem\"\nmirror = \"{MIRROR}\"\nmount = \"{}\"\nfstype = \"{}\"\n\
         options = \"noatime\"\n\
         \n[[group.resource]]\nkind = \"exec\"\nname = \"{SERVICE}\"\nstart = [\"{}\"]\n\
         restart = 3\nrestart_window = \"60s\"\nstart_timeout = \"{start_timeout}\"\n",
        lab.mount().display(),
        word(lab.options.fstype),
        lab.start_script().display(),
    )
}

fn make_disk(lab: &Lab, node: Node) -> Result<(), Failure> {
    tools::make_dir(&lab.node_dir(node))?;
    let (size, rubbish) = (lab.options.size_bytes, lab.options.used_only);
    let disk = lab.disk(node);
    match lab.metadata(node) {
        None => make_file(&disk, size.saturating_add(METADATA_ROOM_BYTES), rubbish),
        Some(device) => {
            make_file(&device, METADATA_ROOM_BYTES, false)?;
            make_file(&disk, size, rubbish)
        }
    }
}

fn make_file(path: &Path, bytes: u64, rubbish: bool) -> Result<(), Failure> {
    let made = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .and_then(|file| {
            if rubbish {
                let rubbish = io::repeat(0xA5).take(bytes);
                io::copy(
                    &mut io::BufReader::with_capacity(1 << 20, rubbish),
                    &mut &file,
                )?;
            }
            file.set_len(bytes)
        });
    made.map_err(|error| Failure::new(format!("cannot make disk {}", path.display())).cause(error))
}

/// Makes the file system on the first node's disk before there is a mirror: existing data is kept.
fn make_filesystem(lab: &Lab) -> Result<(), Failure> {
    let size = lab.options.size_bytes;
    let blocks = (size / 4096).to_string();
    let disk = lab.disk(Node::NodeA).display().to_string();
    let args = [
        "-q",
        "-F",
        "-b",
        "4096",
        "-E",
        "nodiscard,lazy_itable_init=0",
        &disk,
        &blocks,
    ];
    match lab.options.fstype {
        FileSystem::Ext4 => tools::run("mkfs.ext4", &args, "").map(drop),
        FileSystem::Xfs => {
            let data = format!("file,name={disk},size={size}");
            tools::run("mkfs.xfs", &["-q", "-f", "-K", "-d", &data], "")?;
            // It has cut the file to the size of the file system.
            make_disk(lab, Node::NodeA)
        }
    }
}

/// The first node's disk keeps its content and becomes the source; the others' are empty, or zeros.
fn create_mirror(lab: &Lab) -> Result<(), Failure> {
    if !lab.options.used_only {
        let mut others = lab.data_nodes().filter(|node| *node != Node::NodeA);
        create(lab, Node::NodeA, &[])?;
        return others.try_for_each(|node| create(lab, node, &["--empty"]).map(drop));
    }
    let told = create(lab, Node::NodeA, &["--used-only", "--yes", "-o", "json"])?;
    let told: serde_json::Value = serde_json::from_str(&told)
        .map_err(|error| Failure::new("cannot read the token of the mirror").cause(error))?;
    let token = told["token"].as_str().unwrap_or_default();
    let mut others = lab.data_nodes().filter(|node| *node != Node::NodeA);
    others.try_for_each(|node| {
        create(lab, node, &["--zeroed", token, "--overwrite", "--yes"]).map(drop)
    })
}

/// Runs `backstay mirror create` for a node, and gives what it prints.
fn create(lab: &Lab, node: Node, options: &[&str]) -> Result<String, Failure> {
    let exe = std::env::current_exe()
        .map_err(|error| Failure::new("cannot find the path of this program").cause(error))?;
    let output = std::process::Command::new(exe)
        .arg("--state")
        .arg(lab.state_dir(node))
        .args(["mirror", "create", "--config"])
        .arg(lab.config())
        .args(["--node", node.name()])
        .args(options)
        .output()
        .map_err(|error| Failure::new("cannot run `backstay mirror create`").cause(error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Failure::new(format!("cannot create the mirror on {node}"))
        .cause(String::from_utf8_lossy(&output.stderr).trim()))
}
