//! G8: one fault moves the group at most once.

use std::collections::BTreeSet;
use wire::{NodeId, Record, Version};

/// Its name in reports.
pub(crate) const NAME: &str = "one_failover_per_fault";

/// Counts changes of the active node.
#[derive(Debug, Default)]
pub(crate) struct OneFailover {
    seen: BTreeSet<Version>,
    active: Option<(Version, NodeId)>,
    /// Changes in the whole run.
    pub(crate) moves: u64,
    /// Changes since the latest fault.
    since_fault: u64,
}

impl OneFailover {
    /// A decided record was learned.
    pub(crate) fn saw(&mut self, record: &Record) {
        if !self.seen.insert(record.version) {
            return;
        }
        match self.active {
            Some((version, _)) if version >= record.version => {}
            Some((_, active)) if active == record.active => {
                self.active = Some((record.version, active));
            }
            Some(_) => {
                self.active = Some((record.version, record.active));
                self.moves += 1;
                self.since_fault += 1;
            }
            None => self.active = Some((record.version, record.active)),
        }
    }

    /// A new fault is made: what moved until here belongs to the one before.
    pub(crate) fn begin_fault(&mut self) {
        self.since_fault = 0;
    }

    /// Judged when everything is well again after `fault`.
    pub(crate) fn check(&self, fault: &str) -> Result<(), String> {
        if self.since_fault <= 1 {
            return Ok(());
        }
        Err(format!(
            "{fault} moved the group {} times",
            self.since_fault
        ))
    }
}
