//! The undo journal: what the medium held before each write that a power failure may still undo.
//!
//! Segments `journal.<sequence>` hold records, each with the old content of one write's range, appended *before* the
//! write is submitted. Appends go to the page cache, which survives the death of the process, not of the machine: the
//! power failure that is played here is the lab's, not the real machine's. A record leaves when it is durable: a marker
//! names it, or its whole segment is removed. Segments are removed oldest first, so that no marker goes before its record.

use crate::disk::to_u64;
use crate::ring::{BUF_MAX, Buf};
use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The modelled volatile cache of the disk, in bytes; when there is more, the oldest completed writes become durable.
pub const CACHE_MAX: u64 = 64 << 20;

/// Zeroing of more bytes than this is taken as durable at once: its old content is not kept.
pub(super) const ZERO_MAX: u64 = 8 << 20;

/// A segment that has grown to this many bytes is followed by a new one.
const SEGMENT_MAX: u64 = 8 << 20;

const MAGIC: u32 = 0x3155_4a42;

/// What a record in a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The old content of a range follows.
    Undo,
    /// As `Undo`, but overlapping a write in flight: this write must not be undone, since its old content is unclear.
    Keep,
    /// The ids of durable records follow, 8 bytes each.
    Durable,
}

impl Kind {
    const fn code(self) -> u32 {
        match self {
            Self::Undo => 1,
            Self::Keep => 2,
            Self::Durable => 3,
        }
    }

    const fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Undo),
            2 => Some(Self::Keep),
            3 => Some(Self::Durable),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    magic: U32,
    kind: U32,
    id: U64,
    offset: U64,
    len: U32,
    /// CRC-32C of the header with this field zero, followed by the body.
    crc: U32,
}

const HEADER_LEN: usize = size_of::<Header>();

/// One write that the journal knows.
#[derive(Debug)]
pub(super) struct Undo {
    pub(super) id: u64,
    pub(super) offset: u64,
    /// What the range held before.
    pub(super) old: Vec<u8>,
    pub(super) bond: Bond,
}

/// What holds a write on the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bond {
    /// Nothing: a power failure may undo it.
    Volatile,
    /// It is volatile, but what it overwrote is unclear, so it is not undone.
    Unclear,
    /// It is durable. It is here because older writes are, which must not be undone over it.
    Durable,
}

#[derive(Debug)]
struct Segment {
    sequence: u64,
    file: File,
    bytes: u64,
    /// Records in it that are not durable yet.
    live: usize,
}

/// The journal as the running shim keeps it.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    segments: VecDeque<Segment>,
    /// The segment of every record that is not durable, by id.
    live: BTreeMap<u64, u64>,
    /// The ranges of the writes in flight, by id.
    flying: BTreeMap<u64, Range<u64>>,
    next_id: u64,
}

