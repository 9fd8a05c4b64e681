//! The server and the client together, over a real socket in a scratch directory.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use wire::control::{GroupRequest, RequestFault};
use wire::event::{Event, What};
use wire::{GroupId, NodeId, Time};

use super::body::{Events, GroupRequestBody, Mirrors, Taken};
use super::client::{Client, ClientError};
use super::server::{self, Backend, Request};
use super::view::{Snapshot, Status};
use crate::eventlog::EventLog;
use crate::exit::Exit;
use crate::render::tests::{names, ready};
use crate::render::why::Why;

/// A daemon's API without a daemon: it serves one snapshot and answers requests as told.
struct Server {
    directory: PathBuf,
    log: EventLog,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
    asked: std::sync::mpsc::Receiver<(GroupId, GroupRequest, String)>,
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

fn clock() -> Time {
    Time::from_nanos(1_012_000_000)
}

impl Server {
    fn start(snapshot: Snapshot, answer: Result<(), RequestFault>) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("backstay-api-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("scratch directory");
        let log = EventLog::open(&directory, names()).expect("event log");
        let (stop, stopped) = oneshot::channel();
        let (told, asked) = std::sync::mpsc::channel();
        let (up, is_up) = std::sync::mpsc::channel();
        let (path, server_log) = (directory.join("run/api.sock"), log.clone());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("runtime").block_on(async move {
                let (_keep, snapshot) = watch::channel(snapshot);
                let (requests, mut queue) = mpsc::channel::<Request>(4);
                let backend = Backend {
                    snapshot,
                    requests,
                    freezes: mpsc::channel(1).0,
                    holds: server::Freezes::default(),
                    log: server_log,
                    clock,
                };
                let listener = server::bind(&path).expect("socket");
                up.send(()).expect("the test waits");
                let answers = async {
                    while let Some(request) = queue.recv().await {
                        told.send((request.group, request.what, request.reason))
                            .ok();
                        request.answer.send(answer).ok();
                    }
                };
                tokio::select! {
                    _ = server::serve_socket(listener, backend) => {}
                    () = answers => {}
                    _ = stopped => {}
                }
            });
        });
        is_up.recv().expect("the server starts");
        Self {
            directory,
            log,
            stop: Some(stop),
            thread: Some(thread),
            asked,
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("run/api.sock")
    }

    fn client(&self) -> Client {
        Client::new(&self.socket()).expect("client")
    }

    /// A raw request; gives status line, headers and body as text.
    fn raw(&self, request: &str) -> (u16, String) {
        self.raw_then(request, false)
    }

    /// With `end`, says that nothing more comes, so that the server need not wait for the rest of half a request.
    fn raw_then(&self, request: &str, end: bool) -> (u16, String) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let text = runtime.expect("runtime").block_on(async {
            let mut stream = tokio::net::UnixStream::connect(self.socket())
                .await
                .expect("connect");
            stream.write_all(request.as_bytes()).await.ok();
            if end {
                stream.shutdown().await.ok();
            }
            let mut bytes = Vec::new();
            // The server may close a malformed connection with a reset.
            stream.read_to_end(&mut bytes).await.ok();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let status = text
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0);
        (status, text)
    }

    fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let (status, text) = self.raw(&request);
        let body = text
            .split_once("\r\n\r\n")
            .map(|(_, body)| body)
            .unwrap_or_default();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()).ok());
        self.thread.take().map(|thread| thread.join().ok());
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

fn event(what: What) -> Event {
    Event {
        at: Time::from_nanos(5),
        group: Some(GroupId(0)),
        incident: 0,
        what,
    }
}

#[test]
fn status_comes_over_the_socket_as_it_was_made() {
    let server = Server::start(ready(), Ok(()));
    let status: Status = server.client().get("/api/v1/status").expect("status");
    assert!(status.ready && status.exit() == Exit::Ready);
    assert_eq!(status.view_age_ms, Some(12.0));
    assert_eq!(status.groups[0].mirrors[0].name, "pgdata");
    let mirrors: Mirrors = server.client().get("/api/v1/mirrors").expect("mirrors");
    assert_eq!(mirrors.mirrors[0].group, "db");
}

#[test]
fn requests_reach_the_run_loop_with_their_reason() {
    let server = Server::start(ready(), Ok(()));
    let body = GroupRequestBody {
        to: Some("node-b".into()),
        reason: Some("kernel update".into()),
        ..GroupRequestBody::default()
    };
    let taken: Taken = server
        .client()
        .post("/api/v1/groups/db/move", &body)
        .expect("taken");
    assert!(taken.taken);
    let asked = server.asked.recv().expect("a request");
    let expected = GroupRequest::Move(Some(NodeId(1)));
    assert_eq!(asked, (GroupId(0), expected, "kernel update".to_owned()));
}

