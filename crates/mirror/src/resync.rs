//! Making a peer equal: from its Hello to the moment its acknowledgements count.
//!
//! What may differ is known by four: the own bitmap and intent log, and the peer's. Chunks of it are read under the range
//! lock, so a newer write is either in the chunk or sent after it. The bitmap stays as it is until the peer has
//! committed (R10); a session that dies in between starts again from there.
//!
//! A *required* peer that comes back (R10), or that is found by a restarted active (R9), lacks nothing but what was never
//! acknowledged: it stays consistent while it is brought up to date. Any other marks itself inconsistent first.

use crate::bitmap::{BLOCKS_PER_REGION, Bitmap, region_blocks};
use crate::bits::Bits;
use crate::config::Compare;
use crate::control::Report;
use crate::job::{Action, Origin};
use crate::machine::Machine;
use crate::peer::{Await, Copying, Greeting, Link, Peer, Phase, Session, Start};
use std::collections::{BTreeSet, VecDeque};
use wire::event::ReplicaLoss;
use wire::mirror_frame::{FLAG_OUTSIDE, Hello, Kind};
use wire::mutant::{self, Bug, Mutant};
use wire::units::BLOCK_BYTES;
use wire::{ByteCount, ByteRange, Duration, NodeId, SessionId, version};

/// Pause before blocks that cannot be read are tried again.
const STUCK_PAUSE: Duration = Duration::from_millis(1_000);

impl Machine {
    /// The peer said who it is: finds out what may differ, and begins to copy.
    pub(crate) fn begin_session(&mut self, node: NodeId, greeting: Greeting, hello: &Hello) {
        if self.active().is_some_and(|a| !a.dials_to(node)) {
            // It may be promoted, so it must not be made a mixture: out of the set first (R11).
            return self.lose(node, ReplicaLoss::Closed);
        }
        let required = self.required().contains(node);
        let known = self.shares_baseline(node, hello);
        let (todo, theirs) = self.differences(node, hello, known);
        let equal = todo.is_clear() && hello.consistent && hello.mirror.is_some()
            || required && mutant::on(Mutant::ReconnectCountsAtOnce);
        let member = required && known && hello.mirror.is_some();
        let lacks = !member || self.peers.get(&node).is_none_or(|peer| peer.lacks);
        let start = lacks && !todo.is_clear();
        if mutant::on(Mutant::BitsClearedEarly)
            && let Some(plane) = self.plane_mut(node)
        {
            plane.clear();
        }
        let session = Session {
            conn: greeting.conn,
            session: greeting.session,
            generation: hello.generation,
            grows: hello.features.compatible & version::GROWS != 0,
            phase: Phase::Copying(Copying {
                cursor: 0,
                chunks: 0,
                compare: self.compares(hello, known),
                start: if start { Start::Awaited } else { Start::Done },
                sent_bytes: 0,
                careful: VecDeque::new(),
                stuck: VecDeque::new(),
                told: BTreeSet::new(),
                retry_at: self.now,
                todo,
            }),
            next_seq: 1,
            awaiting: std::collections::BTreeMap::new(),
            progress: self.now,
            outbox: self.outbox(node),
            full: false,
            point_bytes: 0,
            point_at: self.now + self.config.point_interval,
        };
        let dirty = session_dirty(&session);
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        peer.link = Link::Up(Box::new(session));
        peer.lost &= required;
        if equal {
            return self.go_live(node, 0);
        }
        if start {
            // Whoever counts may be promoted by rule: it gets no way back.
            let inside = self.required().or(self.eligible()).contains(node);
            let flags = if inside { 0 } else { FLAG_OUTSIDE };
            self.ask(node, Kind::ResyncStart, flags, Await::ResyncStart);
        }
        if !required {
            self.report(Report::ResyncStarted {
                node,
                dirty,
                discarded: ByteCount(theirs * BLOCK_BYTES),
            });
        }
    }

