//! The active's side of a session: connecting, greeting, sending, acknowledgements, losing it.

use crate::bitmap::{Bitmap, RUNS_MAX};
use crate::compare::Verdict;
use crate::io::{ConnId, Payload, Side};
use crate::job::Action;
use crate::lag::Sent;
use crate::machine::{JobId, Machine};
use crate::nodes::NodeSet;
use crate::peer::{Await, Awaited, Greeting, Link, Peer};
use crate::role::Role;
use crate::spool::weight;
use std::collections::BTreeMap;
use wire::event::ReplicaLoss;
use wire::mirror_frame::{FLAG_FUA, Header, Hello, Kind, Refuse, decode_payload, encode_payload};
use wire::mutant::{self, Bug};
use wire::units::BLOCK_BYTES;
use wire::{ByteRange, Epoch, NodeId, SessionId, version};

/// What became of an answer's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// Nothing keeps it.
    Done,
    /// Its buffer is in use.
    Kept,
}

impl Machine {
    pub(crate) fn on_connected(&mut self, conn: ConnId, node: NodeId, side: Side) {
        let session = match side {
            Side::Accepted => return self.on_accepted(conn, node),
            Side::Dialed { session } => session,
        };
        let dialing = |link: &Link| matches!(link, Link::Dialing);
        let epoch = self.epoch();
        let hello = self.hello(node);
        let since = self.now;
        match self.peers.get_mut(&node).filter(|p| dialing(&p.link)) {
            Some(peer) => {
                peer.link = Link::Greeting(Greeting {
                    conn,
                    session,
                    since,
                });
                self.send_bytes(conn, Header::bare(Kind::Hello, epoch, session, 0), hello);
            }
            None => self.disconnect(conn),
        }
    }

