//! A client that writes a hash chain over NBD: each block names its number and the hash of the block before.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;

use super::nbd_client::{Ask, Client};

const BLOCK_BYTES: usize = 4096;
const BLOCK_LEN: u32 = 4096;

/// A chain that begins at the start of the volume.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    seed: u64,
    /// Blocks that were acknowledged, and flushed.
    pub(crate) acknowledged: u64,
    latest: u64,
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
        let offset = self.acknowledged * u64::from(BLOCK_LEN);
        client.send(Ask::Write, 1, offset, BLOCK_LEN, &block)?;
        client.receive(&mut [])?;
        client.send(Ask::Flush, 2, 0, 0, &[])?;
        client.receive(&mut [])?;
        self.acknowledged += 1;
        self.latest = hash(&block);
        Ok(())
    }

    /// Blocks of the chain that are there in a row, and blocks of it that are there beyond a gap, up to what was ever written.
    pub(crate) fn found(&self, client: &mut Client) -> io::Result<(u64, u64)> {
        let (mut latest, mut whole, mut beyond) = (self.seed, 0, 0);
        for number in 0..=self.acknowledged {
            let block = read(client, number)?;
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

fn read(client: &mut Client, number: u64) -> io::Result<Vec<u8>> {
    let mut block = vec![0; BLOCK_BYTES];
    client.send(Ask::Read, 3, number * u64::from(BLOCK_LEN), BLOCK_LEN, &[])?;
    client.receive(&mut block)?;
    Ok(block)
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
