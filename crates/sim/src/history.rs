//! What an asynchronous active was asked to write since it began to serve, in order, and how much of it a disk holds.

use crate::checkers::{async_bound, async_prefix, async_put_aside};
use crate::clock::Moment;
use crate::disk::SECTOR_BYTES;
use crate::instance::Request;
use crate::options::FaultMix;
use crate::oracle::{OpId, content_of};
use crate::queue::{Event, ToEngine, ToProcess};
use crate::world::World;
use mirror::io::{Errno, Input, Op};
use std::collections::{BTreeMap, BTreeSet};
use wire::{Duration, NodeId};

/// A point in the order of everything that happens to the volume.
type Tick = u64;

#[derive(Clone, Copy, Debug)]
struct Write {
    content: u64,
    issued: Tick,
    acked: Option<(Tick, Moment)>,
    fua: bool,
    first: u64,
    sectors: u64,
}

/// One mirror's history.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    writes: Vec<Write>,
    open: BTreeMap<OpId, usize>,
    /// Flushes under way, by when they were issued.
    flushing: BTreeMap<OpId, Tick>,
    /// Flushes: issued, acknowledged. In the order of acknowledging.
    flushes: Vec<(Tick, Tick, Moment)>,
    tick: Tick,
    latest: Moment,
    /// Nodes that lost what was not durable there since they were equal.
    lossy: BTreeSet<NodeId>,
    /// Acknowledged content that a takeover cut off, by the node that has it and the sector.
    cut: BTreeMap<(NodeId, u64), u64>,
    /// What nodes put aside, or people let go: (whose, sector), and the content.
    aside: BTreeMap<(NodeId, u64), u64>,
}

/// What a disk holds of a history.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct State {
    /// The earliest end of an epoch of which something is missing, and what.
    pub(crate) ends: Option<(Tick, u64)>,
    /// The write that was begun last of those that are there.
    pub(crate) newest: Option<(Tick, u64)>,
    pub(crate) missing_bytes: u64,
    pub(crate) missing_time: Duration,
}

impl History {
    /// An activation begins: what is under way is asked for again.
    pub(crate) fn begin(&mut self) {
        let open: Vec<(OpId, Write)> = (self.open.iter())
            .filter_map(|(op, at)| Some((*op, *self.writes.get(*at)?)))
            .collect();
        let flushing = core::mem::take(&mut self.flushing);
        let lossy = core::mem::take(&mut self.lossy);
        let cut = core::mem::take(&mut self.cut);
        let (tick, latest) = (self.tick + 1, self.latest);
        *self = Self {
            tick,
            latest,
            lossy,
            cut,
            ..Self::default()
        };
        for (op, write) in open {
            self.open.insert(op, self.writes.len());
            self.writes.push(Write {
                issued: tick,
                ..write
            });
        }
        self.flushing = flushing.into_keys().map(|op| (op, tick)).collect();
    }

    /// The application asks for something.
    pub(crate) fn issue(&mut self, op: OpId, request: &Request) {
        self.tick += 1;
        match request.op {
            Op::Write { fua } | Op::Zero { fua } => {
                self.open.insert(op, self.writes.len());
                self.writes.push(Write {
                    content: request.content,
                    issued: self.tick,
                    acked: None,
                    fua,
                    first: request.range.offset() / 512,
                    sectors: request.range.len() / 512,
                });
            }
            Op::Flush => {
                self.flushing.insert(op, self.tick);
            }
            Op::Read => {}
        }
    }

    /// The application got a good answer.
    pub(crate) fn acknowledged(&mut self, op: OpId, now: Moment) {
        self.tick += 1;
        if let Some(write) = (self.open.remove(&op)).and_then(|at| self.writes.get_mut(at)) {
            write.acked = Some((self.tick, now));
            self.latest = now;
        }
        if let Some(issued) = self.flushing.remove(&op) {
            self.flushes.push((issued, self.tick, now));
            self.latest = now;
        }
    }

    /// A node lost what was not durable there.
    pub(crate) fn lost_cache(&mut self, node: NodeId) {
        self.lossy.insert(node);
    }

    /// A node holds everything, durably.
    pub(crate) fn equal(&mut self, node: NodeId) {
        self.lossy.remove(&node);
    }

