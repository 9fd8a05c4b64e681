//! A mirror that stands still for a snapshot, as long as who asked for it reads the answer.
//!
//! The answer is a stream: first where everything is, then a sign of life ten times a second, at last why it is over. A
//! reader that goes away, however, lets the mirror go on. One that wants to know whether it stood still until the end asks for
//! the thaw, and reads on: only of a mirror that did until then the last event says that it was released.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::{Notify, mpsc, oneshot};
use wire::GroupId;

use super::Backend;
use super::events::Stream;
use super::reply::{Query, Refusal, ok};
use crate::api::body::{Frozen, StillFrozen, Thawed, Thawing};
use crate::api::fault::FaultKind;
use crate::api::view::Snapshot;

/// Longest freeze that may be asked for.
const LIMIT_MAX: Duration = Duration::from_secs(3_600);
/// Between two signs of life.
const BEAT: Duration = Duration::from_millis(100);
/// Signs of life that wait for a slow reader; then there are none.
const CHUNKS_MAX: usize = 4;

/// What a person asks of a mirror, on its way to its group's resources.
#[derive(Debug)]
pub struct FreezeRequest {
    /// The mirror's group.
    pub group: GroupId,
    /// The mirror's name.
    pub mirror: String,
    /// After so long it runs again by itself.
    pub limit: Duration,
    /// Where the answer goes, once the mirror stands still and is flushed; or why it does not.
    pub answer: oneshot::Sender<Result<Standstill, String>>,
}

/// A mirror that stands still.
#[derive(Debug)]
pub struct Standstill {
    /// Where its file system is mounted; none if it has none: then it was flushed, and goes on.
    pub mount: Option<PathBuf>,
    /// The disk.
    pub disk: PathBuf,
    /// The device of the disk's metadata, if it is not at the disk's end.
    pub metadata: Option<PathBuf>,
    /// Tells why it is over.
    pub over: oneshot::Receiver<Thawed>,
    /// Dropped: the mirror goes on.
    pub hold: Hold,
}

/// Keeps a mirror standing still.
#[derive(Debug)]
pub struct Hold(pub std::sync::mpsc::Sender<Thawed>);

impl Drop for Hold {
    fn drop(&mut self) {
        // Its thread may have ended by itself.
        self.0.send(Thawed::Released).ok();
    }
}

/// The freezes that somebody reads about.
#[derive(Clone, Debug, Default)]
pub struct Freezes(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    last: AtomicU64,
    /// Where each is told to end.
    ends: Mutex<BTreeMap<u64, Arc<Notify>>>,
}

impl Freezes {
    fn begin(&self) -> Following {
        let number = self.0.last.fetch_add(1, Ordering::Relaxed) + 1;
        let end = Arc::new(Notify::new());
        self.ends().insert(number, Arc::clone(&end));
        Following {
            of: self.clone(),
            number,
            end,
        }
    }

    /// False if there is no such freeze any more.
    fn end(&self, number: u64) -> bool {
        let ended = self.ends().remove(&number);
        ended.map(|end| end.notify_one()).is_some()
    }

    fn ends(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Notify>>> {
        self.0.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A freeze that somebody reads about.
struct Following {
    of: Freezes,
    number: u64,
    end: Arc<Notify>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.of.ends().remove(&self.number);
    }
}

/// Parameters of a thaw.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Ended {
    freeze: u64,
}

pub(super) async fn thaw(
    State(backend): State<Backend>,
    Path(mirror): Path<String>,
    Query(Ended { freeze }): Query<Ended>,
) -> Result<Response, Refusal> {
    if backend.holds.end(freeze) {
        return Ok(ok(&Thawing { freeze }));
    }
    let detail = format!("mirror {mirror} does not stand still, or not for that snapshot");
    Err(Refusal::new(FaultKind::Refused, detail).reason("freeze"))
}

/// Parameters.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Wanted {
    /// After so long it runs again by itself.
    limit_ms: u64,
}

pub(super) async fn freeze(
    State(backend): State<Backend>,
    Path(mirror): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Refusal> {
    let limit = Duration::from_millis(wanted.limit_ms);
    if limit.is_zero() || limit > LIMIT_MAX {
        let detail = format!("`limit_ms` is 1 to {}", LIMIT_MAX.as_millis());
        return Err(Refusal::new(FaultKind::Malformed, detail));
    }
    let snapshot = backend.snapshot();
    let (group, epoch) = of_group(&snapshot, &mirror)?;
    let (answer, answered) = oneshot::channel();
    let request = FreezeRequest {
        group,
        mirror: mirror.clone(),
        limit,
        answer,
    };
    backend
        .freezes
        .try_send(request)
        .map_err(|_| Refusal::new(FaultKind::Busy, "too many requests wait already"))?;
    let still = match answered.await {
        Ok(Ok(still)) => still,
        Ok(Err(why)) => return Err(Refusal::new(FaultKind::Refused, why).reason("freeze")),
        Err(_) => return Err(Refusal::new(FaultKind::Busy, "the daemon is ending")),
    };
    let path = |path: &PathBuf| path.display().to_string();
    let following = backend.holds.begin();
    let first = Frozen {
        schema: "backstay.freeze/1".into(),
        freeze: following.number,
        mirror,
        group: snapshot.names.group(group),
        node: snapshot.names.me.clone(),
        epoch,
        mount: still.mount.as_ref().map(path),
        disk: path(&still.disk),
        metadata: still.metadata.as_ref().map(path),
    };
    let (chunks, reader) = mpsc::channel(CHUNKS_MAX);
    tokio::spawn(feed(first, still, following, chunks));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::new(Stream::new(reader))).into_response())
}

