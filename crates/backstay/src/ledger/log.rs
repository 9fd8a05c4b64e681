//! The ledger's file: rows one after another, found again by number.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::row::{ROW_BYTES, Row};

/// Name of the file in the ledger's directory.
const FILE: &str = "ledger";
/// Distance of rows in the file, in bytes.
const STRIDE: u64 = 128;
/// Rows that are read at once while the file is looked through.
const SCAN_ROWS: usize = 4096;

const _: () = assert!(STRIDE == ROW_BYTES as u64, "rows stand one after another");

/// The open file.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    /// Where each row begins. Invariant: every row in here is durable or part of the batch that is being written.
    places: BTreeMap<u64, u64>,
    /// Where the next row goes.
    end: u64,
}

/// What became of a row that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It is in the file, written now or earlier.
    Stored,
    /// Another row has this number.
    Conflict,
}

impl Log {
    /// Opens or creates the file and cuts off what a crash left half written: none of that was acknowledged.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut log = Self {
            file,
            places: BTreeMap::new(),
            end: 0,
        };
        log.scan()?;
        if log.file.metadata()?.len() > log.end {
            log.file.set_len(log.end)?;
            log.file.sync_all()?;
        }
        // The name must be durable before the first row is.
        File::open(dir)?.sync_all()?;
        Ok(log)
    }

    fn scan(&mut self) -> io::Result<()> {
        let mut chunk = vec![0; SCAN_ROWS * ROW_BYTES];
        loop {
            let filled = read_up_to(&self.file, &mut chunk, self.end)?;
            for bytes in chunk[..filled].as_chunks::<ROW_BYTES>().0 {
                let Some(row) = Row::decode(bytes) else {
                    return Ok(());
                };
                self.places.insert(row.number, self.end);
                self.end += STRIDE;
            }
            if filled < chunk.len() {
                return Ok(());
            }
        }
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Writes those of `rows` that are new and makes them durable, all at once.
    ///
    /// After an error the file must not be used any more: a failed fdatasync may have dropped the dirty pages, and a second one
    /// would succeed without them.
    pub(super) fn add(&mut self, rows: &[Row]) -> io::Result<Vec<Added>> {
        let start = self.end;
        let mut fresh = Vec::new();
        let mut results = Vec::with_capacity(rows.len());
        for row in rows {
            let bytes = row.encode();
            match self.places.get(&row.number) {
                Some(place) => results.push(self.compare(*place, start, &fresh, &bytes)?),
                None => {
                    self.places.insert(row.number, self.end);
                    self.end += STRIDE;
                    fresh.extend_from_slice(&bytes);
                    results.push(Added::Stored);
                }
            }
        }
        if !fresh.is_empty() {
            self.file.write_all_at(&fresh, start)?;
            self.file.sync_data()?;
        }
        Ok(results)
    }

    /// Compares a row with the one of the same number, which is in the file or in the batch that starts at `start`.
    fn compare(&self, place: u64, start: u64, fresh: &[u8], row: &[u8]) -> io::Result<Added> {
        let mut stored = [0; ROW_BYTES];
        match place.checked_sub(start).map(usize::try_from) {
            Some(Ok(at)) => stored.copy_from_slice(&fresh[at..at + ROW_BYTES]),
            Some(Err(error)) => return Err(io::Error::other(error)),
            None => self.file.read_exact_at(&mut stored, place)?,
        }
        Ok(if stored == row {
            Added::Stored
        } else {
            Added::Conflict
        })
    }

    /// All rows in the order of their numbers, as stored.
    pub(super) fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut stored = vec![0; self.places.len() * ROW_BYTES];
        for (bytes, place) in stored.chunks_exact_mut(ROW_BYTES).zip(self.places.values()) {
            self.file.read_exact_at(bytes, *place)?;
        }
        Ok(stored)
    }
}

fn read_up_to(file: &File, buffer: &mut [u8], from: u64) -> io::Result<usize> {
    let (mut filled, mut at) = (0, from);
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at) {
            Ok(0) => break,
            Ok(count) => {
                filled += count;
                at = at.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> std::path::PathBuf {
        let dir =
            std::env::temp_dir().join(format!("backstay-ledger-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&dir).ok();
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn rows(numbers: std::ops::Range<u64>) -> Vec<Row> {
        numbers.map(|number| Row::new(1, number)).collect()
    }

    #[test]
    fn rows_survive_reopening_and_a_torn_tail_does_not() {
        let dir = directory("torn");
        Log::open(&dir).unwrap().add(&rows(1..6)).unwrap();
        let file = File::options().write(true).open(dir.join(FILE)).unwrap();
        file.write_all_at(&Row::new(1, 6).encode()[..100], 5 * STRIDE)
            .unwrap();
        let mut log = Log::open(&dir).unwrap();
        assert_eq!(log.len(), 5);
        log.add(&rows(6..8)).unwrap();
        assert_eq!(Log::open(&dir).unwrap().len(), 7);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn same_row_twice_is_one_row_and_another_content_is_a_conflict() {
        let dir = directory("twice");
        let mut log = Log::open(&dir).unwrap();
        let twice = [Row::new(1, 1), Row::new(1, 1), Row::new(2, 1)];
        assert_eq!(
            log.add(&twice).unwrap(),
            [Added::Stored, Added::Stored, Added::Conflict]
        );
        assert_eq!(
            log.add(&twice).unwrap(),
            [Added::Stored, Added::Stored, Added::Conflict]
        );
        assert_eq!(log.len(), 1);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
