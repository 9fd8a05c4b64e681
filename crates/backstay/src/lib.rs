//! Backstay: two servers, one mirrored disk, one address.
//!
//! This crate holds the impure part: the run loop, the HTTP API, the command line, the lab and the demo.
//! The decisions are made in the pure crates `cluster`, `mirror` and `node`.
//!
//! A command plugs in with a module that has `pub struct Args` (a [`clap::Args`]) and
//! `pub fn run(args: &Args, ui: &output::Ui) -> failure::Outcome`, plus one variant and one match arm in [`cli`].

pub mod api;
pub mod cli;
pub mod config;
pub mod create;
pub mod demo;
pub mod engine;
pub mod eventlog;
pub mod exit;
pub mod failure;
pub mod freezer;
pub mod keeper;
mod kernel_device;
pub mod lab;
pub mod ledger;
mod nbd_client;
pub mod outbox;
pub mod output;
pub mod render;
pub mod run;
pub mod saved;
