//! Running a command that ends: monitors, stop commands, hooks.

use super::{Ended, Launch, LaunchError, Launcher, Process, Streams, spawn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Most output of a command that is kept, in bytes: its end, where errors stand.
pub const OUTPUT_MAX: usize = 64 * 1024;

/// How long a killed process is waited for. One that hangs in the kernel longer is left to end by itself.
const KILL_LIMIT: Duration = Duration::from_secs(2);

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended; none if it ran out of time and was killed.
    pub ended: Option<Ended>,
    /// The end of what it wrote to standard output and error.
    pub output: Vec<u8>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// True if it ended by itself with code 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.ended == Some(Ended::Code(0))
    }
}

/// Runs a command to its end, at most for `limit`; then its whole process group is killed. Blocks.
///
/// What the command leaves running in the background is not waited for, and lives on unless its control group is killed.
///
/// # Errors
/// [`LaunchError`] if it could not be started or watched.
pub fn run(launcher: &Launcher, launch: &Launch, limit: Duration) -> Result<Outcome, LaunchError> {
    let started = Instant::now();
    let program = launch.command.first().cloned().unwrap_or_default();
    let fail = |doing| {
        let program = program.clone();
        move |source| LaunchError::Launcher {
            doing,
            program,
            source,
        }
    };
    let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
    let (reader, writer) = pipe_with(flags).map_err(|e| fail("talk to")(e.into()))?;
    // The flag belongs to the end of the pipe, and programs do not expect it on theirs.
    rustix::io::ioctl_fionbio(&writer, false).map_err(|e| fail("talk to")(e.into()))?;
    let process = spawn(launcher, launch, Streams::Pipe(writer))?;
    let mut tail = Tail::default();
    let ended = watch(&process, &reader, &mut tail, started + limit).map_err(fail("watch"))?;
    if ended.is_none() {
        process.signal_group(Signal::KILL).map_err(fail("stop"))?;
        process.wait(KILL_LIMIT).map_err(fail("stop"))?;
    }
    tail.read_from(&reader).map_err(fail("watch"))?;
    Ok(Outcome {
        ended,
        output: tail.bytes,
        took: started.elapsed(),
    })
}

/// Collects output until the process ends; none if the deadline comes first.
fn watch(
    process: &Process,
    reader: &OwnedFd,
    tail: &mut Tail,
    deadline: Instant,
) -> io::Result<Option<Ended>> {
    let mut open = true;
    loop {
        if let Some(ended) = process.try_wait()? {
            return Ok(Some(ended));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let timeout = Timespec::try_from(left).unwrap_or_default();
        let mut polled = [
            PollFd::new(process, PollFlags::IN),
            PollFd::new(reader, PollFlags::IN),
        ];
        let polled = if open {
            &mut polled[..]
        } else {
            &mut polled[..1]
        };
        match poll(polled, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        open = open && tail.read_from(reader)?;
    }
}

/// The last [`OUTPUT_MAX`] bytes of a stream.
#[derive(Debug, Default)]
struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    /// Reads what is there; false at the end of the stream. One call is bounded, however fast the other side writes.
    fn read_from(&mut self, reader: &OwnedFd) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        for _ in 0..64 {
            match rustix::io::read(reader, &mut buffer[..]) {
                Ok(0) => return Ok(false),
                Ok(length) => self.keep(&buffer[..length]),
                Err(Errno::AGAIN) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }

    fn keep(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
        let surplus = self.bytes.len().saturating_sub(OUTPUT_MAX);
        self.bytes.drain(..surplus);
    }
}
