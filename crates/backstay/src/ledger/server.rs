//! The ledger's server: one thread per connection reads rows, one thread makes them durable and answers.
//!
//! ```text
//! connection threads ──► Queue ──► committer: write, fdatasync, answer
//! ```

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::log::{Added, Log};
use super::protocol::{ADD, READ_ALL, Verdict, encode_answer, write_rows};
use super::row::{ROW_BYTES, Row};
use crate::exit::Exit;

/// Most connections at a time; a further one is closed at once.
const CONNECTIONS_MAX: usize = 64;
/// Most rows that wait for the disk; a connection that has more to add waits.
const QUEUE_MAX: usize = 4096;
/// A connection that is silent for this long is closed: its client may be gone without a word.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// A client that does not take its answer for this long is closed.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// One row that waits to become durable.
struct Pending {
    row: Row,
    client: Arc<TcpStream>,
}

#[derive(Default)]
struct Queue {
    pending: Mutex<Vec<Pending>>,
    changed: Condvar,
}

/// What all threads share.
struct Shared {
    queue: Queue,
    log: Mutex<Log>,
    connections: AtomicUsize,
}

/// Serves until the disk fails.
pub(super) fn serve(dir: &Path, listen: SocketAddr) -> io::Result<Exit> {
    let log = Log::open(dir)?;
    let listener = TcpListener::bind(listen)?;
    eprint(format_args!(
        "ledger: {} rows, listening on {listen}",
        log.len()
    ));
    let shared = Arc::new(Shared {
        queue: Queue::default(),
        log: Mutex::new(log),
        connections: AtomicUsize::new(0),
    });
    let acceptor = Arc::clone(&shared);
    thread::Builder::new()
        .name("accept".to_owned())
        .spawn(move || accept(&listener, &acceptor))?;
    commit_forever(&shared)
}

fn eprint(line: std::fmt::Arguments<'_>) {
    // Nobody may be listening any more; the ledger does its work all the same.
    writeln!(io::stderr().lock(), "{line}").ok();
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Out of descriptors, most likely: give connections time to end.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        if shared.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let of_thread = Arc::clone(shared);
        let spawned = thread::Builder::new()
            .name("client".to_owned())
            .spawn(move || {
                // A client that breaks off or talks nonsense ends its own connection only.
                talk(stream, &of_thread).ok();
                of_thread.connections.fetch_sub(1, Ordering::Relaxed);
            });
        if spawned.is_err() {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn talk(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    let client = Arc::new(stream);
    loop {
        let mut request = [0];
        (&*client).read_exact(&mut request)?;
        match request[0] {
            ADD => {
                let mut bytes = [0; ROW_BYTES];
                (&*client).read_exact(&mut bytes)?;
                let Some(row) = Row::decode(&bytes) else {
                    return Err(io::ErrorKind::InvalidData.into());
                };
                shared.queue.push(Pending {
                    row,
                    client: Arc::clone(&client),
                });
            }
            READ_ALL => {
                let stored = lock(&shared.log).read_all()?;
                write_rows(&*client, &stored)?;
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl Queue {
    fn push(&self, pending: Pending) {
        let mut waiting = lock(&self.pending);
        while waiting.len() >= QUEUE_MAX {
            waiting = self
                .changed
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        waiting.push(pending);
        self.changed.notify_all();
    }

    fn take(&self) -> Vec<Pending> {
        let mut waiting = lock(&self.pending);
        while waiting.is_empty() {
            waiting = self
                .changed
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let taken = std::mem::take(&mut *waiting);
        self.changed.notify_all();
        taken
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends only when rows cannot be made durable: then nothing more may be acknowledged by this process.
fn commit_forever(shared: &Shared) -> io::Result<Exit> {
    loop {
        let batch = shared.queue.take();
        let rows: Vec<Row> = batch.iter().map(|pending| pending.row).collect();
        let results = lock(&shared.log).add(&rows)?;
        for (pending, added) in batch.iter().zip(results) {
            let verdict = match added {
                Added::Stored => Verdict::Durable,
                Added::Conflict => Verdict::Conflict,
            };
            // A client that is gone asks again on another connection.
            (&*pending.client)
                .write_all(&encode_answer(verdict, pending.row.number))
                .ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::client::Client;

    #[test]
    fn rows_that_were_acknowledged_are_read_back() {
        let dir =
            std::env::temp_dir().join(format!("backstay-ledger-serve-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let probe = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = probe.local_addr().unwrap();
        drop(probe);
        let served = dir.clone();
        thread::spawn(move || serve(&served, address));
        let limit = Duration::from_secs(5);
        let mut client = (0..500)
            .find_map(|_| {
                thread::sleep(Duration::from_millis(5));
                Client::connect(address, limit, limit).ok()
            })
            .unwrap();
        for number in 1..=20 {
            assert_eq!(client.add(&Row::new(3, number)).unwrap(), Verdict::Durable);
        }
        assert_eq!(client.add(&Row::new(3, 20)).unwrap(), Verdict::Durable);
        assert_eq!(client.add(&Row::new(4, 20)).unwrap(), Verdict::Conflict);
        let rows = client.read_all().unwrap();
        assert_eq!(rows.len(), 20);
        assert!(rows.iter().all(Row::is_genuine));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
