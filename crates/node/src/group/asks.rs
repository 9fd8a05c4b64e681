//! What people ask: moved, stopped, started; passed on to the active where needed.

use super::{Around, Group, LocalAsk, Out, Pending, State, StopWhy};
use mirror::control::Command;
use std::collections::{BTreeMap, VecDeque};
use wire::control::{GroupRequest, Message, RequestFault};
use wire::event::{Ungrown, What};
use wire::record::{Hold, Intent};
use wire::{ByteCount, Duration, Epoch, NodeId, Nonce, Time};

/// How long a request is passed on before it is answered with "no active".
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Answers kept, so that a repeated request gets the same one.
const ANSWERS_MAX: usize = 16;

/// Requests on their way.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    /// Asked here, passed on to the active.
    waiting: BTreeMap<Nonce, PassedOn>,
    /// Answers given to other nodes.
    answered: VecDeque<(Nonce, Result<(), RequestFault>)>,
}

#[derive(Debug)]
struct PassedOn {
    request: GroupRequest,
    reason: String,
    give_up_at: Time,
}

impl Group {
    /// A person asks on this node.
    pub(crate) fn on_ask(&mut self, cx: Around<'_>, (id, request, reason): LocalAsk) {
        let carrier = self.carrier(request);
        let result = if carrier == Some(self.me) {
            self.carry_out(cx, request)
        } else if carrier.is_some_and(|node| cx.links.is_up(cx.now, node)) {
            let passed_on = PassedOn {
                request,
                reason: reason.clone(),
                give_up_at: cx.now + ASK_TIMEOUT,
            };
            self.asks.waiting.insert(id, passed_on);
            Ok(())
        } else {
            Err(nobody_for(request))
        };
        let asked = What::Asked {
            request,
            reason,
            result,
        };
        self.journal.push(cx.now, asked);
        if self.asks.waiting.contains_key(&id) {
            self.resend_asks(cx);
        } else {
            self.out.push_back(Out::Answer(id, result));
        }
        self.drive(cx);
    }

    /// Who carries a request out: the active. What a person confirms of one node's replica is not passed on: it might be carried
    /// out after the asking node gave up, and said so.
    fn carrier(&self, request: GroupRequest) -> Option<NodeId> {
        match request {
            GroupRequest::Demote { node, .. } | GroupRequest::Promote { node, .. } => {
                (node == self.me).then_some(node)
            }
            GroupRequest::Move(_)
            | GroupRequest::Start
            | GroupRequest::Stop
            | GroupRequest::Verify { .. }
            | GroupRequest::Grow { .. }
            | GroupRequest::Resync { .. } => self.register.confirmed().map(|r| r.active),
        }
    }

    pub(super) fn resend_asks(&mut self, cx: Around<'_>) {
        let over = |waiting: &PassedOn| waiting.give_up_at <= cx.now;
        let waiting = std::mem::take(&mut self.asks.waiting);
        let (over, waiting) = waiting.into_iter().partition(|(_, w)| over(w));
        self.asks.waiting = waiting;
        let over: BTreeMap<Nonce, PassedOn> = over;
        for (id, given_up) in over {
            let result = Err(nobody_for(given_up.request));
            self.out.push_back(Out::Answer(id, result));
        }
        let group = self.id();
        for (id, waiting) in &self.asks.waiting {
            let message = Message::Ask {
                id: *id,
                group,
                request: waiting.request,
                reason: waiting.reason.clone(),
            };
            if let Some(to) = self.carrier(waiting.request) {
                self.out.push_back(Out::Send(to, message));
            }
        }
    }

    pub(super) fn on_answer(&mut self, id: Nonce, result: Result<(), RequestFault>) {
        if self.asks.waiting.remove(&id).is_some() {
            self.out.push_back(Out::Answer(id, result));
        }
    }

    /// Another node passes a person's request on.
    pub(super) fn on_ask_from(
        &mut self,
        cx: Around<'_>,
        from: NodeId,
        (id, request, reason): LocalAsk,
    ) {
        let known = self
            .asks
            .answered
            .iter()
            .find(|(known, _)| *known == id)
            .map(|(_, r)| *r);
        let result = known.unwrap_or_else(|| {
            let result = match request {
                GroupRequest::Demote { node, .. } | GroupRequest::Promote { node, .. } => {
                    Err(RequestFault::AskThere(node))
                }
                GroupRequest::Move(_)
                | GroupRequest::Start
                | GroupRequest::Stop
                | GroupRequest::Verify { .. }
                | GroupRequest::Grow { .. }
                | GroupRequest::Resync { .. } => self.carry_out(cx, request),
            };
            self.journal.push(
                cx.now,
                What::Asked {
                    request,
                    reason,
                    result,
                },
            );
            self.asks.answered.push_back((id, result));
            if self.asks.answered.len() > ANSWERS_MAX {
                self.asks.answered.pop_front();
            }
            result
        });
        self.out
            .push_back(Out::Send(from, Message::Answer { id, result }));
    }

