//! The active's side of an asynchronous follower: what waits for it, and how far it may be behind (R11).
//!
//! A follower that the record may promote ("eligible") is within the bound whenever the application hears of anything: a
//! reply that would exceed it waits, and what is late by the clock alone is told to the node in time. The node takes the
//! follower out by the register; from then on nothing waits for it. It keeps getting the stream, and is told of again when
//! it is well within the bound. If even the spool is full, the session ends, and the bitmap takes over.
//!
//! ```text
//! Within ──reply waits──► Stalled ──too long, or late──► Told ──well within, out of the set──► Returning ──► Within
//!    └───────────────────────────late───────────────────►  ▲                                        │
//!                                                          └────────────── not so any more ─────────┘
//! ```

use crate::config::Bound;
use crate::control::Report;
use crate::io::{BufId, Errno, IoId, Output, Payload, SpoolOp};
use crate::lag::Sent;
use crate::machine::{JobId, Machine};
use crate::nodes::NodeSet;
use crate::peer::{Await, Peer, Phase};
use crate::spool::{Body, Next, Outbox, Parcel, weight};
use std::collections::BTreeMap;
use wire::event::ReplicaLoss;
use wire::mirror_frame::{FLAG_ORDERED, FLAG_RESYNC, Header, Kind};
use wire::mutant::{self, Mutant};
use wire::{ByteCount, ByteRange, Duration, NodeId, Time};

/// How long replies wait for an eligible follower before the node is asked to take it out.
const STALL_MAX: Duration = Duration::from_millis(250);
/// How long a follower must be well within the bound before it is told of again.
const RETURN_AFTER: Duration = Duration::from_millis(1_000);

/// How a follower stands to its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing waits for it.
    Within,
    /// A reply waits for it since then.
    Stalled(Time),
    /// The node was told that it is behind.
    Told,
    /// It was behind, and is well within the bound since then.
    Returning(Time),
}

/// The spool, as far as it outlives sessions.
#[derive(Debug, Default)]
pub(crate) struct Spool {
    /// Operations under way, with their buffers.
    ios: BTreeMap<IoId, BufId>,
    made: u64,
    /// Of these: of sessions that are gone, and where. No place of the same follower is free before they end.
    stale: BTreeMap<IoId, u64>,
    failed: bool,
}

/// A buffer of frames that wait.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kept {
    /// How many of them: at least one, and at most one for each follower.
    frames: usize,
    /// Nothing else needs it any more.
    pub(crate) unneeded: bool,
}

impl Spool {
    fn begin(&mut self, buf: BufId) -> IoId {
        self.made += 1;
        let io = IoId(self.made);
        self.ios.insert(io, buf);
        io
    }
}

impl Machine {
    /// How far followers that nobody waits for may be behind, if there can be any.
    pub(crate) fn bound(&self) -> Option<Bound> {
        self.config.apart.as_ref().map(|apart| apart.bound)
    }

    /// The bound of a follower, of those that nobody waits for.
    pub(crate) fn bound_of(&self, node: NodeId) -> Option<Bound> {
        self.bound().filter(|_| self.apart.contains(node))
    }

    /// The queue of a new session.
    pub(crate) fn outbox(&self, node: NodeId) -> Outbox {
        let pairs = &self.superblock.get().pairs;
        let place = (0..).zip(pairs).find(|(_, pair)| pair.node == node);
        match (self.bound_of(node), place) {
            (Some(bound), Some((place, _))) => Outbox::new(bound, place),
            (None, _) | (_, None) => Outbox::default(),
        }
    }

    // ---- the bound ----------------------------------------------------------------------------------------------

    /// True if the application may hear of `bytes` more that only `acked` has.
    pub(crate) fn keeps_bound(&mut self, acked: NodeSet, bytes: u64) -> bool {
        let Some(bound) = self.bound() else {
            return true;
        };
        if mutant::on(Mutant::BoundIgnored) {
            return true;
        }
        let (now, eligible) = (self.now, self.eligible());
        let mut keeps = true;
        for (node, peer) in &mut self.peers {
            if !eligible.contains(*node) || acked.contains(*node) {
                continue;
            }
            let late = peer
                .lag
                .since()
                .is_some_and(|at| at + bound.max_time <= now);
            if late || peer.lag.bytes() + bytes > bound.max_bytes {
                keeps = false;
                if peer.standing == Standing::Within {
                    peer.standing = Standing::Stalled(now);
                }
            }
        }
        keeps
    }

