//! The life of one group on this node.
//!
//! ```text
//!             attached                 active silent, grants over
//!  Settling ───────────► Standby ────────────────────────────────► Taking ──won──┐
//!     │ active by the      ▲  │ handover to me                                   ▼
//!     │ record: barrier    │  └───────────────────────────────────────────────► Starting ──► Active
//!     └────────────────────┼──────────────────────────────────────────────────►   ▲  │        │ move, stop,
//!                          │                     newer epoch, not me: deposed     │  ▼        ▼ failed
//!                          └── Leaving ◄──────────────────────────────────────────┼──┴── Stopping ──► Held
//!                                                                                 └───────────────────┘ start
//! ```
//!
//! The register decides, the lease permits, the mirror acknowledges; this machine only puts them in order.
//! Invariant: nothing is started before the record confirmed here names this node.

mod active;
mod asks;
mod sets;
mod standby;
mod start;
mod stop;

use crate::config::{Config, GroupConfig, NodeRole, Timing};
use crate::explain::Journal;
use crate::io::ResourceAct;
use cluster::lease::{Lease, LeaseConfig};
use cluster::links::Links;
use cluster::register::{Outcome, Register, RegisterConfig, RegisterInput, RegisterOutput, Ticket};
use mirror::control::{Command, Report};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wire::control::{GroupBeat, GroupRequest, Message, Obstacle, Purpose, RequestFault, Role};
use wire::durable::{Durable, GroupDurable};
use wire::event::{Act, Rule, Seen, What};
use wire::layout::ReplicaState;
use wire::mutant::{self, Mutant};
use wire::record::Intent;
use wire::{Duration, Epoch, Generation, GroupId, NodeId, Nonce, Record, Time, Version};

/// What a group asks of the node that it lives on.
#[derive(Clone, Debug)]
pub(crate) enum Out {
    /// To one node, on every link.
    Send(NodeId, Message),
    /// The group's durable state changed; this ticket of its register waits for it.
    Persist(Ticket),
    /// To a mirror.
    Mirror {
        mirror: u8,
        serial: u64,
        command: Command,
    },
    /// To a resource.
    Resource {
        resource: u8,
        act: ResourceAct,
        token: u64,
    },
    /// Tear down.
    Abandon,
    /// Gate and device.
    Lease(Time),
    /// Answer to a local request.
    Answer(Nonce, Result<(), RequestFault>),
}

/// What a group needs to see of its node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around<'a> {
    pub(crate) now: Time,
    pub(crate) links: &'a Links,
}

/// Where the group stands on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The mirrors are not attached, or no record is known.
    Settling,
    /// Follows the active.
    Standby,
    /// On the way to become active: the old epoch is fenced, then the record is changed.
    Taking(Taking),
    /// The record names this node; the resources are being started.
    Starting(Starting),
    /// Everything runs; a resource may be being restarted.
    Active { restarting: Option<(u8, u64)> },
    /// Orderly stop.
    Stopping { why: StopWhy, step: Stopping },
    /// Deposed: everything is torn down.
    Leaving {
        mirrors_open: BTreeSet<u8>,
        abandoned: bool,
    },
    /// Held by the record's intent; nothing runs.
    Held,
    /// The disk failed and nobody else can serve.
    Broken,
}

/// Steps of taking the group over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taking {
    /// Mirrors that have not reported `Fenced`, and what follows then.
    Fencing {
        left: BTreeSet<u8>,
        then: AfterFence,
    },
    /// The takeover is proposed.
    Proposing,
}

/// What follows when nothing of an older epoch is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterFence {
    /// The takeover is proposed.
    Propose,
    /// The record already names this node: its mirrors are activated.
    Start,
    /// The record named this node before it restarted: confirmed first (R6).
    Barrier,
}