impl Journal {
    /// Continues what is in `dir`. Writes of the process before count as completed: its last descriptor is closed, so
    /// nothing of it is in flight.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let mut journal = Self {
            dir: dir.to_owned(),
            segments: VecDeque::new(),
            live: BTreeMap::new(),
            flying: BTreeMap::new(),
            next_id: 1,
        };
        for sequence in sequences(dir)? {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(segment_path(dir, sequence))?;
            let bytes = journal.index(sequence, &file)?;
            journal.segments.push_back(Segment {
                sequence,
                file,
                bytes,
                live: 0,
            });
        }
        for segment in &mut journal.segments {
            let here = |of: &&u64| **of == segment.sequence;
            segment.live = journal.live.values().filter(here).count();
        }
        if journal.segments.is_empty() {
            journal.add_segment()?;
        }
        Ok(journal)
    }

    /// Keeps the old content of a range that is about to be written. Returns the record's id.
    pub(super) fn record(&mut self, disk: &File, offset: u64, len: u64) -> io::Result<u64> {
        self.bound_cache()?;
        let end = offset.saturating_add(len);
        let overlaps = self
            .flying
            .values()
            .any(|range| range.start < end && offset < range.end);
        let old = read_old(disk, offset, len)?;
        let id = self.next_id;
        self.next_id += 1;
        let kind = if overlaps { Kind::Keep } else { Kind::Undo };
        self.append(kind, id, offset, &old)?;
        let segment = self.segments.back_mut().ok_or(io::ErrorKind::NotFound)?;
        segment.live += 1;
        self.live.insert(id, segment.sequence);
        self.flying.insert(id, offset..end);
        Ok(id)
    }

    /// The write of a record has ended; `durable` if it was FUA and succeeded.
    pub(super) fn written(&mut self, id: u64, durable: bool) -> io::Result<()> {
        self.flying.remove(&id);
        if durable { self.retire(&[id]) } else { Ok(()) }
    }

    /// The records whose writes have completed: a flush that is submitted now covers them.
    pub(super) fn completed(&self) -> Vec<u64> {
        let landed = |id: &u64| !self.flying.contains_key(id);
        self.live.keys().copied().filter(landed).collect()
    }

    /// A flush that covers `ids` has completed.
    pub(super) fn flushed(&mut self, ids: &[u64]) -> io::Result<()> {
        self.retire(ids)
    }

    fn retire(&mut self, ids: &[u64]) -> io::Result<()> {
        let mut marks = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(sequence) = self.live.remove(id) else {
                continue;
            };
            marks.push(U64::new(*id));
            let of = |segment: &&mut Segment| segment.sequence == sequence;
            if let Some(segment) = self.segments.iter_mut().find(of) {
                segment.live -= 1;
            }
        }
        if self.live.is_empty() {
            return self.reset();
        }
        if !marks.is_empty() {
            self.append(Kind::Durable, 0, 0, marks.as_bytes())?;
        }
        self.drop_oldest()
    }

    /// Nothing is volatile: one empty segment is left.
    fn reset(&mut self) -> io::Result<()> {
        self.drop_oldest()?;
        if let Some(segment) = self.segments.back_mut() {
            segment.file.set_len(0)?;
            segment.bytes = 0;
        }
        Ok(())
    }

    fn drop_oldest(&mut self) -> io::Result<()> {
        while self.segments.len() > 1 && self.segments.front().is_some_and(|old| old.live == 0) {
            if let Some(old) = self.segments.pop_front() {
                std::fs::remove_file(segment_path(&self.dir, old.sequence))?;
            }
        }
        Ok(())
    }

    /// The disk writes back its oldest cached data when its cache is full.
    fn bound_cache(&mut self) -> io::Result<()> {
        while self
            .segments
            .iter()
            .map(|segment| segment.bytes)
            .sum::<u64>()
            > CACHE_MAX
        {
            let Some(oldest) = self.segments.front().map(|segment| segment.sequence) else {
                break;
            };
            let of_oldest = |(id, sequence): (&u64, &u64)| (*sequence == oldest).then_some(*id);
            let ids: Vec<u64> = self.live.iter().filter_map(of_oldest).collect();
            if ids.iter().any(|id| self.flying.contains_key(id)) {
                break;
            }
            let before = self.segments.len();
            self.retire(&ids)?;
            if self.segments.len() == before {
                break;
            }
        }
        Ok(())
    }

    fn append(&mut self, kind: Kind, id: u64, offset: u64, body: &[u8]) -> io::Result<()> {
        if self
            .segments
            .back()
            .is_none_or(|segment| segment.bytes >= SEGMENT_MAX)
        {
            self.add_segment()?;
        }
        let segment = self.segments.back_mut().ok_or(io::ErrorKind::NotFound)?;
        let mut header = Header {
            magic: U32::new(MAGIC),
            kind: U32::new(kind.code()),
            id: U64::new(id),
            offset: U64::new(offset),
            len: U32::new(u32::try_from(body.len()).map_err(io::Error::other)?),
            crc: U32::ZERO,
        };
        header.crc = U32::new(checksum(&header, body));
        segment
            .file
            .write_all_at(header.as_bytes(), segment.bytes)?;
        segment
            .file
            .write_all_at(body, segment.bytes + to_u64(HEADER_LEN))?;
        segment.bytes += to_u64(HEADER_LEN + body.len());
        Ok(())
    }

    fn add_segment(&mut self) -> io::Result<()> {
        let sequence = self
            .segments
            .back()
            .map_or(0, |segment| segment.sequence + 1);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(segment_path(&self.dir, sequence))?;
        self.segments.push_back(Segment {
            sequence,
            file,
            bytes: 0,
            live: 0,
        });
        Ok(())
    }

    /// Takes up the records of a segment; returns where its valid part ends.
    fn index(&mut self, sequence: u64, file: &File) -> io::Result<u64> {
        scan(file, |kind, header, body| {
            self.next_id = self.next_id.max(header.id.get() + 1);
            match kind {
                Kind::Undo | Kind::Keep => {
                    self.live.insert(header.id.get(), sequence);
                }
                Kind::Durable => {
                    for id in ids(body) {
                        self.live.remove(&id);
                    }
                }
            }
        })
    }
}

