//! A writer that knows what was promised to it: which blocks were acknowledged, and which were flushed.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use super::super::wait;
use crate::e2e::nbd_client::{Ask, Client};
use crate::failure::{Context, Failure, Outcome};

const BLOCK_BYTES: usize = 4096;
/// Where its blocks are: behind what fio writes.
pub(super) const START: u64 = 128 << 20;
const BLOCKS: u64 = 4096;
/// Writes under way at once, on different blocks.
const DEPTH: u64 = 8;
/// A flush after so many of these.
const FLUSH_EVERY: u64 = 6;
/// Blocks that are read at once.
const READ_BLOCKS: usize = 64;
/// A node that is active serves its volume within this time.
const SERVED_MAX: Duration = Duration::from_secs(60);

/// What a failure may take, by promise G2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Promise {
    /// Nobody lost power: every acknowledged write is there.
    Acknowledged,
    /// Somebody lost power: everything flushed is there.
    Flushed,
}

/// Versions of a block since the last flush, oldest first; the first is durable.
#[derive(Debug, Clone)]
struct Block {
    versions: Vec<u64>,
    /// How many of them were acknowledged.
    acknowledged: usize,
}

/// Every block, as far as it is known.
#[derive(Debug)]
pub(super) struct Writer {
    blocks: BTreeMap<u64, Block>,
    next: u64,
    /// Writes that were acknowledged in all.
    pub(super) acknowledged: u64,
}

/// What was found after a failure.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Checked {
    /// Promised, and not there.
    pub(super) lost: u64,
    /// Acknowledged, not flushed, and not there: what a power failure may take.
    pub(super) lapsed: u64,
}

impl Writer {
    pub(super) fn new() -> Self {
        let blank = Block {
            versions: vec![0],
            acknowledged: 1,
        };
        Self {
            blocks: (0..BLOCKS).map(|block| (block, blank.clone())).collect(),
            next: 1,
            acknowledged: 0,
        }
    }

