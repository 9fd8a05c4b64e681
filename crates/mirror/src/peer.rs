//! What the active keeps of another replica.
//!
//! ```text
//! Down ──► Dialing ──► Greeting ──Hello──► Up: Copying ──► Naming ──► Committing ──► Clearing ──► Live
//!   ▲                                            │ nothing may differ        ▲
//!   └──────────── any loss, from anywhere        └───────────────────────────┘
//! ```

use crate::bits::Bits;
use crate::config::Compare;
use crate::follower::Standing;
use crate::io::ConnId;
use crate::lag::Lag;
use crate::machine::{FlushId, JobId};
use crate::spool::Outbox;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use wire::{Duration, Generation, SessionId, Time};

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) link: Link,
    /// Pause before the next try to connect.
    pub(crate) backoff: Duration,
    /// No session since; counts against a required peer (R18).
    pub(crate) missing_since: Time,
    /// The node was told of the loss and not yet of the return.
    pub(crate) lost: bool,
    /// Something that was acknowledged may be missing on it: it is no point in the history while it is copied to.
    pub(crate) lacks: bool,
    /// Asynchronous: what it may lack.
    pub(crate) lag: Lag,
    pub(crate) standing: Standing,
}

#[derive(Debug)]
pub(crate) enum Link {
    Down { redial_at: Time },
    Dialing,
    Greeting(Greeting),
    Up(Box<Session>),
}

/// Our Hello is sent, the peer's awaited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Greeting {
    pub(crate) conn: ConnId,
    pub(crate) session: SessionId,
    pub(crate) since: Time,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) conn: ConnId,
    pub(crate) session: SessionId,
    /// The peer's generation.
    pub(crate) generation: Generation,
    /// Its release knows how a volume grows.
    pub(crate) grows: bool,
    pub(crate) phase: Phase,
    pub(crate) next_seq: u64,
    /// Requests without an answer, in the order of sending.
    pub(crate) awaiting: BTreeMap<u64, Awaited>,
    /// The last answer.
    pub(crate) progress: Time,
    /// Asynchronous: frames that wait for their turn.
    pub(crate) outbox: Outbox,
    /// Nothing more can wait: the session is given up.
    pub(crate) full: bool,
    /// Bytes of the front end's writes since the latest point.
    pub(crate) point_bytes: u64,
    /// When the next point is due, if anything is marked.
    pub(crate) point_at: Time,
}

#[derive(Debug)]
pub(crate) enum Phase {
    /// Blocks that may differ are copied.
    Copying(Copying),
    /// All copied; this replica notes durably that the peer may commit.
    Naming { sent_bytes: u64 },
    /// All copied; the peer makes it durable.
    Committing { point: u64, sent_bytes: u64 },
    /// Asynchronous: it has everything, and the marks that say otherwise leave the disk here. Were this replica cut off with them, it
    /// would seem to hold more that the peer lacks than the bound allows.
    Clearing { sent_bytes: u64 },
    /// It has everything and gets every write; its acknowledgements count.
    Live,
}

#[derive(Debug)]
pub(crate) struct Copying {
    /// Blocks still to be sent.
    pub(crate) todo: Bits,
    /// The next chunk is looked for from here.
    pub(crate) cursor: u64,
    /// Chunks being read, sent, or not yet acknowledged.
    pub(crate) chunks: usize,
    /// Which chunks are compared before they are sent.
    pub(crate) compare: Compare,
    /// The peer must mark itself inconsistent first.
    pub(crate) start: Start,
    pub(crate) sent_bytes: u64,
    /// Blocks of chunks that could not be read here: one by one.
    pub(crate) careful: VecDeque<u64>,
    /// Blocks that cannot be read here.
    pub(crate) stuck: VecDeque<u64>,
    /// Those of them that were reported.
    pub(crate) told: BTreeSet<u64>,
    /// When these are tried again.
    pub(crate) retry_at: Time,
}

impl Copying {
    /// The next blocks to be copied, at most `max`; they are not to be copied any more.
    pub(crate) fn next_run(&mut self, max: u64) -> Option<Range<u64>> {
        if let Some(block) = self.careful.pop_front() {
            return Some(block..block + 1);
        }
        let found = self.todo.next_run(self.cursor, max);
        let run = found.or_else(|| self.todo.next_run(0, max))?;
        self.cursor = run.end;
        self.todo.clear(run.clone());
        Some(run)
    }

    /// True if everything is copied.
    pub(crate) fn is_done(&self) -> bool {
        self.is_idle() && self.stuck.is_empty()
    }

    /// True if nothing but unreadable blocks is left.
    pub(crate) fn is_stuck(&self) -> bool {
        self.is_idle() && !self.stuck.is_empty()
    }

