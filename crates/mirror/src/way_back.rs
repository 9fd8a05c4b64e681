//! Reading an undo log, and going back by it while nobody runs the replica.
//!
//! *Torn or damaged.* A batch is written when the one before it is durable, and a block of the volume is overwritten when its batch
//! is. So only the last batch may be incomplete: then none of its blocks was overwritten, which the disk itself shows by
//! still having the content that the list has the checksum of. Anything else that does not fit is damage, and the log leads nowhere.
//!
//! *Going back.* What is written, each step durable before the next:
//!
//! ```text
//! the old blocks │ these blocks marked against everybody │ the superblock: whole again, nothing to undo
//! ```
//! A crash at any step leaves a mixture whose log still leads back: the same again.
//!
//! *Why marks.* Replicas differ at most where one of them remembers it. Going back changes this replica where it writes, and
//! nowhere else: with these blocks marked that is true again, whatever was forgotten since they were saved.

use crate::bits::Bits;
use crate::grow::Step;
use crate::inspect::Contents;
use wire::layout::{self, BlockKind, Layout, PAIRS_MAX, ReplicaState, SEALED_BYTES, Superblock};
use wire::mutant::{self, Bug};
use wire::undo::{
    BATCH_BLOCKS_MAX, Entry, FIRST_BATCH, HEADERS, Header, Key, List, UndoRun, batch_bytes,
};
use wire::units::BLOCK_BYTES;
use wire::{ByteCount, ByteRange};

/// Longest piece of the volume that is written at once, in blocks: 1 MiB.
const PIECE_BLOCKS_MAX: u64 = 256;

/// Why a log leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UndoFault {
    /// It is another log's file, or of another resync.
    Foreign,
    /// It cannot be read.
    Unreadable,
    /// Something that was durable is not there any more.
    Damaged,
}

/// A log that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// When the run began, in seconds since 1970.
    pub began_unix: u64,
    /// Blocks of the volume that it has.
    pub saved: Vec<u64>,
    /// Where the next batch goes, in bytes.
    pub offset: u64,
    /// Its number.
    pub sequence: u64,
    /// Bytes that the log had when it began: it goes on up to there.
    pub log_bytes: u64,
}

/// A batch as its list tells.
#[derive(Clone, Debug)]
struct Batch {
    offset: u64,
    list: List,
}

impl Batch {
    fn end(&self) -> u64 {
        self.offset + batch_bytes(self.list.entries.len())
    }

    /// Each block, with the place of its content in the log.
    fn blocks(&self) -> impl Iterator<Item = (Entry, u64)> {
        let places = (self.offset + BLOCK_BYTES..).step_by(SEALED_BYTES);
        self.list.entries.iter().copied().zip(places)
    }
}

/// Reads a range of the log or of the disk; none if it is not given.
type Read<'a> = &'a mut dyn FnMut(ByteRange) -> Option<Vec<u8>>;

/// A log of `bytes`, and the disk whose blocks it has.
struct Log<'a> {
    key: Key,
    /// Blocks of the volume.
    blocks: u64,
    bytes: u64,
    log: Read<'a>,
    disk: Read<'a>,
}

