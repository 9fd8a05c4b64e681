//! The connections of the mirror: what is on its way arrives in order, or is lost as a whole.

use super::*;

/// What travels, with its content.
#[derive(Debug)]
enum Parcel {
    Frame(Header, Content),
    End,
}

#[derive(Debug)]
pub(super) enum Content {
    None,
    Bytes(Vec<u8>),
    Data(Vec<u8>),
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: ConnId,
    /// Who dialed.
    from: NodeId,
    /// Whom.
    to: NodeId,
    /// To `from`, and to `to`.
    queues: [VecDeque<Parcel>; 2],
    /// The side closed it, or was told of its end.
    closed: [bool; 2],
    /// Nothing passes any more, and the sides are being told.
    cut: bool,
}

impl Conn {
    fn is_of(&self, node: NodeId) -> bool {
        node == self.from || node == self.to
    }

    /// The content of the frame that the node which dialed receives next.
    pub(super) fn next_to_dialer(&self) -> Option<&[u8]> {
        match self.queues[0].front()? {
            Parcel::Frame(_, Content::Bytes(bytes)) => Some(bytes),
            Parcel::Frame(..) | Parcel::End => None,
        }
    }

    fn side(&self, node: NodeId) -> usize {
        usize::from(node != self.from)
    }
}

impl World {
    pub(super) fn send(&mut self, node: NodeId, conn: ConnId, header: Header, payload: Payload) {
        let mut header = header;
        let mut content = match payload {
            Payload::None => Content::None,
            Payload::Bytes(bytes) => Content::Bytes(bytes),
            Payload::Buf(buf) => Content::Data(self.node(node).bufs[&buf].clone()),
        };
        if let Content::Data(data) = &content
            && header.flags & FLAG_RESYNC != 0
            && data.iter().all(|b| *b == 0)
        {
            // The engine may send zeros of a resync without content.
            header.kind = Kind::Zero;
            header.payload_len = 0;
            content = Content::None;
        }
        assert_eq!(Header::decode(&header.encode()), Ok(header));
        self.node(node).frames_sent.push(header);
        let Some(found) = self.conns.iter_mut().find(|c| c.id == conn) else {
            return;
        };
        let side = found.side(node);
        assert!(!found.closed[side], "sent on a connection that it closed");
        if found.cut {
            return;
        }
        found.queues[1 - side].push_back(Parcel::Frame(header, content));
    }

    pub(super) fn close(&mut self, node: NodeId, conn: ConnId) {
        if let Some(found) = self.conns.iter_mut().find(|c| c.id == conn) {
            let side = found.side(node);
            found.closed[side] = true;
            found.queues[side].clear();
            if !found.cut {
                found.queues[1 - side].push_back(Parcel::End);
            }
        }
    }

    /// A node is gone: the others see the end of its connections.
    pub(super) fn hang_up(&mut self, node: NodeId) {
        for conn in self.conns.iter_mut().filter(|c| c.is_of(node)) {
            let side = conn.side(node);
            conn.closed[side] = true;
            conn.queues[side].clear();
            conn.queues[1 - side].push_back(Parcel::End);
        }
    }

    /// Delivers the next thing on a connection to a node, or opens one that was asked for; false if there is nothing.
    pub(super) fn deliver(&mut self, node: NodeId, pick: usize) -> bool {
        self.conns
            .retain(|c| !(c.closed[0] && c.closed[1] && c.queues.iter().all(VecDeque::is_empty)));
        let ready: Vec<usize> = (0..self.conns.len())
            .filter(|at| {
                let conn = &self.conns[*at];
                conn.is_of(node) && !conn.queues[conn.side(node)].is_empty()
            })
            .collect();
        if !self.node(node).dials.is_empty() && (ready.is_empty() || pick.is_multiple_of(3)) {
            return self.connect(node);
        }
        if ready.is_empty() {
            return false;
        }
        let conn = &mut self.conns[ready[pick % ready.len()]];
        let (side, id) = (conn.side(node), conn.id);
        let parcel = conn.queues[side].pop_front();
        if conn.closed[side] {
            return true;
        }
        match parcel {
            Some(Parcel::Frame(header, content)) => self.arrive(node, id, header, content),
            Some(Parcel::End) | None => {
                conn.closed[side] = true;
                conn.queues[1 - side].push_back(Parcel::End);
                let why = ReplicaLoss::Closed;
                self.input(node, Input::Disconnected { conn: id, why });
            }
        }
        true
    }

    pub(super) fn arrive(&mut self, node: NodeId, conn: ConnId, header: Header, content: Content) {
        let payload = match content {
            Content::None => Payload::None,
            Content::Bytes(bytes) => Payload::Bytes(bytes),
            Content::Data(data) => Payload::Buf(self.buf(node, data)),
        };
        self.note(|| format!("{node:?} <= {header:?}"));
        self.input(
            node,
            Input::Frame {
                conn,
                header,
                payload,
            },
        );
    }

    pub(super) fn buf(&mut self, node: NodeId, data: Vec<u8>) -> BufId {
        let n = self.node(node);
        n.next_buf += 1;
        let buf = BufId(n.next_buf);
        n.bufs.insert(buf, data);
        buf
    }

    /// False if nobody is there.
    pub(super) fn connect(&mut self, node: NodeId) -> bool {
        let Some(to) = self.node(node).dials.pop_front() else {
            return false;
        };
        let cut = [node, to].iter().any(|n| self.isolated.contains(n));
        if !self.link_up || cut || !self.is_up(to) {
            self.input(node, Input::ConnectFailed { node: to });
            return false;
        }
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        self.conns.push(Conn {
            id: conn,
            from: node,
            to,
            queues: [VecDeque::new(), VecDeque::new()],
            closed: [false, false],
            cut: false,
        });
        let side = Side::Accepted;
        self.input(to, Input::Connected { conn, node, side });
        let session = SessionId(1_000 + conn.0);
        let side = Side::Dialed { session };
        self.input(
            node,
            Input::Connected {
                conn,
                node: to,
                side,
            },
        );
        true
    }

    /// Every connection breaks; what is on its way is lost.
    pub(super) fn cut(&mut self) {
        self.note(|| "cut".to_owned());
        let all = self.all();
        self.cut_off(&all);
    }

    /// Every connection of these nodes breaks.
    pub(super) fn cut_off(&mut self, nodes: &BTreeSet<NodeId>) {
        let mut told = Vec::new();
        for conn in &mut self.conns {
            if !nodes.iter().any(|node| conn.is_of(*node)) {
                continue;
            }
            conn.cut = true;
            for node in [conn.from, conn.to] {
                conn.queues[conn.side(node)].clear();
                told.push((node, conn.id));
            }
        }
        for (node, conn) in told {
            let found = self.conns.iter_mut().find(|c| c.id == conn);
            let closed = found.map(|c| {
                let side = c.side(node);
                std::mem::replace(&mut c.closed[side], true)
            });
            if closed == Some(false) {
                let why = ReplicaLoss::Closed;
                self.input(node, Input::Disconnected { conn, why });
            }
        }
    }
}
