//! What goes into a replica and what comes out: the contract with the engine (and the simulator) that drives it.
//!
//! The driver calls [`Replica::handle`] with one input, then takes every [`Replica::poll`] output *in order* before the
//! next input, and calls `handle(now, Input::Wake)` when [`Replica::wake_at`] is reached. Bytes of the volume never pass
//! through: the machine names buffers.
//!
//! **Buffers.** A buffer that came in with an input ([`Input::Request`], [`Input::Frame`]) belongs to the machine until
//! it says [`Output::Release`], which it does exactly once for each, also after an abort or a lost connection. The machine
//! makes its own with [`Output::Alloc`] and releases these as well. `Release` means "never named by me again": the driver
//! keeps what is still queued for a socket (or for the answer of a read) alive by itself.
//!
//! **Disk.** Operations may run at the same time and finish in any order; the machine never has two overlapping
//! writes of the volume under way. Each is answered by exactly one [`Input::DiskDone`], however late.
//!
//! **Connections.** Frames of one connection are delivered, and sent, in order. The driver fills `payload_crc` of what it
//! sends and checks it on what it receives. After [`Output::Disconnect`] nothing more is to be delivered for that
//! connection (what still comes is ignored). A connection's node is proven by TLS, never taken from a frame.
//!
//! [`Replica::handle`]: crate::Replica::handle
//! [`Replica::poll`]: crate::Replica::poll
//! [`Replica::wake_at`]: crate::Replica::wake_at

use crate::control::{Command, Report};
use crate::way_back::Loaded;
use wire::digest::Digest;
use wire::event::ReplicaLoss;
use wire::mirror_frame::Header;
use wire::undo::Key;
use wire::{ByteRange, Epoch, NodeId, SessionId};

/// A request of the front end, named by the driver; may be used again after its [`Output::Reply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One disk operation, named by the machine; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IoId(pub u64);

/// One connection's life, named by the driver; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A buffer. The driver names its own below [`BufId::MACHINE`], the machine from there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufId(pub u64);

impl BufId {
    /// The first id of the machine's own buffers.
    pub const MACHINE: u64 = 1 << 63;

    /// True for a buffer made by [`Output::Alloc`].
    #[must_use]
    pub const fn is_machine(self) -> bool {
        self.0 >= Self::MACHINE
    }
}

/// An error number of the system, such as 5 (EIO).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Input/output error: the activation that the request belonged to is over.
    pub const IO: Self = Self(5);
    /// Invalid argument: the request lies outside of the volume, or is malformed.
    pub const INVALID: Self = Self(22);
}

/// What the front end asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Fill the buffer from the range.
    Read,
    /// Write the buffer to the range. The buffer is a stable copy: nobody changes it any more.
    Write {
        /// Durable on all required replicas before the reply.
        fua: bool,
    },
    /// The range reads as zeros from now on (write-zeroes, and discard that does not leave it undefined).
    Zero {
        /// Durable on all required replicas before the reply.
        fua: bool,
    },
    /// Everything replied to so far becomes durable on all required replicas. Range empty, no buffer.
    Flush,
}

/// One request of the front end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Named in the reply.
    pub id: RequestId,
    /// What is asked.
    pub op: Op,
    /// Where: multiples of 512 bytes, and of the disk's own unit.
    pub range: ByteRange,
    /// Of [`Op::Read`] and [`Op::Write`]: exactly as long as the range.
    pub buf: Option<BufId>,
}

/// What follows a frame's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing.
    None,
    /// Content of the volume: [`Kind::Write`], [`Kind::Data`].
    ///
    /// [`Kind::Write`]: wire::mirror_frame::Kind::Write
    /// [`Kind::Data`]: wire::mirror_frame::Kind::Data
    Buf(BufId),
    /// Everything else; at most [`wire::mirror_frame::PAYLOAD_MAX`] bytes.
    Bytes(Vec<u8>),
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This node did, asked by [`Output::Connect`]. The session is a fresh random number.
    Dialed {
        /// Names the session in every frame (R4).
        session: SessionId,
    },
    /// The other node did.
    Accepted,
}

