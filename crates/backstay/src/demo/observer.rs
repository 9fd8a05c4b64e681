//! The observer: asks each node's own port who has the address, and each node's device whether it is served.
//!
//! It sits beside the cluster: its frames reach one node each, whatever links are cut, so it sees two active nodes even when
//! no client could. It asks by ARP, by TCP and by reading the NBD export, each every few milliseconds, and remembers in which
//! spans of time each node answered. Two nodes that answered at the same time are two active nodes.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use host::address::Arp;
use host::netlink::route::Routes;

use crate::failure::Failure;
use crate::lab::state::Lab;
use crate::lab::tools;
use crate::lab::topology::{MIRROR, Network, Node, OVERLAY_IP, Outsider, WORKLOAD_PORT, mac_text};
use crate::nbd_client::Export;

/// How long one question may go unanswered before the next is asked.
const ANSWER_MAX: Duration = Duration::from_millis(8);
/// Pause after an answer.
const PAUSE: Duration = Duration::from_millis(4);
/// Answers that are no further apart than this belong together: nobody hands a service over and back in so short a time.
const MERGE_MAX: Duration = Duration::from_millis(50);
/// How long opening an export may take.
const OPEN_MAX: Duration = Duration::from_millis(20);
/// Nobody listens on this port, so that a node's kernel answers by itself and the workload is left alone.
const CLOSED_PORT: u16 = WORKLOAD_PORT + 1;

/// How a node was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    /// Who has the address?
    Arp,
    /// A connection to the address, sent to the node's Ethernet address.
    Tcp,
    /// Reading a block of the export.
    Device,
}

/// A question that was answered: the node was active at some moment between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    asked: Instant,
    heard: Instant,
}

/// Answers without a break between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    first: Answer,
    last: Answer,
}

/// What one node answered on one channel.
#[derive(Clone, Debug)]
pub(super) struct Track {
    /// The node.
    pub(super) node: Node,
    /// How it was asked.
    pub(super) channel: Channel,
    /// When it answered, in order.
    pub(super) spans: Vec<Span>,
    /// Number of questions.
    pub(super) asked: u64,
}

/// Two nodes that were active at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overlap {
    /// What both answered to: the address, or the device.
    pub(super) channels: (Channel, Channel),
    /// From when on both were.
    pub(super) from: Instant,
    /// For how long at least.
    pub(super) lasted: Duration,
}

/// Running threads of questions.
#[derive(Debug)]
pub(super) struct Observer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Track>>,
}

impl Observer {
    /// Starts asking both data nodes on every channel.
    ///
    /// # Errors
    /// When an observer's namespace cannot be used.
    pub(super) fn start(lab: &Lab) -> Result<Self, Failure> {
        let mut observer = Self {
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
        };
        for node in lab.data_nodes() {
            let netns = lab.outsider(Outsider::Observer(node));
            let arp = tools::inside(&netns, || open_arp(node))??;
            observer.spawn(node, Channel::Arp, move || ask_arp(&arp));
            let socket = lab.nbd_socket(node);
            let mut device = Device::new(socket);
            observer.spawn(node, Channel::Device, move || device.ask());
            pin_neighbour(&netns, node)?;
            let mut entered = false;
            observer.spawn(node, Channel::Tcp, move || {
                // The thread moves once and stays there.
                entered = entered || tools::enter(&netns).is_ok();
                entered && ask_tcp()
            });
        }
        Ok(observer)
    }

    fn spawn(&mut self, node: Node, channel: Channel, ask: impl FnMut() -> bool + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        self.threads.push(thread::spawn(move || {
            watch(&stop, Track::new(node, channel), ask)
        }));
    }

    /// Stops asking and gives what was heard.
    pub(super) fn finish(self) -> Observation {
        self.stop.store(true, Ordering::Relaxed);
        let tracks = self
            .threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect();
        Observation { tracks }
    }
}

/// Asks over and over until told to stop.
fn watch(stop: &AtomicBool, mut track: Track, mut ask: impl FnMut() -> bool) -> Track {
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let answered = ask();
        let heard = Instant::now();
        track.asked += 1;
        if answered {
            track.heard(Answer { asked, heard });
        }
        let next = asked + if answered { PAUSE } else { ANSWER_MAX };
        // A question is never asked more often than the pause; that bounds the load, nothing is waited for.
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    track
}

impl Track {
    const fn new(node: Node, channel: Channel) -> Self {
        Self {
            node,
            channel,
            spans: Vec::new(),
            asked: 0,
        }
    }

    fn heard(&mut self, answer: Answer) {
        match self.spans.last_mut() {
            Some(span) if answer.asked.duration_since(span.last.heard) <= MERGE_MAX => {
                span.last = answer;
            }
            Some(_) | None => self.spans.push(Span {
                first: answer,
                last: answer,
            }),
        }
    }
}

/// Everything that was heard in a run.
#[derive(Clone, Debug)]
pub(super) struct Observation {
    /// One per node and channel.
    pub(super) tracks: Vec<Track>,
}

impl Observation {
    /// The first pair of spans in which two nodes were provably active at the same time.
    pub(super) fn two_actives(&self) -> Option<Overlap> {
        let pairs = self.tracks.iter().flat_map(|one| {
            self.tracks
                .iter()
                .filter(|two| one.node < two.node && one.channel.is_same_duty(two.channel))
                .map(move |two| (one, two))
        });
        pairs.into_iter().find_map(|(one, two)| {
            let (from, lasted) = overlap(&one.spans, &two.spans)?;
            Some(Overlap {
                channels: (one.channel, two.channel),
                from,
                lasted,
            })
        })
    }

