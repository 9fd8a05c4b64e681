//! Bodies of requests and answers, besides status and explanations.

use serde::{Deserialize, Serialize};

use super::view::{AddressView, MirrorView};
use crate::render::event::EventView;

/// Longest reason that a request may carry, in bytes.
pub const REASON_BYTES_MAX: usize = 500;

/// What a person types behind the name of the active, to promote another node by force.
pub const OFF: &str = " is off";

/// Body of `POST /api/v1/groups/{group}/move|start|stop|verify|resync|grow|demote|promote`. All keys may be missing, and so may the body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRequestBody {
    /// Only for `move`: the node to move to; the best standby if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Only for `verify`, `resync`, `grow`, `demote` and `promote`: the mirror.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    /// Only for `verify`: what differs is sent to the other replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<bool>,
    /// Only for `grow`: size of the volume afterwards, in bytes; as large as all disks let it if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Only for `resync`: everything is compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<bool>,
    /// For `demote`: whose replica; the answering node's if missing. For `resync`: which standby; all of them
    /// if missing. For `promote`: who is to serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Only for `demote`: how many bytes the person was shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Only for `demote` and `promote`: epoch of the record that the person was shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// What the person typed: for `demote` the mirror's name; for `promote` `NODE is off`, with the active by the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<String>,
    /// Why, for the event log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Answer to a request that was taken. It says that the work began, not that it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// `backstay.request/1`.
    pub schema: String,
    /// Always true; a request that is not taken is a problem.
    pub taken: bool,
}

/// Answer of `GET /api/v1/events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Events {
    /// `backstay.events/1`.
    pub schema: String,
    /// Oldest first.
    pub events: Vec<EventView>,
    /// Number of the newest event of the node; ask again with `after` until it is reached.
    pub head: u64,
}

/// Answer of `GET /api/v1/mirrors`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mirrors {
    /// `backstay.mirrors/1`.
    pub schema: String,
    /// All mirrors of all groups.
    pub mirrors: Vec<GroupMirror>,
}

/// A mirror with its group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupMirror {
    /// The group that it belongs to.
    pub group: String,
    /// Nodes that hold every acknowledged write.
    pub in_sync: Vec<String>,
    /// The mirror.
    #[serde(flatten)]
    pub mirror: MirrorView,
}

/// First event of the stream that `POST /api/v1/mirrors/{mirror}/freeze` answers with: the mirror stands still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// `backstay.freeze/1`.
    pub schema: String,
    /// Which freeze it is, for who ends it.
    pub freeze: u64,
    /// The mirror.
    pub mirror: String,
    /// Its group.
    pub group: String,
    /// The node that serves it.
    pub node: String,
    /// In which epoch.
    pub epoch: u64,
    /// Where its file system is, which is frozen; none if it has none, and was only flushed.
    pub mount: Option<String>,
    /// The disk below it.
    pub disk: String,
    /// The device of the disk's metadata, if it is not at the disk's end.
    pub metadata: Option<String>,
}

/// Further events of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StillFrozen {
    /// Why it does not stand still any more: the last event. None: it does.
    pub thawed: Option<Thawed>,
}

/// Why a mirror goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Thawed {
    /// Who asked needs it no longer: it stood still until then.
    Released,
    /// The time was over.
    Timeout,
    /// Something of the group had to start or to stop.
    Stopped,
    /// Somebody else let it go on, nobody knows since when.
    Lost,
}

/// Answer of `POST /api/v1/mirrors/{mirror}/thaw`: what becomes of it is told by the freeze's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thawing {
    /// Which freeze ends.
    pub freeze: u64,
}

/// Answer of `GET /api/v1/addresses`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// `backstay.addresses/1`.
    pub schema: String,
    /// All addresses of all groups.
    pub addresses: Vec<GroupAddress>,
}

/// An address with its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupAddress {
    /// The group that it belongs to.
    pub group: String,
    /// The address.
    #[serde(flatten)]
    pub address: AddressView,
}
