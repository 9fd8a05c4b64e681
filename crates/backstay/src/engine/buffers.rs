//! The buffers that the replica names.

use super::numbered::Numbered;
use host::ring::{Buf, Frozen};
use mirror::io::BufId;

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
    slots: Numbered<BufId, (Slot, usize)>,
    /// Invariant: the sum of all sizes in `slots`.
    bytes: usize,
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
        let len = bytes.len();
        self.insert(id, Slot::Full(bytes.freeze()), len);
        id
    }

    /// A buffer that the machine named itself.
    pub(super) fn alloc(&mut self, id: BufId, len: u64) {
        let len = usize::try_from(len).unwrap_or(0);
        self.insert(id, Slot::Empty(Buf::new(len)), len);
    }

    /// Bytes in all buffers.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    fn insert(&mut self, id: BufId, slot: Slot, len: usize) {
        self.release(id);
        self.slots.insert(id, (slot, len));
        self.bytes += len;
    }

    /// Takes a buffer for a read.
    pub(super) fn take(&mut self, id: BufId) -> Option<Buf> {
        let (slot, _) = self.slots.get_mut(&id)?;
        match std::mem::replace(slot, Slot::Away) {
            Slot::Empty(buf) => Some(buf),
            Slot::Full(frozen) => frozen.try_unfreeze(),
            Slot::Away => None,
        }
    }

    /// A read filled the buffer.
    pub(super) fn fill(&mut self, id: BufId, buf: Buf) {
        if let Some((slot, _)) = self.slots.get_mut(&id) {
            *slot = Slot::Full(buf.freeze());
        }
    }

    /// The stable content.
    pub(super) fn content(&self, id: BufId) -> Option<Frozen> {
        match self.slots.get(&id)? {
            (Slot::Full(frozen), _) => Some(frozen.clone()),
            (Slot::Empty(_) | Slot::Away, _) => None,
        }
    }

    pub(super) fn release(&mut self, id: BufId) {
        if let Some((_, len)) = self.slots.remove(&id) {
            self.bytes -= len;
        }
    }

    fn fresh(&mut self) -> BufId {
        self.next += 1;
        BufId(self.next)
    }
}
