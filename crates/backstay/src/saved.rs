//! Blocks saved from a disk: a file with the content of some ranges, one after the other, and an index beside it.
//!
//! `STEM.data` is written first and made durable, then `STEM.json`, which says where each piece was. A data file without an
//! index was not finished. Neither ever replaces a file.

use crate::failure::Failure;
use host::ring::Buf;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use wire::ByteRange;

/// Schema of the index.
const SCHEMA: &str = "backstay.cut-off/1";
/// Bytes that are copied at once.
const CHUNK_BYTES: u64 = 1 << 20;
/// Largest index that is read, in bytes: some millions of ranges.
const INDEX_BYTES_MAX: u64 = 256 << 20;

/// What the index says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// `backstay.cut-off/1`.
    pub schema: String,
    /// The mirror: its name, or its identity where only a disk was at hand.
    pub mirror: String,
    /// Highest epoch that the disk had accepted.
    pub epoch: u64,
    /// Name of the data file, in the same directory.
    pub data: String,
    /// CRC-32C of the data file.
    pub crc32c: u32,
    /// Byte offset in the volume, and length; in the order of the data file.
    pub ranges: Vec<(u64, u64)>,
    /// The disk that it comes from; only of an export.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Origin>,
}

/// The disk that blocks were exported from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The replica's identity, as hexadecimal number.
    pub replica: String,
    /// Its generation.
    pub generation: u64,
    /// The sessions since which its marks count, one for each other replica, as hexadecimal numbers.
    pub baselines: Vec<String>,
    /// Size of the volume.
    pub data_bytes: u64,
}

/// What is to be saved, and from where.
#[derive(Clone, Debug)]
pub struct Source<'a> {
    /// For the index.
    pub mirror: &'a str,
    /// For the index.
    pub epoch: u64,
    /// In the order of the data file.
    pub ranges: &'a [ByteRange],
    /// For the index.
    pub from: Option<Origin>,
}

/// Both files of one save.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The content.
    pub data: PathBuf,
    /// Where it was.
    pub index: PathBuf,
}

impl Files {
    /// By the common stem; `STEM.data` and `STEM.json` mean the same.
    pub fn of(path: &Path) -> Self {
        let ours = |end: &&OsStr| *end == "data" || *end == "json";
        let stem = match path.extension().filter(ours) {
            Some(_) => path.with_extension(""),
            None => path.to_owned(),
        };
        let with = |end: &str| {
            let mut name = stem.clone().into_os_string();
            name.push(end);
            PathBuf::from(name)
        };
        Self {
            data: with(".data"),
            index: with(".json"),
        }
    }

    /// Saves, durably. `read` fills a buffer with what the disk has from an offset on.
    ///
    /// # Errors
    /// When one of the files exists, or something cannot be read or written; then neither is made.
    pub fn save(
        &self,
        source: &Source<'_>,
        mut read: impl FnMut(u64, &mut Buf) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.index.exists() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = File::create_new(&self.data)?;
        let written = self.write(file, source, &mut read);
        written.inspect_err(|_| drop(fs::remove_file(&self.data)))
    }

    fn write(
        &self,
        mut file: File,
        source: &Source<'_>,
        read: &mut impl FnMut(u64, &mut Buf) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut crc = 0;
        for piece in source.ranges.iter().flat_map(|range| pieces(*range)) {
            let len = usize::try_from(piece.len()).map_err(io::Error::other)?;
            let mut buf = Buf::new(len);
            read(piece.offset(), &mut buf).map_err(|error| unreadable(piece, &error))?;
            crc = crc32c::crc32c_append(crc, &buf);
            file.write_all(&buf)?;
        }
        file.sync_all()?;
        let name = self.data.file_name().unwrap_or_default();
        let index = Index {
            schema: SCHEMA.into(),
            mirror: source.mirror.into(),
            epoch: source.epoch,
            data: name.to_string_lossy().into_owned(),
            crc32c: crc,
            ranges: source
                .ranges
                .iter()
                .map(|r| (r.offset(), r.len()))
                .collect(),
            from: source.from.clone(),
        };
        let text = serde_json::to_vec_pretty(&index).map_err(io::Error::other)?;
        let mut file = File::create_new(&self.index)?;
        file.write_all(&text)?;
        file.sync_all()?;
        sync_directory(&self.index)
    }
}

