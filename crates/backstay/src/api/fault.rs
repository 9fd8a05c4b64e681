//! A request that failed: an `application/problem+json` document (RFC 9457) with our code, action and reference.

use serde::{Deserialize, Serialize};

use crate::output::Lang;
use crate::render::catalogue::fill;

/// Media type of [`Fault`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Kinds of failed requests. Each has one HTTP status and one code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The body or a parameter cannot be read.
    Malformed,
    /// The path, group, node or event does not exist.
    NotFound,
    /// The path exists, but not with this method.
    Method,
    /// The caller is neither root nor the daemon's user.
    Forbidden,
    /// The body is larger than the server reads.
    TooLarge,
    /// The state of the cluster stands against it.
    Refused,
    /// The daemon is ending, or has too much to do.
    Busy,
    /// The daemon did not answer in time.
    Timeout,
}

impl FaultKind {
    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Method => 405,
            Self::Refused => 409,
            Self::TooLarge => 413,
            Self::Busy => 503,
            Self::Timeout => 504,
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Malformed | Self::Method | Self::TooLarge => "BS-601",
            Self::NotFound => "BS-602",
            Self::Forbidden => "BS-603",
            Self::Refused => "BS-604",
            Self::Busy | Self::Timeout => "BS-605",
        }
    }
}

/// The document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// HTTP status.
    pub status: u16,
    /// Stable code.
    pub code: String,
    /// What went wrong.
    pub message: String,
    /// Why.
    pub detail: String,
    /// What to do.
    pub action: String,
    /// Where to read more.
    pub see: String,
    /// For refused requests: the stable word of the reason, such as `already`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Fault {
    /// A failed request with its cause.
    pub fn new(kind: FaultKind, detail: impl Into<String>) -> Self {
        let code = kind.code();
        let text = |part: &str| fill(Lang::En, &format!("{part}.{code}"), &[]);
        Self {
            status: kind.status(),
            code: code.into(),
            message: text("problem"),
            detail: detail.into(),
            action: text("action"),
            see: format!("backstay help {code}"),
            reason: None,
        }
    }

    /// Adds the stable word of the reason.
    #[must_use]
    pub fn reason(mut self, reason: &str) -> Self {
        self.reason = Some(reason.into());
        self
    }
}
