//! What an activation has running on a machine beside the daemon: devices, the application, the address.

use crate::oracle::OpId;
use std::collections::{BTreeMap, BTreeSet};
use wire::{ByteRange, Epoch};

/// One request of the application to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) op: mirror::io::Op,
    pub(crate) range: ByteRange,
    /// What a write writes.
    pub(crate) content: u64,
}

/// The application's side of one mirror.
#[derive(Debug, Default)]
pub(crate) struct Device {
    /// Life of the process that serves it; requests wait while that one is gone.
    pub(crate) served_by: Option<u64>,
    /// Not answered yet. A new process gets all of them again.
    pub(crate) waiting: BTreeMap<OpId, Request>,
}

/// What runs. It outlives the daemon, not the machine.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: u64,
    /// The epoch that it was begun at.
    pub(crate) born: Epoch,
    /// Resources that run, by index.
    pub(crate) running: BTreeSet<u8>,
    pub(crate) devices: BTreeMap<u8, Device>,
    /// The application issues requests.
    pub(crate) working: bool,
    /// Its machine was frozen: its reads may be old.
    pub(crate) suspect: bool,
    /// It is being torn down.
    pub(crate) doomed: bool,
}

impl Instance {
    /// Nothing runs yet.
    pub(crate) const fn new(id: u64, born: Epoch) -> Self {
        Self {
            id,
            born,
            running: BTreeSet::new(),
            devices: BTreeMap::new(),
            working: false,
            suspect: false,
            doomed: false,
        }
    }

    /// Requests without an answer.
    pub(crate) fn open_requests(&self) -> usize {
        self.devices
            .values()
            .map(|device| device.waiting.len())
            .sum()
    }
}
