//! The thread that writes the event log, so that a slow or hanging disk holds up nobody else.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;

use super::entry::Logged;
use super::files::Writer;
use crate::outbox::{Alert, Outbox};

/// What the thread is asked to do.
#[derive(Debug)]
pub(super) enum Line {
    /// Append one line; durable at once if it is important, with the next pause otherwise.
    Event(Arc<Logged>),
    /// Say whether everything so far is durable.
    Flush { done: SyncSender<bool> },
}

/// Starts the thread. It ends when the last sender is gone, after everything was written.
pub(super) fn start(
    writer: Writer,
    outbox: Outbox,
    queue_max: usize,
    unwritten: Arc<AtomicU64>,
) -> io::Result<SyncSender<Line>> {
    let (queue, lines) = sync_channel(queue_max);
    thread::Builder::new()
        .name("event-log".into())
        .spawn(move || write_all(writer, &outbox, &lines, &unwritten))?;
    Ok(queue)
}

fn write_all(mut writer: Writer, outbox: &Outbox, lines: &Receiver<Line>, unwritten: &AtomicU64) {
    let mut healthy = true;
    let mut dirty = false;
    while let Some(line) = next(lines, &writer, &mut dirty, &mut healthy) {
        match line {
            Line::Event(logged) => {
                let sync = logged.entry.is_important();
                let written = writer.append(&logged.entry.to_line()).and_then(|()| {
                    dirty = !sync;
                    if sync { writer.sync() } else { Ok(()) }
                });
                // An alert that cannot be kept is lost; its event is in the log, or counted as unwritten.
                let kept = Alert::of(&logged).map_or(Ok(()), |alert| outbox.put(&alert));
                report(written.and(kept), &mut healthy, unwritten);
            }
            Line::Flush { done } => {
                let synced = writer.sync().is_ok();
                // The asker may have given up.
                done.try_send(synced && healthy).ok();
            }
        }
    }
}

/// The next line. Before it waits, everything written is made durable.
fn next(
    lines: &Receiver<Line>,
    writer: &Writer,
    dirty: &mut bool,
    healthy: &mut bool,
) -> Option<Line> {
    match lines.try_recv() {
        Ok(line) => return Some(line),
        Err(TryRecvError::Disconnected) => {
            writer.sync().ok();
            return None;
        }
        Err(TryRecvError::Empty) => {}
    }
    if *dirty {
        *healthy &= writer.sync().is_ok();
        *dirty = false;
    }
    let line = lines.recv().ok();
    if line.is_none() {
        writer.sync().ok();
    }
    line
}

fn report(written: io::Result<()>, healthy: &mut bool, unwritten: &AtomicU64) {
    match written {
        Ok(()) => *healthy = true,
        Err(error) => {
            unwritten.fetch_add(1, Ordering::Relaxed);
            // Once per outage, not once per event.
            if *healthy {
                tracing::warn!(%error, "cannot write the event log");
            }
            *healthy = false;
        }
    }
}
