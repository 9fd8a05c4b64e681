//! A file system on a mirror's device: mounted, and unmounted when nobody uses it.
//!
//! Both are done by mount(8) and umount(8), not by this process: it serves the device's blocks itself. A daemon that is killed in
//! the middle of its own mount waits in the kernel for an answer that only its successor can give, keeps its lock until then, and so
//! keeps the successor out. A child waits just as long and keeps nothing.

use super::users;
use crate::config::model::Filesystem;
use crate::failure::Failure;
use host::keeper::Step;
use host::mount::{self, Mounted};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file system is on top of itself at most that often.
const MOUNTS_MAX: usize = 4;

/// Mounts it. Recovery of its journal, if it was not unmounted, is part of that.
pub(super) fn start(filesystem: &Filesystem, device: &Path) -> Result<(), Failure> {
    let target = target(filesystem)?;
    if is_mounted(device, &target)? {
        tracing::info!(mount = %target.display(), "file system is mounted already");
        return Ok(());
    }
    if let Some(found) = mounted_at(&target)? {
        return Err(Failure::new(format!("cannot mount {}", target.display()))
            .cause(format!(
                "{} ({}) is mounted there",
                found.source, found.fstype
            ))
            .hint("unmount it; a file system of a group may be mounted by Backstay only"));
    }
    let mounted = mount_at(filesystem, device, &target);
    // The table decides: a predecessor's child may have been under way with the same.
    if !is_mounted(device, &target)? {
        let error = mounted
            .err()
            .unwrap_or_else(|| "mount(8) did nothing".to_owned());
        return Err(explain(filesystem, device, &error));
    }
    tracing::info!(mount = %target.display(), device = %device.display(), "file system is mounted");
    Ok(())
}

/// Unmounts it; everything that was written is on the mirror then.
pub(super) fn stop(filesystem: &Filesystem) -> Result<(), Failure> {
    let target = target(filesystem)?;
    if mounted_at(&target)?.is_none() {
        return Ok(());
    }
    match unmount_all(&target) {
        Ok(()) => {
            tracing::info!(mount = %target.display(), "file system is unmounted");
            Ok(())
        }
        Err(_) if mounted_at(&target)?.is_none() => Ok(()),
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

/// True if the device's file system is what is seen at `target`.
fn is_mounted(device: &Path, target: &Path) -> Result<bool, Failure> {
    let found = mounted_at(target)?;
    Ok(found.is_some_and(|found| found.source == device.display().to_string()))
}

/// Twice mounted (two children at once) is unmounted twice.
fn unmount_all(target: &Path) -> Result<(), String> {
    for _ in 0..MOUNTS_MAX {
        run(Command::new("umount").arg("-n").arg("-i").arg(target))?;
        if mount::mounted_at(target).is_ok_and(|found| found.is_none()) {
            return Ok(());
        }
    }
    Err("something mounts it again and again".to_owned())
}

fn mount_at(filesystem: &Filesystem, device: &Path, target: &Path) -> Result<(), String> {
    let mut mount = Command::new("mount");
    mount.args(["-n", "-i", "-t", &filesystem.fstype]);
    if !filesystem.options.split(',').any(|option| option == "ro") {
        // Never read-only instead, as mount(8) would do by itself.
        mount.arg("-w");
    }
    if !filesystem.options.is_empty() {
        mount.args(["-o", &filesystem.options]);
    }
    run(mount.arg(device).arg(target))
}

/// Runs a program of util-linux to its end; its complaint, if it fails.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {}: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    Err(match said.as_slice() {
        [] => format!(
            "{} ended with {}",
            command.get_program().display(),
            output.status
        ),
        lines => lines.join("; "),
    })
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

fn explain(filesystem: &Filesystem, device: &Path, error: &str) -> Failure {
    let Filesystem {
        mirror,
        mount,
        fstype,
        ..
    } = filesystem;
    let failure = Failure::new(format!(
        "cannot mount {fstype} of mirror {mirror} at {}",
        mount.display()
    ))
    .cause(error);
    if error.contains("unknown filesystem type") {
        return failure.hint(format!(
            "load the kernel's module for it, or correct `fstype` of {}",
            mount.display()
        ));
    }
    if error.contains("wrong fs type") || error.contains("bad superblock") {
        return failure.hint(format!(
            "see the kernel's log; a new mirror needs a file system: mkfs.{fstype} {} once, on the active node",
            device.display()
        ));
    }
    failure
}
