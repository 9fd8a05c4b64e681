//! Connections to the other replicas, and the frames on them.

use super::EngineConfig;
use super::buffers::Buffers;
use super::frames::{self, End, Frame, Reader};
use super::pack;
use host::pki::Tls;
use host::ring::{Descriptor, Frozen, Interest, Ring, Watch};
use host::tls::{MirrorStream, Phase, Tuning};
use mirror::io::{ConnId, Input, Payload, Side};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use wire::event::ReplicaLoss;
use wire::mirror_frame::{FLAG_RESYNC, HEADER_BYTES, Header, Kind};
use wire::{Duration, NodeId, SessionId, Time};

/// Connections that have not said who they are yet; more are refused.
const STRANGERS_MAX: usize = 8;
/// Longest connecting and negotiating.
const SETUP_LIMIT: Duration = Duration::from_millis(1_500);
/// Pieces of frames that one system call sends.
const PIECES_MAX: usize = 128;

/// Bytes that wait for a peer beyond which front ends are not read from: a peer that is being brought up to date, and is
/// not waited for by writes, must still be able to catch up.
const CONGESTED: usize = 4 << 20;
/// A congested connection on which nothing moves for so long is given up; front ends wait no longer for it.
const STALL_MAX: Duration = Duration::from_millis(1_000);
/// Bytes that wait for a peer that does not keep up; beyond it the connection is given up and the peer comes back by its
/// bitmap.
const BACKLOG_MAX: usize = 256 << 20;

/// Nobody waits for what an asynchronous mirror sends, so it is gathered: for this long at most. It counts as lag.
const GATHER_TIME: Duration = Duration::from_millis(1);
/// Bytes that are not gathered any further.
const GATHER_BYTES: usize = 64 << 10;

/// A frame to be sent.
#[derive(Debug)]
struct Outgoing {
    head: [u8; HEADER_BYTES],
    body: Body,
}

impl Outgoing {
    fn len(&self) -> usize {
        HEADER_BYTES + self.content().len()
    }

    fn content(&self) -> &[u8] {
        match &self.body {
            Body::None => &[],
            Body::Content(content) => content,
            Body::Bytes(bytes) => bytes,
        }
    }
}

impl Outgoing {
    /// Packs content of the volume if that saves something.
    fn pack(&mut self, header: &mut Header) {
        if let Body::Content(content) = &self.body
            && let Some(packed) = pack::pack(content)
            && let Ok(len) = u32::try_from(packed.len())
        {
            header.packed_len = len;
            self.body = Body::Bytes(packed);
        }
    }
}

/// What follows its header.
#[derive(Debug)]
enum Body {
    None,
    Content(Frozen),
    Bytes(Vec<u8>),
}

/// One connection.
#[derive(Debug)]
struct Conn {
    stream: MirrorStream,
    watch: Watch,
    reader: Reader,
    /// Known for those that this node dialled, and for all once they are ready.
    node: Option<NodeId>,
    dialed: bool,
    /// Told to the replica.
    announced: bool,
    opened: Time,
    backlog: VecDeque<Outgoing>,
    /// Bytes of the first frame that are sent.
    sent: usize,
    /// Invariant: bytes of all frames in the backlog, without those that are sent.
    backlog_bytes: usize,
    /// When a frame last left the backlog, or began to wait in an empty one.
    moved: Time,
    /// Further frames are gathered until then.
    gathering: Option<Time>,
    /// The replica gave it up: it goes when its backlog is sent.
    closing: bool,
    /// Nothing more is to be had; dropped when no completion is to come.
    dead: bool,
}

/// All connections.
#[derive(Debug)]
pub(super) struct Peers {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    compress: bool,
    /// Nobody waits for what these are sent.
    apart: BTreeSet<NodeId>,
    own_ip: IpAddr,
    nodes: BTreeMap<NodeId, (String, SocketAddr)>,
    conns: BTreeMap<u64, Conn>,
}

