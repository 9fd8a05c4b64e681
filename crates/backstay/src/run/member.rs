//! The member file: what this node promised and proposed, durable before anything relies on it.

use crate::failure::Failure;
use crate::run::daemon::{Event, Events};
use host::slots::{OpenError, Slots};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use wire::NodeId;
use wire::durable::Durable;

/// Name of the file in the state directory.
pub(super) const FILE: &str = "member.state";

/// Reads the member file, or makes one for a node that never ran.
///
/// # Errors
/// When the file is damaged, of another node, or of a newer release: this node must not vote then.
pub(super) fn open(dir: &Path, me: NodeId) -> Result<(Slots, Durable), Failure> {
    let path = dir.join(FILE);
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(format!("cannot use the member file {}", path.display()))
            .from_error(error)
            .hint("a node whose member file is lost or damaged must rejoin under a new id; never copy another node's file")
    };
    match Slots::open(&path) {
        Ok(opened) => {
            let durable = Durable::decode(&opened.payload).map_err(|why| {
                Failure::new(format!("cannot use the member file {}", path.display())).cause(why)
            })?;
            if durable.node != me {
                return Err(
                    Failure::new(format!("{} belongs to another node", path.display()))
                        .cause("its node number is not this node's")
                        .hint("put the right state directory in place"),
                );
            }
            Ok((opened.slots, durable))
        }
        Err(OpenError::Missing { .. }) => {
            let durable = Durable::new(me);
            let slots = Slots::create(&path, &durable.encode()).map_err(|e| failed(&e))?;
            Ok((slots, durable))
        }
        Err(error) => Err(failed(&error)),
    }
}

/// Writes the file in a thread of its own. Several states that wait are written as one: the newest.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<(u64, Durable)>,
}

impl Writer {
    pub(super) fn start(mut slots: Slots, events: Events) -> Result<Self, Failure> {
        let (queue, waiting) = mpsc::channel::<(u64, Durable)>();
        let work = move || {
            while let Ok(first) = waiting.recv() {
                let (ticket, durable) = waiting.try_iter().last().unwrap_or(first);
                let event = match slots.save(&durable.encode()) {
                    Ok(()) => Event::Persisted { ticket },
                    Err(error) => Event::MemberFileFailed {
                        why: error.to_string(),
                    },
                };
                let last = matches!(event, Event::MemberFileFailed { .. });
                if events.send(event).is_err() || last {
                    return;
                }
            }
        };
        let thread = thread::Builder::new()
            .name("member-file".into())
            .spawn(work);
        thread.map_err(|e| Failure::new("cannot start the member file's thread").cause(e))?;
        Ok(Self { queue })
    }

    /// Asks for a write; the answer is [`Event::Persisted`].
    pub(super) fn save(&self, ticket: u64, durable: Durable) {
        // A closed queue means that a write failed: that event ends the process.
        self.queue.send((ticket, durable)).ok();
    }
}
