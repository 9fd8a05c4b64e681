//! The FUSE connections of a node that is being killed.
//!
//! A killed daemon may have been in the middle of mounting the file system that it serves itself. Its thread then waits in the
//! kernel for an answer that only it could give, and never ends. On a server that loses power this ends with the kernel;
//! in the lab the connections are aborted instead.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Where the kernel shows its FUSE connections.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// Ends every FUSE connection below the lab's directory in the mounts that are held by `holder`; others are the machine's, whose
/// mounts a node sees too. What cannot be done is left: the caller waits for the node's end, and tells if that does not come.
pub(super) fn abort_all(holder: Pid, lab: &Path) {
    let Some(mounts) = held_mounts(holder) else {
        return;
    };
    thread::scope(|scope| {
        // The thread changes its namespace for good, and ends.
        scope.spawn(|| abort_in(&mounts, lab).ok());
    });
}

/// The mount namespace that a holder has open.
fn held_mounts(holder: Pid) -> Option<File> {
    let fds = fs::read_dir(format!("/proc/{}/fd", holder.as_raw_nonzero())).ok()?;
    let held = fds.flatten().map(|entry| entry.path()).find(|path| {
        let target = fs::read_link(path).unwrap_or_default();
        target.to_string_lossy().starts_with("mnt:[")
    });
    File::open(held?).ok()
}

#[expect(
    deprecated,
    reason = "only UnshareFlags::FILES is unsound; the safe call is enough here"
)]
fn abort_in(mounts: &File, lab: &Path) -> std::io::Result<()> {
    // The node's own /proc does not know this thread.
    let proc = File::open("/proc")?;
    rustix::thread::unshare(UnshareFlags::FS)?;
    move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
    let list = openat(
        &proc,
        "thread-self/mountinfo",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let list = std::io::read_to_string(File::from(list))?;
    match mount("none", CONNECTIONS, "fusectl", MountFlags::empty(), None) {
        Ok(()) | Err(Errno::BUSY) => {}
        Err(error) => return Err(error.into()),
    }
    for connection in connections(&list, lab) {
        // One that is gone already is fine.
        fs::write(
            PathBuf::from(CONNECTIONS).join(connection).join("abort"),
            "1",
        )
        .ok();
    }
    Ok(())
}

/// Numbers of our FUSE connections below `lab` in a mount table: the minor numbers of their devices.
fn connections(mountinfo: &str, lab: &Path) -> Vec<String> {
    let of_line = |line: &str| {
        let (fields, kind) = line.split_once(" - ")?;
        let mut fields = fields.split(' ');
        let minor = fields.nth(2)?.split_once(':')?.1;
        let at = Path::new(fields.nth(1)?);
        let ours = kind.starts_with("fuse.backstay ") && at.starts_with(lab);
        ours.then(|| minor.to_owned())
    };
    mountinfo.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labs_fuse_mounts_are_told_from_others() {
        let table = "30 1 0:45 / /x/fuse-data rw,nosuid shared:5 - fuse.backstay data rw\n\
                     31 1 7:0 / /x/mnt rw - ext4 /dev/loop0 rw\n\
                     32 1 0:46 / /x/home rw - fuse.sshfs host: rw\n\
                     33 1 0:47 / /sys/fs/fuse/connections rw - fusectl none rw\n\
                     34 1 0:48 / /var/lib/backstay/run/fuse-data rw - fuse.backstay data rw\n\
                     broken line\n";
        assert_eq!(connections(table, Path::new("/x")), ["45"]);
    }
}
