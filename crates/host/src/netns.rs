//! Network namespaces for tests: nothing here leaves the machine, or even its own namespace.

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;

/// Runs `body` on a thread in a new, empty network namespace.
pub(crate) fn isolated(body: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            // JUSTIFICATION: the safe form is deprecated, for flags that this call does not use.
            // SAFETY: a new network namespace of this thread changes no memory, file or signal.
            #[expect(unsafe_code, reason = "see the justification")]
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            body();
        });
        run.join().unwrap();
    });
}

/// Two namespaces, joined by a cable: `node` with `eth0` at 10.9.0.1/24, `client` with `eth0` at 10.9.0.2/24.
#[derive(Debug)]
pub(crate) struct Cable {
    node: String,
    client: String,
}

impl Cable {
    pub(crate) fn new(test: &str) -> Self {
        let name = |end| format!("bs-{test}-{}-{end}", std::process::id());
        let cable = Self {
            node: name("n"),
            client: name("c"),
        };
        for namespace in [&cable.node, &cable.client] {
            ip(&["netns", "add", namespace]);
        }
        let peer = ["peer", "name", "eth0", "netns", &cable.client];
        ip(&[
            &["-n", &cable.node, "link", "add", "eth0", "type", "veth"],
            &peer[..],
        ]
        .concat());
        for (namespace, address) in [(&cable.node, "10.9.0.1/24"), (&cable.client, "10.9.0.2/24")] {
            ip(&["-n", namespace, "addr", "add", address, "dev", "eth0"]);
            ip(&["-n", namespace, "link", "set", "eth0", "up"]);
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
        }
        cable
    }

    /// Runs `body` on a thread in the node's namespace.
    pub(crate) fn on_node<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        inside(&self.node, body)
    }

    /// Runs `body` on a thread in the client's namespace.
    pub(crate) fn on_client<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        inside(&self.client, body)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for namespace in [&self.node, &self.client] {
            Command::new("ip")
                .args(["netns", "del", namespace])
                .status()
                .ok();
        }
    }
}

fn ip(args: &[&str]) {
    assert!(
        Command::new("ip").args(args).status().unwrap().success(),
        "ip {args:?}"
    );
}

fn inside<T: Send>(namespace: &str, body: impl FnOnce() -> T + Send) -> T {
    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
    thread::scope(|scope| {
        let run = scope.spawn(move || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(file.as_fd(), kind).unwrap();
            body()
        });
        run.join().unwrap()
    })
}
