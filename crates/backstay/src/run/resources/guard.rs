//! The group's keeper: started when there is something to guard, told of the lease, and released when nothing is left.
//!
//! The keeper acts only when the daemon does not: its deadline is [`GRACE`] after the lease's end *and* after the daemon's last
//! beat. A daemon that is frozen without a lease, but alive, keeps the group as it is.

use super::plan::Plan;
use super::shared::lock;
use crate::failure::Failure;
use crate::run::daemon::{Event, Events};
use host::clock;
use host::keeper::{Client, ClientError, Lease, Overview, Step, TornDown};
use host::process::{Launch, Launcher, Process, Streams, spawn};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use wire::Time;

/// What is left to a daemon that died or hangs to come back and decide by itself. Long enough for a restart, short enough that
/// a group without a daemon does not hang about.
const GRACE: Duration = Duration::from_secs(10);
/// How often the keeper hears of the daemon.
const BEAT: Duration = Duration::from_millis(500);
/// How long a keeper may take to start or to end.
const KEEPER_LIMIT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(2);

/// One group's keeper, whether it runs or not.
#[derive(Debug)]
pub(super) struct Guard {
    group: String,
    socket: PathBuf,
    log: PathBuf,
    launcher: Launcher,
    /// Program and first arguments.
    command: Vec<String>,
    wanted: bool,
    desk: Arc<Desk>,
    /// The keeper, if this daemon started it: to be waited for when it ends.
    child: Mutex<Option<Process>>,
}

/// What the thread that talks to the keeper has to say.
#[derive(Debug)]
struct Desk {
    wish: Mutex<Wish>,
    changed: Condvar,
}

#[derive(Clone, Debug)]
struct Wish {
    /// There is a keeper to talk to.
    on: bool,
    until: Time,
    /// When the daemon's loop was last seen turning.
    beat: Time,
    steps: Option<Vec<Step>>,
    ended: bool,
}

impl Guard {
    /// Starts the thread that talks to the keeper; the keeper itself comes with [`Guard::ensure`].
    pub(super) fn new(plan: &Plan, events: Events) -> Self {
        let wish = Wish {
            on: false,
            until: Time::ZERO,
            beat: clock::now(),
            steps: None,
            ended: false,
        };
        let desk = Arc::new(Desk {
            wish: Mutex::new(wish),
            changed: Condvar::new(),
        });
        let guard = Self {
            group: plan.name.clone(),
            socket: plan.keeper_socket(),
            log: plan.keeper_log(),
            launcher: plan.launcher.clone(),
            command: plan.keeper.clone(),
            wanted: plan.wants_keeper(),
            desk,
            child: Mutex::new(None),
        };
        if guard.wanted {
            guard.start_talking(events);
        }
        guard
    }

    fn start_talking(&self, events: Events) {
        let (desk, socket, group) = (
            Arc::clone(&self.desk),
            self.socket.clone(),
            self.group.clone(),
        );
        let thread = thread::Builder::new().name(format!("keeper {}", self.group));
        let spawned = thread.spawn(move || talk(&desk, &socket, &group, &events));
        if let Err(error) = spawned {
            tracing::error!(%error, group = self.group, "the keeper will not hear of the lease");
        }
    }

    /// The lease's end; from the daemon's thread.
    pub(super) fn lease(&self, until: Time) {
        let mut wish = lock(&self.desk.wish);
        wish.until = until;
        wish.beat = clock::now();
        drop(wish);
        self.desk.changed.notify_all();
    }

    /// True while the lease, as the node told it, runs.
    pub(super) fn has_lease(&self) -> bool {
        lock(&self.desk.wish).until > clock::now()
    }

    /// The daemon's loop turns.
    pub(super) fn beat(&self) {
        lock(&self.desk.wish).beat = clock::now();
    }

    /// What the keeper shall undo if it has to.
    pub(super) fn set_steps(&self, steps: Vec<Step>) {
        lock(&self.desk.wish).steps = Some(steps);
        self.desk.changed.notify_all();
    }

    /// The keeper that runs, if one does.
    pub(super) fn find(&self) -> Option<(Client, Overview)> {
        self.wanted
            .then(|| Client::connect(&self.socket).ok())
            .flatten()
    }

    /// A connection to the keeper, which is started if it does not run.
    pub(super) fn ensure(&self) -> Result<Client, Failure> {
        let failed = || Failure::new(format!("cannot use the keeper of group {}", self.group));
        let (client, overview) = match Client::connect(&self.socket) {
            Ok(found) => found,
            Err(ClientError::Absent { .. }) => {
                self.start()?;
                self.connect()?
            }
            Err(error) => return Err(failed().from_error(&error)),
        };
        lock(&self.desk.wish).on = true;
        self.desk.changed.notify_all();
        if overview.torn_down.is_some() {
            // The thread that talks to the keeper hears of it as well, and ends the daemon.
            return Err(
                failed().cause("it tore the group down, because it did not hear of this daemon")
            );
        }
        Ok(client)
    }

