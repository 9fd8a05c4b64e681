//! The spool of an asynchronous mirror: a file without a name, for what waits for the follower and has no room in memory.
//!
//! Its content is worth nothing to a later life, so the name is removed at once and nothing is flushed. Checksums stay in
//! memory: what comes back wrong is an error, and the follower is brought up to date by its bitmap instead.

use super::buffers::Buffers;
use crate::failure::Failure;
use host::disk::{Disk, OpenOptions};
use host::ring::{Buf, Completion, Op, Ring};
use mirror::io::{BufId, Errno, Input, IoId, SpoolOp};
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Tokens of spool operations have this bit; a replica never names so many disk operations.
const MARK: u64 = 1 << 62;

/// The file, and what lies in it.
#[derive(Debug)]
pub(super) struct Spool {
    disk: Option<Arc<Disk>>,
    /// By offset: length and CRC-32C.
    places: HashMap<u64, (usize, u32)>,
    /// Reads under way.
    reads: HashMap<u64, (BufId, u64)>,
}

impl Spool {
    /// A spool of `bytes` at `path`; none is made of size 0.
    pub(super) fn open(path: &Path, bytes: u64) -> Result<Self, Failure> {
        let disk = match bytes {
            0 => None,
            _ => Some(make(path, bytes)?),
        };
        Ok(Self {
            disk,
            places: HashMap::new(),
            reads: HashMap::new(),
        })
    }

    /// True if the token is of a spool operation.
    pub(super) const fn knows(token: u64) -> bool {
        token & MARK != 0 && token >> 63 == 0
    }

    /// Starts an operation. An answer right away means that it cannot be started.
    pub(super) fn start(
        &mut self,
        ring: &mut Ring,
        buffers: &mut Buffers,
        io: IoId,
        op: SpoolOp,
    ) -> Option<Input> {
        let token = MARK | io.0;
        let started = match op {
            SpoolOp::Write { offset, buf } => self.write(buffers, offset, buf),
            SpoolOp::Read { offset, buf } => self.read(buffers, token, offset, buf),
        };
        match started {
            Some(op) => {
                ring.submit(token, op);
                None
            }
            None => Some(failed(io)),
        }
    }

    fn write(&mut self, buffers: &Buffers, offset: u64, buf: BufId) -> Option<Op> {
        let disk = Arc::clone(self.disk.as_ref()?);
        let data = buffers.content(buf)?;
        self.places
            .insert(offset, (data.len(), crc32c::crc32c(&data)));
        Some(Op::Write {
            disk,
            offset,
            data,
            durable: false,
        })
    }

    fn read(&mut self, buffers: &mut Buffers, token: u64, offset: u64, buf: BufId) -> Option<Op> {
        let disk = Arc::clone(self.disk.as_ref()?);
        let into = buffers.take(buf)?;
        self.reads.insert(token, (buf, offset));
        Some(Op::Read {
            disk,
            offset,
            buf: into,
        })
    }

    /// Takes a completion.
    pub(super) fn complete(&mut self, buffers: &mut Buffers, completion: Completion) -> Input {
        let io = IoId(completion.token & !MARK);
        let good = match (self.reads.remove(&completion.token), completion.buf) {
            (Some((id, offset)), Some(buf)) => {
                let right = completion.result.is_ok() && self.is_right(offset, &buf);
                buffers.fill(id, buf);
                right
            }
            (Some(_), None) => false,
            (None, _) => completion.result.is_ok(),
        };
        if good {
            Input::SpoolDone { io, result: Ok(()) }
        } else {
            tracing::warn!("the spool of the mirror failed");
            failed(io)
        }
    }

    fn is_right(&self, offset: u64, buf: &Buf) -> bool {
        let written = self.places.get(&offset);
        written.is_some_and(|(len, crc)| *len == buf.len() && *crc == crc32c::crc32c(buf))
    }
}

const fn failed(io: IoId) -> Input {
    let result = Err(Errno::IO);
    Input::SpoolDone { io, result }
}

fn make(path: &Path, bytes: u64) -> Result<Arc<Disk>, Failure> {
    let cannot = || Failure::new(format!("cannot make the spool {}", path.display()));
    // A daemon that was killed in between may have left its own.
    std::fs::remove_file(path).ok();
    File::create_new(path)
        .and_then(|file| file.set_len(bytes))
        .map_err(|error| cannot().cause(error))?;
    let options = OpenOptions {
        allow_buffered: true,
        ..OpenOptions::default()
    };
    let disk = Disk::open(path, &options);
    std::fs::remove_file(path).ok();
    let disk = disk.map_err(|error| {
        let hint = error.hint();
        cannot().from_error(&error).hint(hint)
    })?;
    Ok(Arc::new(disk))
}
