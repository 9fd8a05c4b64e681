//! Agreeing on a session's keys: one short TLS 1.3 connection with certificates on both sides.
//!
//! ```text
//! initiator                                  responder
//!     | ---- TLS 1.3 handshake, mutual -------> |
//!     | ---- hello: version, features --------> |
//!     | <--- verdict, version, features ------- |
//!     both export: session id, key there, key back (RFC 8446 §7.5)
//! ```
//! The exporter's secret depends on fresh values of both sides, so each handshake gives new keys and a new id, and a
//! restarted node never reuses a nonce. The connection is closed; the keys live in memory only.
//!
//! The functions block, up to their limit; call them where blocking is fine, and bound how many run at once.

use crate::pki::{PeerError, Tls};
use crate::seal::SessionKeys;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use wire::SessionId;
use wire::version::{CONTROL, Features};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const MAGIC: [u8; 4] = *b"BKHS";
const LABEL: &[u8] = b"EXPORTER-backstay-session";

/// What each side says inside the TLS connection.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Hello {
    magic: [u8; 4],
    version: U16,
    /// From the responder: 0 taken, else a [`Verdict`]; from the initiator 0.
    verdict: U16,
    compatible: U32,
    incompatible: U32,
}

/// Why a responder refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Taken = 0,
    NotConfigured = 1,
    Version = 2,
    Features = 3,
}

impl Hello {
    fn ours(verdict: Verdict) -> Self {
        let verdict = match verdict {
            Verdict::Taken => 0,
            Verdict::NotConfigured => 1,
            Verdict::Version => 2,
            Verdict::Features => 3,
        };
        Self {
            magic: MAGIC,
            version: U16::new(CONTROL),
            verdict: U16::new(verdict),
            compatible: U32::new(Features::OURS.compatible),
            incompatible: U32::new(Features::OURS.incompatible),
        }
    }

    const fn features(&self) -> Features {
        Features {
            compatible: self.compatible.get(),
            incompatible: self.incompatible.get(),
        }
    }
}

/// A handshake failed. The peer may be down, or not be who it should be: the text tells which.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// No connection.
    #[error("cannot connect to {to}")]
    Connect {
        /// The peer's control port.
        to: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The limit ran out.
    #[error("the peer did not finish in time")]
    TimedOut,
    /// The peer went away.
    #[error("the peer closed the connection")]
    Closed,
    /// Certificates or protocol do not fit.
    #[error("TLS failed")]
    Tls(#[from] rustls::Error),
    /// The peer is not the node that was meant.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// Another node answered.
    #[error("{found} answered at the address of {expected}")]
    OtherPeer {
        /// Who was meant.
        expected: String,
        /// Who answered.
        found: String,
    },
    /// The peer does not list this node.
    #[error("the peer's configuration does not list this node")]
    NotWanted,
    /// The peer's release is too far away from this one.
    #[error("the peer speaks version {theirs}, this node {CONTROL}")]
    Version {
        /// Its version.
        theirs: u16,
    },
    /// One side needs a feature that the other lacks.
    #[error("the peer's features {bits:#x} do not fit")]
    Features {
        /// Its incompatible feature bits.
        bits: u32,
    },
    /// What came is not a hello.
    #[error("the peer's hello is malformed")]
    Malformed,
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
        let kind = error.kind();
        if matches!(kind, WouldBlock | TimedOut) {
            return Self::TimedOut;
        }
        if matches!(kind, UnexpectedEof | ConnectionReset | BrokenPipe) {
            return Self::Closed;
        }
        match error.downcast::<rustls::Error>() {
            Ok(tls) => Self::Tls(tls),
            Err(error) => Self::Io(error),
        }
    }
}

/// Connects to `peer` at `to` and agrees on keys, within `limit`.
///
/// # Errors
/// [`HandshakeError`].
pub fn initiate(
    tls: &Tls,
    peer: &str,
    to: SocketAddr,
    limit: Duration,
) -> Result<SessionKeys, HandshakeError> {
    let deadline = Deadline::after(limit);
    let socket = TcpStream::connect_timeout(&to, limit)
        .map_err(|source| HandshakeError::Connect { to, source })?;
    let mut channel = Channel::new(socket, tls.connect(peer)?.into(), deadline)?;
    channel.shake_hands()?;
    channel.send(&Hello::ours(Verdict::Taken))?;
    let found = tls.peer_of(&channel.tls)?;
    if found != peer {
        return Err(HandshakeError::OtherPeer {
            expected: peer.to_owned(),
            found,
        });
    }
    let answer = channel.receive()?;
    match answer.verdict.get() {
        0 => {}
        1 => return Err(HandshakeError::NotWanted),
        2 => {
            return Err(HandshakeError::Version {
                theirs: answer.version.get(),
            });
        }
        3 => {
            return Err(HandshakeError::Features {
                bits: answer.incompatible.get(),
            });
        }
        _ => return Err(HandshakeError::Malformed),
    }
    if !answer.features().understood() {
        return Err(HandshakeError::Features {
            bits: answer.incompatible.get(),
        });
    }
    let keys = Exported::from(&channel.tls)?;
    Ok(SessionKeys::new(keys.id, found, keys.there, keys.back))
}

