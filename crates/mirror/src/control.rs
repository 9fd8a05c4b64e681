//! What the node tells a mirror's replica, and what the replica reports back: the whole interface between the decision
//! ("who is active, who must hold a write") and the data.

use crate::runs::Places;
use std::collections::BTreeSet;
use wire::control::WrongDisk;
pub use wire::event::Ungrown;
use wire::event::{ReplicaLoss, UndoLoss};
use wire::layout::ReplicaState;
use wire::{ByteCount, ByteRange, Duration, Epoch, Generation, NodeId, SessionId, Time};

/// From the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Follow `active`: accept its sessions with this epoch or a newer one, and nobody else's.
    Follow {
        /// Epoch of the record that says so.
        epoch: Epoch,
        /// The active by that record.
        active: NodeId,
        /// A person promoted it although it had not everything: what this replica has alone may have been acknowledged, in a
        /// synchronous mirror too, and is put aside.
        cut_off: bool,
    },
    /// Accept nothing more from any older epoch and finish what is under way; answered by [`Report::Fenced`] (R3, R16).
    Fence,
    /// Become the active of `epoch`: reconcile every other member of `required` (R9), then serve: [`Report::Serving`].
    Activate {
        /// Epoch of the confirmed record.
        epoch: Epoch,
        /// R1: who must hold a write before it is acknowledged: this node's replica and these. Of an asynchronous mirror:
        /// who must be within its bound then, because it may be promoted (R11).
        required: BTreeSet<NodeId>,
        /// All replicas that a session is wanted with, required or not.
        peers: BTreeSet<NodeId>,
    },
    /// While active: the sets changed. A node that is not in `required` any more was taken out by a *confirmed* change.
    Sets {
        /// The epoch that frames carry from now on.
        epoch: Epoch,
        /// R1: known set and every unresolved proposed set, together.
        required: BTreeSet<NodeId>,
    },
    /// Answer the front end only before this time (R8). [`Time::MAX`]: no limit.
    Lease {
        /// The end of the lease.
        until: Time,
    },
    /// The node's disk is not what it was (restored from a snapshot, R14): nothing on it is trusted, all of it is copied.
    /// To the active, of a peer; to a replica that serves nobody, of itself: it holds nothing from then on, durably.
    Distrust {
        /// Which.
        node: NodeId,
    },
    /// While serving: compare every chunk with this peer's. Answered by [`Report::Verified`] when all are compared; not at all
    /// if the activation ends before, if nothing is served, or while another verification goes on.
    Verify {
        /// With whom.
        node: NodeId,
        /// What differs is sent to the peer.
        repair: bool,
    },
    /// While serving: what waits for time, to make this peer equal, is done now: the next try to connect, the next one to read
    /// blocks that could not be read.
    Resync {
        /// Whom to make equal.
        node: NodeId,
        /// Whatever bitmaps say, everything is compared. Not of a peer in the sets: losing its session would take it out of
        /// them; [`Command::Verify`] with `repair` compares it as it is.
        full: bool,
    },
    /// While serving: the volume becomes larger on every replica, as large as all their disks let it or as asked for. Answered
    /// by [`Report::Grown`] or [`Report::NotGrown`]; not at all while it is growing.
    Grow {
        /// Its size then, a multiple of 4 KiB.
        data: Option<ByteCount>,
    },
    /// To a replica that holds back ([`Report::HeldBack`]): a person lets its own writes go, and it follows. Answered by
    /// [`Report::LetGo`]; not at all if it holds nothing back.
    Demote,
    /// The front end is closed: make everything durable on every required replica, clear the intent log, end the
    /// sessions; answered by [`Report::Drained`].
    Drain,
    /// Answer every pending request with an error and drop the sessions; answered by [`Report::Closed`] when no local
    /// I/O of this activation is under way any more (R16).
    Abort,
}

