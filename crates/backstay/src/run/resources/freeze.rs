//! A mirror that stands still while somebody takes a snapshot of its disk.
//!
//! ```text
//!  asked ──► freeze (a thread): a process freezes, flush ──► stands still ──► it thaws ──► over
//!                          ▲ ends it, at any point: the asker is gone, the time is over, or anything of the group is to
//!                          │ start or to stop
//! ```
//! What is frozen is held by a process of its own ([`crate::freezer`]), which thaws when this one is gone, for whatever reason;
//! it cannot be done here, because this process serves the blocks that both write. Of a process that was killed a note is
//! left, and the next one thaws. A teardown thaws whatever it finds, and so does the keeper.

mod held;
mod order;

use super::plan::Plan;
use super::shared::Shared;
use super::watch::one_line;
use super::{filesystem, teardown};
use crate::api::body::Thawed;
use crate::api::server::{FreezeRequest, Hold, Standstill};
use crate::config::model::{Filesystem, Mirror};
use crate::failure::Failure;
use crate::freezer::Word;
use crate::nbd_client::Export;
pub(super) use held::leftover;
use held::{Held, noted, thaw_noted};
pub(super) use order::Freezer;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long an act of the group waits for a thaw.
pub(super) const THAW_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at what may end a freeze.
const PAUSE: Duration = Duration::from_millis(5);

/// Carries a request out, on a thread of its own.
pub(super) fn start(shared: &Arc<Shared>, request: FreezeRequest) {
    let shared = Arc::clone(shared);
    let spawned = thread::Builder::new()
        .name(format!("freeze {}", shared.plan.name))
        .spawn(move || run(&shared, request));
    if let Err(error) = spawned {
        tracing::error!(%error, "there is no thread for a freeze");
    }
}

fn run(shared: &Shared, request: FreezeRequest) {
    let (orders, told) = mpsc::channel();
    if let Err(why) = shared.freezer.begin(orders.clone()) {
        request.answer.send(Err(why.to_owned())).ok();
        return;
    }
    let ends = Ends {
        told,
        deadline: Instant::now() + request.limit,
    };
    match freeze(shared, &request, &ends) {
        Err(failure) => {
            let why = one_line(&failure);
            tracing::warn!(mirror = request.mirror, why, "not frozen");
            request.answer.send(Err(why)).ok();
        }
        Ok((still, place)) => {
            let (over, ended) = oneshot::channel();
            let still = still.standstill(Hold(orders), ended);
            tracing::info!(mirror = request.mirror, "stands still for a snapshot");
            // The asker may have gone: then its hold is dropped right here.
            request.answer.send(Ok(still)).ok();
            let why = stand_still(place, &ends);
            tracing::info!(mirror = request.mirror, ?why, "goes on");
            over.send(why).ok();
        }
    }
    shared.freezer.done();
}

/// Until something ends it: what, after the thaw.
fn stand_still(mut place: Option<Place<'_>>, ends: &Ends) -> Thawed {
    let why = loop {
        if place.as_mut().is_some_and(Place::is_over) {
            break match Instant::now() < ends.deadline {
                true => Thawed::Lost,
                false => Thawed::Timeout,
            };
        }
        if let Some(why) = ends.wait() {
            break why;
        }
    };
    match place.map_or(Word::Thawed, Place::thaw) {
        Word::Thawed => why,
        Word::Expired if why == Thawed::Timeout => why,
        Word::Frozen | Word::Expired | Word::Lost | Word::Failed(_) => Thawed::Lost,
    }
}

/// What ends a freeze from here.
struct Ends {
    told: mpsc::Receiver<Thawed>,
    deadline: Instant,
}

impl Ends {
    /// Waits a moment for one of them.
    fn wait(&self) -> Option<Thawed> {
        match self.told.recv_timeout(PAUSE) {
            Ok(why) => Some(why),
            Err(_) => (Instant::now() >= self.deadline).then_some(Thawed::Timeout),
        }
    }

    /// The same before it stands still, in words. The asker has no hold yet.
    fn given_up(&self, request: &FreezeRequest) -> Option<&'static str> {
        if request.answer.is_closed() {
            return Some("who asked for it is gone");
        }
        self.wait().map(|why| match why {
            Thawed::Timeout => "it did not stand still in time",
            Thawed::Released | Thawed::Stopped | Thawed::Lost => {
                "it was given up before it stood still"
            }
        })
    }
}

/// What the asker is told of.
struct Still {
    mount: Option<PathBuf>,
    disk: PathBuf,
    metadata: Option<PathBuf>,
}

impl Still {
    fn standstill(self, hold: Hold, over: oneshot::Receiver<Thawed>) -> Standstill {
        Standstill {
            mount: self.mount,
            disk: self.disk,
            metadata: self.metadata,
            over,
            hold,
        }
    }
}

/// Freezes the mirror's file system, if it has one, and makes everything before that durable on every replica.
fn freeze<'a>(
    shared: &'a Shared,
    request: &FreezeRequest,
    ends: &Ends,
) -> Result<(Still, Option<Place<'a>>), Failure> {
    let name = &request.mirror;
    let cannot = || Failure::new(format!("mirror {name} does not stand still"));
    let plan = &shared.plan;
    let found = plan.mirrors().find(|(_, mirror)| mirror.name == *name);
    let Some((index, mirror)) = found else {
        return Err(cannot().cause("the group has no such mirror"));
    };
    if shared.choice(index).is_none() {
        return Err(cannot().cause("it is not served by this node; ask the active one"));
    }
    let on_it = plan.filesystems().find(|one| one.mirror == *name);
    let place = on_it.map(|filesystem| Place::freeze(shared, filesystem, request, ends));
    let place = place.transpose()?;
    // From here on the place thaws when it is dropped.
    flush(plan, mirror, request, ends).map_err(|why| cannot().cause(why))?;
    let still = Still {
        mount: place.as_ref().map(|place| place.target.clone()),
        disk: plan.disk(mirror).unwrap_or_default(),
        metadata: plan.metadata(mirror),
    };
    Ok((still, place))
}

