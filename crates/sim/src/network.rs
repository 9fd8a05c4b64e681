//! The networks: lossy datagrams on every heartbeat link, and which ways are cut.

use crate::rng::Rng;
use std::collections::BTreeMap;
use wire::control::LinkId;
use wire::{Duration, NodeId};

/// One direction of one heartbeat link.
pub(crate) type Way = (NodeId, NodeId, LinkId);

/// What the networks are like.
#[derive(Debug)]
pub(crate) struct Network {
    /// How many faults cut this way at the moment.
    cuts: BTreeMap<Way, u32>,
    /// How many faults cut the mirror network between two nodes, lower id first.
    mirror_cuts: BTreeMap<(NodeId, NodeId), u32>,
    /// How many faults make the mirror network slow.
    pub(crate) mirror_slow: u32,
    /// No connection is made for this mirror.
    pub(crate) mirror_down: Option<u8>,
    /// Lost datagrams, per mille.
    pub(crate) loss: u64,
    /// Doubled datagrams, per mille.
    pub(crate) doubling: u64,
    /// Late datagrams, per mille: they overtake each other.
    pub(crate) late: u64,
    /// The longest delay of a late one.
    pub(crate) late_max: Duration,
}

impl Network {
    /// A good network.
    pub(crate) const fn good() -> Self {
        Self {
            cuts: BTreeMap::new(),
            mirror_cuts: BTreeMap::new(),
            mirror_slow: 0,
            mirror_down: None,
            loss: 0,
            doubling: 0,
            late: 0,
            late_max: Duration::from_millis(1),
        }
    }

    /// After how long each copy of a datagram arrives; none if it is lost.
    pub(crate) fn deliveries(&self, way: Way, rng: &mut Rng) -> Vec<Duration> {
        if self.is_cut(way) || rng.chance(self.loss) {
            return Vec::new();
        }
        let mut copies = vec![self.delay(rng)];
        if rng.chance(self.doubling) {
            copies.push(self.delay(rng));
        }
        copies
    }

    fn delay(&self, rng: &mut Rng) -> Duration {
        let usual = rng.micros(60, 250);
        if !rng.chance(self.late) {
            return usual;
        }
        let most = u64::try_from(self.late_max.as_micros()).unwrap_or(u64::MAX);
        usual + rng.micros(0, most)
    }

    /// True if nothing passes this way.
    pub(crate) fn is_cut(&self, way: Way) -> bool {
        self.cuts.get(&way).is_some_and(|n| *n > 0)
    }

    /// True if nothing passes between the two on the mirror network.
    pub(crate) fn is_mirror_cut(&self, a: NodeId, b: NodeId) -> bool {
        self.mirror_cuts.get(&pair(a, b)).is_some_and(|n| *n > 0)
    }

    /// One more fault cuts this way.
    pub(crate) fn cut(&mut self, way: Way) {
        *self.cuts.entry(way).or_default() += 1;
    }

    /// One fault less cuts this way.
    pub(crate) fn mend(&mut self, way: Way) {
        if let Some(count) = self.cuts.get_mut(&way) {
            *count = count.saturating_sub(1);
        }
    }

    /// One more fault cuts the mirror network between the two.
    pub(crate) fn cut_mirror(&mut self, a: NodeId, b: NodeId) {
        *self.mirror_cuts.entry(pair(a, b)).or_default() += 1;
    }

    /// One fault less does.
    pub(crate) fn mend_mirror(&mut self, a: NodeId, b: NodeId) {
        if let Some(count) = self.mirror_cuts.get_mut(&pair(a, b)) {
            *count = count.saturating_sub(1);
        }
    }
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}
