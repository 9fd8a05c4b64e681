//! The undo log of a resync's target: reads what is about to be overwritten, and writes it down durably.
//!
//! In a thread of its own, one operation after the other: it waits for the disk and for the log, and nothing else of the mirror does.

use super::{Handle, Order};
use crate::failure::Failure;
use host::disk::{Disk, OpenError, OpenOptions};
use host::ring::Buf;
use mirror::io::{Errno, IoId, UndoAnswer, UndoOp};
use mirror::way_back::{self, UndoFault};
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{SystemTime, UNIX_EPOCH};
use wire::ByteRange;
use wire::layout::SEALED_BYTES;
use wire::undo::{FIRST_BATCH, HEADERS, Header, batch};
use wire::units::BLOCK_BYTES;

/// Operations that may wait. A replica gives up one that is not answered, and asks for few more.
const WAITING_MAX: usize = 8;

/// A log that is new begins and ends with so many zeros, in bytes: whatever marks a disk as somebody's is there.
const BLANK_BYTES: u64 = 1 << 20;

/// The way to the thread; none if there is no log.
#[derive(Debug)]
pub(super) struct UndoLog {
    orders: Option<SyncSender<(IoId, UndoOp)>>,
}

/// Where a log is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// Size that a file gets when it is made, in bytes.
    pub(super) bound: u64,
}

struct Worker {
    place: Place,
    /// None until it could be opened.
    log: Option<Disk>,
    disk: Arc<Disk>,
    handle: Handle,
}

impl Place {
    /// Opens the log for a daemon, or makes the file. Nothing that is there is changed.
    fn open_or_make(&self) -> Result<Disk, Failure> {
        self.make().map_err(|error| self.cannot().cause(error))?;
        let log = open(&self.path).map_err(|error| {
            let hint = if matches!(error, OpenError::Geometry { .. }) {
                "an empty file is made anew if it is removed".to_owned()
            } else {
                error.hint()
            };
            self.cannot().from_error(&error).hint(hint)
        })?;
        match is_usable(&log) {
            Ok(true) => Ok(log),
            Ok(false) => Err(self.cannot().cause("it holds something else").hint(
                "give a path where nothing is yet, or a device that begins and ends with 1 MiB of zeros",
            )),
            Err(error) => Err(self.cannot().cause(error)),
        }
    }

    /// Makes the file, durably, if nothing is there: only then it gets its size. One that became smaller has lost something, and has
    /// to show that.
    fn make(&self) -> io::Result<()> {
        if self.path.exists() {
            return Ok(());
        }
        let parent = self.path.parent().unwrap_or_else(|| Path::new("/"));
        let real = parent.canonicalize()?;
        if real.starts_with("/dev") && !real.starts_with("/dev/shm") {
            let missing = "there is no such device, and a file below /dev would not last";
            return Err(io::Error::new(io::ErrorKind::NotFound, missing));
        }
        let file = File::options()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&self.path)?;
        let sized = file.set_len(self.bound).and_then(|()| file.sync_all());
        if let Err(error) = sized {
            std::fs::remove_file(&self.path).ok();
            return Err(error);
        }
        File::open(real)?.sync_all()
    }

    fn cannot(&self) -> Failure {
        Failure::new(format!("cannot use the undo log {}", self.path.display()))
    }
}

/// Opens a log that is there, for this process alone, whatever it holds.
pub(crate) fn open(path: &Path) -> Result<Disk, OpenError> {
    let options = OpenOptions {
        allow_buffered: true,
        ..OpenOptions::default()
    };
    Disk::open(path, &options)
}

