//! What went wrong, why, and what to do next.

use std::fmt;

/// The result of a command or a step.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// An answer for the person who ran the command.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    cause: Option<String>,
    hint: Option<String>,
}

impl Failure {
    /// `what` names the object, in lower case, without a period.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            cause: None,
            hint: None,
        }
    }

    /// Adds the underlying reason.
    pub(crate) fn because(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// Adds the next step.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        if let Some(cause) = &self.cause {
            write!(f, "\ncause: {cause}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint:  {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// Gives an operating system error the verb phrase of what was tried.
pub(crate) trait Context<T> {
    /// `doing` is a verb phrase such as `read spec/Late.cfg`.
    fn context(self, doing: impl Into<String>) -> Outcome<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, doing: impl Into<String>) -> Outcome<T> {
        self.map_err(|cause| Failure::new(format!("cannot {}", doing.into())).because(cause))
    }
}
