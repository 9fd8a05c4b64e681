//! What all front ends have in common: requests on their way through the replica.

use super::buffers::Buffers;
use super::numbered::Numbered;
use host::ring::{Buf, Frozen};
use mirror::io::{BufId, Op, Request, RequestId};
use wire::ByteRange;

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// A client of the NBD socket.
    Nbd {
        /// The client.
        client: u64,
        /// What it asked.
        request: host::nbd::Request,
    },
    /// The FUSE file.
    Fuse {
        /// What the kernel asked.
        request: host::fuse::IoRequest,
    },
    /// The ublk device.
    Ublk {
        /// Which: there may have been one before it.
        serial: u64,
        /// The slot.
        tag: u16,
    },
}

/// A request for the replica.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) origin: Origin,
    pub(super) op: Op,
    pub(super) range: ByteRange,
    pub(super) payload: Option<Buf>,
}

/// A request under way.
#[derive(Debug)]
struct UnderWay {
    origin: Origin,
    buf: Option<BufId>,
}

/// All requests under way.
#[derive(Debug, Default)]
pub(super) struct Requests {
    under_way: Numbered<RequestId, UnderWay>,
    next: u64,
}

impl Requests {
    /// Names a request for the replica. A read gets a buffer.
    pub(super) fn begin(&mut self, buffers: &mut Buffers, wanted: Wanted) -> Request {
        let Wanted {
            origin,
            op,
            range,
            payload,
        } = wanted;
        self.next += 1;
        let id = RequestId(self.next);
        let buf = match (op, payload) {
            (Op::Read, _) => Some(buffers.empty(range.len())),
            (_, Some(payload)) => Some(buffers.full(payload)),
            (_, None) => None,
        };
        self.under_way.insert(id, UnderWay { origin, buf });
        Request { id, op, range, buf }
    }

    /// The replica answered: where to, and the content of a read.
    pub(super) fn end(
        &mut self,
        buffers: &Buffers,
        id: RequestId,
    ) -> Option<(Origin, Option<Frozen>)> {
        let request = self.under_way.remove(&id)?;
        Some((
            request.origin,
            request.buf.and_then(|buf| buffers.content(buf)),
        ))
    }
}
