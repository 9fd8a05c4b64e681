//! The lease's end in the kernel: the address gate of each group (R12), and the keeper that acts when the daemon cannot.

use crate::failure::Failure;
use host::nft::{Gate, GatePlan, Passage};
use wire::{Duration, Time};

/// A solo active's lease has no end, but the kernel's timeout has: a dead daemon's address falls silent after this time.
const SOLO_TIMEOUT: Duration = Duration::from_secs(10);

/// One group's gate.
#[derive(Debug)]
pub(super) struct AddressGate {
    gate: Gate,
    until: Time,
    open: bool,
}

impl AddressGate {
    /// Sets the gate up; closed, unless an earlier daemon left it open.
    pub(super) fn install(plan: &GatePlan) -> Result<Self, Failure> {
        let gate = Gate::install(plan).map_err(|error| {
            Failure::new(format!(
                "cannot set up the address gate of group {}",
                plan.group
            ))
            .from_error(&error)
            .hint("Backstay needs nftables and the rights of root")
        })?;
        Ok(Self {
            gate,
            until: Time::ZERO,
            open: false,
        })
    }

    /// The node's word on the lease.
    pub(super) fn lease(&mut self, now: Time, until: Time) {
        self.until = until;
        if until <= now {
            self.open = false;
            if let Err(error) = self.gate.close() {
                tracing::warn!(%error, "the address gate could not be closed; its timeout ends it");
            }
            return;
        }
        self.refresh(now);
    }

    /// Called with every beat: a lease without an end needs its timeout renewed.
    pub(super) fn refresh(&mut self, now: Time) {
        if self.until <= now {
            return;
        }
        let until = self.until.min(now + SOLO_TIMEOUT);
        let moved = if self.open {
            self.gate.renew(until)
        } else {
            self.gate.open(until)
        };
        match moved {
            Ok(Passage::Open) => self.open = true,
            Ok(Passage::Closed) => {
                // It had timed out: whoever still has the lease opens it again.
                self.open = false;
                if self.until > host::clock::now() {
                    self.open = matches!(self.gate.open(until), Ok(Passage::Open));
                }
            }
            Err(error) => tracing::warn!(%error, "the address gate could not be renewed"),
        }
    }
}
