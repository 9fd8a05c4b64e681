//! Sealed datagrams over every heartbeat link, and the handshakes that give them their keys.

use crate::config::model::Config;
use crate::failure::Failure;
use crate::run::daemon::{Event, Events};
use host::handshake;
use host::pki::Tls;
use host::seal::{OpenError, PeerSessions, SessionKeys};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tokio::net::UdpSocket;
use wire::control::{Datagram, LinkId};
use wire::{NodeId, Time};

/// Longest handshake; most of it is waiting for a peer that is gone.
const HANDSHAKE_LIMIT: Duration = Duration::from_millis(300);
/// Between two handshakes with one peer.
const HANDSHAKE_PAUSE: Duration = Duration::from_millis(50);
/// Handshakes answered at a time; more wait in the kernel's backlog.
const ANSWERS_MAX: usize = 8;

/// All links of this node.
#[derive(Debug)]
pub(super) struct Links {
    sockets: Vec<Arc<UdpSocket>>,
    peers: BTreeMap<NodeId, Peer>,
    tls: Arc<Tls>,
    events: Events,
    /// Datagrams that were not authentic or not parseable; for the log.
    pub(super) refused: u64,
}

#[derive(Debug)]
struct Peer {
    name: String,
    /// Per link.
    heartbeat: Vec<SocketAddr>,
    /// Control port, per link.
    control: Vec<SocketAddr>,
    sessions: PeerSessions,
    /// A handshake is wanted although a session exists: the peer sent with a key unknown here.
    unknown_key: bool,
    shaking: bool,
    next_try: Time,
    tries: usize,
}

impl Links {
    /// Binds this node's addresses and begins to listen.
    pub(super) async fn open(
        config: &Config,
        me: NodeId,
        tls: Arc<Tls>,
        events: Events,
    ) -> Result<Self, Failure> {
        let own = config
            .node(me)
            .map(|node| node.heartbeat.clone())
            .unwrap_or_default();
        let mut sockets = Vec::new();
        for (index, ip) in (0..).zip(&own) {
            let at = SocketAddr::new(*ip, config.ports.heartbeat);
            let socket = UdpSocket::bind(at).await.map_err(|e| cannot_bind(at, &e))?;
            let socket = Arc::new(socket);
            tokio::spawn(receive(Arc::clone(&socket), LinkId(index), events.clone()));
            sockets.push(socket);
            listen(*ip, config.ports.control, &tls, &events)?;
        }
        let peers = config.nodes_by_id().filter(|(id, _)| *id != me);
        let peers = peers
            .map(|(id, node)| {
                let at = |port| {
                    node.heartbeat
                        .iter()
                        .map(move |ip| SocketAddr::new(*ip, port))
                };
                let peer = Peer {
                    name: node.name.clone(),
                    heartbeat: at(config.ports.heartbeat).collect(),
                    control: at(config.ports.control).collect(),
                    sessions: PeerSessions::new(),
                    unknown_key: false,
                    shaking: false,
                    next_try: Time::ZERO,
                    tries: 0,
                };
                (id, peer)
            })
            .collect();
        Ok(Self {
            sockets,
            peers,
            tls,
            events,
            refused: 0,
        })
    }

