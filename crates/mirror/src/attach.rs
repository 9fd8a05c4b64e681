//! Reading the metadata: superblocks, then the intent log, then the bitmap, piece by piece.

use crate::config::Config;
use crate::control::Report;
use crate::intent::{self, Intent};
use crate::io::{DiskOp, Errno, Input, IoId, Output, Payload};
use crate::machine::{Machine, Parts};
use crate::planes::Planes;
use crate::superblock::Super;
use std::collections::VecDeque;
use wire::Time;
use wire::control::WrongDisk;
use wire::layout::{
    self, BlockFault, BlockKind, Layout, Newest, ReplicaState, SEALED_BYTES, Slot, Superblock,
};
use wire::mutant::{self, Bug};
use wire::seed::{HEAD_BYTES, Seed};
use wire::units::BLOCK_BYTES;

/// Bitmap pairs that are read at once: 1 MiB.
const PAIRS_MAX: u64 = 128;
const PAIR_BYTES: usize = 2 * SEALED_BYTES;

#[derive(Debug)]
pub(crate) struct Attach {
    config: Config,
    out: VecDeque<Output>,
    /// The operation under way.
    io: IoId,
    started: Time,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Flush,
    Superblocks,
    /// What the volume begins with, of a replica that has a seed.
    Head(Box<Known>),
    IntentLog(Box<Known>),
    Bitmap {
        known: Box<Known>,
        log: Box<Intent>,
        bitmap: Box<Planes>,
        next: u64,
    },
    /// Over, one way or the other.
    Over,
}

#[derive(Debug)]
struct Known {
    superblock: Superblock,
    slot: Slot,
    sequence: u64,
    layout: Layout,
    /// Neither copy of the intent log is whole, or the newer one may be damaged.
    intents_lost: bool,
    /// The disk does not begin with what it was made with: somebody else wrote to it.
    used_since: bool,
}

impl Attach {
    pub(crate) fn new(config: Config, now: Time) -> Self {
        let mut attach = Self {
            config,
            out: VecDeque::new(),
            io: IoId(0),
            started: now,
            step: Step::Flush,
        };
        if attach.config.disk_bytes < Layout::DATA_MIN {
            attach.give_up(NO_ROOM);
        } else {
            attach.start(DiskOp::Flush);
        }
        attach
    }

    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    pub(crate) fn wake_at(&self) -> Option<Time> {
        match self.step {
            Step::Over => None,
            Step::Flush
            | Step::Superblocks
            | Step::Head(_)
            | Step::IntentLog(_)
            | Step::Bitmap { .. } => Some(self.started + self.config.io_timeout),
        }
    }

    fn read(&mut self, offset: u64, len: u64) {
        self.start(DiskOp::MetaRead { offset, len });
    }

    /// One operation at a time.
    fn start(&mut self, op: DiskOp) {
        self.io = IoId(self.io.0 + 1);
        self.out.push_back(Output::Disk { io: self.io, op });
    }

    fn give_up(&mut self, (wrong, reason): Unfit) {
        self.step = Step::Over;
        self.out.push_back(Output::Report(Report::AttachFailed {
            reason: reason.to_owned(),
            wrong,
        }));
    }

    /// The machine, once everything is read.
    pub(crate) fn handle(&mut self, now: Time, input: Input) -> Option<Box<Machine>> {
        match input {
            Input::DiskDone { io, result } if io == self.io => self.on_read(now, result),
            Input::Wake | Input::DiskDone { .. } => {
                if self.wake_at().is_some_and(|at| at <= now) {
                    self.give_up((None, "it does not answer"));
                }
                None
            }
            Input::Request(request) => {
                let (id, result) = (request.id, Err(Errno::IO));
                self.out.push_back(Output::Reply { id, result });
                let buf = request.buf.into_iter();
                self.out.extend(buf.map(|buf| Output::Release { buf }));
                None
            }
            Input::Connected { conn, .. } => {
                self.out.push_back(Output::Disconnect { conn });
                None
            }
            Input::Frame { payload, .. } => {
                if let Payload::Buf(buf) = payload {
                    self.out.push_back(Output::Release { buf });
                }
                None
            }
            Input::Command(_)
            | Input::SpoolDone { .. }
            | Input::UndoDone { .. }
            | Input::PutAside { .. }
            | Input::Measured { .. }
            | Input::ConnectFailed { .. }
            | Input::Disconnected { .. } => None,
        }
    }

