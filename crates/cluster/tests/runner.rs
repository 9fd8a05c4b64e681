//! Tests of the cluster machines from outside: readable transcripts, and a seeded world of several members.

mod transcripts;
mod world;
