//! The breaks, described as data: what is done, what has to come of it, and within which time.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::lab::fault::NodeFault;
use crate::lab::state::Profile;
use crate::lab::topology::Network;

/// A break by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Break {
    /// Everything on the active is killed and its links are cut
    Node,
    /// The active's daemon is killed
    Daemon,
    /// Every process of the active stands still for 15 s
    Hang,
    /// One heartbeat path is cut
    Link,
    /// The mirror's path is cut
    LinkMirror,
    /// Active and standby are cut from each other, both reach the witness
    Partition,
    /// The active is cut from everybody
    Isolate,
    /// The witness is killed
    Witness,
    /// The standby is killed, then the witness
    StandbyWitness,
    /// The witness is killed, then the standby: frozen by design
    WitnessStandby,
    /// The workload is killed
    App,
    /// The workload ends whenever it starts: held by design
    AppLoop,
    /// The active loses power, with what its disk had not flushed
    Power,
    /// Both data nodes lose power
    PowerBoth,
    /// The active's disk answers with errors
    DiskError,
    /// The active's disk does not answer
    DiskHang,
}

/// A node by its part at the moment of the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// The one that serves.
    Active,
    /// The other data node.
    Standby,
    /// The witness.
    Witness,
}

/// One step of a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Does something to a node.
    Node(Who, NodeFault),
    /// Cuts a network for everybody.
    CutNetwork(Network),
    /// Cuts a node from everybody.
    CutNode(Who),
    /// Cuts two nodes from each other.
    CutPair(Who, Who),
    /// Makes the workload end whenever it starts.
    AppFails,
    /// Waits until the active counts itself alone, and says so in the record.
    AwaitSolo,
}

/// What has to come of a break before it is healed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// The standby serves.
    Moved,
    /// The same node serves.
    Stayed,
    /// One of the two serves.
    Served,
    /// Nothing is answered, because answering would not be safe.
    Frozen,
    /// Restarts and failover did not help: held for a person.
    Held,
    /// Nothing can be answered: nothing is left that runs.
    Dark,
}

/// A break with everything that its runner needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    /// Its name.
    pub(super) name: Break,
    /// What is broken, for people.
    pub(super) what: &'static str,
    /// In this order.
    pub(super) steps: &'static [Step],
    /// What has to come of it.
    pub(super) expected: Expected,
    /// How long the fault lasts at least; long enough for a wrong reaction to show.
    pub(super) lasts: Duration,
    /// Longest outage that the client may see, in ms for `lan` and for `fast`; none where service is withheld by design or
    /// nothing is left to serve.
    pub(super) bound_ms: Option<(u64, u64)>,
}

impl Scenario {
    /// The bound under `profile`, in ms. Nothing is promised for `cloud` on one machine.
    pub(super) const fn bound(&self, profile: Profile) -> Option<u64> {
        match (self.bound_ms, profile) {
            (Some((lan, _)), Profile::Lan) => Some(lan),
            (Some((_, fast)), Profile::Fast) => Some(fast),
            (_, Profile::Cloud) | (None, _) => None,
        }
    }

    /// True if service is withheld by design, so that there is no outage to measure.
    pub(super) const fn is_withheld(&self) -> bool {
        matches!(self.expected, Expected::Frozen | Expected::Held)
    }
}

/// The scenario of a break.
pub(super) fn scenario(name: Break) -> Option<&'static Scenario> {
    PAIR.iter().find(|scenario| scenario.name == name)
}

/// A fault with this length has outlived every time limit of the profiles `lan` and `fast`.
const OUTLIVES_LIMITS: Duration = Duration::from_secs(3);
/// As the contract says.
const HANG: Duration = Duration::from_secs(15);
/// The reaction itself ends the wait.
const SHORT: Duration = Duration::ZERO;

