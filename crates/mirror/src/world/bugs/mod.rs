//! Bugs that other block replication had, one test or more for each: `docs/bugs.md` has the list.
//!
//! Every test must fail when the protection that it is about is taken away: [`proofs::PROOFS`] names the deliberate defect for
//! each, and with the feature `mutants` one test plays them all.

mod damage;
mod front;
mod identity;
mod log;
mod order;
mod proofs;
mod resync;

use super::named::{pair, solo, tuned};
use super::*;
use crate::config::{Apart, Bound};

/// An active with an asynchronous follower that no bound ever keeps it waiting for.
fn followed() -> World {
    tuned(|c| {
        c.apart = Some(Apart::everybody(Bound {
            max_bytes: 1 << 20,
            max_time: Duration::from_secs(100_000),
            window_bytes: 1 << 20,
            memory_bytes: 1 << 20,
            spool_bytes: 1 << 20,
        }));
    })
}

impl World {
    /// Moves everything one step at a time, all disks included, until `done`.
    fn step_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        self.step_disks_until(&[A, B], what, done);
    }

    /// As [`World::step_until`]; only these nodes' disks work.
    fn step_disks_until(&mut self, disks: &[NodeId], what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..RUN_MAX {
            if done(self) {
                return;
            }
            self.pass(Duration::from_millis(10));
            for node in disks {
                self.finish_disk(*node, 0);
            }
            for node in [B, A] {
                if self.is_up(node) {
                    self.deliver(node, 1);
                }
            }
        }
        panic!("it never came to this: {what}");
    }

    /// Ends the first operation of this kind on a node's disk; false if none is under way.
    fn finish_where(&mut self, node: NodeId, wanted: impl Fn(&DiskOp) -> bool) -> bool {
        let found = self.node(node).disk.find(wanted);
        found.is_some_and(|pick| self.finish_disk(node, pick))
    }

    /// The first operation of this kind ends with an error; everything else on that disk goes well.
    fn fail_where(&mut self, node: NodeId, wanted: impl Fn(&DiskOp) -> bool) {
        let pick = self.node(node).disk.find(wanted).expect("it is under way");
        self.node(node).disk.broken = Some(5);
        self.finish_disk(node, pick);
        self.node(node).disk.broken = None;
    }

    /// Whether a region is in a node's intent log, durably or not.
    fn is_hot(&self, node: NodeId, region: u32) -> bool {
        let machine = self.machine(node).expect("it is attached");
        machine.intent.regions().any(|hot| hot == region)
    }

    /// Writes into further regions until this one has left the active's intent log.
    fn cool(&mut self, region: u32) {
        self.flush();
        self.run();
        for other in (region + 1..region + 12).map(u64::from) {
            self.write(other * 65_536, 512, false);
            self.run();
            self.flush();
            self.run();
        }
        let active = self.control.active;
        assert!(!self.is_hot(active, region), "it stayed hot");
    }

    fn state_of(&self, node: NodeId) -> ReplicaState {
        self.machine(node)
            .expect("it is attached")
            .superblock
            .get()
            .state
    }
}

fn layout() -> Layout {
    Layout::for_disk(DISK_BYTES, 1).unwrap()
}

/// A write of data, not of metadata.
fn is_data(op: &DiskOp) -> bool {
    matches!(op, DiskOp::Write { .. } | DiskOp::Zero { .. })
}

/// A write of the intent log.
fn is_log(op: &DiskOp) -> bool {
    let places = [Slot::A, Slot::B].map(|slot| layout().intent_offset(slot));
    matches!(op, DiskOp::MetaWrite { offset, .. } if places.contains(offset))
}

/// A write of the bitmap.
fn is_bitmap(op: &DiskOp) -> bool {
    let log = layout().intent_offset(Slot::B);
    matches!(op, DiskOp::MetaWrite { offset, .. } if *offset < log)
}

/// A write of the superblock.
fn is_super(op: &DiskOp) -> bool {
    let first = Layout::super_offset(DISK_BYTES, Slot::B);
    matches!(op, DiskOp::MetaWrite { offset, .. } if *offset >= first)
}

/// What of a torn block of eight sectors lands: every beginning, every end, and each sector alone.
fn tears() -> impl Iterator<Item = u8> {
    let beginnings = (0..8).map(|n| (1_u8 << n).wrapping_sub(1));
    let ends = (1..8).map(|n| u8::MAX << n);
    let alone = (0..8).map(|n| 1 << n);
    beginnings.chain(ends).chain(alone)
}
