//! Slow links.

use super::state::Lab;
use crate::failure::Failure;

/// placeholder
///
/// # Errors
/// Never.
#[expect(clippy::unnecessary_wraps, reason = "placeholder")]
pub(super) fn apply(_lab: &Lab) -> Result<(), Failure> {
    Ok(())
}
