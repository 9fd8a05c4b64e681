//! Profiles: how fast failures are detected.

use std::time::Duration;

use node::config::Timing;

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

/// Time limits that the shell needs. Those of the decisions are in [`node::config::Timing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
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
    ack_timeout: Duration::from_millis(600),
};
const FAST: Timings = Timings {
    ack_timeout: Duration::from_millis(200),
};
const CLOUD: Timings = Timings {
    ack_timeout: Duration::from_millis(2_500),
};

/// A node that is gone is suspected first, so that a hung disk is what remains; and a write waits shorter than a lease.
const fn is_sound(timings: Timings, node: Timing) -> bool {
    let limit = timings.ack_timeout.as_millis();
    node.suspect.as_millis() < limit && limit < node.lease.as_millis()
}
const _: () = assert!(
    is_sound(LAN, Timing::LAN) && is_sound(FAST, Timing::FAST) && is_sound(CLOUD, Timing::CLOUD)
);

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