#[test]
fn letting_writes_go_takes_what_was_shown_and_the_typed_name() {
    let server = Server::start(ready(), Ok(()));
    let path = "/api/v1/groups/db/demote";
    let cases = [
        ("{\"mirror\":\"pgdata\",\"bytes\":4096}", 400),
        (
            "{\"mirror\":\"pgdata\",\"bytes\":4096,\"confirm\":\"yes\"}",
            400,
        ),
        ("{\"mirror\":\"pgdata\",\"confirm\":\"pgdata\"}", 400),
        (
            "{\"mirror\":\"nope\",\"bytes\":4096,\"confirm\":\"nope\"}",
            404,
        ),
        ("{\"bytes\":4096}", 400),
        (
            "{\"mirror\":\"pgdata\",\"bytes\":4096,\"confirm\":\"pgdata\"}",
            400,
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(server.call("POST", path, body).0, expected, "{body}");
    }
    assert!(server.asked.try_recv().is_err(), "none of them was taken");
    let body = json!({
        "mirror": "pgdata", "bytes": 4096, "epoch": 7, "confirm": "pgdata", "node": "node-b",
    });
    assert_eq!(server.call("POST", path, &body.to_string()).0, 202);
    let expected = GroupRequest::Demote {
        mirror: 0,
        node: NodeId(1),
        bytes: wire::ByteCount(4096),
        epoch: wire::Epoch(7),
    };
    assert_eq!(server.asked.recv().expect("a request").1, expected);
}

#[test]
fn a_forced_promotion_names_the_node_that_is_off() {
    let server = Server::start(ready(), Ok(()));
    let path = "/api/v1/groups/db/promote";
    let body = |confirm: &str| {
        let body = json!({ "mirror": "pgdata", "node": "node-b", "epoch": 7, "confirm": confirm });
        body.to_string()
    };
    let unseen = json!({ "mirror": "pgdata", "node": "node-b", "confirm": "node-a is off" });
    assert_eq!(server.call("POST", path, &unseen.to_string()).0, 400);
    for (confirm, expected) in [("", 400), ("node-a", 400), ("yes", 400), ("x is off", 404)] {
        assert_eq!(server.call("POST", path, &body(confirm)).0, expected);
    }
    assert!(server.asked.try_recv().is_err(), "none of them was taken");
    assert_eq!(server.call("POST", path, &body("node-a is off")).0, 202);
    let expected = GroupRequest::Promote {
        node: NodeId(1),
        off: NodeId(0),
        epoch: wire::Epoch(7),
    };
    assert_eq!(server.asked.recv().expect("a request").1, expected);
}

#[test]
fn refused_requests_say_why() {
    let server = Server::start(ready(), Err(RequestFault::NoTarget));
    let body = GroupRequestBody::default();
    let refused = server
        .client()
        .post::<Taken>("/api/v1/groups/db/move", &body);
    let error = refused.expect_err("refused");
    assert_eq!(error.reason(), Some("no-target"));
    let failure = error.failure("move group db");
    insta::assert_snapshot!("refused_move", failure);
    assert_eq!(failure.exit_code(), Exit::Error);
}

#[test]
fn malformed_requests_get_a_problem_document() {
    let server = Server::start(ready(), Ok(()));
    let long = format!("{{\"reason\":\"{}\"}}", "x".repeat(600));
    let huge = "x".repeat(server::BODY_BYTES_MAX + 1);
    let group = "/api/v1/groups/db/move";
    let cases = [
        ("POST", group, "{\"to\":", 400),
        ("POST", group, "[1,2]", 400),
        ("POST", group, "{\"too\":\"node-b\"}", 400),
        ("POST", group, "{\"to\":7}", 400),
        ("POST", group, "{\"to\":\"witness\"}", 400),
        ("POST", group, "{\"to\":\"node-z\"}", 404),
        ("POST", group, "{\"reason\":\"a\\nb\"}", 400),
        ("POST", group, long.as_str(), 400),
        ("POST", group, huge.as_str(), 413),
        ("POST", "/api/v1/groups/db/stop", "{\"to\":\"node-b\"}", 400),
        ("POST", "/api/v1/groups/db/explode", "", 404),
        ("POST", "/api/v1/groups/nope/move", "", 404),
        ("GET", group, "", 405),
        ("GET", "/api/v1/nothing", "", 404),
        ("GET", "/api/v1/events?after=minus", "", 400),
        ("GET", "/api/v1/why/x", "", 400),
        ("GET", "/api/v1/why/9", "", 404),
        ("GET", "/api/v1/why/node-b:1", "", 404),
        ("GET", "/health/active?group=nope", "", 404),
        ("GET", "/health/standby?lag=16", "", 400),
    ];
    for (method, path, body, expected) in cases {
        let (status, problem) = server.call(method, path, body);
        assert_eq!(status, expected, "{method} {path} {problem}");
        assert_eq!(problem["status"], json!(expected), "{path}");
        for key in ["code", "message", "detail", "action", "see"] {
            assert!(
                problem[key].as_str().is_some_and(|text| !text.is_empty()),
                "{path} {key}"
            );
        }
    }
    assert!(
        server.asked.try_recv().is_err(),
        "nothing malformed reached the run loop"
    );
}

#[test]
fn garbage_on_the_socket_harms_nobody() {
    let server = Server::start(ready(), Ok(()));
    let config = proptest::test_runner::Config::with_cases(64);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let lines = "(GET|POST|PUT|\\PC{0,5}) /?(api/v1/|health/)?\\PC{0,30}( HTTP/1.1)?\r?\n(\\PC{0,40}\r\n){0,3}\r\n\\PC{0,60}";
    let ran = runner.run(&lines, |request| {
        let (status, _) = server.raw_then(&request, true);
        // No answer at all is fine for what is not HTTP; an internal error never is.
        proptest::prop_assert!(status < 500, "{status} for {request:?}");
        Ok(())
    });
    ran.expect("no internal errors");
    assert_eq!(server.call("GET", "/livez", "").0, 200);
}

#[test]
fn events_are_listed_explained_and_streamed() {
    let server = Server::start(ready(), Ok(()));
    server.log.append(event(What::LeaseLost));
    server.log.append(event(What::LeaseGained));
    let list: Events = server
        .client()
        .get("/api/v1/events?after=1")
        .expect("events");
    assert_eq!((list.events.len(), list.head), (1, 2));
    assert_eq!(list.events[0].id, "node-a:2");
    let why: Why = server.client().get("/api/v1/why/node-a:1").expect("why");
    assert_eq!(why.event.code, "lease-lost");

    let log = server.log.clone();
    let late = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        log.append(event(What::Adopted));
    });
    let mut codes = Vec::new();
    let path = "/api/v1/events?after=1";
    let followed = server.client().follow(path, |data| {
        let event: Value = serde_json::from_str(data).expect("JSON");
        codes.push(event["code"].as_str().unwrap_or_default().to_owned());
        if codes.len() == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    followed.expect("the stream");
    late.join().expect("the late event");
    assert_eq!(codes, ["lease-gained", "adopted"]);
}

#[test]
fn stream_resumes_behind_the_last_event_id() {
    let server = Server::start(ready(), Ok(()));
    for _ in 0..3 {
        server.log.append(event(What::LeaseGained));
    }
    let request = "GET /api/v1/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\
                   Last-Event-ID: 2\r\n\r\n";
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let text = runtime.expect("runtime").block_on(async {
        let mut stream = tokio::net::UnixStream::connect(server.socket())
            .await
            .expect("connect");
        stream.write_all(request.as_bytes()).await.expect("send");
        let mut text = String::new();
        let mut buffer = [0_u8; 4096];
        while !text.contains("data: ") {
            let count = stream.read(&mut buffer).await.expect("read");
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        text
    });
    assert!(
        text.contains("id: 3\n") && !text.contains("id: 2\n"),
        "{text}"
    );
}

#[test]
fn health_checks_answer_for_load_balancers() {
    let server = Server::start(ready(), Ok(()));
    for (path, expected) in [
        ("/livez", 200),
        ("/readyz", 200),
        ("/health/active?group=db", 200),
        ("/health/active", 200),
        ("/health/standby?group=db&lag=16MB", 503),
    ] {
        assert_eq!(server.call("GET", path, "").0, expected, "{path}");
    }
    let (status, _) = server.raw("HEAD /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(status, 200);

    let mut standby = ready();
    standby.me = NodeId(1);
    standby.groups[0].role = wire::control::Role::Standby;
    standby.groups[0].can_fail_over = false;
    let server = Server::start(standby, Ok(()));
    assert_eq!(server.call("GET", "/health/standby?lag=16MB", "").0, 200);
    assert_eq!(server.call("GET", "/health/active", "").0, 503);
    assert_eq!(server.call("GET", "/readyz", "").0, 503);
}

#[test]
fn metrics_are_kept() {
    let server = Server::start(ready(), Ok(()));
    let (_, text) = server.raw("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let (_, body) = text.split_once("\r\n\r\n").expect("a body");
    insta::assert_snapshot!("metrics", body);
}

#[test]
fn every_described_path_exists() {
    let server = Server::start(ready(), Ok(()));
    server.log.append(event(What::Adopted));
    for (method, path) in super::openapi::routes() {
        let path = path.replace("{group}", "db").replace("{event}", "1");
        let body = match path.rsplit('/').next() {
            Some("verify" | "resync" | "grow") => "{\"mirror\":\"pgdata\"}",
            Some("demote") => {
                "{\"mirror\":\"pgdata\",\"confirm\":\"pgdata\",\"bytes\":1,\"epoch\":7}"
            }
            Some("promote") => {
                "{\"mirror\":\"pgdata\",\"node\":\"node-b\",\"epoch\":7,\"confirm\":\"node-a is off\"}"
            }
            Some(_) | None => "",
        };
        let (status, _) = server.call(&method.to_uppercase(), &path, body);
        // The newest decision does not exist, and this node is no standby; both are answers.
        assert!(
            [200, 202, 404, 503].contains(&status),
            "{method} {path}: {status}"
        );
        assert!(status != 404 || path == "/api/v1/why", "{method} {path}");
    }
    insta::assert_snapshot!(
        "openapi",
        serde_json::to_string_pretty(&super::openapi::document()).expect("JSON")
    );
}

#[test]
fn references_of_the_description_lead_somewhere() {
    let document = super::openapi::document();
    let text = document.to_string();
    for part in text.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap_or_default();
        assert!(
            document["components"]["schemas"][name].is_object(),
            "{name}"
        );
    }
}

#[test]
fn loopback_port_serves_health_and_nothing_else() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let (_keep, snapshot) = watch::channel(ready());
    let (requests, _queue) = mpsc::channel(1);
    let directory = std::env::temp_dir().join(format!("backstay-loop-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("scratch directory");
    let log = EventLog::open(&directory, names()).expect("event log");
    let backend = Backend {
        snapshot,
        requests,
        freezes: mpsc::channel(1).0,
        holds: server::Freezes::default(),
        log,
        clock,
    };
    runtime.expect("runtime").block_on(async {
        let outside = server::serve_loopback(([0, 0, 0, 0], 0).into(), backend.clone());
        assert!(outside.await.is_err(), "only loopback addresses are served");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("port");
        let address = listener.local_addr().expect("address");
        let routes = server::loopback_routes(backend);
        let serve = tokio::spawn(async move { axum::serve(listener, routes).await });
        for (path, expected) in [("/livez", "200"), ("/api/v1/status", "404")] {
            let mut stream = tokio::net::TcpStream::connect(address)
                .await
                .expect("connect");
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("send");
            let mut text = String::new();
            stream.read_to_string(&mut text).await.expect("answer");
            assert_eq!(text.split(' ').nth(1), Some(expected), "{path}");
        }
        serve.abort();
    });
    std::fs::remove_dir_all(directory).ok();
}

#[test]
fn nobody_at_the_socket_is_told_as_such() {
    let client = Client::new(&std::env::temp_dir().join("backstay-nobody.sock")).expect("client");
    let error = client.get::<Status>("/api/v1/status").expect_err("nobody");
    assert!(matches!(error, ClientError::NoDaemon { .. }));
    let status = Status::unknown(error.problem(crate::output::Lang::En));
    assert_eq!(status.exit(), Exit::Unknown);
    assert_eq!(status.problems[0].code, "BS-001");
}

#[test]
fn socket_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::start(ready(), Ok(()));
    let mode = |path: PathBuf| {
        std::fs::metadata(path)
            .expect("metadata")
            .permissions()
            .mode()
    };
    assert_eq!(mode(server.socket()) & 0o777, 0o600);
    assert_eq!(mode(server.directory.join("run")) & 0o777, 0o700);
}

#[test]
fn names_are_shared_by_all_snapshots() {
    // A snapshot is taken fifty times a second: names must not be copied.
    let snapshot = ready();
    assert!(Arc::ptr_eq(&snapshot.names, &snapshot.clone().names));
}
