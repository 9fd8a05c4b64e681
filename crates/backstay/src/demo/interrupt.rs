//! Ctrl-C during a demo: the lab is taken down before the program ends.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::failure::Failure;
use crate::lab::lifecycle;

/// 128 + SIGINT, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// Knows which lab is up.
#[derive(Clone, Debug, Default)]
pub(super) struct Guard {
    dir: Arc<Mutex<Option<PathBuf>>>,
}

impl Guard {
    /// Starts to listen for SIGINT and SIGTERM.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn start() -> Result<Self, Failure> {
        let failed = |error| Failure::new("cannot listen for Ctrl-C").cause(error);
        let guard = Self::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(failed)?;
        let listener = guard.clone();
        thread::spawn(move || {
            if runtime.block_on(interrupted()).is_ok() {
                listener.take_down();
                std::process::exit(EXIT_INTERRUPTED);
            }
        });
        Ok(guard)
    }

    /// From now on, the lab in `dir` is taken down; none if there is none to be taken down.
    pub(super) fn watch(&self, dir: Option<&Path>) {
        let mut watched = self.dir.lock().unwrap_or_else(PoisonError::into_inner);
        *watched = dir.map(Path::to_owned);
    }

    fn take_down(&self) {
        let watched = self
            .dir
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(dir) = watched {
            // The run in the other thread goes on meanwhile and may start something again: the second time it is gone.
            lifecycle::stop(&dir).ok();
            lifecycle::down(&dir).ok();
        }
    }
}

async fn interrupted() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut int, mut term) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
    Ok(())
}
