//! The port. A connection comes in when its TLS handshake is done, where there is TLS, and its first
//! bytes are those of HTTP/2; anything else is told off, put on the record and closed, each within a
//! deadline.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::Stream;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::{
    audit::{Audit, Caller, Outcome, Subject},
    certificate,
};
use crate::limits::{ACCEPT_PAUSE, CONNECTIONS, HANDSHAKES, LINGER, LINGER_BYTES, OPENING};

/// What every HTTP/2 client says first (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// For those who speak HTTP/1, where it can be read.
const WRONG_PROTOCOL: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain\r\n\
    connection: close\r\ncontent-length: 40\r\n\r\nThis port speaks gRPC, that is, HTTP/2.\n";

/// What stands for the method of those who never get as far as one.
const CONNECT: &str = "connect";

/// Who is at the other end, in the extensions of each request.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// Name in the certificate that the client has shown.
    pub certificate: Option<Arc<str>>,
}

/// The connections that come in. Handshakes under way end when this is dropped.
pub fn admit(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    audit: Audit,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let door = Door {
        listener,
        tls,
        audit,
        seats: Arc::new(Semaphore::new(CONNECTIONS)),
        opening: JoinSet::new(),
    };
    futures::stream::unfold(door, |mut door| async move {
        let connection = door.next().await;
        Some((Ok(connection), door))
    })
}

struct Door {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    audit: Audit,
    seats: Arc<Semaphore>,
    opening: JoinSet<Option<Connection>>,
}

impl Door {
    async fn next(&mut self) -> Connection {
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if self.opening.len() < HANDSHAKES => match accepted {
                    Ok((stream, address)) => self.begin(stream, address),
                    Err(error) => {
                        // Such as too many open files: those who are here may leave in a while.
                        warn!(%error, "a connection could not be taken");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(opened) = self.opening.join_next() => {
                    if let Ok(Some(connection)) = opened {
                        return connection;
                    }
                }
            }
        }
    }

    fn begin(&mut self, stream: TcpStream, address: SocketAddr) {
        let peer = Peer {
            address,
            certificate: None,
        };
        match self.seats.clone().try_acquire_owned() {
            Ok(seat) => {
                let (tls, audit) = (self.tls.clone(), self.audit.clone());
                self.opening.spawn(open(stream, peer, tls, audit, seat));
            }
            Err(_) => deny(
                &self.audit,
                &peer,
                &format!("{CONNECTIONS} connections are open already"),
            ),
        }
    }
}

fn deny(audit: &Audit, peer: &Peer, reason: &str) {
    let caller = Caller {
        peer: Some(peer.address),
        certificate: peer.certificate.clone(),
        ..Caller::default()
    };
    audit.tell(&caller, CONNECT, &Subject::default(), Outcome::Denied, reason);
}

async fn open(
    stream: TcpStream,
    mut peer: Peer,
    tls: Option<TlsAcceptor>,
    audit: Audit,
    seat: OwnedSemaphorePermit,
) -> Option<Connection> {
    // Messages are small and each is waited for. Without it they are only slower.
    let _ = stream.set_nodelay(true);
    let Ok(opened) = timeout(OPENING, greet(stream, &mut peer, tls)).await else {
        deny(
            &audit,
            &peer,
            &format!("it had not said what it wants after {OPENING:?}"),
        );
        return None;
    };
    match opened {
        Ok(io) => Some(Connection {
            io,
            replayed: 0,
            peer,
            _seat: seat,
        }),
        Err(Unwelcome::Silent) => {
            debug!(peer = %peer.address, "a connection was opened and closed without a word");
            None
        }
        Err(Unwelcome::Told { reason, io }) => {
            deny(&audit, &peer, &reason);
            // What was said to it would be lost if it were cut off with words of its own unread.
            let _ = timeout(LINGER, linger(io)).await;
            None
        }
    }
}

enum Unwelcome {
    /// A probe of the port.
    Silent,
    Told {
        reason: String,
        io: Io,
    },
}

/// Up to the preface, which is read and right.
async fn greet(stream: TcpStream, peer: &mut Peer, tls: Option<TlsAcceptor>) -> Result<Io, Unwelcome> {
    let mut io = match tls {
        None => Io::Plain(stream),
        Some(tls) => {
            let mut first = [0];
            if matches!(stream.peek(&mut first).await, Ok(0) | Err(_)) {
                return Err(Unwelcome::Silent);
            }
            let stream = tls
                .accept(stream)
                .into_fallible()
                .await
                .map_err(|(error, stream)| Unwelcome::Told {
                    reason: format!("no TLS connection: {error}"),
                    io: Io::Plain(stream),
                })?;
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            peer.certificate = shown.map(|shown| {
                let name = certificate::common_name(shown);
                name.unwrap_or_else(|| "a certificate without a name".to_string())
                    .into()
            });
            Io::Tls(Box::new(stream))
        }
    };
    let mut said = [0; PREFACE.len()];
    let mut length = 0;
    while length < PREFACE.len() {
        let read = io.read(&mut said[length..]).await.unwrap_or(0);
        if read == 0 && length == 0 {
            return Err(Unwelcome::Silent);
        }
        length += read;
        if read == 0 || said[..length] != PREFACE[..length] {
            let reason = wrong_words(&said[..length]);
            if is_http1(&said[..length]) {
                let _ = io.write_all(WRONG_PROTOCOL).await;
            }
            return Err(Unwelcome::Told { reason, io });
        }
    }
    Ok(io)
}

/// A request line of HTTP/1 begins with a word in capitals and a space, as the preface does.
fn is_http1(said: &[u8]) -> bool {
    if PREFACE.starts_with(said) {
        return false;
    }
    let word = said.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    word >= 3 && said.get(word) == Some(&b' ')
}

fn wrong_words(said: &[u8]) -> String {
    let what = match said {
        // A handshake record of TLS.
        [0x16, 0x03, ..] => "it speaks TLS, and this port has none; write http:// or set tls_cert here",
        said if is_http1(said) => "it speaks HTTP/1, and this port speaks HTTP/2",
        _ => "it does not speak HTTP/2",
    };
    format!("{what} (it began with \"{}\")", said.escape_ascii())
}

async fn linger(mut io: Io) {
    let _ = io.shutdown().await;
    let mut sink = [0; 4096];
    let mut left = LINGER_BYTES;
    while let Ok(read) = io.read(&mut sink).await
        && read > 0
        && left > read
    {
        left -= read;
    }
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that has come in. Its preface, read at the door, is read once more by the server.
pub struct Connection {
    io: Io,
    replayed: usize,
    peer: Peer,
    _seat: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = &PREFACE[self.replayed..];
        if left.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, buf);
        }
        let taken = left.len().min(buf.remaining());
        buf.put_slice(&left[..taken]);
        self.replayed += taken;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_read(context, buf),
            Io::Tls(stream) => Pin::new(stream).poll_read(context, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Io::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_flush(context),
            Io::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
