use super::*;
use crate::disk::Extent;

const SIZE: u64 = 1 << 20;

fn export() -> Export {
    Export {
        name: "volume".into(),
        description: "mirror volume".into(),
        size: SIZE,
        block_min: 512,
        read_only: false,
    }
}

fn standby() -> Offer {
    Offer::Refuse {
        name: "volume".into(),
        why: Refusal::NotActive,
        text: "not active on this node: node-b holds epoch 7".into(),
    }
}

fn option(code: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(code.to_be_bytes());
    bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

fn go(name: &str) -> Vec<u8> {
    let mut data = string(name);
    data.extend([0, 1, 0, 3]); // one information request: block sizes
    data
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

fn request(flags: u16, command: u16, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = vec![0x25, 0x60, 0x95, 0x13];
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(0x0102_0304_0506_0708_u64.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes
}

/// An option reply, as (option, kind, data).
fn parse_replies(mut bytes: &[u8]) -> Vec<(u32, u32, Vec<u8>)> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes[..8], [0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9]);
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let len = usize::try_from(number(16)).unwrap();
        replies.push((number(8), number(12), bytes[20..20 + len].to_vec()));
        bytes = &bytes[20 + len..];
    }
    replies
}

/// A connection whose greeting is read and whose client flags are sent.
fn greeted(offer: Offer) -> Connection {
    let mut connection = Connection::new(offer);
    assert_eq!(connection.take_output(), b"NBDMAGICIHAVEOPT\x00\x03");
    connection.input(&[0, 0, 0, 3]);
    assert_eq!(connection.poll(), None);
    connection
}

fn negotiate(connection: &mut Connection, code: u32, data: &[u8]) -> Vec<(u32, u32, Vec<u8>)> {
    connection.input(&option(code, data));
    assert_eq!(connection.poll(), None);
    parse_replies(&connection.take_output())
}

/// A connection that transmits; with structured replies and the allocation context, or plain.
fn ready(structured: bool) -> Connection {
    let mut connection = greeted(Offer::Serve(export()));
    if structured {
        assert_eq!(negotiate(&mut connection, 8, &[]), [(8, 1, vec![])]);
        let mut data = string("volume");
        data.extend([0, 0, 0, 1]);
        data.extend(string("base:allocation"));
        let replies = negotiate(&mut connection, 10, &data);
        assert_eq!(
            replies,
            [
                (10, 4, b"\0\0\0\x01base:allocation".to_vec()),
                (10, 1, vec![])
            ]
        );
    }
    connection.input(&option(7, &go("")));
    assert_eq!(connection.poll(), Some(Event::Ready));
    drop(connection.take_output());
    connection
}

/// The request that a header is taken for, or the bytes of the refusal.
fn asked(connection: &mut Connection, header: &[u8]) -> Result<Kind, Vec<u8>> {
    connection.input(header);
    match connection.poll() {
        Some(Event::Request(request)) => {
            assert_eq!(request.cookie, 0x0102_0304_0506_0708);
            Ok(request.kind)
        }
        Some(other) => panic!("unexpected {other:?}"),
        None => Err(connection.take_output()),
    }
}

fn simple_error(number: u8) -> Vec<u8> {
    let mut bytes = vec![0x67, 0x44, 0x66, 0x98, 0, 0, 0, number];
    bytes.extend([1, 2, 3, 4, 5, 6, 7, 8]);
    bytes
}

#[test]
fn go_tells_size_flags_and_block_sizes() {
    let mut connection = greeted(Offer::Serve(export()));
    connection.input(&option(7, &go("volume")));
    assert_eq!(connection.poll(), Some(Event::Ready));
    let replies = parse_replies(&connection.take_output());
    assert_eq!(
        replies,
        [
            (
                7,
                3,
                [&[0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0], &[0x0d, 0x6d][..]].concat()
            ),
            (7, 3, vec![0, 3, 0, 0, 2, 0, 0, 0, 0x10, 0, 2, 0, 0, 0]),
            (7, 1, vec![]),
        ]
    );
}

#[test]
fn info_answers_and_goes_on() {
    let mut connection = greeted(Offer::Serve(export()));
    let mut data = string("volume");
    data.extend([0, 2, 0, 1, 0, 2]);
    let replies = negotiate(&mut connection, 6, &data);
    assert_eq!(replies.len(), 5);
    assert_eq!(replies[2], (6, 3, b"\0\x01volume".to_vec()));
    assert_eq!(replies[3], (6, 3, b"\0\x02mirror volume".to_vec()));
}

