//! Where things are: the source tree, the cache outside it, the built binary.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::{Context, Failure, Outcome};
use crate::shell;

/// The checked-out tree and its cache folder.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    /// The folder with the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Downloads and scratch files; never inside the tree.
    pub(crate) cache: PathBuf,
}

impl Project {
    /// The tree that this program was built from.
    pub(crate) fn find() -> Outcome<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .map(Path::to_path_buf)
            .ok_or_else(|| Failure::new("the workspace has no root"))?;
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
            .ok_or_else(|| {
                Failure::new("no cache folder")
                    .because("neither XDG_CACHE_HOME nor HOME is set")
                    .hint("set XDG_CACHE_HOME")
            })?
            .join("backstay");
        fs::create_dir_all(&cache).context(format!("create {}", cache.display()))?;
        Ok(Self { root, cache })
    }

    /// Where cargo puts what it builds.
    pub(crate) fn target(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), PathBuf::from)
    }

    /// The tracked and the new, not ignored files of the tree, relative to the root, sorted.
    pub(crate) fn files(&self) -> Outcome<Vec<String>> {
        let listing = shell::capture(shell::command("git", &self.root).args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
        ]))?;
        let mut files: Vec<String> = listing
            .lines()
            .map(str::to_owned)
            .filter(|file| self.root.join(file).is_file())
            .collect();
        files.sort();
        files.dedup();
        Ok(files)
    }

    /// Reads a file of the tree.
    pub(crate) fn read(&self, file: &str) -> Outcome<String> {
        fs::read_to_string(self.root.join(file)).context(format!("read {file}"))
    }
}
