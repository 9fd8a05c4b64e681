//! Following an active: whom to accept, and what to apply.
//!
//! ```text
//! None ──connection from the active──► Greeting ──Hello──► Opening: Quiesce ──► Relaying ──► Sealing ──► Up
//! ```
//! `Quiesce`: what an earlier session started is done. `Relaying`: the intent log is, too; then the volume takes the active's size.
//! `Sealing`: that and the epoch are durable. Only then the Hello is answered, so nothing of an older session or epoch can come after it.

use crate::common::Agreeing;
use crate::control::Report;
use crate::io::{ConnId, Payload};
use crate::job::Origin;
use crate::machine::{JobId, Machine};
use crate::nodes::NodeSet;
use crate::role::Role;
use crate::standby_ops::PeerOp;
use crate::superblock::Ticket;
use std::collections::{BTreeSet, VecDeque};
use wire::control::WrongDisk;
use wire::event::{ReplicaLoss, UndoLoss};
use wire::layout::{Layout, ReplicaState};
use wire::mirror_frame::{Header, Hello, Kind, Refuse, decode_payload, encode_payload};
use wire::mutant::{self, Bug, Mutant};
use wire::{Duration, Epoch, NodeId, SessionId, Time, version};

#[derive(Debug)]
pub(crate) struct Standby {
    /// The only node whose sessions are accepted.
    pub(crate) active: NodeId,
    pub(crate) link: Followed,
}

/// The connection from the active.
#[derive(Debug)]
pub(crate) enum Followed {
    None,
    Greeting { conn: ConnId, since: Time },
    Opening(Opening),
    Up(Box<Following>),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    conn: ConnId,
    session: SessionId,
    epoch: Epoch,
    mirror: u128,
    data_bytes: u64,
    step: OpeningStep,
}

#[derive(Clone, Copy, Debug)]
enum OpeningStep {
    Quiesce,
    Relaying,
    Sealing(Ticket),
}

/// A session with the active.
#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) conn: ConnId,
    pub(crate) session: SessionId,
    /// Never falls; frames of an older one are refused (R4).
    pub(crate) epoch: Epoch,
    pub(crate) mirror: u128,
    /// Writes of this session without an acknowledgement.
    pub(crate) jobs: BTreeSet<JobId>,
    /// Requests that wait for earlier writes, in order.
    pub(crate) ops: VecDeque<PeerOp>,
    /// Frames behind an ordered flush.
    pub(crate) backlog: VecDeque<(Header, Payload)>,
    /// The common point with other standbys that is on its way.
    pub(crate) common: Option<Agreeing>,
}

impl Standby {
    pub(crate) const fn new(active: NodeId) -> Self {
        Self {
            active,
            link: Followed::None,
        }
    }

    pub(crate) fn wake_at(&self, io_timeout: Duration) -> Option<Time> {
        match &self.link {
            Followed::Greeting { since, .. } => Some(*since + io_timeout),
            Followed::None | Followed::Opening(_) | Followed::Up(_) => None,
        }
    }

    pub(crate) fn conn(&self) -> Option<ConnId> {
        match &self.link {
            Followed::None => None,
            Followed::Greeting { conn, .. } => Some(*conn),
            Followed::Opening(opening) => Some(opening.conn),
            Followed::Up(following) => Some(following.conn),
        }
    }
}

impl Machine {
    pub(crate) fn follow(&mut self, active: NodeId) {
        self.bump_generation();
        self.judge_anew(active);
        self.role = Role::Standby(Standby::new(active));
    }

    pub(crate) const fn standby_mut(&mut self) -> Option<&mut Standby> {
        match &mut self.role {
            Role::Standby(standby) => Some(standby),
            Role::Attaching(_) | Role::Idle | Role::Settling(_) | Role::Active(_) => None,
        }
    }

    /// Whose sessions are accepted.
    pub(crate) const fn active_followed(&self) -> Option<NodeId> {
        match &self.role {
            Role::Standby(standby) => Some(standby.active),
            Role::Attaching(_) | Role::Idle | Role::Settling(_) | Role::Active(_) => None,
        }
    }

    pub(crate) fn following(&self) -> Option<&Following> {
        match &self.role {
            Role::Standby(Standby {
                link: Followed::Up(following),
                ..
            }) => Some(following),
            Role::Standby(_)
            | Role::Attaching(_)
            | Role::Idle
            | Role::Settling(_)
            | Role::Active(_) => None,
        }
    }

    pub(crate) fn following_mut(&mut self) -> Option<&mut Following> {
        match &mut self.standby_mut()?.link {
            Followed::Up(following) => Some(following),
            Followed::None | Followed::Greeting { .. } | Followed::Opening(_) => None,
        }
    }

    /// Another node opened a connection. A new one of the active's replaces the one before.
    pub(crate) fn on_accepted(&mut self, conn: ConnId, node: NodeId) {
        let since = self.now;
        let refuse = if self.failed.is_some() {
            Some(Refuse::DiskFailed)
        } else {
            let active = self.standby_mut().map(|s| s.active);
            (active != Some(node)).then_some(Refuse::NotActive)
        };
        if let Some(why) = refuse {
            return self.refuse_session(conn, SessionId(0), &why);
        }
        self.drop_standby_session();
        if let Some(standby) = self.standby_mut() {
            standby.link = Followed::Greeting { conn, since };
        }
    }

