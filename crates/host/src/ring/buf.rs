//! Page-aligned buffers: what `O_DIRECT` wants, reused instead of allocated in the write path.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Bound, Deref, DerefMut, RangeBounds};
use std::sync::Arc;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Alignment and smallest size of a [`Buf`], in bytes.
pub const BUF_ALIGN: usize = 4096;

/// The largest [`Buf`], in bytes: one NBD request of the largest size that is accepted.
pub const BUF_MAX: usize = 32 << 20;

/// Bytes of idle buffers that one thread keeps; more are given back to the allocator.
const IDLE_BYTES_MAX: usize = 64 << 20;

/// Size classes are powers of two from one page to [`BUF_MAX`].
const CLASSES: usize = 14;
const _: () = assert!(BUF_ALIGN << (CLASSES - 1) == BUF_MAX);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
struct Page([u8; BUF_ALIGN]);

/// Memory of a buffer, counted from the beginning so that freezing and thawing allocate nothing.
struct Memory {
    pages: Box<[Page]>,
    len: usize,
}

/// An owned buffer whose start is aligned to [`BUF_ALIGN`].
///
/// Dropping it puts its memory on the dropping thread's idle list.
pub struct Buf {
    /// Invariant: nobody else holds it.
    memory: Shared,
}

/// Counted memory; the last holder puts it on its thread's idle list.
#[derive(Clone)]
struct Shared(Option<Arc<Memory>>);

impl Shared {
    fn get(&self) -> &Memory {
        match &self.0 {
            Some(memory) => memory,
            None => unreachable!("memory is taken only when it is dropped"),
        }
    }

    /// The memory, if nobody else holds it.
    fn get_mut(&mut self) -> Option<&mut Memory> {
        self.0.as_mut().and_then(Arc::get_mut)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Two last holders in two threads: neither is alone, and the memory is freed.
        if self.get_mut().is_some()
            && let Some(memory) = self.0.take()
        {
            // A thread that is ending has no list any more: the memory is freed here.
            IDLE.try_with(|idle| idle.borrow_mut().put(memory)).ok();
        }
    }
}

impl Buf {
    /// A buffer of `len` bytes with *arbitrary* (old, initialised) content, for a read or a full overwrite.
    ///
    /// # Panics
    /// If `len` exceeds [`BUF_MAX`]; lengths from outside are checked where they are parsed.
    #[must_use]
    pub fn new(len: usize) -> Self {
        assert!(len <= BUF_MAX, "buffer of {len} bytes is over the maximum");
        let class = class_of(len);
        let memory = IDLE
            .try_with(|idle| idle.borrow_mut().take(class))
            .ok()
            .flatten()
            .unwrap_or_else(|| allocate(1 << class));
        let mut buf = Self {
            memory: Shared(Some(memory)),
        };
        buf.memory_mut().len = len;
        buf
    }

    fn memory_mut(&mut self) -> &mut Memory {
        match self.memory.get_mut() {
            Some(memory) => memory,
            None => unreachable!("a buffer's memory is its own"),
        }
    }

    /// A buffer of `len` zero bytes.
    ///
    /// # Panics
    /// If `len` exceeds [`BUF_MAX`].
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let mut buf = Self::new(len);
        buf.fill(0);
        buf
    }

    /// A buffer with a copy of `bytes`.
    ///
    /// # Panics
    /// If there are more than [`BUF_MAX`] bytes.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buf = Self::new(bytes.len());
        buf.copy_from_slice(bytes);
        buf
    }

    /// Bytes that this buffer could hold without a new one.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.memory.get().pages.len() * BUF_ALIGN
    }

    /// Changes the length within the capacity; bytes that appear are arbitrary.
    ///
    /// # Panics
    /// If `len` exceeds the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(
            len <= self.capacity(),
            "length {len} exceeds capacity {}",
            self.capacity()
        );
        self.memory_mut().len = len;
    }

    /// Makes the content immutable and shareable, without a copy.
    #[must_use]
    pub fn freeze(self) -> Frozen {
        Frozen {
            start: 0,
            len: self.len(),
            memory: self.memory,
        }
    }
}

