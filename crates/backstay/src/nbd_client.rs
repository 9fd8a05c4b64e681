//! A minimal NBD client: opens an export, reads its first block, flushes it.
//!
//! Numbers and layouts: the NBD protocol document (`doc/proto.md` of the NetworkBlockDevice project).

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const INIT_MAGIC: [u8; 8] = *b"NBDMAGIC";
const OPTION_MAGIC: [u8; 8] = *b"IHAVEOPT";
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Fixed newstyle, no zeroes.
const CLIENT_FLAGS: u32 = 3;
const COMMAND_READ: u16 = 0;
const COMMAND_FLUSH: u16 = 3;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
/// Longest option reply that is read.
const REPLY_MAX: u32 = 64 << 10;
/// Bytes that are read to prove that the export is served.
const BLOCK_BYTES: u32 = 512;

/// An open export.
#[derive(Debug)]
pub(crate) struct Export {
    stream: UnixStream,
    cookie: u64,
    /// A read was sent and its reply has not come.
    is_waiting: bool,
}

impl Export {
    /// Opens the export `name` of the server behind `socket`; each answer may take `limit`.
    ///
    /// # Errors
    /// When nobody listens, the export is refused, or an answer takes too long.
    pub(crate) fn open(socket: &Path, name: &str, limit: Duration) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting)?;
        if greeting[..8] != INIT_MAGIC || greeting[8..16] != OPTION_MAGIC {
            return Err(malformed("greeting"));
        }
        stream.write_all(&go(name)?)?;
        while read_option_reply(&mut stream)? == REP_INFO {}
        Ok(Self {
            stream,
            cookie: 0,
            is_waiting: false,
        })
    }

    /// Reads the first block; true if it came within `limit`. A late reply is taken by a later call: a server that was
    /// stopped and goes on must not answer any more, and this is how it would be caught.
    ///
    /// # Errors
    /// When the server fails the read or ends the connection.
    pub(crate) fn read_block(&mut self, limit: Duration) -> io::Result<bool> {
        self.stream.set_read_timeout(Some(limit))?;
        if !self.is_waiting {
            self.send_read()?;
        }
        let mut reply = [0; 16];
        match self.stream.read_exact(&mut reply) {
            Ok(()) => self.is_waiting = false,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        self.check(&reply, "read")?;
        let mut block = vec![0; usize::try_from(BLOCK_BYTES).map_err(io::Error::other)?];
        self.stream.read_exact(&mut block)?;
        Ok(true)
    }

    fn send_read(&mut self) -> io::Result<()> {
        self.send(COMMAND_READ, BLOCK_BYTES)?;
        self.is_waiting = true;
        Ok(())
    }

    /// Makes everything durable that was written before, on every replica that has to have it.
    ///
    /// # Errors
    /// When the server fails the flush, ends the connection, or takes longer than the limit of [`Export::open`].
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.send(COMMAND_FLUSH, 0)?;
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply)?;
        self.check(&reply, "flush")
    }

    fn send(&mut self, command: u16, bytes: u32) -> io::Result<()> {
        self.cookie += 1;
        let mut request = Vec::with_capacity(28);
        request.extend(REQUEST_MAGIC.to_be_bytes());
        // No flags.
        request.extend([0; 2]);
        request.extend(command.to_be_bytes());
        request.extend(self.cookie.to_be_bytes());
        request.extend(0_u64.to_be_bytes());
        request.extend(bytes.to_be_bytes());
        self.stream.write_all(&request)
    }

    fn check(&self, reply: &[u8; 16], what: &str) -> io::Result<()> {
        let (magic, rest) = split_u32(reply);
        let (error, cookie) = split_u32(rest);
        if magic != SIMPLE_REPLY_MAGIC || cookie != self.cookie.to_be_bytes() {
            return Err(malformed("reply"));
        }
        match error {
            0 => Ok(()),
            error => Err(io::Error::other(format!(
                "{what} failed with NBD error {error}"
            ))),
        }
    }
}

/// Client flags and the option GO for `name`, without information requests.
fn go(name: &str) -> io::Result<Vec<u8>> {
    let name_bytes = u32::try_from(name.len()).map_err(io::Error::other)?;
    let mut message = CLIENT_FLAGS.to_be_bytes().to_vec();
    message.extend(OPTION_MAGIC);
    message.extend(OPT_GO.to_be_bytes());
    message.extend(name_bytes.saturating_add(6).to_be_bytes());
    message.extend(name_bytes.to_be_bytes());
    message.extend(name.as_bytes());
    message.extend([0; 2]);
    Ok(message)
}

/// Reads one reply to an option; gives its type if it is not an error.
fn read_option_reply(stream: &mut UnixStream) -> io::Result<u32> {
    let mut head = [0; 20];
    stream.read_exact(&mut head)?;
    let (_option, rest) = split_u32(&head[8..]);
    let (kind, rest) = split_u32(rest);
    let (length, _) = split_u32(rest);
    if head[..8] != OPTION_REPLY_MAGIC.to_be_bytes() || length > REPLY_MAX {
        return Err(malformed("option reply"));
    }
    let mut data = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    stream.read_exact(&mut data)?;
    match kind {
        REP_ACK | REP_INFO => Ok(kind),
        refused => Err(io::Error::other(format!(
            "export refused with {refused:#x}"
        ))),
    }
}

/// The first four bytes as a number, and the rest; bytes that are missing read as zero.
fn split_u32(bytes: &[u8]) -> (u32, &[u8]) {
    match bytes.split_first_chunk::<4>() {
        Some((number, rest)) => (u32::from_be_bytes(*number), rest),
        None => (0, &[]),
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not an NBD {what}"))
}