/// Durable on every replica that has to have it. It is left alone when something ends the freeze: nobody waits for it then.
fn flush(plan: &Plan, mirror: &Mirror, request: &FreezeRequest, ends: &Ends) -> Result<(), String> {
    let (socket, name) = (plan.nbd_socket(&mirror.name), mirror.name.clone());
    let left = ends.deadline.saturating_duration_since(Instant::now());
    let (sender, done) = mpsc::channel();
    let spawned = thread::Builder::new()
        .name("freeze flush".to_owned())
        .spawn(move || {
            let flushed =
                Export::open(&socket, &name, left.max(PAUSE)).and_then(|mut export| export.flush());
            sender.send(flushed).ok();
        });
    spawned.map_err(|error| format!("there is no thread for a flush: {error}"))?;
    loop {
        match done.try_recv() {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => {
                return Err(format!(
                    "what was written could not be made durable: {error}"
                ));
            }
            Err(mpsc::TryRecvError::Empty) => {}
            Err(mpsc::TryRecvError::Disconnected) => return Err("its flush failed".to_owned()),
        }
        if let Some(why) = ends.given_up(request) {
            return Err(why.to_owned());
        }
    }
}

/// A file system that stands still. Dropped, it runs again.
struct Place<'a> {
    shared: &'a Shared,
    target: PathBuf,
    device: String,
    held: Held,
}

impl<'a> Place<'a> {
    fn freeze(
        shared: &'a Shared,
        filesystem: &Filesystem,
        request: &FreezeRequest,
        ends: &Ends,
    ) -> Result<Self, Failure> {
        let (target, device) = ours(&shared.plan, filesystem)?;
        let cannot = |why: String| {
            Failure::new(format!("cannot freeze {}", filesystem.mount.display())).cause(why)
        };
        let left = ends.deadline.saturating_duration_since(Instant::now());
        let held = Held::start(&shared.plan, &target, &device, Some(left)).map_err(cannot)?;
        let mut place = Self {
            shared,
            target,
            device,
            held,
        };
        while !place.is_over() && !place.held.is_frozen {
            // It may wait for writers still, and is waited for all the same.
            if let Some(why) = ends.given_up(request) {
                return Err(cannot(why.to_owned()));
            }
        }
        match &place.held.last {
            Some(Word::Failed(why)) => return Err(cannot(why.clone())),
            Some(_) => return Err(cannot("it was thawed at once".to_owned())),
            None => {}
        }
        // A teardown may have taken it out of the tree meanwhile.
        let mounted = filesystem::mounted_at(&place.target)?;
        if mounted.is_none_or(|found| found.device != place.device) {
            return Err(cannot("it was unmounted meanwhile".to_owned()));
        }
        Ok(place)
    }

    /// True if it may run already.
    fn is_over(&mut self) -> bool {
        self.held.hear();
        self.held.last.is_some()
    }

    /// Thaws. [`Word::Thawed`] if it stood still until now.
    fn thaw(mut self) -> Word {
        self.end()
    }

    fn end(&mut self) -> Word {
        self.held.end();
        let word = self.held.last.clone().unwrap_or(Word::Lost);
        if noted(&self.shared.plan).is_some() {
            // It was killed, or could not.
            tracing::error!(mount = %self.target.display(), ?word, "it is thawed by another process");
            thaw_noted(&self.shared.plan);
            return Word::Lost;
        }
        word
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Where the group's own file system is mounted, and its device.
pub(super) fn ours(plan: &Plan, filesystem: &Filesystem) -> Result<(PathBuf, String), Failure> {
    let target = filesystem::target(filesystem)?;
    let cannot = || Failure::new(format!("cannot freeze {}", target.display()));
    let mounted = filesystem::mounted_at(&target)?;
    let mounted = mounted.ok_or_else(|| cannot().cause("nothing is mounted there"))?;
    if !teardown::is_ours(&plan.places(&filesystem.mirror), &mounted.source) {
        return Err(cannot().cause(format!(
            "{} is mounted there, which is not a device of mirror {}",
            mounted.source, filesystem.mirror
        )));
    }
    Ok((target, mounted.device))
}

impl Plan {
    fn disk(&self, mirror: &Mirror) -> Option<PathBuf> {
        mirror.disk(self.me).cloned()
    }

    fn metadata(&self, mirror: &Mirror) -> Option<PathBuf> {
        mirror.metadata(self.me).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_by_nobody_is_given_up_and_so_is_what_is_late() {
        let (orders, told) = mpsc::channel();
        let (answer, answered) = oneshot::channel();
        let request = FreezeRequest {
            group: wire::GroupId(0),
            mirror: "pgdata".to_owned(),
            limit: THAW_LIMIT,
            answer,
        };
        let mut ends = Ends {
            told,
            deadline: Instant::now() + THAW_LIMIT,
        };
        assert_eq!(ends.given_up(&request), None);
        orders.send(Thawed::Stopped).expect("it listens");
        assert!(ends.given_up(&request).is_some());
        ends.deadline = Instant::now();
        assert!(
            ends.given_up(&request)
                .is_some_and(|why| why.contains("in time"))
        );
        ends.deadline += THAW_LIMIT;
        drop(answered);
        assert!(
            ends.given_up(&request)
                .is_some_and(|why| why.contains("gone"))
        );
    }
}