    /// The application hears of a write.
    pub(crate) fn note_told(&mut self, job: JobId, acked: NodeSet, bytes: u64) {
        let now = self.now;
        for (node, peer) in &mut self.peers {
            if self.apart.contains(*node) && !acked.contains(*node) {
                peer.lag.told(job, bytes, now);
            }
        }
    }

    /// A follower answered: what waited for it may go on.
    pub(crate) fn note_answered(&mut self, node: NodeId, what: Sent) {
        let Some(peer) = self
            .peers
            .get_mut(&node)
            .filter(|_| self.apart.contains(node))
        else {
            return;
        };
        peer.lag.answered(what);
        if matches!(peer.standing, Standing::Stalled(_)) {
            peer.standing = Standing::Within;
            self.settle_all();
        }
    }

    /// Looks at every follower's distance: tells the node who is behind, and who is so no more.
    pub(crate) fn watch_bounds(&mut self) {
        if mutant::on(Mutant::BoundIgnored) {
            return;
        }
        let Some(bound) = self.bound() else {
            return;
        };
        let (now, eligible) = (self.now, self.eligible());
        let mut behind = Vec::new();
        let mut within = Vec::new();
        for (node, peer) in &mut self.peers {
            if !self.apart.contains(*node) {
                continue;
            }
            let counts = eligible.contains(*node);
            let small = is_well_within(peer, bound, now);
            peer.standing = match peer.standing {
                Standing::Within | Standing::Stalled(_) if counts && is_late(peer, bound, now) => {
                    behind.push(*node);
                    Standing::Told
                }
                Standing::Told if !counts && small && peer.is_live() => Standing::Returning(now),
                Standing::Returning(_) if !small || !peer.is_live() => Standing::Told,
                Standing::Returning(since) if since + RETURN_AFTER <= now => {
                    within.push(*node);
                    Standing::Within
                }
                same @ (Standing::Within
                | Standing::Stalled(_)
                | Standing::Told
                | Standing::Returning(_)) => same,
            };
        }
        for node in behind {
            self.report_behind(node);
        }
        for node in within {
            let session = self.peers.get(&node).and_then(Peer::session);
            if let Some(generation) = session.map(|s| s.generation) {
                self.report(Report::PeerWithin { node, generation });
            }
        }
    }

    /// True if an asynchronous follower is not well within the bound.
    pub(crate) fn is_far_behind(&self, node: NodeId) -> bool {
        let peer = self.peers.get(&node);
        let far = |(peer, bound)| !is_well_within(peer, bound, self.now);
        peer.zip(self.bound_of(node)).is_some_and(far)
    }

    /// A follower that has everything again may still be far behind the stream.
    pub(crate) fn judge_return(&mut self, node: NodeId) {
        let (now, Some(bound)) = (self.now, self.bound_of(node)) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if !is_well_within(peer, bound, now) {
            peer.standing = Standing::Told;
            self.report_behind(node);
        }
    }

    fn report_behind(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get(&node) {
            let lag = ByteCount(peer.lag.bytes());
            let age = (peer.lag.since()).map_or(Duration::ZERO, |at| self.now.since(at));
            self.report(Report::PeerBehind { node, lag, age });
        }
    }

    /// When [`Machine::watch_bounds`] has something to do by the clock.
    pub(crate) fn bounds_wake_at(&self) -> Option<Time> {
        let bound = self.bound()?;
        let eligible = self.eligible();
        let of_peer = |(node, peer): (&NodeId, &Peer)| match peer.standing {
            Standing::Within | Standing::Stalled(_) if eligible.contains(*node) => {
                let late = peer.lag.since().map(|at| at + warning(bound));
                let stalled = match peer.standing {
                    Standing::Stalled(since) => Some(since + STALL_MAX),
                    Standing::Within | Standing::Told | Standing::Returning(_) => None,
                };
                late.into_iter().chain(stalled).min()
            }
            Standing::Returning(since) => Some(since + RETURN_AFTER),
            Standing::Within | Standing::Stalled(_) | Standing::Told => None,
        };
        self.peers.iter().filter_map(of_peer).min()
    }