    /// True if the peer's bitmap and this one count from the same moment. If not, one of the disks is an older state of itself
    /// (or never held this mirror's data), and everything may differ (R14).
    fn shares_baseline(&mut self, node: NodeId, hello: &Hello) -> bool {
        let (mine, offered) = self.baselines(node);
        let same = |ours: Option<SessionId>, theirs| ours.is_some() && ours == theirs;
        if same(offered, hello.baseline) {
            self.superblock.change(|s| {
                if let Some(pair) = s.pair_mut(node) {
                    pair.baseline = offered;
                }
            });
        }
        let agreed = [mine, offered]
            .iter()
            .any(|ours| same(*ours, hello.baseline) || same(*ours, hello.offered));
        // A blank one knows a baseline only if it was made of zeros for it.
        agreed || hello.mirror.is_some() && mutant::on(Mutant::BaselineIgnored)
    }

    /// Blocks that may differ, and how many of them by the peer's own account.
    fn differences(&self, node: NodeId, hello: &Hello, known: bool) -> (Bits, u64) {
        let mut theirs = Bits::new(self.layout.blocks());
        for region in &hello.intent {
            theirs.set(region_blocks(*region));
        }
        for (first, count) in &hello.dirty {
            let end = u64::from(*first) + u64::from(*count);
            theirs.set(region_blocks(*first).start..end * BLOCKS_PER_REGION);
        }
        let mut todo = theirs.clone();
        todo.union(&self.marked(node));
        for region in self.intent.regions() {
            todo.set(region_blocks(region));
        }
        if !known || mutant::has(Bug::AlwaysFullResync) {
            todo.set_all();
        }
        (todo, theirs.ones())
    }

    /// Which chunks are compared first: with a blank peer there is nothing to compare.
    const fn compares(&self, hello: &Hello, known: bool) -> Compare {
        match (hello.mirror, self.config.compare) {
            (None, _) | (_, Compare::Never) => Compare::Never,
            (Some(_), Compare::Doubtful) if known => Compare::Doubtful,
            (Some(_), Compare::Doubtful | Compare::Always) => Compare::Always,
        }
    }

    pub(crate) fn on_start_acked(&mut self, node: NodeId) {
        if let Some(copying) = self.peers.get_mut(&node).and_then(|p| p.copying_mut()) {
            copying.start = Start::Done;
        }
    }

    pub(crate) fn on_chunk_acked(&mut self, node: NodeId) {
        if let Some(copying) = self.peers.get_mut(&node).and_then(|p| p.copying_mut()) {
            copying.chunks = copying.chunks.saturating_sub(1);
        }
    }

    /// A chunk cannot be read here: its blocks are tried one by one, and a single bad one later again. A required peer has
    /// everything that was acknowledged, so it may give its own content for it.
    pub(crate) fn chunk_unreadable(&mut self, node: NodeId, range: ByteRange) {
        // It may be one peer's word of what was never acknowledged: nobody else must have been told another one.
        let alone = |(other, peer): (&NodeId, &Peer)| *other == node || peer.session().is_none();
        let required = self.required().contains(node) && self.peers.iter().all(alone);
        let retry_at = self.now + STUCK_PAUSE;
        let Some(copying) = self.peers.get_mut(&node).and_then(|p| p.copying_mut()) else {
            return;
        };
        copying.chunks = copying.chunks.saturating_sub(1);
        let blocks = range.cells(BLOCK_BYTES);
        if blocks.end - blocks.start > 1 {
            return copying.careful.extend(blocks);
        }
        copying.stuck.push_back(blocks.start);
        copying.retry_at = retry_at;
        let first = copying.told.insert(blocks.start);
        if required {
            self.mend_from(node, range);
        } else if first {
            self.report_unreadable(range, false);
        }
    }

    /// Bad blocks are tried again from time to time: a write of the front end makes them good.
    fn retry_stuck(&mut self, node: NodeId) {
        let now = self.now;
        let copying = self.peers.get_mut(&node).and_then(|p| p.copying_mut());
        if let Some(copying) = copying.filter(|c| c.is_stuck() && c.retry_at <= now) {
            copying.careful.append(&mut copying.stuck);
        }
    }

