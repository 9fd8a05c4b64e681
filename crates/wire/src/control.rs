//! What nodes tell each other in sealed datagrams: heartbeats, leases, register messages, gossip of decided records.
//!
//! Datagrams may be lost, doubled, delayed or reordered; every message tolerates that. A datagram is parsed only after
//! its seal was opened, so what arrives here comes from a member of the cluster; it is still checked, because a member
//! may run another release.

use crate::{
    Ballot, ByteCount, Duration, Epoch, GroupId, NodeId, Nonce, Record, SessionId, Time, Version,
    version,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Largest encoded datagram, in bytes: fits an Ethernet frame with IPv6 and the seal. Longer ones are not sent.
pub const DATAGRAM_MAX: usize = 1_280;
/// Most messages in one datagram; more are refused.
pub const MESSAGES_MAX: usize = 64;

/// One heartbeat link: the index of the address in the node's `heartbeat` list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LinkId(pub u8);

/// One sealed datagram's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagram {
    /// [`version::CONTROL`] of the sender.
    pub version: u16,
    /// Who sends. The shell checks it against the key that opened the seal.
    pub from: NodeId,
    /// The sender's process life; a new one means that it restarted.
    pub life: SessionId,
    /// What it says.
    pub messages: Vec<Message>,
}

/// Why bytes are not a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramFault {
    /// Too long, too many messages, or not decodable.
    Malformed,
    /// The sender speaks a newer version.
    NewerVersion(u16),
    /// A record in it breaks its invariant.
    Record(&'static str),
}

impl Datagram {
    /// Encodes. None if it would be longer than [`DATAGRAM_MAX`].
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let bytes = postcard::to_stdvec(self).ok()?;
        (bytes.len() <= DATAGRAM_MAX).then_some(bytes)
    }

    /// Parses and checks.
    ///
    /// # Errors
    /// [`DatagramFault`] says what is wrong; nothing of the datagram may be used then.
    pub fn decode(bytes: &[u8]) -> Result<Self, DatagramFault> {
        let (version, _) =
            postcard::take_from_bytes::<u16>(bytes).map_err(|_| DatagramFault::Malformed)?;
        if version > version::CONTROL {
            return Err(DatagramFault::NewerVersion(version));
        }
        if bytes.len() > DATAGRAM_MAX {
            return Err(DatagramFault::Malformed);
        }
        let datagram: Self = postcard::from_bytes(bytes).map_err(|_| DatagramFault::Malformed)?;
        if datagram.messages.len() > MESSAGES_MAX || datagram.from > NodeId::MAX {
            return Err(DatagramFault::Malformed);
        }
        for message in &datagram.messages {
            if let Some(fault) = message.record().and_then(Record::fault) {
                return Err(DatagramFault::Record(fault));
            }
        }
        Ok(datagram)
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Periodic sign of life, per link.
    Beat(Beat),
    /// The active asks for its lease.
    LeaseRequest {
        /// Whose lease.
        group: GroupId,
        /// Echoed by the grant; names the request and with it its sending time (R8).
        request: Nonce,
        /// The lease's length `T`, counted by the holder from sending, by the grantor from receipt.
        term: Duration,
        /// The epoch at which the sender is active.
        epoch: Epoch,
    },
    /// The sender supports no takeover until term + margin after its receipt of the request.
    LeaseGrant {
        /// Whose lease.
        group: GroupId,
        /// The request's nonce.
        request: Nonce,
    },
    /// CASPaxos phase 1.
    Prepare {
        /// Whose register.
        group: GroupId,
        /// The proposer's ballot.
        ballot: Ballot,
        /// A takeover is refused while a lease that was granted runs (R8).
        purpose: Purpose,
    },
    /// Answer to [`Message::Prepare`].
    Promise {
        /// Whose register.
        group: GroupId,
        /// The ballot that is promised.
        ballot: Ballot,
        /// What this acceptor accepted last.
        accepted: Option<(Ballot, Record)>,
    },
    /// CASPaxos phase 2.
    Accept {
        /// Whose register.
        group: GroupId,
        /// The proposer's ballot.
        ballot: Ballot,
        /// The value.
        record: Record,
    },
    /// Answer to [`Message::Accept`].
    Accepted {
        /// Whose register.
        group: GroupId,
        /// The ballot that was accepted.
        ballot: Ballot,
    },
    /// An acceptor's no to a prepare or an accept.
    Refused {
        /// Whose register.
        group: GroupId,
        /// The ballot that was refused.
        ballot: Ballot,
        /// Why.
        why: Refusal,
    },
    /// Gossip: this record was decided. Never a proposal.
    Decided {
        /// Whose register.
        group: GroupId,
        /// The decided record.
        record: Record,
    },
    /// A person's request, passed on to the active node.
    Ask {
        /// Unique per asking node.
        id: Nonce,
        /// Which group.
        group: GroupId,
        /// What is asked.
        request: GroupRequest,
        /// Why, in the person's words; empty if none were given.
        reason: String,
    },
    /// Answer to [`Message::Ask`].
    Answer {
        /// The request's id.
        id: Nonce,
        /// Accepted, or the reason why not.
        result: Result<(), RequestFault>,
    },
}

