//! One file per promise. A checker sees what the world knows and no node does.

pub(crate) mod acked_survives;
pub(crate) mod address_on_one_node;
pub(crate) mod async_bound;
pub(crate) mod async_prefix;
pub(crate) mod async_put_aside;
pub(crate) mod epochs_rise;
pub(crate) mod fenced_before_promotion;
pub(crate) mod inconsistent_never_promoted;
pub(crate) mod instance_not_revived;
pub(crate) mod lease_bounds_answers;
pub(crate) mod one_failover_per_fault;
pub(crate) mod one_writer;
pub(crate) mod replicas_equal_after_healing;
pub(crate) mod service_back;
pub(crate) mod witness_loss_stops_nothing;

use crate::clock::Moment;
use core::fmt;

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which checker noticed.
    pub checker: &'static str,
    /// What it saw.
    pub what: String,
    /// When, in true time.
    pub at: Moment,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:?}: {}", self.checker, self.at, self.what)
    }
}

/// The checkers that remember something.
#[derive(Debug, Default)]
pub(crate) struct Checkers {
    pub(crate) one_writer: one_writer::OneWriter,
    pub(crate) epochs_rise: epochs_rise::EpochsRise,
    pub(crate) fenced: fenced_before_promotion::FencedBeforePromotion,
    pub(crate) one_failover: one_failover_per_fault::OneFailover,
    /// Freezes of an active so far.
    pub(crate) freezes: u64,
    /// Grows and takeovers decided on, and resyncs begun, so far.
    pub(crate) grows: u64,
    pub(crate) takeovers: u64,
    pub(crate) resyncs: u64,
    /// Chunks sent in resyncs.
    pub(crate) chunks: u64,
    /// Takeovers after which something that was acknowledged was missing.
    pub(crate) cut_off: u64,
    /// Requests of the application answered well, and when the latest was.
    pub(crate) answered: u64,
    pub(crate) last_answer: Moment,
    /// The longest time without an answer since this was last set to zero.
    pub(crate) longest_gap: wire::Duration,
}

impl Checkers {
    /// The application got a good answer.
    pub(crate) fn answered(&mut self, now: Moment) {
        self.longest_gap = self.longest_gap.max(now.since(self.last_answer));
        self.last_answer = now;
        self.answered += 1;
    }
}
