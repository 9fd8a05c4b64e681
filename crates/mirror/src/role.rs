//! What the replica is for its node, and how commands change that.
//!
//! ```text
//! Attaching ──► Idle ──Follow──► Standby ──Fence──► Settling ──► Idle ──Activate──► Active
//!                 ▲                                    ▲                              │
//!                 └────────── no I/O under way ────────┴──── Abort, or drained ───────┘
//! ```
//! `Settling` is the only way from one role to another: nothing that an old role started is under way when the next one
//! begins (R16).

use crate::activate::{Active, Stage};
use crate::control::{Command, Report, Ungrown};
use crate::job::Origin;
use crate::machine::{Failure, Machine};
use crate::nodes::NodeSet;
use crate::standby::Standby;
use crate::superblock::Ticket;
use wire::event::ReplicaLoss;
use wire::layout::ReplicaState;
use wire::mutant::{self, Mutant};
use wire::{ByteCount, NodeId, Time};

#[derive(Debug)]
pub(crate) enum Role {
    /// The boot that it was attached in is not durable yet.
    Attaching(Ticket),
    /// Serves nobody, accepts nobody.
    Idle,
    /// Ends what is under way.
    Settling(Settling),
    /// Follows an active.
    Standby(Standby),
    /// Serves the front end, or prepares for it.
    Active(Active),
}

#[derive(Debug)]
pub(crate) struct Settling {
    /// What to report when nothing is under way any more.
    pub(crate) answers: Vec<Report>,
    /// What to become then.
    pub(crate) next: Option<Command>,
}

impl Machine {
    pub(crate) fn on_command(&mut self, command: Command) {
        match command {
            Command::Lease { until } => self.on_lease(until),
            Command::Distrust { node } => self.distrust(node),
            Command::Sets { .. } => self.on_sets(command),
            Command::Verify { node, repair } => self.on_verify(node, repair),
            Command::Resync { node, full } => self.on_resync(node, full),
            Command::Demote => self.on_demote(),
            Command::Grow { data } => self.on_grow(data.map(|data| data.0)),
            Command::Follow {
                epoch,
                active,
                cut_off,
            } => {
                self.floor = self.floor.max(epoch);
                self.note_cut_off(cut_off);
                match &self.role {
                    Role::Standby(standby) if standby.active == active => {}
                    Role::Idle => self.follow(active),
                    Role::Attaching(_) | Role::Settling(_) | Role::Standby(_) | Role::Active(_) => {
                        self.leave(None, Some(command));
                    }
                }
            }
            Command::Activate { .. } => match &self.role {
                Role::Idle => self.activate(command),
                Role::Attaching(_) | Role::Settling(_) | Role::Standby(_) | Role::Active(_) => {
                    self.leave(None, Some(command));
                }
            },
            Command::Fence => {
                self.bump_generation();
                self.leave(Some(Report::Fenced), None);
            }
            Command::Abort => self.leave(Some(Report::Closed), None),
            Command::Drain => match &self.role {
                Role::Active(_) => self.on_drain(),
                Role::Idle | Role::Attaching(_) | Role::Settling(_) | Role::Standby(_) => {
                    self.leave(Some(Report::Drained), None);
                }
            },
        }
    }

    /// Only when the node says what to be, after it compared generations: a disk that is older than the record shows it at
    /// every start, until it is distrusted (R14).
    pub(crate) fn bump_generation(&mut self) {
        let generation = self.before.next();
        self.superblock.change(|s| s.generation = generation);
    }

    /// R14: what the bitmap says of the peer is worth nothing; of the own disk: what it holds.
    fn distrust(&mut self, node: NodeId) {
        if node == self.config.node {
            if !matches!(self.role, Role::Active(_)) {
                self.drop_standby_session();
                let ticket = self.superblock.change(|s| {
                    s.state = ReplicaState::Blank;
                    s.mirror = None;
                    s.pairs.clear();
                    s.seed = None;
                    s.undo = None;
                });
                self.leave_way_back(ticket);
            }
            return;
        }
        self.doubt_all(node);
    }

    /// Everything may differ from a peer: its session begins anew.
    pub(crate) fn doubt_all(&mut self, node: NodeId) {
        if let Some(plane) = self.plane_mut(node) {
            plane.mark_all();
        }
        if self.peers.get(&node).is_some_and(|p| p.conn().is_some()) {
            self.lose(node, ReplicaLoss::Closed);
        }
    }