/// What goes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// From the node.
    Command(Command),
    /// From the front end.
    Request(Request),
    /// A disk operation ended. The bytes are those of [`DiskOp::MetaRead`], or what [`DiskOp::Read`] asks to be told,
    /// else empty; the error is the system's number.
    DiskDone {
        /// Which operation.
        io: IoId,
        /// What came of it.
        result: Result<Vec<u8>, Errno>,
    },
    /// An operation of the spool ended. A read checked the content against its checksum.
    SpoolDone {
        /// Which operation.
        io: IoId,
        /// What came of it.
        result: Result<(), Errno>,
    },
    /// An operation of the undo log ended.
    UndoDone {
        /// Which operation.
        io: IoId,
        /// What came of it.
        result: Result<UndoAnswer, Errno>,
    },
    /// What [`Output::PutAside`] asked for is durable, or cannot be done.
    PutAside {
        /// What came of it.
        result: Result<(), Errno>,
    },
    /// The disk was measured: [`Output::Measure`].
    Measured {
        /// Its size now, in bytes, without the metadata's device.
        disk_bytes: u64,
    },
    /// A connection to or from a node is ready, its certificate checked.
    Connected {
        /// The connection.
        conn: ConnId,
        /// The other side, by its certificate.
        node: NodeId,
        /// Who opened it.
        side: Side,
    },
    /// [`Output::Connect`] came to nothing.
    ConnectFailed {
        /// Which node.
        node: NodeId,
    },
    /// A frame came in whose checksums are right.
    Frame {
        /// On which connection.
        conn: ConnId,
        /// Its header.
        header: Header,
        /// Its payload: [`Payload::Buf`] for content of the volume, [`Payload::Bytes`] for everything else.
        payload: Payload,
    },
    /// A connection ended, not by [`Output::Disconnect`].
    Disconnected {
        /// Which.
        conn: ConnId,
        /// [`ReplicaLoss::Closed`], or [`ReplicaLoss::Protocol`] when bytes came that are not a frame.
        why: ReplicaLoss,
    },
    /// The time of [`Replica::wake_at`](crate::Replica::wake_at) came.
    Wake,
}

/// A disk operation. Offsets of `range` are offsets of the volume and of the disk alike (G10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOp {
    /// Fill the buffer.
    Read {
        /// From where.
        range: ByteRange,
        /// As long as the range.
        buf: BufId,
        /// What the answer tells beside.
        tell: Tell,
    },
    /// Write the buffer.
    Write {
        /// Where to.
        range: ByteRange,
        /// As long as the range.
        buf: BufId,
        /// Durable before it is done.
        fua: bool,
    },
    /// The range reads as zeros afterwards.
    Zero {
        /// Where.
        range: ByteRange,
        /// Durable before it is done.
        fua: bool,
    },
    /// Every write that was done before becomes durable. Never repeated after an error.
    Flush,
    /// Read metadata: multiples of 4 KiB.
    MetaRead {
        /// Byte offset on the disk.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Write metadata, whole sealed blocks; durable before it is done. It may be torn at any 512 bytes by a crash.
    MetaWrite {
        /// Byte offset on the disk.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
}

/// An operation of the spool: a file of the engine's own, of [`Bound::spool_bytes`](crate::Bound::spool_bytes) for each follower, whose content is
/// worth nothing to a later life. Offsets are multiples of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolOp {
    /// Write the buffer.
    Write {
        /// Byte offset in the spool.
        offset: u64,
        /// As long as what is written.
        buf: BufId,
    },
    /// Fill the buffer with what was written there, or fail.
    Read {
        /// Byte offset in the spool.
        offset: u64,
        /// As long as what is read.
        buf: BufId,
    },
}

