//! A hidden command: the process that holds a file system still for a snapshot.
//!
//! ```text
//!  daemon ── starts ──► note it down, FIFREEZE ──► "frozen" ──► wait ──► FITHAW ──► "thawed" or "lost", strike it out
//!                                                                ▲ standard input closed, the time over, or a signal
//! ```
//! One process does all of it, so that whoever dies leaves nothing frozen: of a daemon that is gone the pipe is closed, also
//! while FIFREEZE still waits for writers. Only a SIGKILL of this process leaves a freeze behind, and then the note tells of
//! it: the daemon, or its successor, starts another one of these that thaws. The note is locked as long as a process of this
//! kind lives, so that none thaws before the other's FIFREEZE has ended.

use crate::exit::Exit;
use crate::failure::Outcome;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{major, minor};
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Name of the command.
pub const COMMAND: &str = "freezer";
/// Attempts to thaw before it is left to the next process.
const THAWS_MAX: u32 = 100;
/// Between two of them.
const THAW_PAUSE: Duration = Duration::from_millis(100);
/// Largest note, in bytes.
const NOTE_BYTES_MAX: u64 = 64;

/// What to freeze; given by the daemon.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where it is mounted
    #[arg(long)]
    mount: PathBuf,
    /// Its device, as the mount table names it: major:minor
    #[arg(long)]
    device: String,
    /// File that tells of the freeze as long as there is one
    #[arg(long)]
    note: PathBuf,
    /// Longest time; without, only what an earlier process left is thawed
    #[arg(long)]
    limit_ms: Option<u64>,
}

/// What the process says, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It stands still.
    Frozen,
    /// It stood still until now, when it was asked to go on. The last word.
    Thawed,
    /// It goes on by itself: the time was over, or a signal came. The last word.
    Expired,
    /// It runs, and somebody else has thawed it at some time before. The last word.
    Lost,
    /// Why it does not stand still, or does not run again. The last word.
    Failed(String),
}

impl Word {
    fn line(&self) -> String {
        match self {
            Self::Frozen => "frozen".to_owned(),
            Self::Thawed => "thawed".to_owned(),
            Self::Expired => "expired".to_owned(),
            Self::Lost => "lost".to_owned(),
            Self::Failed(why) => format!("failed {}", why.replace('\n', " ")),
        }
    }

    /// Out of a line; none for something else.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        match line {
            "frozen" => Some(Self::Frozen),
            "thawed" => Some(Self::Thawed),
            "expired" => Some(Self::Expired),
            "lost" => Some(Self::Lost),
            line => line
                .strip_prefix("failed ")
                .map(|why| Self::Failed(why.to_owned())),
        }
    }
}

/// Freezes, waits, thaws.
///
/// # Errors
/// None: what goes wrong is told on standard output.
pub fn run(args: &Args) -> Outcome {
    let last = match args.limit_ms {
        Some(ms) => stand_still(args, Duration::from_millis(ms)),
        None => thaw_leftover(args),
    };
    say(&last.unwrap_or_else(|error| Word::Failed(error.to_string())));
    Ok(Exit::Ready)
}

/// A daemon that is gone does not hear it.
fn say(word: &Word) {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", word.line())
        .and_then(|()| out.flush())
        .ok();
}

fn stand_still(args: &Args, limit: Duration) -> io::Result<Word> {
    let deadline = Instant::now() + limit;
    let mut note = Note::open(&args.note)?;
    if !note.lock_now()? {
        return Ok(Word::Failed("an earlier freeze is not over yet".to_owned()));
    }
    let directory = open(args)?;
    let ends = Ends::listen()?;
    if note.read()? == args.device {
        host::freeze::thaw_open(&directory)?;
    }
    note.write(&args.device)?;
    let freeze = || host::freeze::freeze(&directory);
    let thaw = || host::freeze::thaw_open(&directory);
    hold(&mut note, freeze, || ends.wait(deadline), thaw)
}

