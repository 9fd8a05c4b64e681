//! The demo's client: threads that add rows through the overlay IP, over and over, and journal what was acknowledged.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::journal::Journal;
use super::postgres;
use crate::failure::Failure;
use crate::lab::state::Workload;
use crate::lab::tools;
use crate::lab::topology::{OVERLAY_IP, WORKLOAD_PORT};
use crate::ledger::client::Client;
use crate::ledger::protocol::Verdict;
use crate::ledger::row::Row;

/// Threads, each with a connection of its own and one row at a time.
const WRITERS: usize = 4;
/// How long a connection may take. Short, so that the end of an outage is noticed at once.
const CONNECT_MAX: Duration = Duration::from_millis(25);
/// Attempts to connect start at least this far apart, per thread.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// Pause of a thread after a good reply: the demo is about outages, not about load.
const ROW_PAUSE: Duration = Duration::from_millis(1);

/// A connection to the workload.
#[derive(Debug)]
pub(super) enum Session {
    /// The embedded ledger.
    Ledger(Client),
    /// A PostgreSQL server.
    Postgres(postgres::Session),
}

impl Session {
    /// Connects to the workload behind the overlay IP; the calling thread is in the client's namespace.
    ///
    /// # Errors
    /// When it does not accept in time.
    pub(super) fn connect(workload: Workload) -> io::Result<Self> {
        let to = SocketAddr::from((OVERLAY_IP, WORKLOAD_PORT));
        let answer_max = answer_max(workload);
        match workload {
            Workload::None => Err(io::Error::other("the lab runs no workload")),
            Workload::Ledger => Client::connect(to, CONNECT_MAX, answer_max).map(Self::Ledger),
            Workload::Postgres => {
                postgres::Session::connect(to, CONNECT_MAX, answer_max).map(Self::Postgres)
            }
        }
    }

    /// Makes what must be there before rows can be added.
    ///
    /// # Errors
    /// When the workload does not answer.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        match self {
            Self::Ledger(_) => Ok(()),
            Self::Postgres(session) => session.create_table(),
        }
    }

    fn add(&mut self, row: &Row) -> io::Result<()> {
        match self {
            Self::Ledger(client) => match client.add(row)? {
                Verdict::Durable => Ok(()),
                Verdict::Conflict => Err(io::Error::other("another row has this number")),
            },
            Self::Postgres(session) => session.add(row),
        }
    }

    /// Reads every row.
    ///
    /// # Errors
    /// When the connection breaks or a row is damaged.
    pub(super) fn read_all(&mut self) -> io::Result<Vec<Row>> {
        match self {
            Self::Ledger(client) => client.read_all(),
            Self::Postgres(session) => session.read_all(),
        }
    }
}

/// How long an answer may take before the row is sent again on a new connection. A stalled server queues both, and answers the
/// newer one, so this does not blur the measured outage.
const fn answer_max(workload: Workload) -> Duration {
    match workload {
        Workload::None | Workload::Ledger => Duration::from_millis(100),
        // Each connection is a process there.
        Workload::Postgres => Duration::from_millis(250),
    }
}

/// Running threads.
#[derive(Debug)]
pub(super) struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Starts adding rows from the namespace `netns`. Rows follow from `seed`.
    pub(super) fn start(
        netns: &str,
        workload: Workload,
        seed: u64,
        journal: &Arc<Journal>,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicU64::new(1));
        let thread = |_| {
            let (netns, stop, next) = (netns.to_owned(), Arc::clone(&stop), Arc::clone(&next));
            let journal = Arc::clone(journal);
            thread::spawn(move || {
                if tools::enter(&netns).is_ok() {
                    write(workload, seed, &stop, &next, &journal);
                }
            })
        };
        Self {
            threads: (0..WRITERS).map(thread).collect(),
            stop,
        }
    }

    /// Stops after the rows that are under way.
    pub(super) fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A writer that panicked has journalled what was acknowledged to it.
            thread.join().ok();
        }
    }
}

fn write(workload: Workload, seed: u64, stop: &AtomicBool, next: &AtomicU64, journal: &Journal) {
    let mut session = None;
    while !stop.load(Ordering::Relaxed) {
        let row = Row::new(seed, next.fetch_add(1, Ordering::Relaxed));
        // The outcome of a row without an answer is unknown: the same row again, until it is known.
        while !stop.load(Ordering::Relaxed) {
            let sent = Instant::now();
            match add_once(&mut session, workload, &row) {
                Ok(()) => {
                    journal.record(row.number, sent, Instant::now());
                    thread::sleep(ROW_PAUSE);
                    break;
                }
                Err(_) => {
                    session = None;
                    thread::sleep(RETRY_PAUSE.saturating_sub(sent.elapsed()));
                }
            }
        }
    }
}

fn add_once(session: &mut Option<Session>, workload: Workload, row: &Row) -> io::Result<()> {
    match session {
        Some(open) => open.add(row),
        None => session.insert(Session::connect(workload)?).add(row),
    }
}

/// Makes the workload's table or the like, waiting until it accepts connections.
///
/// # Errors
/// When it does not within `limit`.
pub(super) fn prepare(netns: &str, workload: Workload, limit: Duration) -> Result<(), Failure> {
    tools::inside(netns, || {
        let mut last = None;
        let ready = tools::wait_for("an answer of the workload", limit, || {
            let prepared = Session::connect(workload).and_then(|mut session| session.prepare());
            prepared.map_err(|error| last = Some(error)).ok()
        });
        ready.map_err(|failure| match &last {
            Some(error) => failure.cause(error),
            None => failure,
        })
    })?
}

/// Reads every row back through the overlay IP.
///
/// # Errors
/// When the workload does not give them within `limit`.
pub(super) fn read_back(
    netns: &str,
    workload: Workload,
    limit: Duration,
) -> Result<Vec<Row>, Failure> {
    tools::inside(netns, || {
        let mut last = None;
        let rows = tools::wait_for("reading the rows back", limit, || {
            let read = Session::connect(workload).and_then(|mut session| session.read_all());
            read.map_err(|error| last = Some(error)).ok()
        });
        rows.map_err(|failure| match &last {
            Some(error) => failure.cause(error),
            None => failure,
        })
    })?
}
