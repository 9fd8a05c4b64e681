//! Programs that run beside a scenario.

use std::process::{Child, Command, ExitStatus};

use crate::failure::{Context, Outcome};
use crate::shell;

/// For fio: its jobs are threads. As processes they go on, and spin, when fio is killed.
pub(crate) const ONE_PROCESS: &str = "--thread";

/// A program that ends with the scenario at the latest.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Running {
    /// Starts it and says so.
    pub(crate) fn start(command: &mut Command) -> Outcome<Self> {
        let line = shell::describe(command);
        println!("$ {line}");
        command.spawn().map(Self).context(format!("start `{line}`"))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// True until it has ended by itself.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Waits for its own end.
    pub(crate) fn end(mut self) -> Outcome<ExitStatus> {
        self.0.wait().context("wait for a program")
    }
}

impl Running {
    /// Asks it to end, and waits for that.
    pub(crate) fn terminate(self) -> Outcome<ExitStatus> {
        let pid = self.0.id().to_string();
        shell::run(Command::new("kill").args(["-TERM", &pid]))?;
        self.end()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to do.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
