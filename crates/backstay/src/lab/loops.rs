//! Loop devices, by the file that is under them.

use std::fs;
use std::path::Path;

/// Loop devices whose backing file is below `dir`, such as `/dev/loop0`.
pub(super) fn backed_by(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    let mut devices: Vec<String> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let backing = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
            (name.starts_with("loop") && is_below(&backing, dir)).then(|| format!("/dev/{name}"))
        })
        .collect();
    devices.sort_unstable();
    devices
}

/// True if the kernel's word for a backing file is a path below `dir`; a folder whose name only begins like it is another lab's.
fn is_below(backing: &str, dir: &Path) -> bool {
    Path::new(backing.trim_end()).starts_with(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_with_a_longer_name_is_another_lab() {
        let dir = Path::new("/run/lab");
        assert!(is_below("/run/lab/node-a/run/fuse-data/data\n", dir));
        assert!(!is_below("/run/lab-tls/node-a/run/fuse-data/data\n", dir));
        assert!(!is_below("\n", dir));
    }
}