    /// Keeps every resync going: chunks up to the limit, then the commit.
    pub(crate) fn pump_resyncs(&mut self) {
        let copying = self.peers.iter().filter(|(_, p)| p.todo().is_some());
        let nodes: Vec<NodeId> = copying.map(|(node, _)| *node).collect();
        if !nodes.is_empty() {
            self.pace.look(self.now, self.chunks_under_way());
        }
        for node in nodes {
            self.retry_stuck(node);
            while self.next_chunk(node) {}
            let copying = self.peers.get_mut(&node).and_then(|p| p.copying_mut());
            if let Some(copying) = copying.filter(|copying| copying.is_done()) {
                let sent_bytes = copying.sent_bytes;
                self.commit(node, sent_bytes);
            }
        }
        self.pump_commits();
    }

    fn chunks_under_way(&self) -> usize {
        let copying = self.peers.values().filter_map(Peer::copying);
        copying.map(|copying| copying.chunks).sum()
    }

    /// Starts the next chunk; false if there is none, or too many are under way.
    fn next_chunk(&mut self, node: NodeId) -> bool {
        let (max, blocks) = (self.pace.window(), self.pace.chunk_blocks());
        let Some(peer) = self.peers.get_mut(&node) else {
            return false;
        };
        let Some(conn) = peer.conn() else {
            return false;
        };
        let Some(copying) = peer.copying_mut() else {
            return false;
        };
        if copying.start == Start::Awaited || copying.chunks >= max {
            return false;
        }
        let Some(run) = copying.next_run(blocks) else {
            return false;
        };
        let len = (run.end - run.start) * BLOCK_BYTES;
        let Some(range) = ByteRange::new(run.start * BLOCK_BYTES, len) else {
            return false;
        };
        copying.chunks += 1;
        let compare = copying.compare;
        let doubtful = self.plane(node).is_some_and(|plane| plane.is_doubtful(run));
        let compare = match compare {
            Compare::Never => false,
            Compare::Always => true,
            Compare::Doubtful => doubtful,
        };
        let origin = Origin::Resync {
            node,
            conn,
            compare,
        };
        self.submit(range, Action::Fetch, false, None, origin);
        true
    }

    /// Everything that the peer lacked is sent: it makes it durable, and is consistent from then on. This session is its baseline
    /// then, which must be known here before.
    pub(crate) fn commit(&mut self, node: NodeId, sent_bytes: u64) {
        if let Some(session) = self.peers.get_mut(&node).and_then(|p| p.session_mut()) {
            let name = Some(session.session);
            session.phase = Phase::Naming { sent_bytes };
            self.superblock.change(|s| {
                if let Some(pair) = s.pair_mut(node).filter(|pair| pair.baseline != name) {
                    pair.offered = name;
                }
            });
            self.pump_commits();
        }
    }

    /// Asks for the commits whose name is durable here.
    fn pump_commits(&mut self) {
        if !self.superblock.is_settled() {
            return;
        }
        for node in self.naming() {
            let Some(point) = self.plane_mut(node).map(Bitmap::begin_point) else {
                continue;
            };
            if let Some(session) = self.peers.get_mut(&node).and_then(|p| p.session_mut())
                && let Phase::Naming { sent_bytes } = session.phase
            {
                session.phase = Phase::Committing { point, sent_bytes };
                self.ask(node, Kind::ResyncCommit, 0, Await::Commit(point));
            }
        }
    }

    fn naming(&self) -> Vec<NodeId> {
        let naming = |p: &Peer| {
            p.session()
                .is_some_and(|s| matches!(s.phase, Phase::Naming { .. }))
        };
        self.peers
            .iter()
            .filter(|(_, p)| naming(p))
            .map(|(node, _)| *node)
            .collect()
    }

    pub(crate) fn on_commit_acked(&mut self, node: NodeId, point: u64) {
        // Marks leave the disk only once the new baseline is on it (`write_metadata`).
        if let Some(session) = self.peers.get(&node).and_then(|p| p.session()) {
            let name = Some(session.session);
            self.superblock.change(|s| {
                if let Some(pair) = s.pair_mut(node) {
                    pair.baseline = name;
                    pair.offered = None;
                }
            });
        }
        if let Some(plane) = self.plane_mut(node) {
            plane.commit_point(point);
        }
        if let Some(session) = self.peers.get_mut(&node).and_then(|p| p.session_mut())
            && let Phase::Committing {
                point: latest,
                sent_bytes,
            } = session.phase
            && latest == point
        {
            session.phase = Phase::Clearing { sent_bytes };
        }
    }

