//! A first sync of used blocks only: what the disks that were made for it say of themselves.
//!
//! The origin's unused blocks read as zeros, and the others are marked against every other replica; the other disks read as
//! zeros everywhere. All of them name the same baseline, so the first sync copies what is marked, by the rules of any other.
//!
//! That is true for as long as nobody writes behind the mirror's back. From its first session on a replica remembers what it
//! writes. Before, somebody may have mounted the disk, or made something else of it: both change its beginning.

use crate::digest::Digest;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::External;
    use crate::layout::{BlockFault, ReplicaState, Superblock};
    use crate::version::{Features, SEEDED};
    use crate::{Epoch, Generation};

    fn plain() -> Superblock {
        Superblock {
            features: Features::OURS,
            mirror: None,
            replica: 7,
            data_bytes: 1 << 20,
            ready_bytes: 1 << 20,
            settled_bytes: 1 << 20,
            intent_blocks: 1,
            generation: Generation(0),
            epoch: Epoch(0),
            state: ReplicaState::Blank,
            boot: 0,
            led: false,
            undo: None,
            pairs: Vec::new(),
            source: None,
            seed: None,
            external: None,
        }
    }

    #[test]
    fn a_seed_comes_back_and_leaves_no_trace_when_it_is_gone() {
        let seeded = Superblock {
            seed: Some(Seed::of(&[7; 99])),
            ..plain()
        };
        assert_eq!(Superblock::parse(&seeded.content()).as_ref(), Ok(&seeded));
        assert_eq!(Superblock::parse(&plain().content()), Ok(plain()));
        let apart = Superblock {
            external: Some(External::new(2 << 20, Some("disk 7"))),
            ..seeded.clone()
        };
        let read = Superblock::parse(&apart.content()).unwrap();
        assert_eq!((read.seed, read.external), (apart.seed, apart.external));
        assert_ne!(Seed::of(&[7; 99]), Seed::of(&[7; 98]));
        let cut = seeded.content();
        let cut = &cut[..cut.len() - 1];
        assert_eq!(
            Superblock::parse(cut),
            Err(BlockFault::Damaged { newest: None })
        );
    }

    /// What was written before there were seeds is read as it is.
    #[test]
    fn a_release_without_seeds_refuses_a_seeded_disk_and_understands_others() {
        let seeded = Superblock {
            seed: Some(Seed::of(&[])),
            ..plain()
        };
        let seen_by_others: Superblock = postcard::from_bytes(&seeded.content()).unwrap();
        assert_eq!(seen_by_others.features.incompatible, SEEDED);
        let unseeded: Superblock = postcard::from_bytes(&plain().content()).unwrap();
        assert_eq!(unseeded.features, Features::OURS);
    }
}
