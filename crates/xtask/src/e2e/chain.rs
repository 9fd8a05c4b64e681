//! A client that writes a hash chain over NBD: each block names its number and the hash of the block before.
//!
//! It speaks just enough of the protocol (fixed newstyle, one request at a time) to be sure when a block was acknowledged, and that
//! nothing else is between it and the mirror.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const BLOCK_BYTES: usize = 4096;
/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
const OPTION_MAGIC: u64 = 0x4948_4156_454F_5054;
const EXPORT_NAME: u32 = 1;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const READ: u16 = 0;
const WRITE: u16 = 1;
const FLUSH: u16 = 3;

/// A connection to an export.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    cookie: u64,
}

/// A chain that begins at the start of the volume.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    seed: u64,
    /// Blocks that were acknowledged, and flushed.
    pub(crate) acknowledged: u64,
    latest: u64,
}

impl Client {
    /// Opens the export of a URI like `nbd+unix:///name?socket=path`.
    pub(crate) fn open(uri: &str) -> io::Result<Self> {
        let wrong = || io::Error::other(format!("{uri} is no URI of an NBD socket"));
        let rest = uri.strip_prefix("nbd+unix:///").ok_or_else(wrong)?;
        let (name, path) = rest.split_once("?socket=").ok_or_else(wrong)?;
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        let mut client = Self { stream, cookie: 0 };
        let mut greeting = [0; 18];
        client.stream.read_exact(&mut greeting)?;
        let mut hello = 1_u32.to_be_bytes().to_vec();
        hello.extend(OPTION_MAGIC.to_be_bytes());
        hello.extend(EXPORT_NAME.to_be_bytes());
        hello.extend(
            u32::try_from(name.len())
                .map_err(io::Error::other)?
                .to_be_bytes(),
        );
        hello.extend(name.as_bytes());
        client.stream.write_all(&hello)?;
        // Size, flags, and zeros that nobody declined.
        let mut export = [0; 134];
        client.stream.read_exact(&mut export)?;
        Ok(client)
    }

    fn request(&mut self, kind: u16, block: u64, len: usize, data: &[u8]) -> io::Result<()> {
        self.cookie += 1;
        let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
        bytes.extend(0_u16.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(self.cookie.to_be_bytes());
        bytes.extend((block * 4096).to_be_bytes());
        bytes.extend(u32::try_from(len).map_err(io::Error::other)?.to_be_bytes());
        bytes.extend(data);
        self.stream.write_all(&bytes)?;
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply)?;
        match reply[4..8] {
            [0, 0, 0, 0] => Ok(()),
            _ => Err(io::Error::other("the request failed")),
        }
    }

    fn read(&mut self, block: u64) -> io::Result<Vec<u8>> {
        self.request(READ, block, BLOCK_BYTES, &[])?;
        let mut bytes = vec![0; BLOCK_BYTES];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl Chain {
    /// A chain of its own.
    pub(crate) const fn new(seed: u64) -> Self {
        Self {
            seed,
            acknowledged: 0,
            latest: seed,
        }
    }

    /// Writes the next block and flushes it.
    pub(crate) fn append(&mut self, client: &mut Client) -> io::Result<()> {
        let block = content(self.seed, self.acknowledged, self.latest);
        client.request(WRITE, self.acknowledged, BLOCK_BYTES, &block)?;
        client.request(FLUSH, 0, 0, &[])?;
        self.acknowledged += 1;
        self.latest = hash(&block);
        Ok(())
    }

    /// Blocks of the chain that are there in a row, and blocks of it that are there beyond a gap, up to what was ever written.
    pub(crate) fn found(&self, client: &mut Client) -> io::Result<(u64, u64)> {
        let (mut latest, mut whole, mut beyond) = (self.seed, 0, 0);
        for number in 0..=self.acknowledged {
            let block = client.read(number)?;
            if whole == number && block == content(self.seed, number, latest) {
                latest = hash(&block);
                whole += 1;
            } else if block.starts_with(&self.seed.to_le_bytes()) {
                beyond += 1;
            }
        }
        Ok((whole, beyond))
    }
}

fn content(seed: u64, number: u64, before: u64) -> Vec<u8> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    while block.len() < BLOCK_BYTES {
        for word in [seed, number, before, seed ^ number.rotate_left(17)] {
            block.extend(word.to_le_bytes());
        }
    }
    block
}

fn hash(block: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    block.hash(&mut hasher);
    hasher.finish()
}
