//! The machine as its driver sees it.

use crate::attach::Attach;
use crate::config::Config;
use crate::control::{Command, Figures};
use crate::io::{Input, Output};
use crate::machine::Machine;
use crate::role::Role;
use std::collections::VecDeque;
use wire::Time;

/// One replica of one mirror. See [`crate::io`] for how to drive it.
#[derive(Debug)]
pub struct Replica {
    state: State,
    /// Commands that came before the metadata was read, in order; at most [`EARLY_MAX`].
    early: VecDeque<Command>,
}

/// More commands than this before the disk is attached are dropped: a node waits for the report first.
const EARLY_MAX: usize = 64;

#[derive(Debug)]
enum State {
    /// Reads the metadata.
    Attaching(Box<Attach>),
    Attached(Box<Machine>),
}

impl Replica {
    /// Starts to read the metadata; [`crate::control::Report::Attached`] or `AttachFailed` follows.
    #[must_use]
    pub fn new(config: Config, now: Time) -> Self {
        Self {
            state: State::Attaching(Box::new(Attach::new(config, now))),
            early: VecDeque::new(),
        }
    }

    /// Takes one input. Times never go back.
    pub fn handle(&mut self, now: Time, input: Input) {
        match (&mut self.state, input) {
            (State::Attached(machine), Input::Command(command)) if machine.is_attaching() => {
                self.keep(command);
            }
            (State::Attached(machine), input) => machine.handle(now, input),
            (State::Attaching(_), Input::Command(command)) => self.keep(command),
            (State::Attaching(attach), input) => {
                if let Some(machine) = attach.handle(now, input) {
                    self.state = State::Attached(machine);
                }
            }
        }
        self.replay(now);
    }

    fn keep(&mut self, command: Command) {
        if self.early.len() < EARLY_MAX {
            self.early.push_back(command);
        }
    }

    fn replay(&mut self, now: Time) {
        let State::Attached(machine) = &mut self.state else {
            return;
        };
        while !machine.is_attaching() {
            let Some(command) = self.early.pop_front() else {
                return;
            };
            machine.handle(now, Input::Command(command));
        }
    }

    /// The next output; the caller drains it before the next input.
    pub fn poll(&mut self) -> Option<Output> {
        match &mut self.state {
            State::Attaching(attach) => attach.poll(),
            State::Attached(machine) => machine.out.pop_front(),
        }
    }

    /// When [`Input::Wake`] is wanted at the latest; none if nothing waits for time.
    #[must_use]
    pub fn wake_at(&self) -> Option<Time> {
        match &self.state {
            State::Attaching(attach) => attach.wake_at(),
            State::Attached(machine) => machine.wake_at(),
        }
    }

    /// The attached machine.
    pub(crate) const fn machine(&self) -> Option<&Machine> {
        match &self.state {
            State::Attaching(_) => None,
            State::Attached(machine) => Some(machine),
        }
    }

    /// The attached machine, for tests that change something inside.
    #[cfg(test)]
    pub(crate) fn machine_mut(&mut self) -> Option<&mut Machine> {
        match &mut self.state {
            State::Attaching(_) => None,
            State::Attached(machine) => Some(machine),
        }
    }

    /// Size of the volume, in bytes; 0 until the metadata is read.
    #[must_use]
    pub const fn data_bytes(&self) -> u64 {
        match &self.state {
            State::Attaching(_) => 0,
            State::Attached(machine) => machine.layout.data_bytes,
        }
    }

    /// Figures for status and metrics.
    #[must_use]
    pub fn figures(&self) -> Figures {
        match &self.state {
            State::Attaching(_) => Figures::default(),
            State::Attached(machine) => machine.figures(),
        }
    }
}

impl Machine {
    const fn is_attaching(&self) -> bool {
        matches!(self.role, Role::Attaching(_))
    }
}
