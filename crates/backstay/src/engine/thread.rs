//! The engine's thread: one loop, one ring.

use super::aside::Copy;
use super::buffers::Buffers;
use super::disk::Disks;
use super::figures::{self, Publisher};
use super::front::{Origin, Requests, Wanted};
use super::fuse::Front;
use super::nbd::Server;
use super::peers::Peers;
use super::sockets::Sockets;
use super::spool::Spool;
use super::ublk;
use super::undo::UndoLog;
use super::{EngineConfig, EngineEvent, Handle, Order, Sink};
use host::clock;
use host::disk::Disk;
use host::ring::{Completion, Descriptor, Interest, Ring, Watch};
use mirror::Replica;
use mirror::control::{Figures, Report};
use mirror::io::{Errno, Input, Output};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use wire::{ByteRange, Epoch};

/// Tokens from here on are readiness; below are the replica's disk operations.
const READY: u64 = 1 << 63;
const BELL: u64 = READY;
const PEER_LISTENER: u64 = READY + 1;
const NBD_LISTENER: u64 = READY + 2;
const FIRST_FREE: u64 = READY + 16;
/// Tokens from here on are the ublk device's slots.
pub(super) const UBLK: u64 = READY | 1 << 62;

/// Frames of one connection that are taken before completions are looked at again: a peer that never pauses must not
/// keep the disk's answers waiting.
const FRAMES_PER_TURN: usize = 64;
/// Bytes of content in work beyond which peers are not read from; their frames wait in the sockets.
const CONTENT_MAX: usize = 64 << 20;

/// What the thread takes along.
pub(super) struct Inside {
    /// For threads that do long work beside.
    pub(super) handle: Handle,
    pub(super) disk: Arc<Disk>,
    /// Without the metadata's device.
    pub(super) volume: Arc<Disk>,
    pub(super) spool: Spool,
    pub(super) undo: UndoLog,
    pub(super) sockets: Sockets,
    pub(super) inbox: mpsc::Receiver<Order>,
    pub(super) bell: Arc<OwnedFd>,
    pub(super) figures: Arc<Mutex<Figures>>,
    pub(super) sink: Sink,
}

struct Core {
    ring: Ring,
    replica: Replica,
    buffers: Buffers,
    disks: Disks,
    volume: Arc<Disk>,
    handle: Handle,
    name: String,
    aside: PathBuf,
    spool: Spool,
    undo: UndoLog,
    peers: Peers,
    nbd: Server,
    fuse: Option<Front>,
    ublk: Option<ublk::Front>,
    requests: Requests,
    inbox: mpsc::Receiver<Order>,
    bell: Arc<OwnedFd>,
    bell_watch: Watch,
    peer_watch: Watch,
    nbd_watch: Watch,
    /// Connections that may have more frames than were taken, each once.
    readable: Vec<u64>,
    /// What clients want, for the time of a turn.
    wanted: Vec<Wanted>,
    next_token: u64,
    figures: Publisher,
    sink: Sink,
    ended: bool,
}

/// The thread's body.
pub(super) fn run(config: EngineConfig, inside: Inside) {
    let failed = |sink: &Sink, what: &str, error: &io::Error| {
        sink(EngineEvent::Failed {
            why: format!("{what}: {error}"),
        });
    };
    match Core::new(config, inside) {
        Ok(mut core) => {
            if let Err(error) = core.run() {
                failed(&core.sink, "the ring failed", &error);
            }
        }
        Err((sink, error)) => failed(&sink, "cannot make a ring", &error),
    }
}

