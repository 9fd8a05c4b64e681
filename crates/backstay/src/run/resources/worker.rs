//! One thread per group that carries out one act after the other, and looks after what runs in between.

use super::device::{self, Front};
use super::shared::{Round, Shared};
use super::watch::{Watch, one_line};
use super::{address, exec, filesystem, freeze, teardown};
use crate::config::model::{Exec, Filesystem, Mirror, Resource};
use crate::failure::Failure;
use crate::run::daemon::ResourceEvent;
use host::netlink::route::Assigned;
use node::ResourceAct;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often what runs is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What the worker is to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Start or stop a resource, unless its round is over.
    Act {
        resource: u8,
        act: ResourceAct,
        token: u64,
        round: Round,
    },
    /// The volume of the mirror with this index among the mirrors has grown.
    Grown { mirror: u8 },
    /// Everything is being torn down by the thread given, if there is one: wait for it, see to it, and say so.
    Abandon(Option<JoinHandle<()>>),
}

/// A resource that runs.
#[derive(Debug)]
enum Running {
    Mirror(Front),
    Filesystem,
    Exec(Watch),
    Address(Assigned),
}

#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Job>,
    /// By index of the resource.
    running: Vec<Option<Running>>,
    look_at: Instant,
}

impl Worker {
    /// Starts the thread; it ends when the other end of `jobs` is dropped.
    ///
    /// # Errors
    /// When the system is out of threads.
    pub(super) fn start(shared: &Arc<Shared>, jobs: mpsc::Receiver<Job>) -> std::io::Result<()> {
        let running = shared.plan.resources.iter().map(|_| None).collect();
        let mut worker = Self {
            shared: Arc::clone(shared),
            jobs,
            running,
            look_at: Instant::now() + LOOK,
        };
        let thread = thread::Builder::new().name(format!("group {}", shared.plan.name));
        thread.spawn(move || worker.run()).map(drop)
    }

