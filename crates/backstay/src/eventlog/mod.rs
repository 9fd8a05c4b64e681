//! The event log of one node: durable, bounded, and never in the way of a decision.
//!
//! [`EventLog::append`] numbers an event, keeps it in memory and hands it to a writer thread; a hanging disk delays only
//! the file. The file is lines of JSON (see [`entry`]); full files are rotated, the oldest is removed. A line that a
//! crash tore is cut off at the next start: it was not announced as durable. The writer also fills the alert [`crate::outbox`].

pub mod entry;
mod files;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use wire::event::Event;

use crate::outbox::Outbox;
use crate::render::names::Names;
use entry::{Entry, Logged};
use writer::Line;

/// Events that are kept in memory. Older ones are read from the files.
const RECENT_MAX: usize = 2_048;

/// Events that wait for the writer. Beyond it, events are in memory only and counted in [`EventLog::unwritten`].
const QUEUE_MAX: usize = 4_096;

/// Most events that one read gives.
pub const READ_MAX: usize = 1_000;

/// The log. Clones are the same log.
#[derive(Clone, Debug)]
pub struct EventLog {
    shared: Arc<Shared>,
    queue: SyncSender<Line>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    names: Arc<Names>,
    recent: Mutex<Recent>,
    head: watch::Sender<u64>,
    unwritten: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Recent {
    /// Number of the next event; the first is 1.
    next: u64,
    /// Invariant: consecutive numbers, the last is `next - 1`.
    events: VecDeque<Arc<Logged>>,
}

impl EventLog {
    /// Opens or makes the log in a directory, and starts its writer thread.
    ///
    /// # Errors
    /// When the directory or a file cannot be read or written.
    pub fn open(directory: &Path, names: Names) -> io::Result<Self> {
        let (writer, found) = files::open(directory, &names)?;
        let outbox = Outbox::open(&directory.join("outbox"))?;
        let mut events: VecDeque<Arc<Logged>> = found.into_iter().map(Arc::new).collect();
        while events.len() > RECENT_MAX {
            events.pop_front();
        }
        let next = events.back().map_or(1, |last| last.entry.seq + 1);
        let unwritten = Arc::new(AtomicU64::new(0));
        let queue = writer::start(writer, outbox, QUEUE_MAX, Arc::clone(&unwritten))?;
        let shared = Shared {
            directory: directory.to_path_buf(),
            names: Arc::new(names),
            recent: Mutex::new(Recent { next, events }),
            head: watch::Sender::new(next - 1),
            unwritten,
        };
        Ok(Self {
            shared: Arc::new(shared),
            queue,
        })
    }

    /// Numbers and keeps an event. Never waits for a disk.
    pub fn append(&self, event: Event) -> Arc<Logged> {
        let mut recent = self.recent();
        let entry = Entry::new(recent.next, event);
        let logged = Arc::new(Logged {
            entry,
            names: Arc::clone(&self.shared.names),
        });
        recent.next += 1;
        recent.events.push_back(Arc::clone(&logged));
        if recent.events.len() > RECENT_MAX {
            recent.events.pop_front();
        }
        // Under the lock, so that lines reach the file in the order of their numbers.
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.try_send(Line::Event(Arc::clone(&logged)))
        {
            self.shared.unwritten.fetch_add(1, Ordering::Relaxed);
        }
        drop(recent);
        self.shared.head.send_replace(logged.entry.seq);
        logged
    }

    /// Number of the newest event; 0 when there is none.
    pub fn head(&self) -> u64 {
        *self.shared.head.borrow()
    }

    /// Learns of new events: the value is the newest number.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.head.subscribe()
    }

    /// Events that could not be written to the disk since the start.
    pub fn unwritten(&self) -> u64 {
        self.shared.unwritten.load(Ordering::Relaxed)
    }

    /// The first `limit` (at most [`READ_MAX`]) events after number `after`, oldest first.
    ///
    /// It reads files when `after` is older than memory: call it where blocking is allowed.
    pub fn after(&self, after: u64, limit: usize) -> Vec<Arc<Logged>> {
        let limit = limit.min(READ_MAX);
        if let Some(found) = self.after_in_memory(after, limit) {
            return found;
        }
        let Ok(found) = files::read_all(&self.shared.directory) else {
            return self.recent().events.iter().take(limit).cloned().collect();
        };
        let newer = found.into_iter().filter(|logged| logged.entry.seq > after);
        newer.take(limit).map(Arc::new).collect()
    }

    /// The last `limit` (at most [`READ_MAX`]) events, oldest first. It may read files.
    pub fn last(&self, limit: usize) -> Vec<Arc<Logged>> {
        let limit = u64::try_from(limit.min(READ_MAX)).unwrap_or(u64::MAX);
        self.after(self.head().saturating_sub(limit), READ_MAX)
    }

    fn after_in_memory(&self, after: u64, limit: usize) -> Option<Vec<Arc<Logged>>> {
        let recent = self.recent();
        let first = recent
            .events
            .front()
            .map_or(recent.next, |first| first.entry.seq);
        if first > 1 && after + 1 < first {
            return None;
        }
        let newer = recent
            .events
            .iter()
            .filter(|logged| logged.entry.seq > after);
        Some(newer.take(limit).cloned().collect())
    }

    /// Waits until everything appended before is on the disk; false when that failed. It blocks.
    pub fn flush(&self) -> bool {
        let (done, wait) = std::sync::mpsc::sync_channel(1);
        self.queue.send(Line::Flush { done }).is_ok() && wait.recv().unwrap_or(false)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        // The lock guards plain data that no panic leaves half-changed.
        self.shared
            .recent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
