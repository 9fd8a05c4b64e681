//! What will happen: events in true time, in an order that depends on nothing but the run so far.

use crate::clock::Moment;
use core::cmp::Ordering;
use mirror::io::ConnId;
use std::collections::BinaryHeap;
use std::rc::Rc;
use wire::NodeId;
use wire::control::LinkId;
use wire::mirror_frame::Header;

/// Something that happens at a moment.
#[derive(Debug)]
pub(crate) enum Event {
    /// A process gets something to do; kept back while it is paused.
    Process {
        at: NodeId,
        life: u64,
        what: ToProcess,
    },
    /// A datagram arrives at a machine.
    Datagram {
        from: NodeId,
        to: NodeId,
        link: LinkId,
        bytes: Rc<[u8]>,
    },
    /// The member file was written.
    FileWritten { at: NodeId, life: u64 },
    /// A disk operation ends.
    DiskDone {
        at: NodeId,
        boot: u64,
        mirror: u8,
        op: u64,
    },
    /// A connection attempt is decided.
    Dial {
        from: NodeId,
        life: u64,
        mirror: u8,
        to: NodeId,
    },
    /// The next packet of a stream arrives.
    Arrive { conn: ConnId, side: usize },
    /// A stream has been stalled, or without an answer, for too long.
    StreamTimeout { conn: ConnId, stall: u64 },
    /// An act on a resource ends.
    Resource { at: NodeId, boot: u64, act: u64 },
    /// What an activation had open on a machine is gone.
    Abandoned {
        at: NodeId,
        boot: u64,
        life: u64,
        instance: u64,
    },
    /// The supervisor starts the daemon.
    Start { at: NodeId, boot: u64 },
    /// The machine is switched on.
    Boot { at: NodeId },
    /// A paused process goes on.
    Resume { at: NodeId, life: u64 },
    /// The application's next step.
    Application { at: NodeId, instance: u64 },
    /// The application ends by itself.
    ApplicationFails { at: NodeId, instance: u64 },
    /// Time for the next random fault.
    Fault,
    /// A fault at the worst moment: just after this node decided something.
    Sharp(NodeId),
    /// A fault ends.
    Heal(u64),
}

/// What a process gets to do.
#[derive(Debug)]
pub(crate) enum ToProcess {
    /// For the node's machine.
    Node(node::Input),
    /// The node asked to be woken.
    WakeNode(Moment),
    /// For a replica's engine.
    Engine { mirror: u8, what: ToEngine },
    /// A replica asked to be woken.
    WakeEngine { mirror: u8, due: Moment },
}

/// What an engine gets to do.
#[derive(Debug)]
pub(crate) enum ToEngine {
    /// A command of the node.
    Command {
        serial: u64,
        command: mirror::control::Command,
    },
    /// A frame whose content, if any, goes into a buffer.
    Frame {
        conn: ConnId,
        header: Header,
        payload: Payload,
    },
    /// A disk operation ended.
    Disk(crate::disk::Done),
    /// Anything that needs no buffer.
    Plain(mirror::io::Input),
}

/// What follows a frame's header, on its way.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    /// Nothing.
    None,
    /// Content of the volume.
    Content(Vec<u8>),
    /// Anything else.
    Bytes(Vec<u8>),
}

struct Entry {
    at: Moment,
    order: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    /// The heap's greatest entry is the earliest; of two at one moment, the one that was put in first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// The events to come.
#[derive(Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Entry>,
    order: u64,
}

impl core::fmt::Debug for Queue {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} events", self.heap.len())
    }
}

impl Queue {
    /// Lets `event` happen at `at`, after everything that was put there before.
    pub(crate) fn push(&mut self, at: Moment, event: Event) {
        self.order += 1;
        self.heap.push(Entry {
            at,
            order: self.order,
            event,
        });
    }

    /// The moment of the next event.
    pub(crate) fn next_at(&self) -> Option<Moment> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// The next event.
    pub(crate) fn pop(&mut self) -> Option<(Moment, Event)> {
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}
