//! Metadata on a device of its own: which disk it is of.
//!
//! A replica's engine sees one address space, first the data disk, rounded down to 4 KiB, then the metadata's device:
//!
//! ```text
//! 0                        disk_bytes                                          end
//! | the data disk, all of it | the metadata's device: as behind data, up to its end |
//! ```
//!
//! Everything is found from the end, as on one disk. Nothing on the data disk says that it is a replica, so the superblock
//! names the disk.

use crate::layout::{BITS_PER_BLOCK, Layout, PAIRS_MAX};
use crate::units::BLOCK_BYTES;
use serde::{Deserialize, Serialize};

/// The longest name of a disk, in bytes; of a longer one the beginning counts.
pub const NAME_MAX: usize = 160;

const PLANES: u64 = PAIRS_MAX as u64;

/// The disk that metadata on a device of its own is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// Size of the data disk, in bytes, rounded down to 4 KiB: where the metadata's device begins.
    pub disk_bytes: u64,
    /// What its machine calls it by at every start: a serial number, a volume's UUID. None: nothing is known that lasts.
    pub name: Option<String>,
}

impl External {
    /// Of a disk of this size and name.
    #[must_use]
    pub fn new(disk_bytes: u64, name: Option<&str>) -> Self {
        let cut = |name: &str| {
            let end = (0..=NAME_MAX.min(name.len()))
                .rev()
                .find(|at| name.is_char_boundary(*at));
            name[..end.unwrap_or(0)].to_owned()
        };
        Self {
            disk_bytes,
            name: name.map(cut).filter(|name| !name.is_empty()),
        }
    }

    /// True if this is certainly the other disk, larger than it was.
    #[must_use]
    pub fn has_become(&self, before: &Self) -> bool {
        self.name.is_some() && self.name == before.name && self.disk_bytes > before.disk_bytes
    }

    /// True if both may name the same disk, whatever its size: they do not call it by different names.
    #[must_use]
    pub fn may_be(&self, other: &Self) -> bool {
        match (&self.name, &other.name) {
            (Some(here), Some(there)) => here == there,
            (None, _) | (_, None) => true,
        }
    }
}

impl Layout {
    /// The layout with the largest data area on a disk of `data_room` bytes with its metadata on a device that reaches from
    /// there to `end`; None if the device is too small for a mirror's, or the disk for [`Layout::DATA_MIN`].
    #[must_use]
    pub fn for_external(data_room: u64, end: u64, intent_blocks: u32) -> Option<Self> {
        let data_room = data_room / BLOCK_BYTES * BLOCK_BYTES;
        let blocks = end.checked_sub(data_room)? / BLOCK_BYTES;
        let bitmap = blocks.checked_sub(2 + 2 * u64::from(intent_blocks))?;
        let most = (bitmap / (2 * PLANES)).checked_mul(BITS_PER_BLOCK * BLOCK_BYTES);
        let data_bytes = most.map_or(data_room, |most| most.min(data_room));
        Self::with_data(end, data_bytes, intent_blocks)?.beside(data_room)
    }

    /// Itself, if the place where the metadata's device begins is between data and metadata.
    #[must_use]
    pub fn beside(self, device_begins: u64) -> Option<Self> {
        let between = self.data_bytes <= device_begins && device_begins <= self.metadata_offset();
        between.then_some(self)
    }

