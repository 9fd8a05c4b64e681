//! What a replica is told once, at its start.

use crate::nodes::NodeSet;
use std::collections::BTreeSet;
use wire::{Duration, External, NodeId};

/// Values that do not change in a replica's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// Size of the disk, in bytes; with the metadata's device, if it has one.
    pub disk_bytes: u64,
    /// The disk whose metadata is on a device of its own. None: it is at the disk's end.
    pub external: Option<External>,
    /// Hash of the kernel's boot id: another one than at the last attach means that volatile caches are gone.
    pub boot: u64,
    /// The mirror's identity if this replica is the origin and has none yet: a fresh random number.
    pub new_mirror: u128,
    /// The mirror's identity as this node knows it: a disk of another mirror is refused. None: any is taken.
    pub expect_mirror: Option<u128>,
    /// When a write is acknowledged, as far as replicas near each other decide it.
    pub ack: Ack,
    /// Replicas that nobody near waits for.
    pub apart: Option<Apart>,
    /// A required replica that leaves an operation unacknowledged for this long is reported lost (R18).
    pub ack_timeout: Duration,
    /// A local disk operation under way for longer than this means that the disk hangs.
    pub io_timeout: Duration,
    /// Pause before the first try to connect again.
    pub redial_min: Duration,
    /// Longest pause between two tries to connect.
    pub redial_max: Duration,
    /// How often the bitmap of a peer that follows without being required is brought to a committed point.
    pub point_interval: Duration,
    /// Most bytes of the log that leads a resync's target back to what it was; none: there is no log here.
    pub undo_bytes: Option<u64>,
    /// Most resync chunks (64 KiB each) under way at once.
    pub resync_chunks_max: usize,
    /// Which chunks of a resync are compared before they are sent.
    pub compare: Compare,
    /// Most regions (64 KiB each) in the intent log: what a crash of the active may cost in resync. No more than
    /// the layout has room for; a single larger request may go beyond it.
    pub hot_regions_max: u64,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// When every required replica has it (R1).
    Sync,
    /// A plain write when it is local and sent to every required replica; a flush, or a write with FUA, when everything
    /// before it is durable on all of them. The promise of a disk with a write cache, in one round trip per commit.
    Flush,
}

/// Asynchronous replicas: two of which one is named here do not wait for each other. The one that is not active follows; while the
/// record may promote it, it is at most so far behind (R11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apart {
    /// Which.
    pub nodes: BTreeSet<NodeId>,
    /// How far they may be behind.
    pub bound: Bound,
}

impl Apart {
    /// Nobody waits for anybody.
    #[must_use]
    pub fn everybody(bound: Bound) -> Self {
        let nodes = (0..=NodeId::MAX.0).map(NodeId).collect();
        Self { nodes, bound }
    }
}

/// How far an asynchronous follower may be behind, and what may wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Most bytes that the application was told of and an eligible follower may lack.
    pub max_bytes: u64,
    /// Longest time for which it may lack one of them.
    pub max_time: Duration,
    /// Bytes that are sent and not answered, about: what a connection needs to be kept busy.
    pub window_bytes: u64,
    /// Bytes that wait for the follower in memory, about; for a moment up to twice as many.
    pub memory_bytes: u64,
    /// Bytes that wait for it on disk; beyond that it is given up, and comes back by resync.
    pub spool_bytes: u64,
}

/// Which chunks of a resync are compared by digest, and sent only if they differ. It saves bytes on the link and costs a
/// read at the peer and a round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// None: everything that may differ is sent.
    Never,
    /// Those that are not known to differ: regions of an intent log, and everything when most of the volume is marked.
    Doubtful,
    /// All but those of a replica that never held anything.
    Always,
}

impl Config {
    /// True if this node's replica and the other one wait for each other.
    #[must_use]
    pub fn waits_for(&self, node: NodeId) -> bool {
        !self.apart().contains(node)
    }

    /// The nodes that this one does not wait for, nor they for it.
    pub(crate) fn apart(&self) -> NodeSet {
        let Some(Apart { nodes, .. }) = &self.apart else {
            return NodeSet::EMPTY;
        };
        if nodes.contains(&self.node) {
            NodeSet::from_bits(u32::MAX)
        } else {
            NodeSet::others(nodes, self.node)
        }
    }

    /// Defaults for a pair on a LAN: acknowledgements within 1 s, disk operations within 5 s, 64 MiB of hot regions.
    #[must_use]
    pub const fn lan(node: NodeId, disk_bytes: u64, boot: u64, new_mirror: u128) -> Self {
        Self {
            node,
            disk_bytes,
            external: None,
            boot,
            new_mirror,
            expect_mirror: None,
            ack: Ack::Sync,
            apart: None,
            ack_timeout: Duration::from_millis(1_000),
            io_timeout: Duration::from_millis(5_000),
            redial_min: Duration::from_millis(20),
            redial_max: Duration::from_millis(1_000),
            point_interval: Duration::from_millis(1_000),
            undo_bytes: None,
            resync_chunks_max: 32,
            compare: Compare::Doubtful,
            hot_regions_max: 1_024,
        }
    }
}
