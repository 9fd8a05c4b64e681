//! Tests of the cluster machines from outside: readable transcripts, and a seeded world of several members.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "a test stops at its own mistakes, looks at few variants, and takes its seed and bounds from the environment"
)]

mod explore;
mod transcripts;
mod world;
