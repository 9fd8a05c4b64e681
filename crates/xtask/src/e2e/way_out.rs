//! The disks can be read without Backstay.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::World;
use super::lab::Lab;
use crate::failure::{Context, Failure, Outcome};
use crate::shell;

/// A file system that is mounted as long as this lives.
struct Mounted {
    at: PathBuf,
}

/// A stopped group's disks are mounted as they are, with nothing of ours running, and hold what the service wrote.
pub(crate) fn disks_are_plain(world: &World) -> Outcome {
    let lab = Lab::up(world, "way-out", &["--workload", "ledger", "--size", "32M"])?;
    let active = lab.node("active")?;
    lab.wait_in_sync(&active.name)?;
    let file = format!("of={}", lab.dir.join("mnt/kept").display());
    lab.exec(
        &active.name,
        &["dd", "if=/dev/urandom", &file, "bs=1M", "count=8"],
    )?;
    lab.stop_group(&active.name)?;
    let copies = world
        .scratch
        .join(format!("backstay-e2e-{}-copies", std::process::id()));
    fs::create_dir_all(&copies).context(format!("make {}", copies.display()))?;
    let compared = keep_and_compare(lab, &copies);
    fs::remove_dir_all(&copies).context(format!("remove {}", copies.display()))?;
    compared
}

pub(super) fn keep_and_compare(lab: Lab, copies: &Path) -> Outcome {
    for node in ["node-a", "node-b"] {
        let copy = copies.join(node);
        fs::copy(lab.dir.join(node).join("disk"), &copy).context("keep a disk")?;
    }
    lab.down()?;
    let [a, b] = ["node-a", "node-b"].map(|node| content(&copies.join(node)));
    let (a, b) = (a?, b?);
    println!("files on each disk: {}", a.len());
    if a.is_empty() || a.iter().all(|(_, bytes)| bytes.len() < 8 << 20) {
        return Err(Failure::new(
            "a disk holds nothing of what the service wrote",
        ));
    }
    if a != b {
        return Err(Failure::new("the two disks hold different files"));
    }
    Ok(())
}

/// Names and bytes of the files on a disk.
fn content(disk: &Path) -> Outcome<Vec<(PathBuf, Vec<u8>)>> {
    shell::run(Command::new("e2fsck").arg("-fn").arg(disk))?;
    let mounted = Mounted::of(disk)?;
    let entries = fs::read_dir(&mounted.at).context("list a disk's files")?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).context(format!("read {}", path.display()))?;
        Ok((
            path.strip_prefix(&mounted.at)
                .map(Path::to_owned)
                .unwrap_or(path),
            bytes,
        ))
    };
    files.into_iter().map(read).collect()
}

impl Mounted {
    fn of(disk: &Path) -> Outcome<Self> {
        let at = disk.with_extension("mnt");
        fs::create_dir_all(&at).context(format!("make {}", at.display()))?;
        let mut mount = Command::new("mount");
        shell::run(mount.args(["-o", "ro,loop"]).arg(disk).arg(&at))?;
        Ok(Self { at })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(failure) = shell::run(Command::new("umount").arg(&self.at)) {
            eprintln!("{failure}");
        }
    }
}
