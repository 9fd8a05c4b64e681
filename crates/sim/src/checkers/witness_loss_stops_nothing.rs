//! G6: losing the witness alone neither moves nor freezes a healthy group, and the application hardly notices.

use wire::Duration;

/// Its name in reports.
pub(crate) const NAME: &str = "witness_loss_stops_nothing";

/// The longest pause between two answers that goes unnoticed: a few slow disk operations.
const PAUSE_MAX: Duration = Duration::from_millis(900);

/// Judged at the end of a time in which only the witness was lost.
pub(crate) fn check(moves: u64, freezes: u64, pause: Duration) -> Result<(), String> {
    if moves > 0 {
        return Err(format!("losing the witness moved the group {moves} times"));
    }
    if freezes > 0 {
        return Err("losing the witness froze the group".to_owned());
    }
    if pause > PAUSE_MAX {
        return Err(format!(
            "without the witness nothing was answered for {pause:?}"
        ));
    }
    Ok(())
}