/// To the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The replica's metadata was read. Its generation is bumped by the first command that says what to be: until then,
    /// however often it starts, a disk restored from a snapshot shows its older one.
    Attached {
        /// The generation on the disk: compared with the record's (R14).
        before: Generation,
        /// The generation from then on; durable with [`Report::Fenced`], [`Report::Following`], [`Report::Serving`].
        generation: Generation,
        /// What the data is.
        state: ReplicaState,
        /// Size of the data area.
        data: ByteCount,
        /// Highest epoch that this replica accepted.
        epoch: Epoch,
    },
    /// The disk cannot be used; the reason is for people.
    AttachFailed {
        /// Such as "the disk belongs to another mirror".
        reason: String,
        /// The disk works, and this is wrong with it; none if it is broken.
        wrong: Option<WrongDisk>,
    },
    /// The active's session was refused, because this disk cannot be its replica. Said again at each try, until
    /// [`Report::Following`].
    CannotFollow {
        /// What is wrong with the disk.
        why: WrongDisk,
    },
    /// Answer to [`Command::Fence`].
    Fenced,
    /// Reconciled: the front end is served.
    Serving {
        /// Of which activation.
        epoch: Epoch,
    },
    /// A peer's session is lost, or it does not acknowledge. If it is required, writes wait until it is back or out.
    PeerLost {
        /// Which.
        node: NodeId,
        /// Why.
        why: ReplicaLoss,
    },
    /// An asynchronous follower is at its bound, or will be soon: replies wait, or will, until [`Command::Sets`] leaves it out
    /// (R11).
    PeerBehind {
        /// Which.
        node: NodeId,
        /// What the application was told of and the follower may lack.
        lag: ByteCount,
        /// Since when it may lack something.
        age: Duration,
    },
    /// Writes of this replica that a failover may have cut off are in a file; the replica follows from here on.
    PutAside {
        /// Where they were.
        ranges: Vec<ByteRange>,
        /// How many bytes.
        bytes: ByteCount,
    },
    /// This replica holds writes that a failover cut off, and does not follow: they could not be put aside, or are more than the
    /// bound can have left. A person decides: [`Command::Demote`].
    HeldBack {
        /// How many bytes may be concerned.
        bytes: ByteCount,
    },
    /// Answer to [`Command::Demote`]: this will be replaced, and the replica follows from here on.
    LetGo(Held),
    /// A follower that was behind is well within its bound again, without a resync.
    PeerWithin {
        /// Which.
        node: NodeId,
        /// Its generation.
        generation: Generation,
    },
    /// A required peer holds everything: it is back without having left the set (R10), or [`Command::Sets`] has just
    /// made it required (R5). *A grow is proposed only after this*: between [`Report::PeerSynced`] and the
    /// `Sets`, replies did not wait for the peer.
    PeerBack {
        /// Which.
        node: NodeId,
        /// Its generation.
        generation: Generation,
    },
    /// A resync to a peer began.
    ResyncStarted {
        /// Which.
        node: NodeId,
        /// What may differ.
        dirty: ByteCount,
        /// What the target itself had marked: its own writes that are discarded now.
        discarded: ByteCount,
    },
    /// A peer committed a resync: it holds everything and may be counted (R5: from before the grow is proposed on).
    PeerSynced {
        /// Which.
        node: NodeId,
        /// Its generation.
        generation: Generation,
        /// What was sent.
        sent: ByteCount,
    },
    /// This node follows a session of the active: its data is (`consistent`) or is not a point in the history.
    Following {
        /// Whose session.
        active: NodeId,
        /// False while a resync runs.
        consistent: bool,
    },
    /// The local disk failed (or hangs: no error number); this leg is never trusted again in this life (G4, R7).
    LocalFailed {
        /// The system's error number.
        errno: Option<i32>,
    },
    /// The resync to this replica goes on without a way back.
    UndoLost {
        /// Why.
        why: UndoLoss,
    },
    /// A part of the local disk could not be read.
    Unreadable {
        /// Which part.
        range: ByteRange,
        /// It was written anew from the peer; else nobody could serve it.
        mended: bool,
    },
    /// Answer to [`Command::Verify`].
    Verified {
        /// With whom.
        node: NodeId,
        /// What came of it.
        result: VerifyResult,
    },
    /// Answer to [`Command::Grow`]: every replica has the new size, and the front end may be told.
    Grown {
        /// Size of the volume.
        data: ByteCount,
    },
    /// Answer to [`Command::Grow`]: the volume is as large as before.
    NotGrown {
        /// Size of the volume.
        data: ByteCount,
        /// Why.
        why: Ungrown,
    },
    /// Answer to [`Command::Drain`].
    Drained,
    /// Answer to [`Command::Abort`].
    Closed,
}

