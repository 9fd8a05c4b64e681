//! A volume grows while it is served: the active's part. Each step is durable on every replica before the next.
//!
//! ```text
//! Asking ──► Clearing, part by part ──► Noting ──► Resizing ──► Sealing ──► Settling ──► the front end is told
//!  room       behind the volume, zeros   ready      standbys     here        in use
//! ```
//! Until `Resizing` nothing has changed but what nobody uses. From then on a replica has the old size or the new one, and
//! whichever becomes active, the others can take its size, to and fro: all are ready for it, and nobody wrote there. `Settling`
//! ends that. The front end hears of it last, so no
//! replica that may be promoted is ever smaller than what it was told. If a session ends on the way, so does the growth.

use crate::control::{GrowthFigures, Report, Ungrown};
use crate::disk::Purpose;
use crate::gain::{By, CLEAR_MAX, Room};
use crate::io::{DiskOp, Payload};
use crate::machine::Machine;
use crate::nodes::NodeSet;
use crate::peer::{Await, Peer};
use crate::superblock::Ticket;
use std::collections::BTreeMap;
use wire::mirror_frame::{FLAG_CRAMPED, FLAG_STRANDED, Header, Kind};
use wire::mutant::{self, Bug};
use wire::units::BLOCK_BYTES;
use wire::{ByteCount, ByteRange, NodeId, SessionId};

/// What is cleared is made durable each time it is that much more, in bytes: no flush takes long.
const NOTE_EVERY: u64 = CLEAR_MAX * if cfg!(test) { 2 } else { 64 };

/// A growth that is going on.
#[derive(Debug)]
struct Growing {
    wanted: Option<u64>,
    from: u64,
    to: u64,
    /// Every other replica, and the session in which it takes part.
    sessions: BTreeMap<NodeId, SessionId>,
    /// The present step, and who has not done it.
    step: u64,
    waiting: NodeSet,
    here: Here,
    stage: Stage,
}

/// The own part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Here {
    Busy,
    Sealing(Ticket),
    Done,
}

#[derive(Clone, Debug)]
enum Stage {
    Asking(BTreeMap<NodeId, Room>),
    /// Everything behind the volume up to here is cleared, or being cleared.
    Clearing(u64),
    /// What is cleared up to here becomes durable: all of it, or [`NOTE_EVERY`] more.
    Noting(u64),
    Resizing,
    Sealing,
    Settling,
}

/// Growths of this life.
#[derive(Debug, Default)]
pub(crate) struct Growths {
    going_on: Option<Growing>,
    last: Option<GrowthFigures>,
    made: u64,
    steps: u64,
}

impl Machine {
    pub(crate) const fn is_growing(&self) -> bool {
        self.growths.going_on.is_some()
    }

    /// A person wants a larger volume. While one is growing there is none to start.
    pub(crate) fn on_grow(&mut self, wanted: Option<u64>) {
        if self.is_growing() {
            return;
        }
        self.growths.made += 1;
        let now = self.layout.data_bytes;
        let session = |(node, peer): (&NodeId, &Peer)| {
            let live = peer.session().filter(|_| peer.is_live());
            let session = live.ok_or(Ungrown::Away(*node))?;
            let knows = session.grows.then_some((*node, session.session));
            knows.ok_or(Ungrown::Older(*node))
        };
        let sessions: Result<BTreeMap<_, _>, _> = self.peers.iter().map(session).collect();
        let serving = self.active().is_some_and(|active| active.is_serving());
        let fault = if !serving || self.is_clearing() || self.is_asked() {
            Some(Ungrown::Busy)
        } else if wanted.is_some_and(|size| size <= now) {
            let now = ByteCount(now);
            Some(Ungrown::NotLarger { now })
        } else {
            sessions.as_ref().err().copied()
        };
        self.growths.going_on = Some(Growing {
            wanted,
            from: now,
            to: now,
            sessions: sessions.unwrap_or_default(),
            step: 0,
            waiting: NodeSet::EMPTY,
            here: Here::Busy,
            stage: Stage::Asking(BTreeMap::new()),
        });
        if fault.is_some() {
            return self.end_growth(fault);
        }
        self.begin_clearing();
        self.begin_step(Stage::Asking(BTreeMap::new()), Here::Busy);
        self.ask_all(Kind::Room, 0..0);
        self.measure();
    }

    /// True while a peer has not answered a step of a growth that ended early.
    fn is_asked(&self) -> bool {
        let asked = |peer: &Peer| {
            let awaiting = peer.session().map(|session| &session.awaiting);
            let mut awaiting = awaiting.into_iter().flat_map(BTreeMap::values);
            awaiting.any(|awaited| matches!(awaited.what, Await::Growth(_)))
        };
        self.peers.values().any(asked)
    }

    fn begin_step(&mut self, stage: Stage, here: Here) {
        self.growths.steps += 1;
        let step = self.growths.steps;
        if let Some(growing) = &mut self.growths.going_on {
            growing.step = step;
            growing.stage = stage;
            growing.here = here;
            growing.waiting = NodeSet::EMPTY;
            growing
                .sessions
                .keys()
                .for_each(|node| growing.waiting.insert(*node));
        }
    }

