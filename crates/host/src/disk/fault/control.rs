//! The control file: how `lab break NODE disk-…` reaches a running daemon.
//!
//! One line of fixed length, rewritten in place by a single write, so that a reader never sees half of it:
//! `read=none write=slow:20 flush=hang`, padded with spaces.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::str::FromStr;
use wire::Duration;

/// Length of the control file's line, in bytes.
const LINE_LEN: usize = 96;

/// The longest delay of [`Fault::Slow`].
const SLOW_MAX: Duration = Duration::from_secs(60);

/// What is wrong with one kind of access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It fails with `EIO`.
    Error,
    /// It does not end until the fault is taken away.
    Hang,
    /// It begins this much later.
    Slow(Duration),
    /// It fails with `ENOSPC`.
    Full,
    /// Of reads: a block in each MiB cannot be read until it is written.
    Spots,
}

/// The faults of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Reads.
    pub read: Fault,
    /// Writes and zeroing.
    pub write: Fault,
    /// Flushes.
    pub flush: Fault,
}

impl Faults {
    /// A healthy disk.
    pub const NONE: Self = Self {
        read: Fault::None,
        write: Fault::None,
        flush: Fault::None,
    };

    /// The same fault for every kind of access.
    #[must_use]
    pub const fn all(fault: Fault) -> Self {
        Self {
            read: fault,
            write: fault,
            flush: fault,
        }
    }

    /// Puts these faults into force for the disk whose shim directory is `dir`, from the next access on.
    ///
    /// # Errors
    /// When the control file cannot be written.
    pub fn set(self, dir: &Path) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("control"))?;
        let line = format!("{:<width$}\n", self.to_string(), width = LINE_LEN - 1);
        let written = rustix::io::pwrite(&file, line.as_bytes(), 0)?;
        if written == LINE_LEN {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }
}

/// A line that names no faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultsError {
    /// The word that was not understood.
    pub word: String,
}

impl fmt::Display for FaultsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "disk fault '{}' is not known: use none, error, hang, slow:MS, full or spots",
            self.word
        )
    }
}

impl std::error::Error for FaultsError {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Error => f.write_str("error"),
            Self::Hang => f.write_str("hang"),
            Self::Slow(delay) => write!(f, "slow:{}", delay.as_millis()),
            Self::Full => f.write_str("full"),
            Self::Spots => f.write_str("spots"),
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "read={} write={} flush={}",
            self.read, self.write, self.flush
        )
    }
}

impl FromStr for Fault {
    type Err = FaultsError;
    fn from_str(word: &str) -> Result<Self, FaultsError> {
        let unknown = || FaultsError {
            word: word.to_owned(),
        };
        match word {
            "none" => Ok(Self::None),
            "error" => Ok(Self::Error),
            "hang" => Ok(Self::Hang),
            "full" => Ok(Self::Full),
            "spots" => Ok(Self::Spots),
            slow => {
                let millis = slow.strip_prefix("slow:").and_then(|ms| ms.parse().ok());
                let delay = millis
                    .map(Duration::from_millis)
                    .filter(|delay| *delay <= SLOW_MAX);
                delay.map(Self::Slow).ok_or_else(unknown)
            }
        }
    }
}

impl FromStr for Faults {
    type Err = FaultsError;
    fn from_str(line: &str) -> Result<Self, FaultsError> {
        let mut faults = Self::NONE;
        for word in line.split_whitespace() {
            let unknown = || FaultsError {
                word: word.to_owned(),
            };
            let (kind, fault) = word.split_once('=').ok_or_else(unknown)?;
            let place = match kind {
                "read" => &mut faults.read,
                "write" => &mut faults.write,
                "flush" => &mut faults.flush,
                _ => return Err(unknown()),
            };
            *place = fault.parse()?;
        }
        Ok(faults)
    }
}

/// The daemon's side: the control file, and what it said last.
#[derive(Debug)]
pub(super) struct Control {
    file: File,
    line: [u8; LINE_LEN],
    faults: Faults,
}

impl Control {
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join("control");
        if !path.exists() {
            Faults::NONE.set(dir)?;
        }
        Ok(Self {
            file: File::open(path)?,
            line: [0; LINE_LEN],
            faults: Faults::NONE,
        })
    }

    /// The faults in force. One small read per access; the line is parsed only when it has changed.
    pub(super) fn read(&mut self) -> Faults {
        let mut line = [0; LINE_LEN];
        let read = rustix::io::pread(&self.file, &mut line, 0);
        if read != Ok(LINE_LEN) || line == self.line {
            return self.faults;
        }
        self.line = line;
        match std::str::from_utf8(&line)
            .ok()
            .and_then(|text| text.parse().ok())
        {
            Some(faults) => {
                tracing::warn!(%faults, "fault shim");
                self.faults = faults;
            }
            None => tracing::warn!("control file of the fault shim makes no sense and is ignored"),
        }
        self.faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_survive_their_text_form() {
        let faults = Faults {
            read: Fault::Slow(Duration::from_millis(20)),
            write: Fault::Full,
            flush: Fault::Hang,
        };
        assert_eq!(faults.to_string().parse(), Ok(faults));
        assert_eq!("".parse(), Ok(Faults::NONE));
    }

    #[test]
    fn nonsense_is_named() {
        for line in [
            "read",
            "read=bad",
            "write=slow:",
            "write=slow:99999999",
            "seek=none",
        ] {
            let Err(error) = line.parse::<Faults>() else {
                panic!("{line} was accepted")
            };
            assert!(line.contains(&error.word));
        }
    }
}