    /// A takeover: what the former active's disk has of the history and the new one's has not must be put aside before the former
    /// one is made equal.
    pub(crate) fn take_over(&mut self, from: NodeId, old: &[u8], new: &[u8]) {
        for write in &self.writes {
            for sector in write.first..write.first + write.sectors {
                let at = usize::try_from(sector).unwrap_or(usize::MAX) * SECTOR_BYTES;
                let word = |disk: &[u8]| disk.get(at..at + SECTOR_BYTES).and_then(content_of);
                let (had, has) = (word(old), word(new));
                let only_there = had == Some(write.content) && has != had && write.content != 0;
                // A follower may have copied it already when the new active begins to serve.
                let aside = self.aside.get(&(from, sector)) == Some(&write.content);
                if write.acked.is_some() && only_there && !aside {
                    self.cut.insert((from, sector), write.content);
                }
            }
        }
    }

    /// A node copied these ranges of its disk, or a person let go what is there.
    pub(crate) fn put_aside(&mut self, node: NodeId, ranges: &[wire::ByteRange], disk: &[u8]) {
        for sector in ranges.iter().flat_map(|r| r.offset() / 512..r.end() / 512) {
            let at = usize::try_from(sector).unwrap_or(usize::MAX) * SECTOR_BYTES;
            let content = disk.get(at..at + SECTOR_BYTES).and_then(content_of);
            if let Some(content) = content {
                self.aside.insert((node, sector), content);
            }
        }
        let aside = &self.aside;
        self.cut
            .retain(|place, content| aside.get(place) != Some(content));
    }

    /// A node begins to be made equal: what is still only there and was not put aside.
    pub(crate) fn overwritten(&mut self, node: NodeId, disk: &[u8]) -> Option<(u64, u64)> {
        let mut left = None;
        self.cut.retain(|(from, sector), content| {
            let at = usize::try_from(*sector).unwrap_or(usize::MAX) * SECTOR_BYTES;
            let there = disk.get(at..at + SECTOR_BYTES).and_then(content_of) == Some(*content);
            if *from == node && there {
                left = Some((*sector, *content));
            }
            *from != node
        });
        left
    }

    /// The end of the epoch of a write: when the application heard that it is durable.
    fn end(&self, write: &Write) -> Option<(Tick, Moment)> {
        let (acked, at) = write.acked?;
        if write.fua {
            return Some((acked, at));
        }
        let covers = self.flushes.iter().filter(|(issued, ..)| *issued > acked);
        covers.map(|(_, tick, at)| (*tick, *at)).min()
    }

    /// What `node`'s disk holds.
    pub(crate) fn state(&self, node: NodeId, disk: &[u8]) -> State {
        let lossy = self.lossy.contains(&node);
        let mut state = State::default();
        let mut cells: BTreeMap<u64, Vec<&Write>> = BTreeMap::new();
        for write in &self.writes {
            for sector in write.first..write.first + write.sectors {
                cells.entry(sector).or_default().push(write);
            }
        }
        for (sector, writes) in cells {
            let from = usize::try_from(sector).unwrap_or(usize::MAX) * SECTOR_BYTES;
            let Some(content) = disk.get(from..from + SECTOR_BYTES).and_then(content_of) else {
                continue;
            };
            self.judge_sector(&mut state, content, &writes, lossy);
        }
        state
    }

    fn judge_sector(&self, state: &mut State, content: u64, writes: &[&Write], lossy: bool) {
        let shown = writes.iter().rev().find(|w| w.content == content);
        // Zeros may be of any time.
        if let Some(shown) = shown.filter(|_| content != 0) {
            state.newest = state.newest.max(Some((shown.issued, content)));
        }
        // One that may have been applied before what is shown is not missing.
        let after = |w: &&&Write| match shown {
            None => true,
            Some(shown) => shown.acked.is_some_and(|(tick, _)| w.issued > tick),
        };
        let mut counted = false;
        for write in writes.iter().filter(after) {
            let Some((_, told)) = write.acked else {
                continue;
            };
            let end = self.end(write);
            if let Some((tick, _)) = end {
                let ends = (tick, write.content);
                state.ends = Some(state.ends.map_or(ends, |known| known.min(ends)));
            }
            // A node that lost its cache owes only what was flushed, from the flush on.
            let owed = if lossy {
                end.map(|(_, at)| at)
            } else {
                Some(told)
            };
            if let Some(at) = owed {
                state.missing_time = state.missing_time.max(self.latest.since(at));
            }
            counted |= !lossy;
        }
        if counted {
            state.missing_bytes += 512;
        }
    }
}

