//! A small world for tests: two replicas or three, disks that lose what was not flushed, a network that cuts, and a correct node
//! that fences, promotes and changes sets by the rules. Everything is chosen by the caller, step by step.

mod ahead;
mod asynchronous;
mod bugs;
mod control;
mod crash;
mod disk;
mod grown;
mod looked;
mod model;
mod named;
mod property;
mod repair;
mod trio;

use crate::bitmap::region_blocks;
use crate::bits::Bits;
use crate::config::Config;
use crate::control::{Command, Report};
use crate::io::{
    BufId, ConnId, DiskOp, Errno, Input, IoId, Op, Output, Payload, Request, RequestId, Side,
    SpoolOp,
};
use crate::machine::Machine;
use crate::replica::Replica;
use crate::role::Role;
use disk::SimDisk;
use model::Model;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wire::digest::Digest;
use wire::event::ReplicaLoss;
use wire::layout::{self, BlockKind, CONTENT_BYTES, Layout, ReplicaState, Slot, Superblock};
use wire::mirror_frame::{FLAG_RESYNC, Header, Kind};
use wire::{ByteRange, Duration, Epoch, Generation, NodeId, SessionId, Time, version};

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);
const C: NodeId = NodeId(2);
const DISK_BYTES: u64 = 2 << 20;
/// More rounds than any healthy world needs to come to rest.
const RUN_MAX: usize = 5_000;

/// In a world of two.
fn other(node: NodeId) -> NodeId {
    if node == A { B } else { A }
}

fn range(offset: u64, len: u64) -> ByteRange {
    ByteRange::new(offset, len).unwrap()
}

/// A superblock as `mirror create` makes it.
fn created(data_bytes: u64, state: ReplicaState) -> Superblock {
    Superblock {
        features: version::Features::OURS,
        mirror: None,
        replica: 7,
        data_bytes,
        intent_blocks: 1,
        generation: Generation(0),
        epoch: Epoch(0),
        state,
        boot: 0,
        led: false,
        pairs: Vec::new(),
        source: None,
    }
}

#[derive(Debug)]
struct Node {
    replica: Option<Replica>,
    disk: SimDisk,
    disk_bytes: u64,
    boot: u64,
    bufs: BTreeMap<BufId, Vec<u8>>,
    next_buf: u64,
    dials: VecDeque<NodeId>,
    reports: Vec<Report>,
    /// Buffers of reads, to be checked with the reply.
    reads: BTreeMap<RequestId, BufId>,
    /// The spool: what lies where, and what is under way.
    spool: BTreeMap<u64, Vec<u8>>,
    spool_ios: VecDeque<(IoId, SpoolOp)>,
    /// Ranges to be put aside.
    aside: Vec<Vec<ByteRange>>,
    frames_sent: Vec<Header>,
    disk_log: Vec<DiskOp>,
}

/// What travels, with its content.
#[derive(Debug)]
enum Parcel {
    Frame(Header, Content),
    End,
}

#[derive(Debug)]
enum Content {
    None,
    Bytes(Vec<u8>),
    Data(Vec<u8>),
}

#[derive(Debug)]
struct Conn {
    id: ConnId,
    /// Who dialed.
    from: NodeId,
    /// Whom.
    to: NodeId,
    /// To `from`, and to `to`.
    queues: [VecDeque<Parcel>; 2],
    /// The side closed it, or was told of its end.
    closed: [bool; 2],
}

impl Conn {
    fn is_of(&self, node: NodeId) -> bool {
        node == self.from || node == self.to
    }

    fn side(&self, node: NodeId) -> usize {
        usize::from(node != self.from)
    }
}

/// What the world's node believes and does: a register that never fails.
#[derive(Debug)]
struct Control {
    epoch: Epoch,
    /// Of the latest activation; the sets may have changed since.
    activated: Epoch,
    active: NodeId,
    in_sync: BTreeSet<NodeId>,
    /// What the active was told last.
    required: BTreeSet<NodeId>,
    serving: bool,
    /// Peers that are being counted in.
    joining: BTreeSet<NodeId>,
    /// Who takes over next, if it can.
    heir: NodeId,
    /// The active was told to drain, for a planned move.
    moving: bool,
    /// It drained, and the other node takes over.
    handed_over: bool,
    /// This node is being fenced, to take over.
    fencing: Option<NodeId>,
    /// Peers that were reported lost.
    lost: BTreeSet<NodeId>,
    asynchronous: bool,
}