#[test]
fn old_export_name_works_with_and_without_zeroes() {
    for (flags, len) in [(3, 10), (1, 134)] {
        let mut connection = Connection::new(Offer::Serve(export()));
        drop(connection.take_output());
        connection.input(&[0, 0, 0, flags]);
        connection.input(&option(1, b"volume"));
        assert_eq!(connection.poll(), Some(Event::Ready));
        let output = connection.take_output();
        assert_eq!(output.len(), len);
        assert_eq!(output[..8], SIZE.to_be_bytes());
    }
}

#[test]
fn listing_names_the_export_also_on_a_standby() {
    let mut connection = greeted(standby());
    let replies = negotiate(&mut connection, 3, &[]);
    let mut server = string("volume");
    server.extend(b"not active on this node: node-b holds epoch 7");
    assert_eq!(replies, [(3, 2, server), (3, 1, vec![])]);
    assert_eq!(negotiate(&mut connection, 3, b"x")[0].1, 0x8000_0003);
}

#[test]
fn standby_refuses_with_its_reason_and_stays_polite() {
    let mut connection = greeted(standby());
    let replies = negotiate(&mut connection, 7, &go(""));
    let reason = b"not active on this node: node-b holds epoch 7".to_vec();
    assert_eq!(replies, [(7, 0x8000_0002, reason)]);
    connection.input(&option(2, &[]));
    assert_eq!(connection.poll(), Some(Event::Closed(Closed::ByClient)));
    assert_eq!(parse_replies(&connection.take_output()), [(2, 1, vec![])]);

    let mut connection = greeted(standby());
    connection.input(&option(1, b""));
    assert_eq!(connection.poll(), Some(Event::Closed(Closed::Refused)));
}

#[test]
fn odd_options_are_refused_one_by_one() {
    let mut connection = greeted(Offer::Serve(export()));
    let mut kind = |code, data: &[u8]| negotiate(&mut connection, code, data)[0].1;
    assert_eq!(kind(5, &[]), 0x8000_0002, "TLS");
    assert_eq!(kind(11, &[]), 0x8000_0001, "extended headers");
    assert_eq!(kind(99, b"abc"), 0x8000_0001, "unknown option");
    assert_eq!(kind(7, &go("other")), 0x8000_0006, "unknown export");
    assert_eq!(kind(7, &[0, 0, 0, 9]), 0x8000_0003, "short data");
    assert_eq!(
        kind(7, &[go("volume"), vec![0]].concat()),
        0x8000_0003,
        "long data"
    );
    assert_eq!(kind(8, &[1]), 0x8000_0003);
    let mut contexts = string("volume");
    contexts.extend([0; 4]);
    assert_eq!(
        kind(10, &contexts),
        0x8000_0003,
        "context without structured replies"
    );
    assert_eq!(kind(10, &[255; 12]), 0x8000_0003);
    assert_eq!(kind(9, &contexts), 4, "contexts can be listed");
}

#[test]
fn oversized_options_are_skipped_or_end_the_connection() {
    let mut connection = greeted(Offer::Serve(export()));
    assert_eq!(
        negotiate(&mut connection, 99, &vec![0; 100_000])[0].1,
        0x8000_0009
    );
    assert_eq!(negotiate(&mut connection, 8, &[]), [(8, 1, vec![])]);
    connection.input(&[b"IHAVEOPT", &[0, 0, 0, 1, 0xff, 0, 0, 0][..]].concat());
    assert!(matches!(
        connection.poll(),
        Some(Event::Closed(Closed::Garbage(_)))
    ));
    assert_eq!(connection.poll(), None);
}

#[test]
fn the_kernels_client_begins_with_requests() {
    let mut connection = Connection::negotiated(export());
    assert!(connection.take_output().is_empty());
    assert_eq!(
        asked(&mut connection, &request(0, 3, 0, 0)),
        Ok(Kind::Flush)
    );
}

