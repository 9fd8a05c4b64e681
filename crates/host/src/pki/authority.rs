//! The cluster's certificate authority: made once, signs one certificate per node.

use super::files::{self, CA_CERTIFICATE, CA_KEY, NODE_CERTIFICATE, NODE_KEY, PRIVATE, PUBLIC};
use super::{PkiError, domain, host_name};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a CA is valid: ten years.
pub const CA_LIFETIME: Duration = Duration::from_secs(3_652 * 24 * 3600);
/// How long a node's certificate is valid by default: as long as the CA, because nothing renews it by itself yet, and an
/// expired certificate would stop a healthy pair from reconnecting.
pub const NODE_LIFETIME: Duration = CA_LIFETIME;
/// Certificates count from a day before they were made, so that a node whose clock is late accepts them.
const BACKDATED: Duration = DAY;

/// A certificate authority with its private key.
pub struct Authority {
    cluster: String,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// What one node gets: PEM texts. `Debug` shows no key.
pub struct NodeFiles {
    certificate: String,
    key: String,
    authority: String,
}

impl fmt::Debug for NodeFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeFiles").finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new CA with an ECDSA P-256 key.
    ///
    /// # Errors
    /// [`PkiError::Name`], or [`PkiError::Make`] if the system has no randomness.
    pub fn create(cluster: &str, now: SystemTime, lifetime: Duration) -> Result<Self, PkiError> {
        let make = |source| PkiError::Make {
            what: "the CA's certificate",
            source,
        };
        let domain = domain(cluster)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("CA of {domain}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(domain)],
            excluded_subtrees: Vec::new(),
        });
        set_lifetime(&mut params, now, lifetime);
        let key = KeyPair::generate().map_err(make)?;
        let certificate = params.self_signed(&key).map_err(make)?.pem();
        let issuer = Issuer::new(params, key);
        Ok(Self {
            cluster: cluster.to_owned(),
            certificate,
            issuer,
        })
    }

    /// Reads `ca.crt` and `ca.key` from `directory`.
    ///
    /// # Errors
    /// [`PkiError`] names the file.
    pub fn load(directory: &Path, cluster: &str) -> Result<Self, PkiError> {
        domain(cluster)?;
        let (certificate_path, key_path) = (directory.join(CA_CERTIFICATE), directory.join(CA_KEY));
        let certificate = files::read(&certificate_path)?;
        let key = KeyPair::from_pem(&files::read_private(&key_path)?).map_err(|_| {
            PkiError::Unreadable {
                path: key_path,
                what: "private key",
            }
        })?;
        let issuer =
            Issuer::from_ca_cert_pem(&certificate, key).map_err(|_| PkiError::Unreadable {
                path: certificate_path,
                what: "CA certificate",
            })?;
        Ok(Self {
            cluster: cluster.to_owned(),
            certificate,
            issuer,
        })
    }

    /// Writes `ca.crt` (0644) and `ca.key` (0600) into `directory`, which is made if need be.
    ///
    /// # Errors
    /// [`PkiError::Exists`]: a CA is never overwritten.
    pub fn save(&self, directory: &Path) -> Result<(), PkiError> {
        files::make_directory(directory)?;
        let key = self.issuer.key().serialize_pem();
        files::write_new(&directory.join(CA_KEY), PRIVATE, &key)?;
        files::write_new(&directory.join(CA_CERTIFICATE), PUBLIC, &self.certificate)
    }

    /// Makes a key and a certificate for `node`, valid for `lifetime` from `now`.
    ///
    /// # Errors
    /// [`PkiError::Name`], or [`PkiError::Make`].
    pub fn issue(
        &self,
        node: &str,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<NodeFiles, PkiError> {
        let make = |source| PkiError::Make {
            what: "the node's certificate",
            source,
        };
        let name = host_name(node, &self.cluster)?;
        let mut params = CertificateParams::new(vec![name.clone()]).map_err(make)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        set_lifetime(&mut params, now, lifetime);
        let key = KeyPair::generate().map_err(make)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(make)?.pem();
        Ok(NodeFiles {
            certificate,
            key: key.serialize_pem(),
            authority: self.certificate.clone(),
        })
    }
}

impl NodeFiles {
    /// Writes `ca.crt`, `node.crt` (0644) and `node.key` (0600) into `directory`, in place of older ones.
    ///
    /// # Errors
    /// [`PkiError::Io`] names the file.
    pub fn save(&self, directory: &Path) -> Result<(), PkiError> {
        files::make_directory(directory)?;
        files::replace(&directory.join(CA_CERTIFICATE), PUBLIC, &self.authority)?;
        files::replace(&directory.join(NODE_KEY), PRIVATE, &self.key)?;
        files::replace(&directory.join(NODE_CERTIFICATE), PUBLIC, &self.certificate)
    }
}

fn set_lifetime(params: &mut CertificateParams, now: SystemTime, lifetime: Duration) {
    params.not_before = now
        .checked_sub(BACKDATED)
        .unwrap_or(SystemTime::UNIX_EPOCH)
        .into();
    params.not_after = now.checked_add(lifetime).unwrap_or(now).into();
}
