//! What a volume must contain: a model of one good disk, sector by sector (G2).
//!
//! Each sector has the writes that it may still show. A write ends when it is acknowledged, or, if nobody ever answers
//! it, when the next activation has settled what became of it. A write hides every write that ended before it was issued.

use crate::disk::SECTOR_BYTES;
use crate::options::Level;
use std::collections::BTreeMap;
use wire::NodeId;

/// A point in the order of everything that happens to the volume.
type Tick = u64;

/// Names one request of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OpId(pub(crate) u64);

/// One write that a sector may show.
#[derive(Clone, Copy, Debug)]
struct Write {
    op: OpId,
    /// Every eight bytes of the sector.
    content: u64,
    issued: Tick,
    acked: Option<Tick>,
    /// Durable: no power failure excuses its loss.
    durable: bool,
    /// Nodes whose cache lost power while this write was not durable, as bits.
    at_risk: u16,
    /// Nobody will answer it any more.
    orphan: bool,
}

#[derive(Clone, Copy, Debug)]
struct Issued {
    at: Tick,
    first: u64,
    sectors: u64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Write { fua: bool },
    Read,
    Flush,
}

/// The model of one volume.
#[derive(Clone, Debug)]
pub(crate) struct Oracle {
    sectors: Vec<Vec<Write>>,
    open: BTreeMap<OpId, Issued>,
    tick: Tick,
    /// Sectors with a write that is acknowledged and not durable, or open.
    soft: std::collections::BTreeSet<u64>,
    level: Level,
    /// Whose disk was served last.
    server: Option<NodeId>,
}

/// What eight bytes repeated a sector holds; none if it is torn.
pub(crate) fn content_of(sector: &[u8]) -> Option<u64> {
    let mut words = sector.chunks_exact(8).map(|word| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        u64::from_le_bytes(bytes)
    });
    let first = words.next()?;
    words.all(|word| word == first).then_some(first)
}

/// The bytes of `sectors` sectors of this content.
pub(crate) fn bytes_of(content: u64, sectors: u64) -> Vec<u8> {
    let words = usize::try_from(sectors).unwrap_or(0) * (SECTOR_BYTES / 8);
    content.to_le_bytes().repeat(words)
}

impl Oracle {
    /// A volume whose sectors hold these contents, durably.
    pub(crate) fn new(contents: &[u64], level: Level) -> Self {
        let base = |content: &u64| {
            vec![Write {
                op: OpId(0),
                content: *content,
                issued: 0,
                acked: Some(0),
                durable: true,
                at_risk: 0,
                orphan: false,
            }]
        };
        Self {
            sectors: contents.iter().map(base).collect(),
            open: BTreeMap::new(),
            tick: 0,
            soft: std::collections::BTreeSet::new(),
            level,
            server: None,
        }
    }

    /// Whose disk was served last.
    pub(crate) const fn server(&self) -> Option<NodeId> {
        self.server
    }

    /// An asynchronous follower takes over: any write may be missing there, and is gone for good then. In which order they may
    /// be missing is [`crate::history`]'s.
    pub(crate) fn cut_off(&mut self, node: NodeId) {
        let bit = bit(node);
        for (index, cell) in (0..).zip(&mut self.sectors) {
            if cell.len() > 1 {
                self.soft.insert(index);
            }
            for write in cell {
                write.durable = false;
                write.at_risk |= bit;
            }
        }
    }

    /// Size, in sectors.
    pub(crate) fn sectors(&self) -> u64 {
        u64::try_from(self.sectors.len()).unwrap_or(0)
    }

    fn step(&mut self) -> Tick {
        self.tick += 1;
        self.tick
    }

    fn cells(&mut self, first: u64, sectors: u64) -> impl Iterator<Item = &mut Vec<Write>> {
        let from = usize::try_from(first).unwrap_or(usize::MAX);
        let len = usize::try_from(sectors).unwrap_or(0);
        self.sectors.iter_mut().skip(from).take(len)
    }

    /// The application writes.
    pub(crate) fn issue_write(
        &mut self,
        op: OpId,
        first: u64,
        sectors: u64,
        content: u64,
        fua: bool,
    ) {
        let at = self.step();
        self.open.insert(
            op,
            Issued {
                at,
                first,
                sectors,
                kind: Kind::Write { fua },
            },
        );
        self.soft.extend(first..first + sectors);
        for cell in self.cells(first, sectors) {
            cell.push(Write {
                op,
                content,
                issued: at,
                acked: None,
                durable: false,
                at_risk: 0,
                orphan: false,
            });
        }
    }

