//! Frames out of a stream's bytes.

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

/// A frame that is arriving.
#[derive(Debug)]
enum State {
    Header,
    Payload { header: Header, buf: Buf },
}

/// Puts frames together.
#[derive(Debug)]
pub(super) struct Reader {
    state: State,
    head: [u8; HEADER_BYTES],
    filled: usize,
}

impl Reader {
    pub(super) const fn new() -> Self {
        Self {
            state: State::Header,
            head: [0; HEADER_BYTES],
            filled: 0,
        }
    }

    /// The next frame; none when the stream has no more for now.
    pub(super) fn next(&mut self, stream: &mut MirrorStream) -> Result<Option<Frame>, End> {
        loop {
            let target = match &mut self.state {
                State::Header => &mut self.head[self.filled..],
                State::Payload { buf, .. } => &mut buf[self.filled..],
            };
            if !target.is_empty() {
                match stream.read_into(target).map_err(End::Stream)? {
                    Received::Bytes(count) => self.filled += count,
                    Received::WouldBlock => return Ok(None),
                    Received::Closed => return Err(End::Closed),
                }
            }
            if let Some(frame) = self.step().map_err(End::Fault)? {
                return Ok(Some(frame));
            }
        }
    }

    fn step(&mut self) -> Result<Option<Frame>, FrameFault> {
        match std::mem::replace(&mut self.state, State::Header) {
            State::Header if self.filled < HEADER_BYTES => Ok(None),
            State::Header => {
                self.filled = 0;
                let header = Header::decode(&self.head)?;
                if header.payload_len == 0 {
                    return Ok(Some(Frame {
                        header,
                        payload: Body::Nothing,
                    }));
                }
                let len = usize::try_from(header.payload_len).map_err(|_| FrameFault::Length)?;
                self.state = State::Payload {
                    header,
                    buf: Buf::new(len),
                };
                Ok(None)
            }
            State::Payload { header, buf } if self.filled < buf.len() => {
                self.state = State::Payload { header, buf };
                Ok(None)
            }
            State::Payload { header, buf } => {
                self.filled = 0;
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
                    | Kind::Goodbye => Body::Bytes(buf.to_vec()),
                };
                Ok(Some(Frame { header, payload }))
            }
        }
    }
}