/// Figures for status and metrics; read at any time, decides nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Blocks marked against a peer, in bytes, per peer.
    pub out_of_sync: Vec<(NodeId, ByteCount)>,
    /// Bytes acknowledged to the application but not by the peer (asynchronous).
    pub lag: ByteCount,
    /// Age of the oldest such write.
    pub lag_age: Duration,
    /// Bytes sent by resyncs since attach.
    pub resync_sent: ByteCount,
    /// Regions in the intent log.
    pub hot_regions: u64,
    /// Writes of the front end since attach that waited until their regions were durable in the intent log.
    pub cold_writes: u64,
    /// Local disk operations under way. Not zero after [`Report::Closed`] if one hangs: it may still land, so the
    /// node must not promote this replica (R15); the failed disk stays unused for the replica's life.
    pub io_under_way: u64,
    /// The verification that is going on, or the last one of this life.
    pub verify: Option<VerifyFigures>,
    /// The growth of the volume that is going on, or the last one of this life.
    pub growth: Option<GrowthFigures>,
    /// What the disk says of itself; none until it is attached.
    pub replica: Option<ReplicaFigures>,
    /// Where replicas may differ. The driver adds it, from its [`Survey`](crate::survey::Survey).
    pub differing: Places,
}

/// What a replica's disk says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaFigures {
    /// What the data is.
    pub state: ReplicaState,
    /// Generation of the disk (R14).
    pub generation: Generation,
    /// Highest epoch that it accepted.
    pub epoch: Epoch,
    /// Size of the volume.
    pub data: ByteCount,
    /// What it remembers of other replicas.
    pub pairs: Vec<PairFigures>,
    /// Resyncs that this replica feeds.
    pub resyncs: Vec<ResyncFigures>,
    /// The regions of the intent log: where replicas would be compared after a crash now.
    pub hot: Places,
    /// What a failover cut off and a person has to decide about.
    pub held: Option<Held>,
    /// What leads back from the mixture that this replica is.
    pub undo: Option<UndoFigures>,
}

/// A way back to what a replica held when its resync began. Amounts are not known before the resync goes on in this life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UndoFigures {
    /// When that was, in seconds since 1970.
    pub began_unix: Option<u64>,
    /// Old content that was saved.
    pub saved: Option<ByteCount>,
    /// What the log takes up.
    pub used: Option<ByteCount>,
    /// The most that it may take up; 0 if this daemon has none.
    pub bound: ByteCount,
}

/// Writes of a replica that a failover may have cut off, and that could not be put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// How many bytes may be concerned.
    pub bytes: ByteCount,
    /// Where they are.
    pub places: Places,
}

/// What a replica remembers of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairFigures {
    /// Of whom.
    pub node: NodeId,
    /// The session, or the common point of two standbys, since which bitmap and intent log count against it.
    pub baseline: Option<SessionId>,
    /// What the bitmap marks against it.
    pub marked: ByteCount,
}

/// How far the resync to a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResyncFigures {
    /// To whom.
    pub node: NodeId,
    /// What is still to be looked at.
    pub left: ByteCount,
    /// What was sent.
    pub sent: ByteCount,
}

/// How far a verification is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyFigures {
    /// Verifications since attach, this one included.
    pub number: u64,
    /// It goes on.
    pub running: bool,
    /// What it found so far.
    pub result: VerifyResult,
}

/// How far a growth is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrowthFigures {
    /// Growths since attach, this one included.
    pub number: u64,
    /// It goes on.
    pub running: bool,
    /// Size before.
    pub from: ByteCount,
    /// Size afterwards.
    pub to: ByteCount,
    /// Bytes of the gain that are made zero.
    pub cleared: ByteCount,
    /// Why it ended without a gain.
    pub why: Option<Ungrown>,
}

/// What a verification found, so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyResult {
    /// Bytes to be compared.
    pub total: ByteCount,
    /// Bytes compared.
    pub checked: ByteCount,
    /// Of these: bytes in chunks (of 64 KiB) that differed.
    pub different: ByteCount,
    /// Of these: bytes in chunks that one side could not read.
    pub unreadable: ByteCount,
    /// Bytes that were sent to the peer because of it.
    pub repaired: ByteCount,
    /// Where chunks differed or could not be read, neighbours joined; the first 256 of them.
    pub ranges: Vec<ByteRange>,
}