    /// Sends the present step to everybody.
    fn ask_all(&mut self, kind: Kind, range: std::ops::Range<u64>) {
        let Some(growing) = &self.growths.going_on else {
            return;
        };
        let step = growing.step;
        let nodes: Vec<NodeId> = growing.sessions.keys().copied().collect();
        let Some(range) = ByteRange::new(range.start, range.end - range.start) else {
            return;
        };
        for node in nodes {
            let header = Header {
                range,
                ..self.header(kind, 0)
            };
            self.ask_with(node, header, Payload::None, Await::Growth(step));
        }
    }

    /// A standby did its part of a step.
    pub(crate) fn on_growth_acked(&mut self, node: NodeId, step: u64) {
        if let Some(growing) = self.growths.going_on.as_mut().filter(|g| g.step == step) {
            growing.waiting.remove(node);
        }
    }

    /// A standby says how much room it has. None: it breaks the protocol.
    pub(crate) fn on_room(&mut self, node: NodeId, step: u64, header: Header) -> Option<()> {
        let room = Room {
            most: header.range.end(),
            stranded: header.flags & FLAG_STRANDED != 0,
            cramped: header.flags & FLAG_CRAMPED != 0,
        };
        if header.range.offset() != 0 {
            return None;
        }
        if let Some(growing) = self.growths.going_on.as_mut().filter(|g| g.step == step)
            && let Stage::Asking(rooms) = &mut growing.stage
        {
            rooms.insert(node, room);
            growing.waiting.remove(node);
        }
        Some(())
    }

    /// The own disk was measured.
    pub(crate) fn on_room_here(&mut self) {
        let (room, own) = (self.room(), self.config.node);
        if let Some(growing) = &mut self.growths.going_on
            && let Stage::Asking(rooms) = &mut growing.stage
        {
            rooms.insert(own, room);
            growing.here = Here::Done;
        }
    }

    /// The own disk's part behind the volume is cleared.
    pub(crate) fn on_cleared_here(&mut self) {
        if let Some(growing) = &mut self.growths.going_on {
            growing.here = Here::Done;
        }
    }

    /// A standby's disk does not take what it is to make zero.
    pub(crate) fn on_unusable(&mut self, node: NodeId, step: u64) {
        let growing = self.growths.going_on.as_ref();
        if growing.is_some_and(|growing| growing.step == step) {
            self.end_growth(Some(Ungrown::Unusable(node)));
        }
    }

    /// What was cleared here up to this step is durable.
    pub(crate) fn on_gain_flushed(&mut self, step: u64) {
        let growing = self.growths.going_on.as_ref().filter(|g| g.step == step);
        let Some(Stage::Noting(upto)) = growing.map(|growing| growing.stage.clone()) else {
            return;
        };
        let ticket = self.note_ready(upto);
        if let Some(growing) = &mut self.growths.going_on {
            growing.here = Here::Sealing(ticket);
        }
    }

    /// Goes on as soon as a step is done everywhere.
    pub(crate) fn advance_growing(&mut self) {
        while let Some(growing) = &self.growths.going_on {
            if let Some(why) = self.growth_fault(growing) {
                return self.end_growth(Some(why));
            }
            let done = match growing.here {
                Here::Busy => false,
                Here::Sealing(ticket) => self.superblock.is_durable(ticket),
                Here::Done => true,
            };
            if !done || self.is_waiting(growing) {
                return;
            }
            let (from, to) = (growing.from, growing.to);
            match growing.stage.clone() {
                Stage::Asking(rooms) => match self.target(growing.wanted, &rooms) {
                    Ok(to) => {
                        if let Some(growing) = &mut self.growths.going_on {
                            growing.to = to;
                        }
                        self.clear_next(from, to);
                    }
                    Err(why) => return self.end_growth(Some(why)),
                },
                Stage::Clearing(upto) if upto < to && !is_due(upto - from) => {
                    self.clear_next(upto, to);
                }
                Stage::Clearing(upto) => self.note_all(from, upto),
                Stage::Noting(upto) if upto < to => self.clear_next(upto, to),
                Stage::Noting(_) => {
                    self.begin_step(Stage::Resizing, Here::Done);
                    self.ask_all(Kind::Resize, 0..to);
                    if mutant::has(Bug::SizeToldEarly) {
                        let data = ByteCount(to);
                        self.report(Report::Grown { data });
                    }
                }
                Stage::Resizing => {
                    let ticket = self.resize(to);
                    self.begin_step(Stage::Sealing, Here::Sealing(ticket));
                    if let Some(growing) = &mut self.growths.going_on {
                        growing.waiting = NodeSet::EMPTY;
                    }
                }
                Stage::Sealing => {
                    let ticket = self.note_settled();
                    self.begin_step(Stage::Settling, Here::Sealing(ticket));
                    self.ask_all(Kind::Settle, 0..to);
                }
                Stage::Settling => return self.end_growth(None),
            }
        }
    }