/// A range in pieces that are copied at once.
pub fn pieces(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    let count = range.len().div_ceil(CHUNK_BYTES);
    (0..count).filter_map(move |n| {
        let at = n * CHUNK_BYTES;
        ByteRange::new(range.offset() + at, (range.len() - at).min(CHUNK_BYTES))
    })
}

fn unreadable(piece: ByteRange, error: &io::Error) -> io::Error {
    let (at, len) = (piece.offset(), piece.len());
    io::Error::new(
        error.kind(),
        format!("the disk does not give {at}:{len}: {error}"),
    )
}

fn sync_directory(file: &Path) -> io::Result<()> {
    let directory = file.parent().filter(|path| !path.as_os_str().is_empty());
    File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// A finished save, opened and checked.
#[derive(Debug)]
pub struct Saved {
    /// Its index.
    pub index: Index,
    /// Each range with its place in the data file.
    places: Vec<(ByteRange, u64)>,
    data: File,
}

impl Saved {
    /// Opens a save and checks that it is whole: what the index names is there, and is what was written.
    ///
    /// # Errors
    /// When a file is missing, is not of this format, or was changed.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let files = Files::of(path);
        let failed = |why: String| {
            Failure::new(format!("cannot use what was saved as {}", path.display())).cause(why)
        };
        let index = read_index(&files.index).map_err(|error| {
            failed(format!("{}: {error}", files.index.display())).hint(UNFINISHED)
        })?;
        if index.schema != SCHEMA {
            return Err(failed(format!("its index is of schema {}", index.schema)));
        }
        let places = places(&index).ok_or_else(|| failed("its index makes no sense".into()))?;
        let data = File::open(&files.data)
            .map_err(|error| failed(format!("{}: {error}", files.data.display())))?;
        let saved = Self {
            index,
            places,
            data,
        };
        saved.check().map_err(|why| failed(why.to_string()))?;
        Ok(saved)
    }

    fn check(&self) -> io::Result<()> {
        let expected = self.places.last().map_or(0, |(range, at)| at + range.len());
        let size = self.data.metadata()?.len();
        if size != expected {
            let why = format!("the data file has {size} bytes instead of {expected}");
            return Err(io::Error::other(why));
        }
        let mut crc = 0;
        let whole = ByteRange::new(0, size).into_iter();
        for piece in whole.flat_map(pieces) {
            let bytes = self.read_at(piece.offset(), piece.len())?;
            crc = crc32c::crc32c_append(crc, &bytes);
        }
        if crc == self.index.crc32c {
            return Ok(());
        }
        Err(io::Error::other(
            "the data file was changed: its checksum is another one",
        ))
    }

    fn read_at(&self, at: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        let mut file = &self.data;
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The saved ranges.
    pub fn ranges(&self) -> impl Iterator<Item = ByteRange> {
        self.places.iter().map(|(range, _)| *range)
    }

    /// Size of the volume: as the index says, or what the ranges need.
    pub fn volume_bytes(&self) -> u64 {
        let needed = self.ranges().map(ByteRange::end).max().unwrap_or(0);
        let known = self.index.from.as_ref().map_or(0, |from| from.data_bytes);
        known.max(needed)
    }

    /// True if every byte of `wanted` was saved.
    pub fn has(&self, wanted: ByteRange) -> bool {
        let mut found: Vec<ByteRange> = self.parts(wanted).map(|(part, _)| part).collect();
        found.sort_unstable();
        let reach = |at: u64, part: &ByteRange| {
            if part.offset() <= at {
                at.max(part.end())
            } else {
                at
            }
        };
        found.iter().fold(wanted.offset(), reach) >= wanted.end()
    }

    /// What was saved of `wanted`, with its place in the data file.
    fn parts(&self, wanted: ByteRange) -> impl Iterator<Item = (ByteRange, u64)> {
        self.places.iter().filter_map(move |(range, at)| {
            let start = range.offset().max(wanted.offset());
            let len = range.end().min(wanted.end()).checked_sub(start)?;
            let part = ByteRange::new(start, len).filter(|part| !part.is_empty())?;
            Some((part, at + (start - range.offset())))
        })
    }

    /// Hands out what was saved of `wanted`, piece by piece: (offset in the volume, content).
    ///
    /// # Errors
    /// When the data file cannot be read, and what `give` says.
    pub fn each(
        &self,
        wanted: ByteRange,
        mut give: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        for (part, at) in self.parts(wanted) {
            for piece in pieces(part) {
                let bytes = self.read_at(at + (piece.offset() - part.offset()), piece.len())?;
                give(piece.offset(), &bytes)?;
            }
        }
        Ok(())
    }
}

const UNFINISHED: &str = "a data file without an index was not finished: save it again";

fn read_index(path: &Path) -> io::Result<Index> {
    let mut text = Vec::new();
    File::open(path)?
        .take(INDEX_BYTES_MAX)
        .read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(io::Error::other)
}

/// Each range with its place in the data file; none if they overflow.
fn places(index: &Index) -> Option<Vec<(ByteRange, u64)>> {
    let mut at = 0_u64;
    let mut places = Vec::with_capacity(index.ranges.len());
    for (offset, len) in &index.ranges {
        places.push((ByteRange::new(*offset, *len)?, at));
        at = at.checked_add(*len)?;
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that goes away with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("backstay-saved-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::remove_dir_all(&path).ok();
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    fn range(offset: u64, len: u64) -> ByteRange {
        ByteRange::new(offset, len).unwrap()
    }

    /// The byte that a volume has at an offset.
    fn byte(at: u64) -> u8 {
        u8::try_from(at / 512 % 251).unwrap()
    }

    fn save(path: &Path, ranges: &[ByteRange]) -> io::Result<()> {
        let source = Source {
            mirror: "m",
            epoch: 7,
            ranges,
            from: None,
        };
        Files::of(path).save(&source, |at, buf| {
            for (offset, one) in (at..).zip(buf.iter_mut()) {
                *one = byte(offset);
            }
            Ok(())
        })
    }

    #[test]
    fn what_was_saved_is_read_back_by_range() {
        let scratch = Scratch::new("back");
        let stem = scratch.0.join("blocks.of.b");
        save(&stem, &[range(8192, 3 << 20), range(64 << 20, 4096)]).unwrap();
        let saved = Saved::open(&stem.with_extension("b.json")).unwrap();
        assert_eq!(saved.volume_bytes(), (64 << 20) + 4096);
        assert!(saved.has(range(8192 + 512, 2 << 20)));
        assert!(!saved.has(range(4096, 8192)) && !saved.has(range(8192, 4 << 20)));
        let mut count = 0;
        let wanted = range(8192 + 512, 2 << 20);
        let look = |at: u64, bytes: &[u8]| {
            assert!((at..).zip(bytes).all(|(at, one)| *one == byte(at)));
            count += bytes.len();
            Ok(())
        };
        saved.each(wanted, look).unwrap();
        assert_eq!(count, 2 << 20);
    }

    #[test]
    fn a_file_that_exists_is_never_replaced() {
        let scratch = Scratch::new("again");
        for name in ["blocks.data", "blocks.json"] {
            let stem = scratch.0.join("blocks");
            fs::write(scratch.0.join(name), b"precious").unwrap();
            let error = save(&stem, &[range(0, 4096)]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read(scratch.0.join(name)).unwrap(), b"precious");
            fs::remove_file(scratch.0.join(name)).unwrap();
        }
    }

    #[test]
    fn a_save_that_is_not_whole_is_refused() {
        let scratch = Scratch::new("whole");
        let stem = scratch.0.join("blocks");
        save(&stem, &[range(0, 8192)]).unwrap();
        let data = scratch.0.join("blocks.data");
        let good = fs::read(&data).unwrap();
        let refused = |why: &str| {
            let failure = Saved::open(&stem).unwrap_err().to_string();
            assert!(failure.contains(why), "{failure}");
        };
        fs::write(&data, &good[..4096]).unwrap();
        refused("instead of 8192");
        let mut rotten = good.clone();
        rotten[5000] ^= 1;
        fs::write(&data, &rotten).unwrap();
        refused("checksum");
        fs::write(&data, &good).unwrap();
        Saved::open(&stem).unwrap();
        let index = scratch.0.join("blocks.json");
        let text = fs::read_to_string(&index).unwrap();
        fs::write(&index, text.replace("8192", "18446744073709551615")).unwrap();
        refused("bytes instead of");
        fs::write(&index, "{").unwrap();
        refused("EOF");
        fs::remove_file(&index).unwrap();
        refused("not finished");
    }
}