    /// Bytes that the metadata takes.
    #[must_use]
    pub const fn metadata_bytes(&self) -> u64 {
        self.disk_bytes - self.metadata_offset()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{BlockFault, BlockKind, Pair, ReplicaState, Superblock, open};
    use crate::{Epoch, Generation, NodeId, version};

    #[test]
    fn a_disk_is_known_by_its_name_where_it_has_one() {
        let one = External::new(4096, Some("serial 1"));
        assert!(one.may_be(&External::new(8192, Some("serial 1"))));
        assert!(!one.may_be(&External::new(4096, Some("serial 2"))));
        assert!(one.may_be(&External::new(4096, None)));
        assert_eq!(External::new(4096, Some("")).name, None);
    }

    #[test]
    fn a_disk_keeps_its_full_size_for_data() {
        // Any multiple of 4 KiB, around the places where the bitmap takes one block more.
        let step = BITS_PER_BLOCK * BLOCK_BYTES;
        for data in [
            1 << 20,
            step - 4096,
            step,
            step + 4096,
            (3_u64 << 40) + 4096,
        ] {
            let own = Layout::with_data(u64::MAX / 2, data, 2).unwrap();
            let end = data + own.metadata_bytes();
            let layout = Layout::for_external(data, end, 2).unwrap();
            assert_eq!(layout.data_bytes, data);
            assert_eq!(layout.metadata_offset(), data);
            let roomy = Layout::for_external(data, end + (1 << 20), 2).unwrap();
            assert_eq!(roomy.data_bytes, data);
            assert!(roomy.beside(data).is_some());
            assert_eq!(roomy.beside(data - 4096), None, "data crosses over");
            assert_eq!(
                roomy.beside(data + (2 << 20)),
                None,
                "metadata crosses over"
            );
        }
    }

    #[test]
    fn a_small_metadata_device_is_the_limit() {
        let step = BITS_PER_BLOCK * BLOCK_BYTES;
        let data = 3 * step;
        let own = Layout::with_data(u64::MAX / 2, 2 * step, 1).unwrap();
        let layout = Layout::for_external(data, data + own.metadata_bytes(), 1).unwrap();
        assert_eq!(layout.data_bytes, 2 * step);
        assert_eq!(Layout::for_external(data, data + 4096, 1), None);
        assert_eq!(Layout::for_external(data, data, 1), None);
        assert_eq!(Layout::for_external(data, 0, 1), None);
        assert_eq!(
            Layout::for_external(4096, 1 << 30, 1),
            None,
            "too little data"
        );
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let long = "é".repeat(NAME_MAX);
        let kept = External::new(0, Some(&long)).name.unwrap();
        assert_eq!(kept.len(), NAME_MAX);
        let odd = External::new(0, Some(&format!("x{long}"))).name.unwrap();
        assert_eq!(odd.len(), NAME_MAX - 1);
    }

    #[test]
    fn a_superblock_says_of_which_disk_it_is() {
        let own = Superblock {
            features: version::Features::OURS,
            mirror: Some(1),
            replica: 2,
            data_bytes: 1 << 20,
            ready_bytes: 1 << 20,
            settled_bytes: 1 << 20,
            intent_blocks: 1,
            generation: Generation(3),
            epoch: Epoch(4),
            state: ReplicaState::Consistent,
            boot: 5,
            led: false,
            undo: None,
            pairs: vec![Pair::new(NodeId(1))],
            source: None,
            seed: None,
            external: Some(External::new(1 << 20, Some("serial 1"))),
        };
        let read = |own: &Superblock| {
            let (_, content) = open(BlockKind::Super, 0, &own.seal(1)).unwrap();
            Superblock::parse(&content)
        };
        let found = read(&own).unwrap();
        assert_eq!(found.external, own.external);
        let longer = [own.content(), vec![0]].concat();
        let damaged = BlockFault::Damaged { newest: None };
        assert_eq!(Superblock::parse(&longer), Err(damaged));
        let seen_by_others: Superblock = postcard::from_bytes(&own.content()).unwrap();
        assert_eq!(seen_by_others.features.incompatible, version::EXTERNAL);
        let plain = Superblock {
            external: None,
            seed: None,
            ..found
        };
        assert_eq!(read(&plain).unwrap().features, version::Features::OURS);
        let too_large = Superblock {
            data_bytes: 2 << 20,
            ready_bytes: 2 << 20,
            ..own
        };
        assert!(read(&too_large).is_err(), "the data does not fit its disk");
    }
}