impl Log<'_> {
    fn header(&mut self) -> Result<Header, UndoFault> {
        let mut fault = UndoFault::Foreign;
        for place in 0..HEADERS {
            let Some(block) = self.block(place * BLOCK_BYTES) else {
                fault = UndoFault::Unreadable;
                continue;
            };
            match Header::open(self.key, place, &block) {
                Some(header) if self.bytes < header.log_bytes => return Err(UndoFault::Damaged),
                Some(header) => return Ok(header),
                None if is_damaged(place, &block) => fault = UndoFault::Damaged,
                None => {}
            }
        }
        Err(fault)
    }

    fn block(&mut self, offset: u64) -> Option<Vec<u8>> {
        ByteRange::new(offset, BLOCK_BYTES).and_then(&mut *self.log)
    }

    /// Every batch that has a list.
    fn batches(&mut self) -> Result<Vec<Batch>, UndoFault> {
        let mut batches: Vec<Batch> = Vec::new();
        let mut offset = FIRST_BATCH;
        for sequence in 1.. {
            match self.batch(sequence, offset)? {
                Some(batch) => {
                    let inside = |entry: &Entry| entry.block < self.blocks;
                    if !batch.list.entries.iter().all(inside) {
                        return Err(UndoFault::Damaged);
                    }
                    offset = batch.end();
                    batches.push(batch);
                }
                None => break,
            }
        }
        Ok(batches)
    }

    fn batch(&mut self, sequence: u64, offset: u64) -> Result<Option<Batch>, UndoFault> {
        if offset + batch_bytes(1) > self.bytes {
            return Ok(None);
        }
        let block = self.block(offset).ok_or(UndoFault::Unreadable)?;
        match List::open(self.key, offset, &block) {
            Some(list) if list.sequence == sequence => Ok(Some(Batch { offset, list })),
            Some(list) if list.sequence > sequence => Err(UndoFault::Damaged),
            Some(_) | None => self.search(sequence, offset),
        }
    }

    /// The first list is not there: the second one counts as well. A later batch proves that this one was durable.
    fn search(&mut self, sequence: u64, offset: u64) -> Result<Option<Batch>, UndoFault> {
        let first = offset + BLOCK_BYTES;
        let most = batch_bytes(BATCH_BLOCKS_MAX);
        let len = (self.bytes / BLOCK_BYTES * BLOCK_BYTES - first).min(most);
        let bytes = ByteRange::new(first, len).and_then(&mut *self.log);
        let bytes = bytes.ok_or(UndoFault::Unreadable)?;
        for (between, block) in bytes.chunks(SEALED_BYTES).enumerate() {
            let at = first + u64::try_from(between).unwrap_or(u64::MAX) * BLOCK_BYTES;
            let Some(list) = List::open(self.key, at, block) else {
                continue;
            };
            if list.sequence == sequence && list.entries.len() == between {
                return Ok(Some(Batch { offset, list }));
            }
            if list.sequence > sequence {
                return Err(UndoFault::Damaged);
            }
        }
        Ok(None)
    }

    /// The blocks of a batch whose content is there. Of one that is not the last, that is all of them.
    fn content(&mut self, batch: &Batch, is_last: bool) -> Result<Vec<(Entry, u64)>, UndoFault> {
        let range = ByteRange::new(batch.offset, batch.end() - batch.offset);
        let bytes = range.and_then(&mut *self.log);
        let bytes = bytes.ok_or(UndoFault::Unreadable)?;
        let mut whole = Vec::new();
        for ((entry, at), old) in batch.blocks().zip(bytes.chunks(SEALED_BYTES).skip(1)) {
            if entry.is_of(old) {
                whole.push((entry, at));
            } else if !is_last || !self.is_untouched(entry) {
                return Err(UndoFault::Damaged);
            }
        }
        Ok(whole)
    }

    /// True if the disk still has what was to be saved.
    fn is_untouched(&mut self, entry: Entry) -> bool {
        let range = entry.block.checked_mul(BLOCK_BYTES);
        let range = range.and_then(|offset| ByteRange::new(offset, BLOCK_BYTES));
        let now = range.and_then(&mut *self.disk);
        now.is_some_and(|now| entry.is_of(&now))
    }
}

/// True if a header is there that is not whole.
fn is_damaged(place: u64, block: &[u8]) -> bool {
    Header::is_one(place, block) && layout::open(BlockKind::Undo, place, block).is_err()
}

/// Reads the log of a resync that goes on in a later life of the daemon, for a volume of so many blocks. A last batch that is not
/// whole counts as never written: the next one takes its place.
///
/// What the earlier life wrote may be in a cache only, and counts as saved from here on: `sync` makes it durable first, and
/// says whether it is.
///
/// # Errors
/// [`UndoFault`]: nothing leads back.
pub fn load(
    key: Key,
    (blocks, log_bytes): (u64, u64),
    sync: &mut dyn FnMut() -> bool,
    log: &mut dyn FnMut(ByteRange) -> Option<Vec<u8>>,
    disk: &mut dyn FnMut(ByteRange) -> Option<Vec<u8>>,
) -> Result<Loaded, UndoFault> {
    if !mutant::has(Bug::UndoLoadUnsynced) && !sync() {
        return Err(UndoFault::Unreadable);
    }
    let mut log = Log {
        key,
        blocks,
        bytes: log_bytes,
        log,
        disk,
    };
    let header = log.header()?;
    let mut batches = log.batches()?;
    if let Some(last) = batches.last()
        && log.content(last, true)?.len() < last.list.entries.len()
        && !mutant::has(Bug::UndoTailTrusted)
    {
        batches.pop();
    }
    let entries = batches.iter().flat_map(|batch| &batch.list.entries);
    Ok(Loaded {
        began_unix: header.began_unix,
        log_bytes: header.log_bytes,
        saved: entries.map(|entry| entry.block).collect(),
        offset: batches.last().map_or(FIRST_BATCH, Batch::end),
        sequence: u64::try_from(batches.len()).unwrap_or(u64::MAX) + 1,
    })
}

/// Why a replica does not go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// Nothing leads back: it is whole, or no log was kept, or it was lost.
    NoWay,
    /// Its superblock may not be the newest.
    Doubtful,
    /// The log does not lead back.
    Log(UndoFault),
}

