//! Figures for status and metrics, as often as somebody may want them.

use host::clock;
use mirror::Replica;
use mirror::control::Figures;
use mirror::survey::Survey;
use std::sync::{Arc, Mutex, PoisonError};
use wire::{Duration, Time};

/// How often figures are published.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// Puts the replica's figures where others see them.
#[derive(Debug)]
pub(super) struct Publisher {
    shared: Arc<Mutex<Figures>>,
    due: Time,
    survey: Survey,
}

impl Publisher {
    pub(super) fn new(shared: Arc<Mutex<Figures>>) -> Self {
        Self {
            shared,
            due: Time::ZERO,
            survey: Survey::default(),
        }
    }

    /// Publishes, if it is time.
    pub(super) fn publish(&mut self, replica: &Replica) {
        let now = clock::now();
        if now < self.due {
            return;
        }
        self.due = now + PAUSE;
        self.survey.step(replica);
        self.refresh(replica);
    }

    /// Publishes now: before something is reported, so that nobody sees a report's consequences beside figures from before it.
    pub(super) fn refresh(&self, replica: &Replica) {
        let mut figures = replica.figures();
        figures.differing = self.survey.last().clone();
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = figures;
    }
}
