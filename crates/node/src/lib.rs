//! Sans-IO: one node. The only place where lease meets mirror meets address.
//!
//! A [`Node`] is told the time and what happened ([`Input`]) and says what is to be done ([`Output`]). It never waits,
//! never reads a clock and never touches the outside: the daemon and the simulator drive the same code.
//!
//! Map: [`Node`] (`machine.rs`) routes inputs and composes datagrams; [`group`] is the life of one group on this node,
//! with one file per duty: its states (`state.rs`), the register (`record.rs`), following and taking over (`standby.rs`),
//! serving (`active.rs`), starting and stopping resources (`start.rs`, `stop.rs`), changes of the sets (`sets.rs`), what
//! people ask (`asks.rs`), a promotion by force (`force.rs`), what beats and status say (`standing.rs`); [`explain`] turns
//! decisions into events; [`view`] is what status shows.
#![forbid(unsafe_code)]

pub mod config;
pub mod explain;
pub mod group;
pub mod io;
mod machine;
mod problems;
pub mod view;

pub use config::{Config, GroupConfig, NodeRole, ResourceConfig, ResourceKind, Timing};
pub use io::{Input, Output, ResourceAct};
pub use machine::Node;
