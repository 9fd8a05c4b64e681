//! How this node stands: its generation, what stands against promoting it, its role, and what runs.

use super::{Around, Group, Replica, Starting, State, Stopping};
use mirror::control::Held;
use std::collections::{BTreeMap, BTreeSet};
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

    /// Since when what is acknowledged may be missing here, as far as this life knows.
    pub(super) fn note_out(&mut self, now: Time, record: &Record) {
        let since = self.out_since.unwrap_or(now);
        self.out_since = (!record.may_promote(self.me)).then_some(since);
    }

    /// What stands against promoting this node's replicas; none if it could take over.
    pub(crate) fn obstacle(&self) -> Option<Obstacle> {
        if let Some(obstacle) = self.disk_obstacle() {
            return Some(obstacle);
        }
        let Some(record) = self.register.confirmed() else {
            return Some(Obstacle::OutOfSync);
        };
        let Some(mine) = record.members.get(&self.me) else {
            return Some(Obstacle::OutOfSync);
        };
        let any = mutant::on(Mutant::PromoteOutOfSync)
            || self.config.are_apart(record.active, self.me) && mutant::on(Mutant::AsyncPromoted);
        if !record.may_promote(self.me) && !any {
            return Some(self.out_here(record.active, self.wrong_disk()));
        }
        if let Some(obstacle) = self.content_obstacle(record) {
            return Some(obstacle);
        }
        mine.failed.then_some(Obstacle::FailedHere)
    }

    /// What stands against it whatever the record says of the sets: a person's word does not change it (G4).
    pub(super) fn obstacle_to_force(&self) -> Option<Obstacle> {
        if mutant::on(Mutant::ForcedMixture) {
            return None;
        }
        let Some(record) = self.register.confirmed() else {
            return Some(Obstacle::NoRegister);
        };
        if !self.register.votes() {
            return Some(Obstacle::NoVote);
        }
        let wrong = self.wrong_disk().map(Obstacle::WrongDisk);
        let disk = wrong.or_else(|| self.disk_obstacle());
        disk.or_else(|| self.content_obstacle(record))
    }

    fn disk_obstacle(&self) -> Option<Obstacle> {
        if self.witness {
            return Some(Obstacle::NotAttached);
        }
        // What is too small by now was a replica when the record counted it in.
        let wrong = (self.wrong_disk()).filter(|wrong| *wrong != WrongDisk::TooSmall);
        if let Some(wrong) = wrong {
            return Some(Obstacle::WrongDisk(wrong));
        }
        if self.replicas.iter().any(|r| r.failed) {
            return Some(Obstacle::DiskFailed);
        }
        if self.replicas.iter().any(|r| r.attached.is_none()) {
            return Some(Obstacle::NotAttached);
        }
        let rolled_back = self.replicas.iter().any(|r| r.rolled_back);
        rolled_back.then_some(Obstacle::RolledBack)
    }

    fn content_obstacle(&self, record: &Record) -> Option<Obstacle> {
        if self.replicas.iter().any(|r| !r.consistent) {
            return Some(Obstacle::Inconsistent);
        }
        let open = self.instance_open && record.active != self.me;
        (open && !mutant::on(Mutant::InstanceIgnored)).then_some(Obstacle::InstanceOpen)
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
        self.replicas.iter().any(|it| it.held_back.is_some())
    }

    /// What the replicas here hold back, by the mirror's number.
    pub(crate) fn held_here(&self) -> BTreeMap<u8, ByteCount> {
        let held = (0..).zip(&self.replicas);
        held.filter_map(|(mirror, it)| Some((mirror, it.held_back?)))
            .collect()
    }

    /// A replica waits for a person, or does so no more.
    pub(super) fn on_held_back(&mut self, mirror: u8, bytes: Option<ByteCount>) {
        if let Some(replica) = self.replicas.get_mut(usize::from(mirror)) {
            replica.held_back = bytes;
        }
    }

    /// A person let go what a replica held; it will be replaced.
    pub(super) fn on_let_go(&mut self, cx: Around<'_>, mirror: u8, held: &Held) {
        self.on_held_back(mirror, None);
        let places = &held.places;
        let what = What::LetGo {
            mirror,
            ranges: places.ranges.iter().take(RANGES_TOLD).copied().collect(),
            more: places.more || places.ranges.len() > RANGES_TOLD,
            bytes: held.bytes,
        };
        self.journal.push(cx.now, what);
    }

    /// What a failover cut off is safe; it will be replaced.
    pub(super) fn on_put_aside(
        &mut self,
        cx: Around<'_>,
        mirror: u8,
        ranges: &[ByteRange],
        bytes: ByteCount,
    ) {
        self.on_held_back(mirror, None);
        let what = What::PutAside {
            ranges: ranges.iter().take(RANGES_TOLD).copied().collect(),
            count: u64::try_from(ranges.len()).unwrap_or(u64::MAX),
            bytes,
        };
        self.journal.push(cx.now, what);
    }

    /// What stands against the own replicas if the record says that they are out.
    fn out_here(&self, active: NodeId, wrong: Option<WrongDisk>) -> Obstacle {
        let held = self.replicas.iter().find_map(|it| it.held_back);
        let held = held.map(Obstacle::HeldBack);
        let own = wrong.map(Obstacle::WrongDisk).or(held);
        own.unwrap_or_else(|| self.out_of_set(self.me, active))
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
