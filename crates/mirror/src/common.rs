//! What two standbys of one active need, so that one can follow the other without a comparison of everything.
//!
//! *A common point.* When both are live, the active sends each, at the same moment, a name ([`Kind::Common`]). What was sent to
//! the one before it was sent to the other before it as well, so once both have answered that everything before it is durable, they differ
//! in nothing but what came after it; that is in their own logs and marks. The name becomes their baseline in two steps, as a
//! session's does: first both note it as offered, then ([`Kind::CommonDone`]) as the baseline, and older marks go.
//!
//! *Marks against the third.* What the active lets go of stays in mind against whoever it does not name as a holder; what a
//! resync writes is marked against everybody but its source, durably before it is committed.

use crate::machine::Machine;
use crate::nodes::NodeSet;
use crate::standby_ops::Act;
use crate::superblock::Ticket;
use std::collections::BTreeSet;
use wire::layout::{PAIRS_MAX, ReplicaState};
use wire::mirror_frame::{self, Header, Kind, decode_payload, encode_payload};
use wire::mutant::{self, Bug, Mutant};
use wire::units::BLOCK_BYTES;
use wire::{ByteRange, Duration, NodeId, SessionId, Time};

/// How far the active's standbys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Common {
    /// Not all of them are live.
    None,
    /// Sent to all in these sessions, and not answered by these nodes.
    Asked {
        sessions: u64,
        name: SessionId,
        waiting: NodeSet,
    },
    /// They share a baseline since these sessions. One that nobody waits for is behind with most of what is let go of, and what
    /// is marked against it on the others grows: another point is made from time to time.
    Done {
        sessions: u64,
        /// When, once this many jobs are not the last.
        again: Option<(Time, u64)>,
    },
}

/// Pause between two common points with a follower that nobody waits for.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// A common point on a standby.
#[derive(Clone, Debug)]
pub(crate) struct Agreeing {
    name: SessionId,
    /// With whom, and the point of the plane.
    with: Vec<(NodeId, u64)>,
}

impl Machine {
    // ---- the active ---------------------------------------------------------------------------------------------

    /// Begins a common point whenever all of several standbys are live in sessions without one.
    pub(crate) fn advance_common(&mut self) {
        if self.peers.len() < 2 {
            return;
        }
        let sessions = self.live_sessions();
        let (now, jobs) = (self.now, self.jobs_made);
        let Some(active) = self.active_mut() else {
            return;
        };
        let Some(sessions) = sessions else {
            active.common = Common::None;
            return;
        };
        let is_due = |(at, made)| at <= now && made != jobs;
        let known = match active.common {
            Common::None => None,
            Common::Done { again, .. } if again.is_some_and(is_due) => None,
            Common::Asked { sessions, .. } | Common::Done { sessions, .. } => Some(sessions),
        };
        if known == Some(sessions) {
            return;
        }
        // Several may be made in the same sessions: an answer to an earlier one must not count for a later one.
        active.commons_made += 1;
        let name = SessionId(sessions ^ active.commons_made.rotate_left(48));
        let nodes: Vec<NodeId> = self.peers.keys().copied().collect();
        let mut waiting = NodeSet::EMPTY;
        nodes.iter().for_each(|node| waiting.insert(*node));
        if let Some(active) = self.active_mut() {
            active.common = Common::Asked {
                sessions,
                name,
                waiting,
            };
        }
        for node in nodes {
            let (header, payload) = self.common_frame(Kind::Common, name);
            let payload = crate::io::Payload::Bytes(payload);
            self.ask_with(node, header, payload, crate::peer::Await::Common(name));
        }
    }

    /// The sessions with all standbys, if all are live. They are random, and so is what is made of them.
    fn live_sessions(&self) -> Option<u64> {
        let mut sessions = 0_u64;
        for peer in self.peers.values() {
            let session = peer.session().filter(|_| peer.is_live())?;
            sessions = sessions.rotate_left(17) ^ session.session.0;
        }
        Some(sessions)
    }

    fn common_frame(&self, kind: Kind, name: SessionId) -> (Header, Vec<u8>) {
        let nodes = self.peers.keys().copied().collect();
        let bytes = encode_payload(&mirror_frame::Common { name, nodes });
        let header = Header {
            payload_len: u32::try_from(bytes.len()).unwrap_or(0),
            ..self.header(kind, 0)
        };
        (header, bytes)
    }

    /// When another point is due, if anything is written by then.
    pub(crate) fn common_wake_at(&self) -> Option<Time> {
        match self.active()?.common {
            Common::Done { again, .. } => {
                let (at, made) = again?;
                (made != self.jobs_made).then_some(at)
            }
            Common::None | Common::Asked { .. } => None,
        }
    }