#[test]
fn garbage_ends_the_connection_at_every_stage() {
    let mut connection = Connection::new(Offer::Serve(export()));
    connection.input(&[0, 0, 0, 0xff]);
    assert!(matches!(
        connection.poll(),
        Some(Event::Closed(Closed::Garbage(_)))
    ));

    let mut connection = greeted(Offer::Serve(export()));
    connection.input(b"GET / HTTP/1.1\r\n\r\n");
    assert!(matches!(
        connection.poll(),
        Some(Event::Closed(Closed::Garbage(_)))
    ));

    let mut connection = ready(false);
    connection.input(&[0; 28]);
    assert!(matches!(
        connection.poll(),
        Some(Event::Closed(Closed::Garbage(_)))
    ));
    connection.input(&request(0, 0, 0, 512));
    assert_eq!(connection.poll(), None);
}

#[test]
fn requests_are_understood() {
    let mut c = ready(true);
    let offset = 4096;
    assert_eq!(
        asked(&mut c, &request(4, 0, offset, 512)),
        Ok(Kind::Read { offset, len: 512 })
    );
    assert_eq!(asked(&mut c, &request(0, 3, 0, 0)), Ok(Kind::Flush));
    let len = 1024;
    let durable = true;
    assert_eq!(
        asked(&mut c, &request(1, 4, offset, len)),
        Ok(Kind::Trim {
            offset,
            len,
            durable
        })
    );
    let (durable, hole) = (false, true);
    let zero = Kind::Zero {
        offset,
        len,
        hole,
        durable,
    };
    assert_eq!(asked(&mut c, &request(0, 6, offset, len)), Ok(zero));
    let zero = Kind::Zero {
        offset,
        len,
        hole: false,
        durable: true,
    };
    assert_eq!(asked(&mut c, &request(3, 6, offset, len)), Ok(zero));
    let status = Kind::BlockStatus {
        offset,
        len,
        one: true,
    };
    assert_eq!(asked(&mut c, &request(8, 7, offset, len)), Ok(status));
    assert_eq!(
        asked(&mut c, &request(0, 5, 0, 512)),
        Err(simple_error(0)),
        "cache does nothing"
    );
    c.input(&request(0, 2, 0, 0));
    assert_eq!(c.poll(), Some(Event::Closed(Closed::ByClient)));
}

#[test]
fn senseless_requests_get_the_right_error() {
    let mut c = ready(false);
    let mut error = |flags, command, offset, len| {
        asked(&mut c, &request(flags, command, offset, len)).unwrap_err()
    };
    let end = SIZE - 512;
    assert_eq!(
        error(0, 0, end, 1024),
        simple_error(22),
        "read beyond the end"
    );
    assert_eq!(
        error(0, 4, u64::MAX - 511, 512),
        simple_error(22),
        "trim that wraps around"
    );
    assert_eq!(
        error(0, 6, end, 1024),
        simple_error(28),
        "zeroing beyond the end"
    );
    assert_eq!(error(0, 0, 0, 0), simple_error(22), "empty read");
    assert_eq!(error(0, 0, 1, 512), simple_error(22), "unaligned offset");
    assert_eq!(error(0, 4, 0, 513), simple_error(22), "unaligned length");
    assert_eq!(error(0, 3, 0, 512), simple_error(22), "flush with a range");
    assert_eq!(
        error(4, 0, 0, 512),
        simple_error(22),
        "DF without structured replies"
    );
    assert_eq!(
        error(0, 7, 0, 512),
        simple_error(22),
        "status without a context"
    );
    assert_eq!(
        error(2, 0, 0, 512),
        simple_error(22),
        "flag of another command"
    );
    assert_eq!(error(16, 6, 0, 512), simple_error(95), "fast zeroing");
    assert_eq!(error(0, 77, 0, 512), simple_error(22), "unknown command");
}

#[test]
fn over_long_reads_overflow_and_over_long_writes_end_the_connection() {
    let big = Export {
        size: 1 << 40,
        ..export()
    };
    let mut connection = greeted(Offer::Serve(big));
    connection.input(&option(7, &go("")));
    assert_eq!(connection.poll(), Some(Event::Ready));
    drop(connection.take_output());
    let refused = asked(&mut connection, &request(0, 0, 0, PAYLOAD_MAX + 512));
    assert_eq!(refused.unwrap_err(), simple_error(75));
    connection.input(&request(0, 1, 0, PAYLOAD_MAX + 512));
    assert!(matches!(
        connection.poll(),
        Some(Event::Closed(Closed::Garbage(_)))
    ));
}