    /// The size that all have room for, or the one that is wanted.
    fn target(&self, wanted: Option<u64>, rooms: &BTreeMap<NodeId, Room>) -> Result<u64, Ungrown> {
        let now = self.layout.data_bytes;
        let Some((node, least)) = rooms.iter().min_by_key(|(_, room)| room.most) else {
            return Err(Ungrown::Busy);
        };
        let to = wanted.unwrap_or(least.most);
        if to > now && to <= least.most && to.is_multiple_of(BLOCK_BYTES) {
            return Ok(to);
        }
        let node = *node;
        if least.stranded {
            return Err(Ungrown::Stranded(node));
        }
        let most = ByteCount(least.most);
        if least.cramped {
            return Err(Ungrown::Cramped { node, most });
        }
        Err(Ungrown::NoRoom { node, most })
    }

    /// The next part behind the volume, here and everywhere else at the same time.
    fn clear_next(&mut self, from: u64, to: u64) {
        let end = to.min(from.saturating_add(CLEAR_MAX));
        let Some(range) = ByteRange::new(from, end - from) else {
            return;
        };
        self.begin_step(Stage::Clearing(end), Here::Busy);
        self.ask_all(Kind::Clear, from..end);
        if self.clear(range, By::Own) {
            self.on_cleared_here();
        }
    }

    /// What is cleared becomes durable, and is noted.
    fn note_all(&mut self, from: u64, upto: u64) {
        self.begin_step(Stage::Noting(upto), Here::Busy);
        self.ask_all(Kind::Ready, from..upto);
        if mutant::has(Bug::ReadyNotDurable) {
            return self.on_cleared_here();
        }
        let step = self.growths.steps;
        self.start_disk(Purpose::GainFlush(step), DiskOp::Flush);
    }

    /// Why a growth cannot go on.
    fn growth_fault(&self, growing: &Growing) -> Option<Ungrown> {
        if !self.active().is_some_and(|active| active.is_serving()) {
            return Some(Ungrown::Ended);
        }
        if matches!(growing.stage, Stage::Sealing | Stage::Settling) {
            // Everybody else has the new size.
            return None;
        }
        let mut nodes = growing.sessions.keys().copied();
        let lost = nodes.find(|node| !self.takes_part(growing, *node));
        let new = self
            .peers
            .keys()
            .find(|n| !growing.sessions.contains_key(n));
        lost.or_else(|| new.copied()).map(Ungrown::Lost)
    }

    /// True if the session is up in which the node takes part.
    fn takes_part(&self, growing: &Growing, node: NodeId) -> bool {
        let session = self.peers.get(&node).and_then(Peer::session);
        session.map(|session| &session.session) == growing.sessions.get(&node)
    }

    /// True if somebody has not done the present step. One that comes back later finds all of the volume in use.
    fn is_waiting(&self, growing: &Growing) -> bool {
        let mut waiting = growing.waiting.iter();
        waiting.any(|node| self.takes_part(growing, node))
    }

    /// The volume has grown, or has not.
    pub(crate) fn end_growth(&mut self, why: Option<Ungrown>) {
        let Some(growing) = self.growths.going_on.take() else {
            return;
        };
        // Every replica has the new size durably, whatever happens to this one now.
        let why = why.filter(|_| !matches!(growing.stage, Stage::Settling));
        let number = self.growths.made;
        self.growths.last = Some(growing.figures(number, false, why));
        if why.is_some() && matches!(growing.stage, Stage::Resizing) {
            self.take_back(&growing);
        }
        let data = ByteCount(self.layout.data_bytes);
        self.report(match why {
            None => Report::Grown { data },
            Some(why) => Report::NotGrown { data, why },
        });
    }

    /// Not everybody took the new size: those who are there go back to the old one. Nobody wrote behind it.
    fn take_back(&mut self, growing: &Growing) {
        self.growths.steps += 1;
        let step = self.growths.steps;
        for node in growing.sessions.keys() {
            if !self.takes_part(growing, *node) {
                continue;
            }
            if let Some(range) = ByteRange::new(0, growing.from) {
                let header = Header {
                    range,
                    ..self.header(Kind::Resize, 0)
                };
                self.ask_with(*node, header, Payload::None, Await::Growth(step));
            }
        }
    }

    pub(crate) fn growth_figures(&self) -> Option<GrowthFigures> {
        let number = self.growths.made;
        let growing = self.growths.going_on.as_ref();
        growing.map_or(self.growths.last, |growing| {
            Some(growing.figures(number, true, None))
        })
    }
}

/// True after each [`NOTE_EVERY`] bytes that are cleared.
const fn is_due(cleared: u64) -> bool {
    cleared.is_multiple_of(NOTE_EVERY)
}

impl Growing {
    const fn figures(&self, number: u64, running: bool, why: Option<Ungrown>) -> GrowthFigures {
        let cleared = match self.stage {
            Stage::Asking(_) => self.from,
            Stage::Clearing(upto) | Stage::Noting(upto) => upto,
            Stage::Resizing | Stage::Sealing | Stage::Settling => self.to,
        };
        GrowthFigures {
            number,
            running,
            from: ByteCount(self.from),
            to: ByteCount(self.to),
            cleared: ByteCount(cleared - self.from),
            why,
        }
    }
}
