//! Versions and feature bits of everything that two releases of Backstay may exchange.
//!
//! Rule: release N talks with N−1. A reader refuses a format newer than it knows, and a set *incompatible* feature bit
//! that it does not know; *compatible* bits that it does not know are ignored and kept.

/// Version of the control datagrams' payload ([`crate::control`]).
pub const CONTROL: u16 = 1;
/// Version of the mirror stream ([`crate::mirror_frame`]).
pub const MIRROR: u16 = 1;
/// Version of the mirror's metadata on disk ([`crate::layout`]).
pub const LAYOUT: u16 = 2;
/// Version of a member's two-slot file ([`crate::durable`]).
pub const DURABLE: u16 = 1;

/// Incompatible, of superblocks only: the metadata is on a device of its own, and the superblock names its disk.
pub const EXTERNAL: u32 = 1;
/// Incompatible, of superblocks only: it has a seed ([`crate::seed`]), which must be compared with the disk.
pub const SEEDED: u32 = 2;
/// Incompatible, of superblocks only: an undo log leads back from the mixture ([`crate::undo`]); who goes on with a resync must keep it.
pub const UNDO: u32 = 8;

/// Compatible, of a mirror stream's Hello only: it grows while it is served ([`crate::mirror_frame::Kind::Room`] and what follows).
pub const GROWS: u32 = 1;

/// Feature bits of one side: what it offers (`compatible`) and what the other must know (`incompatible`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Features {
    /// May be ignored by who does not know them.
    pub compatible: u32,
    /// Must be refused by who does not know them.
    pub incompatible: u32,
}

impl Features {
    /// What everything of this release has. No feature beyond the base yet.
    pub const OURS: Self = Self {
        compatible: 0,
        incompatible: 0,
    };

    /// True if every incompatible bit of the other side is known here.
    #[must_use]
    pub const fn understood(self) -> bool {
        self.incompatible & !Self::OURS.incompatible == 0
    }
}
