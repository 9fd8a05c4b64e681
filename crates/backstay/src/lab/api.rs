//! A blocking client of a node's API socket, with a hard time limit: the lab asks daemons that it has stopped itself.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// Largest answer in bytes; an event log is bounded, too.
const BODY_MAX: usize = 16 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub enum ApiError {
    /// The socket is not there, nobody listens, or the daemon did not answer in time.
    Unreachable(io::Error),
    /// The answer was not one of this API.
    Malformed(&'static str),
    /// The daemon said no.
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        body: String,
    },
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "daemon does not answer: {error}"),
            Self::Malformed(what) => write!(f, "daemon's answer has {what}"),
            Self::Refused { status, body } => write!(f, "daemon answered {status}: {body}"),
        }
    }
}

impl std::error::Error for ApiError {}

impl From<io::Error> for ApiError {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error)
    }
}

/// Asks for a document.
///
/// # Errors
/// When there is no answer in half a second, or not a good one.
pub fn get(socket: &Path, path: &str) -> Result<Value, ApiError> {
    request(socket, "GET", path, "")
}

/// Sends a document.
///
/// # Errors
/// When there is no answer in half a second, or not a good one.
pub fn post(socket: &Path, path: &str, body: &Value) -> Result<Value, ApiError> {
    request(socket, "POST", path, &body.to_string())
}

fn request(socket: &Path, method: &str, path: &str, body: &str) -> Result<Value, ApiError> {
    let deadline = Instant::now() + ANSWER_MAX;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: backstay\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    parse(&read_to_end(&mut stream, deadline)?)
}

fn read_to_end(stream: &mut UnixStream, deadline: Instant) -> Result<Vec<u8>, ApiError> {
    let mut answer = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk)? {
            0 => return Ok(answer),
            count if answer.len() + count > BODY_MAX => {
                return Err(ApiError::Malformed("more bytes than any document"));
            }
            count => answer.extend_from_slice(&chunk[..count]),
        }
    }
}

fn parse(answer: &[u8]) -> Result<Value, ApiError> {
    let split = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let split = split.ok_or(ApiError::Malformed("no end of headers"))?;
    let head = std::str::from_utf8(&answer[..split])
        .map_err(|_| ApiError::Malformed("headers that are not text"))?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse::<u16>().ok());
    let status = status.ok_or(ApiError::Malformed("no status line"))?;
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let raw = &answer[split + 4..];
    let body = if chunked {
        join_chunks(raw)?
    } else {
        raw.to_vec()
    };
    if !(200..300).contains(&status) && status != 503 {
        return Err(ApiError::Refused {
            status,
            body: String::from_utf8_lossy(&body).into_owned(),
        });
    }
    if body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&body).map_err(|_| ApiError::Malformed("a body that is not JSON"))
}

/// RFC 9112 §7.1, without trailers.
fn join_chunks(mut raw: &[u8]) -> Result<Vec<u8>, ApiError> {
    const BROKEN: ApiError = ApiError::Malformed("a broken chunk");
    let mut body = Vec::new();
    loop {
        let end = raw
            .windows(2)
            .position(|window| window == b"\r\n")
            .ok_or(BROKEN)?;
        let size = std::str::from_utf8(&raw[..end]).map_err(|_| BROKEN)?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| BROKEN)?;
        if size == 0 {
            return Ok(body);
        }
        let rest = &raw[end + 2..];
        body.extend_from_slice(rest.get(..size).ok_or(BROKEN)?);
        raw = rest.get(size + 2..).ok_or(BROKEN)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_chunked_bodies_are_read() {
        let plain = parse(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}").unwrap();
        let chunked =
            parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n");
        assert_eq!(plain, chunked.unwrap());
    }

    #[test]
    fn broken_answers_are_errors() {
        for answer in [
            &b""[..],
            b"HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nnot json",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nx\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc",
        ] {
            assert!(parse(answer).is_err());
        }
    }

    #[test]
    fn refusals_carry_what_the_daemon_said() {
        let error = parse(b"HTTP/1.1 409 Conflict\r\n\r\nresyncing").unwrap_err();
        assert!(error.to_string().contains("409: resyncing"));
    }
}
