//! The machine: one replica of one mirror on one node.

use crate::config::Config;
use crate::control::Figures;
use crate::io::{Input, Output};
use std::collections::VecDeque;
use wire::Time;

/// One replica of one mirror.
#[derive(Debug)]
pub struct Replica {
    config: Config,
    now: Time,
    out: VecDeque<Output>,
}

impl Replica {
    /// Starts to read the metadata; [`crate::control::Report::Attached`] or `AttachFailed` follows.
    #[must_use]
    pub fn new(config: Config, now: Time) -> Self {
        Self {
            config,
            now,
            out: VecDeque::new(),
        }
    }

    /// Takes one input. Times never go back.
    pub fn handle(&mut self, now: Time, input: Input) {
        self.now = now;
        drop(input);
    }

    /// The next output; the caller drains it before the next input.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`Input::Wake`] is wanted at the latest; none if nothing waits for time.
    #[must_use]
    pub fn wake_at(&self) -> Option<Time> {
        None
    }

    /// Figures for status and metrics.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let _ = &self.config;
        Figures::default()
    }
}
