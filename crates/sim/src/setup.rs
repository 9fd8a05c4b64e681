//! The beginning of a run: three machines, two formatted disks, a configuration.

use crate::checkers::Checkers;
use crate::clock::Moment;
use crate::disk::Disk;
use crate::fault::Faults;
use crate::history::History;
use crate::network::Network;
use crate::options::{FaultMix, Level, Options};
use crate::oracle::{Oracle, bytes_of};
use crate::queue::{Event, Queue};
use crate::rng::Rng;
use crate::trace::Trace;
use crate::world::{A, B, GROUP, W, World};
use node::{GroupConfig, NodeRole, ResourceConfig, ResourceKind};
use std::collections::{BTreeMap, BTreeSet};
use wire::control::LinkId;
use wire::layout::{
    BITS_PER_BLOCK, BlockKind, CONTENT_BYTES, Layout, Pair, ReplicaState, SEALED_BYTES, Slot,
    Superblock, seal,
};
use wire::seed::{HEAD_BYTES, Seed};
use wire::units::BLOCK_BYTES;
use wire::version::Features;
use wire::{Duration, Epoch, Generation, NodeId, SessionId};

/// The data area of every mirror, in bytes: 24 regions of the intent log.
pub(crate) const DATA_BYTES: u64 = 24 << 16;
const DISK_BYTES: u64 = DATA_BYTES + (64 << 10);
/// How far an asynchronous standby may be behind: so little that it is met often.
pub(crate) const BOUND: mirror::Bound = mirror::Bound {
    max_bytes: 64 << 10,
    max_time: Duration::from_millis(2_000),
    window_bytes: 24 << 10,
    memory_bytes: 16 << 10,
    spool_bytes: 256 << 10,
};
const INTENT_BLOCKS: u32 = 1;
/// What sector `index` of the origin holds before anything is written.
const ORIGIN: u64 = 0x0A00_0000_0000;
/// What is on the blank disk: rubbish.
const RUBBISH: u64 = 0x0B00_0000_0000;

impl World {
    /// A world in which nothing runs yet; the machines boot within the first second.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let mut rng = Rng::new(options.seed);
        let options_mirrors = options.mirrors;
        let contents: Vec<u64> = (0..DATA_BYTES / 512)
            .map(|sector| content(&options, A, sector))
            .collect();
        let may_lose = options.may_lose();
        let remembered = if may_lose {
            Level::Async
        } else {
            options.level
        };
        let oracles = (0..options.mirrors)
            .map(|_| Oracle::new(&contents, remembered))
            .collect();
        let disks = |id: NodeId| -> Vec<Disk> {
            let mirrors = if options.data_nodes().contains(&id) {
                options.mirrors
            } else {
                0
            };
            (0..mirrors).map(|m| disk(&options, id, m)).collect()
        };
        let machines = [A, B, W]
            .map(|id| crate::lives::machine(id, disks(id)))
            .into();
        let mut queue = Queue::default();
        for at in [A, B, W] {
            queue.push(Moment(0) + rng.millis(0, 500), Event::Boot { at });
        }
        let mut network = Network::good();
        if options.faults == FaultMix::Rough {
            network.loss = rng.pick(&[0, 5, 20]);
            network.doubling = rng.pick(&[0, 10]);
            network.late = rng.pick(&[0, 10, 50]);
            network.late_max = rng.millis(2, 30);
        }
        Self {
            trace: Trace::new(options.keep),
            options,
            now: Moment(0),
            queue,
            rng,
            machines,
            network,
            streams: BTreeMap::new(),
            oracles,
            histories: (0..options_mirrors).map(|_| History::default()).collect(),
            checkers: Checkers::default(),
            faults: Faults::default(),
            names: 0,
            quiet: false,
            violation: None,
        }
    }
}

/// True nanoseconds per million of a machine's own: within ½ % of the truth, often at the ends.
pub(crate) fn clock_rate(options: &Options, rng: &mut Rng) -> u64 {
    if options.faults == FaultMix::None {
        return 1_000_000;
    }
    match rng.below(4) {
        0 => 995_000,
        1 => 1_005_000,
        _ => rng.between(995_000, 1_005_000),
    }
}

/// What a node is told at birth.
pub(crate) fn node_config(options: &Options, me: NodeId, life: u64, seed: u64) -> node::Config {
    let nodes = BTreeMap::from([
        (A, NodeRole::Data),
        (B, NodeRole::Data),
        (
            W,
            if options.replicas > 2 {
                NodeRole::Data
            } else {
                NodeRole::Witness
            },
        ),
    ]);
    let links = nodes
        .keys()
        .filter(|id| **id != me)
        .map(|id| (*id, vec![LinkId(0), LinkId(1)]))
        .collect();
    let resource = |kind| ResourceConfig {
        kind,
        restarts: 3,
        window: Duration::from_secs(60),
    };
    let mut resources: Vec<ResourceConfig> = (0..options.mirrors)
        .map(|m| resource(ResourceKind::Mirror(m)))
        .collect();
    resources.push(resource(ResourceKind::Plain));
    resources.push(resource(ResourceKind::Plain));
    node::Config {
        me,
        nodes,
        links,
        timing: options.timing,
        groups: vec![GroupConfig {
            id: GROUP,
            members: options.data_nodes().into_iter().collect::<BTreeSet<_>>(),
            apart: options.apart(),
            mirrors: options.mirrors,
            resources,
        }],
        life: SessionId(life),
        seed,
        voting: true,
    }
}

