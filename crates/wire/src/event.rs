//! What happened and why, as codes and arguments. Texts and languages belong to the edge (crate `backstay`).

use crate::control::{GroupRequest, Obstacle, RequestFault, Role};
use crate::problem::Problem;
use crate::record::{Hold, Record};
use crate::{ByteCount, ByteRange, Duration, Epoch, GroupId, NodeId, Time};
use serde::{Deserialize, Serialize};

/// One event, as the core emits it; the event log adds wall time, node and number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, on the node's own clock.
    pub at: Time,
    /// Which group it concerns; none for nodes and links.
    pub group: Option<GroupId>,
    /// The chain of decisions that it belongs to; 0 for none. Unique per node.
    pub incident: u64,
    /// What.
    pub what: What,
}

/// How much a person should care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// What an operator would tell a colleague.
    Info,
    /// Still working, but look.
    Warning,
    /// A promise is broken or service is down.
    Critical,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", content = "args", rename_all = "kebab-case")]
pub enum What {
    /// The daemon began its work.
    Started {
        /// How often it started with its member file.
        starts: u64,
    },
    /// A node is heard (again).
    NodeUp {
        /// Which.
        node: NodeId,
    },
    /// A node is not heard on any link for the suspicion time.
    NodeSuspect {
        /// Which.
        node: NodeId,
        /// Since when, as a duration.
        silent: Duration,
    },
    /// One heartbeat link to a node went silent.
    LinkDown {
        /// To which node.
        node: NodeId,
        /// Index of the link.
        link: u8,
    },
    /// One heartbeat link to a node is heard again.
    LinkUp {
        /// To which node.
        node: NodeId,
        /// Index of the link.
        link: u8,
    },
    /// A newer record was learned.
    RecordChanged {
        /// The record.
        record: Record,
    },
    /// The node's role for the group changed.
    RoleChanged {
        /// From.
        from: Role,
        /// To.
        to: Role,
    },
    /// A decision, with everything that led to it.
    Decision(Decision),
    /// A phase of a transition ended.
    Phase {
        /// Which.
        phase: Phase,
        /// How long it took.
        took: Duration,
    },
    /// A transition ended; service is (again) as intended.
    TransitionDone {
        /// From the trigger on.
        took: Duration,
    },
    /// The lease ran out; nothing is answered until somebody confirms (R8).
    LeaseLost,
    /// The lease is confirmed (again).
    LeaseGained,
    /// The mirror lost a replica's connection.
    ReplicaLost {
        /// Which node.
        node: NodeId,
        /// Why.
        why: ReplicaLoss,
    },
    /// A resync began.
    ResyncStarted {
        /// Target.
        node: NodeId,
        /// What may differ.
        dirty: ByteCount,
    },
    /// A resync ended; the replica counts again.
    ResyncDone {
        /// Target.
        node: NodeId,
        /// What was sent.
        sent: ByteCount,
    },
    /// A returning node's own writes that nobody had acknowledged were replaced by the active's data.
    Discarded {
        /// On which node.
        node: NodeId,
        /// At most that much differed.
        at_most: ByteCount,
    },
    /// Writes of this node that a failover cut off were copied to a file before they are replaced.
    PutAside {
        /// Where they were; the first few.
        ranges: Vec<ByteRange>,
        /// How many ranges there are in all.
        count: u64,
        /// How many bytes in all.
        bytes: ByteCount,
    },
    /// A person let go what this node held of writes that a failover cut off; they are replaced.
    LetGo {
        /// Which mirror, by its number in the group.
        mirror: u8,
        /// Where they were; the first few.
        ranges: Vec<ByteRange>,
        /// There are more ranges.
        more: bool,
        /// How many bytes in all.
        bytes: ByteCount,
    },
    /// A resync of this node goes on without a way back.
    UndoLost {
        /// Which mirror, by its number in the group.
        mirror: u8,
        /// Why.
        why: UndoLoss,
    },
    /// A resource failed, with what is done about it.
    ResourceFailed {
        /// Index in the group's list.
        resource: u8,
        /// Restarts so far within the window.
        restarts: u32,
    },
    /// A local disk failed or hangs.
    DiskFailed {
        /// The system's error, such as EIO; none for a hang.
        errno: Option<i32>,
    },
    /// A part of the local disk could not be read.
    Unreadable {
        /// Which mirror, by its number in the group.
        mirror: u8,
        /// Which part of the volume.
        range: ByteRange,
        /// It was written anew from another replica; else the reader got an error.
        mended: bool,
    },
    /// A verification ended.
    Verified {
        /// Which mirror, by its number in the group.
        mirror: u8,
        /// Whose replica was compared.
        node: NodeId,
        /// What came of it.
        found: Found,
    },
    /// A problem began.
    ProblemBegan(Problem),
    /// A problem ended.
    ProblemEnded(Problem),
    /// A person asked for something.
    Asked {
        /// What.
        request: GroupRequest,
        /// Their words.
        reason: String,
        /// What came of it at once.
        result: Result<(), RequestFault>,
    },
    /// The daemon took over what an earlier one had left running.
    Adopted,
    /// A volume was to become larger while it is served.
    Grown {
        /// Which mirror, by its number in the group.
        mirror: u8,
        /// Its size now.
        data: ByteCount,
        /// Why it did not; none if it did.
        why: Option<Ungrown>,
    },
}

