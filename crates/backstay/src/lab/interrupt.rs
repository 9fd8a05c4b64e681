//! Ctrl-C while a lab is up: whatever is waited for is given up, and the way out takes the lab down.

use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use crate::failure::Failure;

/// 128 + SIGINT, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// What becomes of a signal. One state per process, as there is one Ctrl-C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// Nobody asked.
    Calm,
    /// A person wants to end this process: waits are given up.
    Raised,
    /// A lab is being taken down: waits are patient.
    Cleaning,
    /// The same, and a person wants to end this process after it.
    CleaningRaised,
}

static STATE: AtomicU8 = AtomicU8::new(State::Calm as u8);

/// Starts to listen for SIGINT and SIGTERM: the first is polite, the second ends the process at once. While a lab is being taken
/// down one more is needed for either.
///
/// # Errors
/// When the system refuses.
pub fn listen() -> Result<(), Failure> {
    let failed = |error| Failure::new("cannot listen for Ctrl-C").cause(error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(failed)?;
    thread::spawn(move || while runtime.block_on(interrupted()).is_ok() && on_signal() {});
    Ok(())
}

/// False when the process is to end at once.
fn on_signal() -> bool {
    let next = match state() {
        State::Calm => State::Raised,
        State::Cleaning => State::CleaningRaised,
        State::Raised | State::CleaningRaised => std::process::exit(EXIT_INTERRUPTED),
    };
    enter(next);
    true
}

/// True once somebody wants to end this process, and nothing is being cleaned up.
pub fn is_raised() -> bool {
    state() == State::Raised
}

/// From here on waits are patient, because cleaning up needs them. True if somebody wanted to end this process.
pub fn begin_cleaning() -> bool {
    let raised = is_raised();
    enter(State::Cleaning);
    raised
}

/// The lab is down. True if somebody wanted to end this process meanwhile.
pub fn end_cleaning() -> bool {
    let raised = state() == State::CleaningRaised;
    enter(State::Calm);
    raised
}

fn state() -> State {
    let all = [
        State::Calm,
        State::Raised,
        State::Cleaning,
        State::CleaningRaised,
    ];
    let now = STATE.load(Ordering::Relaxed);
    all.into_iter()
        .find(|state| *state as u8 == now)
        .unwrap_or(State::Calm)
}

fn enter(state: State) {
    STATE.store(state as u8, Ordering::Relaxed);
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
