//! The sockets on which an engine listens.

use super::EngineConfig;
use crate::failure::Failure;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

/// Listening sockets, made before the thread starts so that their failure is the caller's.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) peers: TcpListener,
    pub(super) nbd: UnixListener,
}

impl Sockets {
    pub(super) fn open(config: &EngineConfig) -> Result<Self, Failure> {
        let cannot = |at: String, error: io::Error| {
            Failure::new(format!("cannot listen on {at}")).cause(error)
        };
        let peers = TcpListener::bind(config.listen)
            .and_then(|l| l.set_nonblocking(true).map(|()| l))
            .map_err(|e| cannot(config.listen.to_string(), e))?;
        let path = &config.nbd_socket;
        // What an earlier daemon left; the lock on the state directory says that it is gone.
        std::fs::remove_file(path).ok();
        let nbd = UnixListener::bind(path)
            .and_then(|l| l.set_nonblocking(true).map(|()| l))
            .and_then(|l| {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map(|()| l)
            })
            .map_err(|e| cannot(path.display().to_string(), e))?;
        Ok(Self { peers, nbd })
    }
}