/// Steps of starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Starting {
    /// A restarted active confirms its record first (R6). `solo`: it may go on without the register.
    Barrier { solo: bool },
    /// Mirrors that do not serve yet, since when.
    Mirrors { left: BTreeSet<u8>, since: Time },
    /// This resource is being started.
    Resource { resource: u8, token: u64 },
}

/// Why an orderly stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopWhy {
    /// The group goes to the named node; `failed`: because it failed here.
    HandOver { to: NodeId, failed: bool },
    /// The own disk failed; the group goes to the named node.
    DiskFailed { to: NodeId },
    /// The group is held.
    Hold(wire::record::Hold),
}

/// Steps of an orderly stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// This resource is being stopped.
    Resource { resource: u8, token: u64 },
    /// A resource would not stop: everything is torn down.
    Abandoning,
    /// Mirrors that have not reported `Drained` (or `Closed` after a disk failure).
    Mirrors { left: BTreeSet<u8> },
    /// The device and the gate are being closed; then the record is changed.
    Yielding,
    /// The change is proposed.
    Proposing,
}

/// What this node's open proposal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    Bootstrap,
    Barrier,
    /// The same sets with the generation of a replica that attached anew (R14).
    Refresh,
    TakeOver,
    Shrink,
    Grow(NodeId),
    HandOver,
    Hold,
    Unhold,
}

/// What is known of one mirror's replica on this node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Replica {
    attached: Option<Attached>,
    failed: bool,
    consistent: bool,
    /// Its disk is older than the record (R14).
    rolled_back: bool,
    /// In this life it followed a session, or this node proposed: from then on a record may hold this life's generation.
    joined: bool,
    /// The generation of this life is durable.
    bumped: bool,
    /// Highest command serial that it handled.
    taken: u64,
}

#[derive(Clone, Copy, Debug)]
struct Attached {
    before: Generation,
    generation: Generation,
    state: ReplicaState,
}

/// One group on this node.
#[derive(Debug)]
pub struct Group {
    pub(crate) config: GroupConfig,
    me: NodeId,
    /// Members of the register: all nodes.
    members: BTreeSet<NodeId>,
    witness: bool,
    timing: Timing,
    pub(crate) register: Register,
    pub(crate) lease: Lease,
    pub(crate) state: State,
    pub(crate) journal: Journal,
    replicas: Vec<Replica>,
    /// An activation's device, mounts or processes may exist on this machine (R15).
    instance_open: bool,
    /// Version of the record that was last acted upon.
    seen: Version,
    pending: Option<Pending>,
    /// While active: how the other replicas are.
    mates: BTreeMap<NodeId, sets::Mate>,
    /// Whom this node took the group over from; its own writes are discarded when it comes back.
    deposed: Option<NodeId>,
    /// A peer that already counts for acknowledgements and leases; the grow is not yet confirmed (R5, R8).
    growing: Option<NodeId>,
    sets_sent: Option<(Epoch, BTreeSet<NodeId>)>,
    /// A lease stood against the latest proposal: nothing is proposed before.
    retry_at: Time,
    /// What gate and device were told last.
    lease_told: Time,
    frozen: bool,
    /// Resources that run, in the order of their starting.
    running: Vec<u8>,
    failures: Vec<VecDeque<Time>>,
    /// Resources that failed while frozen; looked at again on thaw.
    failed_frozen: BTreeSet<u8>,
    pub(crate) peers: BTreeMap<NodeId, (Time, GroupBeat)>,
    pub(crate) no_majority: bool,
    pub(crate) alarm: Option<&'static str>,
    asks: asks::Asks,
    serial: u64,
    token: u64,
    nonces: u64,
    out: VecDeque<Out>,
}