    /// Says why there is no session, and closes.
    fn refuse_session(&mut self, conn: ConnId, session: SessionId, why: &Refuse) {
        let header = Header::bare(Kind::Goodbye, self.floor, session, 0);
        self.send_bytes(conn, header, encode_payload(why));
        self.disconnect(conn);
    }

    /// What is wrong with the own disk, only this side knows in full.
    fn tell_wrong_disk(&mut self, refuse: &Refuse) {
        let why = match refuse {
            Refuse::TooSmall { .. } => WrongDisk::TooSmall,
            Refuse::ForeignDisk if self.superblock.get().state == ReplicaState::Origin => {
                WrongDisk::OwnContent
            }
            Refuse::ForeignDisk => WrongDisk::OtherMirror,
            Refuse::OldEpoch(_)
            | Refuse::NotActive
            | Refuse::Version
            | Refuse::DiskFailed
            | Refuse::Closing => return,
        };
        self.report(Report::CannotFollow { why });
    }

    /// Ends the session and drops what it did not start. What it started ends unanswered.
    pub(crate) fn drop_standby_session(&mut self) {
        let Some(standby) = self.standby_mut() else {
            return;
        };
        let conn = standby.conn();
        self.undo.drop_session();
        let Some(standby) = self.standby_mut() else {
            return;
        };
        let link = std::mem::replace(&mut standby.link, Followed::None);
        if let Some(conn) = conn {
            self.disconnect(conn);
        }
        if let Followed::Up(following) = link {
            for (_, payload) in &following.backlog {
                self.release_payload(payload);
            }
            self.planes.cancel_points();
            self.cold.clear();
            self.logging.clear();
            for id in following.jobs {
                match self.jobs.get_mut(&id).filter(|j| j.is_on_disk()) {
                    Some(job) => job.origin = Origin::Nobody,
                    None => self.drop_job(id),
                }
            }
        }
    }

    /// The session ended, by the other side or for a reason of its own.
    pub(crate) fn lose_active(&mut self, why: ReplicaLoss) {
        let up = self.following().is_some();
        self.drop_standby_session();
        if let Some(node) = self.standby_mut().map(|s| s.active).filter(|_| up) {
            self.report(Report::PeerLost { node, why });
        }
    }

    /// The disk failed: the active hears it at once, not by a timeout.
    pub(crate) fn refuse_for_failed_disk(&mut self) {
        let Some((conn, session)) = self.following().map(|f| (f.conn, f.session)) else {
            return;
        };
        let header = Header::bare(Kind::Goodbye, self.floor, session, 0);
        self.send_bytes(conn, header, encode_payload(&Refuse::DiskFailed));
        self.drop_standby_session();
    }

    pub(crate) fn on_standby_disconnected(&mut self, conn: ConnId, why: ReplicaLoss) {
        if self.standby_mut().and_then(|s| s.conn()) == Some(conn) {
            self.lose_active(why);
        }
    }

    pub(crate) fn on_standby_time(&mut self) {
        let (now, limit) = (self.now, self.config.io_timeout);
        let wake = self.standby_mut().and_then(|s| s.wake_at(limit));
        if wake.is_some_and(|at| at <= now) {
            self.drop_standby_session();
        }
    }

    pub(crate) fn on_standby_frame(&mut self, conn: ConnId, header: Header, payload: Payload) {
        let current = self
            .standby_mut()
            .filter(|s| s.conn() == Some(conn) || mutant::on(Mutant::OldSessionAccepted));
        let Some(standby) = current else {
            return self.release_payload(&payload);
        };
        match &standby.link {
            Followed::Greeting { .. } => {
                self.release_payload(&payload);
                if header.kind != Kind::Hello {
                    return self.lose_active(ReplicaLoss::Protocol);
                }
                if let Err(why) = self.on_active_hello(conn, header, &payload) {
                    self.tell_wrong_disk(&why);
                    self.refuse_session(conn, header.session, &why);
                    if let Some(standby) = self.standby_mut() {
                        standby.link = Followed::None;
                    }
                }
            }
            Followed::Up(_) => self.on_session_frame(header, payload),
            // The active sends nothing before our Hello.
            Followed::None | Followed::Opening(_) => {
                self.release_payload(&payload);
                self.lose_active(ReplicaLoss::Protocol);
            }
        }
    }