    /// Begins what was asked, or says why not. The end of it is seen in the status.
    fn carry_out(&mut self, cx: Around<'_>, request: GroupRequest) -> Result<(), RequestFault> {
        match request {
            GroupRequest::Move(to) => self.ask_move(cx, to),
            GroupRequest::Stop => match self.state {
                State::Held => Err(RequestFault::Already),
                State::Active { restarting: None } if self.pending.is_none() => {
                    self.begin_stop(cx, StopWhy::Hold(Hold::Stopped));
                    Ok(())
                }
                State::Settling
                | State::Standby
                | State::Taking(_)
                | State::Starting(_)
                | State::Active { .. }
                | State::Stopping { .. }
                | State::Leaving { .. }
                | State::Broken => Err(RequestFault::Busy),
            },
            GroupRequest::Verify { mirror, repair } => self.ask_verify(mirror, repair),
            GroupRequest::Grow { mirror, data } => self.ask_grow(mirror, data),
            GroupRequest::Resync { mirror, node, full } => {
                self.ask_resync(cx, mirror, (node, full))
            }
            GroupRequest::Demote {
                mirror,
                node,
                bytes,
                epoch,
            } => self.ask_demote(mirror, node, (bytes, epoch)),
            GroupRequest::Promote { node, off, epoch } => self.ask_promote(cx, node, (off, epoch)),
            GroupRequest::Start => match self.state {
                State::Held => self.ask_start(cx),
                State::Active { .. } => Err(RequestFault::Already),
                State::Settling
                | State::Standby
                | State::Taking(_)
                | State::Starting(_)
                | State::Stopping { .. }
                | State::Leaving { .. }
                | State::Broken => Err(RequestFault::Busy),
            },
        }
    }

    /// Every other replica that holds everything is compared with the one here.
    fn ask_verify(&mut self, mirror: u8, repair: bool) -> Result<(), RequestFault> {
        if !matches!(self.state, State::Active { .. }) {
            return Err(RequestFault::NoActive);
        }
        let in_sync = self.register.confirmed().map(wire::Record::in_sync);
        let mut others = in_sync.unwrap_or_default();
        others.retain(|node| *node != self.me);
        if others.is_empty() || mirror >= self.config.mirrors {
            return Err(RequestFault::NoTarget);
        }
        for node in others {
            self.tell_mirror(mirror, Command::Verify { node, repair });
        }
        Ok(())
    }

    /// Whether every replica is there and has room, the mirror finds out; what came of it is in its figures and the event log.
    fn ask_grow(&mut self, mirror: u8, data: Option<ByteCount>) -> Result<(), RequestFault> {
        if !matches!(self.state, State::Active { .. }) {
            return Err(RequestFault::NoActive);
        }
        if mirror >= self.config.mirrors {
            return Err(RequestFault::NoTarget);
        }
        self.tell_mirror(mirror, Command::Grow { data });
        Ok(())
    }

    pub(super) fn note_grown(
        &mut self,
        cx: Around<'_>,
        mirror: u8,
        (data, why): (ByteCount, Option<Ungrown>),
    ) {
        self.journal.push(cx.now, What::Grown { mirror, data, why });
    }

    /// Standbys are made equal without waiting for the next try. One that may be promoted stays so: in full, it is compared
    /// and repaired as it is.
    fn ask_resync(
        &mut self,
        cx: Around<'_>,
        mirror: u8,
        (node, full): (Option<NodeId>, bool),
    ) -> Result<(), RequestFault> {
        if !matches!(self.state, State::Active { .. }) {
            return Err(RequestFault::NoActive);
        }
        if mirror >= self.config.mirrors {
            return Err(RequestFault::NoTarget);
        }
        let (whole, behind) = self.resync_targets(node)?;
        for node in &behind {
            if let Some(fault) = self.resync_fault(cx, *node) {
                return Err(fault);
            }
        }
        match (whole.as_slice(), full) {
            (_, false) if behind.is_empty() => return Err(RequestFault::Already),
            ([_, _, ..], true) => return Err(RequestFault::NameOne),
            (_, false) | ([] | [_], true) => {}
        }
        // One that is about to count is not made a mixture any more: nothing would come of it.
        let counting = self.register.could_be_promoted();
        let joins = |node: &NodeId| self.growing == Some(*node) || counting.contains(node);
        if full && behind.iter().any(joins) {
            return Err(RequestFault::Busy);
        }
        for node in behind {
            self.tell_mirror(mirror, Command::Resync { node, full });
        }
        let repair = true;
        for node in whole.into_iter().filter(|_| full) {
            self.tell_mirror(mirror, Command::Verify { node, repair });
        }
        Ok(())
    }