    // ---- the stream ---------------------------------------------------------------------------------------------

    /// While much waits for a follower that is being copied to, a write is left to the copy: true if so.
    pub(crate) fn leave_to_copy(&mut self, node: NodeId, range: ByteRange) -> bool {
        let Some(bound) = self.bound_of(node) else {
            return false;
        };
        let Some(session) = self.peers.get_mut(&node).and_then(|p| p.session_mut()) else {
            return false;
        };
        let crowded = session.outbox.memory() > bound.memory_bytes / 2;
        match &mut session.phase {
            Phase::Copying(copying) if crowded => {
                copying.todo.set(range.cells(wire::units::BLOCK_BYTES));
                true
            }
            Phase::Copying(_)
            | Phase::Naming { .. }
            | Phase::Committing { .. }
            | Phase::Clearing { .. }
            | Phase::Live => false,
        }
    }

    /// A write is on its way to a follower; one that must be durable ends an epoch, as a flush does: whatever is written when
    /// it was acknowledged comes after it.
    pub(crate) fn note_sent(&mut self, node: NodeId, job: JobId, bytes: u64, fua: bool) {
        if !self.apart.contains(node) {
            return;
        }
        let now = self.now;
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.lag.sent(Sent::Write(job), bytes, now);
            if fua {
                peer.lag.sent(Sent::Barrier(job), 0, now);
            }
        }
        if fua {
            let flags = Self::ordered();
            self.ask(node, Kind::Flush, flags, Await::Barrier(job));
        }
    }

    /// The flags of a flush that ends an epoch.
    pub(crate) fn ordered() -> u8 {
        if mutant::on(Mutant::EpochsUnordered) {
            0
        } else {
            FLAG_ORDERED
        }
    }

    /// Sends a frame, or has it wait for its turn.
    pub(crate) fn enqueue(&mut self, node: NodeId, header: Header, payload: Payload) {
        let epoch = self.epoch();
        let Some(session) = self.peers.get_mut(&node).and_then(|p| p.session_mut()) else {
            return;
        };
        if session.full {
            return;
        }
        if session.outbox.is_open() {
            session.outbox.count(&header);
            let conn = session.conn;
            return self.send(conn, Header { epoch, ..header }, payload);
        }
        let memory = session.outbox.memory() + weight(&header);
        session.full = !session.outbox.has_place();
        let body = match payload {
            Payload::Buf(buf) => self.keep(node, buf, &header, memory),
            Payload::None | Payload::Bytes(_) => Some(Body::Here(payload)),
        };
        let Some(session) = self.peers.get_mut(&node).and_then(|p| p.session_mut()) else {
            return;
        };
        match body {
            Some(body) => session.outbox.push(Parcel { header, body }),
            None => session.full = true,
        }
    }

    /// Keeps a buffer until its turn, with so much in memory; none if there is no room left anywhere.
    fn keep(&mut self, node: NodeId, buf: BufId, header: &Header, memory: u64) -> Option<Body> {
        let bound = self.bound_of(node)?;
        // Chunks of a copy are few, and bounded by their number.
        if memory <= bound.memory_bytes || header.flags & FLAG_RESYNC != 0 {
            self.kept.entry(buf).or_default().frames += 1;
            return Some(Body::Held(buf));
        }
        let spool = &mut self.spool;
        let session = self.peers.get_mut(&node).and_then(|p| p.session_mut())?;
        let ring = &session.outbox.ring;
        let idle = !spool.stale.values().any(|offset| ring.has(*offset));
        let usable = !spool.failed && idle && memory <= bound.memory_bytes.saturating_mul(2);
        let len = u64::from(header.payload_len);
        let slot = usable.then(|| session.outbox.ring.take(len))??;
        let io = spool.begin(buf);
        self.kept.entry(buf).or_default().frames += 1;
        let op = SpoolOp::Write {
            offset: slot.offset,
            buf,
        };
        self.out.push_back(Output::Spool { io, op });
        Some(Body::Writing(io, slot, buf))
    }

    /// Moves every queue on; gives up followers whose queue has no room left.
    pub(crate) fn pump_streams(&mut self) {
        let apart = |node: &&NodeId| self.apart.contains(**node);
        let nodes: Vec<NodeId> = self.peers.keys().filter(apart).copied().collect();
        for node in nodes {
            while self.pump_stream(node) {}
            let full = |p: &Peer| p.session().is_some_and(|s| s.full);
            if self.peers.get(&node).is_some_and(full) {
                self.lose(node, ReplicaLoss::Behind);
            }
        }
    }

    fn pump_stream(&mut self, node: NodeId) -> bool {
        let epoch = self.epoch();
        let Some(session) = self.peers.get_mut(&node).and_then(|p| p.session_mut()) else {
            return false;
        };
        match session.outbox.next() {
            Next::Nothing => false,
            Next::Send => {
                let conn = session.conn;
                let Some(Parcel { header, body }) = session.outbox.take() else {
                    return false;
                };
                // R4: the epoch is the one of the sending; the sets may have changed while it waited.
                let header = Header { epoch, ..header };
                let buf = body.buf();
                let payload = match body {
                    Body::Here(payload) => payload,
                    Body::Held(buf) | Body::Writing(_, _, buf) | Body::Reading(_, _, buf) => {
                        Payload::Buf(buf)
                    }
                    Body::Spooled(_) => Payload::None,
                };
                self.send(conn, header, payload);
                if let Some(buf) = buf {
                    self.let_go_of(buf);
                }
                true
            }
            Next::Read(place, slot) => {
                let buf = self.alloc(slot.len);
                let io = self.spool.begin(buf);
                let op = SpoolOp::Read {
                    offset: slot.offset,
                    buf,
                };
                self.out.push_back(Output::Spool { io, op });
                let session = self.peers.get_mut(&node).and_then(|p| p.session_mut());
                if let Some(session) = session {
                    session.outbox.reading(place, io, slot, buf);
                }
                true
            }
        }
    }

    /// An operation of the spool ended.
    pub(crate) fn on_spool_done(&mut self, io: IoId, result: Result<(), Errno>) {
        let Some(buf) = self.spool.ios.remove(&io) else {
            return;
        };
        self.spool.failed |= result.is_err();
        if self.spool.stale.remove(&io).is_some() {
            return self.let_go_of(buf);
        }
        let mut unneeded = None;
        for peer in self.peers.values_mut() {
            let Some(session) = peer.session_mut() else {
                continue;
            };
            if let Some((slot, idle)) = session.outbox.done(io) {
                session.full |= result.is_err();
                if let Some(slot) = slot {
                    session.outbox.ring.give(slot);
                }
                unneeded = idle;
            }
        }
        if let Some(buf) = unneeded {
            self.let_go_of(buf);
        }
    }

    /// A waiting frame does not need its buffer any more.
    fn let_go_of(&mut self, buf: BufId) {
        if let Some(kept) = self.kept.get_mut(&buf) {
            kept.frames -= 1;
            if kept.frames > 0 || !self.kept.remove(&buf).is_some_and(|kept| kept.unneeded) {
                return;
            }
        }
        self.release(buf);
    }

    /// A session ends: its queue is dropped.
    pub(crate) fn drop_outbox(&mut self, mut outbox: Outbox) {
        self.spool.stale.extend(outbox.under_way());
        for buf in outbox.end() {
            self.let_go_of(buf);
        }
    }
}

/// The age at which the node is told, so that the register can be changed before the bound.
fn warning(bound: Bound) -> Duration {
    bound.max_time / 4 * 3
}

/// True if the node must be told.
fn is_late(peer: &Peer, bound: Bound, now: Time) -> bool {
    let late = peer
        .lag
        .since()
        .is_some_and(|at| at + warning(bound) <= now);
    let stalled = match peer.standing {
        Standing::Stalled(since) => since + STALL_MAX <= now,
        Standing::Within | Standing::Told | Standing::Returning(_) => false,
    };
    late || stalled
}

fn is_well_within(peer: &Peer, bound: Bound, now: Time) -> bool {
    let young = (peer.lag.since()).is_none_or(|at| now < at + bound.max_time / 2);
    young && peer.lag.bytes() <= bound.max_bytes / 2
}
