//! Accepts connections and serves HTTP/1.1 on them until they end or become WebSockets.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::doors::Place;
use crate::{app::Hub, telemetry::metrics};

/// A request's head must have come within this time: a slow-loris gets no further.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// A TLS handshake must be done within this time.
const TLS_WITHIN: Duration = Duration::from_secs(10);
/// The largest request head, in bytes.
const MOST_HEAD: usize = 16 * 1024;
/// How long to wait before accepting again when the process is out of file descriptors.
const BREATHE: Duration = Duration::from_millis(50);

/// Who is at the other end of a connection.
#[derive(Clone)]
pub struct Peer {
    /// The address of the socket.
    pub address: SocketAddr,
    /// Its place, to be kept as long as the connection lives.
    pub place: Arc<Place>,
}

/// Accepts until the hub is leaving.
pub async fn run(hub: Arc<Hub>, listener: TcpListener, tls: Option<TlsAcceptor>, router: Router) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = hub.leaving.cancelled() => return,
        };
        match accepted {
            Ok((tcp, address)) => {
                // Beyond the limit nothing is said: whoever is turned away costs as little as possible.
                let Some(place) = hub.doors.enter(address.ip()) else {
                    metrics::refused("no_room");
                    continue;
                };
                let peer = Peer {
                    address,
                    place: Arc::new(place),
                };
                tokio::spawn(connection(Arc::clone(&hub), tcp, tls.clone(), router.clone(), peer));
            }
            Err(error) => {
                if !is_of_one_connection(&error) {
                    tracing::error!(%error, "cannot accept connections");
                    tokio::time::sleep(BREATHE).await;
                }
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection(hub: Arc<Hub>, tcp: TcpStream, tls: Option<TlsAcceptor>, router: Router, peer: Peer) {
    // A push is one small write: it must not wait for the ack of the former one.
    let _ = tcp.set_nodelay(true);
    match tls {
        None => serve(hub, tcp, router, peer).await,
        Some(tls) => match tokio::time::timeout(TLS_WITHIN, tls.accept(tcp)).await {
            Ok(Ok(stream)) => serve(hub, stream, router, peer).await,
            Ok(Err(error)) => tracing::debug!(address = %peer.address, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(address = %peer.address, "TLS handshake too slow"),
        },
    }
}

async fn serve<S>(hub: Arc<Hub>, stream: S, router: Router, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.clone().oneshot(request.map(Body::new))
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(MOST_HEAD);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = hub.leaving.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::trace!(%error, "connection ended");
    }
}
