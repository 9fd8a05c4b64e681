//! Serves a file as an NBD export on a Unix socket: `nbd_file FILE SOCKET [uring|threads] [refuse] [fault=DIR]`.
//!
//! It is how the protocol code is checked against other clients (libnbd, QEMU, fio), without a mirror behind it.
#![allow(clippy::print_stderr, reason = "an example talks to a person")]

use host::disk::{Disk, OpenOptions};
use host::nbd::{ErrorCode, Export, Incoming, Kind, Offer, Refusal, Request, Stream};
use host::ring::{Backend, Buf, Completion, Descriptor, Interest, Op, Ring, Watch};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const LISTENER: u64 = 0;
/// Tokens are `client << 32 | request`; request 0 is the client's readiness.
const SHIFT: u32 = 32;

struct Client {
    stream: Stream,
    watch: Watch,
    next: u64,
    requests: BTreeMap<u64, Request>,
}

struct Server {
    ring: Ring,
    disk: Arc<Disk>,
    listener: Arc<UnixListener>,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    offer: Offer,
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, file, socket, rest @ ..] = args.as_slice() else {
        eprintln!("usage: nbd_file FILE SOCKET [uring|threads] [refuse] [fault=DIR]");
        std::process::exit(2);
    };
    let backend = match rest.first().map(String::as_str) {
        Some("uring") => Some(Backend::Uring),
        Some("threads") => Some(Backend::Threads),
        _ => None,
    };
    let fault_dir = rest
        .iter()
        .find_map(|word| word.strip_prefix("fault="))
        .map(PathBuf::from);
    let options = OpenOptions {
        fault_dir,
        ..OpenOptions::default()
    };
    let disk = Disk::open(Path::new(file), &options).map_err(io::Error::other)?;
    let offer = if rest.iter().any(|word| word == "refuse") {
        let text = "not active on this node: node-b holds epoch 7".to_owned();
        Offer::Refuse {
            name: "volume".into(),
            why: Refusal::NotActive,
            text,
        }
    } else {
        Offer::Serve(Export {
            name: "volume".into(),
            description: "a file".into(),
            size: disk.size(),
            block_min: disk.logical_block(),
            read_only: false,
        })
    };
    std::fs::remove_file(socket).ok();
    let listener = UnixListener::bind(socket)?;
    listener.set_nonblocking(true)?;
    let server = Server {
        ring: Ring::new(backend)?,
        disk: Arc::new(disk),
        listener: Arc::new(listener),
        clients: BTreeMap::new(),
        next_client: 1,
        offer,
    };
    server.run()
}

impl Server {
    fn run(mut self) -> io::Result<()> {
        self.await_client();
        let mut done = Vec::new();
        loop {
            self.ring.wait(1, None, &mut done)?;
            let mut touched = Vec::new();
            for completion in done.drain(..) {
                if completion.token == LISTENER {
                    self.accept()?;
                } else {
                    touched.push(completion.token >> SHIFT);
                    self.on_completion(completion);
                }
            }
            touched.sort_unstable();
            touched.dedup();
            for number in touched {
                if self.pump(number).is_err() {
                    self.clients.remove(&number);
                }
            }
        }
    }

    fn await_client(&mut self) {
        let fd = Arc::clone(&self.listener) as Descriptor;
        self.ring.submit(
            LISTENER,
            Op::Ready {
                fd,
                interest: Interest::READ,
            },
        );
    }

    fn accept(&mut self) -> io::Result<()> {
        while let Ok((socket, _)) = self.listener.accept() {
            let stream = Stream::new(socket, self.offer.clone())?;
            let socket: Descriptor = Arc::new(stream.try_clone_socket()?);
            let number = self.next_client;
            self.next_client += 1;
            let watch = Watch::new(socket, number << SHIFT);
            let requests = BTreeMap::new();
            self.clients.insert(
                number,
                Client {
                    stream,
                    watch,
                    next: 1,
                    requests,
                },
            );
            self.pump(number).ok();
        }
        self.await_client();
        Ok(())
    }

    fn on_completion(&mut self, completion: Completion) {
        let Some(client) = self.clients.get_mut(&(completion.token >> SHIFT)) else {
            return;
        };
        let request = completion.token & u64::from(u32::MAX);
        if request == 0 {
            client.watch.fired();
            return;
        }
        let Some(request) = client.requests.remove(&request) else {
            return;
        };
        match (completion.result, completion.buf) {
            (Err(why), _) => {
                client
                    .stream
                    .error(&request, ErrorCode::from_io(&why), &why.to_string());
            }
            (Ok(_), Some(data)) => client.stream.data(&request, data.freeze()),
            (Ok(_), None) => client.stream.done(&request),
        }
    }

    /// Takes what a client has, answers what can be answered, waits for more.
    fn pump(&mut self, number: u64) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(&number) else {
            return Ok(());
        };
        let mut closed = false;
        while let Some(incoming) = client.stream.take()? {
            match incoming {
                Incoming::Ready => {}
                Incoming::Closed(_) => closed = true,
                Incoming::Request(request, payload) => {
                    let token = client.next & u64::from(u32::MAX);
                    client.next += 1;
                    let token = token.max(1);
                    if let Kind::BlockStatus { offset, len, .. } = request.kind {
                        let extent = self.disk.extent_at(offset, offset + u64::from(len))?;
                        client.stream.block_status(&request, &[extent]);
                        continue;
                    }
                    client.requests.insert(token, request);
                    let op = op(&self.disk, &request, payload);
                    self.ring.submit(number << SHIFT | token, op);
                }
            }
        }
        let sent = client.stream.flush()?;
        if closed && sent && client.requests.is_empty() {
            self.clients.remove(&number);
            return Ok(());
        }
        client.watch.want(&mut self.ring, client.stream.interest());
        Ok(())
    }
}

fn op(disk: &Arc<Disk>, request: &Request, payload: Option<Buf>) -> Op {
    let disk = Arc::clone(disk);
    match request.kind {
        Kind::Read { offset, len } => Op::Read {
            disk,
            offset,
            buf: Buf::new(usize::try_from(len).unwrap_or(0)),
        },
        Kind::Write {
            offset, durable, ..
        } => {
            let data = payload.unwrap_or_else(|| Buf::new(0)).freeze();
            Op::Write {
                disk,
                offset,
                data,
                durable,
            }
        }
        Kind::Flush | Kind::BlockStatus { .. } => Op::Flush { disk },
        Kind::Trim { offset, len, .. } => Op::Zero {
            disk,
            offset,
            len: len.into(),
            hole: true,
        },
        Kind::Zero {
            offset, len, hole, ..
        } => Op::Zero {
            disk,
            offset,
            len: len.into(),
            hole,
        },
    }
}
