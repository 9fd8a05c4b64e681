//! How far an asynchronous follower is behind: what the application was told and the follower has not answered (R11, G3).
//!
//! Everything that is sent is entered in the order of the stream, and leaves with its answer. It counts in *bytes* from the
//! moment at which the application hears of it, and in *seconds* from its start. What is told while there is no session, or is
//! left to a copy, counts as `older` until the follower has everything again.

use crate::machine::{FlushId, JobId};
use std::collections::BTreeMap;
use wire::Time;

/// Something that the follower is to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sent {
    /// A write.
    Write(JobId),
    /// The flush behind a write that had to be durable.
    Barrier(JobId),
    /// A flush of the application, or of the machine.
    Flush(FlushId),
}

/// Invariant: `told` is the sum of the bytes of open entries that were told, and `places` names each open entry once.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    older: Option<Time>,
    older_bytes: u64,
    open: BTreeMap<u64, Open>,
    places: BTreeMap<Sent, u64>,
    next: u64,
    told: u64,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    bytes: u64,
    since: Time,
    told: bool,
}

impl Lag {
    /// Something went to the follower.
    pub(crate) fn sent(&mut self, what: Sent, bytes: u64, since: Time) {
        self.next += 1;
        let told = false;
        self.open.insert(self.next, Open { bytes, since, told });
        self.places.insert(what, self.next);
    }

    /// The application was told that a write is done which the follower has not answered.
    pub(crate) fn told(&mut self, job: JobId, bytes: u64, now: Time) {
        let place = self.places.get(&Sent::Write(job));
        match place.and_then(|place| self.open.get_mut(place)) {
            Some(open) if !open.told => {
                open.told = true;
                self.told += open.bytes;
            }
            Some(_) => {}
            None => {
                self.older.get_or_insert(now);
                self.older_bytes = self.older_bytes.saturating_add(bytes);
            }
        }
    }

    /// The follower answered.
    pub(crate) fn answered(&mut self, what: Sent) {
        let Some(open) = (self.places.remove(&what)).and_then(|place| self.open.remove(&place))
        else {
            return;
        };
        if open.told {
            self.told -= open.bytes;
        }
    }

    /// The session is over: what it had not answered is missing there.
    pub(crate) fn lost(&mut self) {
        self.older = self.since();
        self.older_bytes = self.bytes();
        self.open.clear();
        self.places.clear();
        self.told = 0;
    }

    /// The follower holds everything from before the session, and what was left to a copy.
    pub(crate) const fn caught_up(&mut self) {
        self.older = None;
        self.older_bytes = 0;
    }

    /// Bytes that the application was told of and the follower may lack.
    pub(crate) const fn bytes(&self) -> u64 {
        self.older_bytes.saturating_add(self.told)
    }

    /// When the oldest thing that it may lack began.
    pub(crate) fn since(&self) -> Option<Time> {
        let open = self.open.first_key_value().map(|(_, open)| open.since);
        self.older.into_iter().chain(open).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    #[test]
    fn only_what_was_told_and_not_answered_counts() {
        let mut lag = Lag::default();
        lag.sent(Sent::Write(JobId(1)), 100, at(1));
        lag.sent(Sent::Write(JobId(2)), 10, at(2));
        assert_eq!((lag.bytes(), lag.since()), (0, Some(at(1))));
        lag.told(JobId(2), 10, at(3));
        lag.told(JobId(1), 100, at(3));
        assert_eq!(lag.bytes(), 110);
        lag.answered(Sent::Write(JobId(1)));
        assert_eq!((lag.bytes(), lag.since()), (10, Some(at(2))));
        lag.answered(Sent::Write(JobId(2)));
        assert_eq!((lag.bytes(), lag.since()), (0, None));
    }

    #[test]
    fn what_a_lost_session_did_not_answer_counts_until_all_is_copied() {
        let mut lag = Lag::default();
        lag.sent(Sent::Write(JobId(1)), 100, at(1));
        lag.told(JobId(1), 100, at(2));
        lag.sent(Sent::Write(JobId(2)), 10, at(3));
        lag.lost();
        lag.told(JobId(2), 10, at(4));
        lag.answered(Sent::Write(JobId(1)));
        assert_eq!((lag.bytes(), lag.since()), (110, Some(at(1))));
        lag.sent(Sent::Flush(FlushId(1)), 0, at(9));
        lag.caught_up();
        assert_eq!((lag.bytes(), lag.since()), (0, Some(at(9))));
    }
}
