//! What goes into a node and what comes out.

use mirror::control::{Command, Report};
use wire::control::{Datagram, GroupRequest, LinkId, RequestFault};
use wire::durable::Durable;
use wire::event::Event;
use wire::{GroupId, NodeId, Nonce, Time};

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A datagram came on a link. Its seal was opened and its sender checked.
    Received {
        /// On which link.
        link: LinkId,
        /// What it says.
        datagram: Datagram,
    },
    /// The durable state of [`Output::Persist`] with this ticket, and of all lower ones, is on disk.
    Persisted {
        /// The ticket.
        ticket: u64,
    },
    /// A mirror's replica has handled the commands up to this serial number: they are in force.
    Taken {
        /// Whose.
        group: GroupId,
        /// Index of the mirror in the group.
        mirror: u8,
        /// Of [`Output::Mirror`].
        serial: u64,
    },
    /// A mirror's replica reports.
    Mirror {
        /// Whose.
        group: GroupId,
        /// Index of the mirror in the group.
        mirror: u8,
        /// What.
        report: Report,
    },
    /// An act on a resource ended.
    ResourceDone {
        /// Whose.
        group: GroupId,
        /// Of which act.
        token: u64,
        /// True if it succeeded.
        ok: bool,
    },
    /// A running resource's monitor says that it failed.
    ResourceFailed {
        /// Whose.
        group: GroupId,
        /// Index in the group's list.
        resource: u8,
    },
    /// Everything of the group's activation is gone from this machine: [`Output::Abandon`] is done.
    Abandoned {
        /// Whose.
        group: GroupId,
    },
    /// At start: an earlier daemon left this group's activation running (device, mounts or processes).
    Found {
        /// Whose.
        group: GroupId,
    },
    /// A person asks on this node.
    Ask {
        /// For the answer.
        id: Nonce,
        /// Which group.
        group: GroupId,
        /// What.
        request: GroupRequest,
        /// Their words.
        reason: String,
    },
    /// Time passed: `wake_at` is reached.
    Wake,
}

/// What is to be done. Outputs are carried out in the order given; [`Output::Lease`] is in force in the kernel before
/// the next one is taken.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send on this link.
    Send {
        /// To whom.
        to: NodeId,
        /// On which link.
        link: LinkId,
        /// What.
        datagram: Datagram,
    },
    /// Make this durable, then answer [`Input::Persisted`]. A failure ends the process.
    Persist {
        /// Rises.
        ticket: u64,
        /// The whole state.
        durable: Durable,
    },
    /// Tell a mirror's replica.
    Mirror {
        /// Whose.
        group: GroupId,
        /// Index of the mirror in the group.
        mirror: u8,
        /// Rises per group; answered by [`Input::Taken`] once the replica handled the command.
        serial: u64,
        /// What.
        command: Command,
    },
    /// Start or stop a resource. Starting what already runs succeeds (a restarted daemon adopts).
    Resource {
        /// Whose.
        group: GroupId,
        /// Index in the group's list.
        resource: u8,
        /// What.
        act: ResourceAct,
        /// For the answer.
        token: u64,
    },
    /// Tear down everything of the group's activation without asking: address first, then kill, unmount, close.
    Abandon {
        /// Whose.
        group: GroupId,
    },
    /// The address gate and the device answer only before this time (R8, R12).
    Lease {
        /// Whose.
        group: GroupId,
        /// [`Time::MAX`] for a solo active; [`Time::ZERO`] closes at once.
        until: Time,
    },
    /// For the event log.
    Event(Event),
    /// Answer to [`Input::Ask`].
    Answer {
        /// The request's id.
        id: Nonce,
        /// Taken, or why not.
        result: Result<(), RequestFault>,
    },
}

/// What to do with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceAct {
    /// Make it run.
    Start,
    /// Make it not run.
    Stop,
}
