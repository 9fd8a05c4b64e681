use super::*;
use crate::pki::{Purpose, fixture::Cluster};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::net::TcpListener;
use std::time::Instant;

const PATIENCE: Duration = Duration::from_secs(10);

struct Ends {
    client: MirrorStream,
    server: MirrorStream,
}

fn ends(client: Option<(&Tls, &str)>, server: Option<&Tls>, tuning: Tuning) -> Ends {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let client = MirrorStream::connect(to, Some([127, 0, 0, 1].into()), client, tuning).unwrap();
    let server = MirrorStream::accept(listener.accept().unwrap().0, server, tuning).unwrap();
    Ends { client, server }
}

fn wait_for(streams: &[&MirrorStream]) {
    let mut polled: Vec<_> = streams
        .iter()
        .map(|stream| {
            let Interest { readable, writable } = stream.interest();
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, readable);
            flags.set(PollFlags::OUT, writable);
            PollFd::new(*stream, flags)
        })
        .collect();
    let limit = Timespec {
        tv_sec: 5,
        tv_nsec: 0,
    };
    assert_ne!(
        poll(&mut polled, Some(&limit)).unwrap(),
        0,
        "nothing happened"
    );
}

/// Reads what is there; true if the stream ended.
fn drain(stream: &mut MirrorStream, into: &mut Vec<u8>) -> Result<bool, StreamError> {
    let mut buffer = vec![0; 100_000];
    loop {
        match stream.read_into(&mut buffer)? {
            Received::Bytes(n) => into.extend_from_slice(&buffer[..n]),
            Received::WouldBlock => return Ok(false),
            Received::Closed => return Ok(true),
        }
    }
}

/// Sends `bytes` each way at once and checks what arrives.
fn exchange(ends: &mut Ends, bytes: usize) {
    let started = Instant::now();
    let there: Vec<u8> = (0..bytes).map(|i| u8::try_from(i % 253).unwrap()).collect();
    let back: Vec<u8> = (0..bytes).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
    ends.client.queue(&there).unwrap();
    ends.server.queue(&back).unwrap();
    while at_server.len() < bytes || at_client.len() < bytes {
        assert!(
            started.elapsed() < PATIENCE,
            "{} and {}",
            at_server.len(),
            at_client.len()
        );
        ends.client.flush().unwrap();
        ends.server.flush().unwrap();
        drain(&mut ends.server, &mut at_server).unwrap();
        drain(&mut ends.client, &mut at_client).unwrap();
        assert!(ends.client.pending() <= bytes);
        if at_server.len() < bytes || at_client.len() < bytes {
            wait_for(&[&ends.client, &ends.server]);
        }
    }
    assert!(at_server == there && at_client == back);
    assert_eq!(ends.client.flush().unwrap(), Flushed::All);
    assert_eq!(ends.client.pending(), 0);
}

