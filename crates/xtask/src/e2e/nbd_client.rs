//! A client of an NBD server on a Unix socket, as small as a verifying writer needs it (fixed newstyle, simple replies): it is sure
//! when a request was acknowledged, and nothing else is between it and the mirror.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::failure::{Context, Failure, Outcome};

/// A server that is alive answers within this time, also while its group moves.
const ANSWER_MAX: Duration = Duration::from_secs(30);
const OPTION_MAGIC: u64 = 0x4948_4156_454F_5054;
const EXPORT_NAME: u32 = 1;
const NO_ZEROES: u32 = 2;
const FIXED: u32 = 1;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Read,
    Write,
    Flush,
}

/// An open export.
#[derive(Debug)]
pub(super) struct Client(UnixStream);

impl Client {
    /// Opens the export that `uri` names: `nbd+unix:///NAME?socket=PATH`.
    pub(super) fn open(uri: &str) -> Outcome<Self> {
        let rest = uri.strip_prefix("nbd+unix:///");
        let (name, socket) = rest
            .and_then(|rest| rest.split_once("?socket="))
            .ok_or_else(|| Failure::new(format!("{uri} is no NBD URI of a Unix socket")))?;
        Self::connect(name, Path::new(socket)).context(format!("open {uri}"))
    }

    fn connect(name: &str, socket: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting)?;
        let mut hello = (FIXED | NO_ZEROES).to_be_bytes().to_vec();
        hello.extend(OPTION_MAGIC.to_be_bytes());
        hello.extend(EXPORT_NAME.to_be_bytes());
        hello.extend(
            u32::try_from(name.len())
                .map_err(io::Error::other)?
                .to_be_bytes(),
        );
        hello.extend(name.as_bytes());
        stream.write_all(&hello)?;
        // Size and flags.
        stream.read_exact(&mut [0; 10])?;
        Ok(Self(stream))
    }

    /// Sends a request; `handle` comes back with its answer.
    pub(super) fn send(
        &mut self,
        ask: Ask,
        handle: u64,
        offset: u64,
        len: u32,
        data: &[u8],
    ) -> io::Result<()> {
        let kind: u16 = match ask {
            Ask::Read => 0,
            Ask::Write => 1,
            Ask::Flush => 3,
        };
        let mut request = REQUEST.to_be_bytes().to_vec();
        request.extend(0_u16.to_be_bytes());
        request.extend(kind.to_be_bytes());
        request.extend(handle.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(len.to_be_bytes());
        request.extend(data);
        self.0.write_all(&request)
    }

    /// The next answer's handle; of a read, `into` is filled.
    pub(super) fn receive(&mut self, into: &mut [u8]) -> io::Result<u64> {
        let mut head = [0; 16];
        self.0.read_exact(&mut head)?;
        let [m0, m1, m2, m3, e0, e1, e2, e3, handle @ ..] = head;
        if u32::from_be_bytes([m0, m1, m2, m3]) != REPLY {
            return Err(io::Error::other("the answer is not NBD"));
        }
        let errno = u32::from_be_bytes([e0, e1, e2, e3]);
        if errno != 0 {
            return Err(io::Error::other(format!(
                "the server answers with error {errno}"
            )));
        }
        self.0.read_exact(into)?;
        Ok(u64::from_be_bytes(handle))
    }
}