impl Group {
    /// A group at the start of a process.
    pub(crate) fn new(config: &Config, group: &GroupConfig, durable: &Durable, now: Time) -> Self {
        let mut mine = durable.groups.get(&group.id).cloned().unwrap_or_default();
        if mutant::on(Mutant::NoBarrier) {
            // Durable proposals alone would save it: the barrier must do without them.
            mine.unresolved.clear();
        }
        let seed = config.seed ^ u64::from(group.id.0).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self {
            config: group.clone(),
            me: config.me,
            members: config.members(),
            witness: config.nodes.get(&config.me) != Some(&NodeRole::Data),
            timing: config.timing,
            register: Register::new(register_config(config, group.id, seed), mine, now),
            lease: Lease::new(lease_config(config, group.id), now, durable.longest_term),
            state: State::Settling,
            journal: Journal::new(group.id),
            replicas: vec![Replica::default(); usize::from(group.mirrors)],
            instance_open: false,
            seen: Version(0),
            pending: None,
            mates: BTreeMap::new(),
            deposed: None,
            growing: None,
            sets_sent: None,
            retry_at: Time::ZERO,
            lease_told: Time::ZERO,
            frozen: false,
            running: Vec::new(),
            failures: vec![VecDeque::new(); group.resources.len()],
            failed_frozen: BTreeSet::new(),
            peers: BTreeMap::new(),
            no_majority: false,
            alarm: None,
            asks: asks::Asks::default(),
            serial: 0,
            token: 0,
            nonces: seed,
            out: VecDeque::new(),
        }
    }

    /// Which group.
    pub(crate) const fn id(&self) -> GroupId {
        self.config.id
    }

