//! What an asynchronous failover cut off, and the former active still has, is put aside before it is replaced. The history is
//! [`crate::history::History`]; it is asked when the former active begins to be made equal.

/// Its name in reports.
pub(crate) const NAME: &str = "async_put_aside";
