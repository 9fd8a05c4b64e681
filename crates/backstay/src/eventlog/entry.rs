//! One line of the event log.
//!
//! A file begins with a [`Header`], and has another one after each start of the daemon: ids in events are places in the
//! configuration, and the header has the names that they had when the events were written.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use wire::event::{Event, Severity};

use crate::render::names::Names;

/// Version of the lines; raised when an older release could not read them.
pub const FORMAT: u32 = 1;

/// First line of a file and of each run of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`] of the lines that follow.
    pub backstay_events: u32,
    /// Names of the ids in the lines that follow.
    pub names: Names,
}

/// An event with its number and wall time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Number on this node, from 1, without gaps.
    pub seq: u64,
    /// Wall time in UTC, RFC 3339, microseconds.
    pub time: String,
    /// How much a person should care.
    pub severity: Severity,
    /// What happened, in ids.
    pub event: Event,
}

/// An entry with the names of its ids.
#[derive(Clone, Debug)]
pub struct Logged {
    /// The entry.
    pub entry: Entry,
    /// Names at the time of writing.
    pub names: Arc<Names>,
}

impl Entry {
    /// Gives an event its number, and the time of now.
    pub fn new(seq: u64, event: Event) -> Self {
        let time = format!("{:.6}", Timestamp::now());
        Self {
            seq,
            time,
            severity: event.what.severity(),
            event,
        }
    }

    /// True for events that must be on the disk at once: warnings and worse, and decisions.
    pub fn is_important(&self) -> bool {
        self.severity >= Severity::Warning
            || matches!(self.event.what, wire::event::What::Decision(_))
    }

    pub(super) fn to_line(&self) -> String {
        // Events are plain data: text, numbers, lists and maps with number keys, all of which JSON can write.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Header {
    pub(super) fn to_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