    fn is_idle(&self) -> bool {
        let none_left = self.todo.is_clear() && self.careful.is_empty();
        self.start == Start::Done && self.chunks == 0 && none_left
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Sent, not yet acknowledged.
    Awaited,
    /// Durable at the peer, or not needed.
    Done,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Awaited {
    pub(crate) since: Time,
    /// What it takes of the window.
    pub(crate) weight: u64,
    pub(crate) what: Await,
}

/// What an answer is awaited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Await {
    Write(JobId),
    /// The flush behind a write that must be durable.
    Barrier(JobId),
    Flush(FlushId),
    /// A flush that ends this point of the bitmap.
    Point(u64),
    ResyncStart,
    Chunk,
    /// Whether a chunk is equal.
    Compare(JobId),
    /// What a place holds that cannot be read here.
    Content(JobId),
    /// The standbys' common point of this name.
    Common(SessionId),
    /// This step of a growth of the volume.
    Growth(u64),
    /// The end of a resync; ends this point of the bitmap.
    Commit(u64),
}

impl Peer {
    pub(crate) fn new(now: Time, backoff: Duration, lacks: bool) -> Self {
        Self {
            link: Link::Down { redial_at: now },
            backoff,
            missing_since: now,
            lost: false,
            lacks,
            lag: Lag::default(),
            standing: Standing::Within,
        }
    }

    pub(crate) fn conn(&self) -> Option<ConnId> {
        match &self.link {
            Link::Down { .. } | Link::Dialing => None,
            Link::Greeting(greeting) => Some(greeting.conn),
            Link::Up(session) => Some(session.conn),
        }
    }

    pub(crate) fn session(&self) -> Option<&Session> {
        match &self.link {
            Link::Up(session) => Some(session),
            Link::Down { .. } | Link::Dialing | Link::Greeting(_) => None,
        }
    }

    pub(crate) fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.link {
            Link::Up(session) => Some(session),
            Link::Down { .. } | Link::Dialing | Link::Greeting(_) => None,
        }
    }

    /// What is still to be copied.
    pub(crate) fn todo(&self) -> Option<&Bits> {
        self.copying().map(|copying| &copying.todo)
    }

    pub(crate) fn copying(&self) -> Option<&Copying> {
        match &self.session()?.phase {
            Phase::Copying(copying) => Some(copying),
            Phase::Naming { .. }
            | Phase::Committing { .. }
            | Phase::Clearing { .. }
            | Phase::Live => None,
        }
    }

    pub(crate) fn copying_mut(&mut self) -> Option<&mut Copying> {
        match &mut self.session_mut()?.phase {
            Phase::Copying(copying) => Some(copying),
            Phase::Naming { .. }
            | Phase::Committing { .. }
            | Phase::Clearing { .. }
            | Phase::Live => None,
        }
    }

    /// Since when it may lack something that the application was told of.
    pub(crate) fn lacks_since(&self) -> Option<Time> {
        self.lag.since().filter(|_| self.lag.bytes() > 0)
    }

    /// True once everything that differed is sent: what follows is applied in its order.
    pub(crate) fn is_in_order(&self) -> bool {
        self.session()
            .is_some_and(|s| !matches!(s.phase, Phase::Copying(_)))
    }

    pub(crate) fn is_live(&self) -> bool {
        self.session()
            .is_some_and(|s| matches!(s.phase, Phase::Live))
    }

    /// When the peer counts as lost if nothing comes: (required, by these limits).
    pub(crate) fn deadline(
        &self,
        required: bool,
        ack_timeout: Duration,
        io_timeout: Duration,
    ) -> Option<Time> {
        let missing = (required && !self.lost).then_some(self.missing_since + ack_timeout);
        match &self.link {
            Link::Down { .. } => missing,
            Link::Dialing => missing,
            Link::Greeting(greeting) => missing
                .into_iter()
                .chain([greeting.since + io_timeout])
                .min(),
            Link::Up(session) => {
                let limit = |awaited: &Awaited| match awaited.what {
                    Await::Write(_)
                    | Await::Barrier(_)
                    | Await::Flush(_)
                    | Await::Chunk
                    | Await::Compare(_)
                    | Await::Content(_)
                    | Await::Common(_)
                        if required =>
                    {
                        awaited.since + ack_timeout
                    }
                    // A slow link or a long flush is no fault of a peer that nobody waits for.
                    Await::Write(_)
                    | Await::Barrier(_)
                    | Await::Flush(_)
                    | Await::Chunk
                    | Await::Compare(_)
                    | Await::Content(_)
                    | Await::Point(_)
                    | Await::Common(_)
                    | Await::ResyncStart
                    | Await::Growth(_)
                    | Await::Commit(_) => awaited.since.max(session.progress) + io_timeout,
                };
                // Clearing may take long, and lets nobody else wait longer.
                let waits = |awaited: &&Awaited| !matches!(awaited.what, Await::Growth(_));
                let oldest = session.awaiting.values().next();
                let first = session.awaiting.values().find(waits);
                oldest.into_iter().chain(first).map(limit).min()
            }
        }
    }
}
