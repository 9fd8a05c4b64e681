//! The daemon's side of the API.
//!
//! ```text
//!  run/api.sock ──► access (peer's uid) ──► all routes ──┐
//!                                                        ├──► snapshot (watch), event log, requests (queue)
//!  127.0.0.1:port ─────────────────► health and metrics ─┘
//! ```

mod access;
mod events;
mod freeze;
mod groups;
mod health;
mod metrics;
mod read;
mod reply;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot, watch};
use wire::control::{GroupRequest, RequestFault};
use wire::{GroupId, Time};

use super::view::Snapshot;
use crate::eventlog::EventLog;
use access::Peer;
pub use freeze::{FreezeRequest, Freezes, Hold, Standstill};
use reply::Refusal;

/// Largest body of a request, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// What a person asks of a group, on its way to the run loop.
#[derive(Debug)]
pub struct Request {
    /// Which group.
    pub group: GroupId,
    /// What.
    pub what: GroupRequest,
    /// Their words; may be empty. At most [`super::body::REASON_BYTES_MAX`] bytes, no control characters.
    pub reason: String,
    /// Where the answer goes. The asker may have given up.
    pub answer: oneshot::Sender<Result<(), RequestFault>>,
}

/// Everything that the API stands on.
#[derive(Clone, Debug)]
pub struct Backend {
    /// The node's knowledge.
    pub snapshot: watch::Receiver<Snapshot>,
    /// To the run loop. When it is full, requests are refused as busy.
    pub requests: mpsc::Sender<Request>,
    /// To the groups' resources. When it is full, requests are refused as busy.
    pub freezes: mpsc::Sender<FreezeRequest>,
    /// The freezes that are under way.
    pub holds: Freezes,
    /// The event log.
    pub log: EventLog,
    /// The clock of [`Snapshot::taken`].
    pub clock: fn() -> Time,
}

impl Backend {
    fn snapshot(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }
}

/// Routes that need no right: for load balancers and metrics. Nothing here changes anything.
fn public_routes() -> Router<Backend> {
    Router::new()
        .route("/metrics", get(metrics::metrics))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/health/active", get(health::active))
        .route("/health/standby", get(health::standby))
        .route("/api/v1/openapi.json", get(read::openapi))
}

/// Routes for root and the daemon's user.
fn private_routes() -> Router<Backend> {
    Router::new()
        .route("/api/v1/status", get(read::status))
        .route("/api/v1/mirrors", get(read::mirrors))
        .route("/api/v1/addresses", get(read::addresses))
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/why", get(events::why_newest))
        .route("/api/v1/why/{event}", get(events::why))
        .route("/api/v1/groups/{group}/{action}", post(groups::ask))
        .route("/api/v1/mirrors/{mirror}/freeze", post(freeze::freeze))
        .route("/api/v1/mirrors/{mirror}/thaw", post(freeze::thaw))
}

fn finish(routes: Router<Backend>, backend: Backend) -> Router {
    routes
        .fallback(reply::no_such_path)
        .method_not_allowed_fallback(reply::wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(backend)
}

/// The routes of the loopback port.
pub(super) fn loopback_routes(backend: Backend) -> Router {
    finish(public_routes(), backend)
}

/// Makes the socket, in a directory that only its owner enters, and with mode 0600.
///
/// A socket left by an earlier daemon is replaced: the caller holds the state directory's lock.
///
/// # Errors
/// When the directory or the socket cannot be made.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        // It may have existed with another mode.
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers on the Unix socket until it is dropped.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve_socket(listener: UnixListener, backend: Backend) -> io::Result<()> {
    let routes = finish(public_routes().merge(private_routes()), backend)
        .layer(middleware::from_fn(access::only_owner));
    axum::serve(
        listener,
        routes.into_make_service_with_connect_info::<Peer>(),
    )
    .await
}

/// Answers health checks and metrics on a loopback address until it is dropped.
///
/// # Errors
/// When the address is not a loopback address, is taken, or the listener fails for good.
pub async fn serve_loopback(address: SocketAddr, backend: Backend) -> io::Result<()> {
    if !address.ip().is_loopback() {
        let message = "health and metrics are served on loopback addresses only";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let listener = TcpListener::bind(address).await?;
    axum::serve(listener, loopback_routes(backend)).await
}
