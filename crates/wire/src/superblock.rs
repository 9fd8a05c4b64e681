//! A superblock's content: what every release knows, and behind it what feature bits tell of.

use crate::external::External;
use crate::layout::{BlockFault, BlockKind, PAIRS_MAX, Pair, SEALED_BYTES, Superblock, seal};
use crate::seed::Seed;
use crate::undo::UndoRun;
use crate::{NodeId, version};

/// Feature bits that tell of what is behind the rest.
const BEHIND: u32 = version::EXTERNAL | version::SEEDED | version::UNDO;

impl Superblock {
    /// The sealed block for one of its places.
    #[must_use]
    pub fn seal(&self, sequence: u64) -> [u8; SEALED_BYTES] {
        seal(BlockKind::Super, 0, sequence, &self.content())
    }

    /// What every release knows, and behind it what feature bits tell of: a release that would not look at it refuses the disk.
    pub(crate) fn content(&self) -> Vec<u8> {
        let mut own = self.clone();
        let told = &mut own.features.incompatible;
        *told &= !BEHIND;
        if self.external.is_some() {
            *told |= version::EXTERNAL;
        }
        if self.seed.is_some() {
            *told |= version::SEEDED;
        }
        if self.undo.is_some() {
            *told |= version::UNDO;
        }
        let mut content = postcard::to_stdvec(&own).unwrap_or_default();
        if let Some(external) = &self.external {
            content.extend(postcard::to_stdvec(external).unwrap_or_default());
        }
        if let Some(seed) = &self.seed {
            content.extend(postcard::to_stdvec(seed).unwrap_or_default());
        }
        if let Some(undo) = &self.undo {
            content.extend(postcard::to_stdvec(undo).unwrap_or_default());
        }
        content
    }

    /// What is remembered of a node.
    #[must_use]
    pub fn pair(&self, node: NodeId) -> Option<&Pair> {
        self.pairs.iter().find(|pair| pair.node == node)
    }

    /// What is remembered of a node, to be changed.
    pub fn pair_mut(&mut self, node: NodeId) -> Option<&mut Pair> {
        self.pairs.iter_mut().find(|pair| pair.node == node)
    }

    /// Parses a superblock's content.
    ///
    /// # Errors
    /// [`BlockFault::Damaged`] when the content is not one; [`BlockFault::Newer`] when it needs an unknown feature.
    pub fn parse(content: &[u8]) -> Result<Self, BlockFault> {
        let damaged = |_| BlockFault::Damaged { newest: None };
        let (mut parsed, mut rest): (Self, _) =
            postcard::take_from_bytes(content).map_err(damaged)?;
        let sizes = [parsed.settled_bytes, parsed.data_bytes, parsed.ready_bytes];
        if !sizes.is_sorted() {
            return Err(BlockFault::Damaged { newest: None });
        }
        let told = parsed.features.incompatible;
        parsed.features.incompatible &= !BEHIND;
        if !parsed.features.understood() {
            return Err(BlockFault::Newer(version::LAYOUT));
        }
        if told & version::EXTERNAL != 0 {
            let external: External;
            (external, rest) = postcard::take_from_bytes(rest).map_err(damaged)?;
            if external.disk_bytes < parsed.data_bytes {
                return Err(BlockFault::Damaged { newest: None });
            }
            parsed.external = Some(external);
        }
        if told & version::SEEDED != 0 {
            let seed: Seed;
            (seed, rest) = postcard::take_from_bytes(rest).map_err(damaged)?;
            parsed.seed = Some(seed);
        }
        if told & version::UNDO != 0 {
            let undo: UndoRun;
            (undo, rest) = postcard::take_from_bytes(rest).map_err(damaged)?;
            parsed.undo = Some(undo);
        }
        if !rest.is_empty() {
            return Err(BlockFault::Damaged { newest: None });
        }
        let known = |at: usize, node| parsed.pairs[..at].iter().any(|pair| pair.node == node);
        let mut pairs = parsed.pairs.iter().enumerate();
        if parsed.pairs.len() > PAIRS_MAX || pairs.any(|(at, pair)| known(at, pair.node)) {
            return Err(BlockFault::Damaged { newest: None });
        }
        Ok(parsed)
    }
}
