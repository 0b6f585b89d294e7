//! TLS from PEM files: an authority, a certificate and its private key, checked when they are read.
//!
//! One crypto provider, ring, is named everywhere; none is installed for the process. TLS 1.3 alone:
//! every gRPC client of today speaks it. Sessions are not resumed, so that each connection shows its
//! certificate anew.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::CertifiedKey,
    version::TLS13,
};

/// What HTTP/2 calls itself in the handshake.
const ALPN_H2: &[u8] = b"h2";

/// The three files of one side of a connection, whichever connection it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority that the other side's certificate must come from.
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: no {what} in PEM form: {reason}", path.display())]
    Malformed {
        path: PathBuf,
        what: &'static str,
        reason: String,
    },
    #[error("a certificate and its private key go together: give both tls_cert and tls_key, or neither")]
    Half,
    #[error("a coordinator that serves TLS needs its own certificate: give tls_cert and tls_key beside tls_ca")]
    NoIdentity,
    #[error("{} is not the private key of the certificate {}, or is of a kind that is not known: {reason}", key.display(), cert.display())]
    Mismatch {
        cert: PathBuf,
        key: PathBuf,
        reason: String,
    },
    #[error("{}: no authority for client certificates: {reason}", path.display())]
    Authority { path: PathBuf, reason: String },
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// What the files hold, in PEM form.
#[derive(Clone)]
pub struct TlsMaterial {
    pub ca: Option<Vec<u8>>,
    pub identity: Option<Identity>,
}

/// A certificate with its chain, and its private key.
#[derive(Clone)]
pub struct Identity {
    pub cert: Vec<u8>,
    pub key: Vec<u8>,
}

impl fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsMaterial")
            .field("ca", &self.ca.is_some())
            .field("identity", &self.identity.is_some())
            .finish()
    }
}

impl TlsFiles {
    pub fn is_empty(&self) -> bool {
        self.ca.is_none() && self.cert.is_none() && self.key.is_none()
    }

    /// Reads the files and checks that each holds what it should and that the key is the certificate's.
    pub fn load(&self) -> Result<TlsMaterial, TlsError> {
        let ca = match &self.ca {
            Some(path) => {
                let pem = read(path)?;
                certificates(path, &pem)?;
                Some(pem)
            }
            None => None,
        };
        let identity = match (&self.cert, &self.key) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some(identity(cert, key)?),
            _ => return Err(TlsError::Half),
        };
        Ok(TlsMaterial { ca, identity })
    }

    /// The serving side: its own certificate, and where an authority is given, one from each client.
    ///
    /// Errors: [`TlsError::NoIdentity`] where there is only an authority.
    pub fn server(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let material = self.load()?;
        let (Some(identity), Some(cert), Some(key)) = (&material.identity, &self.cert, &self.key) else {
            return Err(TlsError::NoIdentity);
        };
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13])?;
        let builder = match (&self.ca, &material.ca) {
            (Some(path), Some(pem)) => {
                let authority = |reason: String| TlsError::Authority {
                    path: path.clone(),
                    reason,
                };
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path, pem)? {
                    roots.add(certificate).map_err(|error| authority(error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| authority(error.to_string()))?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config =
            builder.with_single_cert(certificates(cert, &identity.cert)?, private_key(key, &identity.key)?)?;
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn identity(cert: &Path, key: &Path) -> Result<Identity, TlsError> {
    let identity = Identity {
        cert: read(cert)?,
        key: read(key)?,
    };
    let chain = certificates(cert, &identity.cert)?;
    let certified = CertifiedKey::from_der(chain, private_key(key, &identity.key)?, &provider());
    certified.map_err(|error| TlsError::Mismatch {
        cert: cert.to_path_buf(),
        key: key.to_path_buf(),
        reason: error.to_string(),
    })?;
    Ok(identity)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Unreadable {
        path: path.to_path_buf(),
        source,
    })
}

/// The certificates of a PEM file; at least one.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let malformed = |reason: String| TlsError::Malformed {
        path: path.to_path_buf(),
        what: "certificate",
        reason,
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| malformed(error.to_string()))?;
    if found.is_empty() {
        return Err(malformed("the file has none".to_string()));
    }
    Ok(found)
}

fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| TlsError::Malformed {
        path: path.to_path_buf(),
        what: "private key",
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed([name.to_string()]).expect("a certificate");
        let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        fs::write(&cert, made.cert.pem()).expect("written");
        fs::write(&key, made.signing_key.serialize_pem()).expect("written");
        (cert, key)
    }

    #[test]
    fn what_the_files_lack_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cert, key) = pair(folder.path(), "a");
        let (_, other_key) = pair(folder.path(), "b");
        let missing = folder.path().join("missing.pem");
        let files = |ca: Option<&PathBuf>, cert: Option<&PathBuf>, key: Option<&PathBuf>| TlsFiles {
            ca: ca.cloned(),
            cert: cert.cloned(),
            key: key.cloned(),
        };
        let good = files(Some(&cert), Some(&cert), Some(&key));
        assert!(good.load().is_ok() && good.server().is_ok());
        for (files, words) in [
            (files(None, Some(&cert), None), "give both"),
            (files(Some(&cert), None, None), "needs its own certificate"),
            (files(None, Some(&missing), Some(&key)), "missing.pem"),
            (files(None, Some(&cert), Some(&other_key)), "not the private key"),
            (files(None, Some(&key), Some(&key)), "no certificate"),
            (files(None, Some(&cert), Some(&cert)), "no private key"),
            (files(Some(&key), Some(&cert), Some(&key)), "no certificate"),
        ] {
            let error = files.server().expect_err("refused").to_string();
            assert!(error.contains(words), "{error}\nlacks {words}");
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cert, key) = pair(folder.path(), "a");
        let files = TlsFiles {
            ca: None,
            cert: Some(cert),
            key: Some(key),
        };
        let shown = format!("{:?}", files.load().expect("good files"));
        assert_eq!(shown, "TlsMaterial { ca: false, identity: true }");
    }
}