    /// Lets those go live whose marks are gone. Without a bound a mark too many is only sent once more.
    pub(crate) fn pump_clearing(&mut self) {
        let cleared = |(node, peer): (&NodeId, &Peer)| match peer.session()?.phase {
            Phase::Clearing { sent_bytes } => {
                let bounded = self.apart.contains(*node);
                let clear = !bounded || self.plane(*node).is_none_or(Bitmap::is_cleared);
                clear.then_some((*node, sent_bytes))
            }
            Phase::Copying(_) | Phase::Naming { .. } | Phase::Committing { .. } | Phase::Live => {
                None
            }
        };
        let cleared: Vec<_> = self.peers.iter().filter_map(cleared).collect();
        for (node, sent_bytes) in cleared {
            self.go_live(node, sent_bytes);
        }
    }

    /// The peer has everything: from here on its acknowledgements count.
    fn go_live(&mut self, node: NodeId, sent_bytes: u64) {
        let backoff = self.config.redial_min;
        let required = self.required().contains(node);
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        peer.lost = false;
        peer.lacks &= !required;
        peer.backoff = backoff;
        peer.lag.caught_up();
        let Some(session) = peer.session_mut() else {
            return;
        };
        session.phase = Phase::Live;
        let generation = session.generation;
        self.live.insert(node);
        // What started before the session is in what was copied: under the range lock it had ended before its chunk.
        for job in self.jobs.values_mut().filter(|j| j.is_started()) {
            if let Some(app) = job.app_mut().filter(|a| !a.sent.contains(node)) {
                app.acked.insert(node);
            }
        }
        if self.required().or(self.eligible()).contains(node) {
            self.report(Report::PeerBack { node, generation });
        } else if sent_bytes > 0 || !self.is_far_behind(node) {
            let sent = ByteCount(sent_bytes);
            self.report(Report::PeerSynced {
                node,
                generation,
                sent,
            });
        }
        let waiting: Vec<_> = self
            .flushes
            .iter()
            .filter(|(_, f)| !f.sent.contains(node))
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            self.send_flush(node, id);
        }
        self.judge_return(node);
        self.settle_all();
    }

    /// Ends every write and flush that waits for nobody any more.
    pub(crate) fn settle_all(&mut self) {
        let writes: Vec<_> = self.jobs.keys().copied().collect();
        for id in writes {
            self.settle_write(id);
        }
        let flushes: Vec<_> = self.flushes.keys().copied().collect();
        for id in flushes {
            self.settle_flush(id);
        }
    }

    /// Has the marks against followers that nobody waits for brought to a point from time to time.
    pub(crate) fn make_points(&mut self) {
        let (now, interval) = (self.now, self.config.point_interval);
        // What an active that is cut off may have to put aside is what is marked: kept near the bound.
        let often = self.bound().map_or(u64::MAX, |bound| bound.max_bytes / 2);
        let ripe = self.peers.keys().filter(|node| self.wants_point(**node));
        let nodes: Vec<NodeId> = ripe.copied().collect();
        for node in nodes {
            let Some(session) = self.peers.get_mut(&node).and_then(|p| p.session_mut()) else {
                continue;
            };
            let ripe = session.point_at <= now || session.point_bytes > often;
            if !matches!(session.phase, Phase::Live) || !ripe {
                continue;
            }
            session.point_bytes = 0;
            session.point_at = now + interval;
            if let Some(point) = self.plane_mut(node).map(Bitmap::begin_point) {
                self.ask(node, Kind::Flush, 0, Await::Point(point));
            }
        }
    }

    /// True if something is marked against the peer and no point on its way takes it away.
    pub(crate) fn wants_point(&self, node: NodeId) -> bool {
        self.plane(node)
            .is_some_and(|plane| !plane.base().is_clear() && !plane.has_point())
    }
}

fn session_dirty(session: &Session) -> ByteCount {
    match &session.phase {
        Phase::Copying(copying) => ByteCount(copying.todo.ones() * BLOCK_BYTES),
        Phase::Naming { .. } | Phase::Committing { .. } | Phase::Clearing { .. } | Phase::Live => {
            ByteCount(0)
        }
    }
}