/// Every write in the journal of `dir`, oldest first.
pub(super) fn writes(dir: &Path) -> io::Result<Vec<Undo>> {
    let mut found = BTreeMap::new();
    for sequence in sequences(dir)? {
        let file = File::open(segment_path(dir, sequence))?;
        scan(&file, |kind, header, body| {
            let bond = match kind {
                Kind::Undo => Bond::Volatile,
                Kind::Keep => Bond::Unclear,
                Kind::Durable => {
                    for id in ids(body) {
                        found
                            .entry(id)
                            .and_modify(|undo: &mut Undo| undo.bond = Bond::Durable);
                    }
                    return;
                }
            };
            let (id, offset) = (header.id.get(), header.offset.get());
            found.insert(
                id,
                Undo {
                    id,
                    offset,
                    old: body.to_vec(),
                    bond,
                },
            );
        })?;
    }
    Ok(found.into_values().collect())
}

/// Forgets everything in the journal of `dir`.
pub(super) fn clear(dir: &Path) -> io::Result<()> {
    for sequence in sequences(dir)? {
        std::fs::remove_file(segment_path(dir, sequence))?;
    }
    Ok(())
}

/// Calls `each` for every whole record. A torn last one is ignored: its write was never submitted.
fn scan(file: &File, mut each: impl FnMut(Kind, &Header, &[u8])) -> io::Result<u64> {
    let mut at = 0;
    let mut body = Vec::new();
    loop {
        let mut raw = [0; HEADER_LEN];
        if !filled(file.read_exact_at(&mut raw, at))? {
            return Ok(at);
        }
        let header: Header = zerocopy::transmute!(raw);
        let len = usize::try_from(header.len.get()).unwrap_or(usize::MAX);
        let kind = Kind::from_code(header.kind.get());
        let (Some(kind), true) = (kind, header.magic.get() == MAGIC && len <= BUF_MAX) else {
            return Ok(at);
        };
        body.resize(len, 0);
        if !filled(file.read_exact_at(&mut body, at + to_u64(HEADER_LEN)))?
            || checksum(&header, &body) != header.crc.get()
        {
            return Ok(at);
        }
        each(kind, &header, &body);
        at += to_u64(HEADER_LEN + len);
    }
}

fn filled(read: io::Result<()>) -> io::Result<bool> {
    match read {
        Ok(()) => Ok(true),
        Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(why) => Err(why),
    }
}

fn ids(body: &[u8]) -> impl Iterator<Item = u64> {
    body.chunks_exact(8)
        .filter_map(|id| U64::read_from_bytes(id).ok())
        .map(U64::get)
}

fn checksum(header: &Header, body: &[u8]) -> u32 {
    let clean = Header {
        crc: U32::ZERO,
        ..*header
    };
    crc32c::crc32c_append(crc32c::crc32c(clean.as_bytes()), body)
}

fn read_old(disk: &File, offset: u64, len: u64) -> io::Result<Buf> {
    let len = usize::try_from(len).ok().filter(|len| *len <= BUF_MAX);
    let mut old = Buf::new(len.ok_or(io::ErrorKind::InvalidInput)?);
    let mut at = 0;
    while at < old.len() {
        match rustix::io::pread(disk, &mut old[at..], offset + to_u64(at))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => at += read,
        }
    }
    Ok(old)
}

fn segment_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("journal.{sequence}"))
}

/// The sequence numbers of the segments in `dir`, oldest first.
fn sequences(dir: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("journal."));
        found.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}
