//! `backstay init`: the cluster's certificate authority, and a certificate for each node.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use host::pki::{Authority, CA_LIFETIME, NODE_LIFETIME, PkiError};
use serde::Serialize;

use super::Global;
use crate::config::{self, CONFIG_PATH_DEFAULT, Config};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;

/// Directory of keys and certificates below a state directory.
const PKI: &str = "pki";
/// The authority's private key: only where the cluster was made.
const CA_KEY: &str = "ca.key";
/// A node's private key.
const NODE_KEY: &str = "node.key";

/// `backstay init`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Configuration of the cluster
    #[arg(long, value_name = "FILE", default_value = CONFIG_PATH_DEFAULT)]
    config: PathBuf,
    /// Only this node; may be given more than once [default: with --out every node, else this machine]
    #[arg(long, value_name = "NODE")]
    node: Vec<String>,
    /// Write one folder per node here, to be copied to the nodes
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace certificates that exist; the authority stays
    #[arg(long)]
    renew: bool,
}

/// What was made.
#[derive(Debug, Serialize)]
struct Made {
    schema: &'static str,
    cluster: String,
    /// Directory of the authority.
    authority: PathBuf,
    /// False if it existed.
    authority_is_new: bool,
    nodes: Vec<MadeNode>,
}

#[derive(Debug, Serialize)]
struct MadeNode {
    name: String,
    /// Directory with `ca.crt`, `node.crt` and `node.key`.
    directory: PathBuf,
}

pub(super) fn run(args: &Args, global: &Global, ui: &Ui) -> Outcome {
    let config = match config::load(&args.config) {
        Ok(config) => config,
        Err(found) => {
            ui.talk(found.render(ui));
            let file = args.config.display();
            return Err(
                Failure::new(format!("cannot use the configuration {file}")).hint(format!(
                    "correct it; `backstay config check {file}` checks again"
                )),
            );
        }
    };
    let names = nodes_to_make(args, &config)?;
    let authority_directory = global.state.join(PKI);
    let targets: Vec<MadeNode> = names
        .into_iter()
        .map(|name| {
            let directory = args.out.as_ref().map(|out| out.join(&name).join(PKI));
            MadeNode {
                directory: directory.unwrap_or_else(|| authority_directory.clone()),
                name,
            }
        })
        .collect();
    refuse_overwriting(args, &targets)?;
    let (authority, authority_is_new) = authority(&authority_directory, &config.cluster)?;
    for node in &targets {
        let failed = |error: PkiError| {
            Failure::new(format!("cannot make the certificate of {}", node.name)).from_error(&error)
        };
        let files = authority
            .issue(&node.name, SystemTime::now(), NODE_LIFETIME)
            .map_err(failed)?;
        files.save(&node.directory).map_err(failed)?;
    }
    let made = Made {
        schema: "backstay.init/1",
        cluster: config.cluster.clone(),
        authority: authority_directory,
        authority_is_new,
        nodes: targets,
    };
    ui.document(&made, |_| listing(&made))?;
    next_steps(ui, args, global, &made);
    Ok(Exit::Ready)
}

fn nodes_to_make(args: &Args, config: &Config) -> Result<Vec<String>, Failure> {
    for name in &args.node {
        if config.node_id(name).is_none() {
            let known: Vec<&str> = config.nodes.iter().map(|node| node.name.as_str()).collect();
            return Err(
                Failure::new(format!("there is no node {name} in the configuration"))
                    .cause(format!("its nodes are {}", known.join(", ")))
                    .exit(Exit::Usage),
            );
        }
    }
    if args.out.is_some() && args.node.is_empty() {
        return Ok(config.nodes.iter().map(|node| node.name.clone()).collect());
    }
    match (args.node.as_slice(), &args.out) {
        ([], _) => this_machine(config).map(|name| vec![name]),
        ([_, _, ..], None) => Err(Failure::new(
            "one state directory holds the certificate of one node",
        )
        .hint("give --out DIR to write a folder for each")
        .exit(Exit::Usage)),
        (names, _) => Ok(names.to_vec()),
    }
}

/// A machine that has none of the addresses prepares the cluster for others.
fn this_machine(config: &Config) -> Result<String, Failure> {
    let hint = "name it with --node NODE, or write folders for all nodes with --out DIR";
    let id = crate::run::find_self(config, None).map_err(|failure| failure.hint(hint))?;
    let name = config.node(id).map(|node| node.name.clone());
    name.ok_or_else(|| Failure::new("this machine is no node of the configuration"))
}

fn refuse_overwriting(args: &Args, targets: &[MadeNode]) -> Result<(), Failure> {
    let existing = targets
        .iter()
        .find(|node| node.directory.join(NODE_KEY).exists());
    match existing {
        Some(node) if !args.renew => {
            let path = node.directory.join(NODE_KEY);
            Err(
                Failure::new(format!("{} has a certificate already", node.name))
                    .cause(format!("{} exists; it was left as it is", path.display()))
                    .hint("--renew replaces it"),
            )
        }
        Some(_) | None => Ok(()),
    }
}

/// The authority of this directory; it is made if there is none.
fn authority(directory: &Path, cluster: &str) -> Result<(Authority, bool), Failure> {
    let failed = |doing: &str, error: &PkiError| {
        Failure::new(format!(
            "cannot {doing} the certificate authority of {cluster}"
        ))
        .from_error(error)
    };
    if directory.join(CA_KEY).exists() {
        let authority =
            Authority::load(directory, cluster).map_err(|error| failed("use", &error))?;
        return Ok((authority, false));
    }
    let authority = Authority::create(cluster, SystemTime::now(), CA_LIFETIME)
        .map_err(|error| failed("make", &error))?;
    authority.save(directory).map_err(|error| {
        let failure = failed("save", &error);
        if matches!(error, PkiError::Exists { .. }) {
            failure.hint("this node joined a cluster that was made elsewhere; run it there")
        } else {
            failure
        }
    })?;
    Ok((authority, true))
}

fn listing(made: &Made) -> String {
    let how = if made.authority_is_new {
        "made"
    } else {
        "used"
    };
    let mut lines = vec![format!(
        "certificate authority of {}: {how} {}",
        made.cluster,
        made.authority.display()
    )];
    for node in &made.nodes {
        lines.push(format!(
            "certificate of {}: made {}",
            node.name,
            node.directory.display()
        ));
    }
    lines.join("\n")
}

fn next_steps(ui: &Ui, args: &Args, global: &Global, made: &Made) {
    if !ui.is_table() {
        return;
    }
    let config = args.config.display();
    let state = global.state.display();
    ui.talk("next:");
    if args.out.is_some() {
        ui.talk(format_args!(
            "  copy each node's folder `pki` to {state}/pki on that node, and {config} to all"
        ));
        for node in &made.nodes {
            let directory = node.directory.display();
            ui.talk(format_args!(
                "    scp -rp {directory} root@{}:{state}/",
                node.name
            ));
        }
    } else {
        ui.talk("  make the folders of the other nodes: backstay init --out DIR --node NODE");
    }
    ui.talk(format_args!(
        "  keep {}/{CA_KEY} safe: whoever has it can become a node",
        made.authority.display()
    ));
    ui.talk(format_args!(
        "  start every node: backstay run --config {config}"
    ));
}
