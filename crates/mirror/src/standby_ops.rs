//! A standby's session: the active's writes, flushes, intents, and the ends of a resync.
//!
//! Everything from the wire is checked here: kind, epoch, session, range. What breaks the protocol ends the session.

use crate::disk::Purpose;
use crate::io::{BufId, ConnId, DiskOp, Payload};
use crate::job::{Action, Origin};
use crate::machine::{JobId, Machine};
use crate::nodes::NodeSet;
use crate::superblock::Ticket;
use wire::SessionId;
use wire::event::ReplicaLoss;
use wire::layout::ReplicaState;
use wire::mirror_frame::{
    FLAG_FUA, FLAG_ORDERED, FLAG_OUTSIDE, FLAG_RESYNC, Header, Kind, PAYLOAD_MAX,
};
use wire::mutant::{self, Bug, Mutant};

/// Most frames of a session that are not done; an active that sends more breaks the protocol. Far more than the front end and
/// the bound of an asynchronous mirror let it send.
const FRAMES_MAX: usize = 262_144;

/// A request that is done after every earlier write of the session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerOp {
    /// Its place among the writes.
    id: JobId,
    seq: u64,
    act: Act,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Flush {
        /// Nothing behind it is applied before it is done: an asynchronous standby stays a prefix.
        ordered: bool,
    },
    ResyncStart {
        /// This replica is in no set.
        outside: bool,
    },
    ResyncCommit,
    /// The other standbys may count from here.
    Common(SessionId),
    /// What was cleared behind the volume up to here is noted.
    Ready(u64),
    /// The volume has this size.
    Resize(u64),
    /// All of it may be written to.
    Settle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Earlier writes are not done.
    Waiting,
    Flushing,
    /// The undo log has not begun.
    Beginning,
    /// Marks against other replicas are not durable.
    Marking,
    /// The superblock is not durable.
    Sealing(Ticket),
}

impl PeerOp {
    /// True if nothing behind it may be applied before it is done.
    fn is_ordered(&self) -> bool {
        match self.act {
            Act::Flush { ordered } => ordered,
            // What comes behind it makes a mixture.
            Act::ResyncStart { .. } => !mutant::has(Bug::StartUnordered),
            Act::ResyncCommit | Act::Common(_) | Act::Ready(_) | Act::Resize(_) | Act::Settle => {
                false
            }
        }
    }
}

/// What was acknowledged because it was sent is durable only if a flush waits for it here.
fn overtakes(act: Act) -> bool {
    matches!(act, Act::Flush { .. }) && mutant::on(Mutant::FlushOvertakes)
}

impl Machine {
    /// A frame of the session that is up.
    pub(crate) fn on_session_frame(&mut self, header: Header, payload: Payload) {
        let Some(following) = self.following_mut() else {
            return self.release_payload(&payload);
        };
        let older = header.session != following.session || header.epoch < following.epoch;
        if older && !mutant::on(Mutant::OldSessionAccepted) {
            self.release_payload(&payload);
            return self.lose_active(ReplicaLoss::Protocol);
        }
        let open = following.jobs.len() + following.ops.len() + following.backlog.len();
        if open > FRAMES_MAX {
            self.release_payload(&payload);
            return self.lose_active(ReplicaLoss::Protocol);
        }
        // What waits goes first, whatever it waits for.
        let waits = following.ops.iter().any(PeerOp::is_ordered);
        let waits = waits && !mutant::has(Bug::OrderedFlushIgnored);
        if !following.backlog.is_empty() || waits {
            following.backlog.push_back((header, payload));
            return;
        }
        self.apply(header, payload);
    }

