//! A group's control group (cgroup v2): everything that a group's services start, whatever they do to hide, can be
//! frozen, killed and counted as one.
//!
//! No controllers are switched on; the hierarchy is used for membership alone. It is found wherever it is mounted, also
//! on hybrid systems that mount version 1 beside it.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Sub-groups of a group that are removed with it, at most this deep. A service that nests deeper is left standing.
const DEPTH_MAX: usize = 16;

/// A control group could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The kernel or the system's set-up has no version 2 hierarchy.
    #[error("no cgroup2 file system is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup")]
    NotMounted,
    /// A part of the name cannot be a directory's name.
    #[error("{name:?} cannot be the name of a control group")]
    Name {
        /// The part.
        name: String,
    },
    /// The system refused.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The directory or file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// One control group; it may not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The control group of this process.
    ///
    /// # Errors
    /// [`CgroupError::NotMounted`], or [`CgroupError::Io`] if `/proc` cannot be read.
    pub fn own() -> Result<Self, CgroupError> {
        let mounts = read(Path::new("/proc/self/mountinfo"))?;
        let membership = read(Path::new("/proc/self/cgroup"))?;
        let own = membership.lines().find_map(|line| line.strip_prefix("0::"));
        let own = own.ok_or(CgroupError::NotMounted)?;
        let found = mounts.lines().find_map(|line| own_directory(line, own));
        found
            .map(|path| Self { path })
            .ok_or(CgroupError::NotMounted)
    }

    /// A control group by its directory, as [`Cgroup::path`] gave it.
    #[must_use]
    pub const fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The control group `name` below this one.
    ///
    /// # Errors
    /// [`CgroupError::Name`].
    pub fn child(&self, name: &str) -> Result<Self, CgroupError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.@:".contains(&b);
        let fits = (1..=200).contains(&name.len()) && !name.starts_with('.');
        // The kernel's own files begin with a controller's name and a dot.
        if !fits || !name.bytes().all(plain) || name.starts_with("cgroup.") {
            return Err(CgroupError::Name {
                name: name.to_owned(),
            });
        }
        Ok(Self {
            path: self.path.join(name),
        })
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that a process id is written to for joining.
    #[must_use]
    pub fn processes_file(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Makes it, and those above it; fine if it is there.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn create(&self) -> Result<(), CgroupError> {
        fs::create_dir_all(&self.path).map_err(|e| self.failed("create", &self.path, e))
    }

    /// True if it exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.join("cgroup.procs").exists()
    }

    /// The processes directly in it.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn processes(&self) -> Result<Vec<u32>, CgroupError> {
        let text = read(&self.processes_file())?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Sends SIGKILL to all processes in it and below it, in one step that forking cannot escape (Linux 5.14). They end
    /// soon after: see [`Cgroup::wait_empty`].
    ///
    /// # Errors
    /// [`CgroupError::Io`]; a missing group is fine.
    pub fn kill(&self) -> Result<(), CgroupError> {
        self.write("cgroup.kill", "1")
    }

    /// Stops all processes in it and below it. They stop soon after: see [`Cgroup::wait_frozen`].
    ///
    /// # Errors
    /// [`CgroupError::Io`]; a missing group is fine.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.write("cgroup.freeze", "1")
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// [`CgroupError::Io`]; a missing group is fine.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.write("cgroup.freeze", "0")
    }

    /// True if no process is in it or below it, or it does not exist.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn is_empty(&self) -> Result<bool, CgroupError> {
        self.wait_for("populated 0", Duration::ZERO)
    }

    /// Waits until no process is in it or below it; false if `limit` passes first.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn wait_empty(&self, limit: Duration) -> Result<bool, CgroupError> {
        self.wait_for("populated 0", limit)
    }

    /// Waits until all processes in it stand still; false if `limit` passes first.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn wait_frozen(&self, limit: Duration) -> Result<bool, CgroupError> {
        self.wait_for("frozen 1", limit)
    }

    /// Removes it and what is below it; fine if it is not there.
    ///
    /// # Errors
    /// [`CgroupError::Io`] if a process is still in it.
    pub fn remove(&self) -> Result<(), CgroupError> {
        match remove_tree(&self.path, DEPTH_MAX) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(self.failed("remove", &self.path, e)),
        }
    }

    fn write(&self, file: &str, text: &str) -> Result<(), CgroupError> {
        let path = self.path.join(file);
        match fs::write(&path, text) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && !self.path.exists() => Ok(()),
            Err(e) => Err(self.failed("write", &path, e)),
            Ok(()) => Ok(()),
        }
    }

    /// Waits until `cgroup.events` has this line; the kernel announces each change of the file.
    fn wait_for(&self, line: &str, limit: Duration) -> Result<bool, CgroupError> {
        let deadline = Instant::now() + limit;
        let path = self.path.join("cgroup.events");
        let fail = |e| self.failed("watch", &path, e);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(e) => return Err(fail(e)),
        };
        loop {
            let mut text = String::new();
            file.seek(SeekFrom::Start(0)).map_err(fail)?;
            match file.read_to_string(&mut text) {
                Ok(_) => {}
                // Removed under us.
                Err(e) if e.raw_os_error() == Some(libc::ENODEV) => return Ok(true),
                Err(e) => return Err(fail(e)),
            }
            if text.lines().any(|found| found == line) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let timeout = Timespec::try_from(left).unwrap_or_default();
            let mut polled = [PollFd::new(&file, PollFlags::PRI)];
            match poll(&mut polled, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(fail(e.into())),
            }
        }
    }

    fn failed(&self, doing: &'static str, path: &Path, source: io::Error) -> CgroupError {
        CgroupError::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Io {
        doing: "read",
        path: path.to_owned(),
        source,
    })
}

