//! Who may use the socket: root and the daemon's own user, as the kernel names them (`SO_PEERCRED`).

use axum::extract::Request;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use tokio::net::UnixListener;

use super::Refusal;
use crate::api::fault::FaultKind;

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// Its user; none if the kernel did not say.
    uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self {
            uid: stream
                .io()
                .peer_cred()
                .ok()
                .map(|credentials| credentials.uid()),
        }
    }
}

fn may_use(peer: Peer, owner: u32) -> bool {
    peer.uid.is_some_and(|uid| uid == 0 || uid == owner)
}

pub(super) async fn only_owner(
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if may_use(peer, rustix::process::geteuid().as_raw()) {
        return next.run(request).await;
    }
    let who = peer
        .uid
        .map_or_else(|| "an unknown user".into(), |uid| format!("user {uid}"));
    tracing::warn!(uid = peer.uid, "refused an API request");
    Refusal::new(
        FaultKind::Forbidden,
        format!("{who} may not use this socket"),
    )
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_owner_may_use_the_socket() {
        assert!(may_use(Peer { uid: Some(0) }, 990));
        assert!(may_use(Peer { uid: Some(990) }, 990));
        assert!(!may_use(Peer { uid: Some(1_000) }, 990));
        assert!(!may_use(Peer { uid: None }, 990));
    }
}
