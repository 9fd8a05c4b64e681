//! What stands against readiness right now, and when it began and ended.

use crate::config::NodeRole;
use crate::group::{Group, State};
use crate::machine::Node;
use std::collections::BTreeSet;
use wire::control::{Obstacle, Role};
use wire::event::{Event, What};
use wire::problem::Problem;
use wire::record::{Hold, Intent};
use wire::{NodeId, Time};

/// The problems that were announced.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    known: BTreeSet<Problem>,
}

impl Problems {
    /// Events for what began and ended since the last call.
    pub(crate) fn change(&mut self, now: Time, found: BTreeSet<Problem>) -> Vec<Event> {
        if found == self.known {
            return Vec::new();
        }
        let began = found
            .difference(&self.known)
            .cloned()
            .map(What::ProblemBegan);
        let ended = self
            .known
            .difference(&found)
            .cloned()
            .map(What::ProblemEnded);
        let event = |what| Event {
            at: now,
            group: None,
            incident: 0,
            what,
        };
        let events = began.chain(ended).map(event).collect();
        self.known = found;
        events
    }
}

impl Node {
    /// Everything that stands against readiness, as this node sees it.
    pub(crate) fn find_problems(&self, now: Time) -> BTreeSet<Problem> {
        let mut found = BTreeSet::new();
        for (node, links) in &self.config.links {
            if !self.links.is_up(now, *node) {
                if self.links.silent(now, *node) >= self.config.timing.suspect {
                    found.insert(Problem::NodeSilent { node: *node });
                }
                continue;
            }
            let silent = links
                .iter()
                .filter(|link| !self.links.link_up(now, *node, **link));
            found.extend(silent.map(|link| Problem::LinkSilent {
                node: *node,
                link: link.0,
            }));
        }
        for group in &self.groups {
            self.group_problems(now, group, &mut found);
        }
        found
    }

    fn group_problems(&self, now: Time, group: &Group, found: &mut BTreeSet<Problem>) {
        let id = group.id();
        if group.no_majority {
            found.insert(Problem::RegisterUnreachable { group: id });
        }
        if group.alarm.is_some() || !self.config.voting {
            found.insert(Problem::NoVote {
                node: self.config.me,
            });
        }
        if let Some(Intent::Hold(hold)) = group.register.confirmed().map(|r| r.intent) {
            found.insert(Problem::Held {
                group: id,
                by_person: hold == Hold::Stopped,
            });
            return;
        }
        self.wrong_disks(now, group, found);
        if group.state == State::Broken && group.wrong_disk().is_none() {
            found.insert(Problem::DiskFailed {
                group: id,
                node: self.config.me,
            });
        }
        if group.is_held_back() {
            found.insert(Problem::HeldBack {
                group: id,
                node: self.config.me,
            });
        }
        if group.role() == Role::Frozen && group.is_frozen_for_long(now) {
            found.insert(Problem::Frozen { group: id });
        }
        if let Some((node, obstacle)) = self.no_standby(now, group) {
            found.insert(Problem::NoStandby {
                group: id,
                node,
                obstacle,
            });
        }
    }

    /// Disks that work and are not replicas: the own one, and what others say of theirs.
    fn wrong_disks(&self, now: Time, group: &Group, found: &mut BTreeSet<Problem>) {
        let own = group.wrong_disk().map(|why| (self.config.me, why));
        let heard = (group.peers.iter()).filter(|(node, _)| self.links.is_up(now, **node));
        let others = heard.filter_map(|(node, (_, beat))| match beat.obstacle {
            Some(Obstacle::WrongDisk(why)) => Some((*node, why)),
            Some(_) | None => None,
        });
        let group = group.id();
        let problem = |(node, why)| Problem::WrongDisk { group, node, why };
        found.extend(own.into_iter().chain(others).map(problem));
    }

    /// The closest standby and what stands against it, if no node but the active could serve.
    pub(crate) fn no_standby(&self, now: Time, group: &Group) -> Option<(NodeId, Obstacle)> {
        let record = group.register.confirmed()?;
        let mut closest = None;
        let others = group.config.members.iter();
        for node in others.filter(|id| **id != record.active) {
            let obstacle = self.standby_obstacle(now, group, *node);
            // Last, because it is mended elsewhere.
            let obstacle = obstacle.or_else(|| self.minority_without(now, record.active));
            match obstacle {
                None => return None,
                Some(obstacle) => closest = closest.or(Some((*node, obstacle))),
            }
        }
        closest
    }

    /// Without the active too few would be left to decide who is active.
    fn minority_without(&self, now: Time, active: NodeId) -> Option<Obstacle> {
        let heard = |id: &&NodeId| **id == self.config.me || self.links.is_up(now, **id);
        let nodes = self.config.nodes.keys();
        let left = nodes.filter(|id| **id != active).filter(heard).count();
        (left * 2 <= self.config.nodes.len()).then_some(Obstacle::NoRegister)
    }

    fn standby_obstacle(&self, now: Time, group: &Group, node: NodeId) -> Option<Obstacle> {
        if self.config.nodes.get(&node) != Some(&NodeRole::Data) {
            return Some(Obstacle::NotAttached);
        }
        if node == self.config.me {
            return group.obstacle();
        }
        if !self.links.is_up(now, node) {
            return Some(Obstacle::Silent);
        }
        if let Some(record) = group.register.confirmed()
            && !record.may_promote(node)
        {
            let said = group.peers.get(&node).and_then(|(_, beat)| beat.obstacle);
            let out = group.out_of_set(node, record.active);
            return Some(said.filter(needs_a_person).unwrap_or(out));
        }
        group
            .peers
            .get(&node)
            .map_or(Some(Obstacle::NotAttached), |(_, beat)| beat.obstacle)
    }
}

/// True if the replica will not come back by waiting.
pub(crate) const fn needs_a_person(obstacle: &Obstacle) -> bool {
    matches!(
        obstacle,
        Obstacle::WrongDisk(_) | Obstacle::DiskFailed | Obstacle::HeldBack(_)
    )
}
