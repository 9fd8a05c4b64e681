//! What is left after a run: rows that were acknowledged and are gone, and blocks in which the replicas differ.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use super::journal::Acknowledged;
use crate::failure::Failure;
use crate::lab::state::Lab;
use crate::lab::tools;
use crate::lab::topology::Node;
use crate::ledger::row::Row;

/// Bytes that are compared at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Unit in which differences are told.
const BLOCK_BYTES: usize = 4096;
/// Longest wait for replicas without a writer to become equal: a file system still writes a little for some seconds.
const QUIET_MAX: Duration = Duration::from_secs(15);

/// Rows that were promised against rows that are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Rows with a good reply.
    pub(super) acknowledged: u64,
    /// Acknowledged rows that were read back, unharmed.
    pub(super) found: u64,
    /// Acknowledged rows that were not.
    pub(super) lost: u64,
    /// Rows that nobody wrote.
    pub(super) foreign: u64,
    /// From the first lost row's reply to the last one's, if nothing between them was found: the end of a history that was cut off.
    pub(super) cut_off: Option<Duration>,
}

/// Compares what was acknowledged with what was read back.
pub(super) fn account(acknowledged: &[Acknowledged], read_back: &[Row], seed: u64) -> Account {
    let genuine = |row: &&Row| row.seed == seed && row.is_genuine();
    let there: BTreeMap<u64, ()> = read_back
        .iter()
        .filter(genuine)
        .map(|row| (row.number, ()))
        .collect();
    let lost = |row: &&Acknowledged| !there.contains_key(&row.number);
    let found = acknowledged.len() - acknowledged.iter().filter(lost).count();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    Account {
        acknowledged: count(acknowledged.len()),
        found: count(found),
        lost: count(acknowledged.len() - found),
        foreign: count(read_back.iter().filter(|row| !genuine(row)).count()),
        cut_off: cut_off(acknowledged, |row| lost(&row)),
    }
}

/// How long the history was that is lost, if it is one piece.
fn cut_off(rows: &[Acknowledged], lost: impl Fn(&Acknowledged) -> bool) -> Option<Duration> {
    let first = rows.iter().position(&lost)?;
    let last = rows.iter().rposition(&lost)?;
    let piece = rows.get(first..=last)?;
    let whole = piece.iter().all(lost);
    whole.then(|| piece[piece.len() - 1].at.duration_since(piece[0].at))
}

/// Number of 4 KiB blocks in which the two replicas' data differ. Nobody needs to be stopped: it is looked again until
/// they are equal or time is up.
///
/// # Errors
/// When a disk cannot be read.
pub(super) fn differing_blocks(lab: &Lab) -> Result<u64, Failure> {
    let mut last = Ok(0);
    let quiet = tools::wait_for("equality of the replicas", QUIET_MAX, || {
        last = compare(lab);
        matches!(last, Ok(0) | Err(_)).then_some(())
    });
    match quiet {
        Ok(()) | Err(_) => {
            last.map_err(|error| Failure::new("cannot compare the disks of the nodes").cause(error))
        }
    }
}

fn compare(lab: &Lab) -> io::Result<u64> {
    let one = File::open(lab.disk(Node::NodeA))?;
    let others = lab.data_nodes().filter(|node| *node != Node::NodeA);
    let differing = others.map(|node| compare_disks(lab, &one, &File::open(lab.disk(node))?));
    differing.sum()
}

fn compare_disks(lab: &Lab, one: &File, two: &File) -> io::Result<u64> {
    let (mut first, mut second) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let mut differing = 0;
    let mut at = 0;
    while at < lab.options.size_bytes {
        let left = lab.options.size_bytes - at;
        let length = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        one.read_exact_at(&mut first[..length], at)?;
        two.read_exact_at(&mut second[..length], at)?;
        if first[..length] != second[..length] {
            let blocks = first[..length]
                .chunks(BLOCK_BYTES)
                .zip(second[..length].chunks(BLOCK_BYTES));
            let count = blocks.filter(|(one, two)| one != two).count();
            differing += u64::try_from(count).map_err(io::Error::other)?;
        }
        at += u64::try_from(length).map_err(io::Error::other)?;
    }
    Ok(differing)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_is_lost_between_rows_that_are_there_is_no_end_of_a_history() {
        let start = Instant::now();
        let acknowledged: Vec<_> = (1..=6)
            .map(|number| Acknowledged {
                number,
                at: start + Duration::from_secs(number),
            })
            .collect();
        let lost =
            |numbers: &'static [u64]| cut_off(&acknowledged, |row| numbers.contains(&row.number));
        assert_eq!(lost(&[]), None);
        assert_eq!(lost(&[3, 4, 5]), Some(Duration::from_secs(2)));
        assert_eq!(lost(&[3, 5]), None);
    }

    #[test]
    fn rows_that_are_gone_damaged_or_foreign_are_told_apart() {
        let at = Instant::now();
        let acknowledged: Vec<_> = (1..=4).map(|number| Acknowledged { number, at }).collect();
        // Row 4 has the content of another run; row 5 was never acknowledged.
        let rows = [
            Row::new(7, 1),
            Row::new(7, 2),
            Row::new(8, 4),
            Row::new(7, 5),
        ];
        let account = account(&acknowledged, &rows, 7);
        assert_eq!(
            account,
            Account {
                acknowledged: 4,
                found: 2,
                lost: 2,
                foreign: 1,
                cut_off: Some(Duration::ZERO),
            }
        );
    }
}