/// Answers a connection to the control port and agrees on keys, within `limit`.
///
/// # Errors
/// [`HandshakeError`].
pub fn answer(
    tls: &Tls,
    socket: TcpStream,
    limit: Duration,
) -> Result<SessionKeys, HandshakeError> {
    let mut channel = Channel::new(socket, tls.accept()?.into(), Deadline::after(limit))?;
    channel.shake_hands()?;
    let peer = match tls.peer_of(&channel.tls) {
        Ok(peer) => peer,
        Err(refused) => {
            channel.send(&Hello::ours(Verdict::NotConfigured)).ok();
            return Err(refused.into());
        }
    };
    let hello = channel.receive()?;
    if hello.version.get() != CONTROL {
        channel.send(&Hello::ours(Verdict::Version)).ok();
        return Err(HandshakeError::Version {
            theirs: hello.version.get(),
        });
    }
    if !hello.features().understood() {
        channel.send(&Hello::ours(Verdict::Features)).ok();
        return Err(HandshakeError::Features {
            bits: hello.incompatible.get(),
        });
    }
    let keys = Exported::from(&channel.tls)?;
    channel.send(&Hello::ours(Verdict::Taken))?;
    Ok(SessionKeys::new(keys.id, peer, keys.back, keys.there))
}

/// What both sides derive alike.
struct Exported {
    id: SessionId,
    /// Initiator to responder.
    there: [u8; 32],
    /// Responder to initiator.
    back: [u8; 32],
}

impl Exported {
    fn from(tls: &rustls::Connection) -> Result<Self, rustls::Error> {
        Ok(Self {
            id: SessionId(u64::from_le_bytes(export(tls, b"id")?)),
            there: export(tls, b"initiator to responder")?,
            back: export(tls, b"responder to initiator")?,
        })
    }
}

fn export<const N: usize>(
    tls: &rustls::Connection,
    context: &[u8],
) -> Result<[u8; N], rustls::Error> {
    tls.export_keying_material([0; N], LABEL, Some(context))
}

#[derive(Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    fn left(self) -> Result<Duration, HandshakeError> {
        let left = self.0.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(HandshakeError::TimedOut)
        } else {
            Ok(left)
        }
    }
}

/// A blocking TLS connection that ends at a deadline, however slowly the peer drips its bytes.
struct Channel {
    socket: TcpStream,
    tls: rustls::Connection,
    deadline: Deadline,
}

impl Channel {
    fn new(
        socket: TcpStream,
        tls: rustls::Connection,
        deadline: Deadline,
    ) -> Result<Self, HandshakeError> {
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        Ok(Self {
            socket,
            tls,
            deadline,
        })
    }

    fn shake_hands(&mut self) -> Result<(), HandshakeError> {
        while self.tls.is_handshaking() {
            self.write_pending()?;
            if self.tls.is_handshaking() {
                self.read_more()?;
            }
        }
        self.write_pending()
    }

