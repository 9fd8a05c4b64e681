//! Who keeps a mount busy. Reads links of `/proc` only, so that a file system that hangs does not hang this.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Most processes that are named to a person.
const NAMED_MAX: usize = 8;

/// A process that uses a file in a directory tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) pid: u32,
    name: String,
}

/// The processes whose working directory, root, program, open files or mapped files are at or below `target`.
pub(super) fn of(target: &Path) -> Vec<User> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut users: Vec<User> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| uses(*pid, target))
        .map(|pid| User {
            pid,
            name: name(pid),
        })
        .collect();
    users.sort_unstable_by_key(|user| user.pid);
    users
}

/// For people: `postgres (4711), bash (815) and 3 more`.
pub(super) fn list(users: &[User]) -> String {
    let named: Vec<String> = users
        .iter()
        .take(NAMED_MAX)
        .map(|user| format!("{} ({})", user.name, user.pid))
        .collect();
    let mut text = named.join(", ");
    if users.len() > NAMED_MAX {
        // Writing to a string cannot fail.
        write!(text, " and {} more", users.len() - NAMED_MAX).ok();
    }
    text
}

fn uses(pid: u32, target: &Path) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    let inside = |link: &Path| fs::read_link(link).is_ok_and(|path| path.starts_with(target));
    if ["cwd", "root", "exe"]
        .iter()
        .any(|name| inside(&process.join(name)))
    {
        return true;
    }
    ["fd", "map_files"].iter().any(|directory| {
        let entries = fs::read_dir(process.join(directory))
            .into_iter()
            .flatten()
            .flatten();
        entries.into_iter().any(|entry| inside(&entry.path()))
    })
}

fn name(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_that_stands_in_the_directory_is_found_and_named() {
        let directory = std::env::temp_dir().join(format!("backstay-users-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let mut child = Command::new("sleep")
            .arg("60")
            .current_dir(&directory)
            .spawn()
            .unwrap();
        let users = of(&directory);
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_dir(&directory).unwrap();
        assert!(users.iter().any(|user| user.pid == child.id()), "{users:?}");
        assert!(list(&users).contains(&format!("({})", child.id())));
        assert!(of(Path::new("/no/such/place")).is_empty());
    }

    #[test]
    fn many_users_are_counted() {
        let users: Vec<User> = (1..=10)
            .map(|pid| User {
                pid,
                name: "cat".to_owned(),
            })
            .collect();
        assert!(list(&users).ends_with("cat (8) and 2 more"));
    }
}
