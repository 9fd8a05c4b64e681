//! The guest's kernel and what it starts with.
//!
//! The kernel is Debian's own package, unpacked in the cache folder and never installed. The first file system is a small archive with
//! busybox and a few modules: it mounts this machine's files read-only, lays a file system in memory over them, and goes on there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::{Context, Failure, Outcome};
use crate::project::Project;
use crate::shell;

/// The package, as a pattern for apt-cache.
const PACKAGE: &str = r"^linux-image-6\.12\.[0-9]+\+deb12-amd64$";
/// What has to be there before this machine's files are.
const MODULES: [&str; 6] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "9p",
    "9pnet_virtio",
    "overlay",
];
const INIT: &str = include_str!("init.sh");

/// Files to boot from.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    pub(super) archive: PathBuf,
    /// The folder that becomes `/lib/modules`.
    pub(super) modules: PathBuf,
}

/// Finds the kernel in the cache folder, or fetches it; makes the archive.
pub(super) fn prepare(project: &Project) -> Outcome<Kernel> {
    let dir = project.cache.join("guest");
    let root = dir.join("kernel");
    if !root.join("complete").is_file() {
        fetch(&dir, &root)?;
    }
    let modules = root.join("lib/modules");
    let version = only_name(&modules)?;
    let archive = dir.join("initramfs.gz");
    pack(&dir, &root, &version, &archive)?;
    Ok(Kernel {
        image: root.join("boot").join(format!("vmlinuz-{version}")),
        archive,
        modules,
    })
}

fn fetch(dir: &Path, root: &Path) -> Outcome {
    // What an interrupted run left.
    drop(fs::remove_dir_all(root));
    let parts = dir.join("fetched");
    drop(fs::remove_dir_all(&parts));
    fs::create_dir_all(&parts).context(format!("create {}", parts.display()))?;
    let package = newest_package()?;
    eprintln!("fetching {package} (100 MB)");
    shell::capture(shell::command("apt-get", &parts).args(["download", "-q", &package]))?;
    let file = parts.join(only_name(&parts)?);
    shell::capture(shell::command("dpkg", dir).arg("-x").args([&file, root]))?;
    let version = only_name(&root.join("lib/modules"))?;
    shell::capture(
        shell::command("depmod", dir)
            .arg("-b")
            .arg(root)
            .arg(&version),
    )?;
    fs::remove_dir_all(&parts).context(format!("remove {}", parts.display()))?;
    fs::write(root.join("complete"), "").context("mark the kernel as complete")
}

fn newest_package() -> Outcome<String> {
    let search = || {
        let mut search = Command::new("apt-cache");
        shell::capture(search.args(["search", "--names-only", PACKAGE]))
    };
    let mut found = search()?;
    if found.trim().is_empty() {
        shell::capture(Command::new("apt-get").args(["update", "-qq"]))?;
        found = search()?;
    }
    let patch = |name: &str| -> u64 {
        let digits = name.split('+').next().and_then(|n| n.rsplit('.').next());
        digits.and_then(|d| d.parse().ok()).unwrap_or(0)
    };
    found
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .max_by_key(|name| patch(name))
        .map(str::to_owned)
        .ok_or_else(|| {
            Failure::new("no kernel for guests")
                .because(format!("apt-cache finds no package {PACKAGE}"))
                .hint("guests need Debian 12 with its updates in the package sources")
        })
}

/// The name of the only thing in a folder.
fn only_name(dir: &Path) -> Outcome<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .context(format!("list {}", dir.display()))?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    match (names.pop(), names.is_empty()) {
        (Some(name), true) => Ok(name),
        _ => Err(
            Failure::new(format!("{} does not hold one thing", dir.display()))
                .hint("remove it and run again"),
        ),
    }
}

fn pack(dir: &Path, root: &Path, version: &str, archive: &Path) -> Outcome {
    let tree = dir.join(format!("initramfs-{}", std::process::id()));
    for folder in ["bin", "m", "proc", "sys", "dev", "lower", "upper", "root"] {
        let path = tree.join(folder);
        fs::create_dir_all(&path).context(format!("create {}", path.display()))?;
    }
    let packed = fill(root, version, &tree).and_then(|()| {
        let fresh = tree.with_extension("gz");
        let line = format!(
            "find . | busybox cpio -o -H newc | gzip -1 > {}",
            fresh.display()
        );
        shell::capture(shell::command("sh", &tree).args(["-c", &line]))?;
        fs::rename(&fresh, archive).context(format!("make {}", archive.display()))
    });
    fs::remove_dir_all(&tree).context(format!("remove {}", tree.display()))?;
    packed
}

fn fill(root: &Path, version: &str, tree: &Path) -> Outcome {
    let init = tree.join("init");
    fs::write(&init, INIT).context("write init")?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).context("make init runnable")?;
    let busybox = shell::capture(shell::command("sh", root).args(["-c", "command -v busybox"]))?;
    fs::copy(busybox.trim(), tree.join("bin/busybox")).context("copy busybox")?;
    let mut order = Vec::new();
    for file in needed(root, version)? {
        let name = file.rsplit('/').next().unwrap_or_default();
        let name = name.trim_end_matches(".xz").to_owned();
        if order.contains(&name) {
            continue;
        }
        unpack(&file, &tree.join("m").join(&name))?;
        order.push(name);
    }
    fs::write(tree.join("modules"), order.join("\n") + "\n").context("write the list of modules")
}

/// The files of the modules, each after those that it needs.
fn needed(root: &Path, version: &str) -> Outcome<Vec<String>> {
    let mut show = shell::command("modprobe", root);
    show.arg("-d")
        .arg(root)
        .args(["-S", version, "--show-depends", "-a"]);
    let shown = shell::capture(show.args(MODULES))?;
    Ok(shown
        .lines()
        .filter_map(|line| line.strip_prefix("insmod "))
        .filter_map(|rest| rest.split_whitespace().next())
        .map(str::to_owned)
        .collect())
}

fn unpack(from: &str, to: &Path) -> Outcome {
    let file = fs::File::create(to).context(format!("create {}", to.display()))?;
    let program = if from.ends_with(".xz") {
        "xzcat"
    } else {
        "cat"
    };
    let status = Command::new(program)
        .arg(from)
        .stdin(Stdio::null())
        .stdout(file)
        .status()
        .context(format!("run {program}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(Failure::new(format!("cannot unpack {from}")).because(status)),
    }
}
