//! One member's process: register, lease, and a policy that does what a node may do, often at random.

use super::TERM;
use super::chance::Chance;
use super::checks::Asked;
use cluster::{
    Lease, LeaseConfig, Outcome, Register, RegisterConfig, RegisterInput, RegisterOutput, Ticket,
};
use std::collections::BTreeSet;
use wire::control::{Message, Purpose};
use wire::durable::GroupDurable;
use wire::record::{Intent, Member as Replica, Sync};
use wire::{Duration, Epoch, Generation, GroupId, NodeId, Nonce, Record, Time, Version};

const GROUP: GroupId = GroupId(0);
/// The data nodes; other members only vote.
const DATA: [NodeId; 2] = [NodeId(0), NodeId(1)];

/// What a member keeps on its disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Saved {
    pub(crate) group: GroupDurable,
    term: Duration,
    ticket: Ticket,
}

pub(crate) enum Effect {
    Send { to: NodeId, message: Message },
    Write(Saved),
    Said(Outcome),
    Asked(Asked),
}

pub(crate) struct Member {
    me: NodeId,
    everyone: BTreeSet<NodeId>,
    register: Register,
    lease: Lease,
    serving: bool,
    /// No more mischief: only what brings the service back.
    pub(crate) calm: bool,
    ask_at: Time,
    /// When this member last had a lease, as active.
    leased_at: Time,
    /// When the active was last heard to ask for its lease.
    active_heard: Time,
    not_before: Time,
    ticket: Ticket,
    term_written: Duration,
    effects: Vec<Effect>,
}

impl Member {
    pub(crate) fn new(
        me: NodeId,
        everyone: BTreeSet<NodeId>,
        saved: Saved,
        seed: u64,
        now: Time,
    ) -> Self {
        let config = LeaseConfig {
            me,
            group: GROUP,
            members: everyone.clone(),
            term: TERM,
            margin: Duration::from_millis(30),
        };
        let lease = Lease::new(config, now, saved.term);
        let config = RegisterConfig {
            me,
            group: GROUP,
            members: everyone.clone(),
            retry: Duration::from_millis(50),
            seed,
            voting: true,
        };
        Self {
            me,
            everyone,
            register: Register::new(config, saved.group, now),
            lease,
            serving: false,
            calm: false,
            ask_at: now,
            leased_at: now,
            active_heard: now,
            not_before: now,
            ticket: Ticket(0),
            term_written: saved.term,
            effects: vec![Effect::Asked(Asked::Nothing)],
        }
    }

    pub(crate) fn drain(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(crate) fn serves(&self, now: Time) -> bool {
        self.serving && self.lease.held(now).is_some()
    }

    /// Whose acknowledgement a write needs, and who could be promoted.
    pub(crate) fn sets(&self) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
        (self.register.required(), self.register.could_be_promoted())
    }

    pub(crate) fn on_message(
        &mut self,
        now: Time,
        from: NodeId,
        message: Message,
        chance: &mut Chance,
    ) {
        match message {
            Message::LeaseRequest {
                request,
                term,
                epoch,
                ..
            } => {
                let confirmed = self.register.confirmed();
                if confirmed.is_some_and(|record| record.active == from) {
                    self.active_heard = now;
                }
                let confirmed = confirmed.cloned();
                let grant =
                    self.lease
                        .on_request(now, from, request, term, epoch, confirmed.as_ref());
                self.effects
                    .extend(grant.map(|message| Effect::Send { to: from, message }));
                self.write_term();
            }
            Message::LeaseGrant { request, .. } => self.lease.on_grant(now, from, request),
            message => self.input(now, RegisterInput::Message { from, message }),
        }
        self.act(now, chance);
    }

    pub(crate) fn on_persisted(&mut self, now: Time, saved: &Saved, chance: &mut Chance) {
        self.lease.term_persisted(saved.term);
        self.input(now, RegisterInput::Persisted(saved.ticket));
        self.act(now, chance);
    }