impl Peers {
    pub(super) fn new(config: &EngineConfig, listener: TcpListener) -> Self {
        Self {
            listener,
            tls: config.tls.clone(),
            compress: config.compress,
            apart: (config.peers.keys().copied())
                .filter(|node| !config.replica.waits_for(*node))
                .collect(),
            own_ip: config.own_ip(),
            nodes: config.peers.clone(),
            conns: BTreeMap::new(),
        }
    }

    /// True if the token is a connection's.
    pub(super) fn knows(&self, token: u64) -> bool {
        self.conns.contains_key(&token)
    }

    /// Takes waiting connections.
    pub(super) fn accept(&mut self, now: Time, mut token: impl FnMut() -> u64) {
        while let Ok((socket, _)) = self.listener.accept() {
            let strangers = self.conns.values().filter(|c| !c.announced).count();
            if strangers >= STRANGERS_MAX {
                continue;
            }
            match MirrorStream::accept(socket, self.tls.as_deref(), Tuning::default()) {
                Ok(stream) => drop(self.insert(token(), stream, None, now)),
                Err(error) => tracing::debug!(%error, "a mirror connection was refused"),
            }
        }
    }

    /// Dials a node. False if it cannot even be tried.
    pub(super) fn dial(&mut self, token: u64, node: NodeId, now: Time) -> bool {
        let Some((name, at)) = self.nodes.get(&node) else {
            return false;
        };
        let tls = self.tls.as_deref().map(|tls| (tls, name.as_str()));
        match MirrorStream::connect(*at, Some(self.own_ip), tls, Tuning::default()) {
            Ok(stream) => self.insert(token, stream, Some(node), now),
            Err(error) => {
                tracing::debug!(%error, "the mirror's peer cannot be dialled");
                false
            }
        }
    }

    fn insert(
        &mut self,
        token: u64,
        stream: MirrorStream,
        node: Option<NodeId>,
        opened: Time,
    ) -> bool {
        let Ok(fd) = stream.as_fd().try_clone_to_owned() else {
            return false;
        };
        let fd: Descriptor = Arc::new(fd);
        let conn = Conn {
            stream,
            watch: Watch::new(fd, token),
            reader: Reader::new(),
            node,
            dialed: node.is_some(),
            announced: false,
            opened,
            backlog: VecDeque::new(),
            sent: 0,
            backlog_bytes: 0,
            moved: opened,
            gathering: None,
            closing: false,
            dead: false,
        };
        self.conns.insert(token, conn);
        true
    }

    /// A connection's socket is ready.
    pub(super) fn fired(&mut self, token: u64) {
        if let Some(conn) = self.conns.get_mut(&token) {
            conn.watch.fired();
        }
    }

    /// The next input that a connection has for the replica. Call until none.
    pub(super) fn next_input(&mut self, token: u64, buffers: &mut Buffers) -> Option<Input> {
        let conn = self.conns.get_mut(&token)?;
        if conn.dead || conn.closing {
            return None;
        }
        if !conn.announced {
            return conn.announce(token, &self.nodes);
        }
        match conn.reader.next(&mut conn.stream) {
            Ok(Some(frame)) => Some(frame_input(token, frame, buffers)),
            Ok(None) => None,
            Err(end) => Some(conn.lost(token, &end)),
        }
    }

    /// Queues a frame. An all-zero chunk of a resync goes as a zero frame.
    pub(super) fn send(
        &mut self,
        conn: ConnId,
        mut header: Header,
        payload: Payload,
        buffers: &Buffers,
        now: Time,
    ) {
        let Some(conn) = self.conns.get_mut(&conn.0) else {
            return;
        };
        let mut body = match payload {
            Payload::None => Body::None,
            Payload::Buf(id) => buffers.content(id).map_or(Body::None, Body::Content),
            Payload::Bytes(bytes) => Body::Bytes(bytes),
        };
        let resync = header.kind == Kind::Write && header.flags & FLAG_RESYNC != 0;
        if let (true, Body::Content(content)) = (resync, &body)
            && content.iter().all(|byte| *byte == 0)
        {
            header.kind = Kind::Zero;
            header.payload_len = 0;
            body = Body::None;
        }
        let mut frame = Outgoing {
            head: [0; HEADER_BYTES],
            body,
        };
        header.payload_crc = match frame.content() {
            [] => 0,
            content => crc32c::crc32c(content),
        };
        if self.compress {
            frame.pack(&mut header);
        }
        frame.head = header.encode();
        let apart = conn.node.is_some_and(|node| self.apart.contains(&node));
        let urgent = !apart || resync || !can_be_gathered(header.kind);
        conn.push(frame, urgent, now);
    }