    /// Writes until the server is gone.
    pub(super) fn write_until_gone(&mut self, uri: &str, seed: u64) -> Outcome {
        let mut client = open(uri)?;
        for round in 1.. {
            let begin = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(round * 2_654_435_761);
            let first = (begin >> 20) % BLOCKS;
            let blocks: Vec<u64> = (0..DEPTH).map(|n| (first + n * 509) % BLOCKS).collect();
            if self.write(&mut client, &blocks).is_err() {
                break;
            }
            if round % FLUSH_EVERY == 0 && self.flush(&mut client).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn write(&mut self, client: &mut Client, blocks: &[u64]) -> io::Result<()> {
        for id in blocks {
            let version = self.next;
            self.next += 1;
            if let Some(block) = self.blocks.get_mut(id) {
                block.versions.push(version);
            }
            let data = version.to_le_bytes().repeat(BLOCK_BYTES / 8);
            let len = u32::try_from(BLOCK_BYTES).map_err(io::Error::other)?;
            client.send(Ask::Write, *id, offset_of(*id), len, &data)?;
        }
        for _ in blocks {
            let id = client.receive(&mut [])?;
            if let Some(block) = self.blocks.get_mut(&id) {
                block.acknowledged = block.versions.len();
                self.acknowledged += 1;
            }
        }
        Ok(())
    }

    fn flush(&mut self, client: &mut Client) -> io::Result<()> {
        client.send(Ask::Flush, u64::MAX, 0, 0, &[])?;
        client.receive(&mut [])?;
        for block in self.blocks.values_mut() {
            block.versions.drain(..block.acknowledged - 1);
            block.acknowledged = 1;
        }
        Ok(())
    }

    /// Reads everything back, and goes on from what was found. A node that has just become active may close its socket once.
    pub(super) fn check(&mut self, uri: &str, promise: Promise) -> Outcome<Checked> {
        let found = wait::until("everything is read back", SERVED_MAX, || read_all(uri).ok())?;
        let mut checked = Checked::default();
        for (id, content) in (0..).zip(found.chunks_exact(BLOCK_BYTES)) {
            self.check_block(id, content, promise, &mut checked);
        }
        // What was found may be volatile itself.
        let mut client = open(uri)?;
        self.flush(&mut client)
            .context("flush what was read back")?;
        Ok(checked)
    }

    fn check_block(&mut self, id: u64, content: &[u8], promise: Promise, checked: &mut Checked) {
        let stamp = content.first_chunk().copied().map_or(0, u64::from_le_bytes);
        let Some(block) = self.blocks.get_mut(&id) else {
            return;
        };
        // A sector is written whole; a block of several may be a mixture of the versions after the last promise.
        let stamps = content
            .chunks_exact(8)
            .map(|s| s.try_into().map_or(0, u64::from_le_bytes));
        for found in stamps {
            let place = block.versions.iter().position(|version| *version == found);
            let last = block.acknowledged - 1;
            match (place, promise) {
                (Some(place), _) if place >= last => {}
                (Some(_), Promise::Flushed) => {
                    checked.lapsed += 1;
                    break;
                }
                (None, _) | (Some(_), Promise::Acknowledged) => {
                    checked.lost += 1;
                    eprintln!("block {id} holds {found}, allowed were {block:?}");
                    break;
                }
            }
        }
        // A mixture stays possible for its versions until it is written anew.
        if content.chunks_exact(8).all(|s| s == &content[..8]) {
            block.versions = vec![stamp];
        }
        block.acknowledged = 1;
    }
}

/// Opens the volume as soon as it is served.
fn open(uri: &str) -> Outcome<Client> {
    wait::until("the volume is served", SERVED_MAX, || {
        Client::open(uri).ok()
    })
}

fn read_all(uri: &str) -> Outcome<Vec<u8>> {
    let mut client = open(uri)?;
    let mut all = Vec::new();
    for first in (0..BLOCKS).step_by(READ_BLOCKS) {
        let mut bytes = vec![0; READ_BLOCKS * BLOCK_BYTES];
        let len = u32::try_from(bytes.len()).unwrap_or(0);
        client
            .send(Ask::Read, first, offset_of(first), len, &[])
            .and_then(|()| client.receive(&mut bytes))
            .context("read back what was written")?;
        all.extend(bytes);
    }
    Ok(all)
}

const fn offset_of(block: u64) -> u64 {
    START + block * BLOCK_BYTES as u64
}

/// fio's report must not tell of content that is not what it wrote.
pub(super) fn fio_saw_no_wrong_content(report: &str) -> Outcome {
    // fio's server/verify.c: "verify: bad magic header…", "crc32c: verify failed at…".
    let wrong = |line: &&str| line.contains("verify: bad") || line.contains("verify failed");
    match report.lines().find(wrong) {
        None => Ok(()),
        Some(line) => Err(Failure::new("fio read something else than it wrote").because(line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(content: &[u64], promise: Promise) -> Checked {
        let mut writer = Writer::new();
        let known = Block {
            versions: vec![3, 5, 8, 9],
            acknowledged: 3,
        };
        writer.blocks.insert(0, known);
        let bytes: Vec<u8> = content
            .iter()
            .flat_map(|v| v.to_le_bytes().repeat(BLOCK_BYTES / 8 / content.len()))
            .collect();
        let mut checked = Checked::default();
        writer.check_block(0, &bytes, promise, &mut checked);
        checked
    }

    #[test]
    fn what_was_promised_depends_on_who_lost_power() {
        let lost = |content: &[u64], promise| block(content, promise).lost;
        for version in [8, 9] {
            assert_eq!(lost(&[version], Promise::Acknowledged), 0);
        }
        for version in [3, 5] {
            assert_eq!(lost(&[version], Promise::Acknowledged), 1);
            assert_eq!(lost(&[version], Promise::Flushed), 0);
            assert_eq!(block(&[version], Promise::Flushed).lapsed, 1);
        }
        for promise in [Promise::Acknowledged, Promise::Flushed] {
            assert_eq!(lost(&[2], promise), 1, "older than the flush");
            assert_eq!(lost(&[77], promise), 1, "never written");
            assert_eq!(lost(&[8, 2], promise), 1, "in a part of the block");
        }
    }
}
