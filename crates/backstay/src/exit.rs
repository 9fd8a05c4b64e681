//! Exit codes of every command, fixed for scripts.

use std::process::ExitCode;

/// How a command ended. The numbers are a promise to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// 0: fine; for `status`: every group can fail over now.
    Ready,
    /// 1: the command failed.
    Error,
    /// 2: the command line was wrong.
    Usage,
    /// 3: serving, but a group could not fail over.
    Degraded,
    /// 4: a group is not served.
    Down,
    /// 5: the state could not be learned.
    Unknown,
}

impl Exit {
    /// The number that the process ends with, 0 to 5.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ready => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::Degraded => 3,
            Self::Down => 4,
            Self::Unknown => 5,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
