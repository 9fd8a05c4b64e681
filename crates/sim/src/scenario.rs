//! Directed scenarios: one story each, readable from top to bottom.

mod asynchronous;
mod forced;
mod growth;
mod lease;
mod mirror;
mod register;
mod service;

use crate::checkers::inconsistent_never_promoted;
use crate::fault::Fault;
use crate::options::{Options, Outcome};
use crate::run::guarded;
use crate::world::{B, GROUP, W, World};
use node::view::{GroupView, View};
use wire::control::{Obstacle, Role};
use wire::durable::{Durable, GroupDurable};
use wire::{Duration, Epoch, NodeId, Version};

/// One of them.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    name: &'static str,
    story: fn(&mut World),
    /// What is special about the cluster.
    bend: fn(&mut Options),
}

impl Scenario {
    const fn of(name: &'static str, story: fn(&mut World)) -> Self {
        let bend = |_: &mut Options| {};
        Self { name, story, bend }
    }

    const fn with(self, bend: fn(&mut Options)) -> Self {
        Self { bend, ..self }
    }
}

fn all() -> impl Iterator<Item = Scenario> {
    [
        service::ALL,
        register::ALL,
        lease::ALL,
        mirror::ALL,
        asynchronous::ALL,
        forced::ALL,
        growth::ALL,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// The names of all of them.
pub fn names() -> impl Iterator<Item = &'static str> {
    all().map(|scenario| scenario.name)
}

/// Plays a scenario; none if there is none of this name. `keep` lines of the story are kept.
#[must_use]
pub fn play(name: &str, seed: u64, keep: usize) -> Option<Outcome> {
    let scenario = all().find(|scenario| scenario.name == name)?;
    let mut options = Options {
        keep,
        ..Options::scenario(seed)
    };
    (scenario.bend)(&mut options);
    Some(guarded(World::new(options), |world| {
        if world.becomes_whole(secs(30)) {
            (scenario.story)(world);
        }
    }))
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl World {
    /// Lets time pass.
    fn pass(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Waits until the claim holds; a broken promise if it does not within the bound.
    fn expect(&mut self, bound: Duration, claim: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        if !self.run_until_or(bound, &mut holds) {
            self.violate("scenario", format!("not within {bound:?}: {claim}"));
        }
    }

    /// What a node shows; none if its daemon does not run.
    fn view(&mut self, at: NodeId) -> Option<View> {
        let now = self.now;
        let machine = self.machine(at);
        let local = machine.local(now);
        Some(machine.process.as_ref()?.node.view(local))
    }

    /// What a node shows of the group.
    fn group(&mut self, at: NodeId) -> Option<GroupView> {
        self.view(at)?.groups.into_iter().next()
    }

    /// What a node does for the group; none if its daemon does not run.
    fn role(&mut self, at: NodeId) -> Option<Role> {
        self.group(at)?.roles.get(&at).copied()
    }

    /// What stands against a failover, as a node sees it.
    fn obstacle(&mut self, at: NodeId) -> Option<Obstacle> {
        let group = self.group(at).filter(|group| !group.can_fail_over)?;
        group.why_not.map(|(_, obstacle)| obstacle)
    }

    /// Epoch of the record that a node shows; the first if it shows none.
    fn known_epoch(&mut self, at: NodeId) -> Epoch {
        let record = self.group(at).and_then(|group| group.record);
        record.map_or(Epoch(1), |record| record.epoch)
    }

    /// True if a node hears another at the moment.
    fn hears(&mut self, at: NodeId, other: NodeId) -> bool {
        let view = self.view(at);
        view.is_some_and(|view| view.nodes.get(&other).is_some_and(|node| node.up))
    }

    fn serves(&mut self, at: NodeId) -> bool {
        self.active() == Some(at) && self.missing_service().is_none()
    }

    /// Something that was started for the service is still there, in use or not.
    fn has_instance(&mut self, at: NodeId) -> bool {
        self.machine(at).instance.is_some()
    }

    /// Members that may be promoted.
    fn in_sync(&self) -> usize {
        self.checkers
            .epochs_rise
            .newest()
            .map_or(0, |record| record.promotable().len())
    }

    fn must(&mut self, holds: bool, claim: &str) {
        if !holds {
            self.violate("scenario", claim);
        }
    }

    /// The standby goes and comes back. Ends when the active has decided to count it in again; answers the version before.
    fn until_a_grow(&mut self) -> Version {
        self.pass(secs(1));
        let grows = self.checkers.grows;
        self.make(Fault::Power(B, millis(400)));
        self.expect(secs(8), "a grow is decided on", |w| {
            w.checkers.grows > grows
        });
        self.decided()
    }

    /// Ends when one of the two has accepted a record after this one.
    fn until_accepted(&mut self, before: Version) {
        self.expect(secs(2), "B or the witness accepts the proposal", |w| {
            w.accepted(B).max(w.accepted(W)) > before
        });
    }

    /// From here on there are few new writes, which might hide what is missing.
    fn pace_down(&mut self) {
        self.options.pace = millis(300);
    }

    /// The application must have got answers, with pauses shorter than this, since `longest_gap` was set to zero.
    fn must_have_answered(&mut self, pause: Duration) {
        let gap = self.checkers.longest_gap;
        if gap >= pause {
            self.violate("service_back", format!("nothing was answered for {gap:?}"));
        }
    }

    /// The metadata of a node's disk must say that its data is not to be served (G4).
    fn must_be_marked(&mut self, at: NodeId) {
        let disk = self.machine(at).disks.first();
        let marked = disk.is_none_or(|d| inconsistent_never_promoted::check(d.content()).is_err());
        if !marked {
            let what = format!("{at:?} holds a mixture and does not say so");
            self.violate("inconsistent_never_promoted", what);
        }
    }

    /// Ends a fault before its time.
    fn end(&mut self, fault: Fault) {
        let open = self.faults.open.iter().find(|(_, open)| **open == fault);
        if let Some(name) = open.map(|(name, _)| *name) {
            self.heal(name);
        }
    }

    /// What a node's register has on its disk.
    pub(crate) fn register(&mut self, at: NodeId) -> GroupDurable {
        let file = Durable::decode(&self.machine(at).file).ok();
        file.and_then(|mut durable| durable.groups.remove(&GROUP))
            .unwrap_or_default()
    }

    /// To whose ballot a node's register promised itself last, durably.
    fn promised(&mut self, at: NodeId) -> Option<NodeId> {
        let promised = self.register(at).acceptor.promised;
        promised.map(|ballot| ballot.node)
    }

    /// The newest record that a node accepted, durably.
    fn accepted(&mut self, at: NodeId) -> Version {
        let accepted = self.register(at).acceptor.accepted;
        accepted.map_or(Version(0), |(_, record)| record.version)
    }

    /// The newest record that anybody knows to be decided.
    fn decided(&self) -> Version {
        let newest = self.checkers.epochs_rise.newest();
        newest.map_or(Version(0), |record| record.version)
    }
}
