//! A lab's beginning and end.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::state::{Lab, Options, Workload, state_file};
use super::topology::{LabId, Node};
use super::{cgroup, config, devices, interrupt, loops, network, node, process, status, tools};
use crate::failure::Failure;

/// Longest wait for the nodes to form a cluster with a redundant mirror and a running service.
const READY_MAX: Duration = Duration::from_secs(60);
/// Words by which a complaint is found in a daemon's log.
const COMPLAINTS: [&str; 3] = ["error:", "ERROR", "panicked"];
/// Longest complaint that is shown, in characters.
const COMPLAINT_MAX: usize = 300;
/// Longest wait for the kernel to give loop devices back.
const LOOPS_MAX: Duration = Duration::from_secs(5);

/// Where a lab lives unless `--dir` says otherwise: in memory if the machine has a place for that.
pub fn default_dir() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    base.join("backstay-lab")
}

/// Starts a lab and returns when its cluster is ready. A lab that does not get ready is taken down again.
///
/// # Errors
/// When there is a lab already, a tool is missing, the kernel refuses, or the cluster does not get ready.
pub fn up(dir: &Path, options: Options, keep_failed: bool) -> Result<Lab, Failure> {
    tools::preflight()?;
    let owns_dir = !dir.exists();
    tools::make_dir(dir)?;
    let dir = fs::canonicalize(dir)
        .map_err(|error| Failure::new(format!("cannot use {}", dir.display())).cause(error))?;
    if state_file(&dir).exists() {
        return Err(
            Failure::new(format!("there is a lab in {} already", dir.display()))
                .hint("take it down with `backstay lab down`, or give another --dir"),
        );
    }
    let mut lab = Lab::new(dir, owns_dir, options);
    lab.save()?;
    let started = start(&mut lab).and_then(|()| wait_ready(&lab));
    let Err(failure) = started else {
        return Ok(lab);
    };
    let logs = format!("see daemon.log below {}", lab.dir.display());
    if keep_failed {
        return Err(failure.hint(logs));
    }
    let last_words = last_words(&lab);
    interrupt::begin_cleaning();
    let down = down(&lab.dir);
    interrupt::end_cleaning();
    down?;
    Err(last_words.into_iter().fold(failure, Failure::cause))
}

fn start(lab: &mut Lab) -> Result<(), Failure> {
    network::create(lab)?;
    config::prepare(lab)?;
    lab.members().try_for_each(|node| node::start(lab, node))
}

/// Waits until the group is served, redundant and able to fail over.
///
/// # Errors
/// When that takes more than a minute; says what was missing.
pub fn wait_ready(lab: &Lab) -> Result<(), Failure> {
    let mut missing = String::new();
    tools::wait_for(
        "readiness of the lab's cluster",
        READY_MAX,
        || match why_not_ready(lab) {
            None => Some(()),
            Some(why) => {
                missing = why;
                None
            }
        },
    )
    .map_err(|failure| failure.cause(&missing))
}