    fn apply(&mut self, header: Header, payload: Payload) {
        self.raise_epoch(header);
        let taken = match (header.kind, &payload) {
            (Kind::Write, Payload::Buf(_)) | (Kind::Zero, Payload::None) => {
                self.on_peer_write(header, &payload)
            }
            (Kind::Flush, Payload::None) => {
                let ordered = header.flags & FLAG_ORDERED != 0;
                self.on_peer_op(header, Act::Flush { ordered })
            }
            (Kind::ResyncStart, Payload::None) => {
                let outside = header.flags & FLAG_OUTSIDE != 0;
                self.on_peer_op(header, Act::ResyncStart { outside })
            }
            (Kind::ResyncCommit, Payload::None) => self.on_peer_op(header, Act::ResyncCommit),
            (Kind::Compare, Payload::Bytes(bytes)) => self.on_peer_compare(header, bytes),
            (Kind::Read, Payload::None) => self.on_peer_read(header),
            (Kind::Room, Payload::None) => self.on_peer_room(header),
            (Kind::Clear, Payload::None) => self.on_peer_clear(header),
            (Kind::Ready, Payload::None) if self.is_cleared_to(header.range.end()) => {
                self.on_peer_op(header, Act::Ready(header.range.end()))
            }
            (Kind::Resize, Payload::None) if self.may_resize_to(header.range) => {
                self.on_peer_op(header, Act::Resize(header.range.end()))
            }
            (Kind::Settle, Payload::None) => self.on_peer_op(header, Act::Settle),
            (Kind::IntentAdd, Payload::Bytes(bytes)) => self.on_intents(bytes, true),
            (Kind::IntentDrop, Payload::Bytes(bytes)) => self.on_intents(bytes, false),
            (Kind::Common, Payload::Bytes(bytes)) => self.on_common(header, bytes),
            (Kind::CommonDone, Payload::Bytes(bytes)) => self.on_common_done(bytes),
            (Kind::Goodbye, _) => {
                self.release_payload(&payload);
                return self.lose_active(ReplicaLoss::Closed);
            }
            _ => None,
        };
        if taken.is_none() {
            self.release_payload(&payload);
            self.lose_active(ReplicaLoss::Protocol);
        }
    }

    /// The sets changed under the session: from here on older frames are refused.
    fn raise_epoch(&mut self, header: Header) {
        self.floor = self.floor.max(header.epoch);
        if let Some(following) = self.following_mut() {
            following.epoch = header.epoch;
        }
        // Not waited for: the same active writes under both epochs, and the register guards a later start.
        if self.superblock.get().epoch < header.epoch {
            self.superblock.change(|s| s.epoch = header.epoch);
        }
    }

    /// None: the frame breaks the protocol. The buffer is taken over only with Some.
    fn on_peer_write(&mut self, header: Header, payload: &Payload) -> Option<()> {
        let range = header.range;
        if !self.is_inside(range) || range.len() > u64::from(PAYLOAD_MAX) {
            return None;
        }
        let (action, buf) = match payload {
            Payload::Buf(buf) if u64::from(header.payload_len) == range.len() => {
                (Action::Write, Some(*buf))
            }
            Payload::None => (Action::Zero, None),
            Payload::Buf(_) | Payload::Bytes(_) => return None,
        };
        let following = self.following()?;
        // A mixture is not promoted before its commit. A replica that stays consistent may be, with the chunk in its cache: then
        // only its own log can tell, after a loss of power, that the other replica may hold something else.
        let mixture = self.superblock.get().state != ReplicaState::Consistent;
        let origin = Origin::Peer {
            conn: following.conn,
            seq: header.seq,
            resync: header.flags & FLAG_RESYNC != 0 && mixture,
        };
        if header.flags & FLAG_RESYNC != 0 && mixture {
            self.mark_chunk(range);
        }
        let fua = header.flags & FLAG_FUA != 0;
        if mutant::has(Bug::ZeroNotApplied) && action == Action::Zero {
            self.acknowledge(self.following()?.conn, header.seq, None);
            return Some(());
        }
        // Named before it starts, because it may start at once.
        let id = JobId(self.jobs_made + 1);
        self.following_mut()?.jobs.insert(id);
        self.submit(range, action, fua, buf, origin);
        Some(())
    }

    pub(crate) fn on_peer_op(&mut self, header: Header, act: Act) -> Option<()> {
        let id = self.next_job();
        let op = PeerOp {
            id,
            seq: header.seq,
            act,
            step: Step::Waiting,
        };
        self.following_mut()?.ops.push_back(op);
        Some(())
    }

