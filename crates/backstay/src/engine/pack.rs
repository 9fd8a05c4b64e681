//! Content made smaller for the way to a peer: one LZ4 block per frame (<https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>).

use host::ring::Buf;

/// Shorter content is not worth it.
const PACK_MIN: usize = 1024;
/// What packing has to save, as a part of the content: one in so many bytes.
const GAIN: usize = 8;

/// The content as one LZ4 block; none if that would save little.
pub(super) fn pack(content: &[u8]) -> Option<Vec<u8>> {
    if content.len() < PACK_MIN {
        return None;
    }
    let packed = lz4_flex::block::compress(content);
    (packed.len() <= content.len() - content.len() / GAIN).then_some(packed)
}

/// The `len` bytes that were packed; none if these are not them.
pub(super) fn unpack(packed: &[u8], len: usize) -> Option<Buf> {
    let mut content = Buf::new(len);
    let found = lz4_flex::block::decompress_into(packed, &mut content).ok()?;
    (found == len).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_packs_comes_back_and_noise_is_left_alone() {
        let text: Vec<u8> = b"a row of a table, and "
            .iter()
            .copied()
            .cycle()
            .take(4096)
            .collect();
        let packed = pack(&text).unwrap();
        assert!(packed.len() < 200);
        assert_eq!(unpack(&packed, 4096).unwrap()[..], text[..]);
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        });
        assert!(pack(&noise.take(4096).collect::<Vec<u8>>()).is_none());
        assert!(pack(&text[..512]).is_none());
    }

    #[test]
    fn another_length_or_garbage_is_refused() {
        let packed = pack(&[7; 4096]).unwrap();
        assert!(unpack(&packed, 4096).is_some());
        assert!(unpack(&packed, 4095).is_none());
        assert!(unpack(&packed, 8192).is_none());
        assert!(unpack(&packed[..packed.len() - 1], 4096).is_none());
        for first in 0..=u8::MAX {
            let mut bad = packed.clone();
            bad[0] = first;
            drop(unpack(&bad, 4096));
        }
    }
}
