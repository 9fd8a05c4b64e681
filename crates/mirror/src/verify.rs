//! Verifying online: every chunk of the volume is compared with a peer's, under load, without a false alarm.
//!
//! Goes on by itself after an interruption of the session; ends when every chunk was compared, or with the activation.

use crate::compare::Verdict;
use crate::control::{Report, VerifyFigures, VerifyResult};
use crate::job::{Action, Origin};
use crate::machine::Machine;
use crate::nodes::NodeSet;
use std::collections::VecDeque;
use wire::units::REGION_BYTES;
use wire::{ByteCount, ByteRange, NodeId};

/// Differing ranges that are named one by one; more are only counted.
const NAMED_MAX: usize = 256;
/// Chunks compared at the same time: few, the front end goes first.
const UNDER_WAY_MAX: usize = 4;

/// A verification that is going on.
#[derive(Debug)]
pub(crate) struct Verify {
    node: NodeId,
    repair: bool,
    /// Everything before it was started.
    cursor: u64,
    /// Chunks whose session was lost before their answer came.
    again: VecDeque<ByteRange>,
    under_way: usize,
    pub(crate) result: VerifyResult,
}

impl Verify {
    fn next(&mut self, data_bytes: u64) -> Option<ByteRange> {
        if let Some(range) = self.again.pop_front() {
            return Some(range);
        }
        let len = REGION_BYTES.min(data_bytes.saturating_sub(self.cursor));
        let range = ByteRange::new(self.cursor, len).filter(|range| !range.is_empty())?;
        self.cursor = range.end();
        Some(range)
    }

    fn is_over(&self, data_bytes: u64) -> bool {
        self.under_way == 0 && self.again.is_empty() && self.cursor >= data_bytes
    }

    fn name(&mut self, range: ByteRange) {
        let ranges = &mut self.result.ranges;
        let joined = ranges.pop_if(|last| last.end() == range.offset());
        let joined =
            joined.and_then(|last| ByteRange::new(last.offset(), last.len() + range.len()));
        if ranges.len() < NAMED_MAX {
            ranges.push(joined.unwrap_or(range));
        }
    }
}

impl Machine {
    /// A person asks for a verification. While one goes on, or nothing is served, there is none to start.
    pub(crate) fn on_verify(&mut self, node: NodeId, repair: bool) {
        let serving = self.active().is_some_and(|active| active.is_serving());
        if !serving || !self.peers.contains_key(&node) || self.verify.is_some() {
            return;
        }
        self.verifies += 1;
        let total = ByteCount(self.layout.data_bytes);
        self.verify = Some(Verify {
            node,
            repair,
            cursor: 0,
            again: VecDeque::new(),
            under_way: 0,
            result: VerifyResult {
                total,
                ..VerifyResult::default()
            },
        });
    }

    pub(crate) fn verify_figures(&self) -> Option<VerifyFigures> {
        let going_on = self.verify.as_ref().map(|verify| &verify.result);
        let result = going_on.or(self.verified.as_ref())?.clone();
        Some(VerifyFigures {
            number: self.verifies,
            running: going_on.is_some(),
            result,
        })
    }

    /// Starts what is due.
    pub(crate) fn pump_verify(&mut self) {
        while let Some((node, conn, range)) = self.next_verify() {
            let origin = Origin::Verify { node, conn };
            self.submit(range, Action::Fetch, false, None, origin);
        }
        let data_bytes = self.layout.data_bytes;
        if let Some(verify) = self.verify.take_if(|verify| verify.is_over(data_bytes)) {
            let (node, result) = (verify.node, verify.result);
            self.verified = Some(result.clone());
            self.report(Report::Verified { node, result });
        }
    }

    fn next_verify(&mut self) -> Option<(NodeId, crate::io::ConnId, ByteRange)> {
        let data_bytes = self.layout.data_bytes;
        let live: NodeSet = self.live;
        let verify = self.verify.as_mut()?;
        let node = verify.node;
        if !live.contains(node) || verify.under_way >= UNDER_WAY_MAX {
            return None;
        }
        let conn = self.peers.get(&node)?.conn()?;
        let range = verify.next(data_bytes)?;
        verify.under_way += 1;
        Some((node, conn, range))
    }

    /// The peer's answer for a chunk; true if it is to be sent.
    pub(crate) fn verify_found(&mut self, range: ByteRange, verdict: Verdict) -> bool {
        let Some(verify) = &mut self.verify else {
            return false;
        };
        verify.under_way = verify.under_way.saturating_sub(1);
        verify.result.checked.0 += range.len();
        match verdict {
            Verdict::Equal => return false,
            Verdict::Differs => verify.result.different.0 += range.len(),
            Verdict::Unreadable => verify.result.unreadable.0 += range.len(),
        }
        verify.name(range);
        if verify.repair {
            verify.result.repaired.0 += range.len();
        }
        verify.repair
    }

    /// A chunk cannot be read on the active: it is mended from the peer in any case.
    pub(crate) fn verify_unreadable_here(&mut self, range: ByteRange) {
        if let Some(verify) = &mut self.verify {
            verify.under_way = verify.under_way.saturating_sub(1);
            verify.result.checked.0 += range.len();
            verify.result.unreadable.0 += range.len();
            verify.name(range);
        }
    }

    /// A chunk's session was lost: it is compared again in the next one.
    pub(crate) fn verify_again(&mut self, range: ByteRange) {
        if let Some(verify) = &mut self.verify {
            verify.under_way = verify.under_way.saturating_sub(1);
            verify.again.push_back(range);
        }
    }
}
