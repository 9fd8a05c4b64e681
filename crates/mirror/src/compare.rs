//! Chunks that are compared before they are sent: both replicas' digests, under the range lock of both.
//!
//! ```text
//! active:   range lock ──► read, digest ──Compare──►            ──► equal: done; differs: the chunk is sent; range free
//! standby:                                range lock ──► read, digest ──► Ack | Differs | Unreadable
//! ```
//! The active holds the range until the answer is there, and frames of a session keep their order, so both digests are of
//! the same moment: a difference is one, never a write on its way.

use crate::io::{BufId, ConnId, Payload};
use crate::job::{Action, Job, Origin, Stage};
use crate::machine::{JobId, Machine};
use crate::mend::Mend;
use crate::nodes::NodeSet;
use crate::peer::Await;
use wire::digest::{DIGEST_BYTES, Digest};
use wire::layout::ReplicaState;
use wire::mirror_frame::{FLAG_RESYNC, Header, Kind};
use wire::units::BLOCK_BYTES;
use wire::{ByteRange, NodeId};

/// What a peer said of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Equal,
    /// Another content, or one that must be written again.
    Differs,
    /// The peer cannot read it.
    Unreadable,
}

impl Machine {
    /// A chunk was read here: it is sent, or first compared.
    pub(crate) fn on_chunk_read(&mut self, id: JobId, told: &[u8]) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let (range, buf, origin) = (job.range, job.buf, job.origin);
        let compares = match origin {
            Origin::Resync {
                node,
                conn,
                compare,
            } => {
                let zero = !compare && !told.is_empty();
                if zero && self.is_session(node, conn) {
                    self.send_zero_chunk(node, range);
                    return self.end_job(id);
                }
                compare.then_some((node, conn))
            }
            Origin::Verify { node, conn } => Some((node, conn)),
            Origin::App(_)
            | Origin::Peer { .. }
            | Origin::PeerRead { .. }
            | Origin::PeerCompare { .. }
            | Origin::Mend(_)
            | Origin::Renewal
            | Origin::Nobody => None,
        };
        match (compares, origin) {
            (Some((node, conn)), _) if self.is_session(node, conn) => {
                self.ask_compare(id, node, range, told);
            }
            (None, Origin::Resync { node, conn, .. }) => {
                self.send_chunk(node, conn, range, buf);
                self.end_job(id);
            }
            _ => self.abandon(id),
        }
    }

    fn ask_compare(&mut self, id: JobId, node: NodeId, range: ByteRange, digest: &[u8]) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.stage = Stage::Asking;
        }
        let header = Header {
            range,
            payload_len: u32::try_from(DIGEST_BYTES).unwrap_or(0),
            ..self.header(Kind::Compare, 0)
        };
        let payload = Payload::Bytes(digest.to_vec());
        self.ask_with(node, header, payload, Await::Compare(id));
    }

    /// The peer's answer to a comparison.
    pub(crate) fn on_verdict(&mut self, node: NodeId, id: JobId, verdict: Verdict) {
        let Some((range, buf, origin)) = self.asking(id) else {
            return;
        };
        match origin {
            Origin::Resync { conn, .. } if verdict == Verdict::Equal => {
                debug_assert!(self.is_session(node, conn));
                self.end_job(id);
                self.on_chunk_acked(node);
            }
            Origin::Resync { conn, .. } => {
                self.send_chunk(node, conn, range, buf);
                self.end_job(id);
            }
            Origin::Verify { conn, .. } => {
                if self.verify_found(range, verdict) {
                    // Durably marked before anything else can go wrong, and unmarked by the next point.
                    self.mark_difference(node, range);
                    self.send_chunk(node, conn, range, buf);
                }
                self.end_job(id);
            }
            Origin::App(_)
            | Origin::Peer { .. }
            | Origin::PeerRead { .. }
            | Origin::PeerCompare { .. }
            | Origin::Mend(_)
            | Origin::Renewal
            | Origin::Nobody => {}
        }
    }

    fn mark_difference(&mut self, node: NodeId, range: ByteRange) {
        let nodes = NodeSet::one(node);
        self.mark_against(nodes, &range.cells(BLOCK_BYTES));
        for region in Self::regions_of(range) {
            self.want_region(nodes, region);
        }
    }

    /// A job that waits for a peer's answer.
    pub(crate) fn asking(&self, id: JobId) -> Option<(ByteRange, Option<BufId>, Origin)> {
        let job = self.jobs.get(&id).filter(|j| j.stage == Stage::Asking)?;
        Some((job.range, job.buf, job.origin))
    }

    /// A session ended: nobody answers its questions any more.
    pub(crate) fn abandon_asked(&mut self, conn: ConnId) {
        let asked = |job: &Job| job.stage == Stage::Asking && job.origin.conn() == Some(conn);
        let jobs = self.jobs.iter().filter(|(_, job)| asked(job));
        let jobs: Vec<JobId> = jobs.map(|(id, _)| *id).collect();
        for id in jobs {
            self.abandon(id);
        }
    }

    /// Ends a job whose session is gone.
    pub(crate) fn abandon(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let (range, origin) = (job.range, job.origin);
        match origin {
            Origin::Mend(Mend { .. }) => return self.mend_failed(id),
            Origin::Verify { .. } => self.verify_again(range),
            Origin::App(_)
            | Origin::Peer { .. }
            | Origin::PeerRead { .. }
            | Origin::PeerCompare { .. }
            | Origin::Resync { .. }
            | Origin::Renewal
            | Origin::Nobody => {}
        }
        self.end_job(id);
    }

    /// A standby is asked whether its content is this.
    pub(crate) fn on_peer_compare(&mut self, header: Header, bytes: &[u8]) -> Option<()> {
        let digest = Digest::from_bytes(bytes)?;
        let (conn, seq) = (self.following()?.conn, header.seq);
        if self.superblock.get().state != ReplicaState::Consistent {
            // What an earlier session wrote here may be why it is equal now; nobody remembers that it was written.
            self.mark_chunk(header.range);
        }
        let origin = Origin::PeerCompare { conn, seq, digest };
        self.fetch_for_peer(header.range, origin)
    }

    /// A standby is asked for its content.
    pub(crate) fn on_peer_read(&mut self, header: Header) -> Option<()> {
        let (conn, seq) = (self.following()?.conn, header.seq);
        self.fetch_for_peer(header.range, Origin::PeerRead { conn, seq })
    }

    /// In the order of arrival: behind every earlier write of the session in its range.
    fn fetch_for_peer(&mut self, range: ByteRange, origin: Origin) -> Option<()> {
        if !self.is_inside(range) || range.len() > u64::from(wire::mirror_frame::PAYLOAD_MAX) {
            return None;
        }
        let id = JobId(self.jobs_made + 1);
        self.following_mut()?.jobs.insert(id);
        self.submit(range, Action::Fetch, false, None, origin);
        Some(())
    }

    /// A standby read what the active asked about.
    pub(crate) fn answer_fetch(&mut self, id: JobId, found: &[u8]) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let (range, origin, buf) = (job.range, job.origin, job.buf);
        match origin {
            Origin::PeerCompare { conn, seq, digest } => {
                // Reads well, and is in no cache that a flush would write: after a failed flush of an earlier life.
                let unsure =
                    self.volatile_kept && self.intent.has_inherited(Self::regions_of(range));
                let equal = found == digest.as_bytes() && !unsure;
                let kind = if equal { Kind::Ack } else { Kind::Differs };
                self.answer(
                    conn,
                    Header::bare(kind, self.floor, wire::SessionId(0), seq),
                    None,
                    Some(id),
                );
            }
            Origin::PeerRead { conn, seq } => {
                let header = Header {
                    range,
                    payload_len: u32::try_from(range.len()).unwrap_or(0),
                    ..Header::bare(Kind::Data, self.floor, wire::SessionId(0), seq)
                };
                self.answer(conn, header, buf, Some(id));
            }
            Origin::App(_)
            | Origin::Peer { .. }
            | Origin::Resync { .. }
            | Origin::Verify { .. }
            | Origin::Mend(_)
            | Origin::Renewal
            | Origin::Nobody => {}
        }
        self.end_job(id);
    }

    fn send_zero_chunk(&mut self, node: NodeId, range: ByteRange) {
        let header = Header {
            range,
            ..self.header(Kind::Zero, FLAG_RESYNC)
        };
        self.ask_with(node, header, Payload::None, Await::Chunk);
    }
}
