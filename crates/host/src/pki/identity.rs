//! This node's identity, and who is at the other end of a TLS connection.

use super::files::{self, CA_CERTIFICATE, NODE_CERTIFICATE, NODE_KEY};
use super::{PkiError, domain, host_name};
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, CommonState, RootCertStore, ServerConfig,
    ServerConnection,
};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What a TLS connection is for. Sent as the application protocol (RFC 7301), so that one cannot pass for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Agreeing on the keys of sealed datagrams.
    Session,
    /// The mirror's data.
    Mirror,
}

impl Purpose {
    const fn protocol(self) -> &'static [u8] {
        match self {
            Self::Session => b"backstay-session/1",
            Self::Mirror => b"backstay-mirror/1",
        }
    }
}

/// A node's certificate, key and CA, read and checked.
pub struct Identity {
    cluster: String,
    node: String,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    expires: SystemTime,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("cluster", &self.cluster)
            .field("node", &self.node)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads `ca.crt`, `node.crt` and `node.key` from `directory` and checks that they belong together, to `node` and to
    /// `cluster`, and are valid at `now`.
    ///
    /// # Errors
    /// [`PkiError`] names the file and what is wrong with it.
    pub fn load(
        directory: &Path,
        cluster: &str,
        node: &str,
        now: SystemTime,
    ) -> Result<Self, PkiError> {
        let name = host_name(node, cluster)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = read_roots(&directory.join(CA_CERTIFICATE))?;
        let certificate_path = directory.join(NODE_CERTIFICATE);
        let certificate = read_certificate(&certificate_path)?;
        let key_path = directory.join(NODE_KEY);
        let key = PrivateKeyDer::from_pem_slice(files::read_private(&key_path)?.as_bytes())
            .map_err(|_| PkiError::Unreadable {
                path: key_path.clone(),
                what: "private key",
            })?;
        let expires = check_certificate(&certificate_path, &certificate, &name, &roots, now)?;
        let whole = rustls::sign::CertifiedKey::from_der(
            vec![certificate.clone()],
            key.clone_key(),
            &provider,
        );
        whole.map_err(|_| PkiError::WrongKey { path: key_path })?;
        Ok(Self {
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            certificate,
            key,
            roots,
            provider,
            expires,
        })
    }

    /// This node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// When the certificate ends, by the wall clock.
    #[must_use]
    pub const fn expires(&self) -> SystemTime {
        self.expires
    }

    /// Makes the TLS configurations for one purpose; only the nodes named in `peers` are accepted.
    ///
    /// # Errors
    /// [`PkiError::Configure`], or [`PkiError::Name`] for a peer's name that cannot stand in a certificate.
    pub fn tls(
        &self,
        purpose: Purpose,
        peers: impl IntoIterator<Item = String>,
    ) -> Result<Tls, PkiError> {
        let peers: BTreeSet<String> = peers.into_iter().collect();
        for peer in &peers {
            host_name(peer, &self.cluster)?;
        }
        let protocols = vec![purpose.protocol().to_vec()];
        let mut server = self.server_config()?;
        server.alpn_protocols.clone_from(&protocols);
        let mut client = self.client_config()?;
        client.alpn_protocols = protocols;
        Ok(Tls {
            suffix: format!(".{}", domain(&self.cluster)?),
            purpose,
            peers,
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }

    fn server_config(&self) -> Result<ServerConfig, PkiError> {
        let roots = Arc::clone(&self.roots);
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&self.provider))
                .build()
                .map_err(|e| PkiError::Configure(rustls::Error::General(e.to_string())))?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(PkiError::Configure)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .map_err(PkiError::Configure)?;
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    fn client_config(&self) -> Result<ClientConfig, PkiError> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(PkiError::Configure)?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_client_auth_cert(vec![self.certificate.clone()], self.key.clone_key())
            .map_err(PkiError::Configure)?;
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// TLS for one purpose: makes connections and tells who is at the other end. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    /// `.<cluster>.backstay`.
    suffix: String,
    purpose: Purpose,
    peers: BTreeSet<String>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("purpose", &self.purpose)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

/// The other end is not one of the cluster's nodes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The handshake is not done, or the peer showed no certificate.
    #[error("the peer has not shown a certificate")]
    Unknown,
    /// A certificate of this CA, but without a node's name.
    #[error("the peer's certificate names no node of this cluster")]
    Nameless,
    /// A node that the configuration does not list.
    #[error("node {name} is not a configured peer")]
    NotConfigured {
        /// Its name.
        name: String,
    },
    /// Spoke another application protocol.
    #[error("the peer wants another service on this port")]
    Purpose,
}

impl Tls {
    /// The server's end of a new connection.
    ///
    /// # Errors
    /// What the TLS library says.
    pub fn accept(&self) -> Result<ServerConnection, rustls::Error> {
        ServerConnection::new(Arc::clone(&self.server))
    }

