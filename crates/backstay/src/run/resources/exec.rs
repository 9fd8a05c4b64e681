//! A program in the group's control group. It runs on when the daemon ends, and the next daemon adopts it.

use super::shared::{Round, Shared};
use super::watch::{self, Health, Watch, describe};
use crate::config::model::Exec;
use crate::failure::Failure;
use host::cgroup::Cgroup;
use host::keeper::Step;
use host::process::{self, Launch, LaunchError, Process, ProcessId, Streams};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How long killed processes may take to be gone; one that waits for a disk may take longer.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks of the monitor while the program starts.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// What the next daemon has to know of a program.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// Process ids mean nothing in another boot.
    boot: String,
    process: ProcessId,
}

/// Makes the program run: adopts it, or starts it and waits until its monitor is content.
pub(super) fn start(
    shared: &Arc<Shared>,
    index: u8,
    exec: &Exec,
    known: Option<Watch>,
    round: Round,
) -> Result<Watch, Failure> {
    if let Some(watch) = known
        && runs_well(shared, exec, &watch)
    {
        return Ok(watch);
    }
    let cgroup = shared.plan.program_cgroup(&exec.name)?;
    if let Some(process) = find(shared, exec, &cgroup) {
        let watch = Watch::begin(shared, index, exec, process).map_err(|e| failed(exec, e))?;
        if runs_well(shared, exec, &watch) {
            tracing::info!(
                program = exec.name,
                pid = watch.process().id().pid,
                "program is adopted"
            );
            return Ok(watch);
        }
    }
    // What an earlier start left behind would be in the way: ports, locks, files.
    kill(exec, &cgroup)?;
    shared.check(round)?;
    let process = spawn(shared, exec, &cgroup)?;
    let watch = Watch::begin(shared, index, exec, process).map_err(|e| failed(exec, e))?;
    match wait_until_well(shared, exec, &watch, round) {
        Ok(()) => Ok(watch),
        Err(failure) => {
            watch.end();
            kill(exec, &cgroup)?;
            Err(failure)
        }
    }
}

/// True if it runs and is well. What the monitor disliked earlier, such as while the disk did not answer, is looked at again.
fn runs_well(shared: &Shared, exec: &Exec, watch: &Watch) -> bool {
    if !matches!(watch.process().try_wait(), Ok(None)) {
        return false;
    }
    match watch.health() {
        Health::Well => true,
        Health::Over(_) => false,
        Health::Unwell(_) => {
            let well = watch::monitor(shared, exec).is_none_or(|verdict| verdict.is_ok());
            if well {
                watch.set_well();
            }
            well
        }
    }
}

fn spawn(shared: &Shared, exec: &Exec, cgroup: &Cgroup) -> Result<Process, Failure> {
    let user = exec.user.as_deref().map(process::User::find).transpose();
    let launch = Launch {
        command: exec.start.clone(),
        environment: shared.plan.environment(&exec.name),
        directory: None,
        user: user.map_err(|e| failed(exec, e))?,
        cgroup: Some(cgroup.path().to_owned()),
    };
    let log = shared.plan.program_log(&exec.name);
    let process = process::spawn(&shared.plan.launcher, &launch, Streams::Log(log))
        .map_err(|e: LaunchError| start_failure(exec).from_error(&e))?;
    write_note(&shared.plan.process_file(&exec.name), process.id()).map_err(|e| failed(exec, e))?;
    tracing::info!(
        program = exec.name,
        pid = process.id().pid,
        "program is started"
    );
    Ok(process)
}

/// A program without a monitor is well while it runs.
fn wait_until_well(
    shared: &Shared,
    exec: &Exec,
    watch: &Watch,
    round: Round,
) -> Result<(), Failure> {
    let deadline = Instant::now() + exec.start_timeout;
    let hint = || format!("see {}", shared.plan.program_log(&exec.name).display());
    loop {
        shared.check(round)?;
        if let Health::Over(ended) = watch.health() {
            return Err(start_failure(exec)
                .cause(format!("it {}", describe(ended)))
                .hint(hint()));
        }
        let said = match watch::monitor(shared, exec) {
            None | Some(Ok(())) => break,
            Some(Err(said)) => said,
        };
        if Instant::now() >= deadline {
            return Err(start_failure(exec)
                .cause(format!(
                    "its monitor is not content after {} ms",
                    exec.start_timeout.as_millis()
                ))
                .cause(said)
                .hint(hint()));
        }
        thread::sleep(LOOK_PAUSE);
    }
    // The watcher may have seen the failures of a program that was not up yet.
    if matches!(watch.health(), Health::Unwell(_)) {
        watch.set_well();
    }
    Ok(())
}

