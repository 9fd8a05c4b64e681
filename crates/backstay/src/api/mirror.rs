//! Mirrors, as nodes know them and as documents show them.

use std::time::Duration;

use mirror::control::{GrowthFigures, PairFigures, ReplicaFigures, ResyncFigures, Ungrown};
use mirror::runs::Places;
use serde::{Deserialize, Serialize};
use wire::layout::ReplicaState;
use wire::{ByteCount, NodeId, SessionId};

use crate::config::model::FrontEnd;
use crate::render::names::Names;

/// A mirror as this node knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct MirrorState {
    /// Its name.
    pub name: String,
    /// How the replicas stand.
    pub condition: MirrorCondition,
    /// Acknowledged bytes that the standby does not have yet.
    pub lag: ByteCount,
    /// Age of the oldest of them.
    pub lag_time: Duration,
    /// Bytes that may differ between the replicas.
    pub out_of_sync: ByteCount,
    /// Size of the regions in the intent log: what a crash now would add to a resync.
    pub intent: ByteCount,
    /// Bytes that this node's resyncs have sent since its daemon started.
    pub resync_sent: ByteCount,
    /// Writes since then that waited until their regions were durable in the intent log.
    pub cold_writes: u64,
    /// The verification that is going on, or the last one of this daemon's life.
    pub verify: Option<VerifyView>,
    /// The growth of the volume that is going on, or the last one of this daemon's life.
    pub growth: Option<GrowthFigures>,
    /// How programs reach it on this node, while it is served here.
    pub front_end: Option<FrontEnd>,
    /// Why not in a better way, if none was configured.
    pub front_end_why: Option<String>,
    /// What this node's disk says of itself; none until it is attached.
    pub replica: Option<ReplicaFigures>,
    /// Where replicas may differ, by the bitmap.
    pub differing: Places,
    /// Nodes that hold back what a failover cut off, and how much.
    pub held_back: Vec<(NodeId, ByteCount)>,
    /// For how long, at least, this node's replica has been out of the set; none while it may be promoted.
    pub out_for: Option<Duration>,
}

/// How the replicas of a mirror stand to each other, seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MirrorCondition {
    /// Every replica has every acknowledged write.
    InSync,
    /// The standby is being brought up to date.
    Resyncing,
    /// A new or restarted active makes the replicas equal before it serves.
    Reconciling,
    /// Served from one replica; the other is not connected.
    Alone,
    /// Not connected, and not served from here.
    Disconnected,
    /// The local disk failed.
    Failed,
    /// Not attached on this node, such as on a witness.
    Detached,
}

/// A mirror in the status document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MirrorView {
    /// Its name.
    pub name: String,
    /// How the replicas stand.
    pub state: MirrorCondition,
    /// Acknowledged bytes that the standby lacks.
    pub lag_bytes: u64,
    /// Age of the oldest of them, in seconds.
    pub lag_seconds: f64,
    /// Bytes that may differ.
    pub out_of_sync_bytes: u64,
    /// Size of the regions in the intent log: what a crash now would add to a resync.
    pub intent_bytes: u64,
    /// Bytes that the answering node's resyncs have sent since its daemon started.
    pub resync_sent_bytes: u64,
    /// Writes since then that waited until their regions were durable in the intent log.
    pub cold_writes: u64,
    /// How programs reach it on the answering node: `ublk`, `nbd`, `fuse-loop` or `nbd-socket`; none if it is not served there.
    pub front_end: Option<String>,
    /// Why not in a better way, if none was configured.
    pub front_end_why: Option<String>,
    /// The verification that is going on, or the last one since the answering node's daemon started; only the active has one.
    #[serde(default)]
    pub verify: Option<VerifyView>,
    /// The growth of the volume that is going on, or the last one since the answering node's daemon started; only the active has one.
    #[serde(default)]
    pub growth: Option<GrowthView>,
    /// What the answering node's disk says of itself; none if it is not attached there.
    #[serde(default)]
    pub replica: Option<ReplicaView>,
    /// Where replicas may differ by the answering node's bitmap, as (offset, length) in bytes; neighbours joined, the first 256 places.
    #[serde(default)]
    pub differing: Vec<(u64, u64)>,
    /// There are more such places.
    #[serde(default)]
    pub differing_more: bool,
    /// Nodes that hold back what a failover cut off, and do not follow until a person decides.
    #[serde(default)]
    pub held_back: Vec<HeldView>,
    /// For how long, at least, the answering node's replica has been out of the set; none while it may be promoted. What was
    /// acknowledged since may be missing there.
    #[serde(default)]
    pub out_seconds: Option<f64>,
}