    fn on_read(&mut self, now: Time, result: Result<Vec<u8>, Errno>) -> Option<Box<Machine>> {
        self.started = now;
        let Ok(bytes) = result else {
            self.give_up(UNREADABLE);
            return None;
        };
        let step = match std::mem::replace(&mut self.step, Step::Over) {
            Step::Flush => {
                let first = Layout::super_offset(self.config.disk_bytes, Slot::B);
                self.read(first, 2 * BLOCK_BYTES);
                Ok(Step::Superblocks)
            }
            Step::Superblocks => self.on_superblocks(&bytes),
            Step::Head(known) => Ok(self.on_head(known, &bytes)),
            Step::IntentLog(known) => self.on_intent_log(*known, &bytes),
            Step::Bitmap {
                known,
                log,
                bitmap,
                next,
            } => self.on_bitmap(known, log, bitmap, next, &bytes),
            Step::Over => return None,
        };
        match step {
            Ok(Step::Bitmap {
                known,
                log,
                bitmap,
                next,
            }) if next >= known.layout.bitmap_blocks => {
                Some(self.finish(now, *known, *log, *bitmap))
            }
            Ok(step) => {
                self.step = step;
                None
            }
            Err(reason) => {
                self.give_up(reason);
                None
            }
        }
    }

    fn on_superblocks(&mut self, b_then_a: &[u8]) -> Result<Step, Unfit> {
        let half = b_then_a.len().min(SEALED_BYTES);
        let (b, a) = b_then_a.split_at(half);
        let open = |block| layout::open(BlockKind::Super, 0, block);
        let (a, b) = (open(a), open(b));
        if [&a, &b]
            .iter()
            .any(|r| matches!(r, Err(BlockFault::Newer(_))))
        {
            return Err(NEWER);
        }
        let blank = a == Err(BlockFault::Foreign) && b == Err(BlockFault::Foreign);
        let (slot, sequence, content) = match layout::newest(a, b) {
            Newest::Known(slot, sequence, content) => (slot, sequence, content),
            // The damaged one may have said that the data is a mixture.
            Newest::Doubtful(..) => {
                return Err((
                    Some(WrongDisk::Damaged),
                    "the newer copy of its superblock is damaged",
                ));
            }
            Newest::Lost if blank => {
                return Err(NO_MIRROR);
            }
            Newest::Lost => {
                let why = "both copies of its superblock are damaged";
                return Err((Some(WrongDisk::Damaged), why));
            }
        };
        let superblock = Superblock::parse(&content).map_err(|fault| match fault {
            BlockFault::Newer(_) => NEWER,
            BlockFault::Foreign
            | BlockFault::Torn
            | BlockFault::Damaged { .. }
            | BlockFault::Misplaced => (Some(WrongDisk::Damaged), "its superblock makes no sense"),
        })?;
        if let (Some(expected), Some(found)) = (self.config.expect_mirror, superblock.mirror)
            && expected != found
            && !mutant::has(Bug::WrongMirrorAttached)
        {
            return Err((Some(WrongDisk::OtherMirror), "it belongs to another mirror"));
        }
        self.belongs(&superblock)?;
        let disk_bytes = self.config.disk_bytes;
        let (data_bytes, blocks) = (superblock.data_bytes, superblock.intent_blocks);
        let layout = Layout::with_data(disk_bytes, data_bytes, blocks)
            .filter(|layout| layout.intent_blocks > 0 && layout.regions() <= u64::from(u32::MAX))
            .filter(|layout| match &self.config.external {
                Some(disk) => layout.beside(disk.disk_bytes).is_some(),
                None => true,
            })
            .ok_or(SHRUNK)?;
        let seeded = superblock.seed.is_some();
        let known = Box::new(Known {
            superblock,
            slot,
            sequence,
            layout,
            intents_lost: false,
            used_since: false,
        });
        if seeded {
            self.read(0, HEAD_BYTES);
            return Ok(Step::Head(known));
        }
        Ok(self.read_intent_log(known))
    }

    fn on_head(&mut self, mut known: Box<Known>, head: &[u8]) -> Step {
        let same = known.superblock.seed == Some(Seed::of(head));
        known.used_since = !same && !mutant::has(Bug::SeedUnchecked);
        self.read_intent_log(known)
    }

    fn read_intent_log(&mut self, known: Box<Known>) -> Step {
        let layout = &known.layout;
        let log_bytes = 2 * u64::from(layout.intent_blocks) * BLOCK_BYTES;
        self.read(layout.intent_offset(Slot::B), log_bytes);
        Step::IntentLog(known)
    }

    /// Metadata on a device of its own is of the disk beside it, and metadata on a disk is of that disk.
    fn belongs(&self, found: &Superblock) -> Result<(), Unfit> {
        match (&self.config.external, &found.external) {
            (None, None) => Ok(()),
            (Some(here), Some(_)) if here.disk_bytes < found.data_bytes => Err(SHRUNK),
            (Some(here), Some(there)) if !here.may_be(there) => Err(OTHER_DISK),
            // It was enlarged: the volume may grow into that.
            (Some(here), Some(there)) if here.has_become(there) => Ok(()),
            (Some(here), Some(there)) if here.disk_bytes != there.disk_bytes => Err(OTHER_SIZE),
            (Some(_), Some(_)) => Ok(()),
            (Some(_), None) => Err(OWN_METADATA),
            (None, Some(_)) => Err(METADATA_ALONE),
        }
    }

