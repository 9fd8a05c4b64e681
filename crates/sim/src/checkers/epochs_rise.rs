//! The register is linearizable: decided records form one chain, versions and epochs rise, and nobody is promoted whom the
//! record before did not allow (R3, G4).

use std::collections::BTreeMap;
use wire::record::Intent;
use wire::{Epoch, NodeId, Record, Version};

/// Every decided record that any node ever learned.
#[derive(Debug, Default)]
pub(crate) struct EpochsRise {
    chain: BTreeMap<Version, Record>,
    /// Whom a person promotes over the record of this epoch, whatever that says (R17): one step, since no other record has it.
    pub(crate) forced: Option<(NodeId, Epoch)>,
}

impl EpochsRise {
    /// `node` says that `record` is decided.
    pub(crate) fn learn(&mut self, node: NodeId, record: &Record) -> Result<(), String> {
        if let Some(fault) = record.fault() {
            return Err(format!(
                "{node:?} learned a record of which {fault}: {record:?}"
            ));
        }
        if let Some(known) = self.chain.get(&record.version) {
            if known == record {
                return Ok(());
            }
            return Err(format!(
                "two records are decided as {:?}: {known:?} and {record:?}",
                record.version
            ));
        }
        self.chain.insert(record.version, record.clone());
        let before = self
            .chain
            .range(..record.version)
            .next_back()
            .map(|(_, r)| r);
        let after = self
            .chain
            .range(record.version.next()..)
            .next()
            .map(|(_, r)| r);
        for (older, newer) in before
            .map(|r| (r, record))
            .into_iter()
            .chain(after.map(|r| (record, r)))
        {
            check_step(older, newer, self.forced)?;
        }
        Ok(())
    }

    /// Another node than `node` that was active between two epochs.
    pub(crate) fn active_between(&self, from: Epoch, to: Epoch, node: NodeId) -> Option<NodeId> {
        let between = |r: &&Record| from < r.epoch && r.epoch <= to;
        let mut actives = self.chain.values().filter(between).map(|r| r.active);
        actives.find(|active| *active != node)
    }

    /// The newest record that anybody learned.
    pub(crate) fn newest(&self) -> Option<&Record> {
        self.chain.values().next_back()
    }
}

fn check_step(
    older: &Record,
    newer: &Record,
    forced: Option<(NodeId, Epoch)>,
) -> Result<(), String> {
    if newer.epoch <= older.epoch {
        return Err(format!(
            "{:?} has {:?}, {:?} has {:?}",
            older.version, older.epoch, newer.version, newer.epoch
        ));
    }
    // Between them others may have been decided that nobody told.
    if older.version.next() != newer.version || older.active == newer.active {
        return Ok(());
    }
    if !older.may_promote(newer.active) && forced != Some((newer.active, older.epoch)) {
        return Err(format!(
            "{:?} was promoted, which was out by {older:?}",
            newer.active
        ));
    }
    match newer.intent {
        Intent::Handover { from } if from != older.active => Err(format!(
            "{from:?} gave the group up at {:?}, which was active nowhere",
            newer.version
        )),
        Intent::Handover { .. } | Intent::Serve | Intent::Hold(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Generation, Member, Nonce, Sync};

    const B: NodeId = NodeId(1);

    /// `active` is the only one in sync.
    fn record(version: u64, active: NodeId) -> Record {
        let member = |sync| Member {
            sync,
            generation: Generation(1),
            failed: false,
        };
        let mut members: BTreeMap<NodeId, Member> =
            [NodeId(0), B].map(|id| (id, member(Sync::Out))).into();
        members.insert(active, member(Sync::InSync));
        Record {
            version: Version(version),
            epoch: Epoch(version),
            active,
            members,
            intent: Intent::Serve,
            nonce: Nonce(version),
        }
    }

    #[test]
    fn a_persons_word_allows_one_step() {
        let mut checker = EpochsRise {
            forced: Some((B, Epoch(2))),
            ..EpochsRise::default()
        };
        for (version, active) in [(1, NodeId(0)), (2, NodeId(0)), (3, B), (4, NodeId(0))] {
            let learned = checker.learn(B, &record(version, active));
            assert_eq!(learned.is_ok(), version < 4, "{version}");
        }
        assert!(checker.learn(B, &record(5, B)).is_err());
    }
}