/// Thaws what the note tells of, once no other process does.
fn thaw_leftover(args: &Args) -> io::Result<Word> {
    let mut note = Note::open(&args.note)?;
    note.lock()?;
    if note.read()? != args.device {
        return Ok(Word::Thawed);
    }
    let directory = open(args)?;
    end(&mut note, || host::freeze::thaw_open(&directory))
}

/// The directory, if what is seen there is the file system that is meant: else it may be the machine's own.
fn open(args: &Args) -> io::Result<File> {
    let directory = File::open(&args.mount)?;
    let device = directory.metadata()?.dev();
    if format!("{}:{}", major(device), minor(device)) != args.device {
        return Err(io::Error::other("nothing is mounted there any more"));
    }
    Ok(directory)
}

fn hold(
    note: &mut Note,
    freeze: impl FnOnce() -> io::Result<()>,
    wait: impl FnOnce() -> Word,
    thaw: impl FnMut() -> io::Result<bool>,
) -> io::Result<Word> {
    if let Err(error) = freeze() {
        note.write("")?;
        return Err(error);
    }
    say(&Word::Frozen);
    let why = wait();
    match end(note, thaw)? {
        Word::Thawed => Ok(why),
        last @ (Word::Frozen | Word::Expired | Word::Lost | Word::Failed(_)) => Ok(last),
    }
}

/// Thaws, and strikes the note out.
fn end(note: &mut Note, mut thaw: impl FnMut() -> io::Result<bool>) -> io::Result<Word> {
    let mut result = thaw();
    for _ in 1..THAWS_MAX {
        if result.is_ok() {
            break;
        }
        thread::sleep(THAW_PAUSE);
        result = thaw();
    }
    let word = match result? {
        true => Word::Thawed,
        false => Word::Lost,
    };
    note.write("")?;
    Ok(word)
}

/// What ends a freeze. Signals are caught from its beginning.
struct Ends {
    runtime: tokio::runtime::Runtime,
    input: pipe::Receiver,
    signals: [Signal; 3],
}

impl Ends {
    fn listen() -> io::Result<Self> {
        use std::os::fd::AsFd as _;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let entered = runtime.enter();
        let input = pipe::Receiver::from_owned_fd(input)?;
        let signals = [
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        ];
        drop(entered);
        Ok(Self {
            runtime,
            input,
            signals,
        })
    }

    fn wait(self, deadline: Instant) -> Word {
        let Self {
            runtime,
            input,
            signals: [mut term, mut int, mut hangup],
        } = self;
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = term.recv() => Word::Expired,
                _ = int.recv() => Word::Expired,
                _ = hangup.recv() => Word::Expired,
                () = tokio::time::sleep_until(deadline.into()) => Word::Expired,
                // Its other end is closed.
                _ = input.readable() => Word::Thawed,
            }
        })
    }
}

/// The file that names the device of a file system that is, or may be, frozen by us; empty otherwise. Never removed, because
/// it is locked.
struct Note(File);