    fn run(&mut self) {
        loop {
            let left = self.look_at.saturating_duration_since(Instant::now());
            match self.jobs.recv_timeout(left) {
                Ok(Job::Act {
                    resource,
                    act,
                    token,
                    round,
                }) => {
                    self.carry_out(resource, act, token, round);
                }
                Ok(Job::Grown { mirror }) => self.grown(mirror),
                Ok(Job::Abandon(teardown)) => self.abandon(teardown),
                Err(mpsc::RecvTimeoutError::Timeout) => self.look(),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    // ---- acts -------------------------------------------------------------------------------------------------------

    fn carry_out(&mut self, resource: u8, act: ResourceAct, token: u64, round: Round) {
        let index = usize::from(resource);
        let begin = Instant::now();
        // Nothing of a group changes while a part of it stands still.
        let shared = Arc::clone(&self.shared);
        let _act = shared.freezer.act(freeze::THAW_LIMIT);
        let result = self.shared.check(round).and_then(|()| match act {
            ResourceAct::Start => self.start_resource(resource, round),
            ResourceAct::Stop => self.stop_resource(index),
        });
        match &result {
            Ok(()) => {
                self.shared.forget_failure(index);
                tracing::debug!(resource, ?act, took = ?begin.elapsed(), "act is done");
            }
            Err(failure) => {
                self.shared.note_failure(index, failure);
                tracing::error!(
                    group = self.shared.plan.name,
                    resource,
                    why = one_line(failure),
                    "act failed"
                );
            }
        }
        let group = self.shared.plan.id;
        self.shared.tell(ResourceEvent::Done {
            group,
            token,
            ok: result.is_ok(),
        });
    }

    fn start_resource(&mut self, resource: u8, round: Round) -> Result<(), Failure> {
        let index = usize::from(resource);
        let known = self.running.get_mut(index).and_then(Option::take);
        let shared = Arc::clone(&self.shared);
        let Some(wanted) = shared.plan.resources.get(index) else {
            return Err(Failure::new(format!("there is no resource {index}")));
        };
        let running = match (wanted, known) {
            // The node restarts no mirror; what serves goes on.
            (Resource::Mirror(_), Some(known @ Running::Mirror(_))) => known,
            (Resource::Mirror(mirror), _) => Running::Mirror(self.start_mirror(index, mirror)?),
            (Resource::Filesystem(filesystem), _) => {
                let device = self.device(filesystem)?;
                // A mount goes on without this process: the keeper knows of it before.
                self.set_steps(index, wanted, &Running::Filesystem);
                filesystem::start(filesystem, &device)?;
                Running::Filesystem
            }
            (Resource::Exec(exec), known) => {
                let watch = match known {
                    Some(Running::Exec(watch)) => Some(watch),
                    Some(Running::Mirror(_) | Running::Filesystem | Running::Address(_)) | None => {
                        None
                    }
                };
                Running::Exec(self.start_exec(resource, exec, watch, round)?)
            }
            (Resource::Address(address), _) => Running::Address(address::start(&shared, address)?),
        };
        self.set_steps(index, wanted, &running);
        if let Some(place) = self.running.get_mut(index) {
            *place = Some(running);
        }
        Ok(())
    }

    fn start_mirror(&self, index: usize, mirror: &Mirror) -> Result<Front, Failure> {
        device::start(&self.shared, self.mirror_index(index), mirror)
    }

    /// The device of a mirror that has grown takes the new size.
    fn grown(&mut self, number: u8) {
        let shared = Arc::clone(&self.shared);
        let _act = shared.freezer.act(freeze::THAW_LIMIT);
        let is_it = |index: &usize| self.mirror_index(*index) == number;
        let resources = shared.plan.resources.iter().enumerate();
        let mirrors = resources.filter_map(|(index, resource)| match resource {
            Resource::Mirror(mirror) => Some((index, mirror)),
            Resource::Filesystem(_) | Resource::Exec(_) | Resource::Address(_) => None,
        });
        let found = mirrors.into_iter().find(|(index, _)| is_it(index));
        let Some((index, mirror)) = found else {
            return;
        };
        let running = self.running.get_mut(index).and_then(Option::as_mut);
        if let Some(Running::Mirror(Front::Device(device))) = running
            && let Err(failure) = device::grown(&shared, number, mirror, device)
        {
            tracing::error!(
                mirror = mirror.name,
                why = one_line(&failure),
                "the device does not show the volume's new size yet"
            );
        }
    }

    fn start_exec(
        &self,
        resource: u8,
        exec: &Exec,
        known: Option<Watch>,
        round: Round,
    ) -> Result<Watch, Failure> {
        self.shared.guard.ensure()?;
        // The keeper must know what to kill before it runs.
        self.shared
            .set_steps(usize::from(resource), exec::steps(&self.shared));
        exec::start(&self.shared, resource, exec, known, round)
    }

    fn stop_resource(&mut self, index: usize) -> Result<(), Failure> {
        let known = self.running.get_mut(index).and_then(Option::take);
        let shared = Arc::clone(&self.shared);
        match (shared.plan.resources.get(index), known) {
            (Some(Resource::Mirror(mirror)), known) => {
                let known = match known {
                    Some(Running::Mirror(front)) => Some(front),
                    Some(Running::Filesystem | Running::Exec(_) | Running::Address(_)) | None => {
                        None
                    }
                };
                device::stop(&shared, self.mirror_index(index), mirror, known)?;
            }
            (Some(Resource::Filesystem(filesystem)), _) => filesystem::stop(filesystem)?,
            (Some(Resource::Exec(exec)), known) => {
                let watch = match known {
                    Some(Running::Exec(watch)) => Some(watch),
                    Some(Running::Mirror(_) | Running::Filesystem | Running::Address(_)) | None => {
                        None
                    }
                };
                exec::stop(&shared, exec, watch)?;
            }
            (Some(Resource::Address(address)), _) => address::stop(&shared, address)?,
            (None, _) => {}
        }
        shared.set_steps(index, Vec::new());
        if self.running.iter().all(Option::is_none) {
            shared.guard.release()?;
        }
        Ok(())
    }

    fn set_steps(&self, index: usize, resource: &Resource, running: &Running) {
        let steps = match (resource, running) {
            (Resource::Mirror(mirror), Running::Mirror(Front::Device(device))) => {
                device::steps(&self.shared.plan.places(&mirror.name), device)
            }
            (Resource::Filesystem(filesystem), _) => filesystem::steps(filesystem),
            (Resource::Exec(_), _) => exec::steps(&self.shared),
            (_, Running::Address(assigned)) => address::steps(*assigned),
            (Resource::Mirror(_) | Resource::Address(_), _) => Vec::new(),
        };
        self.shared.set_steps(index, steps);
    }

    /// The index among the mirrors of the resource with this index.
    fn mirror_index(&self, index: usize) -> u8 {
        let before = self.shared.plan.resources.iter().take(index);
        let mirrors = before
            .filter(|resource| matches!(resource, Resource::Mirror(_)))
            .count();
        u8::try_from(mirrors).unwrap_or(u8::MAX)
    }

    /// The device that a file system lives on.
    fn device(&self, filesystem: &Filesystem) -> Result<PathBuf, Failure> {
        let of_mirror =
            |(resource, running): (&Resource, &Option<Running>)| match (resource, running) {
                (Resource::Mirror(mirror), Some(Running::Mirror(Front::Device(device))))
                    if mirror.name == filesystem.mirror =>
                {
                    Some(device.path().to_owned())
                }
                _ => None,
            };
        let found = self
            .shared
            .plan
            .resources
            .iter()
            .zip(&self.running)
            .find_map(of_mirror);
        found.ok_or_else(|| {
            Failure::new(format!("cannot mount {}", filesystem.mount.display()))
                .cause(format!(
                    "mirror {} is not up as a block device",
                    filesystem.mirror
                ))
                .hint("a mirror with a file system needs another front_end than \"nbd-socket\"")
        })
    }

    // ---- the end ----------------------------------------------------------------------------------------------------

    fn abandon(&mut self, teardown: Option<JoinHandle<()>>) {
        // What is held here would keep the devices.
        self.running.iter_mut().for_each(|running| *running = None);
        if teardown.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(
                group = self.shared.plan.name,
                "the teardown's thread failed"
            );
        }
        // An act that was under way may have added something behind the teardown's back.
        teardown::insist(&self.shared);
        tracing::info!(
            group = self.shared.plan.name,
            "everything of the group is torn down"
        );
        self.shared.tell(ResourceEvent::Abandoned {
            group: self.shared.plan.id,
        });
    }

    // ---- in between -------------------------------------------------------------------------------------------------

    fn look(&mut self) {
        self.look_at = Instant::now() + LOOK;
        let group = self.shared.plan.id;
        let round = self.shared.round();
        for (index, resource) in self.shared.plan.resources.iter().enumerate() {
            let running = self.running.get(index).and_then(Option::as_ref);
            let well = match (resource, running) {
                (Resource::Mirror(mirror), Some(Running::Mirror(Front::Device(device)))) => {
                    self.look_at_keeper(mirror, device);
                    true
                }
                (Resource::Filesystem(filesystem), Some(Running::Filesystem)) => {
                    is_mounted(filesystem)
                }
                // Without a lease it may have been taken off for good reason.
                (_, Some(Running::Address(assigned))) => {
                    !self.shared.guard.has_lease() || address::keep(&self.shared, *assigned).is_ok()
                }
                _ => true,
            };
            if !well && self.shared.check(round).is_ok() {
                let resource = u8::try_from(index).unwrap_or(u8::MAX);
                self.shared.tell(ResourceEvent::Failed { group, resource });
            }
        }
    }

    /// A keeper that died is replaced: the next daemon would find nothing to adopt.
    fn look_at_keeper(&self, mirror: &Mirror, device: &device::Device) {
        let places = self.shared.plan.places(&mirror.name);
        let overview = self.shared.guard.find().map(|(_, overview)| overview);
        // One that tore the group down has ended this daemon by now.
        if overview.is_some_and(|o| {
            o.torn_down.is_some() || !device.wants_item() || o.items.contains(&places.item)
        }) {
            return;
        }
        tracing::warn!(
            mirror = mirror.name,
            "the keeper does not hold the device; it gets it again"
        );
        match device::entrust(&self.shared, &places, device) {
            Ok(()) => self.shared.tell_steps(),
            Err(failure) => tracing::warn!(why = one_line(&failure), "the keeper is not replaced"),
        }
    }
}

fn is_mounted(filesystem: &Filesystem) -> bool {
    let target = filesystem::target(filesystem).unwrap_or_else(|_| filesystem.mount.clone());
    match filesystem::mounted_at(&target) {
        Ok(Some(_)) | Err(_) => true,
        Ok(None) => {
            tracing::error!(mount = %target.display(), "file system was unmounted by somebody else");
            false
        }
    }
}
