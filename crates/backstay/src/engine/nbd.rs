//! The NBD socket and its clients.

use super::front::{Origin, Wanted};
use host::disk::{Disk, Extent};
use host::nbd::{ErrorCode, Export, Incoming, Kind, Offer, Refusal, Request, Stream};
use host::ring::{Buf, Frozen, Ring, Watch};
use mirror::io::{Errno, Op};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use wire::ByteRange;

/// Clients at a time; more are refused by closing.
const CLIENTS_MAX: usize = 64;
/// Runs in one block-status answer; the client asks again for the rest.
const EXTENTS_MAX: usize = 256;

#[derive(Debug)]
struct Client {
    stream: Stream,
    watch: Watch,
    /// There may be a request to take: the socket was ready, or an answer made room for one that was read already.
    answered: bool,
    /// The client is gone or was cut off: dropped when nothing is in work and no completion is to come.
    ended: bool,
}

impl Client {
    /// Sends what is to be sent, and waits for more.
    fn turn(&mut self, ring: &mut Ring, room: bool) {
        if self.stream.flush().is_err() {
            self.ended = true;
        }
        if self.ended {
            self.watch.end(ring);
        } else {
            let interest = self.stream.interest().filter(|_| room || !self.answered);
            self.watch.want(ring, interest);
        }
    }

    fn read(&mut self, token: u64, disk: &Disk, wanted: &mut Vec<Wanted>) {
        while !self.ended {
            match self.stream.take() {
                Ok(Some(Incoming::Ready)) => {}
                Ok(Some(Incoming::Request(request, payload))) => {
                    if let Kind::BlockStatus { offset, len, one } = request.kind {
                        answer_status(&mut self.stream, disk, &request, (offset, len, one));
                    } else {
                        wanted.extend(translate(token, request, payload));
                    }
                }
                Ok(Some(Incoming::Closed(_))) | Err(_) => self.ended = true,
                Ok(None) => break,
            }
        }
    }
}

/// The socket's server.
#[derive(Debug)]
pub(super) struct Server {
    name: String,
    listener: UnixListener,
    clients: BTreeMap<u64, Client>,
    /// The volume's size while it is served.
    serving: Option<u64>,
    disk: Arc<Disk>,
}

impl Server {
    pub(super) const fn new(name: String, listener: UnixListener, disk: Arc<Disk>) -> Self {
        Self {
            name,
            listener,
            clients: BTreeMap::new(),
            serving: None,
            disk,
        }
    }

    /// Serves a volume of this size, or nobody any more.
    pub(super) fn serve(&mut self, ring: &mut Ring, size: Option<u64>) {
        self.serving = size;
        if size.is_none() {
            for client in self.clients.values_mut() {
                client.ended = true;
                client.watch.end(ring);
            }
            self.bury();
        }
    }

    /// The volume has another size, for clients that come from now on.
    pub(super) const fn resize(&mut self, size: u64) {
        if let Some(serving) = &mut self.serving {
            *serving = size;
        }
    }

    /// Takes waiting clients.
    pub(super) fn accept(&mut self, ring: &mut Ring, mut token: impl FnMut() -> u64) {
        while let Ok((socket, _)) = self.listener.accept() {
            if self.clients.len() >= CLIENTS_MAX {
                continue;
            }
            let Ok(stream) = Stream::new(socket, self.offer()) else {
                continue;
            };
            self.add(ring, stream, token()).ok();
        }
    }

    /// Serves the kernel's client at the other end of `socket`, which has been told of a volume of this size.
    pub(super) fn attach(&mut self, ring: &mut Ring, socket: UnixStream, size: u64, token: u64) {
        let stream = Stream::negotiated(socket, self.export(size));
        if let Err(error) = stream.and_then(|stream| self.add(ring, stream, token)) {
            tracing::error!(%error, "the NBD device cannot be served");
        }
    }

    fn add(&mut self, ring: &mut Ring, stream: Stream, token: u64) -> io::Result<()> {
        let watch = Watch::new(Arc::new(stream.try_clone_socket()?), token);
        let mut client = Client {
            stream,
            watch,
            answered: false,
            ended: false,
        };
        client.stream.flush().ok();
        client.watch.want(ring, client.stream.interest());
        self.clients.insert(token, client);
        Ok(())
    }

