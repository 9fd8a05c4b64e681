//! Ctrl-C while a lab is up: whatever is waited for is given up, and the way out takes the lab down.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::failure::Failure;

/// 128 + SIGINT, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// A person wants to end this process. One flag per process, as there is one Ctrl-C.
static RAISED: AtomicBool = AtomicBool::new(false);

/// Starts to listen for SIGINT and SIGTERM: the first is polite, the second ends the process at once.
///
/// # Errors
/// When the system refuses.
pub fn listen() -> Result<(), Failure> {
    let failed = |error| Failure::new("cannot listen for Ctrl-C").cause(error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(failed)?;
    thread::spawn(move || {
        while runtime.block_on(interrupted()).is_ok() {
            if RAISED.swap(true, Ordering::Relaxed) {
                std::process::exit(EXIT_INTERRUPTED);
            }
        }
    });
    Ok(())
}

/// True once somebody wants to end this process.
pub fn is_raised() -> bool {
    RAISED.load(Ordering::Relaxed)
}

/// From here on waits are patient again, because cleaning up needs them. True if somebody wanted to end this process.
pub fn lower() -> bool {
    RAISED.swap(false, Ordering::Relaxed)
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
