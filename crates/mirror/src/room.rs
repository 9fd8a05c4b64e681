//! Room in the intent log: which regions leave it, and when.

use crate::intent::Period;
use crate::machine::Machine;
use crate::role::Role;
use std::ops::Range;
use wire::mutant::{self, Bug, Mutant};

impl Machine {
    /// Makes room in the intent log for `wanted`, now or by what it sets in motion.
    pub(crate) fn make_room(&mut self, wanted: &Range<u32>) {
        let standby = matches!(self.role, Role::Standby(_));
        // A standby's log may overflow into its bitmap: the active decides what is clean.
        let clean = if standby || mutant::on(Mutant::IntentDroppedEarly) {
            Period(u64::MAX)
        } else {
            self.clean
        };
        if standby || self.relieved != Some(self.clean) {
            let mut gone = Vec::new();
            let mut all = true;
            for region in self.intent.idle(clean) {
                if self.intent.has_room(wanted) {
                    all = false;
                    break;
                }
                if wanted.contains(&region) {
                    all = false;
                    continue;
                }
                if standby {
                    // Nobody told it who has this.
                    let all = self.paired();
                    self.mark_region_against(all, region);
                }
                if self.evict(region) {
                    gone.push(region);
                } else {
                    all = false;
                }
            }
            self.relieved = (all && clean == self.clean).then_some(clean);
            self.announce_cold(&gone);
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
        let clean = if mutant::on(Mutant::IntentDroppedEarly) {
            Period(u64::MAX)
        } else {
            self.clean
        };
        if self.relieved != Some(self.clean) {
            let mut gone = Vec::new();
            let mut all = true;
            for region in self.intent.idle(clean) {
                if self.intent.is_roomy() {
                    all = false;
                    break;
                }
                if self.evict(region) {
                    gone.push(region);
                } else {
                    all = false;
                }
            }
            self.relieved = (all && clean == self.clean).then_some(clean);
            self.announce_cold(&gone);
        }
        if self.intent.is_crowded() && self.intent.wants_flush(self.clean) {
            self.begin_internal_flush();
        }
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
