//! Room in the intent log: which regions leave it, and when.

use crate::intent::Period;
use crate::machine::Machine;
use crate::role::Role;
use std::ops::Range;
use wire::mutant::{self, Bug, Mutant};

/// What becomes of an idle region.
enum Place {
    /// There is room: it and all behind it stay.
    Enough,
    /// It stays.
    Keep,
    /// It leaves, if its marks are durable.
    Leave,
}

impl Machine {
    /// Makes room in the intent log for `wanted`, now or by what it sets in motion.
    pub(crate) fn make_room(&mut self, wanted: &Range<u32>) {
        let standby = matches!(self.role, Role::Standby(_));
        // A standby's log may overflow into its bitmap: the active decides what is clean.
        let clean = if standby {
            Period(u64::MAX)
        } else {
            self.clean_by_now()
        };
        if standby || self.relieved != Some(self.clean) {
            self.evict_idle(clean, |machine, region| {
                if machine.intent.has_room(wanted) {
                    Place::Enough
                } else if wanted.contains(&region) {
                    Place::Keep
                } else {
                    if standby {
                        // Nobody told it who has this.
                        let all = machine.paired();
                        machine.mark_region_against(all, region);
                    }
                    Place::Leave
                }
            });
        }
        if !standby && !self.intent.has_room(wanted) && self.intent.wants_flush(self.clean) {
            self.begin_internal_flush();
        }
    }

    /// Keeps some room ahead of need, so that few writes have to wait for a flush.
    pub(crate) fn relieve(&mut self) {
        if self.active().is_none() || !self.intent.is_crowded() {
            return;
        }
        if self.relieved != Some(self.clean) {
            let clean = self.clean_by_now();
            self.evict_idle(clean, |machine, _| {
                if machine.intent.is_roomy() {
                    Place::Enough
                } else {
                    Place::Leave
                }
            });
        }
        if self.intent.is_crowded() && self.intent.wants_flush(self.clean) {
            self.begin_internal_flush();
        }
    }

    /// Up to which period a region counts as flushed everywhere.
    fn clean_by_now(&self) -> Period {
        if mutant::on(Mutant::IntentDroppedEarly) {
            Period(u64::MAX)
        } else {
            self.clean
        }
    }

    /// Takes regions that are idle by `clean` out of the log, the least used first, as `judge` says. Notes if no further one can
    /// leave before another flush.
    fn evict_idle(&mut self, clean: Period, judge: impl Fn(&mut Self, u32) -> Place) {
        let mut gone = Vec::new();
        let mut all = true;
        for region in self.intent.idle(clean) {
            match judge(self, region) {
                Place::Enough => {
                    all = false;
                    break;
                }
                Place::Keep => all = false,
                Place::Leave if self.evict(region) => gone.push(region),
                Place::Leave => all = false,
            }
        }
        self.relieved = (all && clean == self.clean).then_some(clean);
        self.announce_cold(&gone);
    }

    /// Takes an idle region out of the log if its marks are durable; else has them written.
    pub(crate) fn evict(&mut self, region: u32) -> bool {
        if self.covers(region) || mutant::has(Bug::MarksEvicted) {
            return self.intent.evict(region);
        }
        let all = self.paired();
        self.want_region(all, region);
        false
    }
}
