//! The daemon's side: one request at a time, each answered at once.

use super::message::{Item, Lease, Overview, Reply, Request, Step, TornDown, VERSION};
use super::packet::{self, Received};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use wire::Duration;

/// How long an answer may take. A keeper that is tearing down answers when it is done.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The keeper did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no keeper at {}", socket.display())]
    Absent {
        /// Where it should be.
        socket: PathBuf,
        /// What connecting said.
        source: io::Error,
    },
    /// It holds no item of this name.
    #[error("keeper holds no item {name}")]
    Missing {
        /// The name.
        name: String,
    },
    /// It has torn the group down meanwhile.
    #[error("keeper has torn the group down")]
    TornDown(Box<TornDown>),
    /// It refused.
    #[error("keeper refused: {why}")]
    Refused {
        /// Its words.
        why: String,
    },
    /// It said what was not asked for.
    #[error("keeper gave an answer that does not fit")]
    Unexpected,
    /// The connection broke or took too long.
    #[error("keeper cannot be reached")]
    Io(#[from] io::Error),
}

/// A connection to a keeper.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
}

impl Client {
    /// Connects to the keeper at `path`, and hears what it holds and what it did.
    ///
    /// # Errors
    /// [`ClientError::Absent`] when there is none, [`ClientError::Refused`] when it speaks another version.
    pub fn connect(path: &Path) -> Result<(Self, Overview), ClientError> {
        let absent = |source: io::Error| ClientError::Absent {
            socket: path.to_owned(),
            source,
        };
        let address = SocketAddrUnix::new(path).map_err(|errno| absent(errno.into()))?;
        let kind = SocketType::SEQPACKET;
        let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
            .map_err(|errno| absent(errno.into()))?;
        connect(&socket, &address).map_err(|errno| absent(errno.into()))?;
        for way in [Timeout::Recv, Timeout::Send] {
            sockopt::set_socket_timeout(&socket, way, Some(ANSWER_MAX)).map_err(io::Error::from)?;
        }
        let client = Self { socket };
        let overview = client.overview_by(&Request::Hello { version: VERSION })?;
        Ok((client, overview))
    }

    /// Has a copy of `fd` kept under `name`, with `blob` beside it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn put(&self, name: &str, fd: impl AsFd, blob: Vec<u8>) -> Result<(), ClientError> {
        let item = Item {
            name: name.to_owned(),
            blob,
        };
        packet::send(&self.socket, &Request::Put(item), Some(fd.as_fd()))?;
        self.done()
    }

    /// A copy of the descriptor under `name`, and its blob.
    ///
    /// # Errors
    /// [`ClientError::Missing`] when there is none.
    pub fn get(&self, name: &str) -> Result<(OwnedFd, Vec<u8>), ClientError> {
        let request = Request::Get {
            name: name.to_owned(),
        };
        let (reply, fd) = self.ask(&request)?;
        if let (Reply::Item(item), Some(fd)) = (&reply, fd) {
            return Ok((fd, item.blob.clone()));
        }
        Err(unfit(reply, name))
    }

    /// Has the descriptor under `name` closed.
    ///
    /// # Errors
    /// [`ClientError::Missing`] when there is none.
    pub fn forget(&self, name: &str) -> Result<(), ClientError> {
        let name = name.to_owned();
        let request = Request::Forget { name: name.clone() };
        packet::send(&self.socket, &request, None)?;
        self.done_with(&name)
    }

    /// What the keeper holds and did.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn overview(&self) -> Result<Overview, ClientError> {
        self.overview_by(&Request::Overview)
    }

    /// Sets or renews the lease.
    ///
    /// # Errors
    /// [`ClientError::TornDown`]: it is too late, and this daemon must not serve.
    pub fn set_lease(&self, lease: Lease) -> Result<(), ClientError> {
        self.command(&Request::SetLease(lease))
    }

    /// Takes the lease away: the group is not active here any more, and nothing has to be torn down.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn end_lease(&self) -> Result<(), ClientError> {
        self.command(&Request::EndLease)
    }

    /// Says what has to be torn down, in order.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn set_steps(&self, steps: Vec<Step>) -> Result<(), ClientError> {
        self.command(&Request::SetSteps(steps))
    }

    /// Takes note of a teardown: lease and steps are gone, and can be set again.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn reset(&self) -> Result<(), ClientError> {
        self.command(&Request::Reset)
    }

    /// The group is stopped in order: the keeper closes everything and ends.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn release(self) -> Result<(), ClientError> {
        self.command(&Request::Release)
    }

    fn command(&self, request: &Request) -> Result<(), ClientError> {
        packet::send(&self.socket, request, None)?;
        self.done()
    }

    fn done(&self) -> Result<(), ClientError> {
        self.done_with("")
    }

    fn overview_by(&self, request: &Request) -> Result<Overview, ClientError> {
        let (reply, _) = self.ask(request)?;
        if let Reply::Overview(overview) = reply {
            return Ok(overview);
        }
        Err(unfit(reply, ""))
    }

    fn done_with(&self, name: &str) -> Result<(), ClientError> {
        let (reply, _) = self.answer()?;
        if matches!(reply, Reply::Done) {
            return Ok(());
        }
        Err(unfit(reply, name))
    }

    fn ask(&self, request: &Request) -> Result<(Reply, Option<OwnedFd>), ClientError> {
        packet::send(&self.socket, request, None)?;
        self.answer()
    }

    fn answer(&self) -> Result<(Reply, Option<OwnedFd>), ClientError> {
        match packet::receive(&self.socket)? {
            Received::Message(reply, fd) => Ok((reply, fd)),
            Received::Closed => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
        }
    }
}

/// What an answer means that is not the one that was hoped for.
fn unfit(reply: Reply, name: &str) -> ClientError {
    match reply {
        Reply::TornDown(torn_down) => ClientError::TornDown(Box::new(torn_down)),
        Reply::Refused(why) => ClientError::Refused { why },
        Reply::Missing => ClientError::Missing {
            name: name.to_owned(),
        },
        Reply::Done | Reply::Item(_) | Reply::Overview(_) => ClientError::Unexpected,
    }
}
