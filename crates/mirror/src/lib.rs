//! Sans-IO: one replica of one mirror.
#![forbid(unsafe_code)]
pub mod control;
