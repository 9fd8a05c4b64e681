//! A file system on a mirror's device: mounted, and unmounted when nobody uses it.

use super::users;
use crate::config::model::Filesystem;
use crate::failure::Failure;
use host::keeper::Step;
use host::mount::{self, Mounted, Unmount};
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};

/// Mounts it. Recovery of its journal, if it was not unmounted, is part of that.
pub(super) fn start(filesystem: &Filesystem, device: &Path) -> Result<(), Failure> {
    let target = target(filesystem)?;
    if let Some(found) = mounted_at(&target)? {
        return match found.source == device.display().to_string() {
            true => {
                tracing::info!(mount = %target.display(), "file system is mounted already");
                Ok(())
            }
            false => Err(Failure::new(format!("cannot mount {}", target.display()))
                .cause(format!(
                    "{} ({}) is mounted there",
                    found.source, found.fstype
                ))
                .hint("unmount it; a file system of a group may be mounted by Backstay only")),
        };
    }
    mount::mount(device, &target, &filesystem.fstype, &filesystem.options)
        .map_err(|error| explain(filesystem, device, &error))?;
    tracing::info!(mount = %target.display(), device = %device.display(), "file system is mounted");
    Ok(())
}

/// Unmounts it; everything that was written is on the mirror then.
pub(super) fn stop(filesystem: &Filesystem) -> Result<(), Failure> {
    let target = target(filesystem)?;
    if mounted_at(&target)?.is_none() {
        return Ok(());
    }
    match mount::unmount(&target, Unmount::Clean) {
        Ok(()) => {
            tracing::info!(mount = %target.display(), "file system is unmounted");
            Ok(())
        }
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => Ok(()),
        Err(error) => {
            let failure = Failure::new(format!("cannot unmount {}", target.display())).cause(error);
            Err(match users::of(&target).as_slice() {
                [] => {
                    failure.hint("find out who uses it: another mount in it, swap, a loop device")
                }
                users => failure
                    .cause(format!("used by {}", users::list(users)))
                    .hint("let the group's services stop everything that uses it"),
            })
        }
    }
}

/// Where it is mounted, as the mount table names it; the directory is made if it is missing.
pub(super) fn target(filesystem: &Filesystem) -> Result<PathBuf, Failure> {
    let wanted = &filesystem.mount;
    // The directory itself is not looked at: what is mounted on it may hang.
    let (Some(parent), Some(name)) = (wanted.parent(), wanted.file_name()) else {
        return Err(Failure::new("cannot mount a file system of a group on /"));
    };
    std::fs::create_dir_all(parent)
        .and_then(|()| parent.canonicalize())
        .map(|parent| parent.join(name))
        .and_then(|target| make(&target).map(|()| target))
        .map_err(|e| {
            Failure::new(format!("cannot make the directory {}", wanted.display())).cause(e)
        })
}

fn make(target: &Path) -> io::Result<()> {
    if mount::mounted_at(target)?.is_some() {
        return Ok(());
    }
    match std::fs::create_dir(target) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// What is mounted there; reads only the mount table.
pub(super) fn mounted_at(target: &Path) -> Result<Option<Mounted>, Failure> {
    mount::mounted_at(target).map_err(|e| Failure::new("cannot read the mount table").cause(e))
}

/// What the keeper does instead of [`stop`].
pub(super) fn steps(filesystem: &Filesystem) -> Vec<Step> {
    let target = target(filesystem).unwrap_or_else(|_| filesystem.mount.clone());
    vec![Step::Unmount { target }]
}

fn explain(filesystem: &Filesystem, device: &Path, error: &io::Error) -> Failure {
    let Filesystem {
        mirror,
        mount,
        fstype,
        ..
    } = filesystem;
    let failure = Failure::new(format!(
        "cannot mount {fstype} of mirror {mirror} at {}",
        mount.display()
    ));
    match Errno::from_io_error(error) {
        Some(Errno::NODEV) => failure
            .cause(format!("this kernel does not know the file system {fstype}"))
            .hint(format!("load its module, or correct `fstype` of {}", mount.display())),
        Some(Errno::INVAL | Errno::UCLEAN) => failure
            .cause(format!("{} holds no sound {fstype}, or an option is unknown: {error}", device.display()))
            .hint(format!(
                "see the kernel's log; a new mirror needs a file system: mkfs.{fstype} {} once, on the active node",
                device.display()
            )),
        Some(_) | None => failure.cause(error),
    }
}