    /// Ends the role; answers, and goes on with `next`, when nothing of it is under way any more.
    fn leave(&mut self, answer: Option<Report>, next: Option<Command>) {
        if let Role::Settling(settling) = &mut self.role {
            settling.answers.extend(answer);
            settling.next = next;
            return;
        }
        self.stop();
        self.settle_down(answer, next);
    }

    /// The role while what is under way ends; then `answers`, then `next`.
    pub(crate) fn settle_down(&mut self, answer: Option<Report>, next: Option<Command>) {
        self.role = Role::Settling(Settling {
            answers: answer.into_iter().collect(),
            next,
        });
    }

    /// Sets that come while an activation still waits for the old role's end belong to that activation.
    fn on_sets(&mut self, command: Command) {
        let Command::Sets {
            epoch: to,
            required: set,
        } = command
        else {
            return;
        };
        match &mut self.role {
            Role::Active(_) => self.change_sets(to, &set),
            Role::Settling(Settling {
                next:
                    Some(Command::Activate {
                        epoch, required, ..
                    }),
                ..
            }) => {
                *epoch = to;
                *required = set;
            }
            Role::Attaching(_) | Role::Idle | Role::Settling(_) | Role::Standby(_) => {}
        }
    }

    pub(crate) fn advance_attaching(&mut self, ticket: Ticket) {
        let settled = self.intent.is_settled() && self.planes.is_settled();
        if !(settled && self.superblock.is_durable(ticket)) {
            return;
        }
        self.role = Role::Idle;
        let own = self.superblock.get();
        let report = Report::Attached {
            before: self.before,
            generation: self.before.next(),
            state: own.state,
            data: ByteCount(self.layout.data_bytes),
            epoch: own.epoch,
        };
        self.report(report);
        self.clear_log();
    }

    pub(crate) fn advance_settling(&mut self) {
        let Role::Settling(settling) = &mut self.role else {
            return;
        };
        // A hung operation may still land: figures show it, and a failed replica is never promoted again in this life.
        let drained = self.disk.is_idle() || mutant::on(Mutant::NoDrain);
        if !drained && self.failed != Some(Failure::Hang) {
            return;
        }
        if !self.superblock.is_settled() && self.failed.is_none() {
            return;
        }
        let answers = std::mem::take(&mut settling.answers);
        let next = settling.next.take();
        self.role = Role::Idle;
        for answer in answers {
            self.report(answer);
        }
        if let Some(command) = next {
            self.on_command(command);
            self.advance();
        }
    }

    /// Drops everything of the role that is not under way on the disk. What is, ends without effect on anybody.
    pub(crate) fn stop(&mut self) {
        self.closed = true;
        self.lease = Time::ZERO;
        self.drop_sessions();
        self.verify = None;
        self.end_growth(Some(Ungrown::Ended));
        self.refuse_pending();
        self.flushes.clear();
        self.cold.clear();
        self.logging.clear();
        let all: Vec<_> = self.jobs.keys().copied().collect();
        for id in all {
            if let Some(job) = self.jobs.get_mut(&id).filter(|j| j.is_on_disk()) {
                let origin = std::mem::replace(&mut job.origin, Origin::Nobody);
                self.let_go_of_reader(origin);
            } else {
                self.drop_job(id);
            }
        }
    }

    fn drop_sessions(&mut self) {
        let take =
            |p: &mut crate::peer::Peer| p.session_mut().map(|s| std::mem::take(&mut s.outbox));
        let outboxes: Vec<_> = self.peers.values_mut().filter_map(take).collect();
        for outbox in outboxes {
            self.drop_outbox(outbox);
        }
        let conns: Vec<_> = self.peers.values().filter_map(|p| p.conn()).collect();
        for conn in conns {
            self.disconnect(conn);
        }
        self.peers.clear();
        self.live = NodeSet::EMPTY;
        self.planes.cancel_points();
        self.drop_standby_session();
    }

    /// True while the front end's requests wait for an activation that is being prepared.
    pub(crate) fn is_preparing(&self) -> bool {
        match &self.role {
            Role::Active(active) => {
                matches!(active.stage, Stage::Opening(_) | Stage::Reconciling)
            }
            Role::Attaching(_) | Role::Idle | Role::Standby(_) => !self.closed,
            Role::Settling(settling) => matches!(settling.next, Some(Command::Activate { .. })),
        }
    }
}
