//! What is wrong, as a code and its arguments. Texts, actions and languages belong to the edge (crate `backstay`).

use crate::control::{Obstacle, WrongDisk};
use crate::{GroupId, NodeId};
use serde::{Deserialize, Serialize};

/// A lasting condition that stands against readiness. Each has a stable `BS-` code that is never reused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "problem", rename_all = "kebab-case")]
pub enum Problem {
    /// A node is not heard on any link.
    NodeSilent {
        /// Which.
        node: NodeId,
    },
    /// A node is heard, but not on this link.
    LinkSilent {
        /// To which node.
        node: NodeId,
        /// Index of the link.
        link: u8,
    },
    /// No majority of the register answers.
    RegisterUnreachable {
        /// Whose.
        group: GroupId,
    },
    /// No other node could take the group over.
    NoStandby {
        /// Which group.
        group: GroupId,
        /// The standby that is closest to it.
        node: NodeId,
        /// What stands against it.
        obstacle: Obstacle,
    },
    /// The active answers nothing, because nobody confirms that it still may (R8).
    Frozen {
        /// Which group.
        group: GroupId,
    },
    /// The group is held.
    Held {
        /// Which group.
        group: GroupId,
        /// True if a person stopped it, false if it failed everywhere.
        by_person: bool,
    },
    /// No node serves the group.
    Down {
        /// Which group.
        group: GroupId,
    },
    /// A resource failed on the node.
    ResourceFailed {
        /// Which group.
        group: GroupId,
        /// Index in the group's list.
        resource: u8,
    },
    /// A replica's disk failed.
    DiskFailed {
        /// Which group.
        group: GroupId,
        /// On which node.
        node: NodeId,
    },
    /// This member may not vote: its file is gone or older than it was.
    NoVote {
        /// Which.
        node: NodeId,
    },
    /// This node holds acknowledged writes that a failover cut off, and does not follow until a person decides.
    HeldBack {
        /// Which group.
        group: GroupId,
        /// On which node.
        node: NodeId,
    },
    /// The disk of a node works, but is not a replica of its mirror.
    WrongDisk {
        /// Which group.
        group: GroupId,
        /// On which node.
        node: NodeId,
        /// Why it is not.
        why: WrongDisk,
    },
}

impl Problem {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NodeSilent { .. } => "BS-101",
            Self::LinkSilent { .. } => "BS-102",
            Self::RegisterUnreachable { .. } => "BS-201",
            Self::NoVote { .. } => "BS-202",
            Self::NoStandby { .. } => "BS-301",
            Self::Frozen { .. } => "BS-302",
            Self::Held { .. } => "BS-303",
            Self::Down { .. } => "BS-304",
            Self::ResourceFailed { .. } => "BS-305",
            Self::DiskFailed { .. } => "BS-401",
            Self::HeldBack { .. } => "BS-403",
            Self::WrongDisk { .. } => "BS-404",
        }
    }
}
