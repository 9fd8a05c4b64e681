//! A first sync of used blocks only: what the disks that were made for it say of themselves.
//!
//! The origin's unused blocks read as zeros, and the others are marked against every other replica; the other disks read as
//! zeros everywhere. All of them name the same baseline, so the first sync copies what is marked, by the rules of any other.
//!
//! That is true for as long as nobody writes behind the mirror's back. From its first session on a replica remembers what it
//! writes. Before, somebody may have mounted the disk, or made something else of it: both change its beginning.

use crate::digest::Digest;
use crate::layout::{BlockFault, Superblock};
use crate::version::{Features, SEEDED};
use serde::{Deserialize, Serialize};

/// Bytes at the beginning of the volume that tell whether anybody used it: an ext4 that is mounted to be written notes that in
/// its superblock at 1 KiB; partition tables, labels of LVM and other file systems' superblocks begin in here too.
pub const HEAD_BYTES: u64 = 128 << 10;

/// What a replica's disk began with when it was made for a first sync of used blocks only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// Of the first [`HEAD_BYTES`].
    head: Digest,
}

impl Seed {
    /// Of a disk that begins with `head`.
    #[must_use]
    pub fn of(head: &[u8]) -> Self {
        Self {
            head: Digest::of(head),
        }
    }
}

/// A superblock's content. The seed follows what every release knows, and a feature bit tells of it: a release that would not
/// look at it refuses the disk.
pub(crate) fn encode(superblock: &Superblock) -> Vec<u8> {
    let Some(seed) = superblock.seed else {
        return postcard::to_stdvec(superblock).unwrap_or_default();
    };
    let Features {
        compatible,
        incompatible,
    } = superblock.features;
    let told = Superblock {
        features: Features {
            compatible,
            incompatible: incompatible | SEEDED,
        },
        ..superblock.clone()
    };
    let mut content = postcard::to_stdvec(&told).unwrap_or_default();
    content.extend(postcard::to_stdvec(&seed).unwrap_or_default());
    content
}

/// The superblock in `content`, its features not yet judged.
pub(crate) fn decode(content: &[u8]) -> Result<Superblock, BlockFault> {
    let damaged = |_| BlockFault::Damaged { newest: None };
    let (mut found, rest): (Superblock, _) = postcard::take_from_bytes(content).map_err(damaged)?;
    if found.features.incompatible & SEEDED != 0 {
        found.features.incompatible &= !SEEDED;
        found.seed = Some(postcard::from_bytes(rest).map_err(damaged)?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::ReplicaState;
    use crate::{Epoch, Generation};

    fn plain() -> Superblock {
        Superblock {
            features: Features::OURS,
            mirror: None,
            replica: 7,
            data_bytes: 1 << 20,
            intent_blocks: 1,
            generation: Generation(0),
            epoch: Epoch(0),
            state: ReplicaState::Blank,
            boot: 0,
            led: false,
            pairs: Vec::new(),
            source: None,
            seed: None,
        }
    }

    #[test]
    fn a_seed_comes_back_and_leaves_no_trace_when_it_is_gone() {
        let seeded = Superblock {
            seed: Some(Seed::of(&[7; 99])),
            ..plain()
        };
        assert_eq!(decode(&encode(&seeded)).as_ref(), Ok(&seeded));
        assert_eq!(decode(&encode(&plain())), Ok(plain()));
        assert_ne!(Seed::of(&[7; 99]), Seed::of(&[7; 98]));
        let cut = encode(&seeded);
        let cut = &cut[..cut.len() - 1];
        assert_eq!(decode(cut), Err(BlockFault::Damaged { newest: None }));
    }

    /// What was written before there were seeds is read as it is.
    #[test]
    fn a_release_without_seeds_refuses_a_seeded_disk_and_understands_others() {
        let seeded = Superblock {
            seed: Some(Seed::of(&[])),
            ..plain()
        };
        let seen_by_others: Superblock = postcard::from_bytes(&encode(&seeded)).unwrap();
        assert_eq!(seen_by_others.features.incompatible, SEEDED);
        let unseeded: Superblock = postcard::from_bytes(&encode(&plain())).unwrap();
        assert_eq!(unseeded.features, Features::OURS);
    }
}
