//! The way back of a resync's target: what it overwrites is saved first, as long as the log's bound lets it.
//!
//! ```text
//! Closed ──a resync begins──► Beginning ──header durable──► Open ──commit, or lost──► Ending ──superblock durable──► Closed
//!    └────a mixture goes on in a later life──► Loading ──────▲
//! ```
//! Whether the log leads back is said by the superblock alone ([`Superblock::undo`]). It is named there together with the
//! state *inconsistent*, when the data before is durable and the log has begun; while it is, no block is overwritten before its
//! old content is durable in the log. It goes from there with the commit; or, when the log is full or fails, before the first
//! block is overwritten that the log does not have. The resync never ends for it, and waits for it no longer than for a disk.
//!
//! Only a target that is in no set gets a way back ([`FLAG_OUTSIDE`]): after going back nobody promotes it by rule, because the
//! record counts it out until the commit of a resync.
//!
//! [`Superblock::undo`]: wire::layout::Superblock::undo
//! [`FLAG_OUTSIDE`]: wire::mirror_frame::FLAG_OUTSIDE

use crate::bits::Bits;
use crate::control::{Report, UndoFigures};
use crate::io::{Errno, IoId, Output, UndoAnswer, UndoOp};
use crate::job::{Action, Origin};
use crate::machine::{JobId, Machine};
use crate::superblock::Ticket;
use crate::way_back::Loaded;
use std::collections::{BTreeSet, VecDeque};
use wire::event::UndoLoss;
use wire::layout::ReplicaState;
use wire::mutant::{self, Bug};
use wire::undo::{BATCH_BLOCKS_MAX, BATCH_RUNS_MAX, FIRST_BATCH, Key, UndoRun, batch_bytes};
use wire::units::BLOCK_BYTES;
use wire::{ByteCount, Duration, SessionId, Time};

/// A log that is not read within this time is given up: a resync waits for it.
const LOAD_MAX: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
pub(crate) struct Undo {
    state: State,
    /// Writes that have everything but their old content saved, in the order in which they asked.
    waiting: VecDeque<JobId>,
    /// Operations that were asked for.
    ios: u64,
    /// Runs that were begun in this life.
    runs: u64,
}

#[derive(Debug, Default)]
enum State {
    /// Nothing is saved.
    #[default]
    Closed,
    /// The log's header is on its way, for this session.
    Beginning(Asked, UndoRun, SessionId),
    /// The log of an earlier life is being read.
    Loading(Asked, UndoRun),
    /// Blocks are saved before they are overwritten.
    Open(Box<Open>),
    /// The superblock does not name the log any more, once this is durable.
    Ending(Ticket),
}

/// An operation under way.
#[derive(Clone, Copy, Debug)]
struct Asked {
    io: IoId,
    until: Time,
}

#[derive(Debug)]
struct Open {
    run: UndoRun,
    began_unix: u64,
    /// Most bytes of the log.
    bound: u64,
    /// Blocks that are durable in the log.
    saved: Bits,
    /// Blocks that somebody waits for, and that are not being saved.
    wanted: BTreeSet<u64>,
    /// What is being saved.
    saving: Option<(Asked, Vec<u64>)>,
    /// Where the next batch goes, in bytes.
    offset: u64,
    sequence: u64,
}

impl State {
    const fn asked(&self) -> Option<&Asked> {
        match self {
            Self::Beginning(asked, _, _) | Self::Loading(asked, _) => Some(asked),
            Self::Open(open) => match &open.saving {
                Some((asked, _)) => Some(asked),
                None => None,
            },
            Self::Closed | Self::Ending(_) => None,
        }
    }

    const fn asked_mut(&mut self) -> Option<&mut Asked> {
        match self {
            Self::Beginning(asked, _, _) | Self::Loading(asked, _) => Some(asked),
            Self::Open(open) => match &mut open.saving {
                Some((asked, _)) => Some(asked),
                None => None,
            },
            Self::Closed | Self::Ending(_) => None,
        }
    }
}

impl Undo {
    /// When the operation under way has taken too long.
    pub(crate) fn wake_at(&self) -> Option<Time> {
        self.state.asked().map(|asked| asked.until)
    }

