//! Sans-IO: one replica of one mirror.
//!
//! A [`Replica`] is driven by one thread: the engine's, or the simulator's. It decides by range, buffer handle and epoch
//! what is written where and when a write may be acknowledged; bytes never pass through it.
//!
//! # Map
//! [`control`] is the interface to the node, [`io`] the contract with the driver, [`config`] what is told once.
//!
//! | module | owns |
//! |---|---|
//! | `replica`, `attach` | the outside; reading the metadata |
//! | `machine`, `role` | the state; where inputs go; what the replica is for its node |
//! | `job`, `room` | the path of every write: range lock → intent log → disk (and peers) |
//! | `request`, `flush` | the front end while active: requests, lease, flushes |
//! | `activate` | becoming active, changes of the sets, the orderly end |
//! | `renew` | what a restarted replica writes again before it serves |
//! | `session`, `links`, `peer`, `resync`, `pace` | the active's side of a session |
//! | `common` | what two standbys of one active need, so that one can follow the other |
//! | `follower`, `spool`, `lag` | asynchronous: what waits for a follower, and its bound |
//! | `aside` | asynchronous: what is saved before it is replaced |
//! | `standby`, `standby_ops` | the standby's side |
//! | `compare`, `verify`, `mend` | chunks compared by digest; verifying online; places that cannot be read |
//! | `superblock`, `intent`, `bitmap`, `planes` | metadata: wanted, being written, durable |
//! | `undo` | the target of a resync saves what it overwrites |
//! | `way_back` | undoing an unfinished resync by that, while nobody runs the replica |
//! | `grow` | making a replica that nobody runs larger |
//! | `gain`, `growing` | making a volume larger that is served: every replica's part; the active's |
//! | `inspect`, `survey` | for people: what a disk's metadata says, and where replicas may differ |
//! | `ranges`, `bits`, `runs`, `nodes`, `disk` | small parts without opinions |
//!
//! # What holds at any time
//! For a replica that is or was active, and a peer:
//! 1. *Nothing is forgotten.* A block in which the peer may lack something is marked in the bitmap, or its region is
//!    in the intent log; and in either case so on disk (the own, or the peer's, which tells it in its Hello).
//! 2. *One order.* Overlapping writes start one after another, and go to a peer in the order in which they started.
//! 3. *No early word.* A reply needs the local disk, every required peer in the state `Live`, and a lease.
//! 4. *No way back.* After a failed disk operation none is started any more; after [`control::Command::Fence`] nothing of
//!    an older epoch is applied.
#![forbid(unsafe_code)]

mod activate;
mod ahead;
mod aside;
mod attach;
mod bitmap;
mod bits;
mod common;
mod compare;
pub mod config;
pub mod control;
mod disk;
mod flush;
mod follower;
mod gain;
pub mod grow;
mod growing;
pub mod inspect;
mod intent;
pub mod io;
mod job;
mod lag;
mod links;
mod machine;
mod mend;
mod nodes;
mod pace;
mod peer;
mod planes;
mod ranges;
mod renew;
pub mod replica;
mod request;
mod resync;
mod role;
mod room;
pub mod runs;
mod session;
mod spool;
mod standby;
mod standby_ops;
mod superblock;
pub mod survey;
mod undo;
mod verify;
pub mod way_back;
#[cfg(test)]
mod world;

pub use config::{Ack, Apart, Bound, Config};
pub use replica::Replica;
