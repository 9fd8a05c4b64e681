//! What a member keeps in its two-slot file: its acceptors, its open proposals, and the last records it saw decided.
//!
//! The shell writes the encoded bytes into alternating slots with a sequence number and a checksum and syncs them; the
//! cores say *when* by a persist ticket and act on the content only after the ticket came back.

use crate::{Ballot, Duration, GroupId, NodeId, Record, version};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A member's durable state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durable {
    /// [`version::DURABLE`] of the writer.
    pub version: u16,
    /// Whose state it is; a file of another node is refused.
    pub node: NodeId,
    /// How often this member started with this file.
    pub starts: u64,
    /// The longest lease term that this member ever granted: a restarted grantor waits that long (R8).
    pub longest_term: Duration,
    /// Per group.
    pub groups: BTreeMap<GroupId, GroupDurable>,
}

/// Durable state of one group's register at one member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDurable {
    /// The acceptor's state.
    pub acceptor: AcceptorDurable,
    /// Proposals of this node whose outcome is not known (R2, R6): written before they are sent.
    pub unresolved: Vec<Record>,
    /// The newest record that this member saw decided.
    pub confirmed: Option<Record>,
}

/// A CASPaxos acceptor's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptorDurable {
    /// The highest promised ballot.
    pub promised: Option<Ballot>,
    /// What was accepted last.
    pub accepted: Option<(Ballot, Record)>,
}

impl Durable {
    /// The state of a member that never ran.
    #[must_use]
    pub const fn new(node: NodeId) -> Self {
        Self {
            version: version::DURABLE,
            node,
            starts: 0,
            longest_term: Duration::ZERO,
            groups: BTreeMap::new(),
        }
    }

    /// Bytes for the file. Cannot fail for this type; an empty answer would be refused by [`Durable::decode`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// Parses what [`Durable::encode`] wrote.
    ///
    /// # Errors
    /// A sentence part that says why the bytes are not a state that this release can use.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let (version, _) =
            postcard::take_from_bytes::<u16>(bytes).map_err(|_| "it is not a member state")?;
        if version > version::DURABLE {
            return Err("it was written by a newer release");
        }
        postcard::from_bytes(bytes).map_err(|_| "it is damaged")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_survives_the_round_trip() {
        let mut state = Durable::new(NodeId(2));
        state.groups.insert(GroupId(0), GroupDurable::default());
        assert_eq!(Durable::decode(&state.encode()), Ok(state));
    }

    #[test]
    fn a_newer_state_is_refused() {
        let state = Durable {
            version: version::DURABLE + 1,
            ..Durable::new(NodeId(2))
        };
        assert_eq!(
            Durable::decode(&state.encode()),
            Err("it was written by a newer release")
        );
    }
}
