//! The API, version 1: the same types on the daemon's and on the command line's side.

pub mod view;