    pub(crate) fn poll(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    pub(crate) fn durable(&self) -> &GroupDurable {
        self.register.durable()
    }

    // ---- inputs -------------------------------------------------------------------------------------------------

    pub(crate) fn on_message(&mut self, cx: Around<'_>, from: NodeId, message: Message) {
        match message {
            Message::LeaseRequest {
                request,
                term,
                epoch,
                ..
            } => {
                let known = self.register.confirmed().cloned();
                let grant =
                    self.lease
                        .on_request(cx.now, from, request, term, epoch, known.as_ref());
                if let Some(grant) = grant {
                    self.out.push_back(Out::Send(from, grant));
                }
            }
            Message::LeaseGrant { request, .. } => self.lease.on_grant(cx.now, from, request),
            Message::Ask { id, request, .. } => self.on_ask_from(cx, from, id, request),
            Message::Answer { id, result } => self.on_answer(id, result),
            Message::Prepare { .. }
            | Message::Promise { .. }
            | Message::Accept { .. }
            | Message::Accepted { .. }
            | Message::Refused { .. }
            | Message::Decided { .. } => {
                self.tell_register(cx, RegisterInput::Message { from, message });
            }
            Message::Beat(_) => {}
        }
        self.drive(cx);
    }

    pub(crate) fn on_beat(&mut self, cx: Around<'_>, from: NodeId, beat: GroupBeat) {
        if let Some(known) = self.register.confirmed()
            && beat.version < known.version
        {
            let message = Message::Decided {
                group: self.id(),
                record: known.clone(),
            };
            self.out.push_back(Out::Send(from, message));
        }
        self.peers.insert(from, (cx.now, beat));
        self.drive(cx);
    }

    pub(crate) fn on_persisted(&mut self, cx: Around<'_>, ticket: Ticket) {
        self.tell_register(cx, RegisterInput::Persisted(ticket));
        self.drive(cx);
    }

    pub(crate) fn on_taken(&mut self, cx: Around<'_>, mirror: u8, serial: u64) {
        if let Some(replica) = self.replicas.get_mut(usize::from(mirror)) {
            replica.taken = replica.taken.max(serial);
        }
        self.drive(cx);
    }

    pub(crate) fn on_found(&mut self, cx: Around<'_>) {
        self.instance_open = true;
        self.journal.push(cx.now, What::Adopted);
    }

    pub(crate) fn on_report(&mut self, cx: Around<'_>, mirror: u8, report: Report) {
        match report {
            Report::Attached {
                before,
                generation,
                state,
                ..
            } => {
                let consistent =
                    state != ReplicaState::Inconsistent && state != ReplicaState::Blank;
                if let Some(replica) = self.replicas.get_mut(usize::from(mirror)) {
                    replica.attached = Some(Attached {
                        before,
                        generation,
                        state,
                    });
                    replica.consistent = consistent;
                }
            }
            Report::AttachFailed { .. } => self.on_local_failed(cx, mirror, None),
            Report::LocalFailed { errno } => self.on_local_failed(cx, mirror, errno),
            Report::Following { consistent, .. } => {
                if let Some(replica) = self.replicas.get_mut(usize::from(mirror)) {
                    replica.joined = true;
                    replica.consistent = consistent;
                }
            }
            Report::Fenced => self.on_fenced(mirror),
            Report::Serving { .. } => self.on_serving(cx, mirror),
            Report::Drained => self.on_mirror_stopped(mirror),
            Report::Closed => self.on_mirror_closed(mirror),
            Report::PeerLost { .. }
            | Report::PeerBack { .. }
            | Report::ResyncStarted { .. }
            | Report::PeerSynced { .. } => self.on_peer_report(cx, mirror, report),
        }
        self.drive(cx);
    }

    /// A beat is due: the active asks for its lease.
    pub(crate) fn on_beat_due(&mut self, cx: Around<'_>) {
        if self.wants_lease() {
            self.request_lease(cx);
        }
        self.resend_asks(cx);
        self.drive(cx);
    }

    pub(crate) fn on_wake(&mut self, cx: Around<'_>) {
        self.tell_register(cx, RegisterInput::Wake);
        self.drive(cx);
    }

    pub(crate) fn wake_at(&self, now: Time) -> Time {
        let mut at = self.register.wake_at().unwrap_or(Time::MAX);
        if self.is_serving() && !self.frozen {
            at = at.min(self.lease_told);
        }
        if let State::Starting(Starting::Mirrors { since, .. }) = &self.state {
            let reconcile = *since + self.timing.reconcile;
            if reconcile > now {
                at = at.min(reconcile);
            }
        }
        if matches!(self.state, State::Standby)
            && let Some((_, left)) = self.lease.takeover_obstacle(now, self.me)
        {
            at = at.min(now + left);
        }
        at
    }

    // ---- the register -------------------------------------------------------------------------------------------

    fn tell_register(&mut self, cx: Around<'_>, input: RegisterInput) {
        self.register.handle(cx.now, input, &mut self.lease);
        while let Some(output) = self.register.poll() {
            match output {
                RegisterOutput::Send { to, message } => self.out.push_back(Out::Send(to, message)),
                RegisterOutput::Persist(ticket) => self.out.push_back(Out::Persist(ticket)),
                RegisterOutput::Outcome(outcome) => self.on_outcome(cx, outcome),
            }
        }
    }

    fn propose(&mut self, cx: Around<'_>, record: Record, pending: Pending) {
        assert!(self.pending.is_none(), "one proposal at a time");
        self.pending = Some(pending);
        // The proposal holds the generation of this life.
        for replica in &mut self.replicas {
            replica.joined = true;
        }
        let purpose = match pending {
            Pending::TakeOver => Purpose::Takeover,
            Pending::Bootstrap
            | Pending::Barrier
            | Pending::Refresh
            | Pending::Shrink
            | Pending::Grow(_)
            | Pending::HandOver
            | Pending::Hold
            | Pending::Unhold => Purpose::Keep,
        };
        let blocked = pending == Pending::TakeOver && !mutant::on(Mutant::GrantWhileTaking);
        self.lease.block_grants(blocked);
        self.tell_register(cx, RegisterInput::Propose { record, purpose });
    }

    fn on_outcome(&mut self, cx: Around<'_>, outcome: Outcome) {
        match outcome {
            Outcome::Won(_) | Outcome::Superseded(_) => {
                self.no_majority = false;
                self.pending = None;
                self.growing = None;
                self.on_confirmed(cx);
            }
            Outcome::Learned(_) => self.on_confirmed(cx),
            Outcome::Leased { holder, left } => self.on_refused(cx, holder, left),
            Outcome::Contested(_) => {
                self.lease.surrender(cx.now);
                self.tell_lease(cx.now, Time::ZERO);
            }
            Outcome::NoMajority => {
                self.no_majority = true;
                self.on_no_majority(cx);
            }
            Outcome::Read(_) => self.no_majority = false,
            Outcome::Alarm(what) => self.alarm = Some(what),
        }
        let open = self.pending == Some(Pending::TakeOver) || self.takeover_unresolved();
        self.lease
            .block_grants(open && !mutant::on(Mutant::GrantWhileTaking));
    }

    fn takeover_unresolved(&self) -> bool {
        let known = self.register.confirmed().map(|r| r.active);
        known != Some(self.me)
            && self
                .register
                .unresolved()
                .iter()
                .any(|r| r.active == self.me)
    }

    /// The confirmed record may be newer than what was acted upon: act upon it.
    fn on_confirmed(&mut self, cx: Around<'_>) {
        let Some(record) = self.register.confirmed().cloned() else {
            return;
        };
        if record.version <= self.seen {
            return;
        }
        self.seen = record.version;
        self.no_majority = false;
        self.compare_generations(&record);
        self.journal.push(
            cx.now,
            What::RecordChanged {
                record: record.clone(),
            },
        );
        if self.witness {
            return;
        }
        if record.active == self.me {
            self.on_confirmed_active(cx, &record);
        } else {
            self.on_confirmed_other(cx, &record);
        }
    }

    fn on_confirmed_active(&mut self, cx: Around<'_>, record: &Record) {
        match (&self.state, record.intent) {
            (State::Settling | State::Leaving { .. } | State::Broken, _) => {}
            (
                State::Stopping {
                    step: Stopping::Proposing,
                    ..
                },
                Intent::Hold(_),
            ) => {
                self.enter_held(cx);
            }
            (State::Standby | State::Held, Intent::Hold(_)) => self.enter_held(cx),
            (
                State::Stopping {
                    step: Stopping::Proposing,
                    ..
                },
                _,
            ) => self.reconsider_stop(cx),
            (State::Stopping { .. }, _) => self.tell_sets(record),
            (State::Standby, Intent::Handover { .. }) => self.take_handover(cx, record),
            (State::Standby, Intent::Serve) => self.resume(cx),
            (State::Held, Intent::Serve | Intent::Handover { .. }) => self.begin_start(cx),
            (State::Taking(Taking::Fencing { .. }), _) => {}
            (State::Taking(Taking::Proposing), _) => {
                self.journal.phase(cx.now, wire::event::Phase::Decide);
                self.begin_start(cx);
            }
            (State::Starting(Starting::Barrier { .. }), _) => {
                if self.pending.is_none() && !self.register.needs_barrier() {
                    self.begin_start(cx);
                }
            }
            (State::Starting(_) | State::Active { .. }, Intent::Hold(_)) => {}
            (State::Starting(_) | State::Active { .. }, _) => self.tell_sets(record),
        }
    }

    fn on_confirmed_other(&mut self, cx: Around<'_>, record: &Record) {
        match &self.state {
            State::Settling | State::Leaving { .. } | State::Broken => {}
            State::Standby | State::Held | State::Taking(_) => self.enter_standby(cx, record),
            State::Stopping {
                step: Stopping::Proposing,
                ..
            } => {
                self.instance_open = false;
                self.journal.done(cx.now);
                self.enter_standby(cx, record);
            }
            State::Starting(_) | State::Active { .. } | State::Stopping { .. } => {
                let seen = vec![Seen::AtEpoch(record.epoch)];
                self.journal
                    .decide(cx.now, Act::StepDown, Rule::Deposed, seen, Vec::new());
                self.leave(cx);
            }
        }
    }

    fn on_no_majority(&mut self, cx: Around<'_>) {
        if self.state == State::Starting(Starting::Barrier { solo: true }) {
            // R6: nobody else could have been promoted since, so the confirmed record still holds.
            self.begin_start(cx);
        }
    }

    // ---- driving ------------------------------------------------------------------------------------------------

    /// After every input: does what has become possible, and keeps lease, sets and gate in step.
    fn drive(&mut self, cx: Around<'_>) {
        if !self.witness {
            match &self.state {
                State::Settling => self.try_settle(cx),
                State::Standby => self.consider_takeover(cx),
                State::Taking(_) => self.continue_taking(cx),
                State::Starting(_) => self.continue_start(cx),
                State::Stopping { .. } => self.continue_stop(cx),
                State::Leaving { .. } => self.continue_leaving(cx),
                State::Active { .. } | State::Held | State::Broken => {}
            }
            if self.is_serving() {
                self.drive_sets(cx);
            }
            self.drive_lease(cx);
        }
        self.drain_register(cx);
    }

    /// Messages that the register produced while something else was done.
    fn drain_register(&mut self, cx: Around<'_>) {
        while let Some(output) = self.register.poll() {
            match output {
                RegisterOutput::Send { to, message } => self.out.push_back(Out::Send(to, message)),
                RegisterOutput::Persist(ticket) => self.out.push_back(Out::Persist(ticket)),
                RegisterOutput::Outcome(outcome) => self.on_outcome(cx, outcome),
            }
        }
    }

    // ---- small helpers ------------------------------------------------------------------------------------------

    fn next_nonce(&mut self) -> Nonce {
        // SplitMix64 (Steele, Lea, Flood 2014): a full-period walk, so nonces of one life never repeat.
        self.nonces = self.nonces.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.nonces;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Nonce(z ^ (z >> 31))
    }

    fn next_token(&mut self) -> u64 {
        self.token += 1;
        self.token
    }

    fn tell_mirrors(&mut self, command: &Command) {
        self.serial += 1;
        for mirror in 0..self.config.mirrors {
            let serial = self.serial;
            self.out.push_back(Out::Mirror {
                mirror,
                serial,
                command: command.clone(),
            });
        }
    }

    /// True if every mirror has handled every command so far.
    fn all_taken(&self) -> bool {
        self.replicas
            .iter()
            .all(|replica| replica.taken >= self.serial)
    }

    fn all_mirrors(&self) -> BTreeSet<u8> {
        (0..self.config.mirrors).collect()
    }

    /// The generation that this node's disks surely hold.
    fn generation(&self) -> Generation {
        let held = |r: &Replica| {
            Some(if r.bumped {
                r.attached?.generation
            } else {
                r.attached?.before
            })
        };
        self.replicas
            .iter()
            .filter_map(held)
            .min()
            .unwrap_or_default()
    }

    /// R14: a disk that shows an older generation than the record was restored from a snapshot. A record that holds the
    /// generation of this life can only come from an earlier one, as long as this life took part in nothing.
    fn compare_generations(&mut self, record: &Record) {
        let Some(mine) = record.members.get(&self.me) else {
            return;
        };
        if mutant::on(Mutant::GenerationIgnored) {
            return;
        }
        for replica in &mut self.replicas {
            let Some(attached) = replica.attached else {
                continue;
            };
            let of_this_life = replica.joined && mine.generation <= attached.generation;
            replica.rolled_back |= mine.generation > attached.before && !of_this_life;
        }
    }

    /// What stands against promoting this node's replicas; none if it could take over.
    pub(crate) fn obstacle(&self) -> Option<Obstacle> {
        if self.witness {
            return Some(Obstacle::NotAttached);
        }
        if self.replicas.iter().any(|r| r.failed) {
            return Some(Obstacle::DiskFailed);
        }
        if self.replicas.iter().any(|r| r.attached.is_none()) {
            return Some(Obstacle::NotAttached);
        }
        let Some(record) = self.register.confirmed() else {
            return Some(Obstacle::OutOfSync);
        };
        let Some(mine) = record.members.get(&self.me) else {
            return Some(Obstacle::OutOfSync);
        };
        if self.replicas.iter().any(|r| r.rolled_back) {
            return Some(Obstacle::RolledBack);
        }
        let any = mutant::on(Mutant::PromoteOutOfSync)
            || self.config.asynchronous && mutant::on(Mutant::AsyncPromoted);
        if !record.may_promote(self.me) && !any {
            return Some(Obstacle::OutOfSync);
        }
        if self.replicas.iter().any(|r| !r.consistent) {
            return Some(Obstacle::Inconsistent);
        }
        if self.instance_open && record.active != self.me && !mutant::on(Mutant::InstanceIgnored) {
            return Some(Obstacle::InstanceOpen);
        }
        mine.failed.then_some(Obstacle::FailedHere)
    }

    /// What the node's beats say of this group.
    pub(crate) fn beat(&self, now: Time) -> GroupBeat {
        GroupBeat {
            group: self.id(),
            version: self.register.confirmed().map_or(Version(0), |r| r.version),
            role: self.role(),
            granted: self.lease.granted(now),
            obstacle: self.obstacle(),
        }
    }

    /// The role that people see.
    pub(crate) const fn role(&self) -> Role {
        if self.witness {
            return Role::Witness;
        }
        match (&self.state, self.frozen) {
            (State::Settling | State::Broken, _) => Role::Settling,
            (State::Standby, _) => Role::Standby,
            (State::Taking(_), _) => Role::Promoting,
            (State::Starting(_) | State::Active { .. }, true) => Role::Frozen,
            (State::Starting(_), false) => Role::Promoting,
            (State::Active { .. }, false) => Role::Active,
            (State::Stopping { .. } | State::Leaving { .. }, _) => Role::Demoting,
            (State::Held, _) => Role::Held,
        }
    }

    /// True while this node's mirrors are the active ones of the confirmed record.
    pub(crate) const fn is_serving(&self) -> bool {
        matches!(
            self.state,
            State::Starting(Starting::Mirrors { .. } | Starting::Resource { .. })
                | State::Active { .. }
        )
    }
}

fn register_config(config: &Config, group: GroupId, seed: u64) -> RegisterConfig {
    RegisterConfig {
        me: config.me,
        group,
        members: config.members(),
        retry: config.timing.retry,
        seed,
        voting: config.voting,
    }
}

fn lease_config(config: &Config, group: GroupId) -> LeaseConfig {
    LeaseConfig {
        me: config.me,
        group,
        members: config.members(),
        term: config.timing.lease,
        margin: config.timing.margin,
    }
}

/// The window of a resource's failures that count now.
fn within(failures: &mut VecDeque<Time>, now: Time, window: Duration) -> usize {
    while failures.front().is_some_and(|at| now.since(*at) > window) {
        failures.pop_front();
    }
    failures.len()
}

/// A local request: kept for its answer.
pub(crate) type LocalAsk = (Nonce, GroupRequest, String);

impl Group {
    /// Resources that run here, and the one that is being started or stopped.
    pub(crate) fn resources_running(&self) -> (BTreeSet<u8>, Option<u8>) {
        let changing = match self.state {
            State::Starting(Starting::Resource { resource, .. })
            | State::Active {
                restarting: Some((resource, _)),
            }
            | State::Stopping {
                step: Stopping::Resource { resource, .. },
                ..
            } => Some(resource),
            State::Settling
            | State::Standby
            | State::Taking(_)
            | State::Starting(_)
            | State::Active { .. }
            | State::Stopping { .. }
            | State::Leaving { .. }
            | State::Held
            | State::Broken => None,
        };
        (
            self.running
                .iter()
                .copied()
                .filter(|r| Some(*r) != changing)
                .collect(),
            changing,
        )
    }
}
