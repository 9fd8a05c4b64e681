//! The mirror's connection for a single-threaded reactor: never blocks, plain or TLS 1.3, bounded in memory.
//!
//! ```text
//! Connecting -> Handshaking -> Ready      (plain streams skip Handshaking; accepted ones skip Connecting)
//! ```
//! On any readiness of the socket the reactor calls [`MirrorStream::read_into`] until it says `WouldBlock` and then
//! [`MirrorStream::flush`]; both carry connecting and the handshake forward. [`MirrorStream::interest`] says what to poll
//! for next. Time limits are the reactor's: it drops a stream that is not ready in time.

mod socket;

use socket::{is_connected, start_connect, tune};

use crate::pki::{PeerError, Tls};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Most bytes that wait in a stream's own queue. [`MirrorStream::queue`] refuses beyond it: the engine then stops taking
/// work until [`MirrorStream::pending`] went down. Holds what 64 requests of 256 KiB carry.
pub const QUEUE_MAX: usize = 16 * 1024 * 1024;

/// How much plaintext is handed to TLS at once, in bytes: four records.
const TLS_STEP: usize = 64 * 1024;

/// How the socket is tuned.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Sent data that is not acknowledged for so long ends the connection (`TCP_USER_TIMEOUT`).
    pub user_timeout: Duration,
    /// An idle connection is probed after so long, and then every so often (whole seconds, at least 1).
    pub keepalive: Duration,
    /// Size of the kernel's send and receive buffers, in bytes each; 0 leaves them to the kernel.
    pub buffer_bytes: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            user_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(1),
            buffer_bytes: 4 * 1024 * 1024,
        }
    }
}

/// The stream is broken: drop it.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// No connection.
    #[error("cannot connect to {to}")]
    Connect {
        /// The peer's mirror port.
        to: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Certificates or protocol do not fit.
    #[error("TLS failed")]
    Tls(#[from] rustls::Error),
    /// This end expects TLS, the peer speaks plain.
    #[error("the peer does not speak TLS; set the same `tls` on both nodes")]
    PlainPeer,
    /// This end expects plain, the peer speaks TLS.
    #[error("the peer speaks TLS; set the same `tls` on both nodes")]
    TlsPeer,
    /// The peer is not the node that was meant.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The queue has no room for these bytes; nothing of them was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pending} bytes wait to be sent already, {bytes} more do not fit")]
pub struct QueueFull {
    /// Bytes that wait.
    pub pending: usize,
    /// Bytes that were offered.
    pub bytes: usize,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing for the moment.
    WouldBlock,
    /// The peer ended the stream. Frames tell whether it was in the middle of one.
    Closed,
}

/// What a flush left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// All is in the kernel's hands.
    All,
    /// The kernel's buffer is full, or the stream is not ready yet: go on when it is writable.
    WouldBlock,
}

/// What to poll the socket for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Readable.
    pub readable: bool,
    /// Writable.
    pub writable: bool,
}

/// How far the stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// TCP is connecting.
    Connecting,
    /// TLS is negotiating.
    Handshaking,
    /// Data flows.
    Ready,
}

#[derive(Debug)]
enum Layer {
    Plain { first_read: bool },
    Tls(Box<TlsLayer>),
}

#[derive(Debug)]
struct TlsLayer {
    connection: rustls::Connection,
    tls: Tls,
    /// Plaintext bytes that TLS took and that are not all written out yet.
    taken: usize,
}

/// One connection between two mirror engines.
#[derive(Debug)]
pub struct MirrorStream {
    socket: TcpStream,
    remote: SocketAddr,
    layer: Layer,
    phase: Phase,
    /// Bytes that neither TLS nor the kernel took. Invariant: at most [`QUEUE_MAX`].
    outgoing: VecDeque<u8>,
    peer: Option<String>,
}

impl MirrorStream {
    /// Starts to connect to `to`, from the address `from` if given. `tls` holds the configuration and the peer's name; none
    /// means a plain stream. Returns at once.
    ///
    /// # Errors
    /// [`StreamError::Connect`] if the system refuses at once; later failures come from reading and flushing.
    pub fn connect(
        to: SocketAddr,
        from: Option<IpAddr>,
        tls: Option<(&Tls, &str)>,
        tuning: Tuning,
    ) -> Result<Self, StreamError> {
        let socket = start_connect(to, from, tuning)
            .map_err(|source| StreamError::Connect { to, source })?;
        let layer = match tls {
            None => Layer::plain(),
            Some((tls, peer)) => Layer::tls(tls, tls.connect(peer)?.into()),
        };
        Ok(Self::new(socket, to, layer, Phase::Connecting))
    }

    /// Takes an accepted connection; `tls` none means a plain stream.
    ///
    /// # Errors
    /// [`StreamError`] if the socket cannot be set up.
    pub fn accept(
        socket: TcpStream,
        tls: Option<&Tls>,
        tuning: Tuning,
    ) -> Result<Self, StreamError> {
        socket.set_nonblocking(true)?;
        tune(&socket, tuning)?;
        let remote = socket.peer_addr()?;
        let (layer, phase) = match tls {
            None => (Layer::plain(), Phase::Ready),
            Some(tls) => (Layer::tls(tls, tls.accept()?.into()), Phase::Handshaking),
        };
        Ok(Self::new(socket, remote, layer, phase))
    }

