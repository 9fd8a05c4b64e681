//! What a group consists of on this node: devices, file systems, programs, addresses.
//!
//! ```text
//!  daemon ── act ──► worker (a thread per group): device, filesystem, exec, address
//!     │                 └── Done, Failed, Abandoned ──► daemon
//!     ├── freeze ──► freeze (a thread as long as a mirror stands still)
//!     ├── abandon ──► teardown (a thread of its own: overtakes whatever the worker waits for)
//!     └── lease ────► guard ──► the group's keeper, another process
//! ```
//! Nothing here decides. An act is idempotent: starting what runs adopts it, stopping what does not run succeeds. What is
//! needed to adopt is in the state directory and in the system itself.

mod address;
mod announcer;
mod device;
mod exec;
mod filesystem;
mod freeze;
mod guard;
mod plan;
mod shared;
mod teardown;
#[cfg(test)]
mod tests;
mod users;
mod watch;
mod worker;

use crate::api::server::FreezeRequest;
use crate::config::model::{Config, FrontEnd};
use crate::engine;
use crate::failure::Failure;
use crate::run::daemon::Events;
use node::ResourceAct;
use plan::Plan;
use shared::Shared;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use wire::{ByteCount, GroupId, NodeId, Time};
use worker::{Job, Worker};

/// The resources of all groups on this node. A node that only votes has none.
#[derive(Debug)]
pub(super) struct Resources {
    groups: BTreeMap<GroupId, Group>,
    found: Vec<GroupId>,
}

#[derive(Debug)]
struct Group {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
}

impl Resources {
    /// Gets ready, and looks for what an earlier daemon left. Starts and stops nothing, except that it ends what a keeper has
    /// begun to tear down.
    ///
    /// # Errors
    /// When something that the groups need is missing here.
    pub(super) fn start(
        config: &Arc<Config>,
        me: NodeId,
        state: &Path,
        events: &Events,
        engines: BTreeMap<(GroupId, u8), engine::Handle>,
    ) -> Result<Self, Failure> {
        let mut groups = BTreeMap::new();
        let mut found = Vec::new();
        for (id, _) in config.groups_by_id() {
            let Some(plan) = Plan::new(config, me, id, state)? else {
                continue;
            };
            let own = engines.iter().filter(|((group, _), _)| *group == id);
            let engines = own
                .map(|((_, mirror), engine)| (*mirror, engine.clone()))
                .collect();
            let group = Group::start(Arc::new(Shared::new(plan, engines, events.clone())))?;
            if group.resume()? {
                found.push(id);
            }
            groups.insert(id, group);
        }
        Ok(Self { groups, found })
    }

    /// The groups of which an earlier daemon left something running.
    pub(super) fn found(&self) -> Vec<GroupId> {
        self.found.clone()
    }

    /// A mirror's replica is attached and holds a volume of this size.
    pub(super) fn attached(&self, group: GroupId, mirror: u8, size: ByteCount) {
        if let Some(group) = self.groups.get(&group) {
            group.shared.set_size(mirror, size.0);
        }
    }

    /// A mirror that is served here has grown.
    pub(super) fn grown(&self, group: GroupId, mirror: u8, size: ByteCount) {
        if let Some(group) = self.groups.get(&group) {
            group.shared.set_size(mirror, size.0);
            group.order(Job::Grown { mirror });
        }
    }

    /// Starts or stops a resource; answered by [`Done`](super::daemon::ResourceEvent::Done).
    pub(super) fn act(&self, group: GroupId, resource: u8, act: ResourceAct, token: u64) {
        if let Some(group) = self.groups.get(&group) {
            let round = group.shared.round();
            group.order(Job::Act {
                resource,
                act,
                token,
                round,
            });
        }
    }

    /// Tears everything of a group down, whatever is under way; answered by [`Abandoned`](super::daemon::ResourceEvent::Abandoned).
    pub(super) fn abandon(&self, group: GroupId) {
        if let Some(group) = self.groups.get(&group) {
            group.abandon();
        }
    }

    /// Lets a mirror stand still for a snapshot.
    pub(super) fn freeze(&self, request: FreezeRequest) {
        match self.groups.get(&request.group) {
            Some(group) => freeze::start(&group.shared, request),
            None => {
                let why = "this node holds no replica".to_owned();
                request.answer.send(Err(why)).ok();
            }
        }
    }

    /// The end of a group's lease, for the keeper.
    pub(super) fn lease(&self, group: GroupId, until: Time) {
        if let Some(group) = self.groups.get(&group) {
            group.shared.guard.lease(until);
        }
    }

    /// The daemon's loop turns: the keepers have nothing to do.
    pub(super) fn beat(&self) {
        self.groups
            .values()
            .for_each(|group| group.shared.guard.beat());
    }

    /// How programs reach a mirror that is served here, and why not in a better way; none if it is not served here.
    pub(super) fn front_end(
        &self,
        group: GroupId,
        mirror: u8,
    ) -> Option<(FrontEnd, Option<String>)> {
        let choice = self.groups.get(&group)?.shared.choice(mirror)?;
        Some((choice.kind, choice.why))
    }

    /// Why a resource failed last, in one line; none if it has not, or is well again.
    pub(super) fn failure(&self, group: GroupId, resource: u8) -> Option<String> {
        let failure = self
            .groups
            .get(&group)?
            .shared
            .failure(usize::from(resource))?;
        Some(watch::one_line(&failure))
    }
}

impl Group {
    fn start(shared: Arc<Shared>) -> Result<Self, Failure> {
        let (jobs, inbox) = mpsc::channel();
        Worker::start(&shared, inbox).map_err(|e| {
            Failure::new(format!(
                "cannot start a thread for group {}",
                shared.plan.name
            ))
            .cause(e)
        })?;
        Ok(Self { shared, jobs })
    }

    /// Takes hold of what an earlier daemon left; true if there is something.
    fn resume(&self) -> Result<bool, Failure> {
        if self.shared.guard.resume()? {
            // Half of it is gone: nothing that could be adopted.
            teardown::run(&self.shared)?;
        }
        let remains = teardown::remains(&self.shared);
        freeze::leftover(&self.shared);
        if !remains.is_empty() {
            tracing::info!(
                group = self.shared.plan.name,
                ?remains,
                "found of an earlier daemon"
            );
        }
        Ok(!remains.is_empty() || self.shared.guard.find().is_some())
    }

    fn abandon(&self) {
        self.shared.next_round();
        let shared = Arc::clone(&self.shared);
        let teardown = thread::Builder::new()
            .name(format!("teardown {}", self.shared.plan.name))
            .spawn(move || {
                // The worker goes on until everything is gone.
                if let Err(failure) = teardown::run(&shared) {
                    tracing::warn!(why = watch::one_line(&failure), "teardown is not done yet");
                }
            });
        if let Err(error) = &teardown {
            tracing::error!(%error, "the teardown waits for the act that is under way");
        }
        self.order(Job::Abandon(teardown.ok()));
    }

    fn order(&self, job: Job) {
        // The worker ends only with the daemon.
        self.jobs.send(job).ok();
    }
}