impl Message {
    const fn record(&self) -> Option<&Record> {
        match self {
            Self::Promise {
                accepted: Some((_, record)),
                ..
            }
            | Self::Accept { record, .. }
            | Self::Decided { record, .. } => Some(record),
            Self::Beat(_)
            | Self::LeaseRequest { .. }
            | Self::LeaseGrant { .. }
            | Self::Prepare { .. }
            | Self::Promise { accepted: None, .. }
            | Self::Accepted { .. }
            | Self::Refused { .. }
            | Self::Ask { .. }
            | Self::Answer { .. } => None,
        }
    }
}

/// Periodic sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// The sender's clock, echoed back for the round-trip time. Means nothing to others.
    pub sent: Time,
    /// The last beat heard from the receiver on this link: its `sent`, and how long ago it came.
    pub echo: Option<(Time, Duration)>,
    /// Whom the sender hears within its suspicion time.
    pub hears: BTreeSet<NodeId>,
    /// Per group, in the configuration's order.
    pub groups: Vec<GroupBeat>,
}

/// What a node says of one group in each beat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupBeat {
    /// Which group.
    pub group: GroupId,
    /// The decided record that the sender knows; 0 if none. A receiver that knows a newer one gossips it.
    pub version: Version,
    /// What the sender does for the group.
    pub role: Role,
    /// A lease that the sender granted and that still runs: to whom, and for how long still.
    pub granted: Option<(NodeId, Duration)>,
    /// What stands against promoting the sender; none if it could take over.
    pub obstacle: Option<Obstacle>,
}

/// What a node does for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Votes only.
    Witness,
    /// Nothing known yet, or something of an older activation is still open.
    Settling,
    /// Follows.
    Standby,
    /// Won the record, starts the resources.
    Promoting,
    /// Serves.
    Active,
    /// Active by the record, but without a lease: answers nothing.
    Frozen,
    /// Stops the resources.
    Demoting,
    /// Stopped by intent.
    Held,
}

/// What stands against promoting a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Obstacle {
    /// The record says that it is out of sync.
    OutOfSync,
    /// Its data is a mixture (a resync was not finished).
    Inconsistent,
    /// Its disk failed or hangs.
    DiskFailed,
    /// Its disk is older than the record: restored from a snapshot (R14).
    RolledBack,
    /// A device instance of an older activation is still open (R15).
    InstanceOpen,
    /// The group failed on this node; a person clears it with `backstay start`.
    FailedHere,
    /// Its replica is not attached (yet).
    NotAttached,
    /// Asynchronous and not eligible (R11).
    AsyncBehind,
    /// Its acceptor lost its file or came back with an older one.
    NoVote,
    /// The register cannot be reached from there, or could not without the active.
    NoRegister,
    /// It is not heard.
    Silent,
    /// Its disk works, but is not a replica of this mirror.
    WrongDisk(WrongDisk),
    /// It holds so much that a failover cut off, and does not follow until a person decides.
    HeldBack(ByteCount),
}

impl Obstacle {
    /// How much a replica holds back, if that is what stands against it.
    #[must_use]
    pub const fn held_back(self) -> Option<ByteCount> {
        match self {
            Self::HeldBack(bytes) => Some(bytes),
            Self::OutOfSync
            | Self::Inconsistent
            | Self::DiskFailed
            | Self::RolledBack
            | Self::InstanceOpen
            | Self::FailedHere
            | Self::NotAttached
            | Self::AsyncBehind
            | Self::NoVote
            | Self::NoRegister
            | Self::Silent
            | Self::WrongDisk(_) => None,
        }
    }
}

/// Why a disk that works cannot be this mirror's replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WrongDisk {
    /// It holds no mirror's metadata.
    NoMirror,
    /// It is a replica of another mirror.
    OtherMirror,
    /// It was made a replica whose content is kept, and so is not overwritten.
    OwnContent,
    /// It is smaller than when it was made a replica.
    Shrunk,
    /// Its data area is smaller than the active's volume.
    TooSmall,
    /// Its metadata is damaged beyond what can be made good.
    Damaged,
    /// Its metadata was written by a newer release.
    Newer,
    /// The metadata is on a device of its own, and of another disk than the one beside it.
    OtherDisk,
}