    /// The application reads.
    pub(crate) fn issue_read(&mut self, op: OpId, first: u64, sectors: u64) {
        let at = self.step();
        self.open.insert(
            op,
            Issued {
                at,
                first,
                sectors,
                kind: Kind::Read,
            },
        );
    }

    /// The application flushes.
    pub(crate) fn issue_flush(&mut self, op: OpId) {
        let at = self.step();
        self.open.insert(
            op,
            Issued {
                at,
                first: 0,
                sectors: 0,
                kind: Kind::Flush,
            },
        );
    }

    /// The operation succeeded; a read brought these bytes. Answers what is wrong with them.
    pub(crate) fn acknowledge(&mut self, op: OpId, bytes: &[u8]) -> Result<(), String> {
        let Some(issued) = self.open.remove(&op) else {
            return Ok(());
        };
        let (now, level) = (self.step(), self.level);
        match issued.kind {
            Kind::Write { fua } => {
                for cell in self.cells(issued.first, issued.sectors) {
                    for write in cell.iter_mut().filter(|w| w.op == op) {
                        write.acked = Some(now);
                        write.durable |= fua;
                    }
                    prune(cell, level);
                }
                Ok(())
            }
            Kind::Flush => {
                self.make_durable(issued.at);
                Ok(())
            }
            Kind::Read => self.check_read(issued, bytes),
        }
    }

    fn make_durable(&mut self, before: Tick) {
        let soft = core::mem::take(&mut self.soft);
        for index in soft {
            let Some(cell) = usize::try_from(index)
                .ok()
                .and_then(|i| self.sectors.get_mut(i))
            else {
                continue;
            };
            for write in cell.iter_mut() {
                write.durable |= write.acked.is_some_and(|at| at < before);
            }
            prune(cell, self.level);
            if cell.iter().any(|w| !w.durable) {
                self.soft.insert(index);
            }
        }
    }

    fn check_read(&self, read: Issued, bytes: &[u8]) -> Result<(), String> {
        for (index, sector) in (read.first..).zip(bytes.chunks_exact(SECTOR_BYTES)) {
            let Some(cell) = usize::try_from(index)
                .ok()
                .and_then(|i| self.sectors.get(i))
            else {
                continue;
            };
            let Some(content) = content_of(sector) else {
                // Two writes that are both under way may mix within a request, not within a sector.
                return Err(format!("sector {index} was read torn"));
            };
            let hidden = |w: &Write| {
                cell.iter().any(|other| {
                    other.acked.is_some_and(|at| at < read.at)
                        && w.acked.is_some_and(|end| end < other.issued)
                })
            };
            if !cell.iter().any(|w| w.content == content && !hidden(w)) {
                return Err(format!(
                    "sector {index} was read as {content:x}, but may be only {}",
                    list(cell, |w| !hidden(w))
                ));
            }
        }
        Ok(())
    }

    /// The operation failed, or nobody is left who could answer it: what became of it is settled at the next activation.
    pub(crate) fn abandon(&mut self, op: OpId) {
        let Some(issued) = self.open.remove(&op) else {
            return;
        };
        self.step();
        if let Kind::Write { .. } = issued.kind {
            for cell in self.cells(issued.first, issued.sectors) {
                for write in cell.iter_mut().filter(|w| w.op == op) {
                    write.orphan = true;
                }
            }
        }
    }

    /// A node's disk lost power, or what its cache held: what was not durable may be missing there.
    pub(crate) fn lost_cache(&mut self, node: NodeId) {
        let bit = bit(node);
        self.each_soft(|write| {
            if !write.durable {
                write.at_risk |= bit;
            }
        });
    }

    /// The active begins to make a node equal to itself: what its own disk may lack, the node may lack from here on.
    pub(crate) fn reconciled_by(&mut self, active: NodeId, node: NodeId) {
        let (its, own) = (bit(active), bit(node));
        self.each_soft(|write| {
            if write.at_risk & its != 0 {
                write.at_risk |= own;
            }
        });
    }

