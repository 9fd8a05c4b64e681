//! The alert outbox: what a person should be told, kept on disk until somebody has sent it.
//!
//! The event log's writer thread puts in warnings, critical events, and the ends of problems. This release has no sender:
//! alerts wait here, the oldest are dropped beyond [`ALERTS_MAX`], and `[alert]` in the configuration is refused. A
//! sender takes [`Outbox::pending`], delivers, and calls [`Outbox::sent`]; an alert may be sent twice after a crash.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wire::event::{Severity, What};

use crate::eventlog::entry::Logged;
use crate::output::Lang;
use crate::render::event::EventView;
use crate::render::problem::ProblemView;
use crate::render::words::Words;

/// Most alerts that wait; beyond it the oldest is dropped. About 1 KiB each.
pub const ALERTS_MAX: usize = 256;

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// A problem began; it lasts until one with the same key is resolved.
    Firing,
    /// A problem ended.
    Resolved,
    /// Something happened, once.
    Once,
}

/// One alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// `backstay.alert/1`.
    pub schema: String,
    /// What it is about.
    pub state: AlertState,
    /// The same for the begin and the end of a problem, on every node: channels show one message for it.
    pub key: String,
    /// The cluster.
    pub cluster: String,
    /// The event.
    pub event: EventView,
}

impl Alert {
    /// The alert of an event; none when nobody needs to be told.
    pub fn of(logged: &Logged) -> Option<Self> {
        let words = Words {
            lang: Lang::En,
            names: &logged.names,
        };
        let problem_key = |problem| {
            let view = ProblemView::new(&words, problem);
            [Some(view.code), view.group, view.node]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("/")
        };
        let event = EventView::new(Lang::En, logged);
        let what = &logged.entry.event.what;
        let (state, key) = if let What::ProblemBegan(problem) = what {
            (AlertState::Firing, problem_key(problem))
        } else if let What::ProblemEnded(problem) = what {
            (AlertState::Resolved, problem_key(problem))
        } else if event.severity >= Severity::Warning {
            (AlertState::Once, event.id.clone())
        } else {
            return None;
        };
        let cluster = logged.names.cluster.clone();
        Some(Self {
            schema: "backstay.alert/1".into(),
            state,
            key,
            cluster,
            event,
        })
    }
}

/// The spool directory: one file per alert, named by its event's number.
#[derive(Debug)]
pub struct Outbox {
    directory: PathBuf,
}

impl Outbox {
    /// Opens or makes the outbox.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self {
            directory: directory.to_path_buf(),
        })
    }

    /// Keeps an alert. It blocks on the disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, alert: &Alert) -> io::Result<()> {
        let waiting = self.numbers()?;
        let surplus = (waiting.len() + 1).saturating_sub(ALERTS_MAX);
        for number in waiting.into_iter().take(surplus) {
            self.sent(number)?;
        }
        let path = self.path(alert.event.seq);
        let unfinished = path.with_extension("tmp");
        let mut file = File::create(&unfinished)?;
        file.write_all(&serde_json::to_vec(alert)?)?;
        file.sync_data()?;
        fs::rename(&unfinished, &path)
    }

    /// Alerts that wait, oldest first. Unreadable ones are left out and dropped with time.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn pending(&self) -> io::Result<Vec<Alert>> {
        let read = |number| {
            let bytes = fs::read(self.path(number)).ok()?;
            serde_json::from_slice(&bytes).ok()
        };
        Ok(self.numbers()?.into_iter().filter_map(read).collect())
    }

    /// Forgets an alert, by its event's number: it was delivered. One that is gone already is fine.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn sent(&self, seq: u64) -> io::Result<()> {
        match fs::remove_file(self.path(seq)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn path(&self, seq: u64) -> PathBuf {
        // Twenty digits hold every number, so that names sort as numbers do.
        self.directory.join(format!("{seq:020}.json"))
    }

    /// Numbers of the alerts that wait, in order.
    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".json"));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wire::event::Event;
    use wire::problem::Problem;
    use wire::{GroupId, Time};

    use super::*;
    use crate::eventlog::entry::Entry;
    use crate::render::tests::names;

    fn logged(seq: u64, what: What) -> Logged {
        let event = Event {
            at: Time::ZERO,
            group: Some(GroupId(0)),
            incident: 0,
            what,
        };
        Logged {
            entry: Entry::new(seq, event),
            names: Arc::new(names()),
        }
    }

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("backstay-outbox-{name}-{}", std::process::id()))
    }

    #[test]
    fn begin_and_end_of_a_problem_share_a_key() {
        let problem = || Problem::Frozen { group: GroupId(0) };
        let began = Alert::of(&logged(1, What::ProblemBegan(problem()))).expect("an alert");
        let ended = Alert::of(&logged(9, What::ProblemEnded(problem()))).expect("an alert");
        assert_eq!(
            (began.state, ended.state),
            (AlertState::Firing, AlertState::Resolved)
        );
        assert_eq!(began.key, "BS-302/db");
        assert_eq!(began.key, ended.key);
        assert!(Alert::of(&logged(2, What::LeaseGained)).is_none());
        assert_eq!(
            Alert::of(&logged(3, What::LeaseLost)).map(|one| one.state),
            Some(AlertState::Once)
        );
    }

    #[test]
    fn alerts_wait_until_they_are_sent() {
        let directory = scratch("wait");
        let outbox = Outbox::open(&directory).expect("outbox");
        for seq in [10, 9, 11] {
            outbox
                .put(&Alert::of(&logged(seq, What::LeaseLost)).expect("an alert"))
                .expect("put");
        }
        let numbers = |outbox: &Outbox| {
            let pending = outbox.pending().expect("pending");
            pending
                .into_iter()
                .map(|alert| alert.event.seq)
                .collect::<Vec<_>>()
        };
        assert_eq!(numbers(&outbox), [9, 10, 11]);
        outbox.sent(10).expect("sent");
        outbox.sent(10).expect("sent twice");
        assert_eq!(numbers(&Outbox::open(&directory).expect("again")), [9, 11]);
        fs::remove_dir_all(directory).ok();
    }

    #[test]
    fn the_oldest_alerts_are_dropped_beyond_the_bound() {
        let directory = scratch("bound");
        let outbox = Outbox::open(&directory).expect("outbox");
        let count = u64::try_from(ALERTS_MAX).expect("a small number");
        for seq in 1..=count + 3 {
            outbox
                .put(&Alert::of(&logged(seq, What::LeaseLost)).expect("an alert"))
                .expect("put");
        }
        let pending = outbox.pending().expect("pending");
        assert_eq!(pending.len(), ALERTS_MAX);
        assert_eq!(pending.first().map(|alert| alert.event.seq), Some(4));
        fs::remove_dir_all(directory).ok();
    }
}
