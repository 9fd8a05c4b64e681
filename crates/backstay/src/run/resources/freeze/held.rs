//! The process that freezes, as the daemon sees it; and what one leaves behind that was killed.

use super::ours;
use crate::freezer::{self, Word};
use crate::run::resources::plan::Plan;
use crate::run::resources::shared::Shared;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// Between two looks at what it says.
const PAUSE: Duration = Duration::from_millis(5);

/// The process that holds a file system still, or thaws it.
pub(super) struct Held {
    child: Child,
    /// Closed, it thaws.
    input: Option<ChildStdin>,
    words: mpsc::Receiver<Word>,
    pub(super) is_frozen: bool,
    pub(super) last: Option<Word>,
}

impl Held {
    pub(super) fn start(
        plan: &Plan,
        target: &Path,
        device: &str,
        limit: Option<Duration>,
    ) -> Result<Self, String> {
        let cannot =
            |error: std::io::Error| format!("cannot start the process that does it: {error}");
        let [program, first @ ..] = plan.freezer.as_slice() else {
            return Err("there is no program that does it".to_owned());
        };
        let mut command = Command::new(program);
        command.args(first).arg("--mount").arg(target);
        command.args(["--device", device]);
        command.arg("--note").arg(plan.freeze_note());
        if let Some(limit) = limit {
            command.args(["--limit-ms", &limit.as_millis().to_string()]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(cannot)?;
        let input = child.stdin.take();
        let (sender, words) = mpsc::channel();
        let out = child.stdout.take();
        let reader = thread::Builder::new().name("freezer".to_owned());
        let reading = reader.spawn(move || {
            let lines = out.into_iter().flat_map(|out| BufReader::new(out).lines());
            for line in lines.map_while(Result::ok) {
                let word = Word::parse(&line).unwrap_or(Word::Failed(line));
                sender.send(word).ok();
            }
        });
        let mut held = Self {
            child,
            input,
            words,
            is_frozen: false,
            last: None,
        };
        if let Err(error) = reading {
            held.input = None;
            held.child.wait().ok();
            return Err(cannot(error));
        }
        Ok(held)
    }

    /// Takes in what it has said.
    pub(super) fn hear(&mut self) {
        while self.last.is_none() {
            match self.words.try_recv() {
                Ok(Word::Frozen) => self.is_frozen = true,
                Ok(last) => self.last = Some(last),
                Err(mpsc::TryRecvError::Empty) => return,
                Err(mpsc::TryRecvError::Disconnected) => {
                    self.last = Some(Word::Failed("the process that did it has ended".to_owned()));
                }
            }
        }
    }

    /// Has it end, and waits for that.
    pub(super) fn end(&mut self) {
        self.input = None;
        while self.last.is_none() {
            self.hear();
            thread::sleep(PAUSE);
        }
        self.child.wait().ok();
    }
}

/// The device of the group's file system that may be frozen without anybody who thaws it.
pub(super) fn noted(plan: &Plan) -> Option<String> {
    freezer::noted(&plan.freeze_note())
}

/// Thaws what is noted, once no other process is about to.
pub(super) fn thaw_noted(plan: &Plan) {
    let Some(device) = noted(plan) else {
        return;
    };
    for filesystem in plan.filesystems() {
        let Ok((target, found)) = ours(plan, filesystem) else {
            continue;
        };
        if found != device {
            continue;
        }
        match Held::start(plan, &target, &device, None) {
            Ok(mut held) => {
                held.end();
                tracing::info!(mount = %target.display(), last = ?held.last, "a freeze that was left is over");
            }
            Err(why) => tracing::error!(why, mount = %target.display(), "may be frozen"),
        }
    }
}

/// Thaws what an earlier daemon's snapshot left frozen, and nothing else. It may wait for the device, which is not served yet:
/// so nobody waits for it.
pub(in crate::run::resources) fn leftover(shared: &Arc<Shared>) {
    if noted(&shared.plan).is_none() {
        return;
    }
    shared.freezer.set_leftover(true);
    let thawed = Arc::clone(shared);
    let spawned = thread::Builder::new()
        .name("thaw".to_owned())
        .spawn(move || {
            thaw_noted(&thawed.plan);
            thawed.freezer.set_leftover(false);
        });
    if let Err(error) = spawned {
        shared.freezer.set_leftover(false);
        tracing::error!(%error, "a file system of an earlier snapshot may be frozen");
    }
}