    /// A node's replica holds again what the active's own holds: an active that has not served since power failed may itself
    /// lack something.
    pub(crate) fn caught_up(&mut self, active: NodeId, node: NodeId) {
        let (its, own) = (bit(active), bit(node));
        self.each_soft(|write| {
            if write.at_risk & its == 0 {
                write.at_risk &= !own;
            }
        });
    }

    fn each_soft(&mut self, mut act: impl FnMut(&mut Write)) {
        for index in &self.soft {
            let cell = usize::try_from(*index)
                .ok()
                .and_then(|i| self.sectors.get_mut(i));
            for write in cell.into_iter().flatten() {
                act(write);
            }
        }
    }

    /// A new activation serves from `node`'s disk: its content is what counts from here on.
    pub(crate) fn settle(&mut self, node: NodeId, disk: &[u8]) -> Result<(), String> {
        let bit = bit(node);
        self.step();
        // What was only on its way to this node may never have arrived; a flush waited for it (G2's first half).
        if self.level == Level::Flush && self.server != Some(node) {
            self.lost_cache(node);
        }
        self.server = Some(node);
        for (index, (cell, sector)) in self
            .sectors
            .iter_mut()
            .zip(disk.chunks_exact(SECTOR_BYTES))
            .enumerate()
        {
            settle_cell(cell, sector, bit, self.level)
                .map_err(|what| format!("sector {index} {what}"))?;
        }
        let sectors = &self.sectors;
        self.soft.retain(|index| {
            usize::try_from(*index)
                .ok()
                .and_then(|i| sectors.get(i))
                .is_some_and(|cell| cell.iter().any(|w| !w.durable))
        });
        Ok(())
    }
}

fn settle_cell(cell: &mut Vec<Write>, sector: &[u8], bit: u16, level: Level) -> Result<(), String> {
    // The usual case: one write, and it is there.
    if let [only] = cell.as_slice()
        && content_of(sector) == Some(only.content)
        && only.durable
    {
        return Ok(());
    }
    let Some(content) = content_of(sector) else {
        return Err("is torn".to_owned());
    };
    let hidden = |w: &Write| {
        cell.iter().any(|other| {
            (other.durable || other.acked.is_some() && other.at_risk & bit == 0)
                && w.acked.is_some_and(|end| end < other.issued)
        })
    };
    let Some(found) = cell
        .iter()
        .rposition(|w| w.content == content && !hidden(w))
    else {
        return Err(format!(
            "holds {content:x}, but may hold only {}",
            list(cell, |w| !hidden(w))
        ));
    };
    let mut kept = cell[found];
    if kept.orphan || kept.acked.is_some() {
        kept.acked = Some(kept.acked.unwrap_or(kept.issued));
        kept.orphan = false;
        kept.at_risk &= !bit;
    }
    // What is newer is gone for good, but for requests that will be issued again. What is older may come back only
    // with a power failure, as on any disk.
    cell.retain(|w| {
        let open = w.acked.is_none() && !w.orphan;
        w.op != kept.op && (open || w.issued < kept.issued)
    });
    for older in cell.iter_mut().filter(|w| w.orphan) {
        older.orphan = false;
        older.acked = Some(older.issued);
    }
    cell.push(kept);
    prune(cell, level);
    Ok(())
}

/// Forgets what can never be seen again, whatever fails. An asynchronous follower may show anything again.
fn prune(cell: &mut Vec<Write>, level: Level) {
    if level == Level::Async {
        return;
    }
    let newest = cell.iter().filter(|w| w.durable).map(|w| w.issued).max();
    let Some(newest) = newest else { return };
    cell.retain(|w| w.acked.is_none_or(|end| end >= newest));
}

fn list(cell: &[Write], which: impl Fn(&Write) -> bool) -> String {
    let words: Vec<String> = cell
        .iter()
        .filter(|w| which(w))
        .map(|w| {
            let state = match (w.acked, w.durable, w.orphan) {
                (Some(_), true, _) => "durable",
                (Some(_), false, _) => "acknowledged",
                (None, _, true) => "unanswered",
                (None, _, false) => "under way",
            };
            format!("{:x} ({state})", w.content)
        })
        .collect();
    words.join(" or ")
}

