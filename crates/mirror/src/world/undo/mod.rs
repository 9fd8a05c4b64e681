//! The target of a resync goes back to what it was when the resync began.

mod log;
mod property;
mod runs;

use super::*;
use crate::grow::Step;
use crate::inspect::{Contents, Found, inspect};
use crate::io::{UndoAnswer, UndoOp};
use crate::way_back::{self, Stuck, UndoFault, WayBack, load};
use disk::{SECTOR, to_usize};
use wire::event::UndoLoss;
use wire::undo::{BATCH_BLOCKS_MAX, FIRST_BATCH, Header as LogHeader, batch, batch_bytes};

/// Room for everything.
pub(super) const ROOMY: u64 = 8 << 20;
/// The wall clock.
const NOON: u64 = 1_795_000_000;

/// The device of an undo log.
#[derive(Debug, Default)]
pub(super) struct Log {
    image: Vec<u8>,
    pub(super) ios: VecDeque<(IoId, UndoOp)>,
    /// Sectors that landed and are in a cache only: where, and what is on the medium.
    unsynced: Vec<(usize, Vec<u8>)>,
    /// What the replica held when its log began.
    before: Vec<u8>,
    /// Nothing is answered.
    hangs: bool,
    /// Every operation fails.
    broken: bool,
}

impl Log {
    fn land(&mut self, at: usize, sector: &[u8]) {
        let place = &mut self.image[at..at + sector.len()];
        self.unsynced.push((at, place.to_vec()));
        place.copy_from_slice(sector);
    }

    /// The machine died: of what is in a cache some sectors are lost.
    pub(super) fn power_failed(&mut self, random: &mut impl FnMut(usize) -> usize) {
        for (at, before) in self.unsynced.drain(..).rev() {
            if random(2) == 1 {
                self.image[at..at + before.len()].copy_from_slice(&before);
            }
        }
    }
}

fn read(image: &[u8]) -> impl FnMut(ByteRange) -> Option<Vec<u8>> + '_ {
    move |range: ByteRange| {
        let part = image.get(to_usize(range.offset())..to_usize(range.end()));
        part.map(<[u8]>::to_vec)
    }
}

impl World {
    pub(super) fn ask_log(&mut self, node: NodeId, io: IoId, op: UndoOp) {
        let data = to_usize(self.machine(node).map_or(0, |m| m.layout.data_bytes));
        let bytes = to_usize(self.config.undo_bytes.unwrap_or(0));
        let n = self.node(node);
        n.log.image.resize(bytes, 0x5A);
        if let UndoOp::Begin { .. } = op {
            n.log.before = n.disk.current[..data].to_vec();
        }
        n.log.ios.push_back((io, op));
    }

    /// Ends the first operation of a node's log; false if there is none.
    pub(super) fn finish_log(&mut self, node: NodeId) -> bool {
        if self.node(node).log.hangs {
            return false;
        }
        let Some((io, op)) = self.node(node).log.ios.pop_front() else {
            return false;
        };
        let result = if self.node(node).log.broken {
            Err(Errno::IO)
        } else {
            self.node(node).perform(&op)
        };
        self.input(node, Input::UndoDone { io, result });
        true
    }
}

impl Node {
    fn perform(&mut self, op: &UndoOp) -> Result<UndoAnswer, Errno> {
        let log_bytes = u64::try_from(self.log.image.len()).unwrap();
        if let UndoOp::Load { key, blocks } = op {
            let Log {
                image, unsynced, ..
            } = &mut self.log;
            let mut sync = || {
                unsynced.clear();
                true
            };
            let (log, disk) = (&mut read(image), &mut read(&self.disk.current));
            let loaded = load(*key, (*blocks, log_bytes), &mut sync, log, disk);
            return loaded.map(UndoAnswer::Loaded).map_err(|_| Errno::IO);
        }
        if let UndoOp::Clear { replica } = op
            && LogHeader::is_of(*replica, 0, &self.log.image[..4096])
        {
            self.log.image[to_usize(FIRST_BATCH)..].fill(0x5A);
        }
        if let Some((at, bytes)) = self.effect(op) {
            self.log.image[at..at + bytes.len()].copy_from_slice(&bytes);
            self.log.unsynced.clear();
        }
        Ok(match op {
            UndoOp::Begin { .. } => UndoAnswer::Begun {
                began_unix: NOON,
                log_bytes,
            },
            UndoOp::Save { .. } | UndoOp::Load { .. } | UndoOp::Clear { .. } => UndoAnswer::Done,
        })
    }

    /// What an operation writes, and where.
    fn effect(&self, op: &UndoOp) -> Option<(usize, Vec<u8>)> {
        match op {
            UndoOp::Begin { key } => {
                let header = LogHeader {
                    key: *key,
                    began_unix: NOON,
                    log_bytes: u64::try_from(self.log.image.len()).unwrap(),
                };
                Some((0, header.seal()))
            }
            UndoOp::Save {
                key,
                offset,
                sequence,
                blocks,
            } => {
                let old = blocks
                    .iter()
                    .map(|block| self.disk.bytes(block * 4096, 4096));
                let old: Vec<u8> = old.flatten().collect();
                let bytes = batch(*key, (*sequence, *offset), blocks, &old);
                Some((to_usize(*offset), bytes))
            }
            UndoOp::Load { .. } | UndoOp::Clear { .. } => None,
        }
    }

