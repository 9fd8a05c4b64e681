//! `backstay mirror snapshot`: runs a command while a mirror's file system stands still.
//!
//! The daemon freezes and thaws. It thaws as soon as this process reads its answer no longer, for whatever reason: so an end of
//! this process, by a signal or a crash, is enough. The command gets no further than this process: it is killed with it. After
//! the command's end the daemon is asked to thaw, and what it answers tells whether everything stood still until then.

use std::io;
use std::ops::ControlFlow;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::api::body::{Frozen, StillFrozen, Thawed, Thawing};
use crate::api::client::{Client, ClientError};
use crate::cli::{Global, connect};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::lab::interrupt;
use crate::output::Ui;

/// Between two looks at the command.
const LOOK: Duration = Duration::from_millis(20);
/// What the daemon may take beyond the time limit until it answers.
const ANSWER_SLACK: Duration = Duration::from_secs(5);
/// How long a thaw is waited for.
const THAW_LIMIT: Duration = Duration::from_secs(5);

/// `backstay mirror snapshot`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Mirror, on the node that serves it
    mirror: String,
    /// Longest time that it stands still; then the command is killed
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = connect::span)]
    timeout: Duration,
    /// Command that takes the snapshot, and its arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What the daemon says.
#[derive(Debug)]
enum Said {
    Frozen(Box<Frozen>),
    Still,
    Thawed(Thawed),
    /// The stream ended; with why, if it never began.
    Over(Option<ClientError>),
}

pub(super) fn run(args: &Args, global: &Global, ui: &Ui) -> Outcome {
    interrupt::listen()?;
    let stream = Stream::start(args, global.socket_path())?;
    let frozen = stream.frozen(args)?;
    match &frozen.mount {
        Some(mount) => ui.talk(format_args!("{mount} stands still")),
        None => ui.talk(format_args!(
            "note: mirror {} has no file system here: it is flushed, and writes go on",
            args.mirror
        )),
    }
    let mut running = Running::start(args, &frozen)?;
    let ended = match running.watch(args, &stream) {
        Ok(ended) => ended,
        Err(failure) => {
            running.kill();
            // What the command still writes ends only with the freeze.
            drop(stream);
            return Err(failure);
        }
    };
    stream.release(args, global, &frozen).map_err(|why| {
        broken(args)
            .cause(why)
            .hint("a snapshot that the command took is not to be relied upon; `backstay events` shows what happened")
    })?;
    match ended.code() {
        Some(0) => Ok(Exit::Ready),
        Some(code) => std::process::exit(code),
        None => std::process::exit(128 + ended.signal().unwrap_or(0)),
    }
}

fn broken(args: &Args) -> Failure {
    Failure::new(format!("the snapshot of mirror {} failed", args.mirror))
}

/// The daemon's answer, read by a thread of its own.
struct Stream {
    said: Receiver<Said>,
    enough: Arc<AtomicBool>,
}

impl Stream {
    fn start(args: &Args, socket: PathBuf) -> Result<Self, Failure> {
        let path = format!(
            "/api/v1/mirrors/{}/freeze?limit_ms={}",
            connect::segment(&args.mirror)?,
            args.timeout.as_millis()
        );
        let limit = args.timeout + ANSWER_SLACK;
        let (sender, said) = mpsc::channel();
        let enough = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&enough);
        let client = Client::new(&socket)?;
        thread::spawn(move || {
            let done = client.hold(&path, limit, |data| {
                let gone = sender.send(parse(data)).is_err();
                if gone || over.load(Ordering::Relaxed) {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            });
            sender.send(Said::Over(done.err())).ok();
        });
        Ok(Self { said, enough })
    }

    /// Waits until the mirror stands still.
    fn frozen(&self, args: &Args) -> Result<Frozen, Failure> {
        loop {
            if interrupt::is_raised() {
                return Err(broken(args).cause("interrupted"));
            }
            match self.said.recv_timeout(LOOK) {
                Ok(Said::Frozen(frozen)) => return Ok(*frozen),
                Ok(Said::Still) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Said::Thawed(why)) => return Err(broken(args).cause(words(why))),
                Ok(Said::Over(Some(error))) => {
                    return Err(error.failure(&format!("let mirror {} stand still", args.mirror)));
                }
                Ok(Said::Over(None)) | Err(RecvTimeoutError::Disconnected) => {
                    return Err(broken(args).cause("the daemon ended"));
                }
            }
        }
    }

    /// Why the mirror does not stand still any more, if that is known.
    fn lost(&self) -> Option<&'static str> {
        loop {
            match self.said.try_recv() {
                Ok(Said::Still | Said::Frozen(_)) => {}
                Ok(Said::Thawed(why)) => return Some(words(why)),
                Ok(Said::Over(_)) | Err(mpsc::TryRecvError::Disconnected) => {
                    return Some("the daemon ended; its successor lets the mirror go on");
                }
                Err(mpsc::TryRecvError::Empty) => return None,
            }
        }
    }

    /// Asks for the thaw. Fails unless the mirror stood still until then.
    fn release(self, args: &Args, global: &Global, frozen: &Frozen) -> Result<(), String> {
        if let Some(why) = self.lost() {
            return Err(why.to_owned());
        }
        let unclear = || "the daemon does not say whether it stood still until the end".to_owned();
        let path = format!(
            "/api/v1/mirrors/{}/thaw?freeze={}",
            connect::segment(&args.mirror).map_err(|_| unclear())?,
            frozen.freeze
        );
        let client = Client::new(&global.socket_path()).map_err(|_| unclear())?;
        // Whoever ended it before, it was not this process: then this is refused.
        client
            .post::<Thawing>(&path, &())
            .map_err(|_| self.lost().map_or_else(unclear, str::to_owned))?;
        let deadline = Instant::now() + THAW_LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.said.recv_timeout(left) {
                Ok(Said::Still | Said::Frozen(_)) => {}
                Ok(Said::Thawed(Thawed::Released)) => return Ok(()),
                Ok(Said::Thawed(why)) => return Err(words(why).to_owned()),
                Ok(Said::Over(_)) | Err(_) => return Err(unclear()),
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        // The connection ends with the thread's next sign; waiting for that leaves nothing frozen behind this process.
        while let Ok(Said::Still | Said::Frozen(_)) = self.said.recv_timeout(THAW_LIMIT) {}
    }
}

