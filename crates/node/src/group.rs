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
mod force;
mod record;
mod sets;
mod standby;
mod standing;
mod start;
mod state;
mod stop;

use crate::config::{Config, GroupConfig, NodeRole, Timing};
use crate::explain::Journal;
use crate::io::ResourceAct;
use cluster::lease::{Lease, LeaseConfig};
use cluster::links::Links;
use cluster::register::{Register, RegisterConfig, RegisterInput, RegisterOutput, Ticket};
use mirror::control::{Command, Report};
pub(crate) use state::State;
use state::{AfterFence, Attached, Pending, Replica, Starting, StopWhy, Stopping, Taking};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wire::control::{GroupBeat, GroupRequest, Message, RequestFault};
use wire::durable::{Durable, GroupDurable};
use wire::event::What;
use wire::layout::ReplicaState;
use wire::mutant::{self, Mutant};
use wire::{Duration, Epoch, GroupId, NodeId, Nonce, Time, Version};

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
    /// It was found running, and not every resource of it was started here yet.
    half_adopted: bool,
    /// Since when, at least, the record has this node's replicas out; none while they may be promoted.
    pub(crate) out_since: Option<Time>,
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
    /// When a person's word that the active is off holds no more: what it did not bring about by then is given up.
    forced_until: Time,
    /// What gate and device were told last.
    lease_told: Time,
    frozen: bool,
    /// Since when it is frozen, or is not.
    frozen_at: Time,
    /// Resources that run, in the order of their starting.
    running: Vec<u8>,
    failures: Vec<VecDeque<Time>>,
    /// Resources that failed while nothing could be done about it: while frozen, or while another was being started.
    failed_waiting: BTreeSet<u8>,
    pub(crate) peers: BTreeMap<NodeId, (Time, GroupBeat)>,
    pub(crate) no_majority: bool,
    /// A majority was asked for the newest record in this life: until then, nothing is said to the mirrors (R14).
    asked_majority: bool,
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
            half_adopted: false,
            out_since: None,
            seen: Version(0),
            pending: None,
            mates: BTreeMap::new(),
            deposed: None,
            growing: None,
            sets_sent: None,
            retry_at: Time::ZERO,
            forced_until: Time::ZERO,
            lease_told: Time::ZERO,
            frozen: false,
            frozen_at: now,
            running: Vec::new(),
            failures: vec![VecDeque::new(); group.resources.len()],
            failed_waiting: BTreeSet::new(),
            peers: BTreeMap::new(),
            no_majority: false,
            asked_majority: false,
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
            Message::Ask {
                id,
                request,
                reason,
                ..
            } => self.on_ask_from(cx, from, (id, request, reason)),
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
        self.half_adopted = true;
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
            Report::AttachFailed { wrong, .. } => {
                self.on_wrong_disk(mirror, wrong);
                self.on_local_failed(cx, mirror, None);
            }
            Report::CannotFollow { why } => self.on_wrong_disk(mirror, Some(why)),
            Report::LocalFailed { errno } => self.on_local_failed(cx, mirror, errno),
            Report::Following { consistent, .. } => {
                if let Some(replica) = self.replicas.get_mut(usize::from(mirror)) {
                    replica.joined = true;
                    replica.consistent = consistent;
                    replica.held_back = None;
                    replica.wrong = None;
                }
            }
            Report::Unreadable { range, mended } => self.journal.push(
                cx.now,
                What::Unreadable {
                    mirror,
                    range,
                    mended,
                },
            ),
            Report::UndoLost { why } => {
                self.journal.push(cx.now, What::UndoLost { mirror, why });
            }
            Report::Grown { data } => self.note_grown(cx, mirror, (data, None)),
            Report::NotGrown { data, why } => self.note_grown(cx, mirror, (data, Some(why))),
            Report::Fenced => self.on_fenced(mirror),
            Report::PutAside { ranges, bytes } => self.on_put_aside(cx, mirror, &ranges, bytes),
            Report::HeldBack { bytes } => self.on_held_back(mirror, Some(bytes)),
            Report::LetGo(held) => self.on_let_go(cx, mirror, &held),
            Report::Serving { .. } => self.on_serving(cx, mirror),
            Report::Drained => self.on_mirror_stopped(mirror),
            Report::Closed => self.on_mirror_closed(mirror),
            Report::PeerLost { .. }
            | Report::PeerBack { .. }
            | Report::PeerBehind { .. }
            | Report::PeerWithin { .. }
            | Report::ResyncStarted { .. }
            | Report::Verified { .. }
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
        if matches!(self.state, State::Taking(_)) && self.forced_until > now {
            at = at.min(self.forced_until);
        }
        if matches!(self.state, State::Standby)
            && let Some((_, left)) = self.lease.takeover_obstacle(now, self.me)
        {
            at = at.min(now + left);
        }
        at
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
                State::Active { .. } => self.judge_waiting(cx),
                State::Held | State::Broken => {}
            }
            if self.is_serving() {
                self.drive_sets(cx);
            } else if let Some(heir) = self.ends_in_order() {
                self.shed(cx, heir);
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

    /// A command to one mirror that nothing waits for: it has the number of the last one to all.
    fn tell_mirror(&mut self, mirror: u8, command: Command) {
        let serial = self.serial;
        self.out.push_back(Out::Mirror {
            mirror,
            serial,
            command,
        });
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