/// Every break of the topology `pair`, in the order of a full run.
pub(super) static PAIR: [Scenario; 16] = [
    Scenario {
        name: Break::Node,
        what: "the active's links are cut and all its processes killed",
        steps: &[
            Step::CutNode(Who::Active),
            Step::Node(Who::Active, NodeFault::Kill),
        ],
        expected: Expected::Moved,
        lasts: SHORT,
        bound_ms: Some((2000, 1000)),
    },
    Scenario {
        name: Break::Daemon,
        what: "the active's daemon is killed; its disk stays mounted",
        steps: &[Step::Node(Who::Active, NodeFault::Daemon)],
        expected: Expected::Served,
        lasts: SHORT,
        bound_ms: Some((2000, 2000)),
    },
    Scenario {
        name: Break::Hang,
        what: "every process of the active stands still for 15 s, then goes on",
        steps: &[Step::Node(Who::Active, NodeFault::Stop)],
        expected: Expected::Moved,
        lasts: HANG,
        bound_ms: Some((2000, 1000)),
    },
    Scenario {
        name: Break::Link,
        what: "one of the two heartbeat paths is cut",
        steps: &[Step::CutNetwork(Network::Heartbeat1)],
        expected: Expected::Stayed,
        lasts: OUTLIVES_LIMITS,
        bound_ms: Some((200, 200)),
    },
    Scenario {
        name: Break::LinkMirror,
        what: "the mirror's path is cut; heartbeats go on",
        steps: &[Step::CutNetwork(Network::Mirror), Step::AwaitSolo],
        expected: Expected::Stayed,
        lasts: OUTLIVES_LIMITS,
        bound_ms: Some((1000, 1000)),
    },
    Scenario {
        name: Break::Partition,
        what: "active and standby are cut from each other; both reach the witness",
        steps: &[Step::CutPair(Who::Active, Who::Standby)],
        expected: Expected::Served,
        lasts: OUTLIVES_LIMITS,
        bound_ms: Some((3000, 3000)),
    },
    Scenario {
        name: Break::Isolate,
        what: "the active is cut from everybody, and runs on",
        steps: &[Step::CutNode(Who::Active)],
        expected: Expected::Moved,
        lasts: OUTLIVES_LIMITS,
        bound_ms: Some((2000, 1000)),
    },
    Scenario {
        name: Break::Witness,
        what: "the witness is killed",
        steps: &[Step::Node(Who::Witness, NodeFault::Kill)],
        expected: Expected::Stayed,
        lasts: OUTLIVES_LIMITS,
        bound_ms: Some((200, 200)),
    },
    Scenario {
        name: Break::StandbyWitness,
        what: "the standby is killed, and then the witness",
        steps: &[
            Step::Node(Who::Standby, NodeFault::Kill),
            Step::AwaitSolo,
            Step::Node(Who::Witness, NodeFault::Kill),
        ],
        expected: Expected::Stayed,
        lasts: OUTLIVES_LIMITS,
        bound_ms: Some((200, 200)),
    },
    Scenario {
        name: Break::WitnessStandby,
        what: "the witness is killed, and then the standby: one of three cannot know",
        steps: &[
            Step::Node(Who::Witness, NodeFault::Kill),
            Step::Node(Who::Standby, NodeFault::Kill),
        ],
        expected: Expected::Frozen,
        lasts: OUTLIVES_LIMITS,
        bound_ms: None,
    },
    Scenario {
        name: Break::App,
        what: "the workload is killed on the active",
        steps: &[Step::Node(Who::Active, NodeFault::App)],
        expected: Expected::Stayed,
        lasts: SHORT,
        bound_ms: Some((1000, 1000)),
    },
    Scenario {
        name: Break::AppLoop,
        what: "the workload ends whenever it starts, on either node",
        steps: &[Step::AppFails, Step::Node(Who::Active, NodeFault::App)],
        expected: Expected::Held,
        lasts: SHORT,
        bound_ms: None,
    },
    Scenario {
        name: Break::Power,
        what: "the active loses power; unflushed writes are lost or torn",
        steps: &[Step::Node(Who::Active, NodeFault::Power)],
        expected: Expected::Moved,
        lasts: SHORT,
        bound_ms: Some((2000, 1000)),
    },
    Scenario {
        name: Break::PowerBoth,
        what: "both data nodes lose power; unflushed writes are lost or torn on each",
        steps: &[
            Step::Node(Who::Active, NodeFault::Power),
            Step::Node(Who::Standby, NodeFault::Power),
        ],
        expected: Expected::Dark,
        lasts: SHORT,
        bound_ms: None,
    },
    Scenario {
        name: Break::DiskError,
        what: "the active's disk answers with errors",
        steps: &[Step::Node(Who::Active, NodeFault::DiskError)],
        expected: Expected::Served,
        lasts: OUTLIVES_LIMITS,
        bound_ms: Some((3000, 3000)),
    },
    Scenario {
        name: Break::DiskHang,
        what: "the active's disk does not answer",
        steps: &[Step::Node(Who::Active, NodeFault::DiskHang)],
        expected: Expected::Served,
        lasts: OUTLIVES_LIMITS,
        bound_ms: Some((5000, 5000)),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_break_has_one_scenario() {
        for name in Break::value_variants() {
            assert_eq!(
                PAIR.iter()
                    .filter(|scenario| scenario.name == *name)
                    .count(),
                1,
                "{name:?}"
            );
        }
    }

    #[test]
    fn only_withheld_or_dark_breaks_go_without_a_bound() {
        for scenario in &PAIR {
            let unbounded = scenario.is_withheld() || scenario.expected == Expected::Dark;
            assert_eq!(
                scenario.bound_ms.is_none(),
                unbounded,
                "{:?}",
                scenario.name
            );
        }
    }
}