    pub(crate) fn on_tick(&mut self, now: Time, chance: &mut Chance) {
        if self.register.wake_at().is_some_and(|at| at <= now) {
            self.input(now, RegisterInput::Wake);
        }
        self.act(now, chance);
        self.propose(now, chance);
    }

    fn input(&mut self, now: Time, input: RegisterInput) {
        self.register.handle(now, input, &mut self.lease);
        while let Some(output) = self.register.poll() {
            match output {
                RegisterOutput::Send { to, message } => {
                    self.effects.push(Effect::Send { to, message });
                }
                RegisterOutput::Persist(ticket) => {
                    self.ticket = ticket;
                    self.write();
                }
                RegisterOutput::Outcome(outcome) => self.on_outcome(now, outcome),
            }
        }
    }

    fn on_outcome(&mut self, now: Time, outcome: Outcome) {
        self.effects.push(Effect::Said(outcome.clone()));
        match outcome {
            Outcome::Contested(_) => {
                self.stop(now);
                self.input(now, RegisterInput::Wake);
            }
            Outcome::Leased { left, .. } => self.not_before = now + left,
            Outcome::NoMajority => self.not_before = now + Duration::from_millis(100),
            Outcome::Won(_)
            | Outcome::Superseded(_)
            | Outcome::Read(_)
            | Outcome::Learned(_)
            | Outcome::Alarm(_) => {}
        }
    }

    fn write_term(&mut self) {
        if self.lease.longest_term() > self.term_written {
            self.write();
        }
    }

    fn write(&mut self) {
        self.term_written = self.lease.longest_term();
        self.effects.push(Effect::Write(Saved {
            group: self.register.durable().clone(),
            term: self.term_written,
            ticket: self.ticket,
        }));
    }

    fn stop(&mut self, now: Time) {
        self.serving = false;
        self.lease.surrender(now);
    }

    fn is_active(&self) -> bool {
        self.register
            .confirmed()
            .is_some_and(|record| record.active == self.me)
    }

    fn others(&self) -> BTreeSet<NodeId> {
        let mut others = self.register.could_be_promoted();
        others.remove(&self.me);
        others
    }

    /// Serves if it may, asks for the lease if it is due.
    fn act(&mut self, now: Time, chance: &mut Chance) {
        if self.is_active() && self.ask_at <= now {
            self.ask(now, chance);
        }
        let mine = self
            .register
            .unresolved()
            .iter()
            .all(|open| open.active == self.me);
        if !self.is_active() || !mine {
            if self.serving || self.lease.held(now).is_some() {
                self.stop(now);
            }
            return;
        }
        if self.register.needs_barrier() || !self.lease.own_grants_over(now) {
            return;
        }
        let others = self.others();
        if others.is_empty() {
            self.lease.hold(Time::MAX);
        } else if let Some(until) = self.lease.until(&others) {
            self.lease.hold(until);
        } else if self.lease.held(now).is_some_and(|left| left > TERM) {
            self.stop(now);
        }
        self.serving = self.lease.held(now).is_some();
        if self.serving {
            self.leased_at = now;
        }
    }

    fn ask(&mut self, now: Time, chance: &mut Chance) {
        let Some(epoch) = self.register.confirmed().map(|record| record.epoch) else {
            return;
        };
        self.ask_at = now + Duration::from_millis(200);
        let request = Nonce(chance.next());
        let term = self.lease.request(now, request);
        for to in self.everyone.iter().copied().filter(|to| *to != self.me) {
            let message = Message::LeaseRequest {
                group: GROUP,
                request,
                term,
                epoch,
            };
            self.effects.push(Effect::Send { to, message });
        }
    }