    /// The client's end of a new connection to `peer`.
    ///
    /// # Errors
    /// What the TLS library says, also for a name that is none.
    pub fn connect(&self, peer: &str) -> Result<ClientConnection, rustls::Error> {
        let name = ServerName::try_from(format!("{peer}{}", self.suffix))
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        ClientConnection::new(Arc::clone(&self.client), name)
    }

    /// Who is at the other end: the node's name, from its verified certificate.
    ///
    /// # Errors
    /// [`PeerError`]: then the connection must be closed and nothing that it brought be used.
    pub fn peer_of(&self, connection: &CommonState) -> Result<String, PeerError> {
        if connection.is_handshaking() {
            return Err(PeerError::Unknown);
        }
        if connection.alpn_protocol() != Some(self.purpose.protocol()) {
            return Err(PeerError::Purpose);
        }
        let shown = connection.peer_certificates().and_then(<[_]>::first);
        let certificate = shown.ok_or(PeerError::Unknown)?;
        let name = node_name(certificate, &self.suffix).ok_or(PeerError::Nameless)?;
        if !self.peers.contains(&name) {
            return Err(PeerError::NotConfigured { name });
        }
        Ok(name)
    }
}

/// The one name below the cluster's domain; none if there are several.
fn node_name(certificate: &CertificateDer<'_>, suffix: &str) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let extension = parsed.subject_alternative_name().ok()??;
    let mut names = extension.value.general_names.iter().map(|name| {
        let GeneralName::DNSName(name) = name else {
            return None;
        };
        name.strip_suffix(suffix)
    });
    let name = names.next()??;
    names.next().is_none().then(|| name.to_owned())
}

fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(files::read(path)?.as_bytes()).map_err(|_| {
        PkiError::Unreadable {
            path: path.to_owned(),
            what: "certificate",
        }
    })
}

fn read_roots(path: &Path) -> Result<Arc<RootCertStore>, PkiError> {
    let mut roots = RootCertStore::empty();
    roots
        .add(read_certificate(path)?)
        .map_err(|_| PkiError::Unreadable {
            path: path.to_owned(),
            what: "CA certificate",
        })?;
    Ok(Arc::new(roots))
}

/// Checks the own certificate the way a peer will, in both roles; gives its end.
fn check_certificate(
    path: &Path,
    certificate: &CertificateDer<'_>,
    name: &str,
    roots: &Arc<RootCertStore>,
    now: SystemTime,
) -> Result<SystemTime, PkiError> {
    let unusable = |source| classify(path.to_owned(), name, source);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let since_epoch = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let at = UnixTime::since_unix_epoch(since_epoch);
    let build = |e: &dyn fmt::Display| PkiError::Configure(rustls::Error::General(e.to_string()));
    let as_client =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&provider))
            .build()
            .map_err(|e| build(&e))?;
    as_client
        .verify_client_cert(certificate, &[], at)
        .map_err(unusable)?;
    let as_server =
        rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), provider)
            .build()
            .map_err(|e| build(&e))?;
    let expected = ServerName::try_from(name).map_err(|e| build(&e))?;
    as_server
        .verify_server_cert(certificate, &[], &expected, &[], at)
        .map_err(unusable)?;
    let unreadable = || PkiError::Unreadable {
        path: path.to_owned(),
        what: "certificate",
    };
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| unreadable())?;
    let end = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(end))
}

fn classify(path: PathBuf, name: &str, error: rustls::Error) -> PkiError {
    let rustls::Error::InvalidCertificate(cause) = &error else {
        return PkiError::Unusable {
            path,
            source: error,
        };
    };
    #[expect(clippy::wildcard_enum_match_arm, reason = "the library's enum grows")]
    match cause {
        CertificateError::ExpiredContext { time, not_after } => {
            let days = time.as_secs().saturating_sub(not_after.as_secs()) / (24 * 3600);
            PkiError::Expired { path, days }
        }
        CertificateError::NotValidYetContext { .. } => PkiError::NotYetValid { path },
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            PkiError::WrongAuthority { path }
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            PkiError::WrongName {
                path,
                expected: name.to_owned(),
            }
        }
        _ => PkiError::Unusable {
            path,
            source: error,
        },
    }
}