impl Deref for Buf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let memory = self.memory.get();
        &memory.pages.as_bytes()[..memory.len]
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        let memory = self.memory_mut();
        &mut memory.pages.as_mut_bytes()[..memory.len]
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} of {} bytes)", self.len(), self.capacity())
    }
}

/// Immutable, cheaply cloned bytes of a [`Buf`]: written to the disk and sent to the peer at the same time.
#[derive(Clone)]
pub struct Frozen {
    memory: Shared,
    start: usize,
    len: usize,
}

impl Frozen {
    /// A part of these bytes, sharing the memory.
    ///
    /// # Panics
    /// If the range is not within the bytes.
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let from = match range.start_bound() {
            Bound::Included(&at) => at,
            Bound::Excluded(&at) => at + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(&at) => at + 1,
            Bound::Excluded(&at) => at,
            Bound::Unbounded => self.len,
        };
        assert!(
            from <= to && to <= self.len,
            "slice {from}..{to} of {} bytes",
            self.len
        );
        Self {
            memory: self.memory.clone(),
            start: self.start + from,
            len: to - from,
        }
    }

    /// The buffer for reuse, if nobody else holds these bytes.
    #[must_use]
    pub fn try_unfreeze(mut self) -> Option<Buf> {
        self.memory.get_mut()?;
        Some(Buf {
            memory: self.memory,
        })
    }
}

impl Deref for Frozen {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory.get().pages.as_bytes()[self.start..self.start + self.len]
    }
}

impl From<Buf> for Frozen {
    fn from(buf: Buf) -> Self {
        buf.freeze()
    }
}

impl fmt::Debug for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frozen({} bytes)", self.len)
    }
}

/// Idle memory of one thread, by size class.
struct Idle {
    free: [Vec<Arc<Memory>>; CLASSES],
    bytes: usize,
}

impl Idle {
    fn take(&mut self, class: usize) -> Option<Arc<Memory>> {
        let memory = self.free[class].pop()?;
        self.bytes -= memory.pages.len() * BUF_ALIGN;
        Some(memory)
    }

    fn put(&mut self, memory: Arc<Memory>) {
        let bytes = memory.pages.len() * BUF_ALIGN;
        if self.bytes + bytes > IDLE_BYTES_MAX {
            return;
        }
        self.bytes += bytes;
        self.free[class_of(bytes)].push(memory);
    }
}

thread_local! {
    static IDLE: RefCell<Idle> =
        const { RefCell::new(Idle { free: [const { Vec::new() }; CLASSES], bytes: 0 }) };
}

/// Index of the smallest class that holds `len` bytes.
fn class_of(len: usize) -> usize {
    let pages = len.div_ceil(BUF_ALIGN).max(1).next_power_of_two();
    usize::try_from(pages.trailing_zeros()).unwrap_or(usize::MAX)
}

fn allocate(pages: usize) -> Arc<Memory> {
    let pages = <[Page]>::new_box_zeroed_with_elems(pages)
        .unwrap_or_else(|_| std::alloc::handle_alloc_error(std::alloc::Layout::new::<Page>()));
    Arc::new(Memory { pages, len: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_aligned_and_fits_its_class() {
        for len in [0, 1, 512, 4096, 4097, 65536, 1 << 20, BUF_MAX] {
            let buf = Buf::new(len);
            assert_eq!(buf.len(), len);
            assert!(buf.capacity() >= len && buf.capacity() < (2 * len).max(2 * BUF_ALIGN));
            assert_eq!(buf.as_ptr().addr() % BUF_ALIGN, 0);
        }
    }

    #[test]
    fn dropped_memory_is_used_again() {
        let first = Buf::new(10_000).as_ptr().addr();
        assert_eq!(Buf::new(16_000).as_ptr().addr(), first);
        assert!(Buf::zeroed(5_000).iter().all(|byte| *byte == 0));
    }

    #[test]
    fn frozen_slices_share_bytes_and_give_the_buffer_back() {
        let frozen = Buf::copy_of(b"hello world").freeze();
        let world = frozen.slice(6..);
        assert_eq!(&*world, b"world");
        assert_eq!(&*world.slice(1..=2), b"or");
        assert!(frozen.try_unfreeze().is_none());
        assert!(world.try_unfreeze().is_some());
    }
}
