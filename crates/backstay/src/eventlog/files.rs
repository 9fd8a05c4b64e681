//! The files of the event log: opening, cutting off a torn line, rotating, reading back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::{FORMAT, Header, Logged};
use crate::render::names::Names;

/// Name of the file that is written.
const CURRENT: &str = "events.jsonl";

/// A file is rotated when it is larger, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 4 << 20;

/// Rotated files that are kept; the oldest is removed. With the current one, the log takes at most 20 MiB.
const ROTATED_MAX: u32 = 4;

/// Longest line that is read, in bytes; a longer one is damage and is skipped.
const LINE_BYTES_MAX: u64 = 1 << 16;

/// The file that is written.
#[derive(Debug)]
pub(super) struct Writer {
    directory: PathBuf,
    header: String,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

/// Opens the log for writing, and reads back what is in it.
pub(super) fn open(directory: &Path, names: &Names) -> io::Result<(Writer, Vec<Logged>)> {
    let path = directory.join(CURRENT);
    let mut file = open_file(&path)?;
    let bytes = cut_torn_line(&mut file)?;
    let found = read_all(directory)?;
    let header = Header {
        backstay_events: FORMAT,
        names: names.clone(),
    }
    .to_line();
    let mut writer = Writer {
        directory: directory.to_path_buf(),
        header,
        file,
        bytes,
        bytes_max: FILE_BYTES_MAX,
    };
    writer.write_header()?;
    Ok((writer, found))
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

/// Cuts the file behind its last complete line. Gives its length.
fn cut_torn_line(file: &mut File) -> io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut end = length;
    let mut block = [0_u8; 4096];
    while end > 0 {
        let start = end.saturating_sub(4096);
        let size = usize::try_from(end - start).unwrap_or(block.len());
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block[..size])?;
        if let Some(at) = block[..size].iter().rposition(|byte| *byte == b'\n') {
            end = start + u64::try_from(at).unwrap_or(0) + 1;
            break;
        }
        end = start;
    }
    if end < length {
        file.set_len(end)?;
    }
    Ok(end)
}

impl Writer {
    #[cfg(test)]
    pub(super) const fn limit(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    fn write_header(&mut self) -> io::Result<()> {
        let header = std::mem::take(&mut self.header);
        let written = self.write_line(&header);
        self.header = header;
        written
    }

    fn write_line(&mut self, line: &str) -> io::Result<()> {
        let bytes = format!("{line}\n").into_bytes();
        let before = self.bytes;
        if let Err(error) = self.file.write_all(&bytes) {
            // Half a line would spoil the next one: take it back. If that fails too, the reader skips the damage.
            self.file.set_len(before).ok();
            return Err(error);
        }
        self.bytes += u64::try_from(bytes.len()).unwrap_or(0);
        Ok(())
    }

    /// Appends one line, in a new file if this one is full.
    pub(super) fn append(&mut self, line: &str) -> io::Result<()> {
        if self.bytes >= self.bytes_max {
            self.rotate()?;
        }
        self.write_line(line)
    }

    /// Makes everything that was appended durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        for number in (1..ROTATED_MAX).rev() {
            rename_if_there(&self.rotated(number), &self.rotated(number + 1))?;
        }
        rename_if_there(&self.directory.join(CURRENT), &self.rotated(1))?;
        self.file = open_file(&self.directory.join(CURRENT))?;
        self.bytes = 0;
        self.write_header()?;
        File::open(&self.directory)?.sync_all()
    }

    fn rotated(&self, number: u32) -> PathBuf {
        rotated(&self.directory, number)
    }
}

fn rotated(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{CURRENT}.{number}"))
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Everything that the files hold, oldest first. Damaged lines are left out.
pub(super) fn read_all(directory: &Path) -> io::Result<Vec<Logged>> {
    let mut found = Vec::new();
    for number in (1..=ROTATED_MAX).rev() {
        read_file(&rotated(directory, number), &mut found)?;
    }
    read_file(&directory.join(CURRENT), &mut found)?;
    Ok(found)
}

fn read_file(path: &Path, found: &mut Vec<Logged>) -> io::Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut reader = BufReader::new(file);
    let mut names = Arc::new(Names::default());
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)?
            == 0
        {
            return Ok(());
        }
        // Not an untagged enum: that would not read maps with numbers as keys. A torn or damaged line is neither.
        if let Ok(entry) = serde_json::from_slice(&line) {
            found.push(Logged {
                entry,
                names: Arc::clone(&names),
            });
        } else if let Ok(header) = serde_json::from_slice::<Header>(&line) {
            names = Arc::new(header.names);
        }
    }
}
