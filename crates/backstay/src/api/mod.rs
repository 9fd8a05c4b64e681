//! The API, version 1: the same types on the daemon's and on the command line's side.
//!
//! Map: [`view`] is what status shows; [`body`] is what goes over the wire besides; [`fault`] is how a request fails;
//! [`server`] answers on the Unix socket (everything, for root and the daemon's user) and on loopback TCP (health and
//! metrics only); [`client`] is the command line's side; [`openapi`] describes it all.

pub mod body;
pub mod client;
pub mod fault;
pub mod mirror;
pub mod openapi;
pub mod server;
#[cfg(test)]
mod tests;
pub mod view;