    /// The process stood still for `gap`: the log is not to blame for that time.
    pub(crate) fn forgive(&mut self, gap: Duration) {
        if let Some(asked) = self.state.asked_mut() {
            asked.until += gap;
        }
    }

    /// The session ended: nothing of it is overwritten any more.
    pub(crate) fn drop_session(&mut self) {
        self.waiting.clear();
        if let State::Open(open) = &mut self.state {
            open.wanted.clear();
        }
    }

    const fn open_run(&self) -> Option<UndoRun> {
        match &self.state {
            State::Open(open) => Some(open.run),
            State::Closed | State::Beginning(..) | State::Loading(..) | State::Ending(_) => None,
        }
    }
}

impl Machine {
    fn ask_log(&mut self, op: UndoOp, patience: Duration) -> Asked {
        self.undo.ios += 1;
        let io = IoId(self.undo.ios);
        self.out.push_back(Output::Undo { io, op });
        let until = self.now + patience;
        Asked { io, until }
    }

    /// Gives the log's space back, if nothing leads back.
    pub(crate) fn clear_log(&mut self) {
        let own = self.superblock.get();
        let (replica, named) = (own.replica, own.undo.is_some());
        if self.config.undo_bytes.is_some() && !named {
            self.ask_log(UndoOp::Clear { replica }, self.patience());
        }
    }

    /// Time passes. A gap that is longer than between two looks means that this process stood still, and neither the disk nor
    /// the log is to blame for that.
    pub(crate) fn pass_time(&mut self, now: Time) {
        let gap = now.since(self.now);
        if gap > self.config.io_timeout / 2 {
            self.disk.forgive(gap);
        }
        if gap > self.patience() / 2 && !mutant::has(Bug::UndoPauseBlamed) {
            self.undo.forgive(gap);
        }
        self.now = now;
    }

    /// When to look at the clock if something is under way: more often than its patience ends, so that a pause of this process is
    /// told from a hang.
    pub(crate) fn look_at(&self) -> Option<Time> {
        let patience = match self.undo.wake_at() {
            Some(_) => self.patience(),
            None if !self.disk.is_idle() => self.config.io_timeout,
            None => return None,
        };
        Some(self.now + patience / 4)
    }

    /// The active waits for a disk; it must not lose its patience first.
    fn patience(&self) -> Duration {
        self.config.io_timeout / 2
    }

    fn undo_key(&self, run: UndoRun) -> Key {
        let replica = self.superblock.get().replica;
        Key { replica, run }
    }

    /// True if a resync that begins now gets a way back.
    pub(crate) fn wants_way_back(&self, outside: bool) -> bool {
        let own = self.superblock.get();
        let whole = own.state == ReplicaState::Consistent && own.seed.is_none();
        let closed = matches!(self.undo.state, State::Closed);
        let outside = outside || mutant::has(Bug::UndoInside);
        self.config.undo_bytes.is_some() && whole && outside && closed
    }

    /// What is there before the resync is durable: the log begins.
    pub(crate) fn begin_way_back(&mut self) {
        let Some(session) = self.following().map(|following| following.session) else {
            return;
        };
        // Random, and another one for each beginning.
        self.undo.runs += 1;
        let run = UndoRun(session.0 ^ self.undo.runs.rotate_left(48));
        let key = self.undo_key(run);
        let asked = self.ask_log(UndoOp::Begin { key }, self.patience());
        self.undo.state = State::Beginning(asked, run, session);
    }

    /// True while the log's header is on its way.
    pub(crate) const fn is_beginning(&self) -> bool {
        matches!(self.undo.state, State::Beginning(..))
    }

    /// Of two resyncs in a row the first one's log has not even begun: the second one does not wait for it.
    pub(crate) fn skip_way_back(&mut self) {
        let own = self.superblock.get();
        if self.is_beginning() && own.state == ReplicaState::Consistent {
            self.report(Report::UndoLost {
                why: UndoLoss::Silent,
            });
        }
    }

    /// The run that is to be named with the mixture.
    pub(crate) const fn way_back(&self) -> Option<UndoRun> {
        self.undo.open_run()
    }

