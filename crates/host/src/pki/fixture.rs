//! A cluster of nodes a, b and c for tests, and a node x that holds a certificate but is in nobody's configuration.

use super::{Authority, CA_LIFETIME, Identity, NODE_LIFETIME, Purpose, Tls};
use crate::scratch::Scratch;
use std::time::SystemTime;

pub(crate) struct Cluster {
    name: &'static str,
    dir: Scratch,
    authority: Authority,
}

impl Cluster {
    /// `test` names the directory, `name` the cluster.
    pub(crate) fn new(test: &str, name: &'static str) -> Self {
        let authority = Authority::create(name, SystemTime::now(), CA_LIFETIME).unwrap();
        Self {
            name,
            dir: Scratch::new(test),
            authority,
        }
    }

    pub(crate) fn tls(&self, node: &str, purpose: Purpose) -> Tls {
        let (now, dir) = (SystemTime::now(), self.dir.path().join(node));
        self.authority
            .issue(node, now, NODE_LIFETIME)
            .unwrap()
            .save(&dir)
            .unwrap();
        let identity = Identity::load(&dir, self.name, node, now).unwrap();
        identity
            .tls(purpose, ["node-a", "node-b", "node-c"].map(String::from))
            .unwrap()
    }
}