/// Runs both ends until one fails.
fn first_failure(ends: &mut Ends) -> (Option<StreamError>, Option<StreamError>) {
    let started = Instant::now();
    let mut sink = Vec::new();
    while started.elapsed() < PATIENCE {
        let client = ends
            .client
            .flush()
            .map(drop)
            .and_then(|()| drain(&mut ends.client, &mut sink).map(drop));
        let server = ends
            .server
            .flush()
            .map(drop)
            .and_then(|()| drain(&mut ends.server, &mut sink).map(drop));
        if client.is_err() || server.is_err() {
            return (client.err(), server.err());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("neither end failed");
}

#[test]
fn a_plain_stream_carries_megabytes_both_ways() {
    let mut ends = ends(None, None, Tuning::default());
    exchange(&mut ends, 8 * 1024 * 1024);
    assert_eq!(ends.server.peer(), None);
}

#[test]
fn a_tls_stream_carries_megabytes_both_ways_and_knows_its_peer() {
    let lab = Cluster::new("tls-good", "lab");
    let (a, b) = (
        lab.tls("node-a", Purpose::Mirror),
        lab.tls("node-b", Purpose::Mirror),
    );
    let mut ends = ends(Some((&a, "node-b")), Some(&b), Tuning::default());
    exchange(&mut ends, 8 * 1024 * 1024);
    assert_eq!(
        (ends.client.peer(), ends.server.peer()),
        (Some("node-b"), Some("node-a"))
    );
    assert_eq!(
        (ends.client.phase(), ends.server.phase()),
        (Phase::Ready, Phase::Ready)
    );
}

#[test]
fn small_kernel_buffers_only_slow_it_down() {
    let lab = Cluster::new("tls-small", "lab");
    let (a, b) = (
        lab.tls("node-a", Purpose::Mirror),
        lab.tls("node-b", Purpose::Mirror),
    );
    let tuning = Tuning {
        buffer_bytes: 16_384,
        ..Tuning::default()
    };
    exchange(&mut ends(Some((&a, "node-b")), Some(&b), tuning), 3_000_000);
    exchange(&mut ends(None, None, tuning), 3_000_000);
}

#[test]
fn the_queue_is_bounded() {
    let mut ends = ends(None, None, Tuning::default());
    ends.client.queue(&vec![0; QUEUE_MAX]).unwrap();
    assert_eq!(
        ends.client.queue(&[0]),
        Err(QueueFull {
            pending: QUEUE_MAX,
            bytes: 1
        })
    );
    assert_eq!(ends.client.flush().unwrap(), Flushed::WouldBlock);
    assert!(ends.client.pending() < QUEUE_MAX && ends.client.interest().writable);
    ends.client.queue(&[0]).unwrap();
}

#[test]
fn the_end_of_the_stream_is_seen() {
    let lab = Cluster::new("tls-end", "lab");
    let (a, b) = (
        lab.tls("node-a", Purpose::Mirror),
        lab.tls("node-b", Purpose::Mirror),
    );
    let mut tls = ends(Some((&a, "node-b")), Some(&b), Tuning::default());
    exchange(&mut tls, 10);
    tls.client.queue(b"last words").unwrap();
    tls.client.flush().unwrap();
    tls.client.shutdown();
    drop(tls.client);
    let mut heard = Vec::new();
    while !drain(&mut tls.server, &mut heard).unwrap() {
        wait_for(&[&tls.server]);
    }
    assert_eq!(heard, b"last words");
}

#[test]
fn a_client_of_another_ca_is_refused_and_refuses() {
    let (ours, theirs) = (
        Cluster::new("tls-ours", "lab"),
        Cluster::new("tls-theirs", "lab"),
    );
    let (a, b) = (
        ours.tls("node-a", Purpose::Mirror),
        theirs.tls("node-b", Purpose::Mirror),
    );
    let mut ends = ends(Some((&a, "node-b")), Some(&b), Tuning::default());
    let (client, server) = first_failure(&mut ends);
    assert!(matches!(client, Some(StreamError::Tls(_))), "{client:?}");
    let server = server.or_else(|| drain(&mut ends.server, &mut Vec::new()).err());
    assert!(matches!(server, Some(StreamError::Tls(_))), "{server:?}");
    assert_eq!(ends.server.phase(), Phase::Handshaking);
}

#[test]
fn a_stranger_with_a_certificate_of_our_ca_is_refused() {
    let lab = Cluster::new("tls-stranger", "lab");
    let (x, b) = (
        lab.tls("node-x", Purpose::Mirror),
        lab.tls("node-b", Purpose::Mirror),
    );
    let mut ends = ends(Some((&x, "node-b")), Some(&b), Tuning::default());
    let (_, server) = first_failure(&mut ends);
    let expected = PeerError::NotConfigured {
        name: "node-x".into(),
    };
    assert!(matches!(server, Some(StreamError::Peer(p)) if p == expected));
}

#[test]
fn plain_and_tls_ends_name_their_disagreement() {
    let lab = Cluster::new("tls-mixed", "lab");
    let (a, b) = (
        lab.tls("node-a", Purpose::Mirror),
        lab.tls("node-b", Purpose::Mirror),
    );
    let mut plain_client = ends(None, Some(&b), Tuning::default());
    plain_client
        .client
        .queue(b"BSM1 and so on, a frame header")
        .unwrap();
    let (_, server) = first_failure(&mut plain_client);
    assert!(matches!(server, Some(StreamError::PlainPeer)), "{server:?}");

    let mut plain_server = ends(Some((&a, "node-b")), None, Tuning::default());
    let (_, server) = first_failure(&mut plain_server);
    assert!(matches!(server, Some(StreamError::TlsPeer)), "{server:?}");
}

#[test]
fn garbage_ends_a_tls_stream_with_an_error() {
    let lab = Cluster::new("tls-garbage", "lab");
    let b = lab.tls("node-b", Purpose::Mirror);
    let mut state = 7_u64;
    for _ in 0..200 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = listener.accept().unwrap().0;
        let mut server = MirrorStream::accept(socket, Some(&b), Tuning::default()).unwrap();
        let mut bytes = vec![0x16, 3, 1];
        for _ in 0..400 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            bytes.push(state.to_le_bytes()[6]);
        }
        client.write_all(&bytes).unwrap();
        drop(client);
        let mut heard = Vec::new();
        let result = drain(&mut server, &mut heard);
        assert!(result.is_err() && heard.is_empty(), "{result:?}");
    }
}

#[test]
fn a_refused_connection_is_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    drop(listener);
    let mut stream = MirrorStream::connect(to, None, None, Tuning::default()).unwrap();
    let mut sink = Vec::new();
    let started = Instant::now();
    let fault = loop {
        match drain(&mut stream, &mut sink) {
            Err(fault) => break fault,
            Ok(_) => assert!(started.elapsed() < PATIENCE),
        }
    };
    assert!(matches!(fault, StreamError::Connect { .. }), "{fault:?}");
}