fn parse(data: &str) -> Said {
    if let Ok(frozen) = serde_json::from_str::<Frozen>(data) {
        return Said::Frozen(Box::new(frozen));
    }
    match serde_json::from_str::<StillFrozen>(data) {
        Ok(StillFrozen { thawed: None }) => Said::Still,
        Ok(StillFrozen { thawed: Some(why) }) => Said::Thawed(why),
        Err(_) => Said::Thawed(Thawed::Stopped),
    }
}

const fn words(why: Thawed) -> &'static str {
    match why {
        Thawed::Released => "it was asked to go on",
        Thawed::Timeout => "the time was over; --timeout allows more",
        Thawed::Stopped => "a resource of its group had to start or to stop",
        Thawed::Lost => "somebody else let it go on",
    }
}

/// The command, in a process group of its own. Dropped, it is killed with everything in that.
struct Running(Child);

impl Running {
    fn start(args: &Args, frozen: &Frozen) -> Result<Self, Failure> {
        let cannot = |error: io::Error| {
            broken(args)
                .cause(format!("cannot run {}: {error}", args.command.join(" ")))
                .hint("name a program and its arguments after `--`")
        };
        let [program, rest @ ..] = args.command.as_slice() else {
            return Err(broken(args).cause("no command is given").exit(Exit::Usage));
        };
        // A process that is killed runs no code: the kernel kills the command with this one.
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", program])
            .args(rest)
            .env("BACKSTAY_MIRROR", &frozen.mirror)
            .env("BACKSTAY_GROUP", &frozen.group)
            .env("BACKSTAY_NODE", &frozen.node)
            .env("BACKSTAY_EPOCH", frozen.epoch.to_string())
            .env("BACKSTAY_DISK", &frozen.disk)
            .env(
                "BACKSTAY_METADATA",
                frozen.metadata.as_deref().unwrap_or_default(),
            )
            .env(
                "BACKSTAY_MOUNT",
                frozen.mount.as_deref().unwrap_or_default(),
            )
            .process_group(0)
            .spawn()
            .map(Self)
            .map_err(cannot)
    }

    /// Waits for its end, as long as the mirror stands still and nobody interrupts.
    fn watch(&mut self, args: &Args, stream: &Stream) -> Result<ExitStatus, Failure> {
        let deadline = Instant::now() + args.timeout;
        loop {
            if let Some(ended) = self
                .0
                .try_wait()
                .map_err(|error| broken(args).cause(error))?
            {
                return Ok(ended);
            }
            let late = (Instant::now() >= deadline).then(|| words(Thawed::Timeout));
            let interrupted = interrupt::is_raised().then_some("interrupted");
            if let Some(why) = stream.lost().or(late).or(interrupted) {
                return Err(broken(args)
                    .cause(why)
                    .hint("the command was killed; what it has made is not to be relied upon"));
            }
            thread::sleep(LOOK);
        }
    }
}

impl Running {
    /// Without waiting for its end.
    fn kill(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            kill_process_group(pid, Signal::KILL).ok();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        self.0.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_words_are_told_apart() {
        let still = serde_json::to_string(&StillFrozen { thawed: None }).unwrap();
        assert!(matches!(parse(&still), Said::Still));
        let over = StillFrozen {
            thawed: Some(Thawed::Timeout),
        };
        let over = serde_json::to_string(&over).unwrap();
        assert!(matches!(parse(&over), Said::Thawed(Thawed::Timeout)));
        assert!(matches!(parse("{}"), Said::Thawed(_) | Said::Still));
        let frozen = Frozen {
            schema: "backstay.freeze/1".into(),
            freeze: 3,
            mirror: "pgdata".into(),
            group: "db".into(),
            node: "node-a".into(),
            epoch: 4,
            mount: None,
            disk: "/dev/vg/pgdata".into(),
            metadata: None,
        };
        let text = serde_json::to_string(&frozen).unwrap();
        let Said::Frozen(found) = parse(&text) else {
            panic!("{text}");
        };
        assert_eq!(*found, frozen);
    }
}