    fn write_pending(&mut self) -> Result<(), HandshakeError> {
        while self.tls.wants_write() {
            self.socket.set_write_timeout(Some(self.deadline.left()?))?;
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    fn read_more(&mut self) -> Result<(), HandshakeError> {
        self.socket.set_read_timeout(Some(self.deadline.left()?))?;
        if self.tls.read_tls(&mut self.socket)? == 0 {
            return Err(HandshakeError::Closed);
        }
        if let Err(refused) = self.tls.process_new_packets() {
            // The alert tells the peer why; it may be gone already.
            self.write_pending().ok();
            return Err(refused.into());
        }
        Ok(())
    }

    fn send(&mut self, hello: &Hello) -> Result<(), HandshakeError> {
        self.tls.writer().write_all(hello.as_bytes())?;
        self.write_pending()
    }

    fn receive(&mut self) -> Result<Hello, HandshakeError> {
        let mut bytes = [0; size_of::<Hello>()];
        let mut done = 0;
        while done < bytes.len() {
            match self.tls.reader().read(&mut bytes[done..]) {
                Ok(0) => return Err(HandshakeError::Closed),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.read_more()?,
                Err(e) => return Err(e.into()),
            }
        }
        let hello = Hello::read_from_bytes(&bytes).map_err(|_| HandshakeError::Malformed)?;
        if hello.magic != MAGIC {
            return Err(HandshakeError::Malformed);
        }
        Ok(hello)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Purpose, fixture::Cluster};
    use crate::seal::PeerSessions;
    use std::net::TcpListener;
    use std::thread;

    const LIMIT: Duration = Duration::from_secs(5);

    type Agreed = Result<SessionKeys, HandshakeError>;

    fn meet(initiator: &Tls, responder: Tls, peer: &str) -> (Agreed, Agreed) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let answering =
            thread::spawn(move || answer(&responder, listener.accept().unwrap().0, LIMIT));
        (
            initiate(initiator, peer, to, LIMIT),
            answering.join().unwrap(),
        )
    }

    #[test]
    fn two_nodes_agree_on_fresh_keys_each_time() {
        let lab = Cluster::new("handshake-good", "lab");
        let (a, b) = (
            lab.tls("node-a", Purpose::Session),
            lab.tls("node-b", Purpose::Session),
        );
        let (there, here) = meet(&a, b.clone(), "node-b");
        let (there, here) = (there.unwrap(), here.unwrap());
        assert_eq!(
            (there.peer.as_str(), here.peer.as_str()),
            ("node-b", "node-a")
        );
        assert_eq!(there.id, here.id);
        let (mut sends, mut opens) = (PeerSessions::new(), PeerSessions::new());
        sends.install(&there);
        opens.install(&here);
        assert_eq!(
            opens.open(&mut sends.seal(b"beat").unwrap()).unwrap(),
            b"beat"
        );
        assert_eq!(
            sends.open(&mut opens.seal(b"back").unwrap()).unwrap(),
            b"back"
        );
        let (again, _) = meet(&a, b, "node-b");
        assert_ne!(again.unwrap().id, there.id);
    }

    #[test]
    fn another_clusters_certificate_is_refused_by_both_sides() {
        let ours = Cluster::new("handshake-ours", "lab");
        let theirs = Cluster::new("handshake-theirs", "lab");
        let a = ours.tls("node-a", Purpose::Session);
        let b = theirs.tls("node-b", Purpose::Session);
        let (there, here) = meet(&a, b, "node-b");
        assert!(matches!(there, Err(HandshakeError::Tls(_))), "{there:?}");
        assert!(matches!(here, Err(HandshakeError::Tls(_))), "{here:?}");
    }

    #[test]
    fn a_node_that_is_not_configured_is_told_so() {
        let lab = Cluster::new("handshake-stranger", "lab");
        let stranger = lab.tls("node-x", Purpose::Session);
        let (there, here) = meet(&stranger, lab.tls("node-b", Purpose::Session), "node-b");
        assert!(matches!(there, Err(HandshakeError::NotWanted)), "{there:?}");
        let refused = here.unwrap_err().to_string();
        assert_eq!(refused, "node node-x is not a configured peer");
    }

    #[test]
    fn a_node_at_anothers_address_is_refused() {
        let lab = Cluster::new("handshake-swapped", "lab");
        let a = lab.tls("node-a", Purpose::Session);
        let (there, _) = meet(&a, lab.tls("node-c", Purpose::Session), "node-b");
        assert!(matches!(there, Err(HandshakeError::Tls(_))), "{there:?}");
    }

    #[test]
    fn a_mirror_connection_cannot_pass_for_a_session() {
        let lab = Cluster::new("handshake-purpose", "lab");
        let a = lab.tls("node-a", Purpose::Mirror);
        let (there, here) = meet(&a, lab.tls("node-b", Purpose::Session), "node-b");
        assert!(there.is_err() && here.is_err());
    }

    #[test]
    fn a_silent_or_babbling_client_ends_at_the_limit() {
        let lab = Cluster::new("handshake-silent", "lab");
        let b = lab.tls("node-b", Purpose::Session);
        for words in [
            b"".as_slice(),
            b"GET / HTTP/1.0\r\n\r\n",
            &[0x16, 3, 1, 0xff, 0xff],
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.write_all(words).unwrap();
            let started = Instant::now();
            let limit = Duration::from_millis(200);
            assert!(answer(&b, listener.accept().unwrap().0, limit).is_err());
            assert!(started.elapsed() < Duration::from_secs(2));
        }
    }
}