    pub(crate) fn on_connect_failed(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node)
            && matches!(peer.link, Link::Dialing)
        {
            self.redial_later(node);
        }
    }

    pub(crate) fn on_disconnected(&mut self, conn: ConnId, why: ReplicaLoss) {
        match self.peer_of(conn) {
            Some(node) => self.lose(node, why),
            None => self.on_standby_disconnected(conn, why),
        }
    }

    /// Whose connection it is, while active.
    pub(crate) fn peer_of(&self, conn: ConnId) -> Option<NodeId> {
        let found = self.peers.iter().find(|(_, p)| p.conn() == Some(conn));
        found.map(|(node, _)| *node)
    }

    pub(crate) fn on_frame(&mut self, conn: ConnId, header: Header, payload: Payload) {
        if let Some(node) = self.peer_of(conn) {
            let answer = self.on_answer(node, header, &payload);
            if answer != Some(Taken::Kept) {
                self.release_payload(&payload);
            }
            if answer.is_none() {
                self.lose(node, ReplicaLoss::Protocol);
            }
        } else {
            self.on_standby_frame(conn, header, payload);
        }
    }

    /// A frame from a standby. None: it breaks the protocol.
    fn on_answer(&mut self, node: NodeId, header: Header, payload: &Payload) -> Option<Taken> {
        let done = |taken: Option<()>| taken.map(|()| Taken::Done);
        let (session, greeting) = match &self.peers.get(&node)?.link {
            Link::Greeting(greeting) => (greeting.session, true),
            Link::Up(session) => (session.session, false),
            Link::Down { .. } | Link::Dialing => return None,
        };
        if header.kind == Kind::Goodbye {
            return done(self.on_refused(node, payload));
        }
        // R4: an answer of another session, or by a standby that knows a newer epoch.
        if header.session != session || header.epoch > self.epoch() {
            return None;
        }
        match header.kind {
            Kind::Hello if greeting => done(self.on_hello(node, payload)),
            Kind::Ack if !greeting => done(self.on_ack(node, header.seq)),
            Kind::Differs if !greeting => done(self.on_unequal(node, header.seq, Verdict::Differs)),
            Kind::Unreadable if !greeting => {
                done(self.on_unequal(node, header.seq, Verdict::Unreadable))
            }
            Kind::Data if !greeting => self.on_data(node, header, payload),
            Kind::Room if !greeting => done(self.on_room_told(node, header)),
            Kind::Hello
            | Kind::Ack
            | Kind::Unreadable
            | Kind::Differs
            | Kind::Compare
            | Kind::Write
            | Kind::Zero
            | Kind::Flush
            | Kind::IntentAdd
            | Kind::IntentDrop
            | Kind::ResyncStart
            | Kind::ResyncCommit
            | Kind::Read
            | Kind::Data
            | Kind::Common
            | Kind::CommonDone
            | Kind::Room
            | Kind::Clear
            | Kind::Ready
            | Kind::Resize
            | Kind::Settle
            | Kind::Goodbye => None,
        }
    }

    fn on_refused(&mut self, node: NodeId, payload: &Payload) -> Option<()> {
        let Payload::Bytes(bytes) = payload else {
            return None;
        };
        let greeting = |p: &Peer| matches!(p.link, Link::Greeting(_));
        let why = match decode_payload(bytes).ok()? {
            // It has not heard of the record that names this node: its patience, not its answer, tells when it is lost.
            Refuse::NotActive if self.peers.get(&node).is_some_and(greeting) => {
                self.hang_up(node);
                return Some(());
            }
            Refuse::Closing => ReplicaLoss::Closed,
            Refuse::DiskFailed => ReplicaLoss::DiskFailed,
            Refuse::OldEpoch(_)
            | Refuse::NotActive
            | Refuse::TooSmall { .. }
            | Refuse::ForeignDisk
            | Refuse::Version => ReplicaLoss::Refused,
        };
        self.lose(node, why);
        Some(())
    }

    fn on_hello(&mut self, node: NodeId, payload: &Payload) -> Option<()> {
        let Payload::Bytes(bytes) = payload else {
            return None;
        };
        let hello: Hello = decode_payload(bytes).ok()?;
        let ours = self.superblock.get();
        let known = hello.version <= version::MIRROR && hello.features.understood();
        let same = hello.mirror.is_none() || hello.mirror == ours.mirror;
        let fits = hello.data_bytes == self.layout.data_bytes && hello.node == node;
        let bounded = hello.dirty.len() <= RUNS_MAX
            && u64::try_from(hello.intent.len()).is_ok_and(|n| n <= self.layout.regions());
        if !(known && same && fits && bounded) {
            return None;
        }
        let Link::Greeting(greeting) = self.peers.get(&node)?.link else {
            return None;
        };
        self.begin_session(node, greeting, &hello);
        Some(())
    }

    fn on_ack(&mut self, node: NodeId, seq: u64) -> Option<()> {
        match self.answered(node, seq)? {
            Await::Write(job) => {
                if let Some(app) = self.jobs.get_mut(&job).and_then(|j| j.app_mut()) {
                    app.acked.insert(node);
                }
                self.note_answered(node, Sent::Write(job));
                self.settle_write(job);
            }
            Await::Barrier(job) => self.note_answered(node, Sent::Barrier(job)),
            Await::Flush(flush) => {
                self.note_answered(node, Sent::Flush(flush));
                self.on_flush_acked(node, flush);
            }
            Await::Point(point) => {
                if let Some(plane) = self.plane_mut(node) {
                    plane.commit_point(point);
                }
            }
            Await::Common(name) => self.on_common_acked(node, name),
            Await::ResyncStart => self.on_start_acked(node),
            Await::Chunk => self.on_chunk_acked(node),
            Await::Compare(job) => self.on_verdict(node, job, Verdict::Equal),
            Await::Content(_) => return None,
            Await::Growth(step) => self.on_growth_acked(node, step),
            Await::Commit(point) => self.on_commit_acked(node, point),
        }
        Some(())
    }

    /// The peer's content is another one, or it has none to compare or to give.
    fn on_unequal(&mut self, node: NodeId, seq: u64, verdict: Verdict) -> Option<()> {
        match self.answered(node, seq)? {
            Await::Compare(job) => self.on_verdict(node, job, verdict),
            Await::Content(job) if verdict == Verdict::Unreadable => self.mend_failed(job),
            Await::Growth(step) if verdict == Verdict::Unreadable => self.on_unusable(node, step),
            Await::Content(_)
            | Await::Write(_)
            | Await::Barrier(_)
            | Await::Flush(_)
            | Await::Point(_)
            | Await::ResyncStart
            | Await::Chunk
            | Await::Common(_)
            | Await::Growth(_)
            | Await::Commit(_) => return None,
        }
        Some(())
    }

    /// The peer says how much room it has.
    fn on_room_told(&mut self, node: NodeId, header: Header) -> Option<()> {
        let Await::Growth(step) = self.answered(node, header.seq)? else {
            return None;
        };
        self.on_room(node, step, header)
    }

    /// The peer sent the content of a place that cannot be read here.
    fn on_data(&mut self, node: NodeId, header: Header, payload: &Payload) -> Option<Taken> {
        let Await::Content(job) = self.answered(node, header.seq)? else {
            return None;
        };
        let Payload::Buf(buf) = payload else {
            return None;
        };
        let asked = self.asking(job).map(|(range, _, _)| range);
        if asked.is_some_and(|range| range != header.range) {
            return None;
        }
        let kept = self.on_content(job, *buf);
        Some(if kept { Taken::Kept } else { Taken::Done })
    }

    /// What was awaited under this number, if it was sent at all.
    fn answered(&mut self, node: NodeId, seq: u64) -> Option<Await> {
        let (now, asynchronous) = (self.now, self.apart.contains(node));
        let session = self.peers.get_mut(&node)?.session_mut()?;
        if asynchronous && seq > session.outbox.sent_seq {
            return None;
        }
        let awaited = session.awaiting.remove(&seq)?;
        session.progress = now;
        session.outbox.answered(awaited.weight);
        Some(awaited.what)
    }

    /// What this replica says of itself first, to a node.
    pub(crate) fn hello(&self, to: NodeId) -> Vec<u8> {
        let own = self.superblock.get();
        let (intent, dirty) = if own.mirror.is_some() || own.seed.is_some() {
            let dirty = self.plane(to).map(Bitmap::region_runs);
            (self.intent.regions().collect(), dirty.unwrap_or_default())
        } else {
            (Vec::new(), Vec::new())
        };
        let (baseline, offered) = self.baselines(to);
        encode_payload(&Hello {
            version: version::MIRROR,
            features: version::Features {
                compatible: version::GROWS,
                ..version::Features::OURS
            },
            node: self.config.node,
            mirror: own.mirror,
            generation: own.generation,
            baseline,
            offered,
            data_bytes: own.data_bytes,
            consistent: own.state == wire::layout::ReplicaState::Consistent,
            intent,
            dirty,
            volatile_kept: self.volatile_kept,
        })
    }

    /// The epoch that frames of the active carry.
    pub(crate) fn epoch(&self) -> Epoch {
        self.active().map_or(self.floor, |a| a.epoch)
    }

    pub(crate) fn send_bytes(&mut self, conn: ConnId, header: Header, bytes: Vec<u8>) {
        let Ok(payload_len) = u32::try_from(bytes.len()) else {
            return self.disconnect(conn);
        };
        let header = Header {
            payload_len,
            ..header
        };
        self.send(conn, header, Payload::Bytes(bytes));
    }

    /// True if `conn` is the peer's session, and it is up.
    pub(crate) fn is_session(&self, node: NodeId, conn: ConnId) -> bool {
        let session = self.peers.get(&node).and_then(|p| p.session());
        session.is_some_and(|s| s.conn == conn)
    }

    /// Sends a request without payload and awaits its answer.
    pub(crate) fn ask(&mut self, node: NodeId, kind: Kind, flags: u8, what: Await) {
        let header = self.header(kind, flags);
        self.ask_with(node, header, Payload::None, what);
    }

    pub(crate) fn header(&self, kind: Kind, flags: u8) -> Header {
        Header {
            flags,
            ..Header::bare(kind, self.epoch(), SessionId(0), 0)
        }
    }

    /// Sends a request and awaits its answer; session and number are filled in.
    pub(crate) fn ask_with(&mut self, node: NodeId, header: Header, payload: Payload, what: Await) {
        let since = self.now;
        let Some(session) = self.peers.get_mut(&node).and_then(|p| p.session_mut()) else {
            return;
        };
        let seq = session.next_seq;
        session.next_seq += 1;
        let weight = weight(&header);
        session.awaiting.insert(
            seq,
            Awaited {
                since,
                weight,
                what,
            },
        );
        let conn = session.conn;
        let header = Header {
            seq,
            session: session.session,
            ..header
        };
        if self.apart.contains(node) {
            self.enqueue(node, header, payload);
        } else {
            self.send(conn, header, payload);
        }
    }

    /// A write starts: it goes to every peer with a session, and is marked unless all peers are required.
    pub(crate) fn replicate(&mut self, id: JobId) {
        let Some(active) = self.active() else {
            return;
        };
        let required = active.required;
        let Some(job) = self.jobs.get(&id).filter(|j| j.app().is_some()) else {
            return;
        };
        let (range, fua) = (job.range, job.fua);
        let bytes = range.len();
        let (kind, payload, payload_len) = match (job.action, job.buf) {
            (Action::Write, Some(buf)) => {
                let len = u32::try_from(bytes).unwrap_or(0);
                (Kind::Write, Payload::Buf(buf), len)
            }
            (Action::Write | Action::Zero | Action::Fetch, _) => (Kind::Zero, Payload::None, 0),
        };
        self.mark_against(self.paired().without(required), &blocks_of(range));
        let header = Header {
            range,
            payload_len,
            ..self.header(kind, 0)
        };
        let nodes: NodeSet = self.peers.keys().copied().collect();
        for node in nodes.iter() {
            let Some(session) = self.peers.get_mut(&node).and_then(|p| p.session_mut()) else {
                continue;
            };
            session.point_bytes += bytes;
            if self.leave_to_copy(node, range) {
                continue;
            }
            // An asynchronous follower gets a flush of its own behind such a write.
            let durable = fua && !self.apart.contains(node);
            let flags = if durable && !mutant::has(Bug::FuaDropped) {
                FLAG_FUA
            } else {
                0
            };
            let header = Header { flags, ..header };
            self.ask_with(node, header, payload.clone(), Await::Write(id));
            self.note_sent(node, id, bytes, fua);
            if let Some(app) = self.jobs.get_mut(&id).and_then(|j| j.app_mut()) {
                app.sent.insert(node);
            }
        }
    }

    pub(crate) fn announce_hot(&mut self, regions: &[u32]) {
        self.announce(Kind::IntentAdd, regions.iter().copied());
    }

    /// Standbys learn who has the regions: against others they must remember them.
    pub(crate) fn announce_cold(&mut self, regions: &[u32]) {
        let mut by_holders: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for region in regions {
            let holders = self.holders(*region).to_bits();
            by_holders.entry(holders).or_default().push(*region);
        }
        for (holders, regions) in by_holders {
            let words = std::iter::once(holders).chain(regions);
            self.announce(Kind::IntentDrop, words);
        }
    }

    fn announce(&mut self, kind: Kind, words: impl Iterator<Item = u32>) {
        let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
        if bytes.is_empty() {
            return;
        }
        let header = self.header(kind, 0);
        let to: Vec<(ConnId, SessionId)> = self
            .peers
            .values()
            .filter_map(|p| p.session())
            .map(|s| (s.conn, s.session))
            .collect();
        for (conn, session) in to {
            let header = Header { session, ..header };
            self.send_bytes(conn, header, bytes.clone());
        }
    }

    /// Sends what was read for a resync.
    pub(crate) fn send_chunk(
        &mut self,
        node: NodeId,
        conn: ConnId,
        range: ByteRange,
        buf: Option<crate::io::BufId>,
    ) {
        let (true, Some(buf)) = (self.is_session(node, conn), buf) else {
            return;
        };
        let header = Header {
            range,
            payload_len: u32::try_from(range.len()).unwrap_or(0),
            ..self.header(Kind::Write, wire::mirror_frame::FLAG_RESYNC)
        };
        self.resync_sent += range.len();
        if let Some(copying) = self.peers.get_mut(&node).and_then(|p| p.copying_mut()) {
            copying.sent_bytes += range.len();
        }
        self.ask_with(node, header, Payload::Buf(buf), Await::Chunk);
    }

    /// True while this node may have sessions of its own.
    pub(crate) const fn is_active(&self) -> bool {
        matches!(self.role, Role::Active(_))
    }
}

/// The blocks that a range touches.
fn blocks_of(range: ByteRange) -> std::ops::Range<u64> {
    if mutant::has(Bug::PartialBlocksUnmarked) {
        return range.offset().div_ceil(BLOCK_BYTES)..range.end() / BLOCK_BYTES;
    }
    range.cells(BLOCK_BYTES)
}
