//! The mirror network: connections are made, carry frames, stall and end.

use crate::queue::{Event, Payload, ToEngine, ToProcess};
use crate::stream::{End, Packet, Stream};
use crate::world::World;
use mirror::io::{ConnId, Input, Side};
use wire::event::ReplicaLoss;
use wire::mirror_frame::{FLAG_RESYNC, Header, Kind};
use wire::{Duration, NodeId, SessionId};

impl World {
    /// A replica wants a connection to a node.
    pub(crate) fn dial(&mut self, from: NodeId, mirror: u8, to: NodeId) {
        let Some(life) = self.machine(from).life() else {
            return;
        };
        let delay = self.rng.micros(300, 2_500);
        self.after(
            delay,
            Event::Dial {
                from,
                life,
                mirror,
                to,
            },
        );
    }

    /// The attempt is decided.
    pub(crate) fn on_dial(&mut self, from: NodeId, life: u64, mirror: u8, to: NodeId) {
        let now = self.now;
        let down = self.network.mirror_down == Some(mirror);
        let cut = down || self.network.is_mirror_cut(from, to) || self.machine(from).frozen;
        let machine = self.machine(to);
        let listens = machine
            .process
            .as_ref()
            .filter(|p| usize::from(mirror) < p.engines.len());
        let other = listens.map(|p| (p.life, p.paused));
        let (up, answers) = (machine.up, other.is_some_and(|(_, paused)| !paused));
        if cut || !answers {
            // Refused at once where only the process is missing, else without an answer.
            let refused = !cut && up && other.is_none();
            let patience = self.rng.millis(200, 2_000);
            let delay = if refused {
                Duration::from_micros(200)
            } else {
                patience
            };
            let what = ToEngine::Plain(Input::ConnectFailed { node: to });
            let what = ToProcess::Engine { mirror, what };
            self.after(
                delay,
                Event::Process {
                    at: from,
                    life,
                    what,
                },
            );
            return;
        }
        if self.machine(from).process(life).is_none() {
            return;
        }
        let (Some((accepting, _)), conn) = (other, ConnId(self.name())) else {
            return;
        };
        let session = SessionId(self.rng.bits());
        let ends = [
            End {
                node: from,
                life,
                open: true,
                hung_up: false,
            },
            End {
                node: to,
                life: accepting,
                open: true,
                hung_up: false,
            },
        ];
        self.streams.insert(conn, Stream::new(mirror, ends, now));
        for (end, node, side) in [
            (ends[1], from, Side::Accepted),
            (ends[0], to, Side::Dialed { session }),
        ] {
            let what = ToEngine::Plain(Input::Connected { conn, node, side });
            self.to_process(end.node, end.life, ToProcess::Engine { mirror, what });
        }
    }

    /// A replica sends a frame.
    pub(crate) fn send_frame(
        &mut self,
        at: NodeId,
        mirror: u8,
        conn: ConnId,
        header: Header,
        payload: mirror::io::Payload,
    ) {
        let Some(engine) = self.engine(at, mirror) else {
            return;
        };
        let payload = match payload {
            mirror::io::Payload::None => Payload::None,
            mirror::io::Payload::Bytes(bytes) => Payload::Bytes(bytes),
            mirror::io::Payload::Buf(buf) => match engine.bufs.get(&buf) {
                Some(bytes) => Payload::Content(bytes.clone()),
                None => {
                    self.violate(
                        "contract",
                        format!("{at:?} sends {buf:?}, which it does not have"),
                    );
                    return;
                }
            },
        };
        let len = match &payload {
            Payload::None => 0,
            Payload::Content(bytes) | Payload::Bytes(bytes) => bytes.len(),
        };
        if usize::try_from(header.payload_len) != Ok(len)
            || Header::decode(&header.encode()) != Ok(header)
        {
            self.violate(
                "contract",
                format!("{at:?} sends a frame that cannot be read: {header:?}"),
            );
            return;
        }
        if header.kind == Kind::Ack {
            let verdict = self.checkers.fenced.on_ack(at);
            self.judge("fenced_before_promotion", verdict);
        }
        self.checkers.chunks += u64::from(header.flags & FLAG_RESYNC != 0);
        self.push_packet(at, conn, Packet::Frame(header, payload));
    }