/// The way back of a replica that nobody runs.
#[derive(Debug)]
pub struct WayBack {
    contents: Box<Contents>,
    /// When the run began, in seconds since 1970.
    pub began_unix: u64,
    /// In the order of the volume: what is to be written, and where in the log it is.
    saved: Vec<(Entry, u64)>,
}

/// What an undo log would have to be of, to lead back from what a superblock tells.
#[must_use]
pub fn key(own: &Superblock) -> Option<Key> {
    let mixture = own.state == ReplicaState::Inconsistent;
    let run = own
        .undo
        .filter(|_| mixture || mutant::has(Bug::UndoOutlivesCommit));
    run.map(|run| Key {
        replica: own.replica,
        run,
    })
}

impl WayBack {
    /// Of the replica `contents`, by a log of `log_bytes`. All of the log is read and checked.
    ///
    /// # Errors
    /// [`Stuck`]; nothing is to be written then.
    pub fn look(
        contents: Box<Contents>,
        log_bytes: u64,
        log: &mut dyn FnMut(ByteRange) -> Option<Vec<u8>>,
        disk: &mut dyn FnMut(ByteRange) -> Option<Vec<u8>>,
    ) -> Result<Self, Stuck> {
        let key = key(&contents.superblock).ok_or(Stuck::NoWay)?;
        if contents.doubtful {
            return Err(Stuck::Doubtful);
        }
        let blocks = contents.layout.blocks();
        let mut log = Log {
            key,
            blocks,
            bytes: log_bytes,
            log,
            disk,
        };
        let (began_unix, saved) = log.whole().map_err(Stuck::Log)?;
        Ok(Self {
            contents,
            began_unix,
            saved,
        })
    }

    /// What is written back.
    #[must_use]
    pub fn bytes(&self) -> ByteCount {
        ByteCount(u64::try_from(self.saved.len()).unwrap_or(u64::MAX) * BLOCK_BYTES)
    }

    /// The replica, as it is now.
    #[must_use]
    pub const fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The volume's old content: ranges of it, at most 1 MiB each, with the places in the log of their blocks. All of it must be
    /// durable before [`WayBack::finish`].
    pub fn pieces(&self) -> impl Iterator<Item = (ByteRange, Vec<u64>)> {
        let mut rest = self.saved.as_slice();
        std::iter::from_fn(move || {
            let (first, _) = rest.first()?;
            let next = |(n, (entry, _)): &(u64, &(Entry, u64))| entry.block == first.block + n;
            let run = (0..PIECE_BLOCKS_MAX).zip(rest).take_while(next).count();
            let (piece, behind) = rest.split_at(run);
            rest = behind;
            let len = u64::try_from(run).ok()? * BLOCK_BYTES;
            let range = ByteRange::new(first.block * BLOCK_BYTES, len)?;
            Some((range, piece.iter().map(|(_, at)| *at).collect()))
        })
    }

    /// What is to be written once the old content is durable, each step durable before the next.
    #[must_use]
    pub fn finish(mut self) -> Vec<Step> {
        let layout = self.contents.layout;
        if !mutant::has(Bug::UndoneUnmarked) {
            let mut back = Bits::new(layout.blocks());
            for (entry, _) in &self.saved {
                back.set(entry.block..entry.block + 1);
            }
            self.contents.planes.mark_known(&back, PAIRS_MAX);
        }
        let mut steps = Vec::new();
        while let Some((index, offset, bytes)) = self.contents.planes.next_write(&layout) {
            self.contents.planes.written(index);
            steps.push(Step::Write { offset, bytes });
        }
        steps.push(whole_again(&self.contents, &layout));
        steps
    }
}

fn whole_again(contents: &Contents, layout: &Layout) -> Step {
    let superblock = Superblock {
        state: ReplicaState::Consistent,
        source: None,
        undo: None,
        ..contents.superblock.clone()
    };
    Step::Write {
        offset: Layout::super_offset(layout.disk_bytes, contents.slot.other()),
        bytes: superblock.seal(contents.sequence + 1).to_vec(),
    }
}

impl Log<'_> {
    /// Everything that leads back: when it began, and the first content of each block, by block.
    fn whole(&mut self) -> Result<(u64, Vec<(Entry, u64)>), UndoFault> {
        let began_unix = self.header()?.began_unix;
        let batches = self.batches()?;
        let mut saved = Vec::new();
        for (n, batch) in batches.iter().enumerate() {
            saved.extend(self.content(batch, n + 1 == batches.len())?);
        }
        // The first content of a block is the oldest: a stable sort keeps it in front.
        saved.sort_by_key(|(entry, _)| entry.block);
        saved.dedup_by_key(|(entry, _)| entry.block);
        Ok((began_unix, saved))
    }
}

/// A run in the words of people: its number, as a log's file and a superblock show it.
#[must_use]
pub fn run_words(run: UndoRun) -> String {
    format!("{:016x}", run.0)
}
