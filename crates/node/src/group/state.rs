//! Where a group stands on a node, step by step; and what is known of its replicas there.

use std::collections::BTreeSet;
use wire::control::WrongDisk;
use wire::layout::ReplicaState;
use wire::{ByteCount, Generation, NodeId, Time};

/// Where the group stands on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The mirrors are not attached, or no record is known.
    Settling,
    /// Follows the active.
    Standby,
    /// On the way to become active: the old epoch is fenced, then the record is changed.
    Taking(Taking),
    /// The record names this node; the resources are being started.
    Starting(Starting),
    /// Everything runs; a resource may be being restarted.
    Active { restarting: Option<(u8, u64)> },
    /// Orderly stop.
    Stopping { why: StopWhy, step: Stopping },
    /// Deposed: everything is torn down.
    Leaving {
        mirrors_open: BTreeSet<u8>,
        abandoned: bool,
    },
    /// Held by the record's intent; nothing runs.
    Held,
    /// The disk failed and nobody else can serve.
    Broken,
}

/// Steps of taking the group over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taking {
    /// Mirrors that have not reported `Fenced`, and what follows then.
    Fencing {
        left: BTreeSet<u8>,
        then: AfterFence,
    },
    /// The takeover is proposed.
    Proposing,
}

/// What follows when nothing of an older epoch is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterFence {
    /// The takeover is proposed.
    Propose,
    /// The takeover is proposed, because a person wants it (R17).
    Force,
    /// The record already names this node: its mirrors are activated.
    Start,
    /// The record named this node before it restarted: confirmed first (R6).
    Barrier,
}

/// Steps of starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Starting {
    /// A restarted active confirms its record first (R6). `solo`: it may go on without the register.
    Barrier { solo: bool },
    /// Mirrors that do not serve yet, since when.
    Mirrors { left: BTreeSet<u8>, since: Time },
    /// This resource is being started.
    Resource { resource: u8, token: u64 },
}

/// Why an orderly stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopWhy {
    /// The group goes to the named node; `failed`: because it failed here.
    HandOver { to: NodeId, failed: bool },
    /// The own disk failed; the group goes to the named node.
    DiskFailed { to: NodeId },
    /// The group is held.
    Hold(wire::record::Hold),
}

/// Steps of an orderly stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// This resource is being stopped.
    Resource { resource: u8, token: u64 },
    /// A resource would not stop: everything is torn down.
    Abandoning,
    /// Mirrors that have not reported `Drained` (or `Closed` after a disk failure).
    Mirrors { left: BTreeSet<u8> },
    /// The device and the gate are being closed; then the record is changed.
    Yielding,
    /// The change is proposed.
    Proposing,
}

/// What this node's open proposal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    Bootstrap,
    Barrier,
    /// The same sets with the generation of a replica that attached anew (R14).
    Refresh,
    TakeOver,
    /// As a takeover, by a person's word, which does not hold for long.
    Force,
    Shrink,
    Grow(NodeId),
    HandOver,
    Hold,
    Unhold,
}

impl Pending {
    /// True if it makes this node active in place of another.
    pub(crate) const fn takes_over(self) -> bool {
        matches!(self, Self::TakeOver | Self::Force)
    }
}

/// What is known of one mirror's replica on this node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Replica {
    pub(super) attached: Option<Attached>,
    pub(super) failed: bool,
    pub(super) consistent: bool,
    /// Its disk is older than the record (R14).
    pub(super) rolled_back: bool,
    /// In this life it followed a session, or this node proposed: from then on a record may hold this life's generation.
    pub(super) joined: bool,
    /// It holds so much that a failover cut off, and does not follow.
    pub(super) held_back: Option<ByteCount>,
    /// Its disk works, but is not a replica of this mirror.
    pub(super) wrong: Option<WrongDisk>,
    /// The generation of this life is durable.
    pub(super) bumped: bool,
    /// Highest command serial that it handled.
    pub(super) taken: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Attached {
    pub(super) before: Generation,
    pub(super) generation: Generation,
    pub(super) state: ReplicaState,
}
