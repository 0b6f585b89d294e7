//! Who may come in, and what they may do: TLS at the port, tokens with roles at each call, and the
//! record of both.
//!
//! | file | what it is |
//! |---|---|
//! | `door` | the port: handshakes, the first bytes, who is at the other end |
//! | `certificate` | the name in a client's certificate |
//! | `methods` | the one table of what each call needs |
//! | `tokens` | the tokens that are let in, as their file has them now |
//! | `check` | the layer before all services that puts the table in force |
//! | `audit` | the record |

mod audit;
mod certificate;
mod check;
mod door;
mod methods;
mod tokens;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use futures::Stream;
use gapless_platform::{
    clock::Clock,
    tls::{TlsError, TlsFiles},
    tokens::TokensError,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tracing::warn;

pub use audit::Subject;
pub use check::{CheckLayer, Pass};
use {audit::Audit, tokens::Tokens};

/// What a coordinator is told about who may come in. Nothing at all is right on loopback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// With a certificate it serves TLS; with an authority it asks clients for theirs.
    pub tls: TlsFiles,
    /// The file of tokens; without one no call needs a token.
    pub tokens: Option<PathBuf>,
    /// File to which the record is appended.
    pub audit_log: Option<PathBuf>,
    /// Whether the operator has said in words that it may serve a network that it cannot trust.
    pub insecure: bool,
}

/// Why a coordinator does not begin to serve.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Tokens(#[from] TokensError),
    #[error("audit log {}: {source}", path.display())]
    Audit { path: PathBuf, source: io::Error },
    #[error(
        "{listen} can be reached from other machines, and there is no TLS: anybody on the way could read and change \
         everything. Give tls_ca, tls_cert and tls_key (`gapless tls init DIR` makes them for trying out), listen on \
         127.0.0.1, or say --insecure"
    )]
    Plaintext { listen: SocketAddr },
    #[error(
        "{listen} can be reached from other machines, and anybody there could submit and cancel jobs: give tls_ca, so \
         that clients must show a certificate, or tokens, or say --insecure"
    )]
    Unguarded { listen: SocketAddr },
    #[error(
        "{listen} can be reached from other machines, and there is no TLS: clients do not send their tokens there in \
         plain text, so nobody could come in. Give tls_cert and tls_key, or no tokens"
    )]
    TokensInTheClear { listen: SocketAddr },
}

/// What is in force while a coordinator serves. Clones are the same guard.
#[derive(Clone)]
pub struct Guard {
    tls: Option<TlsAcceptor>,
    tokens: Option<Arc<Tokens>>,
    audit: Audit,
    clock: Clock,
}

impl Guard {
    /// Reads the files and checks that they suit the address that is to be served.
    pub fn new(security: &Security, listen: SocketAddr, clock: Clock) -> Result<Guard, SecurityError> {
        suits(security, listen)?;
        let tls = match security.tls.is_empty() {
            true => None,
            false => Some(TlsAcceptor::from(security.tls.server()?)),
        };
        let tokens = security.tokens.as_deref().map(Tokens::read).transpose()?;
        let audit = Audit::open(security.audit_log.as_deref(), clock.clone());
        let audit = audit.map_err(|source| SecurityError::Audit {
            path: security.audit_log.clone().unwrap_or_default(),
            source,
        })?;
        if security.insecure && !listen.ip().is_loopback() {
            warn!(%listen, tls = tls.is_some(), tokens = tokens.is_some(), "insecure, as asked: whoever reaches this address may do what is not guarded");
        }
        Ok(Guard {
            tls,
            tokens: tokens.map(Arc::new),
            audit,
            clock,
        })
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// The connections that come in through a port.
    pub fn admit(&self, listener: TcpListener) -> impl Stream<Item = io::Result<door::Connection>> + Send + use<> {
        door::admit(listener, self.tls.clone(), self.audit.clone())
    }

    /// Stands before all services.
    pub fn layer(&self) -> CheckLayer {
        CheckLayer { guard: self.clone() }
    }
}

fn suits(security: &Security, listen: SocketAddr) -> Result<(), SecurityError> {
    if listen.ip().is_loopback() {
        return Ok(());
    }
    let (tls, tokens) = (!security.tls.is_empty(), security.tokens.is_some());
    if !tls && !security.insecure {
        return Err(SecurityError::Plaintext { listen });
    }
    if !tls && tokens {
        return Err(SecurityError::TokensInTheClear { listen });
    }
    if tls && !tokens && security.tls.ca.is_none() && !security.insecure {
        return Err(SecurityError::Unguarded { listen });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_are_served_only_with_a_guard_or_when_told_in_words() {
        let loopback: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let everywhere: SocketAddr = "0.0.0.0:7070".parse().expect("an address");
        let file = || Some(PathBuf::from("f"));
        let security = |ca: bool, tls: bool, tokens: bool, insecure: bool| Security {
            tls: TlsFiles {
                ca: file().filter(|_| ca),
                cert: file().filter(|_| tls),
                key: file().filter(|_| tls),
            },
            tokens: file().filter(|_| tokens),
            audit_log: None,
            insecure,
        };
        let said = |security: Security, listen| match suits(&security, listen) {
            Ok(()) => "ok",
            Err(SecurityError::Plaintext { .. }) => "plaintext",
            Err(SecurityError::Unguarded { .. }) => "unguarded",
            Err(SecurityError::TokensInTheClear { .. }) => "tokens in the clear",
            Err(_) => "other",
        };
        for (ca, tls, tokens, insecure, expected) in [
            (false, false, false, false, "plaintext"),
            (false, false, true, false, "plaintext"),
            (false, false, false, true, "ok"),
            (false, false, true, true, "tokens in the clear"),
            (false, true, false, false, "unguarded"),
            (false, true, false, true, "ok"),
            (false, true, true, false, "ok"),
            (true, true, false, false, "ok"),
            (true, true, true, false, "ok"),
        ] {
            let given = security(ca, tls, tokens, insecure);
            assert_eq!(said(given.clone(), everywhere), expected, "{given:?}");
            assert_eq!(said(given, loopback), "ok");
        }
        let error = SecurityError::Plaintext { listen: everywhere }.to_string();
        assert!(
            error.contains("--insecure") && error.contains("gapless tls init"),
            "{error}"
        );
    }
}