    /// True once a resync may go on: the log that the superblock names is open, or not named any more.
    pub(crate) fn has_way_back_or_none(&mut self) -> bool {
        let Some(run) = self.superblock.get().undo else {
            return true;
        };
        match &self.undo.state {
            State::Open(open) if open.run == run => true,
            State::Loading(..) => false,
            State::Closed if self.config.undo_bytes.is_some() => {
                let (key, blocks) = (self.undo_key(run), self.layout.blocks());
                let asked = self.ask_log(UndoOp::Load { key, blocks }, LOAD_MAX);
                self.undo.state = State::Loading(asked, run);
                false
            }
            State::Closed | State::Beginning(..) | State::Open(_) | State::Ending(_) => {
                self.lose_way_back(UndoLoss::Gone);
                true
            }
        }
    }

    /// The log leads nowhere any more. Nothing that it does not have is overwritten before the superblock says so.
    pub(crate) fn lose_way_back(&mut self, why: UndoLoss) {
        self.report(Report::UndoLost { why });
        let ticket = self.superblock.change(|s| s.undo = None);
        self.leave_way_back(ticket);
        if mutant::has(Bug::UndoLossLate) {
            self.undo.state = State::Closed;
            self.retry_saved();
        }
    }

    /// The superblock of this ticket names no log.
    pub(crate) fn leave_way_back(&mut self, ticket: Ticket) {
        if !matches!(self.undo.state, State::Closed) {
            self.undo.state = State::Ending(ticket);
        }
    }

    /// True if a write may start: nothing of it is overwritten that has to be saved first. Else it is started later.
    pub(crate) fn may_overwrite(&mut self, id: JobId) -> bool {
        let open = match &mut self.undo.state {
            State::Closed | State::Beginning(..) | State::Loading(..) => return true,
            State::Ending(_) => None,
            State::Open(open) => Some(open),
        };
        let Some(job) = self.jobs.get(&id) else {
            return true;
        };
        if job.action == Action::Fetch || !matches!(job.origin, Origin::Peer { .. }) {
            return true;
        }
        let mut lacks = open.is_none();
        if let Some(open) = open {
            let saving = open.saving.as_ref().map_or(&[][..], |(_, them)| them);
            for block in job.range.cells(BLOCK_BYTES) {
                if !open.saved.get(block) {
                    lacks = true;
                    if saving.binary_search(&block).is_err() {
                        open.wanted.insert(block);
                    }
                }
            }
        }
        if lacks {
            self.undo.waiting.push_back(id);
        }
        !lacks || mutant::has(Bug::OverwrittenUnsaved)
    }

    /// Starts what waited and may go on by now.
    fn retry_saved(&mut self) {
        for id in std::mem::take(&mut self.undo.waiting) {
            self.try_start(id);
        }
    }

    /// Moves on what only waited for a condition.
    pub(crate) fn advance_undo(&mut self) {
        match &self.undo.state {
            State::Closed | State::Beginning(..) | State::Loading(..) => {}
            State::Ending(ticket) => {
                if self.superblock.is_durable(*ticket) {
                    self.undo.state = State::Closed;
                    self.clear_log();
                    self.retry_saved();
                }
            }
            State::Open(open) => {
                if open.saving.is_none() && !open.wanted.is_empty() {
                    self.save_next();
                }
            }
        }
    }

    /// Has the next batch saved.
    fn save_next(&mut self) {
        let State::Open(open) = &mut self.undo.state else {
            return;
        };
        let blocks = next_batch(&open.wanted);
        let bytes = batch_bytes(blocks.len());
        if open.offset.saturating_add(bytes) > open.bound {
            return self.lose_way_back(UndoLoss::Full);
        }
        for block in &blocks {
            open.wanted.remove(block);
        }
        let (run, offset, sequence) = (open.run, open.offset, open.sequence);
        open.offset += bytes;
        open.sequence += 1;
        let op = UndoOp::Save {
            key: self.undo_key(run),
            offset,
            sequence,
            blocks: blocks.clone(),
        };
        let asked = self.ask_log(op, self.patience());
        if let State::Open(open) = &mut self.undo.state {
            open.saving = Some((asked, blocks));
        }
    }