    /// The active's Hello: accepted, or why not.
    fn on_active_hello(
        &mut self,
        conn: ConnId,
        header: Header,
        payload: &Payload,
    ) -> Result<(), Refuse> {
        let Payload::Bytes(bytes) = payload else {
            return Err(Refuse::Version);
        };
        let hello: Hello = decode_payload(bytes).map_err(|_| Refuse::Version)?;
        if hello.version > version::MIRROR || !hello.features.understood() {
            return Err(Refuse::Version);
        }
        if header.epoch < self.floor {
            return Err(Refuse::OldEpoch(self.floor));
        }
        let Some(active) = self.standby_mut().map(|s| s.active) else {
            return Err(Refuse::NotActive);
        };
        if hello.node != active {
            return Err(Refuse::NotActive);
        }
        let mirror = self.same_mirror(&hello)?;
        self.fitting(hello.data_bytes)?;
        self.floor = self.floor.max(header.epoch);
        self.remember(active, NodeSet::one(active));
        let opening = Opening {
            conn,
            session: header.session,
            epoch: header.epoch,
            mirror,
            data_bytes: hello.data_bytes,
            step: OpeningStep::Quiesce,
        };
        if let Some(standby) = self.standby_mut() {
            standby.link = Followed::Opening(opening);
        }
        Ok(())
    }

    /// Nobody's data is overwritten but a replica's of the same mirror, or one made to be overwritten.
    fn same_mirror(&self, hello: &Hello) -> Result<u128, Refuse> {
        let own = self.superblock.get();
        let mirror = hello.mirror.ok_or(Refuse::NotActive)?;
        let same = match own.state {
            ReplicaState::Blank => own.mirror.is_none_or(|m| m == mirror),
            ReplicaState::Consistent | ReplicaState::Inconsistent => own.mirror == Some(mirror),
            ReplicaState::Origin => false,
        };
        let same = same || mutant::has(Bug::ForeignOverwritten);
        same.then_some(mirror).ok_or(Refuse::ForeignDisk)
    }

    /// The active's size fits on this disk.
    fn fitting(&self, there_bytes: u64) -> Result<Layout, Refuse> {
        if mutant::has(Bug::SizeIgnored) {
            return Ok(self.layout);
        }
        let here_bytes = self.layout.data_bytes;
        // What this replica would gain is zero, as the active's gain was: it grew while this one was ready for it.
        let ready = self.superblock.get().ready_bytes.max(here_bytes);
        self.layout_of(there_bytes)
            .filter(|_| there_bytes <= ready)
            .ok_or(Refuse::TooSmall {
                here_bytes,
                there_bytes,
            })
    }

    pub(crate) fn advance_standby(&mut self) {
        let Some(standby) = self.standby_mut() else {
            return;
        };
        match &standby.link {
            Followed::Opening(opening) => {
                let opening = *opening;
                self.advance_opening(opening);
            }
            Followed::Up(_) => {
                self.let_cool();
                self.advance_ops();
            }
            Followed::None | Followed::Greeting { .. } => {}
        }
        self.admit();
    }

    fn advance_opening(&mut self, opening: Opening) {
        let step = match opening.step {
            OpeningStep::Quiesce
                if self.jobs.is_empty()
                    && self.planes.is_settled()
                    && !self.is_clearing()
                    && self.has_put_aside()
                    && self.has_way_back_or_none() =>
            {
                OpeningStep::Relaying
            }
            OpeningStep::Relaying if !self.intent.is_urgent() => {
                let epoch = opening.epoch;
                self.superblock.change(|s| s.epoch = s.epoch.max(epoch));
                // Both at once: whoever is promoted serves what its superblock says.
                self.relay(opening.data_bytes);
                self.note_size(self.layout.data_bytes);
                OpeningStep::Sealing(self.note_settled())
            }
            OpeningStep::Sealing(ticket) if self.superblock.is_durable(ticket) => {
                return self.greet(opening);
            }
            OpeningStep::Quiesce | OpeningStep::Relaying | OpeningStep::Sealing(_) => return,
        };
        let opening = Opening { step, ..opening };
        if let Some(standby) = self.standby_mut() {
            standby.link = Followed::Opening(opening);
        }
        self.advance_opening(opening);
    }

    /// Takes the active's size, if that is another one than the own.
    fn relay(&mut self, data_bytes: u64) {
        if let Ok(layout) = self.fitting(data_bytes)
            && layout.data_bytes != self.layout.data_bytes
        {
            self.lay_out(layout);
            if self.superblock.get().undo.is_some() {
                self.lose_way_back(UndoLoss::Resized);
            }
        }
    }

    /// Answers the Hello: the session is up.
    fn greet(&mut self, opening: Opening) {
        self.intent.begin_session();
        self.begin_clearing();
        let active = self.active_followed();
        let hello = active.map_or_else(Vec::new, |node| self.hello(node));
        let header = Header::bare(Kind::Hello, opening.epoch, opening.session, 0);
        self.send_bytes(opening.conn, header, hello);
        let following = Following {
            conn: opening.conn,
            session: opening.session,
            epoch: opening.epoch,
            mirror: opening.mirror,
            jobs: BTreeSet::new(),
            ops: VecDeque::new(),
            backlog: VecDeque::new(),
            common: None,
        };
        if let Some(standby) = self.standby_mut() {
            standby.link = Followed::Up(Box::new(following));
        }
        self.report_following();
    }

    /// Tells the node what following makes of the data.
    pub(crate) fn report_following(&mut self) {
        let consistent = self.superblock.get().state == ReplicaState::Consistent;
        if let Some(active) = self.standby_mut().map(|s| s.active) {
            self.report(Report::Following { active, consistent });
        }
    }
}
