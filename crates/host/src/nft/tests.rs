use super::*;
use crate::address::Arp;
use crate::netlink::route::{Assigned, Routes};
use crate::netns::Cable;
use rustix::process::{Pid, Signal, kill_process};
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 10);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const REFRESHER: &str = "BACKSTAY_TEST_REFRESHER";
const LEASE: Duration = Duration::from_millis(600);
/// How long an answer is waited for; a busy machine needs some of it.
const PATIENCE: Duration = Duration::from_millis(120);

fn plan() -> GatePlan {
    GatePlan {
        group: "db".into(),
        interfaces: vec!["eth0".into()],
        addresses: vec![VIP.into()],
    }
}

/// A node that holds the address and answers datagrams sent to any of its addresses, and a client.
struct World {
    cable: Cable,
    stop: Arc<AtomicBool>,
}

impl World {
    fn new(test: &str) -> Self {
        let cable = Cable::new(test);
        let stop = Arc::new(AtomicBool::new(false));
        cable.on_node(|| {
            let mut routes = Routes::open().unwrap();
            let index = routes.link("eth0").unwrap().index;
            routes
                .add(Assigned {
                    index,
                    ip: VIP.into(),
                    prefix: 32,
                })
                .unwrap();
            // One socket per address, so that replies come from the address that was asked.
            for ip in [VIP, NODE] {
                let socket = UdpSocket::bind((ip, 7)).unwrap();
                socket
                    .set_read_timeout(Some(Duration::from_millis(50)))
                    .unwrap();
                let stop = Arc::clone(&stop);
                thread::spawn(move || echo(&socket, &stop));
            }
        });
        Self { cable, stop }
    }

    fn gate(&self) -> Gate {
        self.cable.on_node(|| Gate::install(&plan()).unwrap())
    }

    /// True if `ip` answers a datagram in time.
    fn answers(&self, ip: Ipv4Addr) -> bool {
        self.cable.on_client(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(b"?", (ip, 7)).unwrap();
            let mut reply = [0; 8];
            socket
                .recv_from(&mut reply)
                .is_ok_and(|(_, from)| from.ip() == ip)
        })
    }

    /// True if somebody answers an ARP request for `ip` in time.
    fn answers_arp(&self, ip: Ipv4Addr) -> bool {
        self.cable.on_client(|| {
            let link = Routes::open().unwrap().link("eth0").unwrap();
            let arp = Arp::open(link.index, link.mac.unwrap()).unwrap();
            arp.find_holder(ip, 1, PATIENCE).unwrap().is_some()
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn echo(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], from).ok();
        }
    }
}

fn in_time(left: Duration) -> Time {
    clock::now() + left
}

#[test]
fn the_address_is_silent_unless_the_gate_is_open() {
    let world = World::new("gate");
    assert!(world.answers(VIP) && world.answers_arp(VIP), "no gate yet");
    let mut gate = world.gate();
    assert!(
        !world.answers(VIP) && !world.answers_arp(VIP),
        "a new gate is closed"
    );
    assert!(
        world.answers(NODE) && world.answers_arp(NODE),
        "other addresses pass"
    );
    assert_eq!(gate.renew(in_time(LEASE)).unwrap(), Passage::Closed);
    assert!(!world.answers(VIP), "a renewal opens nothing");

    assert_eq!(gate.open(in_time(LEASE)).unwrap(), Passage::Open);
    assert!(world.answers(VIP) && world.answers_arp(VIP));
    assert_eq!(gate.renew(in_time(LEASE)).unwrap(), Passage::Open);
    let left = gate.left().unwrap();
    assert!(
        left.len() == 1 && left[0].0 == IpAddr::from(VIP) && left[0].1 <= LEASE,
        "{left:?}"
    );

    thread::sleep(LEASE);
    assert!(
        !world.answers(VIP) && !world.answers_arp(VIP),
        "the lease ended"
    );
    assert_eq!(gate.renew(in_time(LEASE)).unwrap(), Passage::Closed);
    assert!(gate.left().unwrap().is_empty());

    gate.open(Time::MAX).unwrap();
    assert_eq!(gate.left().unwrap(), [(VIP.into(), Duration::MAX)]);
    gate.renew(in_time(LEASE)).unwrap();
    assert!(
        gate.left().unwrap()[0].1 <= LEASE,
        "an endless lease becomes a finite one"
    );
    gate.close().unwrap();
    gate.close().unwrap();
    assert!(!world.answers(VIP) && world.answers(NODE));
    gate.remove().unwrap();
    assert!(world.answers(VIP));
}

