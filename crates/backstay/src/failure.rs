//! A command that failed, told as what, why and what next.

use std::fmt;

use crate::exit::Exit;

/// What a command's `run` gives back.
pub type Outcome = Result<Exit, Failure>;

/// A failed command: `error:`, `cause:` and `hint:` lines and an exit code.
///
/// Sentences are lower case, without a final period, and name the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    error: String,
    causes: Vec<String>,
    hint: Option<String>,
    exit: Exit,
    broken_pipe: bool,
}

impl Failure {
    /// A failure that ends with exit code 1.
    pub fn new(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            causes: Vec::new(),
            hint: None,
            exit: Exit::Error,
            broken_pipe: false,
        }
    }

    /// Adds one reason; call again for the reason behind it.
    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// Adds an error and everything in its `source()` chain as reasons.
    #[must_use]
    pub fn from_error(self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut failure = self.cause(error);
        let mut next = error.source();
        while let Some(source) = next {
            failure = failure.cause(source);
            next = source.source();
        }
        failure
    }

    /// Says what the person can do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Ends with another code than 1.
    #[must_use]
    pub const fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The reader of standard output went away, as `head` does: the end of the command, not its failure.
    pub fn broken_pipe() -> Self {
        let failure = Self::new("nobody reads standard output any more").exit(Exit::Ready);
        Self {
            broken_pipe: true,
            ..failure
        }
    }

    /// True for [`Failure::broken_pipe`]; nothing is said about it.
    pub const fn is_broken_pipe(&self) -> bool {
        self.broken_pipe
    }

    /// The exit code that this failure ends the process with.
    pub const fn exit_code(&self) -> Exit {
        self.exit
    }

    /// The labelled lines, in order: `("error", …)`, `("cause", …)`, `("hint", …)`.
    pub fn lines(&self) -> impl Iterator<Item = (&'static str, &str)> {
        std::iter::once(("error", self.error.as_str()))
            .chain(self.causes.iter().map(|cause| ("cause", cause.as_str())))
            .chain(self.hint.iter().map(|hint| ("hint", hint.as_str())))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (label, text)) in self.lines().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{:<6} {text}", format!("{label}:"))?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_reads_as_what_why_and_what_next() {
        let failure = Failure::new("cannot move group db to node-b")
            .cause("mirror pgdata is resyncing")
            .hint("wait, then try again");
        assert_eq!(
            failure.to_string(),
            "error: cannot move group db to node-b\ncause: mirror pgdata is resyncing\nhint:  wait, then try again"
        );
    }
}
