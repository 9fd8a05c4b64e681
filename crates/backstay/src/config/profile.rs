//! Profiles: how fast failures are detected, and all time limits that follow from it.

use std::time::Duration;

/// How fast failures are detected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// One site: service is back within two seconds.
    #[default]
    Lan,
    /// One site with steady latency: service is back within one second.
    Fast,
    /// Between zones, addresses moved by a cloud's API.
    Cloud,
}

/// Time limits of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Between two heartbeats on a link.
    pub heartbeat: Duration,
    /// Silence on every link after which a node is suspected.
    pub suspect: Duration,
    /// Term of a lease, from the sending of its request (R8).
    pub lease: Duration,
    /// Added to a lease before a grantor supports a takeover (R8): clocks may run 1 % apart each way.
    pub margin: Duration,
    /// A replica that acknowledges nothing for so long is taken out of the set (R18).
    pub ack_timeout: Duration,
}

impl Profile {
    /// The profile's name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Fast => "fast",
            Self::Cloud => "cloud",
        }
    }

    /// The profile with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Lan, Self::Fast, Self::Cloud]
            .into_iter()
            .find(|profile| profile.name() == name)
    }

    /// The time limits.
    pub const fn timings(self) -> Timings {
        match self {
            Self::Lan => LAN,
            Self::Fast => FAST,
            Self::Cloud => CLOUD,
        }
    }
}

const LAN: Timings = Timings {
    heartbeat: Duration::from_millis(100),
    suspect: Duration::from_millis(500),
    lease: Duration::from_millis(1_000),
    margin: Duration::from_millis(50),
    ack_timeout: Duration::from_millis(600),
};

const FAST: Timings = Timings {
    heartbeat: Duration::from_millis(20),
    suspect: Duration::from_millis(100),
    lease: Duration::from_millis(250),
    margin: Duration::from_millis(20),
    ack_timeout: Duration::from_millis(200),
};

const CLOUD: Timings = Timings {
    heartbeat: Duration::from_millis(200),
    suspect: Duration::from_millis(2_000),
    lease: Duration::from_millis(4_000),
    margin: Duration::from_millis(200),
    ack_timeout: Duration::from_millis(2_500),
};

/// A lease outlives suspicion, several heartbeats fit into it, and the margin covers two clocks 1 % apart.
const fn is_sound(timings: Timings) -> bool {
    let Timings {
        heartbeat,
        suspect,
        lease,
        margin,
        ack_timeout,
    } = timings;
    heartbeat.as_millis() * 3 <= suspect.as_millis()
        && suspect.as_millis() * 2 <= lease.as_millis()
        && lease.as_millis() <= margin.as_millis() * 50
        && suspect.as_millis() <= ack_timeout.as_millis()
        && ack_timeout.as_millis() < lease.as_millis()
}
const _: () = assert!(is_sound(LAN) && is_sound(FAST) && is_sound(CLOUD));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_by_name() {
        for profile in [Profile::Lan, Profile::Fast, Profile::Cloud] {
            assert_eq!(Profile::from_name(profile.name()), Some(profile));
        }
        assert_eq!(Profile::from_name("wan"), None);
    }
}