impl World {
    /// A replica asks how large its disk is.
    pub(crate) fn measured(&mut self, at: NodeId, mirror: u8) {
        let machine = self.machine(at);
        let disk = machine.disks.get(usize::from(mirror));
        let (Some(disk_bytes), Some(life)) = (disk.map(|disk| disk.bytes()), machine.life()) else {
            return;
        };
        let what = ToEngine::Plain(Input::Measured { disk_bytes });
        let what = ToProcess::Engine { mirror, what };
        let delay = self.rng.micros(10, 400);
        self.after(delay, Event::Process { at, life, what });
    }

    /// A node's replica was made equal to the active's.
    pub(crate) fn caught_up(&mut self, active: NodeId, node: NodeId, mirror: u8) {
        let index = usize::from(mirror);
        if let Some(oracle) = self.oracles.get_mut(index) {
            oracle.caught_up(active, node);
        }
        if let Some(disk) = self.machine(node).disks.get_mut(index) {
            disk.restored = false;
        }
    }

    /// The ranges are copied, before anything replaces them; unless there is no room, as now and then among rough faults.
    pub(crate) fn put_aside(&mut self, at: NodeId, mirror: u8, ranges: &[wire::ByteRange]) {
        let delay = self.rng.micros(500, 60_000);
        let Some(life) = self.machine(at).life() else {
            return;
        };
        let rough = self.options.faults == FaultMix::Rough && !self.faults.over;
        let full = self.machine(at).no_room || rough && delay.as_micros().is_multiple_of(8);
        if !full {
            self.copied(at, mirror, ranges);
        }
        let result = if full { Err(Errno(28)) } else { Ok(()) };
        let what = ToEngine::Plain(Input::PutAside { result });
        let what = ToProcess::Engine { mirror, what };
        self.after(delay, Event::Process { at, life, what });
    }

    /// What a node's disk has in the ranges is in a file; or a person let it go.
    pub(crate) fn copied(&mut self, at: NodeId, mirror: u8, ranges: &[wire::ByteRange]) {
        let index = usize::from(mirror);
        let disk = self.machines[usize::from(at.0)].disks.get(index);
        let content = disk.map(crate::disk::Disk::content);
        if let Some((content, history)) = content.zip(self.histories.get_mut(index)) {
            history.put_aside(at, ranges, content);
        }
    }

    /// Compares the disks of eligible followers with the history, at any moment.
    pub(crate) fn look_at_follower(&mut self, mirror: u8) {
        let Some(record) = self.checkers.epochs_rise.newest() else {
            return;
        };
        let active = record.active;
        let members = record.members.iter();
        let counts = members.filter(|(id, member)| **id != active && member.sync.counts());
        let apart = counts.filter(|(id, _)| self.options.are_apart(active, **id));
        let followers: Vec<NodeId> = apart.map(|(id, _)| *id).collect();
        for node in followers {
            self.look_at(active, node, mirror);
        }
    }

    fn look_at(&mut self, active: NodeId, node: NodeId, mirror: u8) {
        let index = usize::from(mirror);
        let Some(history) = self.histories.get(index) else {
            return;
        };
        let machine = &self.machines[usize::from(node.0)];
        let serves = self
            .oracles
            .get(index)
            .and_then(crate::oracle::Oracle::server);
        let disk = machine.disks.get(index).filter(|disk| !disk.restored);
        let Some(disk) = disk.filter(|_| serves == Some(active)) else {
            return;
        };
        let state = history.state(node, disk.content());
        self.judge_follower(node, mirror, &state);
    }

    /// Judges what a follower had alone when it began to be made equal.
    pub(crate) fn judge_put_aside(&mut self, node: NodeId, mirror: u8, left: Option<(u64, u64)>) {
        if let Some((sector, content)) = left {
            let what = format!(
                "mirror {mirror} on {node:?}: sector {sector}, {content:x}, was not put aside"
            );
            self.judge(async_put_aside::NAME, Err(what));
        }
    }

    /// Judges what a follower holds.
    pub(crate) fn judge_follower(&mut self, node: NodeId, mirror: u8, state: &State) {
        let told = |what: String| format!("mirror {mirror} on {node:?}: {what}");
        self.judge(async_prefix::NAME, async_prefix::check(state).map_err(told));
        // A person who promotes by force goes beyond any bound.
        if !self.options.forced {
            self.judge(async_bound::NAME, async_bound::check(state).map_err(told));
        }
    }
}
