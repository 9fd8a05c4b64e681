//! Frames out of a stream's bytes.

use super::pack;
use host::ring::Buf;
use host::tls::{MirrorStream, Received, StreamError};
use wire::mirror_frame::{FrameFault, HEADER_BYTES, Header, Kind};

/// A frame that arrived whole, its checksums right.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) header: Header,
    pub(super) payload: Body,
}

/// What followed the header.
#[derive(Debug)]
pub(super) enum Body {
    Nothing,
    /// Content of the volume.
    Content(Buf),
    Bytes(Vec<u8>),
}

/// Why no more frames come.
#[derive(Debug)]
pub(super) enum End {
    /// The peer closed the stream.
    Closed,
    /// The stream broke.
    Stream(StreamError),
    /// What came is not a frame.
    Fault(FrameFault),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("the peer closed it"),
            Self::Stream(error) => write!(f, "{error}"),
            Self::Fault(fault) => write!(f, "what came is not a frame: {fault:?}"),
        }
    }
}

/// Bytes that one read takes off the stream, and the longest content that is copied out of them.
const STAGE_BYTES: usize = 256 << 10;
/// Content of which at least so much is missing is read into its own buffer, not through the stage.
const DIRECT_MIN: usize = 32 << 10;

/// A frame that is arriving.
#[derive(Debug)]
enum State {
    Header,
    Payload {
        header: Header,
        buf: Buf,
        filled: usize,
    },
}

/// Puts frames together. Many small ones come by one read.
#[derive(Debug)]
pub(super) struct Reader {
    state: State,
    stage: Box<[u8]>,
    /// What was read and not yet used: `stage[used..filled]`.
    used: usize,
    filled: usize,
    /// The last read brought less than it could: the stream is empty until it says otherwise.
    drained: bool,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            state: State::Header,
            stage: vec![0; STAGE_BYTES].into_boxed_slice(),
            used: 0,
            filled: 0,
            drained: false,
        }
    }

    /// The next frame; none when the stream has no more for now.
    pub(super) fn next(&mut self, stream: &mut MirrorStream) -> Result<Option<Frame>, End> {
        loop {
            if let Some(frame) = self.step().map_err(End::Fault)? {
                return Ok(Some(frame));
            }
            if std::mem::take(&mut self.drained) || !self.read(stream)? {
                return Ok(None);
            }
        }
    }

    /// Reads once. False if there is nothing for now.
    fn read(&mut self, stream: &mut MirrorStream) -> Result<bool, End> {
        let room = match &mut self.state {
            State::Payload { buf, filled, .. } if buf.len() - *filled >= DIRECT_MIN => {
                &mut buf[*filled..]
            }
            State::Header | State::Payload { .. } => {
                // What is left of the stage is less than a header, or nothing.
                self.stage.copy_within(self.used..self.filled, 0);
                self.filled -= self.used;
                self.used = 0;
                &mut self.stage[self.filled..]
            }
        };
        let wanted = room.len();
        let count = match stream.read_into(room).map_err(End::Stream)? {
            Received::Bytes(count) => count,
            Received::WouldBlock => return Ok(false),
            Received::Closed => return Err(End::Closed),
        };
        // TLS gives out what it has decrypted, however much there is to be decrypted.
        self.drained = count < wanted && !stream.is_encrypted();
        match &mut self.state {
            State::Payload { buf, filled, .. } if buf.len() - *filled >= DIRECT_MIN => {
                *filled += count;
            }
            State::Header | State::Payload { .. } => self.filled += count,
        }
        Ok(true)
    }

    /// Goes on with what was read; a frame if one is whole.
    fn step(&mut self) -> Result<Option<Frame>, FrameFault> {
        if let State::Header = self.state {
            let Some(head) = self.stage[self.used..self.filled].first_chunk() else {
                return Ok(None);
            };
            let header = Header::decode(head)?;
            self.used += HEADER_BYTES;
            if header.payload_len == 0 {
                let payload = Body::Nothing;
                return Ok(Some(Frame { header, payload }));
            }
            let len = usize::try_from(header.wire_len()).map_err(|_| FrameFault::Length)?;
            let (buf, filled) = (Buf::new(len), 0);
            self.state = State::Payload {
                header,
                buf,
                filled,
            };
        }
        let State::Payload { buf, filled, .. } = &mut self.state else {
            return Ok(None);
        };
        let at_hand = &self.stage[self.used..self.filled];
        let count = at_hand.len().min(buf.len() - *filled);
        buf[*filled..*filled + count].copy_from_slice(&at_hand[..count]);
        *filled += count;
        self.used += count;
        if *filled < buf.len() {
            return Ok(None);
        }
        match std::mem::replace(&mut self.state, State::Header) {
            State::Payload { header, buf, .. } => whole(header, buf).map(Some),
            State::Header => Ok(None),
        }
    }
}

/// A frame of which everything has arrived.
fn whole(mut header: Header, mut buf: Buf) -> Result<Frame, FrameFault> {
    if header.packed_len > 0 {
        let len = usize::try_from(header.payload_len).map_err(|_| FrameFault::Length)?;
        buf = pack::unpack(&buf, len).ok_or(FrameFault::Length)?;
        header.packed_len = 0;
    }
    header.check(&buf)?;
    let payload = match header.kind {
        Kind::Write | Kind::Data => Body::Content(buf),
        Kind::Hello
        | Kind::Zero
        | Kind::Flush
        | Kind::Ack
        | Kind::IntentAdd
        | Kind::IntentDrop
        | Kind::ResyncStart
        | Kind::ResyncCommit
        | Kind::Read
        | Kind::Unreadable
        | Kind::Compare
        | Kind::Differs
        | Kind::Common
        | Kind::CommonDone
        | Kind::Room
        | Kind::Clear
        | Kind::Ready
        | Kind::Resize
        | Kind::Settle
        | Kind::Goodbye => Body::Bytes(buf.to_vec()),
    };
    Ok(Frame { header, payload })
}