    /// The replica gave a connection up.
    pub(super) fn disconnect(&mut self, conn: ConnId) {
        if let Some(conn) = self.conns.get_mut(&conn.0) {
            conn.closing = true;
        }
    }

    /// Sends what there is, gives up what takes too long, and waits for more. Once per turn of the loop. Answers with what
    /// the replica must hear of.
    pub(super) fn turn(&mut self, ring: &mut Ring, now: Time) -> Vec<Input> {
        let mut inputs = Vec::new();
        for (token, conn) in &mut self.conns {
            inputs.extend(conn.turn(*token, ring, now));
        }
        self.conns.retain(|_, c| !c.dead || c.watch.is_waiting());
        inputs
    }

    /// True while front ends must wait for a peer.
    pub(super) fn congested(&self) -> bool {
        self.conns
            .values()
            .any(|c| !c.dead && c.backlog_bytes > CONGESTED)
    }

    /// When a connection that is being set up is given up, or what was gathered is sent.
    pub(super) fn deadline(&self) -> Option<Time> {
        let alive = self.conns.values().filter(|c| !c.dead);
        alive.filter_map(Conn::deadline).min()
    }
}

/// What an asynchronous active sends without waiting for an answer.
const fn can_be_gathered(kind: Kind) -> bool {
    matches!(kind, Kind::Write | Kind::Zero | Kind::Flush)
}

impl Conn {
    fn push(&mut self, frame: Outgoing, urgent: bool, now: Time) {
        let first = self.backlog.is_empty();
        self.backlog_bytes += frame.len();
        self.backlog.push_back(frame);
        if urgent || self.backlog_bytes >= GATHER_BYTES {
            self.gathering = None;
        } else if first {
            self.gathering = Some(now + GATHER_TIME);
        }
    }

    fn deadline(&self) -> Option<Time> {
        let setup = (!self.announced).then_some(self.opened + SETUP_LIMIT);
        setup.into_iter().chain(self.gathering).min()
    }

    /// The stream became ready: tells the replica who it is.
    fn announce(
        &mut self,
        token: u64,
        names: &BTreeMap<NodeId, (String, SocketAddr)>,
    ) -> Option<Input> {
        if let Err(error) = self.stream.flush() {
            return self.setup_failed(&error);
        }
        if self.stream.phase() != Phase::Ready {
            return None;
        }
        let known = match self.stream.peer() {
            Some(peer) => names.iter().find(|(_, (name, _))| name == peer),
            None => names
                .iter()
                .find(|(_, (_, at))| at.ip() == self.stream.remote().ip()),
        };
        let node = known.map(|(id, _)| *id);
        let (Some(node), true) = (node, self.node.is_none() || self.node == node) else {
            self.dead = true;
            return None;
        };
        self.node = Some(node);
        self.announced = true;
        let side = match self.dialed {
            true => Side::Dialed {
                session: SessionId(random()),
            },
            false => Side::Accepted,
        };
        Some(Input::Connected {
            conn: ConnId(token),
            node,
            side,
        })
    }

    fn setup_failed(&mut self, why: &dyn std::fmt::Display) -> Option<Input> {
        tracing::debug!(%why, "a mirror connection did not come about");
        self.dead = true;
        self.dialed
            .then_some(())
            .and(self.node)
            .map(|node| Input::ConnectFailed { node })
    }

