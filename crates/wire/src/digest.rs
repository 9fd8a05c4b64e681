//! Digests of content: replicas compare them instead of sending what both already have.

/// Size of a digest, in bytes.
pub const DIGEST_BYTES: usize = 32;

/// The BLAKE3 digest of a piece of content (Aumasson, Neves, O'Connor, Wilcox-O'Hearn, "BLAKE3", 2020). A cryptographic one:
/// somebody who chooses what is written to the volume must not be able to make two contents look equal.
#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Digest([u8; DIGEST_BYTES]);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Its bytes, as they go into a frame.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; DIGEST_BYTES] {
        &self.0
    }

    /// A digest out of a frame; none if the length is wrong.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }
}

impl core::fmt::Debug for Digest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{}",
            blake3::Hash::from_bytes(self.0).to_hex().split_at(12).0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_survives_a_frame() {
        let digest = Digest::of(b"content");
        assert_eq!(Digest::from_bytes(digest.as_bytes()), Some(digest));
        assert_eq!(Digest::from_bytes(&[0; 31]), None);
    }
}