/// True if nobody loses anything when it is written: it is an undo log, be it damaged, or holds nothing.
fn is_usable(log: &Disk) -> io::Result<bool> {
    if headers(log).any(|(place, block)| Header::is_one(place, &block)) {
        return Ok(true);
    }
    let bytes = log.size() / BLOCK_BYTES * BLOCK_BYTES;
    let len = bytes.min(BLANK_BYTES);
    for offset in [0, bytes - len] {
        let mut buf = Buf::new(usize::try_from(len).map_err(io::Error::other)?);
        log.read_now(offset, &mut buf)?;
        if buf.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The blocks of its beginning that can be read, with their places.
fn headers(log: &Disk) -> impl Iterator<Item = (u64, Vec<u8>)> {
    let block = |place| {
        Some((
            place,
            read(log, ByteRange::new(place * BLOCK_BYTES, BLOCK_BYTES))?,
        ))
    };
    (0..HEADERS).filter_map(block)
}

/// Gives the space of a file back, if it is a log of this replica; nothing may lead back by it. It stays what it is: an undo log.
pub(crate) fn clear(log: &Disk, replica: u128) -> io::Result<()> {
    let own = headers(log).any(|(place, block)| Header::is_of(replica, place, &block));
    if own && !log.is_device() && log.size() > FIRST_BATCH {
        log.zero_now(FIRST_BATCH, log.size() - FIRST_BATCH)?;
    }
    Ok(())
}

/// Reads a range; none if it is not given.
pub(crate) fn read(disk: &Disk, range: impl Into<Option<ByteRange>>) -> Option<Vec<u8>> {
    let range: ByteRange = range.into()?;
    let mut buf = Buf::new(usize::try_from(range.len()).ok()?);
    disk.read_now(range.offset(), &mut buf).ok()?;
    Some(buf.to_vec())
}

impl UndoLog {
    /// None: every operation fails.
    pub(super) const fn none() -> Self {
        Self { orders: None }
    }

    /// Starts the thread.
    pub(super) fn start(place: Place, disk: Arc<Disk>, handle: Handle) -> io::Result<Self> {
        let (orders, inbox) = sync_channel(WAITING_MAX);
        let mut worker = Worker {
            place,
            log: None,
            disk,
            handle,
        };
        let thread = std::thread::Builder::new().name("undo log".to_owned());
        thread.spawn(move || worker.run(&inbox))?;
        Ok(Self {
            orders: Some(orders),
        })
    }

    /// Hands an operation over; false if it cannot be done.
    pub(super) fn ask(&self, io: IoId, op: UndoOp) -> bool {
        let orders = self.orders.as_ref();
        orders.is_some_and(|orders| orders.try_send((io, op)).is_ok())
    }
}

impl Worker {
    /// A log that cannot be used, or does not even let itself be opened, keeps nobody from running.
    fn run(&mut self, inbox: &Receiver<(IoId, UndoOp)>) {
        if let Err(failure) = self.log() {
            tracing::error!(%failure, "no resync to this node can be undone");
        }
        while let Ok((io, op)) = inbox.recv() {
            let result = self.perform(&op).map_err(|error| {
                tracing::warn!(%error, "the undo log fails");
                Errno(error.raw_os_error().unwrap_or(Errno::IO.0))
            });
            self.handle.order(Order::Undo { io, result });
        }
    }

    fn log(&mut self) -> Result<&Disk, Failure> {
        if self.log.is_none() {
            self.log = Some(self.place.open_or_make()?);
        }
        self.log.as_ref().ok_or_else(|| self.place.cannot())
    }

    fn perform(&mut self, op: &UndoOp) -> io::Result<UndoAnswer> {
        let disk = Arc::clone(&self.disk);
        let log = self
            .log()
            .map_err(|failure| io::Error::other(failure.to_string()))?;
        match op {
            UndoOp::Begin { key } => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                let began_unix = now.map_or(0, |time| time.as_secs());
                let log_bytes = log.size();
                let header = Header {
                    key: *key,
                    began_unix,
                    log_bytes,
                };
                write(log, 0, &header.seal())?;
                Ok(UndoAnswer::Begun {
                    began_unix,
                    log_bytes,
                })
            }
            UndoOp::Save {
                key,
                offset,
                sequence,
                blocks,
            } => {
                let old = old(&disk, blocks)?;
                let bytes = batch(*key, (*sequence, *offset), blocks, &old);
                write(log, *offset, &bytes)?;
                Ok(UndoAnswer::Done)
            }
            UndoOp::Load { key, blocks } => {
                let sizes = (*blocks, log.size());
                let mut sync = || log.sync_now().is_ok();
                let mut from_log = |range| read(log, Some(range));
                let mut from_disk = |range| read(&disk, Some(range));
                let loaded = way_back::load(*key, sizes, &mut sync, &mut from_log, &mut from_disk);
                loaded.map(UndoAnswer::Loaded).map_err(as_error)
            }
            UndoOp::Clear { replica } => clear(log, *replica).map(|()| UndoAnswer::Done),
        }
    }
}

fn write(log: &Disk, offset: u64, bytes: &[u8]) -> io::Result<()> {
    log.write_now(offset, &Buf::copy_of(bytes).freeze())
}

/// The content of blocks, neighbours at once.
fn old(disk: &Disk, blocks: &[u64]) -> io::Result<Vec<u8>> {
    let mut old = Vec::new();
    for run in blocks.chunk_by(|one, next| one + 1 == *next) {
        let mut buf = Buf::new(run.len() * SEALED_BYTES);
        let first = run.first().copied().unwrap_or(0);
        disk.read_now(first * BLOCK_BYTES, &mut buf)?;
        old.extend_from_slice(&buf);
    }
    Ok(old)
}

fn as_error(fault: UndoFault) -> io::Error {
    io::Error::other(match fault {
        UndoFault::Foreign => "it is not the log of this resync",
        UndoFault::Unreadable => "it cannot be read",
        UndoFault::Damaged => "it is damaged",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::layout::{BlockKind, seal};
    use wire::undo::{Key, LOG_BYTES_MIN, UndoRun};

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("backstay-undo-{name}-{}", std::process::id());
            let dir = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).ok();
        }
    }

    fn place(dir: &Path, name: &str) -> Place {
        let path = dir.join(name);
        let bound = 2 * LOG_BYTES_MIN;
        Place { path, bound }
    }

    fn header(bytes: u64) -> Vec<u8> {
        let key = Key {
            replica: 7,
            run: UndoRun(9),
        };
        let header = Header {
            key,
            began_unix: 1,
            log_bytes: bytes,
        };
        header.seal()
    }

    #[test]
    fn a_file_gets_its_size_when_it_is_made_and_never_again() {
        let dir = Scratch::new("size");
        let place = place(&dir.0, "log");
        let log = place.open_or_make().unwrap();
        assert_eq!(log.size(), place.bound);
        assert!(place.open_or_make().is_err(), "it is in use");
        drop(log);
        let file = File::options().write(true).open(&place.path).unwrap();
        file.set_len(LOG_BYTES_MIN).unwrap();
        for used in [false, true] {
            if used {
                std::os::unix::fs::FileExt::write_all_at(&file, &header(place.bound), 0).unwrap();
            }
            assert_eq!(place.open_or_make().unwrap().size(), LOG_BYTES_MIN);
        }
    }

    #[test]
    fn what_holds_something_else_is_refused_and_stays_as_it_is() {
        let dir = Scratch::new("foreign");
        let zeros = vec![0; 3 << 20];
        let mut bitmap = zeros.clone();
        bitmap[..SEALED_BYTES].copy_from_slice(&seal(BlockKind::Bitmap, 0, 1, &[1]));
        let mut replica = zeros.clone();
        let end = zeros.len() - SEALED_BYTES;
        replica[end..].copy_from_slice(&seal(BlockKind::Super, 0, 1, &[1]));
        let mut behind = zeros.clone();
        behind[65_536] = 1;
        for (name, content) in [("bitmap", bitmap), ("replica", replica), ("behind", behind)] {
            let place = place(&dir.0, name);
            std::fs::write(&place.path, &content).unwrap();
            assert!(place.open_or_make().is_err(), "{name}");
            assert!(std::fs::read(&place.path).unwrap() == content, "{name}");
        }
        let mut damaged = zeros;
        let sealed = header(3 << 20);
        damaged[..sealed.len()].copy_from_slice(&sealed);
        damaged[..SEALED_BYTES].fill(0xEE);
        damaged[SEALED_BYTES + 900] ^= 1;
        let place = place(&dir.0, "damaged");
        std::fs::write(&place.path, &damaged).unwrap();
        assert!(place.open_or_make().is_ok());
    }

    #[test]
    fn no_file_is_made_where_devices_are() {
        let place = place(Path::new("/dev"), "backstay-no-such-device");
        assert!(place.open_or_make().is_err());
        assert!(!place.path.exists());
    }

    #[test]
    fn only_its_own_replicas_log_is_cleared() {
        let dir = Scratch::new("clear");
        let place = place(&dir.0, "log");
        let log = place.open_or_make().unwrap();
        write(&log, 0, &header(log.size())).unwrap();
        write(&log, FIRST_BATCH, &[3; SEALED_BYTES]).unwrap();
        let first = || read(&log, ByteRange::new(FIRST_BATCH, BLOCK_BYTES)).unwrap();
        clear(&log, 8).unwrap();
        assert_eq!(first()[0], 3);
        clear(&log, 7).unwrap();
        assert_eq!(first()[0], 0);
        assert!(is_usable(&log).unwrap());
    }
}