    /// Regions that the active made hot (a hint ahead of the writes), or that are durable everywhere.
    fn on_intents(&mut self, bytes: &[u8], hot: bool) -> Option<()> {
        let mut words = bytes
            .chunks_exact(4)
            .map(|word| word.try_into().map(u32::from_le_bytes));
        let holders = if hot {
            NodeSet::EMPTY
        } else {
            NodeSet::from_bits(words.next()?.ok()?)
        };
        for region in words {
            let region = region.ok()?;
            if u64::from(region) >= self.layout.regions() {
                return None;
            }
            if hot && self.intent.has_room(&(region..region + 1)) {
                self.intent.touch(region);
            } else if !hot {
                self.let_leave(region, holders);
            }
        }
        Some(())
    }

    /// Answers a request of the active, if its session is still up.
    pub(crate) fn acknowledge(&mut self, conn: ConnId, seq: u64, job: Option<JobId>) {
        let header = Header::bare(Kind::Ack, self.floor, SessionId(0), seq);
        self.answer(conn, header, None, job);
    }

    /// Answers a request of the active, if its session is still up; epoch and session are filled in.
    pub(crate) fn answer(
        &mut self,
        conn: ConnId,
        header: Header,
        content: Option<BufId>,
        job: Option<JobId>,
    ) {
        let Some(following) = self.following_mut().filter(|f| f.conn == conn) else {
            return;
        };
        if let Some(job) = job {
            following.jobs.remove(&job);
        }
        let header = Header {
            epoch: following.epoch,
            session: following.session,
            ..header
        };
        self.send(conn, header, content.map_or(Payload::None, Payload::Buf));
    }

    /// Moves the session's ordered requests on, the first one first.
    pub(crate) fn advance_ops(&mut self) {
        while let Some(following) = self.following() {
            let Some(op) = following.ops.front().copied() else {
                if self.apply_backlog() {
                    continue;
                }
                return;
            };
            let earlier = following.jobs.first().is_some_and(|id| *id < op.id)
                && !mutant::has(Bug::FlushOvertakes);
            match (op.step, op.act) {
                (Step::Waiting, act) if earlier && !overtakes(act) => return,
                (
                    Step::Waiting,
                    Act::Flush { .. } | Act::ResyncCommit | Act::Common(_) | Act::Ready(_),
                ) => {
                    self.set_step(Step::Flushing);
                    if mutant::has(Bug::CommitUnflushed) && op.act == Act::ResyncCommit {
                        return self.on_peer_flush_done(op.id);
                    }
                    self.start_disk(Purpose::PeerFlush(op.id), DiskOp::Flush);
                    return;
                }
                (Step::Waiting, Act::ResyncStart { outside }) => {
                    if self.wants_way_back(outside) {
                        self.set_step(Step::Flushing);
                        self.start_disk(Purpose::PeerFlush(op.id), DiskOp::Flush);
                        return;
                    }
                    self.skip_way_back();
                    self.become_mixture();
                }
                (Step::Beginning, _) => {
                    if self.is_beginning() {
                        return;
                    }
                    self.become_mixture();
                }
                (Step::Waiting, Act::Resize(data_bytes)) => {
                    let ticket = self.resize(data_bytes);
                    self.set_step(Step::Sealing(ticket));
                }
                (Step::Waiting, Act::Settle) => {
                    let ticket = self.note_settled();
                    self.set_step(Step::Sealing(ticket));
                }
                (Step::Flushing, _) => return,
                (Step::Marking, _) => {
                    if !self.is_settled_against(self.third()) {
                        return;
                    }
                    self.commit_here();
                }
                (Step::Sealing(ticket), _) => {
                    if !self.superblock.is_durable(ticket) {
                        return;
                    }
                    self.end_op();
                    self.report_following();
                }
            }
        }
    }