    /// The other replicas that may be promoted, and those that may not; or the one that is named.
    fn resync_targets(
        &self,
        named: Option<NodeId>,
    ) -> Result<(Vec<NodeId>, Vec<NodeId>), RequestFault> {
        let wanted = |id: &NodeId| *id != self.me && named.is_none_or(|node| node == *id);
        let others: Vec<NodeId> = self.config.members.iter().copied().filter(wanted).collect();
        if others.is_empty() {
            return Err(RequestFault::NoTarget);
        }
        let counted = self.register.confirmed().map(wire::Record::promotable);
        let counted = counted.unwrap_or_default();
        Ok(others.into_iter().partition(|id| counted.contains(id)))
    }

    /// Why a standby cannot be made equal now: a person has to do something there first.
    fn resync_fault(&self, cx: Around<'_>, node: NodeId) -> Option<RequestFault> {
        if !cx.links.is_up(cx.now, node) {
            return Some(RequestFault::Silent(node));
        }
        let said = self.peers.get(&node).and_then(|(_, beat)| beat.obstacle);
        let said = said.filter(crate::problems::needs_a_person);
        said.map(|obstacle| RequestFault::Target(node, obstacle))
    }

    /// What is held back here is let go, if it is what the person was shown.
    fn ask_demote(
        &mut self,
        mirror: u8,
        node: NodeId,
        (bytes, epoch): (ByteCount, Epoch),
    ) -> Result<(), RequestFault> {
        let replica = self.replicas.get(usize::from(mirror));
        let held = replica.and_then(|it| it.held_back);
        let held = held.filter(|_| node == self.me);
        let held = held.ok_or(RequestFault::NotHeldBack(node))?;
        if held != bytes {
            return Err(RequestFault::OtherHeldBack(node, held));
        }
        if self.register.confirmed().map(|r| r.epoch) != Some(epoch) {
            return Err(RequestFault::OtherRecord);
        }
        if self.state != State::Standby {
            return Err(RequestFault::Busy);
        }
        self.tell_mirror(mirror, Command::Demote);
        Ok(())
    }

    fn ask_move(&mut self, cx: Around<'_>, to: Option<NodeId>) -> Result<(), RequestFault> {
        if self
            .register
            .confirmed()
            .is_none_or(|r| r.active != self.me)
        {
            return Err(RequestFault::NoActive);
        }
        if !matches!(self.state, State::Active { restarting: None }) || self.pending.is_some() {
            return Err(RequestFault::Busy);
        }
        if to == Some(self.me) {
            return Err(RequestFault::Already);
        }
        let to = match to {
            Some(node) => match self.target_fault(cx, node) {
                Some(fault) => return Err(RequestFault::Target(node, fault)),
                None => node,
            },
            None => self.best_target(cx).ok_or(RequestFault::NoTarget)?,
        };
        self.journal.begin(cx.now);
        let act = wire::event::Act::HandOver(to);
        self.journal.decide(
            cx.now,
            act,
            wire::event::Rule::Asked,
            Vec::new(),
            Vec::new(),
        );
        self.begin_stop(cx, StopWhy::HandOver { to, failed: false });
        Ok(())
    }

    fn ask_start(&mut self, cx: Around<'_>) -> Result<(), RequestFault> {
        let Some(record) = self.register.confirmed().cloned() else {
            return Err(RequestFault::NoActive);
        };
        if self.pending.is_some() {
            return Err(RequestFault::Busy);
        }
        self.clear_failures();
        if self.unfit_to_serve().is_some() {
            let to = self.best_target(cx).ok_or(RequestFault::NoTarget)?;
            self.journal.begin(cx.now);
            self.stop_for_disk(cx, to);
            return Ok(());
        }
        let nonce = self.next_nonce();
        let mut next = record.successor(nonce);
        next.intent = Intent::Serve;
        for member in next.members.values_mut() {
            member.failed = false;
        }
        self.journal.begin(cx.now);
        self.propose(cx, next, Pending::Unhold);
        Ok(())
    }
}

/// The answer when who is to carry a request out is not there.
const fn nobody_for(request: GroupRequest) -> RequestFault {
    match request {
        GroupRequest::Demote { node, .. } | GroupRequest::Promote { node, .. } => {
            RequestFault::AskThere(node)
        }
        GroupRequest::Move(_)
        | GroupRequest::Start
        | GroupRequest::Stop
        | GroupRequest::Verify { .. }
        | GroupRequest::Grow { .. }
        | GroupRequest::Resync { .. } => RequestFault::NoActive,
    }
}