/// What a replica is told at its start.
pub(crate) fn replica_config(
    options: &Options,
    node: NodeId,
    disk_bytes: u64,
    boot: u64,
    identity: u128,
) -> mirror::Config {
    let boot = boot * 16 + u64::from(node.0);
    let ack = match options.level {
        Level::Write | Level::Async => mirror::Ack::Sync,
        Level::Flush => mirror::Ack::Flush,
    };
    let apart = Some(options.apart()).filter(|nodes| !nodes.is_empty());
    mirror::Config {
        ack,
        apart: apart.map(|nodes| mirror::Apart {
            nodes,
            bound: BOUND,
        }),
        hot_regions_max: options.hot_regions,
        ..mirror::Config::lan(node, disk_bytes, boot, identity)
    }
}

/// What a sector of a node's disk holds before anything is written.
fn content(options: &Options, id: NodeId, sector: u64) -> u64 {
    let made_zero = options.used_only && sector < DATA_BYTES / 512;
    match id {
        A if made_zero && !is_used(sector * 512 / BLOCK_BYTES) => 0,
        A => ORIGIN + sector,
        _ if made_zero => 0,
        _ => RUBBISH + sector,
    }
}

/// Of a first sync of used blocks only: whether the origin uses a block.
const fn is_used(block: u64) -> bool {
    block * 7 % 20 < 5
}

/// The marks of the origin's bitmap block.
fn marks(index: u64) -> [u8; CONTENT_BYTES] {
    let mut bits = [0; CONTENT_BYTES];
    let blocks = (0..DATA_BYTES / BLOCK_BYTES).skip_while(|block| *block < index * BITS_PER_BLOCK);
    for (at, _) in (0..CONTENT_BYTES * 8)
        .zip(blocks)
        .filter(|(_, block)| is_used(*block))
    {
        bits[at / 8] |= 1 << (at % 8);
    }
    bits
}

/// A disk as `backstay mirror create` leaves it.
fn disk(options: &Options, id: NodeId, mirror: u8) -> Disk {
    let mut bytes: Vec<u8> = (0..DISK_BYTES / 512)
        .flat_map(|sector| bytes_of(content(options, id, sector), 1))
        .collect();
    let others = options.data_nodes().into_iter().filter(|node| *node != id);
    let pair = |node| Pair {
        baseline: Some(SessionId(0x5EED_0000 + u64::from(mirror))),
        ..Pair::new(node)
    };
    let head = usize::try_from(HEAD_BYTES).unwrap_or(0);
    let seed = options.used_only.then(|| Seed::of(&bytes[..head]));
    let Some(layout) = Layout::with_data(DISK_BYTES, DATA_BYTES, INTENT_BLOCKS) else {
        unreachable!("the disk has room for its metadata");
    };
    let mut put = |offset: u64, block: &[u8; SEALED_BYTES]| {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        bytes[from..from + SEALED_BYTES].copy_from_slice(block);
    };
    let superblock = Superblock {
        features: Features::OURS,
        mirror: None,
        replica: u128::from(id.0 * 8 + mirror) + 1,
        data_bytes: layout.data_bytes,
        ready_bytes: layout.data_bytes,
        settled_bytes: layout.data_bytes,
        intent_blocks: layout.intent_blocks,
        generation: Generation(0),
        epoch: Epoch(0),
        state: if id == A {
            ReplicaState::Origin
        } else {
            ReplicaState::Blank
        },
        boot: 0,
        led: false,
        undo: None,
        pairs: if options.used_only {
            others.map(pair).collect()
        } else {
            Vec::new()
        },
        source: None,
        seed,
        external: None,
    };
    let marked = |index: u64| {
        let (plane, at) = Layout::in_plane(index);
        let known = usize::try_from(plane);
        let known = known.is_ok_and(|plane| plane < superblock.pairs.len());
        if id == A && known {
            marks(at)
        } else {
            [0; CONTENT_BYTES]
        }
    };
    for slot in [Slot::A, Slot::B] {
        for index in 0..layout.bitmap_blocks {
            put(
                layout.bitmap_offset(index, slot),
                &seal(BlockKind::Bitmap, index, 1, &marked(index)),
            );
        }
        for index in 0..u64::from(layout.intent_blocks) {
            let offset = layout.intent_offset(slot) + index * BLOCK_BYTES;
            put(offset, &seal(BlockKind::Intent, index, 1, &[]));
        }
        put(Layout::super_offset(DISK_BYTES, slot), &superblock.seal(1));
    }
    Disk::new(bytes)
}
