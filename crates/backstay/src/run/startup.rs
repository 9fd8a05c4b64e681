//! Everything between the command line and the loop.

use super::daemon::{Daemon, Event, Events};
use super::gate::AddressGate;
use super::links::Links;
use super::resources::Resources;
use super::snapshot::{Publisher, snapshot};
use super::{Args, convert, member};
use crate::config::model::{self, Address, Config, Group, Mirror, NodeRole, Resource};
use crate::config::profile::Profile;
use crate::engine::{Engine, EngineConfig};
use crate::eventlog::EventLog;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;
use crate::render::names::Names;
use host::clock;
use host::lock::StateLock;
use host::netlink::route::Routes;
use host::nft::GatePlan;
use host::pki::{Identity, Purpose, Tls};
use mirror::config::{Ack, Apart, Bound};
use node::{Input, Node};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::IsTerminal as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use wire::layout::REGIONS_PER_BLOCK;
use wire::units::REGION_BYTES;
use wire::{Duration, GroupId, NodeId, Nonce, SessionId};

/// Sets the node up and runs it.
pub(super) fn run(args: &Args, state: &Path, ui: &Ui) -> Outcome {
    log_to_stderr();
    let config = load_config(&args.config, ui)?;
    let me = find_self(&config, args.node.as_deref())?;
    let config = Arc::new(config);
    make_directories(state)?;
    let _lock = StateLock::take(state).map_err(|error| {
        Failure::new("cannot start")
            .from_error(&error)
            .hint("only one daemon may run on a state directory")
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new("cannot start the runtime").cause(e))?;
    runtime.block_on(async {
        let (events, inbox) = mpsc::unbounded_channel();
        let daemon = assemble(&config, me, state, &events).await?;
        tokio::spawn(end_on_signal(events));
        daemon.run(inbox).await
    })?;
    Ok(Exit::Ready)
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("BACKSTAY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init()
        .ok();
}

async fn end_on_signal(events: Events) {
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    events.send(Event::End).ok();
}

/// Reads the configuration; its mistakes are told one by one.
pub(crate) fn load_config(path: &Path, ui: &Ui) -> Result<Config, Failure> {
    crate::config::load(path).map_err(|found| {
        ui.talk(found.render(ui).trim_end());
        let count = found.list().len();
        Failure::new(format!(
            "the configuration {} cannot be used",
            path.display()
        ))
        .cause(format!("{count} mistakes, told above"))
        .exit(Exit::Usage)
    })
}

/// Which node this machine is.
pub(crate) fn find_self(config: &Config, name: Option<&str>) -> Result<NodeId, Failure> {
    if let Some(name) = name {
        return config.node_id(name).ok_or_else(|| {
            let known: Vec<&str> = config.nodes.iter().map(|node| node.name.as_str()).collect();
            Failure::new(format!("there is no node {name} in the configuration"))
                .cause(format!("it has {}", known.join(", ")))
        });
    }
    let local: Vec<IpAddr> = Routes::open()
        .and_then(|mut routes| routes.addresses())
        .map_err(|e| Failure::new("cannot list this machine's addresses").from_error(&e))?
        .into_iter()
        .map(|assigned| assigned.ip)
        .collect();
    config.node_with_address(&local).ok_or_else(|| {
        Failure::new("cannot tell which node this machine is")
            .cause("none of the configured addresses is on an interface here")
            .hint("bring the interfaces up, or name the node with --node")
    })
}

fn make_directories(state: &Path) -> Result<(), Failure> {
    ["run", "events"].into_iter().try_for_each(|name| {
        let path = state.join(name);
        std::fs::create_dir_all(&path)
            .map_err(|e| Failure::new(format!("cannot make {}", path.display())).cause(e))
    })
}

async fn assemble(
    config: &Arc<Config>,
    me: NodeId,
    state: &Path,
    events: &Events,
) -> Result<Daemon, Failure> {
    let name = config
        .node(me)
        .map(|node| node.name.clone())
        .unwrap_or_default();
    let identity = Identity::load(
        &state.join("pki"),
        &config.cluster,
        &name,
        SystemTime::now(),
    )
    .map_err(|e| {
        Failure::new("cannot use this node's identity")
            .from_error(&e)
            .hint("`backstay init` makes it")
    })?;
    let (slots, durable) = member::open(state, me)?;
    let life = SessionId(crate::engine::random());
    let core = convert::node_config(config, me, true, life, crate::engine::random());
    let names = Names::of(config, me);
    let log = EventLog::open(&state.join("events"), names.clone())
        .map_err(|e| Failure::new("cannot open the event log").cause(e))?;
    let names = Arc::new(names);
    let node = Node::new(core, durable, clock::now());
    let links = Links::open(
        config,
        me,
        tls(&identity, config, me, Purpose::Session)?,
        events.clone(),
    );
    let links = links.await?;
    let engines = start_engines(config, me, state, &identity, events)?;
    let handles = engines
        .iter()
        .map(|(id, engine)| (*id, engine.handle()))
        .collect();
    let resources = Resources::start(config, me, state, events, handles)?;
    let now = clock::now();
    let first = snapshot(config, &names, &node.view(now), &BTreeMap::new(), now);
    let (sender, receiver) = watch::channel(first);
    super::serve::start(config, state, receiver, log.clone(), events.clone())?;
    let mut daemon = Daemon {
        node,
        links,
        member: member::Writer::start(slots, events.clone())?,
        engines,
        gates: install_gates(config, me)?,
        publisher: Publisher::new(Arc::clone(config), names, log, sender),
        asks: BTreeMap::new(),
        next_ask: Nonce(crate::engine::random()),
        resources,
    };
    for group in daemon.resources.found() {
        daemon.handle(Input::Found { group })?;
    }
    Ok(daemon)
}

fn tls(
    identity: &Identity,
    config: &Config,
    me: NodeId,
    purpose: Purpose,
) -> Result<Arc<Tls>, Failure> {
    let peers = config
        .nodes_by_id()
        .filter(|(id, _)| *id != me)
        .map(|(_, node)| node.name.clone());
    identity
        .tls(purpose, peers)
        .map(Arc::new)
        .map_err(|e| Failure::new("cannot set TLS up").from_error(&e))
}

// ---- engines ----------------------------------------------------------------------------------------------------

fn start_engines(
    config: &Arc<Config>,
    me: NodeId,
    state: &Path,
    identity: &Identity,
    events: &Events,
) -> Result<BTreeMap<(GroupId, u8), Engine>, Failure> {
    let mut engines = BTreeMap::new();
    let Some(NodeRole::Data { mirror: own, .. }) = config.node(me).map(|node| node.role) else {
        return Ok(engines);
    };
    let tls = match config.tls {
        true => Some(tls(identity, config, me, Purpose::Mirror)?),
        false => None,
    };
    let mut port = config.ports.mirror;
    for (group, settings) in config.groups_by_id() {
        for (index, mirror) in (0..=u8::MAX).zip(settings.mirrors()) {
            let made = engine_config(config, me, state, mirror, (own, port), tls.clone())?;
            let events = events.clone();
            let sink = move |event| {
                events
                    .send(Event::Engine {
                        group,
                        mirror: index,
                        event,
                    })
                    .ok();
            };
            engines.insert((group, index), Engine::start(made, Box::new(sink))?);
            port = port.saturating_add(1);
        }
    }
    Ok(engines)
}

fn engine_config(
    config: &Config,
    me: NodeId,
    state: &Path,
    mirror: &Mirror,
    (own, port): (IpAddr, u16),
    tls: Option<Arc<Tls>>,
) -> Result<EngineConfig, Failure> {
    let disk = mirror
        .disk(me)
        .cloned()
        .ok_or_else(|| Failure::new(format!("mirror {} has no disk on this node", mirror.name)))?;
    let peers = config.nodes_by_id().filter(|(id, _)| *id != me);
    let peers = peers.filter_map(|(id, node)| match node.role {
        NodeRole::Data { mirror, .. } => {
            Some((id, (node.name.clone(), SocketAddr::new(mirror, port))))
        }
        NodeRole::Witness => None,
    });
    let fault_dir = config
        .lab
        .fault_shim
        .then(|| state.join(format!("fault-{}", mirror.name)));
    Ok(EngineConfig {
        name: mirror.name.clone(),
        replica: replica_config(config, me, mirror),
        open: host::disk::OpenOptions {
            allow_buffered: false,
            fault_dir,
            metadata: mirror.metadata(me).cloned(),
        },
        disk,
        listen: SocketAddr::new(own, port),
        peers: peers.collect(),
        tls,
        compress: mirror.compress,
        aside: state.join("cut-off"),
        spool: state.join(format!("run/spool-{}", mirror.name)),
        undo: mirror.undo(me),
        nbd_socket: state.join(format!("run/nbd-{}.sock", mirror.name)),
    })
}

fn replica_config(config: &Config, me: NodeId, mirror: &Mirror) -> mirror::Config {
    let timings = config.timings();
    let ack = match mirror.ack {
        model::Ack::Write => Ack::Sync,
        model::Ack::Flush => Ack::Flush,
    };
    let apart = Some(mirror.apart(config)).filter(|nodes| !nodes.is_empty());
    let bound = bound(mirror);
    mirror::Config {
        ack,
        apart: apart.map(|nodes| Apart { nodes, bound }),
        ack_timeout: timings.ack_timeout,
        io_timeout: io_timeout(config.profile),
        hot_regions_max: mirror.intent_bound.0 / REGION_BYTES,
        ..mirror::Config::lan(me, 0, boot_hash(), crate::engine::random_id())
    }
}

/// Bytes that are sent to an asynchronous follower ahead of its answers: 300 MB/s at 10 ms.
const WINDOW_BYTES: u64 = 3 << 20;
/// Bytes that wait for it in memory.
const WAITING_MEMORY: u64 = 16 << 20;
/// The smallest spool, in bytes.
const SPOOL_MIN: u64 = 64 << 20;

/// An asynchronous mirror's bound. What waits beyond it, until the follower is given up, is as much again.
fn bound(mirror: &Mirror) -> Bound {
    Bound {
        max_bytes: mirror.max_lag.0,
        max_time: mirror.max_lag_time,
        window_bytes: WINDOW_BYTES,
        memory_bytes: WAITING_MEMORY,
        spool_bytes: mirror.max_lag.0.saturating_mul(2).max(SPOOL_MIN),
    }
}

/// How long a disk may take for one operation before it counts as hung. Longer than a disk's own error recovery would be
/// safer for the disk, shorter for the service.
const fn io_timeout(profile: Profile) -> Duration {
    match profile {
        Profile::Lan => Duration::from_millis(4_000),
        Profile::Fast => Duration::from_millis(2_000),
        Profile::Cloud => Duration::from_millis(10_000),
    }
}

/// Blocks of the intent log that a bound needs.
pub(crate) fn intent_blocks(bound: wire::ByteCount) -> u32 {
    let per_block = u64::try_from(REGIONS_PER_BLOCK).unwrap_or(1);
    u32::try_from((bound.0 / REGION_BYTES).div_ceil(per_block).max(1)).unwrap_or(u32::MAX)
}

/// Names the machine's boot: volatile caches live as long.
fn boot_hash() -> u64 {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    id.trim().hash(&mut hasher);
    hasher.finish()
}

// ---- address gates ----------------------------------------------------------------------------------------------

fn install_gates(config: &Config, me: NodeId) -> Result<BTreeMap<GroupId, AddressGate>, Failure> {
    let mut gates = BTreeMap::new();
    let Some(NodeRole::Data { service, .. }) = config.node(me).map(|node| node.role) else {
        return Ok(gates);
    };
    for (id, group) in config.groups_by_id() {
        let addresses: Vec<&Address> = addresses(group).collect();
        if addresses.is_empty() {
            continue;
        }
        let interfaces = interfaces(&addresses, service)?;
        let plan = GatePlan {
            group: group.name.clone(),
            interfaces,
            addresses: addresses.iter().map(|a| a.ip).collect(),
        };
        gates.insert(id, AddressGate::install(&plan)?);
    }
    Ok(gates)
}

fn addresses(group: &Group) -> impl Iterator<Item = &Address> {
    group
        .resources
        .iter()
        .filter_map(|resource| match resource {
            Resource::Address(address) => Some(address),
            Resource::Mirror(_) | Resource::Filesystem(_) | Resource::Exec(_) => None,
        })
}

/// The interface of each address, once: the configured one, or the one that carries the service address.
fn interfaces(addresses: &[&Address], service: IpAddr) -> Result<Vec<String>, Failure> {
    let failed = |e: host::netlink::NetlinkError| {
        Failure::new(format!(
            "cannot find the interface of the service address {service}"
        ))
        .from_error(&e)
        .hint("bring the interface up, or name it with `interface` in the address resource")
    };
    let mut routes = Routes::open().map_err(failed)?;
    let mut found = Vec::new();
    for address in addresses {
        let name = match &address.interface {
            Some(name) => name.clone(),
            None => routes.link_with(service).map_err(failed)?.name,
        };
        if !found.contains(&name) {
            found.push(name);
        }
    }
    Ok(found)
}