    const fn new(socket: TcpStream, remote: SocketAddr, layer: Layer, phase: Phase) -> Self {
        Self {
            socket,
            remote,
            layer,
            phase,
            outgoing: VecDeque::new(),
            peer: None,
        }
    }

    /// How far the stream is.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The peer's node name, verified by its certificate. None before [`Phase::Ready`], and always on plain streams.
    #[must_use]
    pub fn peer(&self) -> Option<&str> {
        self.peer.as_deref()
    }

    /// True if TLS is between the two ends.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        matches!(self.layer, Layer::Tls(_))
    }

    /// The peer's address.
    #[must_use]
    pub const fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Bytes that were queued and that the kernel has not taken.
    #[must_use]
    pub fn pending(&self) -> usize {
        let taken = match &self.layer {
            Layer::Plain { .. } => 0,
            Layer::Tls(layer) => layer.taken,
        };
        self.outgoing.len() + taken
    }

    /// What to poll the socket for now.
    #[must_use]
    pub fn interest(&self) -> Interest {
        let writable = match (self.phase, &self.layer) {
            (Phase::Connecting, _) => true,
            (Phase::Handshaking, Layer::Tls(layer)) => layer.connection.wants_write(),
            (Phase::Ready, Layer::Tls(layer)) => {
                layer.connection.wants_write() || !self.outgoing.is_empty()
            }
            (_, Layer::Plain { .. }) => !self.outgoing.is_empty(),
        };
        Interest {
            readable: self.phase != Phase::Connecting,
            writable,
        }
    }

    /// Puts bytes at the end of the queue; [`MirrorStream::flush`] sends them.
    ///
    /// # Errors
    /// [`QueueFull`]: nothing was taken.
    pub fn queue(&mut self, bytes: &[u8]) -> Result<(), QueueFull> {
        if self.outgoing.len() + bytes.len() > QUEUE_MAX {
            return Err(QueueFull {
                pending: self.pending(),
                bytes: bytes.len(),
            });
        }
        self.outgoing.extend(bytes);
        Ok(())
    }

    /// Hands pieces over in order, as far as TLS or the kernel takes them now; how many bytes they took. Nothing waits here:
    /// what was not taken is to be offered again when the stream is writable.
    ///
    /// # Errors
    /// [`StreamError`]: drop the stream.
    pub fn send(&mut self, pieces: &[IoSlice<'_>]) -> Result<usize, StreamError> {
        // What was queued goes first.
        if self.flush()? == Flushed::WouldBlock {
            return Ok(0);
        }
        match &mut self.layer {
            Layer::Plain { .. } => send_plain(&mut self.socket, pieces),
            Layer::Tls(layer) => {
                layer.taken = layer.connection.writer().write_vectored(pieces)?;
                let taken = layer.taken;
                if layer.write_out(&mut self.socket)? == Flushed::All {
                    layer.taken = 0;
                }
                Ok(taken)
            }
        }
    }

    /// Reads what is there into `buffer`, which must not be empty.
    ///
    /// # Errors
    /// [`StreamError`]: drop the stream.
    pub fn read_into(&mut self, buffer: &mut [u8]) -> Result<Received, StreamError> {
        if !self.is_ready_after_progress()? {
            return Ok(Received::WouldBlock);
        }
        match &mut self.layer {
            Layer::Plain { first_read } => read_plain(&mut self.socket, first_read, buffer),
            Layer::Tls(layer) => layer.read(&mut self.socket, buffer),
        }
    }

    /// Sends as much of the queue as the kernel takes.
    ///
    /// # Errors
    /// [`StreamError`]: drop the stream.
    pub fn flush(&mut self) -> Result<Flushed, StreamError> {
        if !self.is_ready_after_progress()? {
            return Ok(Flushed::WouldBlock);
        }
        match &mut self.layer {
            Layer::Plain { .. } => flush_plain(&mut self.socket, &mut self.outgoing),
            Layer::Tls(layer) => layer.flush(&mut self.socket, &mut self.outgoing),
        }
    }

    /// Says goodbye and closes the sending side, as far as that works at once.
    pub fn shutdown(&mut self) {
        if let Layer::Tls(layer) = &mut self.layer {
            layer.connection.send_close_notify();
            layer.write_out(&mut self.socket).ok();
        }
        self.socket.shutdown(std::net::Shutdown::Write).ok();
    }

    fn is_ready_after_progress(&mut self) -> Result<bool, StreamError> {
        if self.phase == Phase::Connecting {
            if !is_connected(&self.socket, self.remote)? {
                return Ok(false);
            }
            self.phase = match &self.layer {
                Layer::Plain { .. } => Phase::Ready,
                Layer::Tls(_) => Phase::Handshaking,
            };
        }
        if self.phase == Phase::Handshaking
            && let Layer::Tls(layer) = &mut self.layer
            && let Some(peer) = layer.shake_hands(&mut self.socket)?
        {
            self.peer = Some(peer);
            self.phase = Phase::Ready;
        }
        Ok(self.phase == Phase::Ready)
    }
}