/// What still keeps the group from being served and redundant, by the active's own words.
pub fn why_not_ready(lab: &Lab) -> Option<String> {
    let Some(active) = status::active_node(lab) else {
        return Some("no node is active".to_owned());
    };
    let Some(group) = status::group(lab, active) else {
        return Some(format!("{active} does not tell its state"));
    };
    if group["can_fail_over"].as_bool() != Some(true) {
        return Some(format!(
            "{active} could not fail over: {}",
            group["why_not"]
        ));
    }
    let in_sync = group["in_sync"].as_array().map_or(0, Vec::len);
    if in_sync != usize::from(lab.options.replicas) {
        return Some(format!("{active} has {in_sync} replicas in sync"));
    }
    let resources = group["resources"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let wanted = if lab.options.workload == Workload::None {
        2
    } else {
        4
    };
    if resources.len() != wanted {
        return Some(format!(
            "{active} has {} of {wanted} resources",
            resources.len()
        ));
    }
    resources
        .iter()
        .find(|resource| {
            !matches!(
                resource["state"].as_str(),
                Some("started" | "running" | "active")
            )
        })
        .map(|resource| format!("{} is {}", resource["name"], resource["state"]))
}

/// What the nodes' logs complain about, for a failure's causes.
fn last_words(lab: &Lab) -> Vec<String> {
    let complaint = |node: Node| {
        let log = fs::read_to_string(lab.log(node)).ok()?;
        let last = log
            .lines()
            .rev()
            .find(|line| COMPLAINTS.iter().any(|word| line.contains(word)))?;
        let short: String = last.chars().take(COMPLAINT_MAX).collect();
        Some(format!("{node} said: {short}"))
    };
    lab.members().filter_map(complaint).collect()
}

/// Takes the lab in `dir` down, whatever state it is in, and removes its files.
///
/// # Errors
/// Names what could not be removed.
pub fn down(dir: &Path) -> Result<(), Failure> {
    let Ok(dir) = fs::canonicalize(dir) else {
        return Ok(());
    };
    stop(&dir)?;
    remove_files(&dir)
}

/// Ends everything of the lab in `dir` and leaves its files, logs included.
///
/// # Errors
/// Names what could not be removed.
pub fn stop(dir: &Path) -> Result<(), Failure> {
    let id = LabId::of_dir(dir);
    if let Ok(mut lab) = Lab::load(dir) {
        for node in lab.members() {
            node::kill(&mut lab, node)?;
        }
    }
    // Whatever a crash, or a lost lab.json, has left behind.
    for netns in network::namespaces(&id) {
        process::kill_all(&process::in_netns(&netns))?;
    }
    process::kill_all(&process::mentioning(dir))?;
    network::remove(&id)?;
    cgroup::remove(&id)?;
    check_nothing_left(dir, &id)
}

/// Looks for everything that a lab can leave behind.
///
/// # Errors
/// Names what is left.
pub fn check_nothing_left(dir: &Path, id: &LabId) -> Result<(), Failure> {
    // The kernel lets go of loop devices after the last mount namespace is gone.
    tools::wait_for("loop devices", LOOPS_MAX, || {
        loops::backed_by(dir).is_empty().then_some(())
    })
    .ok();
    let mut left = network::namespaces(id);
    left.extend(loops::backed_by(dir));
    left.extend(devices::leftover(dir));
    left.extend(mounts_below(dir));
    left.extend(cgroup::leftover(id).map(|path| path.display().to_string()));
    left.extend(process::mentioning(dir).iter().map(|pid| {
        format!(
            "process {} ({})",
            pid.as_raw_nonzero(),
            process::command_line(*pid).trim()
        )
    }));
    if left.is_empty() {
        return Ok(());
    }
    Err(
        Failure::new(format!("the lab in {} is not quite gone", dir.display()))
            .cause(format!("left: {}", left.join(", ")))
            .hint("run `backstay lab down` again"),
    )
}

fn mounts_below(dir: &Path) -> Vec<String> {
    let listed = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    listed
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| Path::new(point).starts_with(dir) && Path::new(point) != dir)
        .map(|point| format!("mount {point}"))
        .collect()
}

/// Removes what the lab wrote; the directory too if the lab made it.
fn remove_files(dir: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(format!(
            "cannot remove the files of the lab in {}",
            dir.display()
        ))
        .cause(error)
    };
    if !state_file(dir).exists() {
        return Ok(());
    }
    if Lab::load(dir).is_ok_and(|lab| lab.owns_dir) {
        return fs::remove_dir_all(dir).map_err(failed);
    }
    for name in ["mnt", "pki"].into_iter().chain(Node::ALL.map(Node::name)) {
        ignore_missing(fs::remove_dir_all(dir.join(name))).map_err(failed)?;
    }
    for name in [
        "backstay.toml",
        "start-app",
        "app-fails",
        "lab.json.new",
        "lab.json",
    ] {
        ignore_missing(fs::remove_file(dir.join(name))).map_err(failed)?;
    }
    Ok(())
}

fn ignore_missing(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
