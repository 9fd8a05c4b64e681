//! Which freezes and acts of a group are under way: never both.

use crate::api::body::Thawed;
use crate::run::resources::shared::lock;
use std::sync::{Condvar, Mutex, PoisonError, mpsc};
use std::time::Duration;

/// The freeze of a group; there is one at a time, and none while something of the group starts or stops.
#[derive(Debug, Default)]
pub(in crate::run::resources) struct Freezer {
    state: Mutex<State>,
    over: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Where the one under way is told to end.
    under_way: Option<mpsc::Sender<Thawed>>,
    /// An earlier daemon's may be under way.
    leftover: bool,
    /// Acts of the group that are under way.
    acts: u32,
    /// Freezes that have begun.
    begun: u64,
}

/// An act of the group; no freeze begins before it is dropped.
#[derive(Debug)]
pub(in crate::run::resources) struct Act<'a>(&'a Freezer);

impl Drop for Act<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).acts -= 1;
    }
}

impl Freezer {
    /// True while a file system of the group may stand still.
    pub(in crate::run::resources) fn is_on(&self) -> bool {
        lock(&self.state).under_way.is_some()
    }

    /// None while something may stand still. The same number twice: nothing stood still in between.
    pub(in crate::run::resources) fn calm(&self) -> Option<u64> {
        let state = lock(&self.state);
        (state.under_way.is_none() && !state.leftover).then_some(state.begun)
    }

    /// Begins an act: ends a freeze, and waits until what stood still runs again.
    pub(in crate::run::resources) fn act(&self, limit: Duration) -> Act<'_> {
        let mut state = lock(&self.state);
        state.acts += 1;
        let Some(orders) = state.under_way.as_ref() else {
            return Act(self);
        };
        // A thread that is thawing already has stopped to listen.
        orders.send(Thawed::Stopped).ok();
        let waited = self
            .over
            .wait_timeout_while(state, limit, |state| state.under_way.is_some());
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(state);
        if timeout.timed_out() {
            tracing::error!("a file system does not thaw; what hangs on it cannot end");
        }
        Act(self)
    }

    pub(super) fn begin(&self, orders: mpsc::Sender<Thawed>) -> Result<(), &'static str> {
        let mut state = lock(&self.state);
        if state.under_way.is_some() || state.leftover {
            return Err("another snapshot is being taken of this group");
        }
        if state.acts > 0 {
            return Err("something of the group is being started or stopped");
        }
        state.under_way = Some(orders);
        state.begun += 1;
        Ok(())
    }

    pub(super) fn done(&self) {
        lock(&self.state).under_way = None;
        self.over.notify_all();
    }

    pub(super) fn set_leftover(&self, leftover: bool) {
        let mut state = lock(&self.state);
        state.leftover = leftover;
        state.begun += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    const LIMIT: Duration = Duration::from_secs(5);
    const PAUSE: Duration = Duration::from_millis(2);

    #[test]
    fn an_act_ends_the_freeze_and_waits_until_it_is_over() {
        let freezer = Arc::new(Freezer::default());
        drop(freezer.act(LIMIT));
        let (orders, told) = mpsc::channel();
        assert!(freezer.begin(orders.clone()).is_ok());
        assert!(freezer.begin(orders).is_err(), "there is one at a time");
        let thread = {
            let freezer = Arc::clone(&freezer);
            thread::spawn(move || {
                let why = told.recv().expect("an order");
                thread::sleep(PAUSE);
                freezer.done();
                why
            })
        };
        drop(freezer.act(LIMIT));
        assert!(!freezer.is_on());
        assert_eq!(thread.join().expect("it ends"), Thawed::Stopped);
    }

    #[test]
    fn an_act_does_not_wait_for_ever() {
        let freezer = Freezer::default();
        let (orders, _told) = mpsc::channel();
        assert!(freezer.begin(orders).is_ok());
        drop(freezer.act(PAUSE));
        assert!(freezer.is_on(), "who waits for it looks again");
    }

    #[test]
    fn nothing_is_frozen_in_the_middle_of_an_act() {
        let freezer = Freezer::default();
        let (orders, _told) = mpsc::channel();
        let acts = [freezer.act(PAUSE), freezer.act(PAUSE)];
        for act in acts {
            assert!(freezer.begin(orders.clone()).is_err());
            drop(act);
        }
        assert!(freezer.begin(orders).is_ok());
    }

    /// A monitor that failed while it was on, from its beginning, in its middle, or both, says nothing.
    #[test]
    fn a_freeze_that_came_and_went_is_seen_afterwards() {
        let freezer = Freezer::default();
        let before = freezer.calm();
        assert!(before.is_some() && freezer.calm() == before);
        let (orders, _told) = mpsc::channel();
        assert!(freezer.begin(orders).is_ok());
        assert_eq!(freezer.calm(), None);
        freezer.done();
        assert!(freezer.calm().is_some() && freezer.calm() != before);
        freezer.set_leftover(true);
        assert_eq!(freezer.calm(), None);
    }
}