/// The mirror's group, and the epoch in which it is served.
fn of_group(snapshot: &Snapshot, mirror: &str) -> Result<(GroupId, u64), Refusal> {
    let groups = (0..=u8::MAX).map(GroupId).zip(&snapshot.groups);
    for (id, group) in groups {
        let mut numbers = 0..=u8::MAX;
        let has = numbers.any(|number| snapshot.names.mirror(id, number) == Some(mirror));
        if has {
            return Ok((id, group.epoch.map_or(0, |epoch| epoch.0)));
        }
    }
    let detail = format!("there is no mirror {mirror}");
    Err(Refusal::new(FaultKind::NotFound, detail))
}

/// Feeds the stream until its reader is gone, or the standstill over.
async fn feed(first: Frozen, still: Standstill, following: Following, chunks: mpsc::Sender<Bytes>) {
    let Standstill { mut over, hold, .. } = still;
    let mut hold = Some(hold);
    if chunks.send(chunk(&first)).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            ended = &mut over => {
                let thawed = ended.unwrap_or(Thawed::Stopped);
                chunks.send(chunk(&StillFrozen { thawed: Some(thawed) })).await.ok();
                break;
            }
            () = chunks.closed() => break,
            () = following.end.notified(), if hold.is_some() => hold = None,
            () = tokio::time::sleep(BEAT), if hold.is_some() => {
                // A reader that is late has signs enough.
                chunks.try_send(chunk(&StillFrozen { thawed: None })).ok();
            }
        }
    }
    drop(hold);
}

fn chunk<T: Serialize>(event: &T) -> Bytes {
    let data = serde_json::to_string(event).unwrap_or_default();
    Bytes::from(format!("data: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc as orders;

    /// A stream's other ends.
    struct Ends {
        /// What the freeze is told.
        told: orders::Receiver<Thawed>,
        over: oneshot::Sender<Thawed>,
        reader: mpsc::Receiver<Bytes>,
    }

    fn begun(freezes: &Freezes) -> (Ends, impl Future<Output = ()> + use<>) {
        let (sender, told) = orders::channel();
        let (over, ended) = oneshot::channel();
        let (chunks, reader) = mpsc::channel(CHUNKS_MAX);
        let still = Standstill {
            mount: None,
            disk: "/dev/vg/pgdata".into(),
            metadata: None,
            over: ended,
            hold: Hold(sender),
        };
        let following = freezes.begin();
        let first = Frozen {
            schema: "backstay.freeze/1".into(),
            freeze: following.number,
            mirror: "pgdata".into(),
            group: "db".into(),
            node: "node-a".into(),
            epoch: 4,
            mount: None,
            disk: "/dev/vg/pgdata".into(),
            metadata: None,
        };
        let ends = Ends { told, over, reader };
        (ends, feed(first, still, following, chunks))
    }

    fn run(work: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("runtime").block_on(work);
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_standstill() {
        run(async {
            let (mut ends, feed) = begun(&Freezes::default());
            let feed = tokio::spawn(feed);
            let first = ends.reader.recv().await.expect("where it is");
            assert!(String::from_utf8_lossy(&first).contains("/dev/vg/pgdata"));
            let sign = ends.reader.recv().await.expect("a sign of life");
            assert_eq!(&sign[..], b"data: {\"thawed\":null}\n\n");
            assert!(ends.told.try_recv().is_err(), "it is still held");
            drop(ends.reader);
            feed.await.expect("it ends");
            assert_eq!(ends.told.try_recv(), Ok(Thawed::Released));
        });
    }

    #[test]
    fn the_reader_is_told_why_it_is_over() {
        run(async {
            let (mut ends, feed) = begun(&Freezes::default());
            let feed = tokio::spawn(feed);
            ends.reader.recv().await.expect("where it is");
            ends.over.send(Thawed::Timeout).expect("it listens");
            let mut last = Bytes::new();
            while let Some(chunk) = ends.reader.recv().await {
                last = chunk;
            }
            assert_eq!(&last[..], b"data: {\"thawed\":\"timeout\"}\n\n");
            feed.await.expect("it ends");
        });
    }

    /// What is proved by it: until the thaw was asked for nothing else had ended it.
    #[test]
    fn an_asked_for_thaw_is_answered_by_how_it_went() {
        run(async {
            let freezes = Freezes::default();
            let (mut ends, feed) = begun(&freezes);
            let feed = tokio::spawn(feed);
            ends.reader.recv().await.expect("where it is");
            assert!(!freezes.end(2), "there is no other");
            assert!(freezes.end(1) && !freezes.end(1), "it ends once");
            while ends.told.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
            ends.over.send(Thawed::Lost).expect("it listens");
            let mut last = Bytes::new();
            while let Some(chunk) = ends.reader.recv().await {
                last = chunk;
            }
            assert_eq!(&last[..], b"data: {\"thawed\":\"lost\"}\n\n");
            feed.await.expect("it ends");
        });
    }

    #[test]
    fn what_is_over_cannot_be_ended() {
        run(async {
            let freezes = Freezes::default();
            let (ends, feed) = begun(&freezes);
            drop(ends);
            feed.await;
            assert!(!freezes.end(1));
        });
    }
}
