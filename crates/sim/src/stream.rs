//! The mirror's connections: ordered, reliable, and cut off without a word or closed.

use crate::clock::Moment;
use crate::queue::Payload;
use std::collections::VecDeque;
use wire::NodeId;
use wire::mirror_frame::Header;

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) node: NodeId,
    pub(crate) life: u64,
    /// False once its process closed it or died.
    pub(crate) open: bool,
    /// Its process closed it.
    pub(crate) hung_up: bool,
}

/// What travels in one direction.
#[derive(Debug)]
pub(crate) enum Packet {
    /// A frame.
    Frame(Header, Payload),
    /// The other side closed.
    Close,
}

impl Packet {
    pub(crate) const fn is_frame(&self) -> bool {
        matches!(self, Self::Frame(..))
    }
}

/// One connection. Index 0 is the side that opened it.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) mirror: u8,
    pub(crate) ends: [End; 2],
    /// What travels *to* each end, with the moment at which it arrives if the way is open.
    pub(crate) queues: [VecDeque<(Moment, Packet)>; 2],
    /// When the latest packet to each end arrives: the order is kept.
    pub(crate) latest: [Moment; 2],
    /// Rises with every stall, so that a timeout of an earlier one is known.
    pub(crate) stall: u64,
    /// The way is cut, or the other machine is gone without a word.
    pub(crate) stalled: bool,
}

impl Stream {
    /// A fresh connection.
    pub(crate) const fn new(mirror: u8, ends: [End; 2], now: Moment) -> Self {
        Self {
            mirror,
            ends,
            queues: [VecDeque::new(), VecDeque::new()],
            latest: [now, now],
            stall: 0,
            stalled: false,
        }
    }

    /// The side at which this process is; none if it is at neither.
    pub(crate) fn side_of(&self, node: NodeId, life: u64) -> Option<usize> {
        self.ends
            .iter()
            .position(|end| end.node == node && end.life == life)
    }

    /// True if one machine lost power: nobody will ever answer there, not even with a close.
    pub(crate) fn lost_its_machine(&self) -> bool {
        (0..2).any(|side| {
            let word = |(_, packet): &(Moment, Packet)| matches!(packet, Packet::Close);
            !self.ends[side].open
                && self.ends[1 - side].open
                && !self.queues[1 - side].iter().any(word)
        })
    }

    /// True if it connects the two machines.
    pub(crate) fn connects(&self, a: NodeId, b: NodeId) -> bool {
        let [x, y] = self.ends;
        (x.node == a && y.node == b) || (x.node == b && y.node == a)
    }
}