/// Why a volume did not grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ungrown {
    /// It has that size already, or a larger one.
    NotLarger {
        /// Its size.
        now: ByteCount,
    },
    /// This node's replica is away, or does not hold everything yet.
    Away(NodeId),
    /// This node's disk has no room for it, or the size is no multiple of 4 KiB.
    NoRoom {
        /// Whose.
        node: NodeId,
        /// The largest volume that fits.
        most: ByteCount,
    },
    /// The device of this node's metadata has no room for larger bitmaps.
    Cramped {
        /// Whose.
        node: NodeId,
        /// The largest volume that fits.
        most: ByteCount,
    },
    /// This node runs a release that cannot do it.
    Older(NodeId),
    /// This node's disk was enlarged, and its metadata still lies where its end was.
    Stranded(NodeId),
    /// This node's session was lost on the way, or another replica came up.
    Lost(NodeId),
    /// This node's disk does not take what is to be made zero behind the volume.
    Unusable(NodeId),
    /// The activation ended on the way.
    Ended,
    /// It is not served now, or an earlier growth is not over everywhere.
    Busy,
}

/// What a verification found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Compared.
    pub checked: ByteCount,
    /// Of this: in chunks that differed.
    pub different: ByteCount,
    /// Of this: in chunks that one side could not read.
    pub unreadable: ByteCount,
    /// Of this: sent to the other replica.
    pub repaired: ByteCount,
}

impl Found {
    /// True if both replicas are equal and readable everywhere.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.different.0 == 0 && self.unreadable.0 == 0
    }
}

/// Why a replica does not take part any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplicaLoss {
    /// The connection was closed.
    Closed,
    /// It did not acknowledge in time (R18).
    Silent,
    /// Its disk failed.
    DiskFailed,
    /// It broke the protocol.
    Protocol,
    /// It refused the session.
    Refused,
    /// It is further behind than an asynchronous follower may be (R11).
    Behind,
}

/// Why a resync's undo log leads nowhere any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UndoLoss {
    /// It is full.
    Full,
    /// It cannot be written, or what is to be saved cannot be read.
    Failed,
    /// It did not answer in time.
    Silent,
    /// It is not there any more, or not as it was.
    Gone,
    /// The volume's size changed.
    Resized,
}

/// Phases of a transition, in the order they usually come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// From the last sign of life to suspicion.
    Detect,
    /// From suspicion to the end of all leases.
    Lease,
    /// The compare-and-swap.
    Decide,
    /// Mirror made ready (reconciled, drained or promoted).
    Mirror,
    /// One resource started or stopped, by its index in the group's list.
    Resource(u8),
}

/// A decision, explained: what was seen, which rule fired, what was rejected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What is done.
    pub act: Act,
    /// The rule.
    pub rule: Rule,
    /// What was seen.
    pub seen: Vec<Seen>,
    /// What else could have been done, and why it was not.
    pub rejected: Vec<(Act, Because)>,
}

/// Acts that a node decides on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Become active in place of the named node.
    TakeOver(NodeId),
    /// Become active because the former active handed over.
    TakeHandover(NodeId),
    /// Stay as it is.
    Wait,
    /// Take the named replica out of the set and go on.
    DropReplica(NodeId),
    /// Take the named replica back into the set.
    AddReplica(NodeId),
    /// Give the group to the named node.
    HandOver(NodeId),
    /// Restart a resource here.
    RestartResource(u8),
    /// Hold the group and call a person.
    Hold(Hold),
    /// Stop answering until a lease is confirmed.
    Freeze,
    /// Answer again.
    Thaw,
    /// Stop everything of an activation that is over.
    StepDown,
    /// Resume serving after a restart.
    Resume,
    /// Make the first record of the group.
    Bootstrap,
}

