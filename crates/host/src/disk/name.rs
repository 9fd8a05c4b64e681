//! What a disk is called at every start: what its metadata on another device knows it by.
//!
//! Not a path: `/dev/sda` is another disk tomorrow. A serial number or a volume's UUID is as good as the hardware lets it be;
//! where the kernel knows none, there is no name. A file's is its inode and when it was made.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Where the kernel tells it, below a device's directory in sysfs; the most telling first.
const NAMES: [&str; 6] = [
    "dm/uuid",
    "md/uuid",
    "wwid",
    "device/wwid",
    "serial",
    "device/serial",
];

/// The name of a disk or a file with this metadata.
pub(super) fn of(meta: &Metadata) -> Option<String> {
    if !meta.file_type().is_block_device() {
        return of_file(meta);
    }
    let (major, minor) = (
        rustix::fs::major(meta.rdev()),
        rustix::fs::minor(meta.rdev()),
    );
    of_device(&fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?)
}

/// A number alone does not last: the next file gets that of one that was removed.
fn of_file(meta: &Metadata) -> Option<String> {
    let born = meta.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("inode {} born {}", meta.ino(), born.as_nanos()))
}

fn of_device(sysfs: &Path) -> Option<String> {
    if let Some(number) = read(sysfs.join("partition")) {
        let whole = of_device(sysfs.parent()?)?;
        let start = read(sysfs.join("start"))?;
        return Some(format!("{whole}, partition {number} at sector {start}"));
    }
    if let Some(file) = read(sysfs.join("loop/backing_file")) {
        let inode = of_file(&fs::metadata(file).ok()?)?;
        let offset = read(sysfs.join("loop/offset"))?;
        return Some(format!("loop over {inode} at byte {offset}"));
    }
    NAMES.iter().find_map(|name| read(sysfs.join(name)))
}

/// A line of sysfs, with single spaces; none if it is empty or not there.
fn read(path: PathBuf) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let words: Vec<&str> = text.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_file_in_the_place_of_another_gets_another_name() {
        let scratch = Scratch::new("file-name");
        let path = scratch.path().join("disk");
        let name = || of(&fs::metadata(&path).unwrap());
        fs::write(&path, "a").unwrap();
        let first = name();
        fs::write(&path, "longer").unwrap();
        assert_eq!(name(), first);
        // Within one tick of the file system's clock, a file may get all that the one before had.
        while first.is_some() && name() == first {
            fs::remove_file(&path).unwrap();
            fs::write(&path, "a").unwrap();
        }
    }

    #[test]
    fn a_device_is_called_by_what_lasts() {
        let scratch = Scratch::new("disk-name");
        let sda = scratch.path().join("sda");
        let put = |at: &str, text: &str| {
            let path = sda.join(at);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("size", "2048\n");
        assert_eq!(of_device(&sda), None);
        put("device/serial", "S1\n");
        put("device/wwid", "t10.ATA   Disk    77  \n");
        assert_eq!(of_device(&sda).as_deref(), Some("t10.ATA Disk 77"));
        put("sda1/partition", "1\n");
        put("sda1/start", "2048\n");
        assert_eq!(
            of_device(&sda.join("sda1")).as_deref(),
            Some("t10.ATA Disk 77, partition 1 at sector 2048")
        );
        put("wwid", "\n");
        assert_eq!(of_device(&sda).as_deref(), Some("t10.ATA Disk 77"));
    }
}
