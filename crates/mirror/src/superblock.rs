//! The superblock as it should be, and how far that is durable.

use wire::layout::{Layout, Slot, Superblock};
use wire::mutant::{self, Bug};

/// A state of the superblock that somebody waits for; durable once [`Super::is_durable`] says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

#[derive(Debug)]
pub(crate) struct Super {
    want: Superblock,
    /// Rises with each change of `want`. Invariant: durable <= writing <= wanted.
    wanted: Ticket,
    writing: Option<Ticket>,
    durable: Ticket,
    /// Of the newest block written or being written.
    sequence: u64,
    /// Where it is.
    slot: Slot,
}

impl Super {
    /// `read` was found durable at `slot` with `sequence`.
    pub(crate) const fn new(read: Superblock, slot: Slot, sequence: u64) -> Self {
        Self {
            want: read,
            wanted: Ticket(0),
            writing: None,
            durable: Ticket(0),
            sequence,
            slot,
        }
    }

    /// The superblock as wanted; durable or on its way.
    pub(crate) const fn get(&self) -> &Superblock {
        &self.want
    }

    /// Changes the wanted superblock. The ticket is for waiting until that is durable.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Superblock)) -> Ticket {
        let before = self.want.clone();
        change(&mut self.want);
        if self.want != before {
            self.wanted = Ticket(self.wanted.0 + 1);
        }
        self.wanted
    }

    pub(crate) fn is_durable(&self, ticket: Ticket) -> bool {
        self.durable >= ticket || mutant::has(Bug::EpochNotDurable)
    }

    /// True if everything wanted is durable.
    pub(crate) fn is_settled(&self) -> bool {
        self.durable == self.wanted || mutant::has(Bug::EpochNotDurable)
    }

    /// The write that is due, if any: (byte offset, block). One at a time, alternately to both places.
    pub(crate) fn next_write(&mut self, disk_bytes: u64) -> Option<(u64, Vec<u8>)> {
        if self.writing.is_some() || self.durable == self.wanted {
            return None;
        }
        self.writing = Some(self.wanted);
        self.sequence += 1;
        self.slot = self.slot.other();
        let block = self.want.seal(self.sequence);
        Some((Layout::super_offset(disk_bytes, self.slot), block.to_vec()))
    }

    /// The write under way is durable.
    pub(crate) const fn written(&mut self) {
        if let Some(ticket) = self.writing.take() {
            self.durable = ticket;
        }
    }
}