    fn export(&self, size: u64) -> Export {
        Export {
            name: self.name.clone(),
            description: format!("Backstay mirror {}", self.name),
            size,
            block_min: self.disk.logical_block(),
            read_only: false,
        }
    }

    fn offer(&self) -> Offer {
        match self.serving {
            Some(size) => Offer::Serve(self.export(size)),
            None => Offer::Refuse {
                name: self.name.clone(),
                why: Refusal::NotActive,
                text: "not active on this node: ask `backstay status` which node is".into(),
            },
        }
    }

    /// True if the token is a client's.
    pub(super) fn knows(&self, token: u64) -> bool {
        self.clients.contains_key(&token)
    }

    /// A client's socket is ready: what it wants is read in this turn, or in the next in which there is room.
    pub(super) fn ready(&mut self, token: u64) {
        if let Some(client) = self.clients.get_mut(&token) {
            client.watch.fired();
            client.answered = true;
        }
    }

    /// Answers a request; its client may be gone.
    pub(super) fn answer(
        &mut self,
        client: u64,
        request: &Request,
        result: Result<(), Errno>,
        data: Option<Frozen>,
    ) {
        let Some(client) = self.clients.get_mut(&client) else {
            return;
        };
        client.answered |= client.stream.is_full();
        match (result, data) {
            (Err(errno), _) => {
                let code = ErrorCode::from_io(&io::Error::from_raw_os_error(errno.0));
                client
                    .stream
                    .error(request, code, "the mirror could not do it");
            }
            (Ok(()), Some(data)) if matches!(request.kind, Kind::Read { .. }) => {
                client.stream.data(request, data);
            }
            (Ok(()), _) => client.stream.done(request),
        }
    }

    /// Sends what is to be sent, takes what room was made for, and waits for more. Called once per turn of the loop.
    pub(super) fn turn(&mut self, ring: &mut Ring, room: bool, wanted: &mut Vec<Wanted>) {
        for (token, client) in &mut self.clients {
            if room && std::mem::take(&mut client.answered) {
                client.read(*token, &self.disk, wanted);
            }
            client.turn(ring, room);
        }
        self.bury();
    }

    fn bury(&mut self) {
        self.clients.retain(|_, c| !c.ended || c.watch.is_waiting());
    }
}

fn translate(client: u64, request: Request, payload: Option<Buf>) -> Option<Wanted> {
    let (op, offset, len) = match request.kind {
        Kind::Read { offset, len } => (Op::Read, offset, len),
        Kind::Write {
            offset,
            len,
            durable,
        } => (Op::Write { fua: durable }, offset, len),
        Kind::Flush => (Op::Flush, 0, 0),
        Kind::Trim {
            offset,
            len,
            durable,
        }
        | Kind::Zero {
            offset,
            len,
            durable,
            ..
        } => (Op::Zero { fua: durable }, offset, len),
        Kind::BlockStatus { .. } => return None,
    };
    let range = ByteRange::new(offset, u64::from(len))?;
    Some(Wanted {
        origin: Origin::Nbd { client, request },
        op,
        range,
        payload,
    })
}

/// Which parts of a range are allocated, by the backing disk's word.
fn answer_status(
    stream: &mut Stream,
    disk: &Disk,
    request: &Request,
    (offset, len, one): (u64, u32, bool),
) {
    let end = offset + u64::from(len);
    let mut extents: Vec<Extent> = Vec::new();
    let mut at = offset;
    while at < end && (extents.is_empty() || !one) && extents.len() < EXTENTS_MAX {
        match disk.extent_at(at, end) {
            Ok(extent) => {
                at += extent.len;
                extents.push(extent);
            }
            Err(error) => {
                let code = ErrorCode::from_io(&error);
                stream.error(request, code, "the disk does not tell what is allocated");
                return;
            }
        }
    }
    stream.block_status(request, &extents);
}