    fn on_intent_log(&mut self, known: Known, bytes: &[u8]) -> Result<Step, Unfit> {
        let layout = known.layout;
        let intent::Log {
            found,
            incomplete,
            seen,
        } = intent::parse(bytes, layout.intent_blocks, layout.regions()).map_err(|_| NEWER)?;
        let limit = self
            .config
            .hot_regions_max
            .clamp(1, layout.intent_capacity());
        let fresh = known.is_fresh();
        let mut log = Intent::new(limit, found.filter(|_| !fresh), seen);
        if incomplete || fresh {
            log.rewrite();
        }
        self.read_pairs(&layout, 0);
        Ok(Step::Bitmap {
            known: Box::new(Known {
                intents_lost: incomplete,
                ..known
            }),
            log: Box::new(log),
            bitmap: Box::new(Planes::new(&layout)),
            next: 0,
        })
    }

    fn read_pairs(&mut self, layout: &Layout, from: u64) {
        let count = (layout.bitmap_blocks - from).min(PAIRS_MAX);
        if count > 0 {
            let len = count * 2 * BLOCK_BYTES;
            self.read(layout.bitmap_offset(from + count - 1, Slot::A), len);
        }
    }

    fn on_bitmap(
        &mut self,
        known: Box<Known>,
        log: Box<Intent>,
        mut bitmap: Box<Planes>,
        next: u64,
        bytes: &[u8],
    ) -> Result<Step, Unfit> {
        let mut at = next;
        for pair in bytes.chunks(PAIR_BYTES).rev() {
            bitmap.load(at, pair).map_err(|_| NEWER)?;
            at += 1;
        }
        if at == next {
            return Err(UNREADABLE);
        }
        self.read_pairs(&known.layout, at.min(known.layout.bitmap_blocks));
        Ok(Step::Bitmap {
            known,
            log,
            bitmap,
            next: at,
        })
    }

    fn finish(&mut self, now: Time, known: Known, log: Intent, mut bitmap: Planes) -> Box<Machine> {
        if known.is_fresh() {
            bitmap.format();
        } else if known.used_since || known.intents_lost && !mutant::has(Bug::LostMetadataClean) {
            // Nobody knows any more where replicas may differ.
            bitmap.mark_all();
        }
        let (boot, used_since) = (self.config.boot, known.used_since);
        let external = self.config.external.clone();
        let before = known.superblock.generation;
        let volatile_kept = known.superblock.boot == boot;
        let mut superblock = Super::new(known.superblock, known.slot, known.sequence);
        let ticket = superblock.change(|s| {
            s.boot = boot;
            if let (Some(noted), Some(here)) = (&mut s.external, external) {
                noted.disk_bytes = here.disk_bytes;
                // It may have been larger for a while.
                s.ready_bytes = s.ready_bytes.min(here.disk_bytes).max(s.data_bytes);
            }
            if used_since {
                s.seed = None;
                s.pairs.clear();
            }
        });
        let parts = Parts {
            layout: known.layout,
            superblock,
            intent: log,
            planes: bitmap,
            before,
            volatile_kept,
            ticket,
            next_io: self.io.0 + 1,
        };
        let mut machine = Machine::new(self.config.clone(), now, parts);
        machine.out = std::mem::take(&mut self.out);
        machine.advance();
        Box::new(machine)
    }
}

impl Known {
    /// Just made, never in a session: what lies in the metadata area is of an earlier life of the disk.
    fn is_fresh(&self) -> bool {
        self.superblock.mirror.is_none()
            && self.superblock.seed.is_none()
            && matches!(
                self.superblock.state,
                ReplicaState::Origin | ReplicaState::Blank
            )
    }
}

/// Why a disk cannot be attached: what is wrong with it if it works, and a sentence for the log.
type Unfit = (Option<WrongDisk>, &'static str);

const NEWER: Unfit = (
    Some(WrongDisk::Newer),
    "its metadata was written by a newer release of Backstay",
);
const NO_MIRROR: Unfit = (
    Some(WrongDisk::NoMirror),
    "it holds no mirror, or was enlarged: `backstay mirror create` makes one, `backstay mirror resize DEVICE` finds it again",
);
const SHRUNK: Unfit = (
    Some(WrongDisk::Shrunk),
    "it is smaller than when the mirror was made",
);
const OTHER_DISK: Unfit = (
    Some(WrongDisk::OtherDisk),
    "its metadata device is of another disk: `backstay mirror inspect` names it",
);
const OTHER_SIZE: Unfit = (
    Some(WrongDisk::OtherDisk),
    "its metadata device is of a disk of another size: `backstay mirror inspect` shows it",
);
const OWN_METADATA: Unfit = (
    Some(WrongDisk::OtherDisk),
    "its metadata device is a replica's own disk, with that one's data on it",
);
const METADATA_ALONE: Unfit = (
    Some(WrongDisk::OtherDisk),
    "it is the metadata device of another disk",
);
const NO_ROOM: Unfit = (Some(WrongDisk::NoMirror), "it is too small for a mirror");
const UNREADABLE: Unfit = (None, "its metadata cannot be read");