    /// The superblock says from here on that the data is a mixture, and whose.
    fn become_mixture(&mut self) {
        let active = self.active_followed();
        let mirror = self.following().map(|following| following.mirror);
        let way_back = self.way_back();
        let ticket = self.superblock.change(|s| {
            let mixture = s.state == ReplicaState::Inconsistent;
            // A mixture of another's data: everything is compared, until the commit, however many sessions it takes.
            if mixture && s.source != active {
                let pair = active.and_then(|active| s.pair_mut(active));
                if let Some(pair) = pair {
                    (pair.baseline, pair.offered) = (None, None);
                }
            }
            // A blank replica stays blank until it holds everything. One of zeros was a state of its own.
            if s.state == ReplicaState::Consistent && !mutant::on(Mutant::ResyncConsistentEarly) {
                s.state = ReplicaState::Inconsistent;
                s.undo = way_back;
            }
            if s.seed.is_some() && !mutant::has(Bug::SeedOutlivesChunks) {
                s.seed = None;
                s.mirror = mirror;
                s.state = ReplicaState::Inconsistent;
            }
            if s.state == ReplicaState::Inconsistent {
                s.source = active;
            }
        });
        self.set_step(Step::Sealing(ticket));
    }

    pub(crate) fn set_step(&mut self, step: Step) {
        if let Some(op) = self.following_mut().and_then(|f| f.ops.front_mut()) {
            op.step = step;
        }
    }

    /// Answers the first ordered request.
    fn end_op(&mut self) {
        let Some(following) = self.following_mut() else {
            return;
        };
        let conn = following.conn;
        if let Some(op) = following.ops.pop_front() {
            self.acknowledge(conn, op.seq, None);
        }
    }

    /// A flush of the session is done; late ones of earlier sessions mean nothing.
    pub(crate) fn on_peer_flush_done(&mut self, id: JobId) {
        let Some(following) = self.following() else {
            return;
        };
        let front = following.ops.front().copied();
        let Some(op) = front.filter(|op| op.id == id && op.step == Step::Flushing) else {
            return;
        };
        match op.act {
            Act::ResyncCommit => {
                self.mark_stale();
                self.set_step(Step::Marking);
            }
            Act::Common(name) => {
                let ticket = self.note_common(name);
                self.set_step(Step::Sealing(ticket));
            }
            Act::ResyncStart { .. } => {
                self.begin_way_back();
                self.set_step(Step::Beginning);
            }
            Act::Ready(upto) => {
                let ticket = self.note_ready(upto);
                self.set_step(Step::Sealing(ticket));
            }
            Act::Flush { .. } | Act::Resize(_) | Act::Settle => return self.end_op(),
        }
        self.advance_ops();
    }

    /// Everything that differed before the session is equal and durable, and what was changed for it is marked against others.
    fn commit_here(&mut self) {
        let Some(following) = self.following() else {
            return;
        };
        let (mirror, session) = (following.mirror, following.session);
        let active = self.active_followed();
        // Whole regions were written in this life for it.
        self.intent.all_renewed();
        if let Some(plane) = active.and_then(|node| self.plane_mut(node)) {
            plane.clear();
            plane.settle();
        }
        self.intent.drop_stale();
        let ticket = self.superblock.change(|s| {
            s.mirror = Some(mirror);
            if let Some(pair) = active.and_then(|node| s.pair_mut(node)) {
                pair.baseline = Some(session);
                pair.offered = None;
            }
            s.led = false;
            s.state = ReplicaState::Consistent;
            s.source = None;
            s.seed = None;
            if !mutant::has(Bug::UndoOutlivesCommit) {
                s.undo = None;
            }
        });
        self.leave_way_back(ticket);
        self.set_step(Step::Sealing(ticket));
    }

    /// Frames that waited behind an ordered flush, up to the next one; false if there is none.
    fn apply_backlog(&mut self) -> bool {
        let mut applied = false;
        while let Some(following) = self.following_mut() {
            if following.ops.iter().any(PeerOp::is_ordered) {
                return applied;
            }
            let Some((header, payload)) = following.backlog.pop_front() else {
                return applied;
            };
            self.apply(header, payload);
            applied = true;
        }
        false
    }
}