/// What a replica holds back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldView {
    /// Whose replica.
    pub node: String,
    /// How many bytes may be concerned.
    pub bytes: u64,
    /// Where, as (offset, length) in bytes; the first 256 places. Only that node itself names them.
    pub ranges: Vec<(u64, u64)>,
    /// There are more places.
    pub more: bool,
}

/// What a replica's disk says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaView {
    /// What the data is.
    pub state: ReplicaCondition,
    /// Rises each time the disk is attached: an older one was restored from a snapshot.
    pub generation: u64,
    /// Highest epoch that the disk accepted.
    pub epoch: u64,
    /// Size of the volume.
    pub data_bytes: u64,
    /// What it remembers of other replicas.
    pub others: Vec<OtherView>,
    /// Resyncs that this node feeds.
    pub resyncs: Vec<ResyncView>,
    /// The regions of the intent log, as (offset, length) in bytes: compared after a crash; the first 256 places.
    pub intent: Vec<(u64, u64)>,
    /// What leads back from an unfinished resync to this node.
    #[serde(default)]
    pub undo: Option<UndoView>,
}

/// A way back to what the replica held when its resync began. Amounts are known while the daemon lives that saved it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoView {
    /// When that was, in seconds since 1970.
    pub began_unix: Option<u64>,
    /// Old content that was saved.
    pub saved_bytes: Option<u64>,
    /// What the log takes up.
    pub used_bytes: Option<u64>,
    /// The most that it may take up.
    pub bound_bytes: u64,
}

/// What a replica's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplicaCondition {
    /// Just made, of content that is kept: the mirror starts from it.
    Origin,
    /// Holds nothing yet: takes everything from the active.
    Blank,
    /// A point in the mirror's history.
    Consistent,
    /// A mixture: a resync was not finished.
    Inconsistent,
}

/// What a replica remembers of another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherView {
    /// Of whom.
    pub node: String,
    /// The session in which the two were made equal last, as hexadecimal number; bitmap and intent log count from it.
    pub baseline: Option<String>,
    /// Bytes that this disk's bitmap marks against it.
    pub marked_bytes: u64,
}

/// How far a resync is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResyncView {
    /// To which node.
    pub node: String,
    /// Bytes still to be looked at.
    pub left_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
}

impl From<ReplicaState> for ReplicaCondition {
    fn from(state: ReplicaState) -> Self {
        match state {
            ReplicaState::Origin => Self::Origin,
            ReplicaState::Blank => Self::Blank,
            ReplicaState::Consistent => Self::Consistent,
            ReplicaState::Inconsistent => Self::Inconsistent,
        }
    }
}

/// Places as documents have them: (offset, length) in bytes.
pub fn pairs(places: &Places) -> Vec<(u64, u64)> {
    let ranges = places.ranges.iter();
    ranges.map(|range| (range.offset(), range.len())).collect()
}

/// The number that names a session, as people see it.
pub fn session_words(session: SessionId) -> String {
    format!("{:016x}", session.0)
}

/// How far a growth of the volume is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrowthView {
    /// Growths since the daemon started, this one included.
    pub number: u64,
    /// It goes on.
    pub running: bool,
    /// Size before, in bytes.
    pub from_bytes: u64,
    /// Size afterwards, in bytes.
    pub to_bytes: u64,
    /// Bytes of the gain that are made zero.
    pub cleared_bytes: u64,
    /// Why it ended without a gain: `not-larger`, `away`, `no-room`, `cramped`, `older`, `stranded`, `lost`, `unusable`, `ended`, `busy`; none if it goes on or did
    /// not.
    pub refused: Option<String>,
    /// The node whose replica is in the way.
    pub node: Option<String>,
    /// Of `no-room` and `cramped`: the largest volume that fits, in bytes.
    pub most_bytes: Option<u64>,
}