#[test]
fn a_closed_node_still_reaches_the_address_elsewhere() {
    let world = World::new("standby");
    // The client's machine is the standby: its gate is closed, and the address is on the other node.
    let mut gate = world.cable.on_client(|| Gate::install(&plan()).unwrap());
    gate.close().unwrap();
    assert!(world.answers(VIP) && world.answers_arp(VIP));
}

#[test]
fn setting_the_gate_up_again_keeps_it_open() {
    let world = World::new("again");
    world.gate().open(in_time(Duration::from_secs(20))).unwrap();
    let mut second = world.gate();
    assert!(world.answers(VIP));
    assert_eq!(second.renew(in_time(LEASE)).unwrap(), Passage::Open);
    let mut other_interfaces = plan();
    other_interfaces.interfaces.push("lo".into());
    let mut anew = world
        .cable
        .on_node(|| Gate::install(&other_interfaces).unwrap());
    assert_eq!(anew.renew(in_time(LEASE)).unwrap(), Passage::Closed);
}

#[test]
fn a_lease_that_ended_closes_the_gate() {
    let world = World::new("ended");
    let mut gate = world.gate();
    gate.open(in_time(LEASE)).unwrap();
    assert_eq!(gate.renew(clock::now()).unwrap(), Passage::Closed);
    assert!(!world.answers(VIP));
    assert_eq!(gate.open(clock::now()).unwrap(), Passage::Closed);
}

#[test]
fn a_gate_without_its_table_is_an_error() {
    let world = World::new("gone");
    let mut gate = world.cable.on_node(|| Gate::attach(&plan()).unwrap());
    assert!(matches!(
        gate.open(in_time(LEASE)),
        Err(GateError::Netlink(_))
    ));
    assert!(matches!(
        gate.renew(in_time(LEASE)),
        Err(GateError::Netlink(_))
    ));
    assert!(gate.close().is_err());
}

/// Not a test by itself: the process that `a_stopped_process_holds_nothing_open` stops.
#[test]
fn refresher() {
    if std::env::var_os(REFRESHER).is_none() {
        return;
    }
    let mut gate = Gate::attach(&plan()).unwrap();
    gate.open(in_time(LEASE)).unwrap();
    loop {
        if gate.renew(in_time(LEASE)).unwrap() == Passage::Closed {
            // A daemon would look at its lease first; here it is always good.
            thread::sleep(Duration::from_millis(700));
            gate.open(in_time(LEASE)).unwrap();
        }
        thread::sleep(LEASE / 5);
    }
}

fn start_refresher(world: &World) -> Child {
    world.cable.on_node(|| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "nft::tests::refresher"])
            .env(REFRESHER, "1")
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    })
}

#[test]
fn a_stopped_process_holds_nothing_open() {
    let world = World::new("stopped");
    drop(world.gate());
    let mut refresher = start_refresher(&world);
    let pid = Pid::from_child(&refresher);
    let started = Instant::now();
    while !world.answers(VIP) {
        assert!(started.elapsed() < Duration::from_secs(5), "never opened");
    }
    thread::sleep(LEASE * 2);
    assert!(
        world.answers(VIP) && world.answers_arp(VIP),
        "renewals keep it open"
    );

    kill_process(pid, Signal::STOP).unwrap();
    let stopped = Instant::now();
    let mut last_answer = Duration::ZERO;
    while stopped.elapsed() < LEASE * 3 {
        if world.answers(VIP) {
            last_answer = stopped.elapsed();
        }
    }
    assert!(
        last_answer <= LEASE,
        "answered {last_answer:?} after the stop"
    );
    assert!(!world.answers_arp(VIP) && world.answers(NODE));

    kill_process(pid, Signal::CONT).unwrap();
    let silent = Instant::now();
    while !world.answers(VIP) {
        assert!(
            silent.elapsed() < Duration::from_secs(5),
            "never opened again"
        );
    }
    assert!(
        silent.elapsed() > Duration::from_millis(400),
        "the late renewal opened it"
    );
    refresher.kill().unwrap();
    refresher.wait().unwrap();
}

#[test]
fn names_that_could_be_rules_are_refused() {
    let bad = |group: &str, interface: &str| {
        let plan = GatePlan {
            group: group.into(),
            interfaces: vec![interface.into()],
            ..plan()
        };
        Gate::install(&plan).is_err_and(|e| matches!(e, GateError::Name { .. }))
    };
    assert!(bad("db; flush ruleset", "eth0") && bad("", "eth0"));
    assert!(bad("db", "eth0\" } ; flush") && bad("db", "") && bad("db", "sixteen-letters-"));
}
