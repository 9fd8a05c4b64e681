//! The FUSE file of the mirror: requests of the loop device on it.

use super::front::{Origin, Wanted};
use host::fuse::{Channel, Incoming, IoKind, IoRequest, Negotiated};
use host::ring::{Frozen, Interest, Ring, Watch};
use mirror::io::{Errno, Op};
use std::io;
use std::sync::{Arc, mpsc};
use wire::ByteRange;

/// The connection while there is one.
#[derive(Debug)]
pub(super) struct Front {
    channel: Channel,
    watch: Watch,
    token: u64,
    negotiated: mpsc::Sender<Negotiated>,
    /// Unmounted or broken: dropped when no completion is to come.
    ended: bool,
}

impl Front {
    pub(super) fn new(
        channel: Channel,
        token: u64,
        negotiated: mpsc::Sender<Negotiated>,
    ) -> io::Result<Self> {
        let watch = Watch::new(Arc::new(channel.try_clone_fd()?), token);
        Ok(Self {
            channel,
            watch,
            token,
            negotiated,
            ended: false,
        })
    }

    pub(super) const fn token(&self) -> u64 {
        self.token
    }

    /// The descriptor is ready: everything that the kernel wants, if there is room for it.
    pub(super) fn ready(&mut self, room: bool, wanted: &mut Vec<Wanted>) {
        self.watch.fired();
        while room && !self.ended {
            match self.channel.receive() {
                Ok(Some(Incoming::Io(request, payload))) => {
                    wanted.extend(self.translate(request, payload));
                }
                Ok(Some(Incoming::Ready(agreed))) => {
                    // Nobody keeps it when there is no keeper, as in tests.
                    self.negotiated.send(agreed).ok();
                }
                Ok(Some(Incoming::Unmounted)) => self.ended = true,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "the FUSE connection broke");
                    self.ended = true;
                }
            }
        }
    }

    fn translate(&self, request: IoRequest, payload: Option<host::ring::Buf>) -> Option<Wanted> {
        let (op, offset, len) = match request.kind {
            IoKind::Read { offset, len } => (Op::Read, offset, u64::from(len)),
            IoKind::Write { offset, len } => (Op::Write { fua: false }, offset, u64::from(len)),
            IoKind::Flush => (Op::Flush, 0, 0),
            IoKind::Zero { offset, len, .. } => (Op::Zero { fua: false }, offset, len),
        };
        if len == 0 && !matches!(op, Op::Flush) {
            let answered = match op {
                Op::Read => self
                    .channel
                    .data(&request, &host::ring::Buf::new(0).freeze()),
                Op::Write { .. } | Op::Zero { .. } | Op::Flush => self.channel.done(&request),
            };
            answered.ok();
            return None;
        }
        let range = ByteRange::new(offset, len)?;
        Some(Wanted {
            origin: Origin::Fuse { request },
            op,
            range,
            payload,
        })
    }

    /// Answers a request.
    pub(super) fn answer(
        &mut self,
        request: &IoRequest,
        result: Result<(), Errno>,
        data: Option<Frozen>,
    ) {
        let answered = match (result, data) {
            (Err(errno), _) => self
                .channel
                .error(request, &io::Error::from_raw_os_error(errno.0)),
            (Ok(()), Some(data)) if matches!(request.kind, IoKind::Read { .. }) => {
                self.channel.data(request, &data)
            }
            (Ok(()), _) => self.channel.done(request),
        };
        if let Err(error) = answered {
            tracing::warn!(%error, "an answer on the FUSE connection was lost");
            self.ended = true;
        }
    }

    /// The file has another size from now on.
    pub(super) fn resize(&mut self, size: u64) {
        if let Err(error) = self.channel.resize(size) {
            tracing::warn!(%error, "the kernel is not told of the volume's size");
        }
    }

    /// Waits for more. True when the connection is over and can be dropped.
    pub(super) fn turn(&mut self, ring: &mut Ring, room: bool) -> bool {
        if self.ended {
            self.watch.end(ring);
            return !self.watch.is_waiting();
        }
        self.watch.want(ring, room.then_some(Interest::READ));
        false
    }

    /// Gives the connection up.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }
}
