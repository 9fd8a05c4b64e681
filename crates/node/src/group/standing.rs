//! How this node stands: its generation, what stands against promoting it, its role, and what runs.

use super::{Around, Group, Replica, Starting, State, Stopping};
use std::collections::BTreeSet;
use wire::control::{GroupBeat, Obstacle, Role, WrongDisk};
use wire::event::What;
use wire::mutant::{self, Mutant};
use wire::{ByteCount, ByteRange, Generation, NodeId, Record, Time, Version};

/// Ranges that an event names; the file's index names all.
const RANGES_TOLD: usize = 16;

impl Group {
    /// The generation that this node's disks surely hold.
    pub(super) fn generation(&self) -> Generation {
        let held = |r: &Replica| {
            Some(if r.bumped {
                r.attached?.generation
            } else {
                r.attached?.before
            })
        };
        self.replicas
            .iter()
            .filter_map(held)
            .min()
            .unwrap_or_default()
    }

    /// R14: a disk that shows an older generation than the record was restored from a snapshot. A record that holds the
    /// generation of this life can only come from an earlier one, as long as this life took part in nothing.
    pub(super) fn compare_generations(&mut self, record: &Record) {
        let Some(mine) = record.members.get(&self.me) else {
            return;
        };
        if mutant::on(Mutant::GenerationIgnored) {
            return;
        }
        for replica in &mut self.replicas {
            let Some(attached) = replica.attached else {
                continue;
            };
            let of_this_life = replica.joined && mine.generation <= attached.generation;
            replica.rolled_back |= mine.generation > attached.before && !of_this_life;
        }
    }

    /// What stands against promoting this node's replicas; none if it could take over.
    pub(crate) fn obstacle(&self) -> Option<Obstacle> {
        if self.witness {
            return Some(Obstacle::NotAttached);
        }
        let wrong = self.wrong_disk();
        // What is too small by now was a replica when the record counted it in.
        if let Some(wrong) = wrong.filter(|wrong| *wrong != WrongDisk::TooSmall) {
            return Some(Obstacle::WrongDisk(wrong));
        }
        if self.replicas.iter().any(|r| r.failed) {
            return Some(Obstacle::DiskFailed);
        }
        if self.replicas.iter().any(|r| r.attached.is_none()) {
            return Some(Obstacle::NotAttached);
        }
        let Some(record) = self.register.confirmed() else {
            return Some(Obstacle::OutOfSync);
        };
        let Some(mine) = record.members.get(&self.me) else {
            return Some(Obstacle::OutOfSync);
        };
        if self.replicas.iter().any(|r| r.rolled_back) {
            return Some(Obstacle::RolledBack);
        }
        let any = mutant::on(Mutant::PromoteOutOfSync)
            || self.config.are_apart(record.active, self.me) && mutant::on(Mutant::AsyncPromoted);
        if !record.may_promote(self.me) && !any {
            let out = self.out_of_set(self.me, record.active);
            return Some(wrong.map_or(out, Obstacle::WrongDisk));
        }
        if self.replicas.iter().any(|r| !r.consistent) {
            return Some(Obstacle::Inconsistent);
        }
        if self.instance_open && record.active != self.me && !mutant::on(Mutant::InstanceIgnored) {
            return Some(Obstacle::InstanceOpen);
        }
        mine.failed.then_some(Obstacle::FailedHere)
    }

    /// What is wrong with a disk here that works.
    pub(crate) fn wrong_disk(&self) -> Option<WrongDisk> {
        self.replicas.iter().find_map(|replica| replica.wrong)
    }

    pub(super) fn on_wrong_disk(&mut self, mirror: u8, wrong: Option<WrongDisk>) {
        if let Some(replica) = self.replicas.get_mut(usize::from(mirror)) {
            replica.wrong = wrong;
        }
    }

    /// True if a replica here waits for a person, because of what a failover cut off.
    pub(crate) fn is_held_back(&self) -> bool {
        self.replicas.iter().any(|replica| replica.held_back)
    }

    /// What a failover cut off is safe; it will be replaced.
    pub(super) fn on_put_aside(
        &mut self,
        cx: Around<'_>,
        mirror: u8,
        ranges: &[ByteRange],
        bytes: ByteCount,
    ) {
        if let Some(replica) = self.replicas.get_mut(usize::from(mirror)) {
            replica.held_back = false;
        }
        let what = What::PutAside {
            ranges: ranges.iter().take(RANGES_TOLD).copied().collect(),
            count: u64::try_from(ranges.len()).unwrap_or(u64::MAX),
            bytes,
        };
        self.journal.push(cx.now, what);
    }

    /// What stands against a replica that the record says is out.
    pub(crate) fn out_of_set(&self, node: NodeId, active: NodeId) -> Obstacle {
        if self.config.are_apart(active, node) {
            Obstacle::AsyncBehind
        } else {
            Obstacle::OutOfSync
        }
    }

    /// What the node's beats say of this group.
    pub(crate) fn beat(&self, now: Time) -> GroupBeat {
        GroupBeat {
            group: self.id(),
            version: self.register.confirmed().map_or(Version(0), |r| r.version),
            role: self.role(),
            granted: self.lease.granted(now),
            obstacle: self.obstacle(),
        }
    }

    /// The role that people see.
    pub(crate) const fn role(&self) -> Role {
        if self.witness {
            return Role::Witness;
        }
        match (&self.state, self.frozen) {
            (State::Settling | State::Broken, _) => Role::Settling,
            (State::Standby, _) => Role::Standby,
            (State::Taking(_), _) => Role::Promoting,
            (State::Starting(_) | State::Active { .. }, true) => Role::Frozen,
            (State::Starting(_), false) => Role::Promoting,
            (State::Active { .. }, false) => Role::Active,
            (State::Stopping { .. } | State::Leaving { .. }, _) => Role::Demoting,
            (State::Held, _) => Role::Held,
        }
    }

    /// Resources that run here, and the one that is being started or stopped.
    pub(crate) fn resources_running(&self) -> (BTreeSet<u8>, Option<u8>) {
        let changing = match self.state {
            State::Starting(Starting::Resource { resource, .. })
            | State::Active {
                restarting: Some((resource, _)),
            }
            | State::Stopping {
                step: Stopping::Resource { resource, .. },
                ..
            } => Some(resource),
            State::Settling
            | State::Standby
            | State::Taking(_)
            | State::Starting(_)
            | State::Active { .. }
            | State::Stopping { .. }
            | State::Leaving { .. }
            | State::Held
            | State::Broken => None,
        };
        (
            self.running
                .iter()
                .copied()
                .filter(|r| Some(*r) != changing)
                .collect(),
            changing,
        )
    }
}