/// An operation of the undo log ([`wire::undo`]), on a device of its own. One that is not answered in time is not waited for;
/// operations are done in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UndoOp {
    /// Write the header of a new run, durably: [`UndoAnswer::Begun`].
    Begin {
        /// Of which replica and run.
        key: Key,
    },
    /// Read these blocks of the volume, of which none is being written, and write them as one batch, durably: [`UndoAnswer::Done`].
    Save {
        /// Of which replica and run.
        key: Key,
        /// Where in the log, in bytes.
        offset: u64,
        /// Number of the batch.
        sequence: u64,
        /// Which blocks of 4 KiB, in order; at most [`BATCH_BLOCKS_MAX`](wire::undo::BATCH_BLOCKS_MAX).
        blocks: Vec<u64>,
    },
    /// Make what an earlier life wrote durable, and read it ([`load`](crate::way_back::load)): [`UndoAnswer::Loaded`].
    Load {
        /// Of which replica and run.
        key: Key,
        /// Blocks of 4 KiB of the volume.
        blocks: u64,
    },
    /// Nothing in the log is needed any more: its space may be given back, if it is a log of this replica. The answer says nothing.
    Clear {
        /// Which replica.
        replica: u128,
    },
}

/// What came of an operation of the undo log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UndoAnswer {
    /// The log has begun.
    Begun {
        /// When, in seconds since 1970, by the wall clock: for people.
        began_unix: u64,
        /// Size of the log, in bytes.
        log_bytes: u64,
    },
    /// What an earlier life saved.
    Loaded(Loaded),
    /// Done.
    Done,
}

/// What the answer to a read tells beside the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// Nothing.
    Nothing,
    /// Whether all of it is zero.
    Zeros,
    /// Its [`Digest`].
    Digest,
}

impl Tell {
    /// The answer's bytes: a digest; or any byte, if the content is zero.
    #[must_use]
    pub fn of(self, content: &[u8]) -> Vec<u8> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Zeros if content.iter().all(|byte| *byte == 0) => vec![0],
            Self::Zeros => Vec::new(),
            Self::Digest => Digest::of(content).as_bytes().to_vec(),
        }
    }
}

/// What comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Start a disk operation.
    Disk {
        /// Its name, for [`Input::DiskDone`].
        io: IoId,
        /// What to do.
        op: DiskOp,
    },
    /// Start an operation of the spool (asynchronous mirrors only): answered by [`Input::SpoolDone`].
    Spool {
        /// Its name; a counter of its own.
        io: IoId,
        /// What to do.
        op: SpoolOp,
    },
    /// Start an operation of the undo log (of a standby that has one): answered by [`Input::UndoDone`].
    Undo {
        /// Its name; a counter of its own.
        io: IoId,
        /// What to do.
        op: UndoOp,
    },
    /// Copy these ranges of the volume, which nothing writes meanwhile, to a file of their own, durably: answered by
    /// [`Input::PutAside`]. They hold what an asynchronous failover may have cut off, and are overwritten afterwards.
    PutAside {
        /// The epoch that this replica served last, at least.
        epoch: Epoch,
        /// In order; no two overlap.
        ranges: Vec<ByteRange>,
    },
    /// Find out how large the disk is now: it may have been enlarged since it was opened. Answered by [`Input::Measured`]. From then
    /// on offsets of the volume may lie behind the disk's old end; those of metadata are counted as at the opening.
    Measure,
    /// Make a buffer.
    Alloc {
        /// Its name, from [`BufId::MACHINE`] on.
        buf: BufId,
        /// Bytes; at most 64 KiB, or what one frame of the stream carries.
        len: u64,
    },
    /// The machine does not name this buffer any more.
    Release {
        /// Which.
        buf: BufId,
    },
    /// Open a connection to a node's mirror port: answered by [`Input::Connected`] or [`Input::ConnectFailed`].
    Connect {
        /// Which node.
        node: NodeId,
    },
    /// Send a frame. `payload_len` is set; `payload_crc` is the driver's to fill.
    Send {
        /// On which connection.
        conn: ConnId,
        /// The header.
        header: Header,
        /// What follows it.
        payload: Payload,
    },
    /// Close a connection, after what was sent on it has left.
    Disconnect {
        /// Which.
        conn: ConnId,
    },
    /// Answer the front end. A read's buffer is filled (and released right after).
    Reply {
        /// Which request.
        id: RequestId,
        /// Done, or why not.
        result: Result<(), Errno>,
    },
    /// To the node.
    Report(Report),
}