fn bit(node: NodeId) -> u16 {
    1_u16.checked_shl(u32::from(node.0)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(0);
    const B: NodeId = NodeId(1);

    fn volume() -> Oracle {
        Oracle::new(&[0; 4], Level::Write)
    }

    fn disk(contents: [u64; 4]) -> Vec<u8> {
        contents.iter().flat_map(|c| bytes_of(*c, 1)).collect()
    }

    fn acked(oracle: &mut Oracle, op: u64, content: u64) {
        oracle.issue_write(OpId(op), 1, 1, content, false);
        oracle.acknowledge(OpId(op), &[]).unwrap();
    }

    #[test]
    fn an_acknowledged_write_must_be_there() {
        let mut oracle = volume();
        acked(&mut oracle, 1, 5);
        oracle.settle(B, &disk([0, 0, 0, 0])).unwrap_err();
        oracle.settle(B, &disk([0, 5, 0, 0])).unwrap();
    }

    #[test]
    fn power_loss_excuses_unflushed_writes_on_that_node_only() {
        let mut oracle = volume();
        acked(&mut oracle, 1, 5);
        oracle.lost_cache(A);
        oracle.settle(B, &disk([0, 0, 0, 0])).unwrap_err();
        oracle.settle(A, &disk([0, 0, 0, 0])).unwrap();
    }

    #[test]
    fn with_ack_flush_another_node_owes_only_what_was_flushed() {
        let mut oracle = Oracle::new(&[0; 4], Level::Flush);
        oracle.settle(A, &disk([0; 4])).unwrap();
        acked(&mut oracle, 1, 5);
        oracle.settle(A, &disk([0; 4])).unwrap_err();
        oracle.settle(B, &disk([0; 4])).unwrap();
        acked(&mut oracle, 2, 6);
        oracle.issue_flush(OpId(3));
        oracle.acknowledge(OpId(3), &[]).unwrap();
        oracle.settle(A, &disk([0; 4])).unwrap_err();
    }

    #[test]
    fn power_loss_does_not_excuse_flushed_writes() {
        let mut oracle = volume();
        acked(&mut oracle, 1, 5);
        oracle.issue_flush(OpId(2));
        oracle.acknowledge(OpId(2), &[]).unwrap();
        oracle.lost_cache(A);
        oracle.settle(A, &disk([0, 0, 0, 0])).unwrap_err();
    }

    #[test]
    fn a_write_that_was_gone_once_does_not_come_back() {
        let mut oracle = volume();
        oracle.issue_write(OpId(1), 1, 1, 5, false);
        oracle.abandon(OpId(1));
        oracle.settle(B, &disk([0, 0, 0, 0])).unwrap();
        oracle.settle(A, &disk([0, 5, 0, 0])).unwrap_err();
    }

    #[test]
    fn after_a_power_failure_an_older_version_may_come_back() {
        let mut oracle = volume();
        acked(&mut oracle, 1, 5);
        oracle.settle(A, &disk([0, 5, 0, 0])).unwrap();
        oracle.lost_cache(A);
        oracle.settle(B, &disk([0, 0, 0, 0])).unwrap_err();
        oracle.settle(A, &disk([0, 0, 0, 0])).unwrap();
    }

    #[test]
    fn reads_see_the_last_acknowledged_write_or_one_under_way() {
        let mut oracle = volume();
        acked(&mut oracle, 1, 5);
        oracle.issue_write(OpId(2), 1, 1, 6, false);
        for (op, content, right) in [(3, 5, true), (4, 6, true), (5, 0, false)] {
            oracle.issue_read(OpId(op), 1, 1);
            let answer = oracle.acknowledge(OpId(op), &bytes_of(content, 1));
            assert_eq!(answer.is_ok(), right, "{content}");
        }
    }

    #[test]
    fn a_read_under_way_may_see_what_is_acknowledged_meanwhile() {
        let mut oracle = volume();
        oracle.issue_read(OpId(3), 1, 1);
        acked(&mut oracle, 1, 5);
        let mut other = volume();
        other.issue_read(OpId(3), 1, 1);
        acked(&mut other, 1, 5);
        oracle.acknowledge(OpId(3), &bytes_of(0, 1)).unwrap();
        other.acknowledge(OpId(3), &bytes_of(5, 1)).unwrap();
    }
}