    /// Changes of the record: those that are needed, and, unless calm, some that are not.
    fn propose(&mut self, now: Time, chance: &mut Chance) {
        if !self.calm && chance.one_in(400) {
            self.register.give_up();
            self.effects.push(Effect::Asked(Asked::Nothing));
        }
        if !self.register.is_idle() || now < self.not_before {
            return;
        }
        let nonce = Nonce(chance.next());
        let Some(known) = self.register.confirmed().cloned() else {
            let read = !DATA.contains(&self.me) || chance.one_in(2);
            if read {
                self.read(now)
            } else {
                self.change(now, first(self.me, nonce), Purpose::Keep)
            }
            return;
        };
        let next = known.successor(nonce);
        if known.active == self.me {
            self.propose_as_active(now, next, chance);
        } else if known.may_promote(self.me) && self.wants_to_take_over(now, chance) {
            self.change(now, taken_over(next, self.me), Purpose::Takeover);
        } else if chance.one_in(if self.calm { 50 } else { 200 }) {
            self.read(now);
        }
    }

    fn wants_to_take_over(&self, now: Time, chance: &mut Chance) -> bool {
        let silent = now.since(self.active_heard) > TERM / 2;
        if self.calm {
            now.since(self.active_heard) > TERM * 4
        } else {
            silent || chance.one_in(300)
        }
    }

    fn propose_as_active(&mut self, now: Time, mut next: Record, chance: &mut Chance) {
        next.intent = Intent::Serve;
        let stuck = now.since(self.leased_at) > TERM * 2;
        if self.register.needs_barrier() || (stuck && chance.one_in(20)) {
            self.change(now, next, Purpose::Keep);
            return;
        }
        if self.calm || !chance.one_in(60) {
            return;
        }
        if chance.one_in(4) {
            self.read(now);
            return;
        }
        let other = *chance.pick(&DATA);
        if other == self.me {
            self.change(now, next, Purpose::Keep);
        } else if !next.may_promote(other) {
            self.grow(now, next, other);
        } else if chance.one_in(2) {
            set(&mut next, other, Sync::Out);
            self.change(now, next, Purpose::Keep);
        } else {
            next.active = other;
            next.intent = Intent::Handover { from: self.me };
            if !chance.one_in(3) {
                self.stop(now);
            }
            self.change(now, next, Purpose::Keep);
        }
    }

    /// R8: a solo active gets a lease with an end before it proposes to grow.
    fn grow(&mut self, now: Time, mut next: Record, other: NodeId) {
        let others = BTreeSet::from([other]);
        let Some(until) = self.lease.until(&others).filter(|until| *until > now) else {
            return;
        };
        self.lease.hold(until);
        set(&mut next, other, Sync::InSync);
        self.change(now, next, Purpose::Keep);
    }

    fn change(&mut self, now: Time, record: Record, purpose: Purpose) {
        let base = self.register.confirmed().map(|record| record.nonce);
        self.effects.push(Effect::Asked(Asked::Change {
            nonce: record.nonce,
            base,
        }));
        self.input(now, RegisterInput::Propose { record, purpose });
    }

    fn read(&mut self, now: Time) {
        self.effects.push(Effect::Asked(Asked::Read));
        self.input(now, RegisterInput::Read);
    }
}

fn first(active: NodeId, nonce: Nonce) -> Record {
    let replica = Replica {
        sync: Sync::InSync,
        generation: Generation(1),
        failed: false,
    };
    Record {
        version: Version(1),
        epoch: Epoch(1),
        active,
        members: DATA.map(|node| (node, replica)).into(),
        intent: Intent::Serve,
        nonce,
    }
}

/// R3: after a failure the new active is alone in sync.
fn taken_over(mut next: Record, me: NodeId) -> Record {
    next.active = me;
    next.intent = Intent::Serve;
    for (node, replica) in &mut next.members {
        replica.sync = if *node == me { Sync::InSync } else { Sync::Out };
    }
    next
}

fn set(record: &mut Record, node: NodeId, sync: Sync) {
    if let Some(replica) = record.members.get_mut(&node) {
        replica.sync = sync;
    }
}