    fn lost(&mut self, token: u64, end: &End) -> Input {
        tracing::info!(%end, "a mirror connection ended");
        self.dead = true;
        let why = match end {
            End::Closed | End::Stream(_) => ReplicaLoss::Closed,
            End::Fault(_) => ReplicaLoss::Protocol,
        };
        Input::Disconnected {
            conn: ConnId(token),
            why,
        }
    }

    fn turn(&mut self, token: u64, ring: &mut Ring, now: Time) -> Option<Input> {
        let mut input = None;
        if !self.dead {
            if !self.announced && now >= self.opened + SETUP_LIMIT {
                input = self.setup_failed(&"it took too long");
            } else if self.gathering.is_none_or(|until| until <= now)
                && self.announced
                && let Err(error) = self.send_backlog(now)
            {
                let told = self.closing;
                let lost = self.lost(token, &End::Stream(error));
                input = (!told).then_some(lost);
            }
            let stalled = self.backlog_bytes > CONGESTED && now.since(self.moved) > STALL_MAX;
            if (stalled || self.backlog_bytes > BACKLOG_MAX) && !self.closing && !self.dead {
                tracing::warn!(backlog = self.backlog_bytes, "the peer does not keep up");
                self.dead = true;
                let (conn, why) = (ConnId(token), ReplicaLoss::Silent);
                input = Some(Input::Disconnected { conn, why });
            }
            if self.closing && self.backlog.is_empty() && self.stream.pending() == 0 {
                self.stream.shutdown();
                self.dead = true;
            }
        }
        if self.dead {
            self.watch.end(ring);
        } else {
            self.watch.want(ring, self.interest());
        }
        input
    }

    fn send_backlog(&mut self, now: Time) -> Result<(), host::tls::StreamError> {
        self.gathering = None;
        if self.backlog.is_empty() {
            self.moved = now;
            return self.stream.flush().map(drop);
        }
        while !self.backlog.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
            let mut skip = self.sent;
            for (frame, places) in self.backlog.iter().zip(pieces.chunks_exact_mut(2)) {
                let of_head = skip.min(HEADER_BYTES);
                places[0] = IoSlice::new(&frame.head[of_head..]);
                places[1] = IoSlice::new(&frame.content()[skip - of_head..]);
                skip = 0;
            }
            let used = PIECES_MAX.min(2 * self.backlog.len());
            let taken = self.stream.send(&pieces[..used])?;
            if taken == 0 {
                break;
            }
            self.moved = now;
            self.consume(taken);
        }
        Ok(())
    }

    /// So many bytes of the backlog are on their way.
    fn consume(&mut self, taken: usize) {
        self.backlog_bytes -= taken;
        self.sent += taken;
        while let Some(frame) = self.backlog.front()
            && self.sent >= frame.len()
        {
            self.sent -= frame.len();
            self.backlog.pop_front();
        }
    }

    fn wants_to_send(&self) -> bool {
        !self.backlog.is_empty() && self.gathering.is_none()
    }

    fn interest(&self) -> Option<Interest> {
        let wanted = self.stream.interest();
        match (wanted.readable, wanted.writable || self.wants_to_send()) {
            (true, true) => Some(Interest::BOTH),
            (true, false) => Some(Interest::READ),
            (false, true) => Some(Interest::WRITE),
            (false, false) => None,
        }
    }
}

fn frame_input(token: u64, frame: Frame, buffers: &mut Buffers) -> Input {
    let payload = match frame.payload {
        frames::Body::Nothing => Payload::None,
        frames::Body::Content(buf) => Payload::Buf(buffers.full(buf)),
        frames::Body::Bytes(bytes) => Payload::Bytes(bytes),
    };
    Input::Frame {
        conn: ConnId(token),
        header: frame.header,
        payload,
    }
}

/// A fresh random number from the kernel.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    // The kernel's generator is ready long before a daemon runs; eight bytes are never cut short.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok();
    u64::from_ne_bytes(bytes)
}

/// A fresh random identity.
pub(crate) fn random_id() -> u128 {
    (u128::from(random()) << 64) | u128::from(random())
}