/// Ends the program: asks it first, then kills whatever is left of it.
pub(super) fn stop(shared: &Shared, exec: &Exec, known: Option<Watch>) -> Result<(), Failure> {
    if let Some(watch) = &known {
        watch.end();
    }
    let cgroup = shared.plan.program_cgroup(&exec.name)?;
    let process = match &known {
        Some(_) => None,
        None => find(shared, exec, &cgroup),
    };
    let process = known.as_ref().map(Watch::process).or(process.as_ref());
    // A program that ended by itself is not asked; what it left behind is killed.
    let process = process.filter(|process| matches!(process.try_wait(), Ok(None)));
    let deadline = Instant::now() + exec.stop_timeout;
    if let Some(process) = process {
        ask(shared, exec, process, deadline)?;
    }
    let left = match process {
        Some(_) => deadline.saturating_duration_since(Instant::now()),
        None => Duration::ZERO,
    };
    let gone = cgroup
        .wait_empty(left)
        .map_err(|e| stop_failure(exec).from_error(&e))?;
    if !gone {
        tracing::warn!(
            program = exec.name,
            "program does not end in time and is killed"
        );
    }
    kill(exec, &cgroup)?;
    tracing::info!(program = exec.name, "program is stopped");
    fs::remove_file(shared.plan.process_file(&exec.name)).ok();
    // A control group that still has a part that ends late is removed with the next stop.
    cgroup.remove().ok();
    Ok(())
}

fn ask(shared: &Shared, exec: &Exec, process: &Process, deadline: Instant) -> Result<(), Failure> {
    let fail = |e: io::Error| stop_failure(exec).cause(e);
    if let Some(command) = exec.stop.clone() {
        let left = deadline.saturating_duration_since(Instant::now());
        if let Err(said) = watch::run(shared, exec, command, left) {
            tracing::warn!(program = exec.name, said, "stop command failed");
            process.signal(Signal::TERM).map_err(fail)?;
        }
    } else {
        process.signal(Signal::TERM).map_err(fail)?;
    }
    let left = deadline.saturating_duration_since(Instant::now());
    process.wait(left).map_err(fail)?;
    Ok(())
}

/// Kills everything in the program's control group and waits until it is gone.
fn kill(exec: &Exec, cgroup: &Cgroup) -> Result<(), Failure> {
    let fail = |e: host::cgroup::CgroupError| stop_failure(exec).from_error(&e);
    if cgroup.is_empty().map_err(fail)? {
        return Ok(());
    }
    cgroup.kill().map_err(fail)?;
    if cgroup.wait_empty(KILL_LIMIT).map_err(fail)? {
        return Ok(());
    }
    let pids: Vec<String> = cgroup
        .processes()
        .map_err(fail)?
        .iter()
        .map(u32::to_string)
        .collect();
    Err(stop_failure(exec)
        .cause(format!(
            "killed, but not gone after {} s: {}",
            KILL_LIMIT.as_secs(),
            pids.join(", ")
        ))
        .hint("processes that hang in the kernel wait for a disk or a network file system"))
}

/// The program, if one that was written down still runs where it belongs.
fn find(shared: &Shared, exec: &Exec, cgroup: &Cgroup) -> Option<Process> {
    let note = read_note(&shared.plan.process_file(&exec.name))?;
    let is_ours = cgroup
        .processes()
        .is_ok_and(|pids| pids.contains(&note.process.pid));
    if note.boot != boot() || !is_ours {
        return None;
    }
    match Process::adopt(note.process) {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, program = exec.name, "program cannot be adopted");
            None
        }
    }
}

/// What the keeper does instead of [`stop`].
pub(super) fn steps(shared: &Shared) -> Vec<Step> {
    let cgroup = shared.plan.cgroup.iter();
    cgroup
        .map(|cgroup| Step::KillCgroup {
            dir: cgroup.path().to_owned(),
        })
        .collect()
}

fn write_note(path: &Path, process: ProcessId) -> io::Result<()> {
    let text = serde_json::to_string(&Note {
        boot: boot(),
        process,
    })?;
    let fresh = path.with_extension("new");
    fs::write(&fresh, text)?;
    fs::rename(&fresh, path)
}

fn read_note(path: &Path) -> Option<Note> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

fn start_failure(exec: &Exec) -> Failure {
    Failure::new(format!("cannot start {}", exec.name))
}

fn stop_failure(exec: &Exec) -> Failure {
    Failure::new(format!("cannot stop {}", exec.name))
}

fn failed(exec: &Exec, error: impl std::fmt::Display) -> Failure {
    start_failure(exec).cause(error)
}
