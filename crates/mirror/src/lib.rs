//! Sans-IO: one replica of one mirror.
//!
//! Map: [`control`] is the interface to the node, [`io`] the contract with the engine, [`config`] what is told once;
//! [`replica`] is the machine.
#![forbid(unsafe_code)]

pub mod config;
pub mod control;
pub mod io;
pub mod replica;

pub use config::{Ack, Config};
pub use replica::Replica;
