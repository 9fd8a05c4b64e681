//! Finds out who keeps a disk busy, so that "in use" comes with a name.

use std::fs;
use std::path::Path;

/// Who uses a block device: a mount point, swap, another device, or "another program".
pub(super) fn device_user(path: &Path, rdev: u64) -> String {
    let major = rustix::fs::major(rdev);
    let minor = rustix::fs::minor(rdev);
    mounted_at(&format!("{major}:{minor}"))
        .or_else(|| swap(path))
        .or_else(|| holder(&format!("{major}:{minor}")))
        .unwrap_or_else(|| "another program (see: lsof, fuser)".to_owned())
}

/// Who holds a lock on a file: the process named by `/proc/locks`.
pub(super) fn file_user(inode: u64) -> String {
    lock_owner(inode).unwrap_or_else(|| "another process".to_owned())
}

/// As [`file_user`]; none if nobody does.
pub(super) fn lock_owner(inode: u64) -> Option<String> {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = locks.lines().find_map(|line| lock_holder(line, inode))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(match name.trim() {
        "" => format!("process {pid}"),
        name => format!("process {pid} ({name})"),
    })
}

/// `1: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF` → the pid, when the inode is the one asked for.
fn lock_holder(line: &str, inode: u64) -> Option<u32> {
    let mut fields = line
        .split_whitespace()
        .skip(1)
        .skip_while(|field| *field == "->");
    let kind = fields.next()?;
    let pid = fields.nth(2)?.parse().ok()?;
    let of = fields.next()?.rsplit(':').next()?.parse::<u64>().ok()?;
    (kind == "FLOCK" && of == inode).then_some(pid)
}

fn mounted_at(device: &str) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        (fields.nth(2)? == device).then(|| fields.nth(1))?
    })?;
    Some(format!("a file system mounted at {mount}"))
}

fn swap(path: &Path) -> Option<String> {
    let swaps = fs::read_to_string("/proc/swaps").ok()?;
    let path = path.to_str()?;
    swaps
        .lines()
        .any(|line| line.split_whitespace().next() == Some(path))
        .then(|| "swap".into())
}

fn holder(device: &str) -> Option<String> {
    let entry = fs::read_dir(format!("/sys/dev/block/{device}/holders"))
        .ok()?
        .next()?
        .ok()?;
    Some(format!("device {}", entry.file_name().to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_lines_name_the_process() {
        let line = "12: FLOCK  ADVISORY  WRITE 4711 00:1a:99 0 EOF";
        assert_eq!(lock_holder(line, 99), Some(4711));
        assert_eq!(lock_holder(line, 98), None);
        assert_eq!(
            lock_holder("12: POSIX  ADVISORY  WRITE 4711 00:1a:99 0 EOF", 99),
            None
        );
        assert_eq!(lock_holder("", 99), None);
    }
}
