//! Events as a list, as a stream (`text/event-stream`), and explained.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::Backend;
use super::read::Language;
use super::reply::{Query, Refusal, ok};
use crate::api::body::Events;
use crate::api::fault::FaultKind;
use crate::eventlog::entry::Logged;
use crate::eventlog::{EventLog, READ_MAX};
use crate::output::Lang;
use crate::render::event::EventView;
use crate::render::why;

/// Events in an answer when the asker does not say.
const LIMIT_DEFAULT: usize = 100;

/// Between two comments on a stream without events, so that dead readers are noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Chunks that wait for a slow reader; then the stream waits, and the log keeps the events.
const CHUNKS_MAX: usize = 16;

/// Events around the wanted one that are searched for its incident.
const AROUND: u64 = 500;

/// Parameters of the list and of the stream.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    /// Only events with a higher number.
    after: Option<u64>,
    /// Most events; the newest ones if `after` is missing.
    limit: Option<usize>,
    lang: Option<String>,
}

impl Wanted {
    fn lang(&self) -> Lang {
        self.lang.as_deref().map_or(Lang::En, Lang::from_locale)
    }
}

pub(super) async fn events(
    State(backend): State<Backend>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("text/event-stream")) {
        return stream(&backend, &wanted, &headers);
    }
    let limit = wanted.limit.unwrap_or(LIMIT_DEFAULT).min(READ_MAX);
    let lang = wanted.lang();
    let log = backend.log.clone();
    let found = blocking(move || match wanted.after {
        Some(after) => log.after(after, limit),
        None => log.last(limit),
    })
    .await?;
    Ok(ok(&Events {
        schema: "backstay.events/1".into(),
        events: found
            .iter()
            .map(|logged| EventView::new(lang, logged))
            .collect(),
        head: backend.log.head(),
    }))
}

/// Old events come from files, and files may hang.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Refusal::new(FaultKind::Busy, "the daemon is ending"))
}

fn stream(backend: &Backend, wanted: &Wanted, headers: &HeaderMap) -> Result<Response, Refusal> {
    let last = match headers.get("last-event-id") {
        Some(value) => Some(last_event_id(value.to_str().unwrap_or_default())?),
        None => wanted.after,
    };
    let after = last.unwrap_or_else(|| backend.log.head());
    let (chunks, reader) = mpsc::channel(CHUNKS_MAX);
    tokio::spawn(feed(backend.log.clone(), after, wanted.lang(), chunks));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::new(Stream::new(reader))).into_response())
}

/// The id of a stream's event: its number, alone or behind the node's name.
fn last_event_id(text: &str) -> Result<u64, Refusal> {
    let number = text.rsplit(':').next().unwrap_or_default();
    number.parse().map_err(|_| {
        Refusal::new(
            FaultKind::Malformed,
            format!("`{text}` is not the number of an event"),
        )
    })
}

/// Feeds a stream until its reader is gone.
async fn feed(log: EventLog, mut after: u64, lang: Lang, chunks: mpsc::Sender<Bytes>) {
    let mut head = log.subscribe();
    loop {
        let read = log.clone();
        let Ok(found) = tokio::task::spawn_blocking(move || read.after(after, 100)).await else {
            return;
        };
        for logged in &found {
            after = logged.entry.seq;
            if chunks.send(chunk(lang, logged)).await.is_err() {
                return;
            }
        }
        if !found.is_empty() {
            continue;
        }
        tokio::select! {
            changed = head.changed() => if changed.is_err() { return },
            () = chunks.closed() => return,
            () = tokio::time::sleep(KEEP_ALIVE) => {
                if chunks.send(Bytes::from_static(b": alive\n\n")).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn chunk(lang: Lang, logged: &Arc<Logged>) -> Bytes {
    let view = EventView::new(lang, logged);
    let data = serde_json::to_string(&view).unwrap_or_default();
    Bytes::from(format!(
        "id: {}\nevent: {}\ndata: {data}\n\n",
        view.seq, view.code
    ))
}

/// The body of a stream.
#[derive(Debug)]
pub(super) struct Stream(mpsc::Receiver<Bytes>);

impl Stream {
    pub(super) const fn new(chunks: mpsc::Receiver<Bytes>) -> Self {
        Self(chunks)
    }
}

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(context)
            .map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
    }
}

pub(super) async fn why_newest(
    State(backend): State<Backend>,
    Query(language): Query<Language>,
) -> Result<Response, Refusal> {
    let log = backend.log.clone();
    let found = blocking(move || log.last(READ_MAX)).await?;
    let Some(wanted) = why::notable(&found) else {
        return Err(Refusal::new(
            FaultKind::NotFound,
            "nothing was decided on this node yet",
        ));
    };
    Ok(ok(&why::explain(language.lang(), &found, wanted)))
}

pub(super) async fn why(
    State(backend): State<Backend>,
    Path(event): Path<String>,
    Query(language): Query<Language>,
) -> Result<Response, Refusal> {
    let seq = own_event(&backend, &event)?;
    let log = backend.log.clone();
    let found = blocking(move || log.after(seq.saturating_sub(AROUND), READ_MAX)).await?;
    let Some(wanted) = found.iter().find(|logged| logged.entry.seq == seq) else {
        return Err(Refusal::new(
            FaultKind::NotFound,
            format!("there is no event {event}"),
        ));
    };
    Ok(ok(&why::explain(language.lang(), &found, wanted)))
}

/// The number of an event of this node: `17`, or `node-a:17` on node-a.
fn own_event(backend: &Backend, event: &str) -> Result<u64, Refusal> {
    let me = backend.snapshot.borrow().names.me.clone();
    if let Some((node, _)) = event.split_once(':')
        && node != me
    {
        let detail = format!("event {event} is in the log of {node}; ask there");
        return Err(Refusal::new(FaultKind::NotFound, detail));
    }
    last_event_id(event)
}
