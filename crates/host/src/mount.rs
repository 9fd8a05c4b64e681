//! The mount table, and taking file systems out of it.

use rustix::mount::{UnmountFlags, unmount as sys_unmount};
use std::io;
use std::path::{Path, PathBuf};

/// How hard to unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmount {
    /// Only when nobody uses it.
    Clean,
    /// Take it out of the tree at once; it goes when its last user does.
    Lazy,
}

/// One line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Where.
    pub target: PathBuf,
    /// `ext4`, `fuse.backstay`, …
    pub fstype: String,
    /// The device or name.
    pub source: String,
    /// The device number, `major:minor`.
    pub device: String,
}

/// Unmounts what is at `target`.
///
/// # Errors
/// `EBUSY` when it is in use, `EINVAL` when nothing is mounted there.
pub fn unmount(target: &Path, how: Unmount) -> io::Result<()> {
    let flags = match how {
        Unmount::Clean => UnmountFlags::empty(),
        Unmount::Lazy => UnmountFlags::DETACH,
    };
    Ok(sys_unmount(target, flags | UnmountFlags::NOFOLLOW)?)
}

/// Breaks the connection of the FUSE file system at `target`, busy or not: every request on it,
/// waiting or to come, fails. Where nobody uses it, it is unmounted, too.
///
/// # Errors
/// `EINVAL` when nothing is mounted there.
pub fn abort(target: &Path) -> io::Result<()> {
    // A forced unmount makes FUSE give up first; whether the unmount itself then succeeds is another matter.
    match sys_unmount(target, UnmountFlags::FORCE | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::BUSY) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// What is mounted at `target`: the topmost mount, if there is one. Does not touch the file system itself, which may hang.
///
/// # Errors
/// When the mount table cannot be read.
pub fn mounted_at(target: &Path) -> io::Result<Option<Mounted>> {
    Ok(mounts()?
        .into_iter()
        .rev()
        .find(|mounted| mounted.target == target))
}

/// The mounts that this process sees, lowest first.
///
/// # Errors
/// When the mount table cannot be read.
pub fn mounts() -> io::Result<Vec<Mounted>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table.lines().filter_map(parse_line).collect())
}

/// `36 35 98:0 /root /target rw,noatime master:1 - ext4 /dev/sda1 rw,errors=continue`
fn parse_line(line: &str) -> Option<Mounted> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let mut right = right.split(' ');
    Some(Mounted {
        target: PathBuf::from(unescape(left.get(4)?)),
        device: (*left.get(2)?).to_owned(),
        fstype: right.next()?.to_owned(),
        source: unescape(right.next()?),
    })
}

/// The table writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = after
            .get(..3)
            .and_then(|octal| u8::from_str_radix(octal, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = &after[3..];
            }
            None => {
                plain.push('\\');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_table_lines_are_understood() {
        let line = "36 35 7:0 / /mnt/a\\040b rw master:1 - ext4 /dev/loop0 rw";
        let mounted = parse_line(line).unwrap();
        assert_eq!(mounted.target, Path::new("/mnt/a b"));
        assert_eq!((&*mounted.fstype, &*mounted.source), ("ext4", "/dev/loop0"));
        assert_eq!(mounted.device, "7:0");
        assert_eq!(parse_line("nonsense"), None);
        assert_eq!(unescape("a\\zzz\\"), "a\\zzz\\");
    }

    #[test]
    fn root_is_mounted_and_nonsense_is_not() {
        assert!(mounted_at(Path::new("/")).unwrap().is_some());
        assert_eq!(mounted_at(Path::new("/no/such/place")).unwrap(), None);
    }
}
