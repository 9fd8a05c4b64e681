//! G7: when everything is healed, the group serves again, whole, within a bound.

use wire::record::Intent;
use wire::{Duration, Record};

/// The bound after faults of any kind and number: a machine's boot, a full resync, a few restarts of the application.
pub(crate) const BOUND: Duration = Duration::from_secs(90);
/// The bound after a single fault, from the moment at which the fault's own duration is over.
pub(crate) const SINGLE_BOUND: Duration = Duration::from_secs(20);

/// What is missing, in words; none if the group is whole by its record.
pub(crate) fn missing(record: Option<&Record>) -> Option<String> {
    let Some(record) = record else {
        return Some("no record was ever decided".to_owned());
    };
    if matches!(record.intent, Intent::Hold(_)) {
        return Some(format!(
            "the group is not to be served: {:?}",
            record.intent
        ));
    }
    let whole = record.promotable();
    if whole.len() < record.members.len() {
        return Some(format!("only {whole:?} may be promoted"));
    }
    None
}
