//! What daemon and keeper tell each other: postcard, one message per packet.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use wire::{Duration, Time};

/// Version of these messages. A keeper may be older than the daemon that finds it; both refuse another version.
pub(super) const VERSION: u32 = 2;

/// Until when the daemon may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The lease's end on `CLOCK_BOOTTIME`; [`Time::MAX`] for a lease without an end.
    pub until: Time,
    /// What is left to the daemon after that to stop by itself.
    pub grace: Duration,
}

impl Lease {
    /// When the keeper acts.
    #[must_use]
    pub fn deadline(&self) -> Time {
        self.until + self.grace
    }
}

/// One step of a teardown. A step that fails or takes too long does not keep the next from being done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Kill every process in a control group, and wait a moment for their end.
    KillCgroup {
        /// Its directory.
        dir: PathBuf,
    },
    /// Take an address off an interface.
    DropAddress {
        /// The interface's index.
        interface: u32,
        /// The address.
        ip: IpAddr,
        /// Length of its prefix, in bits.
        prefix: u8,
    },
    /// Break the FUSE connection mounted there: everything that waits for the device gets an error and can end. It has
    /// to come before the file system on the device is unmounted, which would wait for a daemon that hangs.
    AbortFuse {
        /// Where it is mounted.
        target: PathBuf,
    },
    /// Take a mount out of the tree.
    Unmount {
        /// Where it is mounted.
        target: PathBuf,
    },
    /// Detach a loop device.
    DetachLoop {
        /// `/dev/loopN`.
        device: PathBuf,
    },
    /// Take a ublk device out of the system. A server that still has it is killed first: it is not entitled to serve any more,
    /// and the kernel would wait for its answers.
    StopUblk {
        /// N of `/dev/ublkbN`.
        id: u32,
        /// Whose it has to be.
        identity: String,
    },
    /// Detach an NBD device.
    DetachNbd {
        /// N of `/dev/nbdN`.
        index: u32,
        /// Whose it has to be.
        identity: String,
    },
    /// Close a descriptor that the keeper holds.
    Close {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillCgroup { dir } => write!(f, "kill {}", dir.display()),
            Self::DropAddress { ip, prefix, .. } => write!(f, "drop address {ip}/{prefix}"),
            Self::AbortFuse { target } => write!(f, "abort {}", target.display()),
            Self::Unmount { target } => write!(f, "unmount {}", target.display()),
            Self::DetachLoop { device } => write!(f, "detach {}", device.display()),
            Self::StopUblk { id, .. } => write!(f, "stop /dev/ublkb{id}"),
            Self::DetachNbd { index, .. } => write!(f, "detach /dev/nbd{index}"),
            Self::Close { name } => write!(f, "close {name}"),
        }
    }
}

/// How one step went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step.
    pub step: Step,
    /// How long it took.
    pub took: Duration,
    /// What went wrong.
    pub error: Option<String>,
}

/// The keeper has torn the group down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TornDown {
    /// The lease that had run out.
    pub lease: Lease,
    /// When it began.
    pub at: Time,
    /// What was done.
    pub steps: Vec<StepReport>,
}

/// A descriptor that the keeper holds; the descriptor itself travels beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// What the daemon wants to know about it.
    pub blob: Vec<u8>,
}

/// The keeper's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    /// The keeper's process.
    pub pid: u32,
    /// The group that it guards.
    pub group: String,
    /// What it holds, by name.
    pub items: Vec<String>,
    /// The lease, if one was set.
    pub lease: Option<Lease>,
    /// What it will do when the lease has run out.
    pub steps: Vec<Step>,
    /// What it did.
    pub torn_down: Option<TornDown>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// First of all.
    Hello { version: u32 },
    /// Keep the descriptor that comes with this; replaces one of the same name.
    Put(Item),
    /// Give a copy of a descriptor.
    Get { name: String },
    /// Close a descriptor.
    Forget { name: String },
    /// Tell everything.
    Overview,
    /// Set or renew the lease.
    SetLease(Lease),
    /// Take the lease away: nothing will be torn down.
    EndLease,
    /// Replace the steps.
    SetSteps(Vec<Step>),
    /// The daemon has taken note of the teardown.
    Reset,
    /// The group was stopped in order: close everything and end.
    Release,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Done,
    /// The descriptor comes with this.
    Item(Item),
    Missing,
    Overview(Overview),
    /// Refused: the group was torn down, and the daemon has not taken note of it.
    TornDown(TornDown),
    /// Refused, in words.
    Refused(String),
}
