//! The API of a running daemon: its two listeners, and requests on their way to the loop.

use super::daemon::{Event, Events};
use crate::api::server::{
    Backend, FreezeRequest, Freezes, Request, bind, serve_loopback, serve_socket,
};
use crate::api::view::Snapshot;
use crate::config::model::Config;
use crate::eventlog::EventLog;
use crate::failure::Failure;
use host::clock;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use tokio::sync::{mpsc, watch};

/// Requests that wait for the loop; more are refused as busy.
const REQUESTS_MAX: usize = 16;

/// Begins to serve the API on the Unix socket and on loopback.
pub(super) fn start(
    config: &Config,
    state: &Path,
    snapshot: watch::Receiver<Snapshot>,
    log: EventLog,
    events: Events,
) -> Result<(), Failure> {
    let path = state.join("run/api.sock");
    let listener = bind(&path)
        .map_err(|e| Failure::new(format!("cannot listen on {}", path.display())).cause(e))?;
    let (requests, waiting) = mpsc::channel(REQUESTS_MAX);
    let (freezes, wanted) = mpsc::channel(REQUESTS_MAX);
    let backend = Backend {
        snapshot,
        requests,
        freezes,
        holds: Freezes::default(),
        log,
        clock: clock::now,
    };
    let on_socket = backend.clone();
    tokio::spawn(async move {
        if let Err(error) = serve_socket(listener, on_socket).await {
            tracing::error!(%error, "the API socket is not served any more");
        }
    });
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, config.ports.api));
    tokio::spawn(async move {
        if let Err(error) = serve_loopback(at, backend).await {
            tracing::error!(%error, %at, "health and metrics are not served");
        }
    });
    tokio::spawn(forward(waiting, events.clone()));
    tokio::spawn(forward_freezes(wanted, events));
    Ok(())
}

async fn forward_freezes(mut wanted: mpsc::Receiver<FreezeRequest>, events: Events) {
    while let Some(request) = wanted.recv().await {
        if events.send(Event::Freeze(request)).is_err() {
            return;
        }
    }
}

async fn forward(mut waiting: mpsc::Receiver<Request>, events: Events) {
    while let Some(Request {
        group,
        what,
        reason,
        answer,
    }) = waiting.recv().await
    {
        let event = Event::Ask {
            group,
            request: what,
            reason,
            answer,
        };
        if events.send(event).is_err() {
            return;
        }
    }
}
