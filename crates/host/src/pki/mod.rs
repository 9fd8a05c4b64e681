//! Identity: the cluster's certificate authority (CA), node certificates, and the TLS configurations made from them.
//!
//! A node's certificate carries the name `<node>.<cluster>.backstay`; the CA may sign names below `<cluster>.backstay`
//! only. TLS 1.3 only, both sides show a certificate, only this CA is trusted, nothing is resumed.
//!
//! Files of the state directory's `pki/`: `ca.crt`, `ca.key` (only where the cluster was made), `node.crt`, `node.key`.

mod authority;
mod files;
mod identity;

pub use authority::{Authority, CA_LIFETIME, NODE_LIFETIME, NodeFiles};
pub use identity::{Identity, PeerError, Purpose, Tls};

use std::io;
use std::path::PathBuf;

/// Why identity files could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A node's or cluster's name that cannot stand in a certificate.
    #[error("name {name:?} is not usable: 1 to 63 of a-z, 0-9 and '-', not '-' first or last")]
    Name {
        /// The name.
        name: String,
    },
    /// A file that may not be overwritten is there already.
    #[error("{path} exists already; it was left as it is")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others than the owner can read a private key.
    #[error(
        "{path} has mode {mode:04o}: a private key may be readable by its owner only (chmod 600)"
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not the PEM that was expected.
    #[error("{path} holds no usable {what}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Outside of the certificate's lifetime by this machine's clock.
    #[error(
        "{path} expired {days} days ago by this machine's clock; issue a new one with `backstay init --renew`"
    )]
    Expired {
        /// The certificate.
        path: PathBuf,
        /// Since when, in days, rounded down.
        days: u64,
    },
    /// The clock is before the certificate's lifetime.
    #[error("{path} is not valid yet by this machine's clock; check the clock")]
    NotYetValid {
        /// The certificate.
        path: PathBuf,
    },
    /// Signed by another CA than the one beside it.
    #[error("{path} was not signed by this cluster's CA")]
    WrongAuthority {
        /// The certificate.
        path: PathBuf,
    },
    /// Another node's or cluster's certificate.
    #[error("{path} is not the certificate of {expected}")]
    WrongName {
        /// The certificate.
        path: PathBuf,
        /// The name that was looked for.
        expected: String,
    },
    /// Certificate and key do not belong together.
    #[error("{path} is not the key of the certificate beside it")]
    WrongKey {
        /// The key file.
        path: PathBuf,
    },
    /// The certificate cannot be used for another reason.
    #[error("{path} cannot be used")]
    Unusable {
        /// The certificate.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A certificate or key could not be made.
    #[error("cannot make {what}")]
    Make {
        /// What.
        what: &'static str,
        /// Why.
        source: rcgen::Error,
    },
    /// The TLS library refused the configuration.
    #[error("cannot configure TLS")]
    Configure(#[source] rustls::Error),
}

/// The name that a node's certificate carries.
///
/// # Errors
/// [`PkiError::Name`] if one of the names is not a DNS label in lower case.
pub fn host_name(node: &str, cluster: &str) -> Result<String, PkiError> {
    Ok(format!("{}.{}", label(node)?, domain(cluster)?))
}

fn domain(cluster: &str) -> Result<String, PkiError> {
    Ok(format!("{}.backstay", label(cluster)?))
}

/// Checks one DNS label (RFC 1123 §2.1), lower case only: certificates compare without case, configurations do not.
fn label(name: &str) -> Result<&str, PkiError> {
    let fits = (1..=63).contains(&name.len());
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits && plain && !name.starts_with('-') && !name.ends_with('-') {
        return Ok(name);
    }
    Err(PkiError::Name {
        name: name.to_owned(),
    })
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
