//! Reads that the local disk fails: the peer serves them, and the place is written anew.
//!
//! ```text
//! read error ──► room in the intent log ──► range lock ──► regions durable in the log ──Read──► peer
//!                        front end ◄── read again ◄── written here ◄──────Data──────────────────┘
//! ```
//! A disk gives a bad sector another place when it is written; if that fails too, or the place still cannot be read, the
//! disk is bad and the leg is given up (R7). A replica without a live peer answers that one read with an error and goes on.

use crate::control::Report;
use crate::disk::Purpose;
use crate::io::{BufId, ConnId, DiskOp, Errno, RequestId, Tell};
use crate::job::{Action, Origin, Stage};
use crate::machine::{JobId, Machine};
use crate::peer::Await;
use wire::mirror_frame::{Header, Kind};
use wire::{ByteRange, NodeId};

/// A place that is being mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mend {
    /// Who has it.
    pub(crate) node: NodeId,
    pub(crate) conn: ConnId,
    /// Who waits for it.
    reader: Option<Reader>,
}

/// A read of the front end that met the bad place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reader {
    request: RequestId,
    buf: BufId,
    activation: u64,
}

impl Machine {
    /// A local operation failed. True if it was one that the replica can live with: a read, or clearing what nobody uses.
    pub(crate) fn survives(&mut self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Read {
                request,
                buf,
                range,
                activation,
                again,
            } => {
                if again {
                    return false;
                }
                let reader = Reader {
                    request,
                    buf,
                    activation,
                };
                self.mend(range, Some(reader));
                true
            }
            Purpose::Job(id) => self.survives_fetch(id),
            Purpose::Clear => {
                self.cannot_clear();
                true
            }
            Purpose::Super
            | Purpose::Intent
            | Purpose::Bitmap(_)
            | Purpose::Flush(_)
            | Purpose::PeerFlush(_)
            | Purpose::GainFlush(_) => false,
        }
    }

    fn survives_fetch(&mut self, id: JobId) -> bool {
        let Some(job) = self.jobs.get(&id).filter(|j| j.action == Action::Fetch) else {
            return false;
        };
        let (range, origin) = (job.range, job.origin);
        match origin {
            // Nobody else has what was never flushed.
            Origin::Renewal => return false,
            Origin::Resync { node, conn, .. } => {
                self.end_job(id);
                if self.is_session(node, conn) {
                    self.chunk_unreadable(node, range);
                }
            }
            Origin::Verify { .. } => {
                self.verify_unreadable_here(range);
                self.end_job(id);
                self.mend(range, None);
            }
            Origin::PeerRead { conn, seq } | Origin::PeerCompare { conn, seq, .. } => {
                self.report_unreadable(range, false);
                let header = Header::bare(Kind::Unreadable, self.floor, wire::SessionId(0), seq);
                self.answer(conn, header, None, Some(id));
                self.end_job(id);
            }
            Origin::App(_) | Origin::Peer { .. } | Origin::Mend(_) => return false,
            Origin::Nobody => self.end_job(id),
        }
        true
    }

    /// Has a place written anew from a peer that has everything; without one the reader gets an error.
    fn mend(&mut self, range: ByteRange, reader: Option<Reader>) {
        let live = self.peers.iter().find_map(|(node, peer)| {
            let session = peer.session().filter(|_| self.live.contains(*node))?;
            Some((*node, session.conn))
        });
        match live {
            Some((node, conn)) => {
                let mend = Mend { node, conn, reader };
                self.submit(range, Action::Fetch, false, None, Origin::Mend(mend));
            }
            None => {
                self.report_unreadable(range, false);
                self.disappoint(reader);
            }
        }
    }

    /// Has a place written anew from a peer that is in the set, though not yet equal: it lacks nothing that was acknowledged.
    pub(crate) fn mend_from(&mut self, node: NodeId, range: ByteRange) {
        let session = self.peers.get(&node).and_then(|p| p.session());
        if let Some(conn) = session.map(|s| s.conn) {
            let mend = Mend {
                node,
                conn,
                reader: None,
            };
            self.submit(range, Action::Fetch, false, None, Origin::Mend(mend));
        }
    }

    pub(crate) fn report_unreadable(&mut self, range: ByteRange, mended: bool) {
        self.report(Report::Unreadable { range, mended });
    }

    /// The job has its range, and its regions are durable in the log: asks the peer.
    pub(crate) fn ask_for_content(&mut self, id: JobId, mend: Mend) {
        if !self.is_session(mend.node, mend.conn) {
            return self.mend_failed(id);
        }
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.stage = Stage::Asking;
        let header = Header {
            range: job.range,
            ..self.header(Kind::Read, 0)
        };
        self.ask_with(
            mend.node,
            header,
            crate::io::Payload::None,
            Await::Content(id),
        );
    }

    /// The peer sent the content of a bad place. False if nobody waits for it.
    pub(crate) fn on_content(&mut self, id: JobId, buf: BufId) -> bool {
        let Some(job) = self.jobs.get_mut(&id).filter(|j| j.stage == Stage::Asking) else {
            return false;
        };
        job.action = Action::Write;
        job.buf = Some(buf);
        job.stage = Stage::OnDisk;
        let range = job.range;
        // Durable at once: there is no other copy of the promise that this place was made good.
        let op = DiskOp::Write {
            range,
            buf,
            fua: true,
        };
        self.start_disk(Purpose::Job(id), op);
        true
    }

    /// The place is written anew: whoever read it reads again.
    pub(crate) fn on_mended(&mut self, id: JobId, mend: Mend) {
        let Some(range) = self.disown(id).map(|job| job.range) else {
            return;
        };
        self.end_job(id);
        self.report_unreadable(range, true);
        let Some(reader) = mend.reader else {
            return;
        };
        if reader.activation != self.activation || self.active().is_none() {
            return self.release(reader.buf);
        }
        let purpose = Purpose::Read {
            request: reader.request,
            buf: reader.buf,
            range,
            activation: reader.activation,
            again: true,
        };
        let read = DiskOp::Read {
            range,
            buf: reader.buf,
            tell: Tell::Nothing,
        };
        if !self.start_disk(purpose, read) {
            self.release(reader.buf);
        }
    }

    /// Nobody has the content.
    pub(crate) fn mend_failed(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let (range, origin) = (job.range, job.origin);
        self.disown(id);
        self.end_job(id);
        if let Origin::Mend(mend) = origin {
            self.report_unreadable(range, false);
            self.disappoint(mend.reader);
        }
    }

    fn disappoint(&mut self, reader: Option<Reader>) {
        let Some(reader) = reader else {
            return;
        };
        if reader.activation == self.activation && self.active().is_some() {
            self.refuse_read(reader.request, reader.buf, Errno::IO);
        } else {
            self.release(reader.buf);
        }
    }

    /// A job that is nobody's any more lets go of what else it held.
    pub(crate) fn let_go_of_reader(&mut self, origin: Origin) {
        if let Origin::Mend(Mend {
            reader: Some(reader),
            ..
        }) = origin
        {
            self.release(reader.buf);
        }
    }
}