#[derive(Debug)]
struct World {
    now: Time,
    nodes: Vec<Node>,
    conns: Vec<Conn>,
    next_conn: u64,
    link_up: bool,
    /// Nodes that no connection reaches.
    isolated: BTreeSet<NodeId>,
    control: Control,
    model: Model,
    next_request: u64,
    next_token: u64,
    /// Decides small things; advanced deterministically.
    dice: u64,
    config: Config,
    trace: Vec<String>,
    tracing: bool,
}

impl World {
    /// Node A with an origin, B blank; both attached and A serving when the caller has run it.
    fn new(tune: impl FnOnce(&mut Config)) -> Self {
        Self::with_disks(DISK_BYTES, DISK_BYTES, tune)
    }

    fn with_disks(a_bytes: u64, b_bytes: u64, tune: impl FnOnce(&mut Config)) -> Self {
        Self::of(&[a_bytes, b_bytes], tune)
    }

    /// The first disk is an origin, the others are blank.
    fn of(disks: &[u64], tune: impl FnOnce(&mut Config)) -> Self {
        let a_bytes = disks[0];
        let mut config = Config::lan(A, a_bytes, 1, 77);
        config.io_timeout = Duration::from_secs(100_000);
        config.hot_regions_max = 4;
        tune(&mut config);
        let layout = Layout::for_disk(a_bytes, 1).unwrap();
        let mut world = Self {
            now: Time::from_nanos(1_000_000_000),
            nodes: disks.iter().map(|bytes| Node::new(*bytes)).collect(),
            conns: Vec::new(),
            next_conn: 1,
            link_up: true,
            isolated: BTreeSet::new(),
            control: Control::new(matches!(config.ack, crate::config::Ack::Async(_))),
            model: Model::new(layout.data_bytes),
            next_request: 1,
            next_token: 1,
            dice: 0x9E37_79B9,
            config,
            trace: Vec::new(),
            tracing: std::env::var_os("TRACE").is_some(),
        };
        world.model.keeps_all = world.control.asynchronous;
        for node in world.all() {
            let origin = node == A;
            world.create(
                node,
                if origin {
                    ReplicaState::Origin
                } else {
                    ReplicaState::Blank
                },
            );
        }
        for node in world.all() {
            world.boot(node, false);
        }
        world
    }

    fn all(&self) -> BTreeSet<NodeId> {
        (0..).map(NodeId).take(self.nodes.len()).collect()
    }

    fn create(&mut self, node: NodeId, state: ReplicaState) {
        let bytes = self.node(node).disk_bytes;
        let layout = Layout::for_disk(bytes, 1).unwrap();
        let superblock = created(layout.data_bytes, state).seal(1);
        let bitmap = |index| layout::seal(BlockKind::Bitmap, index, 1, &[0; CONTENT_BYTES]);
        let log = layout::seal(BlockKind::Intent, 0, 1, &[]);
        let disk = &mut self.node(node).disk;
        for slot in [Slot::A, Slot::B] {
            for index in 0..layout.bitmap_blocks {
                disk.put(layout.bitmap_offset(index, slot), &bitmap(index));
            }
            disk.put(layout.intent_offset(slot), &log);
            disk.put(Layout::super_offset(bytes, slot), &superblock);
        }
    }

    fn node(&mut self, node: NodeId) -> &mut Node {
        &mut self.nodes[usize::from(node.0)]
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.tracing {
            let line = line();
            eprintln!("{:?} {line}", self.now);
            self.trace.push(line);
        }
    }

    /// Starts the process on a node.
    fn boot(&mut self, node: NodeId, power_lost: bool) {
        let now = self.now;
        let mut config = self.config.clone();
        config.node = node;
        let n = self.node(node);
        n.boot += u64::from(power_lost);
        config.boot = n.boot;
        config.disk_bytes = n.disk_bytes;
        n.replica = Some(Replica::new(config, now));
        n.bufs.clear();
        n.reads.clear();
        n.spool_ios.clear();
        n.aside.clear();
        self.drain(node);
    }

