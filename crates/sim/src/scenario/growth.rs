//! A volume grows while it is served, and somebody dies, or a link, at any moment of that.

use super::{Scenario, millis, secs};
use crate::fault::Fault;
use crate::options::Level;
use crate::setup::DATA_BYTES;
use crate::world::{A, B, World};
use std::collections::BTreeSet;
use wire::Duration;
use wire::control::GroupRequest;

pub(super) const ALL: &[Scenario] = &[
    Scenario::of("a_volume_grows_whatever_happens", grows),
    Scenario::of("a_volume_of_three_grows_whatever_happens", grows).with(|o| o.replicas = 3),
    Scenario::of("an_asynchronous_volume_grows_whatever_happens", grows)
        .with(|o| o.level = Level::Async),
];

impl World {
    fn ask_for_growth(&mut self) {
        let (mirror, data) = (0, None);
        if let Some(active) = self.active() {
            self.ask(active, GroupRequest::Grow { mirror, data });
        }
    }

    /// Sizes of the volume on the nodes whose replica is attached.
    fn sizes(&mut self) -> BTreeSet<u64> {
        let nodes = self.options.data_nodes();
        let size = |node| Some(self.engine(node, 0)?.replica.data_bytes());
        let sizes = nodes.into_iter().filter_map(size);
        sizes.filter(|size| *size > 0).collect()
    }

    fn is_whole(&mut self) -> bool {
        let replicas = self.options.data_nodes().len();
        self.missing_service().is_none() && self.in_sync() == replicas
    }
}

/// Once everybody is back, all have one size, the old or the new one; and the same request makes it the new one.
fn grows(w: &mut World) {
    w.pass(secs(2));
    w.expect(secs(10), "all are in sync", World::is_whole);
    w.ask_for_growth();
    let moment = w.rng.micros(100, 12_000);
    w.pass(moment);
    let victim = w.rng.pick(&[A, B]);
    let away = w.rng.millis(100, 3_000);
    let fault = match w.rng.below(5) {
        0 => Fault::Kill(victim, away),
        1 => Fault::MirrorCut(away),
        2 => Fault::Pause(victim, away),
        3 => Fault::PowerBoth(away),
        _ => Fault::Power(victim, away),
    };
    w.make(fault);
    w.pass(away + millis(500));
    w.expect(secs(30), "all are in sync again", World::is_whole);
    w.expect(secs(5), "all have one size", |w| w.sizes().len() == 1);
    w.pass(Duration::from_millis(200));
    w.ask_for_growth();
    w.expect(secs(5), "it has grown everywhere", |w| {
        let sizes = w.sizes();
        sizes.len() == 1 && sizes.iter().all(|size| *size > DATA_BYTES)
    });
}