impl Core {
    fn new(mut config: EngineConfig, inside: Inside) -> Result<Self, (Sink, io::Error)> {
        let Inside {
            handle,
            disk,
            volume,
            spool,
            undo,
            sockets,
            inbox,
            bell,
            figures,
            sink,
        } = inside;
        let ring = match Ring::new(None) {
            Ok(ring) => ring,
            Err(error) => return Err((sink, error)),
        };
        let cloned = sockets
            .peers
            .as_fd()
            .try_clone_to_owned()
            .and_then(|peers| {
                sockets
                    .nbd
                    .as_fd()
                    .try_clone_to_owned()
                    .map(|nbd| (peers, nbd))
            });
        let (peers_fd, nbd_fd): (Descriptor, Descriptor) = match cloned {
            Ok((peers, nbd)) => (Arc::new(peers), Arc::new(nbd)),
            Err(error) => return Err((sink, error)),
        };
        config.replica.disk_bytes = disk.size();
        config.replica.external = disk.external();
        Ok(Self {
            ring,
            replica: Replica::new(config.replica.clone(), clock::now()),
            buffers: Buffers::default(),
            disks: Disks::new(disk, Arc::clone(&volume)),
            volume: Arc::clone(&volume),
            handle,
            name: config.name.clone(),
            aside: config.aside.clone(),
            spool,
            undo,
            peers: Peers::new(&config, sockets.peers),
            nbd: Server::new(config.name, sockets.nbd, volume),
            fuse: None,
            ublk: None,
            requests: Requests::default(),
            inbox,
            bell_watch: Watch::new(Arc::clone(&bell) as Descriptor, BELL),
            bell,
            peer_watch: Watch::new(peers_fd, PEER_LISTENER),
            nbd_watch: Watch::new(nbd_fd, NBD_LISTENER),
            readable: Vec::new(),
            wanted: Vec::new(),
            next_token: FIRST_FREE,
            figures: Publisher::new(figures),
            sink,
            ended: false,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut done: Vec<Completion> = Vec::new();
        self.pump();
        while !self.ended {
            self.take_orders();
            self.take_frames();
            let lost = self.turn();
            let deadline = self
                .replica
                .wake_at()
                .into_iter()
                .chain(self.peers.deadline());
            let deadline = deadline.chain([clock::now() + figures::PAUSE]).min();
            let busy = !self.readable.is_empty() && self.buffers.bytes() < CONTENT_MAX;
            let at_least = usize::from(!busy && !lost);
            self.ring.wait(at_least, deadline, &mut done)?;
            for completion in done.drain(..) {
                self.complete(completion);
            }
            if self.replica.wake_at().is_some_and(|at| at <= clock::now()) {
                self.feed(Input::Wake);
            }
            self.figures.publish(&self.replica);
        }
        Ok(())
    }

    /// One input to the replica, and everything that follows from it.
    fn feed(&mut self, input: Input) {
        tracing::trace!(?input);
        self.replica.handle(clock::now(), input);
        self.pump();
    }

    fn pump(&mut self) {
        let mut measure = false;
        while let Some(output) = self.replica.poll() {
            tracing::trace!(?output);
            match output {
                Output::Disk { io, op } => {
                    self.disks.start(&mut self.ring, &mut self.buffers, io, op);
                }
                Output::Spool { io, op } => {
                    let refused = self.spool.start(&mut self.ring, &mut self.buffers, io, op);
                    if let Some(input) = refused {
                        self.replica.handle(clock::now(), input);
                    }
                }
                Output::Undo { io, op } => {
                    if !self.undo.ask(io, op) {
                        let result = Err(Errno::IO);
                        self.replica
                            .handle(clock::now(), Input::UndoDone { io, result });
                    }
                }
                Output::Measure => measure = true,
                Output::PutAside { epoch, ranges } => self.put_aside(epoch, ranges),
                Output::Alloc { buf, len } => self.buffers.alloc(buf, len),
                Output::Release { buf } => self.buffers.release(buf),
                Output::Connect { node } => self.dial(node),
                Output::Send {
                    conn,
                    header,
                    payload,
                } => {
                    let now = clock::now();
                    self.peers.send(conn, header, payload, &self.buffers, now);
                }
                Output::Disconnect { conn } => self.peers.disconnect(conn),
                Output::Reply { id, result } => {
                    if let Some((origin, data)) = self.requests.end(&self.buffers, id) {
                        match origin {
                            Origin::Nbd { client, request } => {
                                self.nbd.answer(client, &request, result, data);
                            }
                            Origin::Fuse { request } => {
                                if let Some(fuse) = &mut self.fuse {
                                    fuse.answer(&request, result, data);
                                }
                            }
                            Origin::Ublk { serial, tag } => {
                                if let Some(ublk) = &mut self.ublk {
                                    ublk.answer(&mut self.ring, (serial, tag), result, data);
                                }
                            }
                        }
                    }
                }
                Output::Report(report) => self.report(report),
            }
        }
        if measure {
            let input = self.disks.measured();
            self.feed(input);
        }
    }

    /// In a thread of its own: it may take long, and nothing else of the disk changes meanwhile.
    fn put_aside(&self, epoch: Epoch, ranges: Vec<ByteRange>) {
        let job = Copy {
            disk: Arc::clone(&self.volume),
            to: self.aside.clone(),
            mirror: self.name.clone(),
            epoch,
            ranges,
        };
        let handle = self.handle.clone();
        let thread = std::thread::Builder::new().name("put aside".to_owned());
        let started = thread.spawn(move || handle.order(Order::PutAside(job.run())));
        if let Err(error) = started {
            self.handle.order(Order::PutAside(Err(error)));
        }
    }

    fn dial(&mut self, node: wire::NodeId) {
        let token = fresh(&mut self.next_token);
        if !self.peers.dial(token, node, clock::now()) {
            self.replica
                .handle(clock::now(), Input::ConnectFailed { node });
        }
    }

    fn report(&mut self, report: Report) {
        if let Report::Grown { data } = &report {
            self.nbd.resize(data.0);
            if let Some(fuse) = &mut self.fuse {
                fuse.resize(data.0);
            }
        }
        self.figures.refresh(&self.replica);
        (self.sink)(EngineEvent::Report(report));
    }

    fn take_orders(&mut self) {
        while let Ok(order) = self.inbox.try_recv() {
            match order {
                Order::Command { serial, command } => {
                    self.feed(Input::Command(command));
                    (self.sink)(EngineEvent::Taken { serial });
                }
                Order::Serve(on) => {
                    let size = on.then(|| self.replica.data_bytes());
                    self.nbd.serve(&mut self.ring, size);
                }
                Order::AttachFuse {
                    channel,
                    negotiated,
                } => {
                    let token = fresh(&mut self.next_token);
                    match Front::new(channel, token, negotiated) {
                        Ok(front) => self.fuse = Some(front),
                        Err(error) => tracing::error!(%error, "the FUSE file cannot be served"),
                    }
                }
                Order::PutAside(result) => {
                    if let Err(error) = &result {
                        tracing::error!(%error, "writes that a failover cut off cannot be put aside");
                    }
                    let result = result.map_err(|e| Errno(e.raw_os_error().unwrap_or(Errno::IO.0)));
                    self.feed(Input::PutAside { result });
                }
                Order::Undo { io, result } => self.feed(Input::UndoDone { io, result }),
                Order::DetachFuse => {
                    if let Some(fuse) = &mut self.fuse {
                        fuse.end();
                    }
                }
                Order::AttachUblk { queue } => {
                    let serial = fresh(&mut self.next_token);
                    self.ublk = Some(ublk::Front::new(queue, serial, &mut self.ring));
                }
                Order::FailUblk => {
                    if let Some(ublk) = &mut self.ublk {
                        ublk.fail(&mut self.ring);
                    }
                }
                Order::AttachNbd { socket, size } => {
                    let token = fresh(&mut self.next_token);
                    self.nbd.attach(&mut self.ring, socket, size, token);
                }
                Order::End => self.ended = true,
            }
        }
    }

    /// Takes what clients want, sends what there is to send, and waits for what may come. The mirror's frames go last: those of
    /// the requests just taken leave before anybody waits for the disk. True if a connection was lost, and what follows from
    /// that is still to be sent.
    fn turn(&mut self) -> bool {
        let room = !self.peers.congested();
        self.nbd.turn(&mut self.ring, room, &mut self.wanted);
        self.take_requests();
        if self
            .fuse
            .as_mut()
            .is_some_and(|fuse| fuse.turn(&mut self.ring, room))
        {
            self.fuse = None;
        }
        if let Some(ublk) = &mut self.ublk {
            ublk.turn(&mut self.ring, room, &mut self.wanted);
            if ublk.is_over() {
                self.ublk = None;
            }
            self.take_requests();
        }
        let lost = self.peers.turn(&mut self.ring, clock::now());
        let any = !lost.is_empty();
        for input in lost {
            self.feed(input);
        }
        self.bell_watch.want(&mut self.ring, Some(Interest::READ));
        self.peer_watch.want(&mut self.ring, Some(Interest::READ));
        self.nbd_watch.want(&mut self.ring, Some(Interest::READ));
        any
    }

    /// Frames of the connections that have some, a bounded number of each.
    fn take_frames(&mut self) {
        let mut at = 0;
        while let Some(token) = self.readable.get(at).copied() {
            let mut taken = 0;
            while taken < FRAMES_PER_TURN && self.buffers.bytes() < CONTENT_MAX {
                let Some(input) = self.peers.next_input(token, &mut self.buffers) else {
                    break;
                };
                self.feed(input);
                taken += 1;
            }
            let more = taken == FRAMES_PER_TURN || self.buffers.bytes() >= CONTENT_MAX;
            if more && self.peers.knows(token) {
                at += 1;
            } else {
                self.readable.swap_remove(at);
            }
        }
    }

    fn take_requests(&mut self) {
        let mut all = std::mem::take(&mut self.wanted);
        for wanted in all.drain(..) {
            let request = self.requests.begin(&mut self.buffers, wanted);
            self.feed(Input::Request(request));
        }
        self.wanted = all;
    }

    fn complete(&mut self, completion: Completion) {
        let token = completion.token;
        if Spool::knows(token) {
            let input = self.spool.complete(&mut self.buffers, completion);
            return self.feed(input);
        }
        if token < READY {
            let input = self
                .disks
                .complete(&mut self.ring, &mut self.buffers, completion);
            if let Some(input) = input {
                self.feed(input);
            }
            return;
        }
        if token >= UBLK {
            if let Some(ublk) = &mut self.ublk
                && let Some(tag) = ublk.slot(token)
            {
                ublk.complete(&mut self.ring, tag, completion);
            }
            return;
        }
        match token {
            BELL => {
                self.bell_watch.fired();
                let mut count = [0; 8];
                rustix::io::read(&self.bell, &mut count).ok();
            }
            PEER_LISTENER => {
                self.peer_watch.fired();
                let next = &mut self.next_token;
                self.peers.accept(clock::now(), || fresh(next));
            }
            NBD_LISTENER => {
                self.nbd_watch.fired();
                let next = &mut self.next_token;
                self.nbd.accept(&mut self.ring, || fresh(next));
            }
            token if self.nbd.knows(token) => {
                self.nbd.ready(token);
            }
            token if self.peers.knows(token) => {
                self.peers.fired(token);
                if !self.readable.contains(&token) {
                    self.readable.push(token);
                }
            }
            token if self.fuse.as_ref().is_some_and(|fuse| fuse.token() == token) => {
                let room = !self.peers.congested();
                if let Some(fuse) = &mut self.fuse {
                    fuse.ready(room, &mut self.wanted);
                }
                self.take_requests();
            }
            _ => {}
        }
    }
}

fn fresh(next: &mut u64) -> u64 {
    *next += 1;
    *next
}