    fn push_packet(&mut self, at: NodeId, conn: ConnId, packet: Packet) {
        let Some(life) = self.machine(at).life() else {
            return;
        };
        let moment = self.now + self.mirror_delay();
        let Some(stream) = self.streams.get_mut(&conn) else {
            return;
        };
        let Some(side) = stream
            .side_of(at, life)
            .filter(|side| stream.ends[*side].open)
        else {
            return;
        };
        let other = 1 - side;
        stream.latest[other] = stream.latest[other].max(moment);
        let moment = stream.latest[other];
        stream.queues[other].push_back((moment, packet));
        if !stream.stalled {
            self.queue.push(moment, Event::Arrive { conn, side: other });
        }
    }

    fn mirror_delay(&mut self) -> Duration {
        let usual = self.rng.micros(50, 250);
        if self.network.mirror_slow == 0 {
            return usual;
        }
        usual + self.rng.micros(0, 40_000)
    }

    /// The next packet arrives, unless the way is cut.
    pub(crate) fn on_arrive(&mut self, conn: ConnId, side: usize) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&conn) else {
            return;
        };
        if stream.stalled {
            return;
        }
        if stream.queues[side].front().is_none_or(|(at, _)| *at > now) {
            return;
        }
        let Some((_, packet)) = stream.queues[side].pop_front() else {
            return;
        };
        let (end, mirror) = (stream.ends[side], stream.mirror);
        // What was on its way when this side closed still comes in now and then: a replica ignores it.
        let late = !end.open && end.hung_up && self.rng.chance(700);
        if !end.open && !late {
            return self.forget_if_over(conn);
        }
        match packet {
            Packet::Frame(header, payload) => {
                self.trace.mix(&[
                    now.0,
                    conn.0,
                    header.seq,
                    header.epoch.0,
                    u64::from(header.flags),
                ]);
                let what = ToEngine::Frame {
                    conn,
                    header,
                    payload,
                };
                self.forget_if_over(conn);
                self.to_process(end.node, end.life, ToProcess::Engine { mirror, what });
            }
            Packet::Close => {
                self.end_side(conn, side);
                self.forget_if_over(conn);
            }
        }
    }

    /// One side learns that the connection is over.
    fn end_side(&mut self, conn: ConnId, side: usize) {
        let Some(stream) = self.streams.get_mut(&conn) else {
            return;
        };
        let (end, mirror) = (stream.ends[side], stream.mirror);
        if !end.open {
            return;
        }
        stream.ends[side].open = false;
        self.forget_if_over(conn);
        let what = ToEngine::Plain(Input::Disconnected {
            conn,
            why: ReplicaLoss::Closed,
        });
        self.to_process(end.node, end.life, ToProcess::Engine { mirror, what });
    }

    /// Forgets a connection that both sides closed, once nothing of it is on its way.
    fn forget_if_over(&mut self, conn: ConnId) {
        let over = |s: &Stream| {
            (0..2).all(|side| {
                let end = s.ends[side];
                let comes = end.hung_up && s.queues[side].iter().any(|(_, p)| p.is_frame());
                !end.open && !comes
            })
        };
        if self.streams.get(&conn).is_some_and(over) {
            self.streams.remove(&conn);
        }
    }

    /// A replica closes its side; what it sent before still arrives.
    pub(crate) fn hang_up(&mut self, at: NodeId, conn: ConnId) {
        self.push_packet(at, conn, Packet::Close);
        let Some(life) = self.machine(at).life() else {
            return;
        };
        if let Some(stream) = self.streams.get_mut(&conn)
            && let Some(side) = stream.side_of(at, life)
        {
            stream.ends[side].open = false;
            stream.ends[side].hung_up = true;
        }
        self.forget_if_over(conn);
    }

    /// A process died: the kernel closes its connections. Some of what it sent last may be lost.
    pub(crate) fn close_streams_of(&mut self, at: NodeId, life: u64) {
        let theirs: Vec<(ConnId, usize)> = self
            .streams
            .iter()
            .filter_map(|(conn, s)| Some((*conn, s.side_of(at, life)?)))
            .collect();
        for (conn, side) in theirs {
            let (keep, other) = (self.rng.index(8), 1 - side);
            let moment = self.now + self.rng.micros(50, 500);
            let Some(stream) = self.streams.get_mut(&conn) else {
                continue;
            };
            stream.ends[side].open = false;
            if keep < 4 {
                stream.queues[other].truncate(keep);
            }
            stream.latest[other] = stream.latest[other].max(moment);
            let moment = stream.latest[other];
            stream.queues[other].push_back((moment, Packet::Close));
            if !stream.stalled {
                self.queue.push(moment, Event::Arrive { conn, side: other });
            }
            self.forget_if_over(conn);
        }
    }

    /// A machine is gone without a word: its peers notice only by silence.
    pub(crate) fn silence_streams_of(&mut self, at: NodeId) {
        let theirs: Vec<ConnId> = self
            .streams
            .iter()
            .filter(|(_, s)| s.ends.iter().any(|end| end.node == at && end.open))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in theirs {
            if let Some(stream) = self.streams.get_mut(&conn) {
                for end in &mut stream.ends {
                    end.open &= end.node != at;
                }
            }
            self.stall(conn);
            self.forget_if_over(conn);
        }
    }

    fn stall(&mut self, conn: ConnId) {
        let delay = self.rng.millis(3_000, 8_000);
        let Some(stream) = self.streams.get_mut(&conn) else {
            return;
        };
        stream.stall += 1;
        stream.stalled = true;
        let stall = stream.stall;
        self.after(delay, Event::StreamTimeout { conn, stall });
    }

    /// The mirror network between two nodes is cut: connections stall.
    pub(crate) fn stall_streams(&mut self, a: NodeId, b: NodeId) {
        let theirs: Vec<ConnId> = self
            .streams
            .iter()
            .filter(|(_, s)| s.connects(a, b))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in theirs {
            self.stall(conn);
        }
    }

    /// The mirror network between two nodes is whole: what waited is sent again.
    pub(crate) fn resume_streams(&mut self, a: NodeId, b: NodeId) {
        let frozen = self.machine(a).frozen || self.machine(b).frozen;
        if frozen || self.network.is_mirror_cut(a, b) {
            return;
        }
        let theirs: Vec<ConnId> = self
            .streams
            .iter()
            .filter(|(_, s)| s.stalled && s.connects(a, b))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in theirs {
            // A sender backs off while nothing gets through.
            let longest = if self.rng.chance(200) { 2_500 } else { 300 };
            let moment = self.now + self.rng.millis(1, longest);
            let Some(stream) = self.streams.get_mut(&conn) else {
                continue;
            };
            if stream.lost_its_machine() {
                continue;
            }
            stream.stalled = false;
            for side in 0..2 {
                stream.latest[side] = stream.latest[side].max(moment);
                let at = stream.latest[side];
                for packet in &mut stream.queues[side] {
                    packet.0 = at;
                    self.queue.push(at, Event::Arrive { conn, side });
                }
            }
        }
    }

    /// Stalled for too long: the kernel gives the connection up on both sides.
    pub(crate) fn on_stream_timeout(&mut self, conn: ConnId, stall: u64) {
        if self
            .streams
            .get(&conn)
            .is_some_and(|s| s.stalled && s.stall == stall)
        {
            self.end_side(conn, 0);
            self.end_side(conn, 1);
            self.streams.remove(&conn);
        }
    }

    /// Something between the nodes resets connections of the mirror.
    pub(crate) fn reset_streams(&mut self, which: impl Fn(&Stream) -> bool) {
        let chosen = self.streams.iter().filter(|(_, s)| which(s));
        let all: Vec<ConnId> = chosen.map(|(conn, _)| *conn).collect();
        for conn in all {
            self.end_side(conn, 0);
            self.end_side(conn, 1);
            self.streams.remove(&conn);
        }
    }
}