    /// Kills the process, or the machine.
    fn crash(&mut self, node: NodeId, power: bool) {
        if self.node(node).replica.take().is_none() {
            return;
        }
        self.note(|| format!("{node:?} crashes, power {power}"));
        let mut dice = self.dice;
        let mut random = |below: usize| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(7);
            usize::try_from(dice >> 33).unwrap() % below.max(1)
        };
        let n = self.node(node);
        if power {
            n.disk.power_failed(&mut random);
            n.boot += 1;
        } else {
            n.disk.process_died(&mut random);
        }
        n.dials.clear();
        self.dice = dice;
        if power {
            self.model.power_failed();
        }
        if self.control.active == node {
            self.model.give_up();
            self.control.serving = false;
            self.control.moving = false;
        }
        for at in (0..self.conns.len())
            .filter(|at| self.conns[*at].is_of(node))
            .collect::<Vec<_>>()
        {
            let side = self.conns[at].side(node);
            self.conns[at].closed[side] = true;
            self.conns[at].queues[side].clear();
            self.conns[at].queues[1 - side].push_back(Parcel::End);
        }
        if self.control.fencing == Some(node) {
            self.control.fencing = None;
            self.thaw();
        }
    }

    fn is_up(&self, node: NodeId) -> bool {
        self.nodes[usize::from(node.0)].replica.is_some()
    }

    fn command(&mut self, node: NodeId, command: Command) {
        self.note(|| format!("{node:?} <- {command:?}"));
        self.input(node, Input::Command(command));
    }

    fn input(&mut self, node: NodeId, input: Input) {
        let now = self.now;
        if let Some(replica) = &mut self.node(node).replica {
            replica.handle(now, input);
            self.drain(node);
        }
    }

    /// Performs what a replica asks for.
    fn drain(&mut self, node: NodeId) {
        while let Some(output) = self.node(node).replica.as_mut().and_then(Replica::poll) {
            self.note(|| format!("{node:?} -> {}", brief(&output)));
            match output {
                Output::Disk { io, op } => self.start_disk(node, io, op),
                Output::PutAside { ranges, .. } => self.node(node).aside.push(ranges),
                Output::Spool { io, op } => self.node(node).spool_ios.push_back((io, op)),
                Output::Alloc { buf, len } => {
                    let bytes = vec![0; disk::to_usize(len)];
                    assert!(self.node(node).bufs.insert(buf, bytes).is_none());
                }
                Output::Release { buf } => {
                    let known = self.node(node).bufs.remove(&buf);
                    assert!(known.is_some(), "{buf:?} released twice");
                }
                Output::Connect { node: to } => {
                    self.node(node).dials.push_back(to);
                }
                Output::Send {
                    conn,
                    header,
                    payload,
                } => self.send(node, conn, header, payload),
                Output::Disconnect { conn } => self.close(node, conn),
                Output::Reply { id, result } => self.replied(node, id, result),
                Output::Report(report) => {
                    self.node(node).reports.push(report.clone());
                    self.on_report(node, report);
                }
            }
        }
    }

    fn start_disk(&mut self, node: NodeId, io: IoId, op: DiskOp) {
        let n = self.node(node);
        let data = match &op {
            DiskOp::Write { range, buf, .. } => {
                let data = n.bufs[buf].clone();
                assert_eq!(data.len(), disk::to_usize(range.len()));
                data
            }
            DiskOp::Zero { range, .. } => vec![0; disk::to_usize(range.len())],
            DiskOp::MetaWrite { bytes, .. } => bytes.clone(),
            DiskOp::Read { .. } | DiskOp::Flush | DiskOp::MetaRead { .. } => Vec::new(),
        };
        n.disk_log.push(op.clone());
        n.disk.start(io, op, data);
    }

    /// Ends one disk operation of a node; false if there is none.
    fn finish_disk(&mut self, node: NodeId, pick: usize) -> bool {
        if pick.is_multiple_of(2) && self.finish_spool(node, pick / 2) {
            return true;
        }
        let Some((done, result)) = self.node(node).disk.finish(pick) else {
            return false;
        };
        let result = result.map_err(Errno);
        if let (DiskOp::Read { buf, .. }, Ok(bytes)) = (&done.op, &result) {
            let old = self.node(node).bufs.insert(*buf, bytes.clone());
            assert!(old.is_some(), "the buffer of a read under way is gone");
        }
        if let DiskOp::Write { buf, .. } = &done.op {
            assert!(self.node(node).bufs.contains_key(buf), "released too early");
        }
        let result = result.map(|bytes| match &done.op {
            DiskOp::MetaRead { .. } => bytes,
            DiskOp::Read { digest: true, .. } => Digest::of(&bytes).as_bytes().to_vec(),
            DiskOp::Read { .. }
            | DiskOp::Write { .. }
            | DiskOp::Zero { .. }
            | DiskOp::Flush
            | DiskOp::MetaWrite { .. } => Vec::new(),
        });
        self.input(
            node,
            Input::DiskDone {
                io: done.io,
                result,
            },
        );
        true
    }

    fn send(&mut self, node: NodeId, conn: ConnId, header: Header, payload: Payload) {
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
        found.queues[1 - side].push_back(Parcel::Frame(header, content));
    }

    fn close(&mut self, node: NodeId, conn: ConnId) {
        if let Some(found) = self.conns.iter_mut().find(|c| c.id == conn) {
            let side = found.side(node);
            found.closed[side] = true;
            found.queues[side].clear();
            found.queues[1 - side].push_back(Parcel::End);
        }
    }

    /// Delivers the next thing on a connection to a node, or opens one that was asked for; false if there is nothing.
    fn deliver(&mut self, node: NodeId, pick: usize) -> bool {
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

    fn arrive(&mut self, node: NodeId, conn: ConnId, header: Header, content: Content) {
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

    fn buf(&mut self, node: NodeId, data: Vec<u8>) -> BufId {
        let n = self.node(node);
        n.next_buf += 1;
        let buf = BufId(n.next_buf);
        n.bufs.insert(buf, data);
        buf
    }

    /// False if nobody is there.
    fn connect(&mut self, node: NodeId) -> bool {
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
    fn cut(&mut self) {
        self.note(|| "cut".to_owned());
        let all = self.all();
        self.cut_off(&all);
    }

    /// Every connection of these nodes breaks.
    fn cut_off(&mut self, nodes: &BTreeSet<NodeId>) {
        let mut told = Vec::new();
        for conn in &mut self.conns {
            if !nodes.iter().any(|node| conn.is_of(*node)) {
                continue;
            }
            for node in [conn.from, conn.to] {
                let side = conn.side(node);
                conn.queues[side].clear();
                if !conn.closed[side] {
                    conn.closed[side] = true;
                    told.push((node, conn.id));
                }
            }
        }
        for (node, conn) in told {
            let why = ReplicaLoss::Closed;
            self.input(node, Input::Disconnected { conn, why });
        }
    }

    /// Lets time pass, and wakes who asked for it.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        for node in self.all() {
            let due = self.nodes[usize::from(node.0)]
                .replica
                .as_ref()
                .and_then(Replica::wake_at);
            if due.is_some_and(|at| at <= self.now) {
                self.input(node, Input::Wake);
            }
        }
    }

    /// Runs until nothing moves for a while, or for ever; faults excepted, everything that can happen happens.
    fn run(&mut self) {
        let mut quiet = 0;
        for _ in 0..RUN_MAX {
            if quiet == 60 {
                return;
            }
            let mut moved = false;
            for node in self.all() {
                if self.is_up(node) {
                    moved |= self.finish_disk(node, 0);
                    moved |= self.deliver(node, 1);
                }
            }
            self.control_step();
            self.pass(Duration::from_millis(if moved { 0 } else { 40 }));
            quiet = if moved { 0 } else { quiet + 1 };
        }
    }

    fn machine(&self, node: NodeId) -> Option<&Machine> {
        self.nodes[usize::from(node.0)].replica.as_ref()?.machine()
    }
}

impl Node {
    fn new(disk_bytes: u64) -> Self {
        Self {
            replica: None,
            disk: SimDisk::new(disk_bytes),
            disk_bytes,
            boot: 1,
            bufs: BTreeMap::new(),
            next_buf: 0,
            dials: VecDeque::new(),
            reports: Vec::new(),
            reads: BTreeMap::new(),
            spool: BTreeMap::new(),
            spool_ios: VecDeque::new(),
            aside: Vec::new(),
            frames_sent: Vec::new(),
            disk_log: Vec::new(),
        }
    }
}

fn brief(output: &Output) -> String {
    if let Output::Disk {
        io,
        op: DiskOp::MetaWrite { offset, bytes },
    } = output
    {
        return format!("Disk {io:?} MetaWrite {offset}+{}", bytes.len());
    }
    format!("{output:?}")
}
