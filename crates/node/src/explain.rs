//! Decisions and phases as events: what was seen, which rule fired, what was rejected, how long each phase took (G9).

use wire::event::{Act, Because, Decision, Event, Phase, Rule, Seen, What};
use wire::{GroupId, Time};

/// One transition under way: from its trigger to service being as intended again.
#[derive(Clone, Copy, Debug)]
pub struct Transition {
    /// The chain of events that belong together.
    pub incident: u64,
    /// When it was triggered: for a lost node, the last sign of life.
    pub trigger: Time,
    /// The end of the last phase.
    mark: Time,
}

/// Collects a group's events.
#[derive(Debug)]
pub struct Journal {
    group: GroupId,
    incidents: u64,
    transition: Option<Transition>,
    events: Vec<Event>,
}

impl Journal {
    /// An empty journal of `group`.
    #[must_use]
    pub const fn new(group: GroupId) -> Self {
        Self {
            group,
            incidents: 0,
            transition: None,
            events: Vec::new(),
        }
    }

    /// Begins a transition, unless one is under way: then the new trigger belongs to it.
    pub fn begin(&mut self, trigger: Time) {
        if self.transition.is_none() {
            self.incidents += 1;
            let incident = self.incidents;
            self.transition = Some(Transition {
                incident,
                trigger,
                mark: trigger,
            });
        }
    }

    /// Ends a phase of the transition under way.
    pub fn phase(&mut self, now: Time, phase: Phase) {
        if let Some(transition) = &mut self.transition {
            let took = now.since(transition.mark);
            transition.mark = now;
            self.push(now, What::Phase { phase, took });
        }
    }

    /// Ends the transition: service is as intended.
    pub fn done(&mut self, now: Time) {
        if let Some(transition) = self.transition {
            self.push(
                now,
                What::TransitionDone {
                    took: now.since(transition.trigger),
                },
            );
            self.transition = None;
        }
    }

    /// Forgets the transition under way: it led elsewhere.
    pub fn abandon(&mut self) {
        self.transition = None;
    }

    /// A decision.
    pub fn decide(
        &mut self,
        now: Time,
        act: Act,
        rule: Rule,
        seen: Vec<Seen>,
        rejected: Vec<(Act, Because)>,
    ) {
        self.push(
            now,
            What::Decision(Decision {
                act,
                rule,
                seen,
                rejected,
            }),
        );
    }

    /// Any event.
    pub fn push(&mut self, now: Time, what: What) {
        let incident = self.transition.map_or(0, |t| t.incident);
        self.events.push(Event {
            at: now,
            group: Some(self.group),
            incident,
            what,
        });
    }

    /// Takes the events collected so far.
    pub fn drain(&mut self) -> Vec<Event> {
        core::mem::take(&mut self.events)
    }
}