impl AsFd for MirrorStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Layer {
    const fn plain() -> Self {
        Self::Plain { first_read: true }
    }

    fn tls(tls: &Tls, mut connection: rustls::Connection) -> Self {
        connection.set_buffer_limit(Some(TLS_STEP));
        Self::Tls(Box::new(TlsLayer {
            connection,
            tls: tls.clone(),
            taken: 0,
        }))
    }
}

impl TlsLayer {
    /// One round of the handshake; the peer's name when it is done.
    fn shake_hands(&mut self, socket: &mut TcpStream) -> Result<Option<String>, StreamError> {
        while self.connection.is_handshaking() {
            if self.write_out(socket)? == Flushed::WouldBlock {
                return Ok(None);
            }
            if !self.connection.is_handshaking() {
                break;
            }
            match self.read_in(socket)? {
                Received::Bytes(_) => {}
                Received::WouldBlock => return Ok(None),
                Received::Closed => return Err(closed().into()),
            }
        }
        self.write_out(socket)?;
        Ok(Some(self.tls.peer_of(&self.connection)?))
    }

    fn read(&mut self, socket: &mut TcpStream, buffer: &mut [u8]) -> Result<Received, StreamError> {
        loop {
            match self.connection.reader().read(buffer) {
                Ok(0) => return Ok(Received::Closed),
                Ok(n) => return Ok(Received::Bytes(n)),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Received::Closed),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
            if self.read_in(socket)? == Received::WouldBlock {
                return Ok(Received::WouldBlock);
            }
        }
    }

    fn flush(
        &mut self,
        socket: &mut TcpStream,
        outgoing: &mut VecDeque<u8>,
    ) -> Result<Flushed, StreamError> {
        loop {
            if self.write_out(socket)? == Flushed::WouldBlock {
                return Ok(Flushed::WouldBlock);
            }
            self.taken = 0;
            let (front, _) = outgoing.as_slices();
            if front.is_empty() {
                return Ok(Flushed::All);
            }
            let step = &front[..front.len().min(TLS_STEP)];
            self.taken = self.connection.writer().write(step)?;
            outgoing.drain(..self.taken);
        }
    }

    fn write_out(&mut self, socket: &mut TcpStream) -> Result<Flushed, StreamError> {
        while self.connection.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(0) => return Err(closed().into()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Flushed::WouldBlock),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(Flushed::All)
    }

    /// Moves bytes from the socket into TLS.
    fn read_in(&mut self, socket: &mut TcpStream) -> Result<Received, StreamError> {
        let read = match self.connection.read_tls(socket) {
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Received::WouldBlock),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(Received::Bytes(0)),
            Err(e) => return Err(e.into()),
        };
        if let Err(refused) = self.connection.process_new_packets() {
            // The alert tells the peer why; it may be gone already.
            self.write_out(socket).ok();
            let first = self.connection.is_handshaking();
            if first && matches!(refused, rustls::Error::InvalidMessage(_)) {
                return Err(StreamError::PlainPeer);
            }
            return Err(refused.into());
        }
        Ok(if read == 0 {
            Received::Closed
        } else {
            Received::Bytes(read)
        })
    }
}

fn closed() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the peer closed the connection",
    )
}

fn read_plain(
    socket: &mut TcpStream,
    first_read: &mut bool,
    buffer: &mut [u8],
) -> Result<Received, StreamError> {
    loop {
        match socket.read(buffer) {
            Ok(0) => return Ok(Received::Closed),
            Ok(n) => {
                // A TLS record of type handshake (RFC 8446 §5.1); no frame of ours starts with its first byte.
                if std::mem::take(first_read) && buffer[0] == 0x16 {
                    return Err(StreamError::TlsPeer);
                }
                return Ok(Received::Bytes(n));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Received::WouldBlock),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
}

const _: () = assert!(wire::mirror_frame::MAGIC[0] != 0x16);

fn send_plain(socket: &mut TcpStream, pieces: &[IoSlice<'_>]) -> Result<usize, StreamError> {
    loop {
        match socket.write_vectored(pieces) {
            Ok(0) => return Err(closed().into()),
            Ok(n) => return Ok(n),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn flush_plain(
    socket: &mut TcpStream,
    outgoing: &mut VecDeque<u8>,
) -> Result<Flushed, StreamError> {
    while !outgoing.is_empty() {
        let (front, back) = outgoing.as_slices();
        match socket.write_vectored(&[IoSlice::new(front), IoSlice::new(back)]) {
            Ok(0) => return Err(closed().into()),
            Ok(n) => drop(outgoing.drain(..n)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Flushed::WouldBlock),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Flushed::All)
}

#[cfg(test)]
mod tests;