/// Why a proposer asks for a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// To read, or to change something other than the active node.
    Keep,
    /// To become active in place of the holder of a lease.
    Takeover,
}

/// Why an acceptor says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// A higher ballot was promised.
    Ballot(Ballot),
    /// A lease that this member granted to, or holds for, another node may run that much longer (R8).
    Leased {
        /// To whom.
        holder: NodeId,
        /// At most this long.
        left: Duration,
    },
}

/// What a person may ask of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupRequest {
    /// Planned move; to the named node, or to the best standby.
    Move(Option<NodeId>),
    /// Clear a hold and serve.
    Start,
    /// Stop the resources and hold.
    Stop,
    /// Compare every other replica of a mirror with the active's.
    Verify {
        /// Which mirror, by its number in the group.
        mirror: u8,
        /// What differs is sent to the other replica.
        repair: bool,
    },
    /// Make standbys equal to the active now.
    Resync {
        /// Which mirror, by its number in the group.
        mirror: u8,
        /// Which standby; all of them if none is named.
        node: Option<NodeId>,
        /// Everything is compared, whatever bitmaps say.
        full: bool,
    },
    /// Make a node active that no rule would promote (R17). Carried out by that node.
    Promote {
        /// Which.
        node: NodeId,
        /// The active by the record, of which the person says that it is off.
        off: NodeId,
        /// Epoch of the record that the person was shown; refused if it is another by now.
        epoch: Epoch,
    },
    /// Let go what a replica holds back, so that it follows. Carried out by its own node.
    Demote {
        /// Which mirror, by its number in the group.
        mirror: u8,
        /// Whose replica.
        node: NodeId,
        /// What the person was shown; refused if it is not what is held back.
        bytes: ByteCount,
        /// Epoch of the record that the person was shown; refused if it is another by now.
        epoch: Epoch,
    },
    /// Make the volume larger on every replica while it is served.
    Grow {
        /// Which mirror, by its number in the group.
        mirror: u8,
        /// Its size then; none: as large as all disks let it.
        data: Option<ByteCount>,
    },
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestFault {
    /// No node is active that could do it.
    NoActive,
    /// The named node cannot be promoted.
    Target(NodeId, Obstacle),
    /// No node can be promoted.
    NoTarget,
    /// The group is in the middle of another transition.
    Busy,
    /// It already is as asked.
    Already,
    /// The register could not be changed; the outcome is unknown until it is reached again.
    Unclear,
    /// The node that it concerns is not heard.
    Silent(NodeId),
    /// The node is heard, here or by a node that is heard here: it is not off.
    Alive(NodeId),
    /// The record names another node as active.
    OtherActive(NodeId),
    /// Too few nodes of the register are heard to change it.
    NoMajority,
    /// Somebody may hold a lease still.
    LeaseRunning,
    /// The node takes over by itself: nothing stands against it.
    Promotable(NodeId),
    /// Several nodes are concerned, and one has to be named.
    NameOne,
    /// The node's replica holds nothing back.
    NotHeldBack(NodeId),
    /// The node's replica holds back so much, which is not what the person was shown.
    OtherHeldBack(NodeId, ByteCount),
    /// The node is alive, and its replica holds what this one lacks.
    Better(NodeId),
    /// It is carried out only when it is asked on this node.
    AskThere(NodeId),
    /// The record is not the one that the person was shown.
    OtherRecord,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat() -> Datagram {
        Datagram {
            version: version::CONTROL,
            from: NodeId(1),
            life: SessionId(7),
            messages: vec![Message::Beat(Beat {
                sent: Time::from_nanos(5),
                echo: None,
                hears: BTreeSet::from([NodeId(0)]),
                groups: Vec::new(),
            })],
        }
    }

    #[test]
    fn a_datagram_survives_the_round_trip() {
        let bytes = beat().encode().unwrap();
        assert_eq!(Datagram::decode(&bytes).unwrap(), beat());
    }

    #[test]
    fn a_newer_version_is_named_not_parsed() {
        let newer = Datagram {
            version: version::CONTROL + 1,
            ..beat()
        }
        .encode()
        .unwrap();
        assert_eq!(
            Datagram::decode(&newer),
            Err(DatagramFault::NewerVersion(version::CONTROL + 1))
        );
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = beat().encode().unwrap();
        for end in 0..bytes.len() {
            assert!(
                Datagram::decode(&bytes[..end]).is_err(),
                "{end} bytes were taken"
            );
        }
    }
}
