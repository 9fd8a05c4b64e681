//! A small world for tests: two replicas or three, disks that lose what was not flushed, a network that cuts, and a correct node
//! that fences, promotes and changes sets by the rules. Everything is chosen by the caller, step by step.

mod ahead;
mod asynchronous;
mod bugs;
mod control;
mod crash;
mod disk;
mod forced;
mod gained;
mod grown;
mod grown_property;
mod looked;
mod model;
mod named;
mod network;
mod owed;
mod property;
mod repair;
mod seeded;
mod trio;
mod undo;

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
use network::{Conn, Content};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wire::event::ReplicaLoss;
use wire::layout::{self, BlockKind, CONTENT_BYTES, Layout, Pair, ReplicaState, Slot, Superblock};
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

/// Of a disk, all of it for the volume or with a smaller one.
fn layout_of(disk_bytes: u64, small: Option<u64>) -> Layout {
    let layout = match small {
        Some(bytes) => Layout::with_data(disk_bytes, bytes, 1),
        None => Layout::for_disk(disk_bytes, 1),
    };
    layout.unwrap()
}

/// A superblock as `mirror create` makes it.
fn created(data_bytes: u64, state: ReplicaState) -> Superblock {
    Superblock {
        features: version::Features::OURS,
        mirror: None,
        replica: 7,
        data_bytes,
        ready_bytes: data_bytes,
        settled_bytes: data_bytes,
        intent_blocks: 1,
        generation: Generation(0),
        epoch: Epoch(0),
        state,
        boot: 0,
        led: false,
        undo: None,
        pairs: Vec::new(),
        source: None,
        seed: None,
        external: None,
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
    /// The undo log, and what it was asked for.
    log: undo::Log,
    frames_sent: Vec<Header>,
    disk_log: Vec<DiskOp>,
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
    /// These and the others do not wait for each other.
    apart: BTreeSet<NodeId>,
    /// Who may hold what a takeover left behind.
    cut_off: BTreeSet<NodeId>,
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
    /// Nothing can be put aside.
    no_room: bool,
    /// Volumes are made smaller than their disks have room for; what lies behind them is not equal.
    small: Option<u64>,
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
        Self::made(disks, None, tune)
    }

    /// Volumes of `small` bytes on larger disks.
    fn with_room(disks: &[u64], small: u64, tune: impl FnOnce(&mut Config)) -> Self {
        Self::made(disks, Some(small), tune)
    }

    fn made(disks: &[u64], small: Option<u64>, tune: impl FnOnce(&mut Config)) -> Self {
        let a_bytes = disks[0];
        let mut config = Config::lan(A, a_bytes, 1, 77);
        config.io_timeout = Duration::from_secs(100_000);
        config.hot_regions_max = 4;
        tune(&mut config);
        let layout = layout_of(a_bytes, small);
        let mut world = Self {
            now: Time::from_nanos(1_000_000_000),
            nodes: disks.iter().map(|bytes| Node::new(*bytes)).collect(),
            conns: Vec::new(),
            next_conn: 1,
            link_up: true,
            isolated: BTreeSet::new(),
            control: Control::new(config.apart.as_ref().map(|a| a.nodes.clone())),
            model: Model::new(layout.data_bytes),
            next_request: 1,
            next_token: 1,
            dice: 0x9E37_79B9,
            config,
            trace: Vec::new(),
            tracing: std::env::var_os("TRACE").is_some(),
            no_room: false,
            small,
        };
        world.model.keeps_all = !world.control.apart.is_empty();
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
        let layout = layout_of(bytes, self.small);
        let superblock = created(layout.data_bytes, state).seal(1);
        let bitmap = |index| layout::seal(BlockKind::Bitmap, index, 1, &[0; CONTENT_BYTES]);
        let log = layout::seal(BlockKind::Intent, 0, 1, &[]);
        let disk = &mut self.node(node).disk;
        let room = layout.metadata_offset() - layout.data_bytes;
        let rubbish = vec![0xA0 + node.0; disk::to_usize(room)];
        disk.put(layout.data_bytes, &rubbish);
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
        n.log.ios.clear();
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
        self.node(node).tear_log(&mut random);
        let n = self.node(node);
        if power {
            n.disk.power_failed(&mut random);
            n.log.power_failed(&mut random);
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
        self.hang_up(node);
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
        let mut measured = false;
        while let Some(output) = self.node(node).replica.as_mut().and_then(Replica::poll) {
            self.note(|| format!("{node:?} -> {}", brief(&output)));
            match output {
                Output::Disk { io, op } => self.start_disk(node, io, op),
                Output::Undo { io, op } => self.ask_log(node, io, op),
                Output::Measure => measured = true,
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
        if measured {
            let disk_bytes = self.node(node).disk_bytes;
            self.input(node, Input::Measured { disk_bytes });
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
        if pick.is_multiple_of(3) && self.finish_log(node) {
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
            DiskOp::Read { tell, .. } => tell.of(&bytes),
            DiskOp::Write { .. }
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
            log: undo::Log::default(),
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