    /// An operation of the log ended; late ones of what is over mean nothing.
    pub(crate) fn on_undo_done(&mut self, io: IoId, result: Result<UndoAnswer, Errno>) {
        if self.undo.state.asked().is_none_or(|asked| asked.io != io) {
            return;
        }
        let blocks = self.layout.blocks();
        let bound = self.config.undo_bytes.unwrap_or(0);
        let session = self.following().map(|following| following.session);
        match (&mut self.undo.state, result) {
            (State::Beginning(_, _, of), Ok(_) | Err(_)) if session != Some(*of) => {
                self.undo.state = State::Closed;
            }
            (
                State::Beginning(_, run, _),
                Ok(UndoAnswer::Begun {
                    began_unix,
                    log_bytes,
                }),
            ) => {
                let open = Open {
                    run: *run,
                    began_unix,
                    bound: bound.min(log_bytes),
                    saved: Bits::new(blocks),
                    wanted: BTreeSet::new(),
                    saving: None,
                    offset: FIRST_BATCH,
                    sequence: 1,
                };
                self.undo.state = State::Open(Box::new(open));
            }
            (State::Loading(_, run), Ok(UndoAnswer::Loaded(loaded))) => {
                let open = Open::resumed(*run, (blocks, bound), &loaded);
                self.undo.state = State::Open(Box::new(open));
            }
            (State::Open(open), Ok(UndoAnswer::Done)) => {
                for block in open.saving.take().map_or_else(Vec::new, |(_, them)| them) {
                    open.saved.set(block..block + 1);
                }
                self.retry_saved();
            }
            (State::Loading(..), Err(_)) => self.lose_way_back(UndoLoss::Gone),
            (_, Ok(_) | Err(_)) => self.fail_log(UndoLoss::Failed),
        }
    }

    /// The log does not do what it is asked for.
    fn fail_log(&mut self, why: UndoLoss) {
        if self.is_beginning() {
            // Nothing was overwritten, and nothing names it.
            self.undo.state = State::Closed;
            self.report(Report::UndoLost { why });
        } else {
            self.lose_way_back(why);
        }
    }

    pub(crate) fn on_undo_time(&mut self) {
        if self.undo.wake_at().is_some_and(|at| at <= self.now) {
            self.fail_log(UndoLoss::Silent);
        }
    }

    /// What leads back, for people.
    pub(crate) fn undo_figures(&self) -> Option<UndoFigures> {
        self.superblock.get().undo?;
        let log = self.config.undo_bytes;
        let (known, bound) = (
            match &self.undo.state {
                State::Open(open) => Some(open),
                State::Closed | State::Beginning(..) | State::Loading(..) | State::Ending(_) => {
                    None
                }
            },
            ByteCount(log.unwrap_or(0)),
        );
        Some(UndoFigures {
            began_unix: known.map(|open| open.began_unix),
            saved: known.map(|open| ByteCount(open.saved.ones() * BLOCK_BYTES)),
            used: known.map(|open| ByteCount(open.offset)),
            bound: known.map_or(bound, |open| ByteCount(open.bound)),
        })
    }
}

/// The first of these blocks, as many as a batch takes.
fn next_batch(wanted: &BTreeSet<u64>) -> Vec<u64> {
    let mut blocks: Vec<u64> = Vec::new();
    let mut runs = 0;
    for block in wanted {
        let follows = blocks.last().is_some_and(|last| last + 1 == *block);
        runs += usize::from(!follows);
        if blocks.len() == BATCH_BLOCKS_MAX || runs > BATCH_RUNS_MAX {
            break;
        }
        blocks.push(*block);
    }
    blocks
}

impl Open {
    /// Goes on with the log of an earlier life.
    fn resumed(run: UndoRun, (blocks, bound): (u64, u64), loaded: &Loaded) -> Self {
        let mut saved = Bits::new(blocks);
        // `load` answers none beyond the volume.
        for block in loaded.saved.iter().filter(|block| **block < blocks) {
            saved.set(*block..*block + 1);
        }
        Self {
            run,
            began_unix: loaded.began_unix,
            bound: bound.min(loaded.log_bytes),
            saved,
            wanted: BTreeSet::new(),
            saving: None,
            offset: loaded.offset,
            sequence: loaded.sequence,
        }
    }
}
