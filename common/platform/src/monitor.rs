//! What a process tells monitoring: `/metrics`, `/healthz` and `/readyz`, on a port of their own.
//!
//! Plain HTTP/1.1 on the HTTP stack that gRPC brings. One request for each connection, so that a few
//! idle scrapers cannot keep others out.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Requests under way. Scrapers and probes are few; more than this is somebody else.
const MAX_CONNECTIONS: usize = 32;

/// From an accepted connection to its answer. Scrapers give up after 10 s unless told otherwise.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// Wait after a connection that could not be accepted, as a rule for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The text format of OpenMetrics 1.0, which Prometheus reads.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// A part of the product that can be monitored. Every answer is made at once, from memory.
pub trait Monitored: Send + Sync {
    /// All metrics, in the text format of OpenMetrics.
    fn metrics(&self) -> String;

    /// Whether it works; if not, why it has to be started anew.
    fn health(&self) -> Result<(), String>;

    /// What it is ready for; if it is not, what it waits for.
    fn ready(&self) -> Result<&'static str, String>;
}

/// An open endpoint. Dropping it closes it.
#[derive(Debug)]
pub struct Monitor {
    pub address: SocketAddr,
    _serving: JoinSet<()>,
}

/// Opens the endpoint. Port 0 lets the system choose.
///
/// Errors: those of binding the address.
pub async fn open(address: SocketAddr, what: Arc<dyn Monitored>) -> io::Result<Monitor> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let mut serving = JoinSet::new();
    serving.spawn(serve(listener, what));
    Ok(Monitor {
        address,
        _serving: serving,
    })
}

async fn serve(listener: TcpListener, what: Arc<dyn Monitored>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(tokio::time::timeout(CONNECTION_TIME, talk(stream, what.clone())));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection of a monitor");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn talk(stream: TcpStream, what: Arc<dyn Monitored>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), &*what);
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a monitor went away");
    }
}

fn answer(method: &Method, path: &str, what: &dyn Monitored) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "ask with GET\n".to_string());
        refused
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/metrics" => with_type(StatusCode::OK, METRICS_TYPE, what.metrics()),
        "/healthz" => probe(what.health().map(|()| "ok")),
        "/readyz" => probe(what.ready()),
        _ => text(
            StatusCode::NOT_FOUND,
            "here are /metrics, /healthz and /readyz\n".to_string(),
        ),
    }
}

fn probe(state: Result<&'static str, String>) -> Response<Full<Bytes>> {
    match state {
        Ok(word) => text(StatusCode::OK, format!("{word}\n")),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    with_type(status, TEXT_TYPE, body)
}

fn with_type(status: StatusCode, media: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Thing {
        ready: bool,
    }

    impl Monitored for Thing {
        fn metrics(&self) -> String {
            "things 3\n# EOF\n".to_string()
        }

        fn health(&self) -> Result<(), String> {
            Ok(())
        }

        fn ready(&self) -> Result<&'static str, String> {
            match self.ready {
                true => Ok("leading"),
                false => Err("no session yet".to_string()),
            }
        }
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    #[tokio::test]
    async fn each_path_has_its_answer_and_the_rest_is_refused() {
        for (ready, expected) in [(true, "200 OK"), (false, "503 Service Unavailable")] {
            let what = Arc::new(Thing { ready });
            let monitor = open(SocketAddr::from(([127, 0, 0, 1], 0)), what).await.expect("open");
            for (request, status, words) in [
                ("GET /metrics", "200 OK", "things 3"),
                ("GET /metrics", "200 OK", "application/openmetrics-text"),
                ("GET /healthz", "200 OK", "ok"),
                (
                    "GET /readyz",
                    expected,
                    if ready { "leading" } else { "no session yet" },
                ),
                ("GET /", "404 Not Found", "/metrics, /healthz and /readyz"),
                ("POST /metrics", "405 Method Not Allowed", "allow: GET, HEAD"),
            ] {
                let answer = ask(monitor.address, &format!("{request} HTTP/1.1\r\nhost: here\r\n\r\n")).await;
                assert!(answer.contains(status) && answer.contains(words), "{request}: {answer}");
            }
        }
    }

    #[tokio::test]
    async fn an_address_in_use_is_an_error() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let what = Arc::new(Thing { ready: true });
        let monitor = open(any, what.clone()).await.expect("open");
        let address = monitor.address;
        let error = open(address, what).await.expect_err("it is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
