//! What travels and what rests: ids, units, time, control messages, mirror frames, on-disk layouts, events.
//!
//! This crate knows no clock, no socket and no file. Every type that leaves a process is defined here, once, together
//! with its version and its checksum. Bytes from a peer, a disk or a person are parsed into these types or refused.
//!
//! Map: [`id`] and [`units`] are the vocabulary; [`record`] is the register's content; [`control`] is what nodes tell each
//! other in sealed datagrams; [`mirror_frame`] is the mirror's byte stream; [`layout`] is the mirror's metadata on disk, with [`seed`],
//! and [`external`] whose it is; [`undo`] is the log that leads a resync's target back; [`durable`] is what a member keeps in its two-slot file; [`event`] and [`problem`] are what people
//! get to see.
#![forbid(unsafe_code)]

pub mod control;
pub mod digest;
pub mod durable;
pub mod event;
pub mod external;
pub mod id;
pub mod layout;
pub mod mirror_frame;
pub mod mutant;
pub mod problem;
pub mod record;
pub mod seed;
mod superblock;
pub mod time;
pub mod undo;
pub mod units;
pub mod version;

pub use external::External;
pub use id::{Ballot, Epoch, Generation, GroupId, NodeId, Nonce, SessionId, Version};
pub use record::{Member, Record, Sync};
pub use time::{Duration, Time};
pub use units::{ByteCount, ByteRange};
