//! The command line's side: one request at a time over the daemon's Unix socket.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use super::fault::Fault;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Lang;
use crate::render::problem::ProblemView;

/// Longest wait for an answer. The server gives up on the run loop earlier.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Why a request gave no answer to use.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens at the socket.
    NoDaemon {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The caller may not open the socket.
    Denied {
        /// The socket.
        socket: PathBuf,
    },
    /// The daemon listens, but did not answer in time.
    Timeout,
    /// The daemon answered with a problem.
    Problem(Box<Fault>),
    /// The answer cannot be read.
    Garbled(String),
}

impl ClientError {
    /// The stable word of a refused request, such as `already`.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Problem(fault) => fault.reason.as_deref(),
            Self::NoDaemon { .. } | Self::Denied { .. } | Self::Timeout | Self::Garbled(_) => None,
        }
    }

    /// The problem for documents that must have one: what is known is that nothing is known.
    pub fn problem(&self, lang: Lang) -> ProblemView {
        match self {
            Self::NoDaemon { .. } => ProblemView::of_code(lang, "BS-001", &[]),
            Self::Denied { .. } => ProblemView::of_code(lang, "BS-603", &[]),
            Self::Timeout | Self::Garbled(_) => ProblemView::of_code(lang, "BS-605", &[]),
            Self::Problem(fault) => ProblemView::of_code(lang, &fault.code, &[]),
        }
    }

    /// The failure of a command that tried to do `what`, such as `read the status`.
    pub fn failure(&self, what: &str) -> Failure {
        let failure = Failure::new(format!("cannot {what}"));
        match self {
            Self::NoDaemon { socket, source } => failure
                .cause(format!(
                    "no daemon answers at {}: {source}",
                    socket.display()
                ))
                .hint("start it with `backstay run`, or name another socket with --socket"),
            Self::Denied { socket } => failure
                .cause(format!("no permission to use {}", socket.display()))
                .hint("run the command as root, or as the daemon's user"),
            Self::Timeout => failure
                .cause(format!(
                    "the daemon did not answer within {} s",
                    TIMEOUT.as_secs()
                ))
                .hint("what was asked may still happen; look with `backstay status`")
                .exit(Exit::Unknown),
            Self::Problem(fault) => {
                let hint = format!("{}; {}", fault.action, fault.see);
                let failure = failure.cause(&fault.detail).hint(hint);
                let unclear = fault.status == 504 || fault.reason.as_deref() == Some("unclear");
                if unclear {
                    failure.exit(Exit::Unknown)
                } else {
                    failure
                }
            }
            Self::Garbled(why) => failure
                .cause(format!("the answer cannot be read: {why}"))
                .hint("see whether the daemon runs the same release: `backstay version`"),
        }
    }
}

/// A connection to the daemon is made for each request.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// A client of the daemon at this socket. Nothing is opened yet.
    ///
    /// # Errors
    /// When the system gives no event queue.
    pub fn new(socket: &Path) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime
            .map_err(|error| Failure::new("cannot prepare a connection").from_error(&error))?;
        Ok(Self {
            socket: socket.to_path_buf(),
            runtime,
        })
    }

    /// Reads a document.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.document(Method::GET, path, Bytes::new())
    }

    /// Asks for something.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| garbled(&error))?;
        self.document(Method::POST, path, Bytes::from(body))
    }

    fn document<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let work = async {
            let response = self.send(method, path, body, "application/json").await?;
            let bytes = collect(response.into_body()).await?;
            serde_json::from_slice(&bytes).map_err(|error| garbled(&error))
        };
        self.runtime.block_on(async {
            tokio::time::timeout(TIMEOUT, work)
                .await
                .unwrap_or(Err(ClientError::Timeout))
        })
    }

    /// Follows a stream of events: `each` gets the data of every event until it breaks or the daemon ends.
    ///
    /// # Errors
    /// See [`ClientError`]; the end of the daemon is none.
    pub fn follow(
        &self,
        path: &str,
        each: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        self.stream(Method::GET, path, TIMEOUT, each)
    }

    /// Asks for something that lasts as long as its stream is read: like [`Client::follow`], but the answer may take `limit`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn hold(
        &self,
        path: &str,
        limit: Duration,
        each: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        self.stream(Method::POST, path, limit, each)
    }

    fn stream(
        &self,
        method: Method,
        path: &str,
        limit: Duration,
        mut each: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        self.runtime.block_on(async {
            let send = self.send(method, path, Bytes::new(), "text/event-stream");
            let response = tokio::time::timeout(limit, send)
                .await
                .unwrap_or(Err(ClientError::Timeout))?;
            let mut body = response.into_body();
            let mut pending = Vec::new();
            while let Some(frame) = body.frame().await {
                let Some(data) = frame.ok().and_then(|frame| frame.into_data().ok()) else {
                    return Ok(());
                };
                pending.extend_from_slice(&data);
                if pending.len() > ANSWER_BYTES_MAX {
                    return Err(ClientError::Garbled("an event is too long".into()));
                }
                while let Some(event) = next_event(&mut pending) {
                    if each(&event).is_break() {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        accept: &str,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.refused(error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| garbled(&error))?;
        // It ends with the request; an error comes to the request as well.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "backstay")
            .header(header::ACCEPT, accept)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| garbled(&error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| garbled(&error))?;
        if response.status().is_success() || response.status() == StatusCode::SERVICE_UNAVAILABLE {
            return Ok(response);
        }
        let status = response.status();
        let bytes = collect(response.into_body()).await?;
        match serde_json::from_slice::<Fault>(&bytes) {
            Ok(fault) => Err(ClientError::Problem(Box::new(fault))),
            Err(_) => Err(ClientError::Garbled(format!("HTTP status {status}"))),
        }
    }

    fn refused(&self, source: io::Error) -> ClientError {
        let socket = self.socket.clone();
        if source.kind() == io::ErrorKind::PermissionDenied {
            ClientError::Denied { socket }
        } else {
            ClientError::NoDaemon { socket, source }
        }
    }
}

fn garbled(error: &dyn std::error::Error) -> ClientError {
    ClientError::Garbled(error.to_string())
}

async fn collect(body: Incoming) -> Result<Bytes, ClientError> {
    let limited = http_body_util::Limited::new(body, ANSWER_BYTES_MAX);
    let collected = limited.collect().await;
    Ok(collected.map_err(|error| garbled(&*error))?.to_bytes())
}

/// Takes the first complete event off the buffer and gives its data; comments and events without data are skipped.
fn next_event(pending: &mut Vec<u8>) -> Option<String> {
    loop {
        let end = pending.windows(2).position(|pair| pair == b"\n\n")?;
        let event: Vec<u8> = pending.drain(..end + 2).collect();
        let text = String::from_utf8_lossy(&event);
        let data: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(|data| data.strip_prefix(' ').unwrap_or(data))
            .collect();
        if !data.is_empty() {
            return Some(data.join("\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_out_of_the_stream() {
        let mut pending = b": alive\n\nid: 1\ndata: {\"a\":1}\n\nid: 2\nda".to_vec();
        assert_eq!(next_event(&mut pending).as_deref(), Some("{\"a\":1}"));
        assert_eq!(next_event(&mut pending), None);
        pending.extend_from_slice(b"ta: x\ndata: y\n\n");
        assert_eq!(next_event(&mut pending).as_deref(), Some("x\ny"));
    }
}
