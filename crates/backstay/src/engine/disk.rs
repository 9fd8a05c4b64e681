//! The replica's disk operations on the ring.

use super::buffers::Buffers;
use super::numbered::Numbered;
use host::disk::Disk;
use host::ring::{Buf, Completion, Op, Ring};
use mirror::io::{BufId, DiskOp, Errno, Input, IoId, Tell};
use std::sync::Arc;

/// What a completed operation means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Nothing more.
    Done,
    /// The buffer was filled.
    Fill {
        buf: BufId,
        /// What the answer tells beside.
        tell: Tell,
    },
    /// The bytes belong to the answer.
    Bytes,
    /// A zeroed range still has to become durable.
    Flush,
}

/// The disk with its operations under way.
#[derive(Debug)]
pub(super) struct Disks {
    disk: Arc<Disk>,
    /// The same without the metadata's device: the volume may grow beyond where that began.
    volume: Arc<Disk>,
    under_way: Numbered<u64, After>,
}

impl Disks {
    pub(super) fn new(disk: Arc<Disk>, volume: Arc<Disk>) -> Self {
        Self {
            disk,
            volume,
            under_way: Numbered::default(),
        }
    }

    /// Starts an operation. The token is the machine's name for it.
    pub(super) fn start(&mut self, ring: &mut Ring, buffers: &mut Buffers, io: IoId, op: DiskOp) {
        let disk = Arc::clone(match &op {
            DiskOp::Read { .. } | DiskOp::Write { .. } | DiskOp::Zero { .. } => &self.volume,
            DiskOp::Flush | DiskOp::MetaRead { .. } | DiskOp::MetaWrite { .. } => &self.disk,
        });
        let (op, after) = match op {
            DiskOp::Read { range, buf, tell } => {
                let into = buffers
                    .take(buf)
                    .unwrap_or_else(|| Buf::new(len(range.len())));
                (
                    Op::Read {
                        disk,
                        offset: range.offset(),
                        buf: into,
                    },
                    After::Fill { buf, tell },
                )
            }
            DiskOp::Write { range, buf, fua } => {
                let data = buffers
                    .content(buf)
                    .unwrap_or_else(|| unreachable!("a buffer is written before it was filled"));
                (
                    Op::Write {
                        disk,
                        offset: range.offset(),
                        data,
                        durable: fua,
                    },
                    After::Done,
                )
            }
            DiskOp::Zero { range, fua } => {
                let after = if fua { After::Flush } else { After::Done };
                let (offset, len) = (range.offset(), range.len());
                (
                    Op::Zero {
                        disk,
                        offset,
                        len,
                        hole: true,
                    },
                    after,
                )
            }
            DiskOp::Flush => (Op::Flush { disk }, After::Done),
            DiskOp::MetaRead { offset, len: bytes } => (
                Op::Read {
                    disk,
                    offset,
                    buf: Buf::new(len(bytes)),
                },
                After::Bytes,
            ),
            DiskOp::MetaWrite { offset, bytes } => {
                let data = Buf::copy_of(&bytes).freeze();
                (
                    Op::Write {
                        disk,
                        offset,
                        data,
                        durable: true,
                    },
                    After::Done,
                )
            }
        };
        self.under_way.insert(io.0, after);
        ring.submit(io.0, op);
    }

    /// How large the disk is now. One that does not tell has no more room than before.
    pub(super) fn measured(&self) -> Input {
        let disk_bytes = self.disk.measure().unwrap_or_else(|error| {
            tracing::warn!(%error, disk = %self.disk.path().display(), "the disk does not tell its size");
            0
        });
        Input::Measured { disk_bytes }
    }

    /// Takes a completion; the replica's input, or none if the operation goes on.
    pub(super) fn complete(
        &mut self,
        ring: &mut Ring,
        buffers: &mut Buffers,
        completion: Completion,
    ) -> Option<Input> {
        let token = completion.token;
        let after = self.under_way.remove(&token)?;
        let result = match completion.result {
            Err(error) => Err(Errno(error.raw_os_error().unwrap_or(Errno::IO.0))),
            Ok(_) => match (after, completion.buf) {
                (After::Fill { buf: id, tell }, Some(buf)) => {
                    let answer = tell.of(&buf);
                    buffers.fill(id, buf);
                    Ok(answer)
                }
                (After::Bytes, Some(buf)) => Ok(buf.to_vec()),
                (After::Flush, _) => {
                    self.under_way.insert(token, After::Done);
                    ring.submit(
                        token,
                        Op::Flush {
                            disk: Arc::clone(&self.disk),
                        },
                    );
                    return None;
                }
                (After::Done | After::Fill { .. } | After::Bytes, _) => Ok(Vec::new()),
            },
        };
        Some(Input::DiskDone {
            io: IoId(token),
            result,
        })
    }
}

/// A length in memory; no operation of the replica is larger than memory.
fn len(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