    /// The process died: of what was under way some sectors landed, in a cache.
    pub(super) fn tear_log(&mut self, random: &mut impl FnMut(usize) -> usize) {
        if let Some((_, op)) = self.log.ios.pop_front()
            && let Some((at, bytes)) = self.effect(&op)
        {
            // From the front, from the back, or anything: with a whole list, with the other one, or with none.
            let (how, cut) = (random(3), random(bytes.len() / SECTOR + 1));
            for (n, sector) in bytes.chunks(SECTOR).enumerate() {
                let lands = match how {
                    0 => n < cut,
                    1 => n >= cut,
                    _ => random(2) == 1,
                };
                if lands {
                    self.log.land(at + n * SECTOR, sector);
                }
            }
        }
        self.log.ios.clear();
    }

    /// The process died just after all of what was under way landed in a cache.
    fn land_log(&mut self) {
        if let Some((_, op)) = self.log.ios.pop_front()
            && let Some((at, bytes)) = self.effect(&op)
        {
            for (n, sector) in bytes.chunks(SECTOR).enumerate() {
                self.log.land(at + n * SECTOR, sector);
            }
        }
        self.log.ios.clear();
    }

    fn shown(&self) -> Option<Box<Contents>> {
        match inspect(self.disk_bytes, read(&self.disk.current)).replica {
            Found::Replica(contents) => Some(contents),
            Found::Nothing | Found::Shrunk(_) => None,
        }
    }

    fn look(&self) -> Result<WayBack, Stuck> {
        let (log, disk) = (&self.log.image, &self.disk.current);
        let bytes = u64::try_from(log.len()).unwrap();
        let contents = self.shown().ok_or(Stuck::NoWay)?;
        WayBack::look(contents, bytes, &mut read(log), &mut read(disk))
    }

    /// Everything that going back writes, in order: where, and what.
    fn writes(&self, way: WayBack) -> Vec<(u64, Vec<u8>)> {
        let mut writes = Vec::new();
        for (range, places) in way.pieces() {
            let old = places.iter().flat_map(|at| {
                let at = to_usize(*at);
                self.log.image[at..at + 4096].to_vec()
            });
            writes.push((range.offset(), old.collect()));
        }
        let steps = way.finish().into_iter().map(|step| match step {
            Step::Write { offset, bytes } => (offset, bytes),
            Step::Zero(_) => panic!("nothing is zeroed"),
        });
        writes.extend(steps);
        writes
    }

    /// Goes back; after `stop` writes the power fails in the middle of one, and it is done again.
    fn go_back(&mut self, stop: usize) -> Result<(), Stuck> {
        let way = self.look()?;
        for (n, (offset, bytes)) in self.writes(way).into_iter().enumerate() {
            if n == stop {
                let half = bytes.len() / SECTOR / 2 * SECTOR;
                self.disk.put(offset, &bytes[..half]);
                return self.go_back(usize::MAX);
            }
            self.disk.put(offset, &bytes);
        }
        let data = self.log.before.len();
        assert!(
            self.disk.current[..data] == self.log.before,
            "another content than when the resync began"
        );
        Ok(())
    }

    fn has_way_back(&self) -> bool {
        let shown = self.shown();
        shown.is_some_and(|found| way_back::key(&found.superblock).is_some())
    }
}

impl World {
    /// A person undoes the resync of a node that is down, if its superblock says that something leads back.
    pub(super) fn roll_back(&mut self, node: NodeId, stop: usize) -> bool {
        let held = self.is_up(node) || !self.nodes[usize::from(node.0)].has_way_back();
        if held {
            return false;
        }
        self.note(|| format!("{node:?} goes back"));
        let done = self.node(node).go_back(stop);
        assert_eq!(done, Ok(()), "what the superblock promises is not there");
        assert!(!self.node(node).has_way_back());
        true
    }

    fn state(&self, node: NodeId) -> ReplicaState {
        let machine = self.machine(node);
        machine.map_or(ReplicaState::Blank, |m| m.superblock.get().state)
    }

    fn way_of_disk(&self, node: NodeId) -> bool {
        self.nodes[usize::from(node.0)].has_way_back()
    }

    fn way_of(&self, node: NodeId) -> Option<wire::undo::UndoRun> {
        self.machine(node)?.superblock.get().undo
    }

    /// A few rounds of everything.
    fn rounds(&mut self, count: usize) {
        for _ in 0..count {
            for node in self.all() {
                if self.is_up(node) {
                    self.finish_disk(node, 0);
                    self.deliver(node, 1);
                }
            }
            self.pass(Duration::from_millis(5));
        }
    }
}