    /// Sends a datagram on one link, if there is a session. Whatever goes wrong is a lost datagram.
    pub(super) fn send(&mut self, to: NodeId, link: LinkId, datagram: &Datagram) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        let Some(payload) = datagram.encode() else {
            tracing::warn!(?to, "a datagram was too long to send");
            return;
        };
        let index = usize::from(link.0);
        let (Some(socket), Some(at)) = (self.sockets.get(index), peer.heartbeat.get(index)) else {
            return;
        };
        if let Ok(sealed) = peer.sessions.seal(&payload) {
            socket.try_send_to(&sealed, *at).ok();
        }
    }

    /// Opens what came in. None for everything that is not an authentic datagram of the peer that sealed it.
    pub(super) fn open_datagram(&mut self, bytes: &mut [u8], from: IpAddr) -> Option<Datagram> {
        let key = host::seal::key_of(bytes).ok()?;
        let Some((id, peer)) = self.peers.iter_mut().find(|(_, p)| p.sessions.knows(key)) else {
            let sender = self
                .peers
                .values_mut()
                .find(|p| p.heartbeat.iter().any(|a| a.ip() == from));
            if let Some(sender) = sender {
                sender.unknown_key = true;
            }
            return None;
        };
        let payload = match peer.sessions.open(bytes) {
            Ok(payload) => payload,
            Err(OpenError::Replayed) => return None,
            Err(_) => {
                self.refused += 1;
                return None;
            }
        };
        match Datagram::decode(payload) {
            Ok(datagram) if datagram.from == *id => Some(datagram),
            Ok(_) | Err(_) => {
                self.refused += 1;
                None
            }
        }
    }

    /// A handshake ended well: its keys are used from now on.
    pub(super) fn install(&mut self, keys: &SessionKeys) {
        if let Some(peer) = self.peers.values_mut().find(|peer| peer.name == keys.peer) {
            peer.sessions.install(keys);
            peer.unknown_key = false;
            peer.tries = 0;
        }
    }

    /// An own handshake with this peer ended, well or not.
    pub(super) fn shaken(&mut self, with: NodeId) {
        if let Some(peer) = self.peers.get_mut(&with) {
            peer.shaking = false;
        }
    }

    /// Begins the handshakes that are due; answers with the time of the next one.
    pub(super) fn drive(&mut self, now: Time) -> Time {
        let mut next = Time::MAX;
        for (id, peer) in &mut self.peers {
            let wanted = !peer.sessions.ready() || peer.unknown_key;
            if !wanted || peer.shaking {
                continue;
            }
            if now < peer.next_try {
                next = next.min(peer.next_try);
                continue;
            }
            peer.next_try = now + HANDSHAKE_PAUSE;
            peer.shaking = true;
            let at = peer.control[peer.tries % peer.control.len()];
            peer.tries += 1;
            shake(
                *id,
                peer.name.clone(),
                at,
                Arc::clone(&self.tls),
                self.events.clone(),
            );
        }
        next
    }
}

fn cannot_bind(at: SocketAddr, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot listen on {at}"))
        .cause(error)
        .hint("check that the address is this machine's and that no other daemon runs")
}

async fn receive(socket: Arc<UdpSocket>, link: LinkId, events: Events) {
    let mut buffer = [0; 2048];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => {
                let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                if events
                    .send(Event::Datagram {
                        link,
                        from: from.ip(),
                        bytes,
                    })
                    .is_err()
                {
                    return;
                }
            }
            // An ICMP answer to an earlier datagram: the peer's port is closed. It is no end of the link.
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

fn shake(with: NodeId, name: String, at: SocketAddr, tls: Arc<Tls>, events: Events) {
    tokio::task::spawn_blocking(move || {
        match handshake::initiate(&tls, &name, at, HANDSHAKE_LIMIT) {
            Ok(keys) => drop(events.send(Event::Session(keys))),
            Err(error) => tracing::debug!(peer = name, %error, "no session yet"),
        }
        events.send(Event::Shaken { with }).ok();
    });
}

/// Answers handshakes on one address. Each runs in a thread of its own, a bounded number at a time.
fn listen(ip: IpAddr, port: u16, tls: &Arc<Tls>, events: &Events) -> Result<(), Failure> {
    let at = SocketAddr::new(ip, port);
    let listener = TcpListener::bind(at).map_err(|e| cannot_bind(at, &e))?;
    let (tls, events) = (Arc::clone(tls), events.clone());
    let running = Arc::new(AtomicUsize::new(0));
    let work = move || {
        for socket in listener.incoming().flatten() {
            while running.load(Ordering::Acquire) >= ANSWERS_MAX {
                thread::sleep(Duration::from_millis(1));
            }
            running.fetch_add(1, Ordering::AcqRel);
            let (tls, events, running) = (Arc::clone(&tls), events.clone(), Arc::clone(&running));
            let answer = move || {
                answer(&tls, socket, &events);
                running.fetch_sub(1, Ordering::AcqRel);
            };
            if thread::Builder::new()
                .name("handshake".into())
                .spawn(answer)
                .is_err()
            {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("handshakes".into()).spawn(work);
    thread
        .map(drop)
        .map_err(|e| Failure::new("cannot start the handshake thread").cause(e))
}

fn answer(tls: &Tls, socket: TcpStream, events: &Events) {
    match handshake::answer(tls, socket, HANDSHAKE_LIMIT) {
        Ok(keys) => drop(events.send(Event::Session(keys))),
        Err(error) => tracing::debug!(%error, "a handshake failed"),
    }
}
