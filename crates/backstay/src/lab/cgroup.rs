//! Control groups of a lab: one per node, so that a node can be frozen as a hypervisor freezes a guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::tools;
use super::topology::{LabId, Node};
use crate::failure::Failure;

/// Longest wait for the kernel to freeze a node or to let go of its groups.
const SETTLE: Duration = Duration::from_secs(5);

/// Where cgroup2 is mounted on this machine: `/sys/fs/cgroup`, or `…/unified` beside the older hierarchies.
pub(super) fn mount_point() -> Option<PathBuf> {
    let listed = fs::read_to_string("/proc/self/mountinfo").ok()?;
    listed.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ")
            .then(|| PathBuf::from(fields.split(' ').nth(4).unwrap_or("/")))
    })
}

/// True when the machine has cgroup2.
pub(super) fn is_available() -> bool {
    mount_point().is_some()
}

/// Path of a node's group below the root of cgroup2.
pub(super) fn node_group(id: &LabId, node: Node) -> String {
    format!("{}/{node}", id.cgroup())
}

/// Makes the groups of a node; a machine without cgroup2 goes without.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn create(id: &LabId, node: Node) -> Result<(), Failure> {
    let Some(root) = mount_point() else {
        return Ok(());
    };
    tools::make_dir(&root.join(node_group(id, node)).join("init"))
}

/// Moves the calling process into a node's group and makes that the root of what it sees.
///
/// # Errors
/// When the kernel refuses.
#[expect(
    deprecated,
    reason = "only UnshareFlags::FILES is unsound; the safe call is enough here"
)]
pub(super) fn enter_node(group: &str) -> Result<(), Failure> {
    let Some(root) = mount_point() else {
        return Ok(());
    };
    let group = root.join(group);
    tools::write_file(&group.join("cgroup.procs"), "0")?;
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWCGROUP)
        .map_err(|error| Failure::new("cannot make a cgroup namespace").cause(error))?;
    // A leaf, as systemd does: groups with processes of their own could not get controllers.
    tools::write_file(&group.join("init/cgroup.procs"), "0")
}

/// Freezes or thaws everything in a node.
///
/// # Errors
/// When the kernel refuses or does not get there.
pub(super) fn set_frozen(id: &LabId, node: Node, frozen: bool) -> Result<(), Failure> {
    let Some(root) = mount_point() else {
        return Err(Failure::new(format!("cannot pause {node}"))
            .cause("this machine has no cgroup2")
            .hint(format!("use `backstay lab break {node} stop`")));
    };
    let group = root.join(node_group(id, node));
    tools::write_file(&group.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
    let wanted = if frozen { "frozen 1" } else { "frozen 0" };
    tools::wait_for(&format!("freezing of {node}"), SETTLE, || {
        let events = fs::read_to_string(group.join("cgroup.events")).ok()?;
        events.lines().any(|line| line == wanted).then_some(())
    })
}

/// Removes the lab's groups, innermost first, once their processes have ended.
///
/// # Errors
/// Names a group that is still in use.
pub(super) fn remove(id: &LabId) -> Result<(), Failure> {
    let Some(root) = mount_point() else {
        return Ok(());
    };
    remove_tree(&root.join(id.cgroup()))
}

/// Removes the groups of one node.
///
/// # Errors
/// Names a group that is still in use.
pub(super) fn remove_node(id: &LabId, node: Node) -> Result<(), Failure> {
    let Some(root) = mount_point() else {
        return Ok(());
    };
    remove_tree(&root.join(node_group(id, node)))
}

/// The lab's group, if it exists.
pub(super) fn leftover(id: &LabId) -> Option<PathBuf> {
    mount_point()
        .map(|root| root.join(id.cgroup()))
        .filter(|path| path.exists())
}

fn remove_tree(group: &Path) -> Result<(), Failure> {
    let Ok(entries) = fs::read_dir(group) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    let mut last = None;
    tools::wait_for(
        &format!("removal of cgroup {}", group.display()),
        SETTLE,
        || match fs::remove_dir(group) {
            Ok(()) => Some(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(()),
            Err(error) => {
                last = Some(error);
                None
            }
        },
    )
    .map_err(|failure| match &last {
        Some(error) => failure.cause(error),
        None => failure,
    })
}
