//! A [`Connection`] on a non-blocking Unix socket.

use super::REQUESTS_MAX;
use super::connection::{Closed, Connection, Event};
use super::handshake::{Export, Offer};
use super::proto::ErrorCode;
use super::request::{Kind, Request};
use crate::disk::Extent;
use crate::ring::{Buf, Frozen, Interest};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// Bytes that one read takes off the socket.
const CHUNK: usize = 256 << 10;

/// Payload of the requests in work, in bytes; more requests wait in the socket.
const BYTES_IN_WORK_MAX: u64 = 64 << 20;

/// Pieces that one system call sends.
const PIECES_MAX: usize = 64;

/// What a client wants from the engine.
#[derive(Debug)]
pub enum Incoming {
    /// Negotiation is over.
    Ready,
    /// A request, with the payload of a write.
    Request(Request, Option<Buf>),
    /// The end: answer what is in work, flush, and drop the stream.
    Closed(Closed),
}

#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    Payload(Frozen),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Payload(payload) => payload,
        }
    }
}

/// A write whose payload is arriving.
#[derive(Debug)]
struct Arriving {
    request: Request,
    buf: Buf,
    filled: usize,
}

/// A client.
///
/// When [`Stream::interest`] is met, and after replies were given, call [`Stream::take`] until it has nothing, then
/// [`Stream::flush`].
#[derive(Debug)]
pub struct Stream {
    socket: UnixStream,
    connection: Connection,
    chunk: Box<[u8]>,
    arriving: Option<Arriving>,
    pieces: VecDeque<Piece>,
    /// A sent piece's memory, for the next one.
    spare: Vec<u8>,
    /// Bytes of the first piece that are sent.
    sent: usize,
    in_work: usize,
    bytes_in_work: u64,
    /// The last read brought less than it could: the socket is empty until it says otherwise.
    drained: bool,
    ended: bool,
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Stream {
    /// Takes over an accepted socket.
    ///
    /// # Errors
    /// When the socket cannot be made non-blocking.
    pub fn new(socket: UnixStream, offer: Offer) -> io::Result<Self> {
        Self::over(socket, Connection::new(offer))
    }

    /// Serves a client that needs no negotiation: the kernel's.
    ///
    /// # Errors
    /// As for [`Stream::new`].
    pub fn negotiated(socket: UnixStream, export: Export) -> io::Result<Self> {
        Self::over(socket, Connection::negotiated(export))
    }

    fn over(socket: UnixStream, connection: Connection) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            connection,
            chunk: vec![0; CHUNK].into_boxed_slice(),
            arriving: None,
            pieces: VecDeque::new(),
            spare: Vec::new(),
            sent: 0,
            in_work: 0,
            bytes_in_work: 0,
            drained: false,
            ended: false,
        })
    }

    /// A second handle on the socket, for the ring to poll.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn try_clone_socket(&self) -> io::Result<UnixStream> {
        self.socket.try_clone()
    }

    /// Requests that were taken and not answered.
    #[must_use]
    pub fn in_work(&self) -> usize {
        self.in_work
    }

    /// True if no more requests are taken until some are answered: what was read already may hold further ones.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.may_take()
    }

    /// What to wait for: input unless there is enough in work, output if some is left.
    #[must_use]
    pub fn interest(&self) -> Option<Interest> {
        match (self.may_take() && !self.ended, !self.pieces.is_empty()) {
            (true, true) => Some(Interest::BOTH),
            (true, false) => Some(Interest::READ),
            (false, true) => Some(Interest::WRITE),
            (false, false) => None,
        }
    }

    /// The next thing that the client wants; `None` when the socket has no more or enough is in work.
    ///
    /// # Errors
    /// When the socket fails; the stream is of no use then.
    pub fn take(&mut self) -> io::Result<Option<Incoming>> {
        while !self.ended && self.may_take() {
            if let Some(incoming) = self.poll() {
                return Ok(Some(incoming));
            }
            if std::mem::take(&mut self.drained) {
                break;
            }
            match self.receive() {
                Ok(0) => {
                    self.ended = true;
                    return Ok(Some(Incoming::Closed(Closed::Vanished)));
                }
                Ok(_) => {}
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) if why.kind() == io::ErrorKind::ConnectionReset => {
                    self.ended = true;
                    return Ok(Some(Incoming::Closed(Closed::Vanished)));
                }
                Err(why) => return Err(why),
            }
        }
        Ok(None)
    }

    /// Answers a request that has no data.
    pub fn done(&mut self, request: &Request) {
        self.finished(request);
        let header = self.connection.done(request.cookie);
        self.send_bytes(&header);
    }

    /// Answers a read; `data` has the length that was asked for.
    pub fn data(&mut self, request: &Request, data: Frozen) {
        self.finished(request);
        let Kind::Read { offset, len } = request.kind else {
            return;
        };
        let header = self
            .connection
            .data(request.cookie, offset, len)
            .into_bytes();
        self.send_bytes(&header);
        self.pieces.push_back(Piece::Payload(data));
    }

    /// Answers a block-status request.
    pub fn block_status(&mut self, request: &Request, extents: &[Extent]) {
        self.finished(request);
        let header = self
            .connection
            .block_status(request.cookie, extents)
            .into_bytes();
        self.send_bytes(&header);
    }

    /// Answers a request that failed.
    pub fn error(&mut self, request: &Request, error: ErrorCode, text: &str) {
        self.finished(request);
        let header = self.connection.error(request, error, text).into_bytes();
        self.send_bytes(&header);
    }

    /// Sends what there is; `true` when everything is sent.
    ///
    /// # Errors
    /// When the socket fails: the client is gone.
    pub fn flush(&mut self) -> io::Result<bool> {
        let output = self.connection.take_output();
        self.send_bytes(&output);
        while !self.pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let mut skip = self.sent;
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(&piece.bytes()[skip..]);
                skip = 0;
            }
            let count = self.pieces.len().min(PIECES_MAX);
            match self.socket.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.consume(count),
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        Ok(true)
    }

    fn may_take(&self) -> bool {
        self.in_work < REQUESTS_MAX && self.bytes_in_work < BYTES_IN_WORK_MAX
    }

    /// What the bytes at hand amount to.
    fn poll(&mut self) -> Option<Incoming> {
        if let Some(arriving) = &mut self.arriving {
            arriving.filled += self
                .connection
                .take_payload(&mut arriving.buf[arriving.filled..]);
            if self.connection.payload_left() > 0 {
                return None;
            }
        }
        if let Some(Arriving { request, buf, .. }) = self.arriving.take() {
            return Some(Incoming::Request(request, Some(buf)));
        }
        let event = self.connection.poll();
        let output = self.connection.take_output();
        self.send_bytes(&output);
        match event? {
            Event::Ready => Some(Incoming::Ready),
            Event::Closed(why) => {
                self.ended = true;
                Some(Incoming::Closed(why))
            }
            Event::Request(request) => {
                self.in_work += 1;
                self.bytes_in_work += payload_len(&request);
                let Kind::Write { len, .. } = request.kind else {
                    return Some(Incoming::Request(request, None));
                };
                let buf = Buf::new(usize::try_from(len).unwrap_or(0));
                self.arriving = Some(Arriving {
                    request,
                    buf,
                    filled: 0,
                });
                self.poll()
            }
        }
    }

    fn receive(&mut self) -> io::Result<usize> {
        if let Some(arriving) = &mut self.arriving {
            let room = &mut arriving.buf[arriving.filled..];
            let count = self.socket.read(room)?;
            self.drained = count < room.len();
            arriving.filled += count;
            self.connection.payload_received(count);
            return Ok(count);
        }
        let count = self.socket.read(&mut self.chunk)?;
        self.drained = count < self.chunk.len();
        self.connection.input(&self.chunk[..count]);
        Ok(count)
    }

    fn finished(&mut self, request: &Request) {
        self.in_work = self.in_work.saturating_sub(1);
        self.bytes_in_work = self.bytes_in_work.saturating_sub(payload_len(request));
    }

    fn send_bytes(&mut self, bytes: &[u8]) {
        match self.pieces.back_mut() {
            Some(Piece::Bytes(last)) => last.extend_from_slice(bytes),
            Some(Piece::Payload(_)) | None if bytes.is_empty() => {}
            Some(Piece::Payload(_)) | None => {
                let mut piece = std::mem::take(&mut self.spare);
                piece.extend_from_slice(bytes);
                self.pieces.push_back(Piece::Bytes(piece));
            }
        }
    }

    fn consume(&mut self, mut count: usize) {
        while let Some(piece) = self.pieces.front() {
            let left = piece.bytes().len() - self.sent;
            if count < left {
                self.sent += count;
                return;
            }
            count -= left;
            self.sent = 0;
            if let Some(Piece::Bytes(mut bytes)) = self.pieces.pop_front() {
                bytes.clear();
                self.spare = bytes;
            }
        }
    }
}

fn payload_len(request: &Request) -> u64 {
    match request.kind {
        Kind::Read { len, .. } | Kind::Write { len, .. } => u64::from(len),
        Kind::Flush | Kind::Trim { .. } | Kind::Zero { .. } | Kind::BlockStatus { .. } => 0,
    }
}
