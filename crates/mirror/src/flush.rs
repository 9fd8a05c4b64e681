//! Flushes while active: durable here and on every required peer.

use crate::activate::Active;
use crate::disk::Purpose;
use crate::intent::Period;
use crate::io::{DiskOp, RequestId};
use crate::lag::Sent;
use crate::machine::{FlushId, Machine};
use crate::nodes::NodeSet;
use crate::peer::Await;
use wire::NodeId;
use wire::mirror_frame::Kind;
use wire::mutant::{self, Mutant};

#[derive(Debug)]
pub(crate) struct FlushOp {
    /// None for the machine's own: it makes room in the intent log, or drains.
    request: Option<RequestId>,
    /// It covers what settled up to this period.
    period: Period,
    /// The local disk's part is done.
    local: bool,
    /// Peers that it was sent to in their present session.
    pub(crate) sent: NodeSet,
    /// Peers that are done.
    pub(crate) acked: NodeSet,
}

impl Machine {
    /// Makes everything durable that settled (was replied to, or could be) before.
    pub(crate) fn begin_flush(&mut self, request: Option<RequestId>) -> FlushId {
        self.flushes_made += 1;
        let id = FlushId(self.flushes_made);
        let flush = FlushOp {
            request,
            period: self.period,
            local: false,
            sent: NodeSet::EMPTY,
            acked: NodeSet::EMPTY,
        };
        self.period.0 += 1;
        self.flushes.insert(id, flush);
        let nodes: Vec<_> = self.peers.keys().copied().collect();
        for node in nodes {
            self.send_flush(node, id);
        }
        self.start_disk(Purpose::Flush(id), DiskOp::Flush);
        id
    }

    /// Starts a flush for the intent log's sake, unless one is under way.
    pub(crate) fn begin_internal_flush(&mut self) {
        if self.flushes.values().all(|f| f.request.is_some()) {
            self.begin_flush(None);
        }
    }

    /// Passes a flush on to a peer whose acknowledgements count. Others get it when theirs do.
    pub(crate) fn send_flush(&mut self, node: NodeId, id: FlushId) {
        let apart = self.apart.contains(node);
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let flags = match apart {
            false if self.live.contains(node) => 0,
            // From the commit on what it holds is a prefix, epoch by epoch.
            true if peer.is_in_order() => {
                peer.lag.sent(Sent::Flush(id), 0, self.now);
                Self::ordered()
            }
            false | true => return,
        };
        self.ask(node, Kind::Flush, flags, Await::Flush(id));
        if let Some(flush) = self.flushes.get_mut(&id) {
            flush.sent.insert(node);
        }
    }

    /// Peers on which a flush must be durable. An orderly end leaves nothing behind that an eligible follower lacks.
    fn needed_by_flush(&self) -> NodeSet {
        let draining = self.active().is_some_and(Active::is_draining);
        if draining {
            self.required().or(self.eligible())
        } else {
            self.required()
        }
    }

    pub(crate) fn on_local_flush_done(&mut self, id: FlushId) {
        if let Some(flush) = self.flushes.get_mut(&id) {
            flush.local = true;
            self.settle_flush(id);
        }
    }

    /// True once the local disk's part of a flush is done.
    pub(crate) fn is_flushed_here(&self, id: FlushId) -> bool {
        self.flushes.get(&id).is_none_or(|flush| flush.local)
    }

    pub(crate) fn on_flush_acked(&mut self, node: NodeId, id: FlushId) {
        if let Some(flush) = self.flushes.get_mut(&id) {
            flush.acked.insert(node);
            self.settle_flush(id);
        }
    }

    /// Ends a flush that is done here and on every required peer. Only its reply needs a lease.
    pub(crate) fn settle_flush(&mut self, id: FlushId) {
        let required = self.needed_by_flush();
        let may_reply = self.may_settle();
        let Some(flush) = self.flushes.get(&id) else {
            return;
        };
        if flush.request.is_some() && !may_reply {
            return;
        }
        let everywhere =
            flush.acked.and(self.live).covers(required) || mutant::on(Mutant::FlushLocalOnly);
        if !flush.local || !everywhere {
            return;
        }
        let (period, told) = (flush.period, flush.request.is_some());
        if told && !self.keeps_bound(NodeSet::EMPTY, 0) {
            return;
        }
        let Some(flush) = self.flushes.get(&id) else {
            return;
        };
        self.clean = self.clean.max(period);
        let request = flush.request;
        self.flushes.remove(&id);
        if let Some(request) = request {
            self.finish(request);
        }
        self.admit();
    }
}
