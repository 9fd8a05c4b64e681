//! One row of the ledger, as it is stored and sent.

/// Bytes of a stored row.
pub const ROW_BYTES: usize = 128;
/// Bytes of a row's content.
pub const CONTENT_BYTES: usize = 104;
/// "BLR1": what a stored row starts with.
const MAGIC: u32 = u32::from_le_bytes(*b"BLR1");

const _: () = assert!(
    CONTENT_BYTES + 4 + 4 + 8 + 8 == ROW_BYTES,
    "no gaps in a stored row"
);

/// A numbered row. Its content follows from seed and number, so that a reader can check it without the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Place in the client's sequence, from 1.
    pub number: u64,
    /// Which run wrote it.
    pub seed: u64,
    content: [u8; CONTENT_BYTES],
}

impl Row {
    /// The row that a run with `seed` writes at `number`.
    pub fn new(seed: u64, number: u64) -> Self {
        let mut state = seed ^ number.rotate_left(32);
        let mut content = [0; CONTENT_BYTES];
        for chunk in content.chunks_exact_mut(8) {
            chunk.copy_from_slice(&split_mix(&mut state).to_le_bytes());
        }
        Self {
            number,
            seed,
            content,
        }
    }

    /// True if the content is the one that belongs to seed and number.
    pub fn is_genuine(&self) -> bool {
        *self == Self::new(self.seed, self.number)
    }

    /// The stored form, checksum included.
    pub fn encode(&self) -> [u8; ROW_BYTES] {
        let mut bytes = [0; ROW_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.seed.to_le_bytes());
        bytes[24..].copy_from_slice(&self.content);
        let sum = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads the stored form; nothing if it was not written whole.
    pub fn decode(bytes: &[u8; ROW_BYTES]) -> Option<Self> {
        let word = |at: usize| {
            bytes[at..]
                .first_chunk::<8>()
                .map(|word| u64::from_le_bytes(*word))
        };
        let half = |at: usize| {
            bytes[at..]
                .first_chunk::<4>()
                .map(|word| u32::from_le_bytes(*word))
        };
        if half(0)? != MAGIC || half(4)? != crc32c::crc32c(&bytes[8..]) {
            return None;
        }
        let mut content = [0; CONTENT_BYTES];
        content.copy_from_slice(&bytes[24..]);
        Some(Self {
            number: word(8)?,
            seed: word(16)?,
            content,
        })
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_row_comes_back_and_is_genuine() {
        let row = Row::new(7, 42);
        assert_eq!(Row::decode(&row.encode()), Some(row));
        assert!(row.is_genuine());
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let good = Row::new(7, 42).encode();
        for byte in 0..ROW_BYTES {
            let mut bad = good;
            bad[byte] ^= 0x10;
            assert_eq!(Row::decode(&bad), None, "byte {byte}");
        }
        assert_eq!(Row::decode(&[0; ROW_BYTES]), None);
    }

    #[test]
    fn rows_of_other_numbers_and_runs_differ() {
        assert_ne!(Row::new(7, 42).content, Row::new(7, 43).content);
        assert_ne!(Row::new(7, 42).content, Row::new(8, 42).content);
    }
}