/// The directory of the cgroup `own` if this line of `mountinfo` (proc(5)) mounts a version 2 hierarchy that shows it.
fn own_directory(line: &str, own: &str) -> Option<PathBuf> {
    let (mount, kind) = line.split_once(" - ")?;
    if kind.split(' ').next()? != "cgroup2" {
        return None;
    }
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
    let below = Path::new(own).strip_prefix(Path::new(&root)).ok()?;
    let directory = Path::new(&point).join(below);
    // A trailing slash is cosmetic, but paths are stored and compared.
    Some(directory.components().collect())
}

/// Undoes the octal escapes of `mountinfo`: space, tab, newline, backslash.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

fn remove_tree(path: &Path, depth: usize) -> io::Result<()> {
    if depth > 0 {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                remove_tree(&entry.path(), depth - 1)?;
            }
        }
    }
    fs::remove_dir(path)
}

/// A control group for one test, emptied and removed at its end.
#[cfg(test)]
pub(crate) mod fixture {
    use super::Cgroup;
    use std::time::Duration;

    pub(crate) struct Temporary(pub(crate) Cgroup);

    impl Temporary {
        pub(crate) fn new(test: &str) -> Self {
            let name = format!("backstay-test-{test}-{}", std::process::id());
            let cgroup = Cgroup::own().unwrap().child(&name).unwrap();
            cgroup.create().unwrap();
            Self(cgroup)
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            self.0.kill().ok();
            self.0.wait_empty(Duration::from_secs(5)).ok();
            self.0.remove().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::Temporary;
    use super::*;
    use std::process::{Child, Command};

    fn sleeper(cgroup: &Cgroup) -> Child {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(cgroup.processes_file(), child.id().to_string()).unwrap();
        child
    }

    #[test]
    fn killing_empties_the_whole_tree() {
        let cgroup = &Temporary::new("kill").0;
        let below = cgroup.child("app").unwrap();
        below.create().unwrap();
        let mut children = [sleeper(cgroup), sleeper(&below)];
        assert!(!cgroup.is_empty().unwrap());
        assert_eq!(cgroup.processes().unwrap(), [children[0].id()]);
        assert!(!cgroup.wait_empty(Duration::from_millis(20)).unwrap());
        assert!(cgroup.remove().is_err(), "a group in use stays");
        cgroup.kill().unwrap();
        for child in &mut children {
            child.wait().unwrap();
        }
        assert!(cgroup.wait_empty(Duration::from_secs(5)).unwrap());
        cgroup.remove().unwrap();
        assert!(!cgroup.exists());
        cgroup.remove().unwrap();
        cgroup.kill().unwrap();
        assert!(cgroup.is_empty().unwrap());
    }

    #[test]
    fn freezing_stops_and_thawing_goes_on() {
        let cgroup = &Temporary::new("freeze").0;
        let mut child = sleeper(cgroup);
        cgroup.freeze().unwrap();
        assert!(cgroup.wait_frozen(Duration::from_secs(5)).unwrap());
        cgroup.thaw().unwrap();
        assert!(!cgroup.wait_frozen(Duration::ZERO).unwrap());
        cgroup.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn mounts_are_found_on_hybrid_nested_and_odd_systems() {
        let hybrid = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let at = |line, own| own_directory(line, own).map(|p| p.display().to_string());
        assert_eq!(at(hybrid, "/").unwrap(), "/sys/fs/cgroup/unified");
        assert_eq!(at(hybrid, "/a/b").unwrap(), "/sys/fs/cgroup/unified/a/b");
        let nested = "9 8 0:7 /docker/x /sys/fs/cg\\040group rw shared:3 - cgroup2 none rw";
        assert_eq!(at(nested, "/docker/x/y").unwrap(), "/sys/fs/cg group/y");
        assert_eq!(at(nested, "/elsewhere"), None);
        let first = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu";
        assert_eq!(at(first, "/"), None);
        assert_eq!(at("", "/"), None);
    }

    #[test]
    fn names_cannot_lead_elsewhere() {
        let own = Cgroup::at("/sys/fs/cgroup".into());
        for name in ["", "..", "a/b", ".hidden", "cgroup.procs", "a\nb"] {
            assert!(
                matches!(own.child(name), Err(CgroupError::Name { .. })),
                "{name:?}"
            );
        }
    }
}