    /// Goes on with the keeper of an earlier daemon. True if that keeper tore the group down meanwhile.
    pub(super) fn resume(&self) -> Result<bool, Failure> {
        let Some((client, overview)) = self.find() else {
            return Ok(false);
        };
        if let Some(torn_down) = &overview.torn_down {
            tell_torn_down(&self.group, torn_down);
            client.reset().map_err(|error| {
                Failure::new(format!("cannot use the keeper of group {}", self.group))
                    .from_error(&error)
            })?;
        }
        lock(&self.desk.wish).on = true;
        self.desk.changed.notify_all();
        Ok(overview.torn_down.is_some())
    }

    fn start(&self) -> Result<(), Failure> {
        let socket = self.socket.display().to_string();
        let arguments = ["--group", &self.group, "--socket", &socket].map(str::to_owned);
        let command = [&self.command[..], &arguments].concat();
        let launch = Launch {
            command,
            ..Launch::default()
        };
        let keeper =
            spawn(&self.launcher, &launch, Streams::Log(self.log.clone())).map_err(|e| {
                Failure::new(format!("cannot start the keeper of group {}", self.group))
                    .from_error(&e)
            })?;
        *lock(&self.child) = Some(keeper);
        Ok(())
    }

    fn connect(&self) -> Result<(Client, Overview), Failure> {
        let deadline = Instant::now() + KEEPER_LIMIT;
        loop {
            let error = match Client::connect(&self.socket) {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            let ended = lock(&self.child)
                .as_ref()
                .is_some_and(|c| !matches!(c.try_wait(), Ok(None)));
            if ended || Instant::now() >= deadline {
                return Err(Failure::new(format!(
                    "the keeper of group {} does not start",
                    self.group
                ))
                .from_error(&error)
                .hint(format!("see {}", self.log.display())));
            }
            thread::sleep(RETRY);
        }
    }

    /// Nothing is left to guard: the keeper ends. Fine if there is none.
    pub(super) fn release(&self) -> Result<(), Failure> {
        let mut wish = lock(&self.desk.wish);
        (wish.on, wish.steps) = (false, None);
        drop(wish);
        self.desk.changed.notify_all();
        let Some((client, _)) = self.find() else {
            return Ok(());
        };
        let failed = || Failure::new(format!("cannot release the keeper of group {}", self.group));
        client.release().map_err(|e| failed().from_error(&e))?;
        let deadline = Instant::now() + KEEPER_LIMIT;
        // A keeper that is about to end would take what a new activation gives it along.
        while Client::connect(&self.socket).is_ok() {
            if Instant::now() >= deadline {
                return Err(failed().cause("it does not end"));
            }
            thread::sleep(RETRY);
        }
        if let Some(child) = lock(&self.child).take()
            && let Err(error) = child.wait(KEEPER_LIMIT)
        {
            tracing::debug!(%error, "the keeper was not waited for");
        }
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        lock(&self.desk.wish).ended = true;
        self.desk.changed.notify_all();
    }
}

/// Tells the keeper whatever changes, and at least every [`BEAT`] until when the daemon was well.
fn talk(desk: &Desk, socket: &std::path::Path, group: &str, events: &Events) {
    let mut client: Option<Client> = None;
    let mut told: Option<Time> = None;
    loop {
        let mut wish = lock(&desk.wish);
        if told == Some(wish.until) && wish.steps.is_none() && !wish.ended {
            let waited = desk.changed.wait_timeout(wish, BEAT);
            wish = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let now = wish.clone();
        wish.steps = None;
        drop(wish);
        if now.ended {
            return;
        }
        told = Some(now.until);
        if !now.on {
            client = None;
            continue;
        }
        if let Err(error) = tell(&mut client, socket, &now) {
            client = None;
            if let ClientError::TornDown(torn_down) = &error {
                tell_torn_down(group, torn_down);
                tracing::error!(group, "this daemon was too late and ends, to begin anew");
                events.send(Event::End).ok();
                return;
            }
            tracing::warn!(%error, group, "the keeper was not reached");
            put_back(desk, now.steps);
            thread::sleep(BEAT);
        }
    }
}

/// Steps that were not told, unless there are newer ones.
fn put_back(desk: &Desk, steps: Option<Vec<Step>>) {
    let mut wish = lock(&desk.wish);
    if wish.steps.is_none() {
        wish.steps = steps;
    }
}

fn tell(
    client: &mut Option<Client>,
    socket: &std::path::Path,
    wish: &Wish,
) -> Result<(), ClientError> {
    let client = match client {
        Some(client) => client,
        None => client.insert(Client::connect(socket)?.0),
    };
    if let Some(steps) = &wish.steps {
        client.set_steps(steps.clone())?;
    }
    let until = match wish.until {
        Time::MAX => Time::MAX,
        until => until.max(wish.beat),
    };
    client.set_lease(Lease {
        until,
        grace: GRACE,
    })
}

fn tell_torn_down(group: &str, torn_down: &TornDown) {
    for step in &torn_down.steps {
        match &step.error {
            None => tracing::info!(group, step = %step.step, took = ?step.took, "keeper did"),
            Some(error) => {
                tracing::warn!(group, step = %step.step, %error, "keeper tried");
            }
        }
    }
    tracing::error!(
        group,
        "the keeper tore the group down: the lease ran out and no daemon was there"
    );
}
