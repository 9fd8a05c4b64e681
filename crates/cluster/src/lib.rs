//! Who is heard, who may be active, and until when: the split-brain arbiter, without clock, socket or file.
//!
//! Three machines, each driven by the shell above with the time as a value:
//!
//! - [`links`] turns signs of life on every heartbeat link into "up" and "suspect". It decides nothing.
//! - [`register`] holds one [`wire::Record`] per group and changes it only by compare-and-swap among the register's members
//!   (CASPaxos, Rystsov 2018: a linearizable register without a log and without a leader). It is made of an acceptor (what
//!   this member promised and accepted, durable) and a proposer (what this member wants changed).
//! - [`lease`] says until when the active may serve (R8), and holds what this member granted to others.
//!
//! **How register and lease meet.** [`register::Register::handle`] borrows the group's [`lease::Lease`] mutably: an acceptor
//! supports no takeover while a grant runs, and from the moment it supports one the lease on this member grants nothing to
//! others and counts nothing for itself. Both happen in one step, so no order of calls can open a gap. A lease that has not
//! met its register yet ([`register::Register::wake_at`] asks for that first step at once) grants nothing.
//!
//! **What must be durable first.** A reply of the acceptor, and every `Accept` of the proposer, leaves only after the shell
//! handed back the persist ticket that covers it. A lease term longer than any before is granted only after
//! [`lease::Lease::term_persisted`].
#![forbid(unsafe_code)]

pub mod lease;
pub mod links;
pub mod register;

mod acceptor;
mod chance;
mod proposer;
#[cfg(test)]
mod sample;

pub use lease::{Lease, LeaseConfig};
pub use links::{LinkChange, Links, LinksConfig};
pub use register::{Outcome, Register, RegisterConfig, RegisterInput, RegisterOutput, Ticket};

/// More than half of `members`.
#[must_use]
pub const fn majority(members: usize) -> usize {
    members / 2 + 1
}