    /// Number of questions that were asked.
    pub(super) fn questions(&self) -> u64 {
        self.tracks.iter().map(|track| track.asked).sum()
    }

    /// The nodes that answered for the address, in the order in which they began to.
    pub(super) fn holders(&self) -> Vec<Node> {
        let mut starts: Vec<(Instant, Node)> = self
            .tracks
            .iter()
            .filter(|track| track.channel == Channel::Arp)
            .flat_map(|track| {
                track
                    .spans
                    .iter()
                    .map(|span| (span.first.heard, track.node))
            })
            .collect();
        starts.sort_unstable();
        let mut holders: Vec<Node> = starts.into_iter().map(|(_, node)| node).collect();
        holders.dedup();
        holders
    }
}

impl Channel {
    /// True for channels that ask for the same thing: the address, or the device.
    fn is_same_duty(self, other: Self) -> bool {
        (self == Self::Device) == (other == Self::Device)
    }
}

/// The first moment at which spans of two nodes provably overlap, and for how long they do at least.
fn overlap(one: &[Span], two: &[Span]) -> Option<(Instant, Duration)> {
    one.iter()
        .flat_map(|a| two.iter().map(move |b| (a, b)))
        .find_map(|(a, b)| {
            let (from, until) = (a.begin().max(b.begin()), a.end().min(b.end()));
            let inside = a.contains(b) || b.contains(a);
            (from < until || inside)
                .then(|| (from.min(until), until.saturating_duration_since(from)))
        })
}

impl Span {
    /// From here on the node was active for sure.
    const fn begin(&self) -> Instant {
        self.first.heard
    }

    /// Until here the node was active for sure.
    const fn end(&self) -> Instant {
        self.last.asked
    }

    /// True if whatever moment another span stands for lies within this one.
    fn contains(&self, other: &Self) -> bool {
        self.begin() <= other.first.asked && other.last.heard <= self.end()
    }
}

fn open_arp(node: Node) -> Result<Arp, Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(format!("cannot observe {node} by ARP")).from_error(error)
    };
    let interface = Network::Service.short();
    let link = Routes::open().and_then(|mut routes| routes.link(interface));
    let index = link.map_err(|error| failed(&error))?.index;
    Arp::open(index, Outsider::Observer(node).mac()).map_err(|error| failed(&error))
}

fn ask_arp(arp: &Arp) -> bool {
    arp.find_holder(OVERLAY_IP, 1, ANSWER_MAX)
        .is_ok_and(|holder| holder.is_some())
}

/// Frames to the address go to this node, whoever claims the address.
fn pin_neighbour(netns: &str, node: Node) -> Result<(), Failure> {
    let (ip, mac) = (OVERLAY_IP.to_string(), mac_text(node.mac(Network::Service)));
    let interface = Network::Service.short();
    let args = [
        "-n",
        netns,
        "neighbour",
        "replace",
        &ip,
        "lladdr",
        &mac,
        "nud",
        "permanent",
        "dev",
        interface,
    ];
    tools::run("ip", &args, "").map(drop)
}

/// A refusal is an answer, too: it comes from a node that takes itself for the address's holder.
fn ask_tcp() -> bool {
    match TcpStream::connect_timeout(&SocketAddr::from((OVERLAY_IP, CLOSED_PORT)), ANSWER_MAX) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
    }
}

/// A node's export, opened again whenever it was lost.
struct Device {
    socket: PathBuf,
    export: Option<Export>,
}

impl Device {
    const fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            export: None,
        }
    }

    fn ask(&mut self) -> bool {
        if self.export.is_none() {
            self.export = Export::open(&self.socket, MIRROR, OPEN_MAX).ok();
        }
        let Some(export) = &mut self.export else {
            return false;
        };
        let Ok(answered) = export.read_block(ANSWER_MAX) else {
            self.export = None;
            return false;
        };
        answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spans from milliseconds after a common start; each answer took 1 ms.
    fn spans(start: Instant, pieces: &[(u64, u64)]) -> Vec<Span> {
        let at = |ms| start + Duration::from_millis(ms);
        let answer = |ms| Answer {
            asked: at(ms),
            heard: at(ms + 1),
        };
        pieces
            .iter()
            .map(|(from, to)| Span {
                first: answer(*from),
                last: answer(*to),
            })
            .collect()
    }

    #[test]
    fn handover_is_no_overlap() {
        let start = Instant::now();
        let (old, new) = (spans(start, &[(0, 500)]), spans(start, &[(501, 900)]));
        assert_eq!(overlap(&old, &new), None);
    }

    #[test]
    fn single_answer_within_the_others_span_is_an_overlap() {
        let start = Instant::now();
        let (old, new) = (spans(start, &[(0, 500)]), spans(start, &[(250, 250)]));
        assert!(overlap(&old, &new).is_some());
        assert!(overlap(&new, &old).is_some());
    }

    #[test]
    fn answer_that_may_have_come_before_or_after_proves_nothing() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let slow = Answer {
            asked: at(400),
            heard: at(700),
        };
        let new = [Span {
            first: slow,
            last: slow,
        }];
        assert_eq!(overlap(&spans(start, &[(0, 500)]), &new), None);
    }

    #[test]
    fn answers_close_together_form_one_span() {
        let start = Instant::now();
        let mut track = Track::new(Node::NodeA, Channel::Arp);
        for ms in [0, 10, 20, 200, 210] {
            let asked = start + Duration::from_millis(ms);
            track.heard(Answer {
                asked,
                heard: asked,
            });
        }
        assert_eq!(track.spans.len(), 2);
    }
}