/// The rule that led to a decision; numbers as in the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// R3: promote only a member in sync, after every lease ran out.
    PromoteInSync,
    /// A planned handover was recorded.
    Handover,
    /// R7: the replica is gone; take it out before acknowledging alone.
    GoSolo,
    /// R5: the replica has everything; count it before the record says so.
    Grow,
    /// R7: the own disk failed and the peer is up to date.
    DiskFailedHere,
    /// R18: heartbeats live, disk hung.
    StuckPeer,
    /// R11: the asynchronous replica is at its bound; it must not be promoted from then on.
    BeyondBound,
    /// R8: no lease, no answer.
    NoLease,
    /// R8: a lease again.
    LeaseBack,
    /// A record with a newer epoch names another node.
    Deposed,
    /// Restart budget not used up.
    RestartBudget,
    /// Restart budget used up here.
    BudgetSpent,
    /// Restart budget used up everywhere.
    FailedEverywhere,
    /// A person asked.
    Asked,
    /// R6: barrier confirmed after a restart.
    Barrier,
    /// No record yet, and this node holds the origin.
    FirstRecord,
    /// R17: a person said that the active is off, and promotes what is left.
    Forced,
}

/// An observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// A node was silent that long.
    Silent(NodeId, Duration),
    /// A node was heard that long ago.
    Heard(NodeId, Duration),
    /// The own grants ran out that long ago.
    GrantsOver(Duration),
    /// The witness reported a lease still running for the node.
    WitnessLease(NodeId, Duration),
    /// The record's epoch.
    AtEpoch(Epoch),
    /// The own replica's obstacle.
    OwnObstacle(Obstacle),
    /// A replica was lost.
    ReplicaLost(NodeId, ReplicaLoss),
    /// A resource failed that often.
    Failures(u8, u32),
}

/// Why an alternative was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Because {
    /// No majority of the register can be reached.
    NoMajority,
    /// Somebody may still hold a lease.
    LeaseRunning,
    /// The replica cannot be promoted.
    NotPromotable(Obstacle),
    /// It was tried as often as allowed.
    BudgetSpent,
    /// Writes would wait for a replica that does not answer.
    WouldBlock,
    /// Acknowledged data could be lost.
    WouldLose,
    /// The group failed there already.
    FailedThere,
}

impl What {
    /// How much a person should care.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::NodeSuspect { .. }
            | Self::LinkDown { .. }
            | Self::ReplicaLost { .. }
            | Self::ResourceFailed { .. }
            | Self::Discarded { .. }
            | Self::PutAside { .. }
            | Self::LetGo { .. }
            | Self::UndoLost { .. }
            | Self::ProblemBegan(_) => Severity::Warning,
            Self::Unreadable { mended: true, .. } => Severity::Warning,
            Self::Verified { found, .. } if found.is_clean() => Severity::Info,
            Self::Verified { .. } | Self::Grown { why: Some(_), .. } => Severity::Warning,
            Self::LeaseLost | Self::DiskFailed { .. } | Self::Unreadable { .. } => {
                Severity::Critical
            }
            Self::Decision(decision) => match decision.act {
                Act::Freeze | Act::Hold(_) => Severity::Critical,
                Act::TakeOver(_)
                | Act::DropReplica(_)
                | Act::StepDown
                | Act::RestartResource(_) => Severity::Warning,
                Act::TakeHandover(_)
                | Act::Wait
                | Act::AddReplica(_)
                | Act::HandOver(_)
                | Act::Thaw
                | Act::Resume
                | Act::Bootstrap => Severity::Info,
            },
            Self::Started { .. }
            | Self::NodeUp { .. }
            | Self::LinkUp { .. }
            | Self::RecordChanged { .. }
            | Self::RoleChanged { .. }
            | Self::Phase { .. }
            | Self::TransitionDone { .. }
            | Self::LeaseGained
            | Self::ResyncStarted { .. }
            | Self::ResyncDone { .. }
            | Self::Grown { why: None, .. }
            | Self::ProblemEnded(_)
            | Self::Asked { .. }
            | Self::Adopted => Severity::Info,
        }
    }
}