#[test]
fn read_only_exports_refuse_writes_and_skip_their_payload() {
    let mut connection = greeted(Offer::Serve(Export {
        read_only: true,
        ..export()
    }));
    connection.input(&option(7, &go("")));
    assert_eq!(connection.poll(), Some(Event::Ready));
    drop(connection.take_output());
    assert_eq!(
        asked(&mut connection, &request(0, 1, 0, 1024)).unwrap_err(),
        simple_error(1)
    );
    connection.input(&[0; 700]);
    assert_eq!(connection.poll(), None);
    connection.input(&[0; 324]);
    let read = asked(&mut connection, &request(0, 0, 0, 512));
    assert_eq!(
        read,
        Ok(Kind::Read {
            offset: 0,
            len: 512
        })
    );
}

#[test]
fn payload_comes_from_the_buffer_first_and_then_from_the_socket() {
    let mut connection = ready(false);
    let mut bytes = request(1, 1, 512, 1024);
    bytes.extend([7; 100]);
    connection.input(&bytes);
    let Some(Event::Request(write)) = connection.poll() else {
        panic!("no write")
    };
    assert_eq!(
        write.kind,
        Kind::Write {
            offset: 512,
            len: 1024,
            durable: true
        }
    );
    assert_eq!(connection.poll(), None);
    let mut payload = vec![0; 1024];
    assert_eq!(connection.take_payload(&mut payload), 100);
    assert_eq!(payload[..100], [7; 100]);
    assert_eq!(connection.payload_left(), 924);
    connection.payload_received(924);
    let flush = asked(&mut connection, &request(0, 3, 0, 0));
    assert_eq!(flush, Ok(Kind::Flush));
}

#[test]
fn replies_have_the_negotiated_form() {
    let request = Request {
        cookie: 9,
        kind: Kind::Read {
            offset: 512,
            len: 4,
        },
    };
    let plain = ready(false);
    let ok = [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    assert_eq!(plain.data(9, 512, 4).into_bytes(), ok);
    assert_eq!(
        plain.error(&request, ErrorCode::Io, "disk").into_bytes()[7],
        5
    );

    let structured = ready(true);
    let chunk = [
        0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 12,
    ];
    let expected = [&chunk[..], &[0, 0, 0, 0, 0, 0, 2, 0]].concat();
    assert_eq!(structured.data(9, 512, 4).into_bytes(), expected);
    let error = structured
        .error(&request, ErrorCode::Io, "disk")
        .into_bytes();
    assert_eq!(error[4..8], [0, 1, 0x80, 1]);
    assert_eq!(
        error[16..],
        [&[0, 0, 0, 10, 0, 0, 0, 5, 0, 4][..], b"disk"].concat()
    );
    let extents = [
        Extent {
            len: 4096,
            hole: true,
        },
        Extent {
            len: 512,
            hole: false,
        },
    ];
    let status = structured.block_status(9, &extents).into_bytes();
    let body = [
        0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 16, 0, 0, 0, 0, 3, 0, 0, 2, 0, 0, 0, 0, 0,
    ];
    assert_eq!(status[16..], body);
}

/// A valid session, byte by byte; then with random bytes changed. Nothing may panic or grow without bound.
#[test]
fn any_bytes_in_any_pieces_are_survived() {
    let mut session = vec![0, 0, 0, 3];
    session.extend(option(8, &[]));
    session.extend(option(3, &[]));
    session.extend(option(7, &go("volume")));
    session.extend(request(0, 0, 0, 4096));
    session.extend(request(0, 1, 0, 512));
    session.extend([5; 512]);
    session.extend(request(0, 7, 0, 4096));
    session.extend(request(0, 2, 0, 0));
    assert_eq!(
        play(&session, 1),
        4,
        "ready, read, write, end; status is refused"
    );
    let mut random = 0x1234_5678_9abc_def0_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 8).unwrap()
    };
    for _ in 0..20_000 {
        let mut bytes = session.clone();
        for _ in 0..1 + next() % 4 {
            let at = next() % bytes.len();
            bytes[at] = u8::try_from(next() % 256).unwrap();
        }
        play(&bytes, 1 + next() % 200);
    }
}

fn play(bytes: &[u8], step: usize) -> usize {
    let mut connection = Connection::new(Offer::Serve(export()));
    let mut events = 0;
    for piece in bytes.chunks(step) {
        connection.input(piece);
        loop {
            let mut payload = [0; 4096];
            while connection.take_payload(&mut payload) > 0 {}
            let Some(_) = connection.poll() else { break };
            events += 1;
        }
        assert!(connection.take_output().len() < 200_000);
    }
    events
}
