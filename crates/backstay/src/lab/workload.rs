//! What runs in the lab's group: its start script.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::state::{Lab, Workload};
use super::tools;
use super::topology::WORKLOAD_PORT;
use crate::failure::Failure;

/// Environment variable by which the lab finds the workload's processes; its value is the start script's path.
pub(super) const MARK: &str = "BACKSTAY_LAB_APP";
/// The system user that PostgreSQL runs as (Debian's packages make it).
const POSTGRES_USER: &str = "postgres";

/// Writes the script that the exec resource runs.
///
/// # Errors
/// When PostgreSQL is asked for and not installed, or the file cannot be written.
pub(super) fn write_start_script(lab: &Lab) -> Result<(), Failure> {
    let exe = std::env::current_exe()
        .map_err(|error| Failure::new("cannot find the path of this program").cause(error))?;
    let body = match lab.options.workload {
        Workload::None => return Ok(()),
        Workload::Ledger => ledger_script(&exe, lab),
        Workload::Postgres => postgres_script(&postgres_programs()?, lab),
    };
    let script = lab.start_script();
    let text = format!(
        "#!/bin/sh\nset -e\nexport {MARK}='{}'\nif [ -e '{}' ]; then echo 'told to fail' >&2; exit 1; fi\n{body}",
        script.display(),
        lab.app_fault_file().display(),
    );
    tools::write_file(&script, &text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).map_err(|error| {
        Failure::new(format!("cannot make {} runnable", script.display())).cause(error)
    })
}

fn ledger_script(exe: &Path, lab: &Lab) -> String {
    format!(
        "exec '{}' ledger serve --dir '{}' --listen 0.0.0.0:{WORKLOAD_PORT}\n",
        exe.display(),
        lab.mount().display()
    )
}

/// The server is single and exclusive (the mirror sees to that), so a lock file that a dead one left is stale: its PID may
/// belong to anybody in this PID namespace.
fn postgres_script(programs: &Path, lab: &Lab) -> String {
    let (bin, mount) = (programs.display(), lab.mount().display().to_string());
    let user = format!("setpriv --reuid={POSTGRES_USER} --regid={POSTGRES_USER} --init-groups");
    format!(
        "data='{mount}/postgres'\n\
         if [ ! -s \"$data/PG_VERSION\" ] || [ ! -e \"$data/ready\" ]; then\n\
         \x20 rm -rf \"$data\"; mkdir \"$data\"; chown {POSTGRES_USER}: \"$data\"; chmod 700 \"$data\"\n\
         \x20 {user} '{bin}/initdb' --no-sync --auth=trust --encoding=UTF8 --no-locale -D \"$data\" >/dev/null\n\
         \x20 echo 'host all all 10.88.0.0/24 trust' >>\"$data/pg_hba.conf\"\n\
         \x20 sync -f \"$data\"; touch \"$data/ready\"; sync -f \"$data\"\n\
         fi\n\
         rm -f \"$data/postmaster.pid\"\n\
         exec {user} '{bin}/postgres' -D \"$data\" -c listen_addresses='*' -c port={WORKLOAD_PORT} \\\n\
         \x20 -c unix_socket_directories= -c shared_buffers=16MB -c max_connections=60 -c max_wal_size=64MB \\\n\
         \x20 -c min_wal_size=32MB -c dynamic_shared_memory_type=mmap -c log_min_messages=warning\n"
    )
}

/// Directory of PostgreSQL's programs: Debian keeps them out of `PATH`, by version.
fn postgres_programs() -> Result<PathBuf, Failure> {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("postgres").is_file())
        .collect();
    versions.sort_unstable();
    versions.pop().ok_or_else(|| {
        Failure::new("the workload postgres needs a PostgreSQL server")
            .cause("there is none in /usr/lib/postgresql")
            .hint("apt-get install postgresql")
    })
}
