//! Accepts connections and serves HTTP/1.1 on them until they end or become WebSockets.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use lockstep_protocol::Code;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::doors::{Doors, Entry, Full, Guest, Place};
use crate::{
    app::Hub,
    clock,
    http::{forwarded::client_address, problem::Problem},
    telemetry::metrics,
};

/// A request's head must have come within this time: a slow-loris gets no further.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// A TLS handshake must be done within this time.
const TLS_WITHIN: Duration = Duration::from_secs(10);
/// The largest request head, in bytes.
const MOST_HEAD: usize = 16 * 1024;
/// How long to wait before accepting again when the process is out of file descriptors.
const BREATHE: Duration = Duration::from_millis(50);
/// How long what was written may stay unacknowledged, and how long nothing may be heard of an idle peer: then the kernel
/// gives the connection up, be the other side gone or only deaf.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// How long a connection that found no room is listened to.
const TELL_WITHIN: Duration = Duration::from_secs(5);
/// Who found no room is asked to come back after this time, in seconds, drawn for each anew: not all at once.
const COME_BACK: std::ops::RangeInclusive<u64> = 2..=10;

/// One of the hub's addresses: what listens there, and for whom.
pub struct Listener {
    /// Accepts connections.
    pub tcp: TcpListener,
    /// TLS, if it is spoken here.
    pub tls: Option<TlsAcceptor>,
    /// How many may come in here.
    pub doors: Doors,
    /// What is served.
    pub router: Router,
}

/// Who is at the other end of a connection.
#[derive(Clone)]
pub struct Peer {
    /// Whose connection it is: the socket's other end, or whom a trusted proxy there speaks for.
    pub address: IpAddr,
    /// Its place, to be kept as long as the connection lives.
    _place: Arc<Place>,
    /// The same for one that a proxy speaks for.
    _guest: Option<Arc<Guest>>,
}

/// Accepts until the hub is leaving.
pub async fn run(hub: Arc<Hub>, listener: Listener) {
    let listener = Arc::new(listener);
    loop {
        let accepted = tokio::select! {
            accepted = listener.tcp.accept() => accepted,
            () = hub.leaving.cancelled() => return,
        };
        match accepted {
            Ok((tcp, address)) => receive(&hub, &listener, tcp, address),
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

/// Finds out whether there is room for a connection, and serves it in a task of its own.
fn receive(hub: &Arc<Hub>, listener: &Arc<Listener>, tcp: TcpStream, address: SocketAddr) {
    let address = address.ip().to_canonical();
    let (hub, this) = (Arc::clone(hub), Arc::clone(listener));
    let counted = (!is_trusted(&hub, address)).then_some(address);
    match listener.doors.enter(counted) {
        Entry::Inside(place) => {
            tokio::spawn(async move {
                let place = Arc::new(place);
                let service = service_fn(|request| serve(&hub, &this, address, &place, request));
                connection(&hub, &this, tcp, service).await;
            });
        }
        Entry::Told(told, full) => {
            refused(full);
            tokio::spawn(async move {
                let service = service_fn(|_: Request<Incoming>| async move { Ok(no_room(full)) });
                // Whoever does not even ask in this time learns nothing.
                let _ = timeout(TELL_WITHIN, connection(&hub, &this, tcp, service)).await;
                drop(told);
            });
        }
        // Nothing is said: whoever is turned away here costs as little as possible.
        Entry::Shut(full) => refused(full),
    }
}

fn is_trusted(hub: &Hub, address: IpAddr) -> bool {
    let trusted = &hub.config.server.trusted_proxies;
    trusted.iter().any(|network| network.contains(address))
}

fn refused(full: Full) {
    metrics::refused(match full {
        Full::Hub => "no_room",
        Full::Address => "address",
    });
}

/// The answer to whoever finds no room.
fn no_room(full: Full) -> Response {
    let come_back = clock::unix() + Duration::from_secs(rand::random_range(COME_BACK));
    let problem = match full {
        Full::Hub => Problem::new(Code::Unavailable, "the hub is full"),
        Full::Address => Problem::new(Code::RateLimited, "too many connections from this address"),
    };
    let mut response = problem.retry_at(Some(come_back)).into_response();
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Speaks TLS if that is spoken here, and then HTTP.
async fn connection<S>(hub: &Hub, listener: &Listener, tcp: TcpStream, service: S)
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
    S::Future: Send,
{
    if let Err(error) = set_up(&tcp) {
        tracing::debug!(%error, "a socket cannot be set up");
    }
    match &listener.tls {
        None => speak(hub, tcp, service).await,
        Some(tls) => match timeout(TLS_WITHIN, tls.accept(tcp)).await {
            Ok(Ok(stream)) => speak(hub, stream, service).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake too slow"),
        },
    }
}

fn set_up(tcp: &TcpStream) -> io::Result<()> {
    // A push is one small write: it must not wait for the ack of the former one.
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    let keepalive = TcpKeepalive::new()
        .with_time(GONE_AFTER / 2)
        .with_interval(GONE_AFTER / 6);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(GONE_AFTER))?;
    Ok(())
}

async fn speak<I, S>(hub: &Hub, stream: I, service: S)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
    S::Future: Send,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(MOST_HEAD);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
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

/// One request of a connection that has its place.
fn serve(
    hub: &Hub,
    listener: &Listener,
    socket: IpAddr,
    place: &Arc<Place>,
    mut request: Request<Incoming>,
) -> impl Future<Output = Result<Response, Infallible>> + use<> {
    let server = &hub.config.server;
    let address = client_address(
        socket,
        request.headers(),
        server.forwarded_header,
        &server.trusted_proxies,
    );
    // A proxy's connections carry requests of many: each of those counts for as long as its request does.
    let guest = (address != socket).then(|| listener.doors.guest(address).map(Arc::new));
    let (router, place) = (listener.router.clone(), Arc::clone(place));
    async move {
        let guest = match guest {
            Some(None) => {
                refused(Full::Address);
                return Ok(no_room(Full::Address));
            }
            guest => guest.flatten(),
        };
        request.extensions_mut().insert(Peer {
            address,
            _place: place,
            _guest: guest.clone(),
        });
        let response = router.oneshot(request.map(Body::new)).await;
        drop(guest);
        response
    }
}
