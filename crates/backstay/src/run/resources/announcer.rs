//! Repeats the announcement of an address over the first seconds, and falls silent before the address goes.

use super::shared::lock;
use host::address::Arp;
use rustix::io::Errno;
use std::net::Ipv4Addr;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// When an announcement is repeated, from the first one on. Frames get lost, switches learn late, and the address gate may
/// open a moment after the address is there.
const REPEATS: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];

/// A group's announcements.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    voice: Arc<Voice>,
}

/// Which announcements may still be made: those of the present generation. Held while a frame is sent, so that nothing is
/// said after [`Announcer::silence`] returned.
#[derive(Debug, Default)]
struct Voice {
    generation: Mutex<u64>,
    changed: Condvar,
}

impl Announcer {
    /// Announces now, and again a few times in the background.
    pub(super) fn announce(&self, arp: Arp, ip: Ipv4Addr) {
        let generation = *lock(&self.voice.generation);
        self.voice.say(generation, &arp, ip);
        let voice = Arc::clone(&self.voice);
        let spawned = thread::Builder::new()
            .name("announce".to_owned())
            .spawn(move || voice.repeat(generation, &arp, ip));
        if let Err(error) = spawned {
            tracing::warn!(%error, %ip, "the address was announced only once");
        }
    }

    /// Ends all announcements.
    pub(super) fn silence(&self) {
        *lock(&self.voice.generation) += 1;
        self.voice.changed.notify_all();
    }
}

impl Voice {
    fn repeat(&self, generation: u64, arp: &Arp, ip: Ipv4Addr) {
        let begin = Instant::now();
        for at in REPEATS {
            let mut now = lock(&self.generation);
            loop {
                let left = at.saturating_sub(begin.elapsed());
                if *now != generation {
                    return;
                }
                if left.is_zero() {
                    break;
                }
                let waited = self.changed.wait_timeout(now, left);
                now = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
            }
            drop(now);
            self.say(generation, arp, ip);
        }
    }

    fn say(&self, generation: u64, arp: &Arp, ip: Ipv4Addr) {
        let now = lock(&self.generation);
        if *now == generation
            && let Err(error) = arp.announce(ip)
        {
            match Errno::from_io_error(&error.source) {
                // How the kernel tells that the address gate is shut: there is nothing to announce.
                Some(Errno::PERM | Errno::NOBUFS) => {
                    tracing::debug!(%ip, "the announcement stopped at the gate")
                }
                Some(_) | None => {
                    tracing::warn!(%error, cause = %error.source, %ip, "the address could not be announced");
                }
            }
        }
        drop(now);
    }
}
