//! Slow links: a bridge in user space that carries frames over, late.
//!
//! The packet filter drops the frames of a slow link where they would cross the kernel's bridge. One process per lab hears
//! them as they arrive at the switch's ports, keeps each for a while, and sends it on.

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU64;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use host::netlink::route::Routes;
use host::packet::{FRAME_MAX, Port};

use super::cut::{Direction, LinkFault};
use super::state::Lab;
use super::{process, tools};
use crate::failure::{Failure, Outcome};

/// How late each frame is, unless the lab was made for another figure; in microseconds.
const DELAY_US: u32 = 50_000;
/// Most frames of one port that are kept; a further one is lost, as in a switch.
const FRAMES_MAX: usize = 4096;
/// Room for frames that have arrived and were not taken yet, in bytes: a burst of large segments is not to be lost.
const ARRIVED_BYTES_MAX: usize = 16 << 20;
/// The hidden command, by which its process is found.
const COMMAND: &str = "lab-slow";

/// What `backstay lab-slow` carries; given by `backstay lab break LINK slow`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Ports and where their frames go: hb1-a=hb1-b,hb1-w
    #[arg(required = true)]
    routes: Vec<String>,
    /// How late each frame is, in microseconds
    #[arg(long)]
    delay_us: u32,
}

/// Frames on their way.
#[derive(Debug)]
struct Belt {
    /// How late each is sent on.
    delay: Duration,
    frames: Mutex<VecDeque<(Instant, Vec<u8>)>>,
    arrived: Condvar,
}

/// Starts, changes or ends the process that carries the frames of the lab's slow links.
///
/// # Errors
/// When the process cannot be ended or started.
pub(super) fn apply(lab: &Lab) -> Result<(), Failure> {
    let switch = lab.id.switch_netns();
    let carriers: Vec<_> = process::in_netns(&switch)
        .into_iter()
        .filter(|pid| process::command_line(*pid).contains(COMMAND))
        .collect();
    process::kill_all(&carriers)?;
    let there = lab.ports();
    let routes: Vec<String> = lab
        .cuts
        .iter()
        .filter(|cut| cut.fault == LinkFault::Slow)
        .flat_map(|cut| cut.directions())
        .flat_map(|direction| routes(&direction, &there))
        .collect();
    if routes.is_empty() {
        return Ok(());
    }
    let failed = |error| Failure::new("cannot start the slow bridge").cause(error);
    let exe = std::env::current_exe().map_err(failed)?;
    let delay_us = lab.options.bench.slow_us.unwrap_or(DELAY_US);
    tools::inside(&switch, || {
        let mut command = Command::new(exe);
        command.arg(COMMAND).args(routes).current_dir("/");
        command.arg(format!("--delay-us={delay_us}"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    })?
    .map(drop)
    .map_err(failed)
}

/// One route per port of this lab that frames come from; nothing goes back to where it came from.
fn routes(direction: &Direction, there: &BTreeSet<String>) -> Vec<String> {
    let from = direction.from.iter().filter(|port| there.contains(*port));
    from.map(|from| {
        let to: Vec<&str> = direction
            .to
            .iter()
            .filter(|to| *to != from && there.contains(*to))
            .map(String::as_str)
            .collect();
        format!("{from}={}", to.join(","))
    })
    .collect()
}

/// Runs in the switch's namespace until killed.
///
/// # Errors
/// When a port cannot be opened.
pub fn run(args: &Args) -> Outcome {
    let _session = rustix::process::setsid();
    let mut threads = Vec::new();
    for route in &args.routes {
        let Some((from, to)) = route.split_once('=') else {
            return Err(Failure::new(format!("'{route}' is no route")).hint("write FROM=TO,TO"));
        };
        let from = open(from)?;
        let to = to.split(',').map(open).collect::<Result<Vec<_>, _>>()?;
        from.make_room(ARRIVED_BYTES_MAX)
            .map_err(|error| Failure::new("cannot make room for frames").cause(error))?;
        let belt = Arc::new(Belt::new(args.delay_us));
        let loading = Arc::clone(&belt);
        threads.push(thread::spawn(move || loading.load(&from)));
        threads.push(thread::spawn(move || {
            // Sleeps end 50 µs late otherwise (prctl(2), PR_SET_TIMERSLACK); a kernel that refuses leaves them so.
            rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).ok();
            belt.unload(&to);
        }));
    }
    for thread in threads {
        // They end only with their ports, and those only with the lab.
        thread.join().ok();
    }
    Ok(crate::exit::Exit::Ready)
}

fn open(port: &str) -> Result<Port, Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(format!("cannot open port {port}")).from_error(error)
    };
    let link = Routes::open().and_then(|mut routes| routes.link(port));
    Port::open(link.map_err(|error| failed(&error))?.index).map_err(|error| failed(&error))
}

impl Belt {
    fn new(delay_us: u32) -> Self {
        Self {
            delay: Duration::from_micros(delay_us.into()),
            frames: Mutex::default(),
            arrived: Condvar::new(),
        }
    }

    /// Takes frames from a port until it is gone.
    fn load(&self, from: &Port) {
        let mut frame = vec![0; FRAME_MAX];
        while let Ok(length) = from.receive(&mut frame) {
            let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
            if frames.len() < FRAMES_MAX {
                frames.push_back((Instant::now() + self.delay, frame[..length].to_vec()));
                self.arrived.notify_one();
            }
        }
    }

    /// Sends each frame to every port when it is due: whom it is not for ignores it.
    fn unload(&self, to: &[Port]) {
        loop {
            let (due, frame) = self.take();
            thread::sleep(due.saturating_duration_since(Instant::now()));
            for port in to {
                // A port that is down loses the frame, as a cable would.
                port.send(&frame).ok();
            }
        }
    }

    fn take(&self) -> (Instant, Vec<u8>) {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(first) = frames.pop_front() {
                return first;
            }
            frames = self
                .arrived
                .wait(frames)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_do_not_go_back_to_where_they_came_from() {
        let ports = || ["hb1-a", "hb1-b", "hb1-c", "hb1-w"].map(str::to_owned);
        let there = ["hb1-a", "hb1-b", "hb1-w"].map(str::to_owned).into();
        let direction = Direction {
            from: ports().to_vec(),
            to: ports().to_vec(),
        };
        let routes = routes(&direction, &there);
        assert_eq!(routes.len(), 3, "a port that this lab does not have");
        assert_eq!(routes[0], "hb1-a=hb1-b,hb1-w");
        assert_eq!(routes[2], "hb1-w=hb1-a,hb1-b");
    }
}
