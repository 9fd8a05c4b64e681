//! The API of a running daemon.