    pub(crate) fn on_common_acked(&mut self, node: NodeId, answered: SessionId) {
        let behind = self.peers.keys().any(|peer| self.apart.contains(*peer));
        let again = behind.then(|| (self.now + AGAIN_AFTER, self.jobs_made));
        let Some(active) = self.active_mut() else {
            return;
        };
        let Common::Asked {
            sessions,
            name,
            waiting,
        } = &mut active.common
        else {
            return;
        };
        if *name != answered {
            return;
        }
        waiting.remove(node);
        let (sessions, name) = (*sessions, *name);
        if !waiting.is_empty() {
            return;
        }
        active.common = Common::Done { sessions, again };
        let sessions = self.peers.values().filter_map(|p| p.session());
        let to: Vec<_> = sessions.map(|s| (s.conn, s.session)).collect();
        for (conn, session) in to {
            let (header, bytes) = self.common_frame(Kind::CommonDone, name);
            self.send_bytes(conn, Header { session, ..header }, bytes);
        }
    }

    // ---- a standby ----------------------------------------------------------------------------------------------

    /// Others than this node and the active it follows.
    pub(crate) fn third(&self) -> NodeSet {
        let active = self.active_followed().map_or(NodeSet::EMPTY, NodeSet::one);
        self.paired().without(active)
    }

    /// None: the frame breaks the protocol.
    pub(crate) fn on_common(&mut self, header: Header, bytes: &[u8]) -> Option<()> {
        let common: mirror_frame::Common = decode_payload(bytes).ok()?;
        let whole = self.superblock.get().state == ReplicaState::Consistent;
        if common.nodes.len() > PAIRS_MAX || !whole {
            return None;
        }
        let active = self.active_followed()?;
        let others: BTreeSet<NodeId> = common.nodes.into_iter().collect();
        let others = NodeSet::others(&others, self.config.node).without(NodeSet::one(active));
        let keep = others.or(NodeSet::one(active));
        let mut with = Vec::new();
        for node in others.iter() {
            self.remember(node, keep);
            // What comes behind this frame is in the next plane's count, whenever the flush ends.
            if let Some(plane) = self.plane_mut(node) {
                with.push((node, plane.begin_point()));
            }
        }
        let name = common.name;
        self.following_mut()?.common = Some(Agreeing { name, with });
        self.on_peer_op(header, Act::Common(name))
    }

    /// Everything before the common point is durable here: the others may count from it.
    pub(crate) fn note_common(&mut self, name: SessionId) -> Ticket {
        let agreeing = self.following().and_then(|f| f.common.clone());
        let agreeing = agreeing.filter(|agreeing| agreeing.name == name);
        self.superblock.change(|s| {
            let Some(agreeing) = agreeing else {
                return;
            };
            // It has what the active has, and nothing else any more.
            s.led = false;
            for (node, _) in agreeing.with {
                if let Some(pair) = s.pair_mut(node) {
                    pair.offered = Some(agreeing.name);
                }
            }
        })
    }

    /// Everything before the common point is durable on all. None: the frame breaks the protocol.
    pub(crate) fn on_common_done(&mut self, bytes: &[u8]) -> Option<()> {
        let common: mirror_frame::Common = decode_payload(bytes).ok()?;
        let agreeing = self.following_mut()?.common.take()?;
        let name = Some(common.name);
        for (node, point) in agreeing.with {
            let pair = self.superblock.get().pair(node);
            let offered = pair.is_some_and(|pair| pair.offered == name);
            if !offered || name != Some(agreeing.name) {
                continue;
            }
            self.superblock.change(|s| {
                if let Some(pair) = s.pair_mut(node) {
                    pair.baseline = name;
                    pair.offered = None;
                }
            });
            if let Some(plane) = self.plane_mut(node) {
                plane.commit_point(point);
            }
        }
        Some(())
    }

    /// The active let go of a region, which `holders` have durably: it is marked against others before it leaves the log here.
    pub(crate) fn let_leave(&mut self, region: u32, holders: NodeSet) {
        if !mutant::has(Bug::OwedLetGo) && self.intent.keep_owed(region) {
            return;
        }
        let lacking = self.paired().without(holders);
        if lacking.is_empty() || mutant::on(Mutant::ThirdForgotten) {
            self.intent.evict(region);
        } else if self.intent.is_hot(region) {
            self.mark_region_against(lacking, region);
            self.intent.cool(region);
        }
    }

    /// Lets regions leave the log whose marks are durable, and has the others' written.
    pub(crate) fn let_cool(&mut self) {
        let cooling: Vec<u32> = self.intent.cooling().collect();
        for region in cooling {
            self.evict(region);
        }
    }

    /// A chunk of a resync changes what is here: against everybody but its source.
    pub(crate) fn mark_chunk(&mut self, range: ByteRange) {
        if !mutant::has(Bug::ChunkUnmarked) {
            self.mark_against(self.third(), &range.cells(BLOCK_BYTES));
        }
    }

    /// What this replica had changed before the session is equal to the active's now, and unknown to others. The marks are
    /// durable before it leaves the log.
    pub(crate) fn mark_stale(&mut self) {
        let third = self.third();
        if third.is_empty() {
            return;
        }
        let stale: Vec<u32> = self.intent.stale().collect();
        for region in stale {
            self.mark_region_against(third, region);
        }
        self.settle_against(third);
    }
}
