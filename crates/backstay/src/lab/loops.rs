//! Loop devices, by the file that is under them.

use std::fs;
use std::path::Path;

/// Loop devices whose backing file is below `dir`, such as `/dev/loop0`.
pub(super) fn backed_by(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    let dir = dir.display().to_string();
    let mut devices: Vec<String> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let backing = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
            (name.starts_with("loop") && backing.starts_with(&dir)).then(|| format!("/dev/{name}"))
        })
        .collect();
    devices.sort_unstable();
    devices
}
