//! Looking ahead: a stream of writes finds its regions in the intent log already.
//!
//! A region may be in the log without a write in it. It counts to the log's bound, leaves as any idle region does, and costs
//! a crash no more than the bound. So a stream that goes on where it was gets its next regions before it comes to them,
//! by one write of the log for many, and waits for none of them.

use crate::machine::Machine;
use std::ops::Range;
use wire::ByteRange;

/// The window is this part of what the log may hold.
const WINDOW_PART: u64 = 8;

impl Machine {
    /// Notes a write of the front end that is let into the log with `regions`; those that it made hot are in `added`, where
    /// the ones ahead of a stream are put, too.
    pub(crate) fn look_ahead(
        &mut self,
        range: ByteRange,
        regions: &Range<u32>,
        added: &mut Vec<u32>,
    ) {
        let goes_on = range.offset() == self.stream_end;
        self.stream_end = range.end();
        let window = u32::try_from(self.intent.limit() / WINDOW_PART).unwrap_or(u32::MAX);
        if !goes_on || window == 0 {
            return;
        }
        let last = u32::try_from(self.layout.regions()).unwrap_or(u32::MAX);
        let end = regions.end.saturating_add(window).min(last);
        // Half of the window is still ahead: the log is written again when that is used up, beside the stream.
        let middle = regions.end.saturating_add(window / 2).min(last);
        if middle == regions.end || self.intent.is_hot(middle - 1) {
            return;
        }
        for region in regions.end..end {
            if self.intent.is_crowded() {
                return;
            }
            if self.intent.touch(region) {
                added.push(region);
            }
        }
    }
}
