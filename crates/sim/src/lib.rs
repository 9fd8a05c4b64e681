//! A seeded world: three nodes with faulty networks, disks, clocks and processes, and an application that remembers what
//! it was promised.
//!
//! The nodes and replicas are the real ones ([`node::Node`], [`mirror::Replica`]); everything around them is simulated in one
//! thread, without a clock, from one seed. Equal seeds give equal runs, to the last bit.
//!
//! Map: [`World`] (`world.rs`) is the loop; `lives.rs` boots, kills and pauses; `shell.rs` and `engine.rs` are what the
//! daemon is around node and replica; `disk.rs`, `network.rs`, `transport.rs` are the environment; `application.rs`
//! asks for things and `oracle.rs` knows what it must get; `fault.rs` and `chaos.rs` break things; `checkers/` holds one
//! file per promise; [`scenario`] the directed ones.
#![forbid(unsafe_code)]
#![allow(
    clippy::wrong_self_convention,
    reason = "`to_…` names whom a message goes to"
)]

mod application;
mod chaos;
mod checkers;
mod clock;
mod disk;
mod engine;
mod fault;
mod history;
mod instance;
mod lives;
mod machine;
#[cfg(feature = "mutants")]
pub mod mutants;
mod network;
mod options;
mod oracle;
mod queue;
mod rng;
mod run;
pub mod scenario;
mod setup;
mod shell;
mod stream;
mod trace;
mod transport;
mod world;

pub use checkers::Violation;
pub use clock::Moment;
pub use fault::Fault;
pub use node::Timing;
pub use options::{FaultMix, Level, Options, Outcome};
pub use run::run;
pub use world::{A, B, W, World};
