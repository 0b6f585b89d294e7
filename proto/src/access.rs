//! How a client or worker reaches a coordinator, and what it shows there: the one place that makes
//! endpoints, so that no token leaves without TLS.

use std::{fmt, net::IpAddr};

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity},
};

/// Metadata key of the token, as RFC 6750 has it.
pub const AUTHORIZATION: &str = "authorization";
/// What stands before the token.
pub const BEARER: &str = "Bearer ";

/// The authority to trust, what to show of oneself, and the token. As an interceptor it shows the
/// token with each call. Clones share nothing that changes.
#[derive(Clone, Default)]
pub struct Access {
    tls: Option<ClientTlsConfig>,
    token: Option<MetadataValue<Ascii>>,
}

/// PEM texts of the client's side of TLS.
#[derive(Clone, Default)]
pub struct Pems {
    pub ca: Option<Vec<u8>>,
    /// Certificate with its chain, and private key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("{endpoint:?} is no endpoint: {reason}; write http://HOST:PORT or https://HOST:PORT")]
    Endpoint { endpoint: String, reason: String },
    #[error(
        "{endpoint} is to be reached with TLS, but no authority is known: give tls_ca (--tls-ca FILE), and tls_cert and tls_key where it asks for a certificate"
    )]
    NoAuthority { endpoint: String },
    #[error(
        "{endpoint} has no TLS and is not this machine: a token is not sent there in plain text; write https:// and give tls_ca, or give no token"
    )]
    TokenInTheClear { endpoint: String },
    #[error("the token has signs that no token has; is its file another one?")]
    BadToken,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("tls", &self.tls.is_some())
            .field("token", &self.token.is_some())
            .finish()
    }
}

impl Pems {
    /// The client's side of TLS, also for servers that are not ours; `None` where no authority is known.
    pub fn client_tls(self) -> Option<ClientTlsConfig> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.ca?));
        Some(match self.identity {
            Some((cert, key)) => tls.identity(Identity::from_pem(cert, key)),
            None => tls,
        })
    }
}

impl Access {
    /// Errors: [`AccessError::BadToken`].
    pub fn new(pems: Pems, token: Option<&str>) -> Result<Access, AccessError> {
        let tls = pems.client_tls();
        let token = match token {
            Some(token) => {
                let mut value: MetadataValue<Ascii> =
                    format!("{BEARER}{token}").parse().map_err(|_| AccessError::BadToken)?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        Ok(Access { tls, token })
    }

    /// The way to `url`, with TLS where it says `https`.
    pub fn endpoint(&self, url: &str) -> Result<Endpoint, AccessError> {
        let bad = |error: &dyn std::error::Error| AccessError::Endpoint {
            endpoint: url.to_string(),
            reason: causes(error),
        };
        let endpoint = Endpoint::from_shared(url.to_string()).map_err(|error| bad(&error))?;
        match (endpoint.uri().scheme_str(), &self.tls) {
            (Some("https"), Some(tls)) => endpoint.tls_config(tls.clone()).map_err(|error| bad(&error)),
            (Some("https"), None) => Err(AccessError::NoAuthority {
                endpoint: url.to_string(),
            }),
            _ if self.token.is_some() && !is_loopback(endpoint.uri().host().unwrap_or_default()) => {
                Err(AccessError::TokenInTheClear {
                    endpoint: url.to_string(),
                })
            }
            _ => Ok(endpoint),
        }
    }
}

/// Whether one who came to `from` may go on to `to`, as that one says: not from TLS to none.
pub fn may_send_on(from: &str, to: &str) -> bool {
    let has_tls = |url: &str| url.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"));
    has_tls(to) || !has_tls(from)
}

/// Whether a host of a URL is this machine, whatever the resolver says.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Interceptor for Access {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert(AUTHORIZATION, token.clone());
        }
        Ok(request)
    }
}

/// An error with what caused it: a transport error alone says no more than "transport error".
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_over_tls_or_to_this_machine() {
        let plain = Access::default();
        let with_token = Access::new(Pems::default(), Some("t0ken")).expect("a token");
        let said = |access: &Access, url: &str| match access.endpoint(url) {
            Ok(_) => "ok".to_string(),
            Err(error) => error.to_string(),
        };
        for url in [
            "http://127.0.0.1:1",
            "http://127.9.9.9:1",
            "http://[::1]:1",
            "http://localhost:1",
        ] {
            assert_eq!(said(&plain, url), "ok", "{url}");
            assert_eq!(said(&with_token, url), "ok", "{url}");
        }
        for url in [
            "http://10.0.0.1:1",
            "http://[::2]:1",
            "http://localhost.example:1",
            "http://127.0.0.1.example:1",
        ] {
            assert_eq!(said(&plain, url), "ok", "{url}");
            assert!(said(&with_token, url).contains("in plain text"), "{url}");
        }
        for access in [&plain, &with_token] {
            assert!(said(access, "https://10.0.0.1:1").contains("--tls-ca"));
        }
        assert!(said(&plain, "not a url").contains("http://HOST:PORT"));
    }

    #[test]
    fn nobody_is_sent_from_tls_to_none() {
        assert!(may_send_on("https://a:1", "https://b:1") && may_send_on("http://a:1", "https://b:1"));
        assert!(may_send_on("http://a:1", "http://b:1"));
        assert!(!may_send_on("https://a:1", "http://b:1") && !may_send_on("HTTPS://a:1", "b:1"));
    }

    #[test]
    fn a_token_is_shown_to_the_server_alone() {
        let mut access = Access::new(Pems::default(), Some("t0ken")).expect("a token");
        let request = access.call(Request::new(())).expect("passed on");
        assert_eq!(request.metadata().get(AUTHORIZATION).expect("shown"), "Bearer t0ken");
        for shown in [format!("{access:?}"), format!("{request:?}")] {
            assert!(!shown.contains("t0ken"), "{shown}");
        }
        let error = Access::new(Pems::default(), Some("t0\nken")).expect_err("no token");
        assert!(!error.to_string().contains("ken\""));
    }
}
