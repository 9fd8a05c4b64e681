//! Block devices of the kernel's own drivers, which do not end with the processes of a node.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::state::Lab;
use super::topology::{MIRROR, Node};
use crate::failure::Failure;
use crate::kernel_device;

/// How long the kernel may take to let go of a device.
const STOP_MAX: Duration = Duration::from_secs(10);

/// The link to the block device of a node's mirror.
pub(super) fn link(state: &Path) -> PathBuf {
    state.join("run").join(format!("{MIRROR}.device"))
}

/// Takes a dead node's devices out of the system, whoever waits for them: on a server that loses power they end with the kernel.
///
/// # Errors
/// When one does not go.
pub(super) fn stop(lab: &Lab, node: Node) -> Result<(), Failure> {
    let link = link(&lab.state_dir(node));
    let failed = |why: String| Failure::new(format!("cannot stop the device of {node}")).cause(why);
    for device in kernel_device::find(&link).map_err(|error| failed(error.to_string()))? {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(device.stop()));
        match receiver.recv_timeout(STOP_MAX) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(failed("the kernel waits for something".to_owned())),
        }
    }
    Ok(())
}

/// What is left of any node of the lab in `dir`.
pub(super) fn leftover(dir: &Path) -> Vec<String> {
    let of_node = |node: Node| {
        let link = link(&dir.join(node.name()).join("state"));
        kernel_device::find(&link).unwrap_or_default()
    };
    let devices = Node::DATA.into_iter().flat_map(of_node);
    devices
        .map(|device| device.path().display().to_string())
        .collect()
}