impl Note {
    fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.open(path).map(Self)
    }

    /// False if another process has it.
    fn lock_now(&self) -> io::Result<bool> {
        match self.0.try_lock() {
            Ok(()) => Ok(true),
            Err(std::fs::TryLockError::WouldBlock) => Ok(false),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn lock(&self) -> io::Result<()> {
        self.0.lock()
    }

    fn read(&mut self) -> io::Result<String> {
        self.0.rewind()?;
        let mut text = String::new();
        (&self.0).take(NOTE_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.rewind()?;
        self.0.write_all(text.as_bytes())
    }
}

/// The device that the note at `path` names; none if nothing is frozen.
pub(crate) fn noted(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.take(NOTE_BYTES_MAX).read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}

/// True for a process of this kind.
pub(crate) fn is_one(pid: u32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1) == Some(COMMAND.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    struct Case(PathBuf);

    impl Case {
        fn new(name: &str) -> (Self, Note) {
            let file = format!("backstay-freezer-{}-{name}", std::process::id());
            let case = Self(std::env::temp_dir().join(file));
            let mut note = Note::open(&case.0).expect("note");
            note.write("7:1").expect("written");
            (case, note)
        }
    }

    impl Drop for Case {
        fn drop(&mut self) {
            std::fs::remove_file(&self.0).ok();
        }
    }

    #[test]
    fn words_come_back() {
        for word in [
            Word::Frozen,
            Word::Thawed,
            Word::Expired,
            Word::Lost,
            Word::Failed("no such file".to_owned()),
        ] {
            assert_eq!(Word::parse(&word.line()), Some(word));
        }
        assert_eq!(Word::parse("thaw"), None);
    }

    #[test]
    fn what_was_frozen_is_thawed_and_then_struck_out() {
        let (case, mut note) = Case::new("held");
        let waited = Cell::new(false);
        let thaw = || {
            assert!(waited.get() && noted(&case.0).is_some());
            Ok(true)
        };
        let wait = || {
            waited.set(true);
            Word::Expired
        };
        let word = hold(&mut note, || Ok(()), wait, thaw);
        assert_eq!(word.expect("it runs"), Word::Expired);
        assert_eq!(noted(&case.0), None);
    }

    #[test]
    fn somebody_elses_thaw_is_told_and_their_freeze_left_alone() {
        let (case, mut note) = Case::new("lost");
        let word = hold(&mut note, || Ok(()), || Word::Thawed, || Ok(false));
        assert_eq!(word.expect("it runs"), Word::Lost);
        note.write("7:1").expect("written");
        let busy = || Err(io::Error::from(io::ErrorKind::ResourceBusy));
        let frozen = hold(
            &mut note,
            busy,
            || Word::Thawed,
            || panic!("it is not ours"),
        );
        assert!(frozen.is_err());
        assert_eq!(noted(&case.0), None);
    }

    #[test]
    fn a_thaw_that_fails_is_tried_again_and_left_noted_if_nothing_helps() {
        let (case, mut note) = Case::new("failed");
        let left = Cell::new(2);
        let thaw = || {
            left.set(left.get() - 1);
            match left.get() {
                0 => Ok(true),
                _ => Err(io::Error::other("it has no memory")),
            }
        };
        assert_eq!(end(&mut note, thaw).expect("it runs"), Word::Thawed);
        note.write("7:1").expect("written");
        assert!(end(&mut note, || Err(io::Error::other("never"))).is_err());
        assert_eq!(noted(&case.0).as_deref(), Some("7:1"));
    }

    #[test]
    fn it_is_told_from_others_that_use_the_file_system() {
        for (name, expected) in [(COMMAND, true), ("keeper", false)] {
            let directory = std::env::temp_dir().join(format!("bs-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&directory).expect("directory");
            std::fs::write(directory.join(name), "read line\n").expect("script");
            let mut child = std::process::Command::new("sh")
                .arg(name)
                .current_dir(&directory)
                .stdin(std::process::Stdio::piped())
                .spawn()
                .expect("it starts");
            // The kernel tells its arguments a moment after it runs.
            let arguments = format!("/proc/{}/cmdline", child.id());
            let told = (0..100_000).any(|_| {
                thread::yield_now();
                std::fs::read(&arguments).is_ok_and(|text| !text.is_empty())
            });
            assert!(told, "it has no arguments");
            assert_eq!(is_one(child.id()), expected);
            drop(child.stdin.take());
            child.wait().expect("it ends");
            std::fs::remove_dir_all(&directory).ok();
        }
    }

    #[test]
    fn one_process_at_a_time_has_the_note() {
        let (case, note) = Case::new("lock");
        assert!(note.lock_now().expect("lock"));
        let other = Note::open(&case.0).expect("note");
        assert!(!other.lock_now().expect("no lock"));
        drop(note);
        assert!(other.lock_now().expect("lock"));
    }
}
