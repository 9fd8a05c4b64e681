//! What must hold in every world. The truth about what is decided comes from the disks: a record is decided when a majority
//! has it accepted durably under one ballot.

use super::member::Member;
use cluster::Outcome;
use std::collections::{BTreeMap, BTreeSet};
use wire::durable::AcceptorDurable;
use wire::{Ballot, NodeId, Nonce, Record, Version};

pub(crate) struct Checks {
    members: usize,
    /// Per ballot, who accepted its record durably.
    accepted: BTreeMap<Ballot, (Record, BTreeSet<NodeId>)>,
    decided: BTreeMap<Version, Record>,
    /// Per proposal, the record that it was built on.
    bases: BTreeMap<Nonce, Option<Nonce>>,
    /// Per node, the version that its running read must at least see.
    reads: BTreeMap<NodeId, Version>,
    fault: Option<String>,
    outcomes: BTreeMap<&'static str, u64>,
    pub(crate) served: u64,
}

impl Checks {
    pub(crate) fn new(members: usize) -> Self {
        Self {
            members,
            accepted: BTreeMap::new(),
            decided: BTreeMap::new(),
            bases: BTreeMap::new(),
            reads: BTreeMap::new(),
            fault: None,
            outcomes: BTreeMap::new(),
            served: 0,
        }
    }

    pub(crate) fn fault(&mut self) -> Option<String> {
        self.fault.take()
    }

    pub(crate) fn summary(&self) -> String {
        let versions = self.decided.len();
        let served = self.served;
        format!(
            "{versions} decided, served in {served} steps, {:?}",
            self.outcomes
        )
    }

    /// All decided records form one chain by version, and each was built on the one before it.
    pub(crate) fn on_persisted(&mut self, node: NodeId, acceptor: &AcceptorDurable) {
        let Some((ballot, record)) = &acceptor.accepted else {
            return;
        };
        let (value, voters) = self
            .accepted
            .entry(*ballot)
            .or_insert_with(|| (record.clone(), BTreeSet::new()));
        if value != record {
            self.fault = Some(format!(
                "two records under {ballot:?}: {value:?} and {record:?}"
            ));
            return;
        }
        voters.insert(node);
        if voters.len() > self.members / 2 {
            self.on_decided(record);
        }
    }

    fn on_decided(&mut self, record: &Record) {
        let known = self
            .decided
            .entry(record.version)
            .or_insert_with(|| record.clone());
        if known != record {
            self.fault = Some(format!(
                "{} decided twice: {known:?} and {record:?}",
                record.version
            ));
            return;
        }
        let before = Version(record.version.0 - 1);
        let before = self.decided.get(&before).map(|record| record.nonce);
        if self.bases.get(&record.nonce) != Some(&before) {
            self.fault = Some(format!("{record:?} is not built on {before:?}"));
        }
    }

    pub(crate) fn on_asked(&mut self, node: NodeId, asked: &Asked) {
        match asked {
            Asked::Change { nonce, base } => {
                self.bases.insert(*nonce, *base);
                self.reads.remove(&node);
            }
            Asked::Read => {
                let newest = self
                    .decided
                    .keys()
                    .next_back()
                    .copied()
                    .unwrap_or(Version(0));
                self.reads.insert(node, newest);
            }
            Asked::Nothing => {
                self.reads.remove(&node);
            }
        }
    }

    pub(crate) fn on_outcome(&mut self, node: NodeId, outcome: &Outcome) {
        let (name, said) = match outcome {
            Outcome::Won(record) => ("won", Some(record)),
            Outcome::Superseded(record) => ("superseded", Some(record)),
            Outcome::Learned(record) => ("learned", Some(record)),
            Outcome::Read(record) => {
                let seen = record.as_ref().map_or(Version(0), |record| record.version);
                if self.reads.remove(&node).is_some_and(|newest| seen < newest) {
                    self.fault = Some(format!("{node:?} read {seen} after a newer was decided"));
                }
                ("read", record.as_ref())
            }
            Outcome::Leased { .. } => ("leased", None),
            Outcome::Contested(_) => ("contested", None),
            Outcome::NoMajority => ("no majority", None),
            Outcome::Alarm(what) => {
                self.fault = Some(format!("{node:?} alarm: {what}"));
                ("alarm", None)
            }
        };
        *self.outcomes.entry(name).or_default() += 1;
        if let Some(record) = said
            && self.decided.get(&record.version) != Some(record)
        {
            self.fault = Some(format!(
                "{node:?} was told {record:?}, which is not decided"
            ));
        }
    }

    /// R1, R2, R5, R8: who serves is the active by the truth, and knows everybody whom the truth counts as in sync, or as
    /// promotable.
    pub(crate) fn serving(&self, node: NodeId, member: &Member) -> Option<String> {
        let newest = self.decided.values().next_back()?;
        let (required, promotable) = member.sets();
        if newest.active != node {
            return Some(format!("{node:?} serves against {newest:?}"));
        }
        if !newest.in_sync().is_subset(&required) {
            return Some(format!("{node:?} acknowledges without some of {newest:?}"));
        }
        if !newest.promotable().is_subset(&promotable) {
            return Some(format!(
                "{node:?} counts a lease without some of {newest:?}"
            ));
        }
        None
    }
}

/// What a member asked its register for.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Change {
        nonce: Nonce,
        base: Option<Nonce>,
    },
    Read,
    /// It gave up, or it restarted.
    Nothing,
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}
