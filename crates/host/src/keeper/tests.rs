use super::server::guard;
use super::*;
use crate::cgroup::Cgroup;
use crate::clock;
use crate::scratch::Scratch;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use wire::{Duration, Time};

type Serving = JoinHandle<Result<(), ServeError>>;

fn start(scratch: &Scratch) -> (PathBuf, Serving) {
    let socket = scratch.path().join("keeper.sock");
    let at = socket.clone();
    let serving = std::thread::spawn(move || guard("db", &at));
    (socket, serving)
}

fn connect(socket: &Path) -> (Client, Overview) {
    for _ in 0..200 {
        if let Ok(connected) = Client::connect(socket) {
            return connected;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("keeper does not answer");
}

fn soon(millis: u64) -> Lease {
    let half = Duration::from_millis(millis / 2);
    Lease {
        until: clock::now() + half,
        grace: half,
    }
}

fn wait_for_teardown(client: &Client) -> TornDown {
    for _ in 0..400 {
        if let Some(torn_down) = client.overview().unwrap().torn_down {
            return torn_down;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("nothing was torn down");
}

#[test]
fn descriptors_outlive_the_connection_that_put_them() {
    let scratch = Scratch::new("keeper-put");
    let (socket, serving) = start(&scratch);
    let (client, overview) = connect(&socket);
    assert_eq!(overview.group, "db");
    assert_eq!(overview.items, Vec::<String>::new());
    let path = scratch.path().join("file");
    let mut file = std::fs::File::create_new(&path).unwrap();
    file.write_all(b"kept").unwrap();
    let file = std::fs::File::open(&path).unwrap();
    client.put("fuse", &file, vec![1, 2, 3]).unwrap();
    drop((client, file));

    let (client, overview) = connect(&socket);
    assert_eq!(overview.items, ["fuse"]);
    let (fd, blob) = client.get("fuse").unwrap();
    assert_eq!(blob, [1, 2, 3]);
    let (mut file, mut text) = (std::fs::File::from(fd), String::new());
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "kept");

    assert!(matches!(
        client.get("other"),
        Err(ClientError::Missing { .. })
    ));
    client.forget("fuse").unwrap();
    assert!(matches!(
        client.get("fuse"),
        Err(ClientError::Missing { .. })
    ));
    client.release().unwrap();
    serving.join().unwrap().unwrap();
    assert!(matches!(
        Client::connect(&socket),
        Err(ClientError::Absent { .. })
    ));
}

#[test]
fn second_keeper_of_a_group_is_refused() {
    let scratch = Scratch::new("keeper-second");
    let (socket, serving) = start(&scratch);
    let (client, _) = connect(&socket);
    assert!(matches!(
        guard("db", &socket),
        Err(ServeError::Second { .. })
    ));
    client.overview().unwrap();
    client.release().unwrap();
    serving.join().unwrap().unwrap();
}

#[test]
fn renewed_lease_tears_nothing_down_and_unrenewed_lease_does_once() {
    let scratch = Scratch::new("keeper-lease");
    let (socket, serving) = start(&scratch);
    let (client, _) = connect(&socket);
    let file = std::fs::File::open("/dev/null").unwrap();
    client.put("fuse", &file, Vec::new()).unwrap();
    client
        .set_steps(vec![Step::Close {
            name: "fuse".into(),
        }])
        .unwrap();
    for _ in 0..10 {
        client.set_lease(soon(200)).unwrap();
        std::thread::sleep(Duration::from_millis(30));
    }
    let endless = Lease {
        until: Time::MAX,
        grace: Duration::ZERO,
    };
    client.set_lease(endless).unwrap();
    assert_eq!(client.overview().unwrap().lease, Some(endless));
    assert_eq!(client.overview().unwrap().torn_down, None);

    let lease = soon(40);
    client.set_lease(lease).unwrap();
    let torn_down = wait_for_teardown(&client);
    assert_eq!(torn_down.lease, lease);
    assert!(torn_down.at >= lease.deadline());
    assert!(torn_down.at.since(lease.deadline()) < Duration::from_millis(100));
    assert_eq!(torn_down.steps.len(), 1);
    assert!(client.overview().unwrap().items.is_empty());

    let late = client.set_lease(soon(1000)).unwrap_err();
    assert!(matches!(late, ClientError::TornDown(told) if *told == torn_down));
    let (second, overview) = connect(&socket);
    assert_eq!(overview.torn_down, Some(torn_down));
    second.reset().unwrap();
    second.set_lease(soon(10_000)).unwrap();
    second.end_lease().unwrap();
    second.release().unwrap();
    serving.join().unwrap().unwrap();
}

#[test]
fn steps_that_fail_are_told_and_do_not_keep_the_others() {
    let scratch = Scratch::new("keeper-steps");
    let (socket, serving) = start(&scratch);
    let (client, _) = connect(&socket);
    let nowhere = scratch.path().join("nowhere");
    client
        .set_steps(vec![
            Step::Unmount {
                target: nowhere.clone(),
            },
            Step::AbortFuse {
                target: nowhere.clone(),
            },
            Step::DetachLoop {
                device: "/dev/null".into(),
            },
            Step::Close {
                name: "nothing".into(),
            },
        ])
        .unwrap();
    client.set_lease(soon(0)).unwrap();
    let torn_down = wait_for_teardown(&client);
    let failed: Vec<bool> = torn_down
        .steps
        .iter()
        .map(|step| step.error.is_some())
        .collect();
    assert_eq!(failed, [false, false, true, false]);
    client.release().unwrap();
    serving.join().unwrap().unwrap();
}

#[test]
fn killing_ends_every_process_of_the_group() {
    let Ok(own) = Cgroup::own() else { return };
    let cgroup = own
        .child(&format!("backstay-keeper-{}", std::process::id()))
        .unwrap();
    if cgroup.create().is_err() {
        return;
    }
    let mut child = Command::new("sleep")
        .arg("60")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    std::fs::write(cgroup.processes_file(), child.id().to_string()).unwrap();
    let reaper = std::thread::spawn(move || child.wait());

    let scratch = Scratch::new("keeper-kill");
    let (socket, serving) = start(&scratch);
    let (client, _) = connect(&socket);
    client
        .set_steps(vec![Step::KillCgroup {
            dir: cgroup.path().to_owned(),
        }])
        .unwrap();
    client.set_lease(soon(0)).unwrap();
    let torn_down = wait_for_teardown(&client);
    assert_eq!(torn_down.steps[0].error, None);
    assert!(!reaper.join().unwrap().unwrap().success());
    client.release().unwrap();
    serving.join().unwrap().unwrap();
    cgroup.remove().unwrap();
}

#[test]
fn nonsense_closes_only_its_own_connection() {
    let scratch = Scratch::new("keeper-nonsense");
    let (socket, serving) = start(&scratch);
    let (client, _) = connect(&socket);
    let address = rustix::net::SocketAddrUnix::new(&socket).unwrap();
    for bytes in [&[0xff_u8; 40][..], &[3], &[0, 99]] {
        let kind = rustix::net::SocketType::SEQPACKET;
        let stranger = rustix::net::socket(rustix::net::AddressFamily::UNIX, kind, None).unwrap();
        rustix::net::connect(&stranger, &address).unwrap();
        rustix::io::write(&stranger, bytes).unwrap();
        let mut answer = [0; 256];
        rustix::io::read(&stranger, &mut answer).unwrap();
        client.overview().unwrap();
    }
    client.release().unwrap();
    serving.join().unwrap().unwrap();
}
