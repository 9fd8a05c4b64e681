//! The buffers that the replica names.

use host::ring::{Buf, Frozen};
use mirror::io::BufId;
use std::collections::HashMap;

/// A buffer's content.
#[derive(Debug)]
enum Slot {
    /// To be filled by a read.
    Empty(Buf),
    /// Being filled: the ring has it.
    Away,
    /// Stable: may be written and sent at the same time.
    Full(Frozen),
}

/// All buffers in use, by the machine's names.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    slots: HashMap<BufId, Slot>,
    next: u64,
}

impl Buffers {
    /// A buffer to be read into, for a front end.
    pub(super) fn empty(&mut self, len: u64) -> BufId {
        let id = self.fresh();
        self.alloc(id, len);
        id
    }

    /// A buffer with content, from a front end or a peer.
    pub(super) fn full(&mut self, bytes: Buf) -> BufId {
        let id = self.fresh();
        self.slots.insert(id, Slot::Full(bytes.freeze()));
        id
    }

    /// A buffer that the machine named itself.
    pub(super) fn alloc(&mut self, id: BufId, len: u64) {
        let len = usize::try_from(len).unwrap_or(0);
        self.slots.insert(id, Slot::Empty(Buf::new(len)));
    }

    /// Takes a buffer for a read.
    pub(super) fn take(&mut self, id: BufId) -> Option<Buf> {
        let slot = self.slots.get_mut(&id)?;
        match std::mem::replace(slot, Slot::Away) {
            Slot::Empty(buf) => Some(buf),
            Slot::Full(frozen) => frozen.try_unfreeze(),
            Slot::Away => None,
        }
    }

    /// A read filled the buffer.
    pub(super) fn fill(&mut self, id: BufId, buf: Buf) {
        if let Some(slot) = self.slots.get_mut(&id) {
            *slot = Slot::Full(buf.freeze());
        }
    }

    /// The stable content.
    pub(super) fn content(&self, id: BufId) -> Option<Frozen> {
        match self.slots.get(&id)? {
            Slot::Full(frozen) => Some(frozen.clone()),
            Slot::Empty(_) | Slot::Away => None,
        }
    }

    pub(super) fn release(&mut self, id: BufId) {
        self.slots.remove(&id);
    }

    fn fresh(&mut self) -> BufId {
        self.next += 1;
        BufId(self.next)
    }
}