fn growth_view(figures: GrowthFigures, names: &Names) -> GrowthView {
    let (refused, node, most) = match figures.why {
        None => (None, None, None),
        Some(Ungrown::NotLarger { .. }) => (Some("not-larger"), None, None),
        Some(Ungrown::Away(node)) => (Some("away"), Some(node), None),
        Some(Ungrown::NoRoom { node, most }) => (Some("no-room"), Some(node), Some(most.0)),
        Some(Ungrown::Cramped { node, most }) => (Some("cramped"), Some(node), Some(most.0)),
        Some(Ungrown::Older(node)) => (Some("older"), Some(node), None),
        Some(Ungrown::Stranded(node)) => (Some("stranded"), Some(node), None),
        Some(Ungrown::Lost(node)) => (Some("lost"), Some(node), None),
        Some(Ungrown::Unusable(node)) => (Some("unusable"), Some(node), None),
        Some(Ungrown::Ended) => (Some("ended"), None, None),
        Some(Ungrown::Busy) => (Some("busy"), None, None),
    };
    GrowthView {
        number: figures.number,
        running: figures.running,
        from_bytes: figures.from.0,
        to_bytes: figures.to.0,
        cleared_bytes: figures.cleared.0,
        refused: refused.map(str::to_owned),
        node: node.map(|node| names.node(node)),
        most_bytes: most,
    }
}

/// How far a verification is, and what it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyView {
    /// Verifications since the daemon started, this one included.
    pub number: u64,
    /// It goes on.
    pub running: bool,
    /// Bytes to be compared.
    pub total_bytes: u64,
    /// Bytes compared.
    pub checked_bytes: u64,
    /// Of these: bytes in chunks of 64 KiB that differed.
    pub different_bytes: u64,
    /// Of these: bytes in chunks that one side could not read.
    pub unreadable_bytes: u64,
    /// Of these: bytes that were sent to the other replica.
    pub repaired_bytes: u64,
    /// Where chunks differed or could not be read, as (offset, length) in bytes; the first 256 places.
    pub ranges: Vec<(u64, u64)>,
}

impl MirrorState {
    pub(super) fn view(&self, names: &Names) -> MirrorView {
        MirrorView {
            name: self.name.clone(),
            state: self.condition,
            lag_bytes: self.lag.0,
            lag_seconds: self.lag_time.as_secs_f64(),
            out_of_sync_bytes: self.out_of_sync.0,
            intent_bytes: self.intent.0,
            resync_sent_bytes: self.resync_sent.0,
            cold_writes: self.cold_writes,
            verify: self.verify.clone(),
            growth: self.growth.map(|it| growth_view(it, names)),
            front_end: self.front_end.map(|kind| kind.word().to_owned()),
            front_end_why: self.front_end_why.clone(),
            replica: self.replica.as_ref().map(|it| replica_view(it, names)),
            differing: pairs(&self.differing),
            differing_more: self.differing.more,
            held_back: self.held_views(names),
            out_seconds: self.out_for.map(|time| time.as_secs_f64()),
        }
    }

    fn held_views(&self, names: &Names) -> Vec<HeldView> {
        let places = self.replica.as_ref().and_then(|it| it.held.as_ref());
        let view = |(node, bytes): &(NodeId, ByteCount)| {
            let own = places.filter(|_| names.node(*node) == names.me);
            HeldView {
                node: names.node(*node),
                bytes: bytes.0,
                ranges: own.map(|held| pairs(&held.places)).unwrap_or_default(),
                more: own.is_some_and(|held| held.places.more),
            }
        };
        self.held_back.iter().map(view).collect()
    }
}

fn replica_view(figures: &ReplicaFigures, names: &Names) -> ReplicaView {
    let resync = |one: &ResyncFigures| ResyncView {
        node: names.node(one.node),
        left_bytes: one.left.0,
        sent_bytes: one.sent.0,
    };
    let other = |one: &PairFigures| OtherView {
        node: names.node(one.node),
        baseline: one.baseline.map(session_words),
        marked_bytes: one.marked.0,
    };
    ReplicaView {
        state: figures.state.into(),
        generation: figures.generation.0,
        epoch: figures.epoch.0,
        data_bytes: figures.data.0,
        others: figures.pairs.iter().map(other).collect(),
        resyncs: figures.resyncs.iter().map(resync).collect(),
        intent: pairs(&figures.hot),
        undo: figures.undo.map(|undo| UndoView {
            began_unix: undo.began_unix,
            saved_bytes: undo.saved.map(|bytes| bytes.0),
            used_bytes: undo.used.map(|bytes| bytes.0),
            bound_bytes: undo.bound.0,
        }),
    }
}
