//! The WebSocket endpoint: the upgrade, and a session from its first byte to its last.

use std::{future::poll_fn, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use lockstep_protocol::{
    Close, Code,
    version::{self, ProtocolVersion, VERSIONS},
};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{doors::Stranger, link::Link, listener::Peer, socket::Socket, wire::Wire};
use crate::{
    app::Hub,
    clock,
    http::problem::Problem,
    session::hello,
    telemetry::metrics::{self, Transport},
};

/// How long the other side has to answer a close frame.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// When one that is turned away is asked to come back.
const COME_BACK: Duration = Duration::from_secs(2);

/// `GET /v1/ws`.
pub async fn upgrade(State(hub): State<Arc<Hub>>, mut request: Request) -> Response {
    let chosen = match check(&hub, request.headers()) {
        Ok(chosen) => chosen,
        Err(refusal) => return *refusal,
    };
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
    let accept = key.and_then(|key| HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok());
    let peer = request.extensions().get::<Peer>().cloned();
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let (Some(accept), Some(upgrade)) = (accept, upgrade) else {
        return not_a_websocket();
    };
    let Some(stranger) = hub.doors.stranger() else {
        metrics::refused("unauthenticated");
        return Problem::new(Code::Unavailable, "too many connections are being opened")
            .retry_at(Some(clock::unix() + COME_BACK))
            .into_response();
    };
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let ended = serve(Arc::clone(&hub), upgraded, stranger).await;
        if let (Some(Close::NotAuthenticated), Some(peer)) = (ended, &peer) {
            hub.rates.failed(peer.address);
        }
        // Held to here: the connection had its place among those that are counted.
        drop(peer);
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(chosen.subprotocol),
    );
    response
}

fn check(hub: &Hub, headers: &HeaderMap) -> Result<ProtocolVersion, Box<Response>> {
    let has = |name, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    if !has(header::CONNECTION, "upgrade")
        || !has(header::UPGRADE, "websocket")
        || !has(header::SEC_WEBSOCKET_VERSION, "13")
    {
        return Err(Box::new(not_a_websocket()));
    }
    if hub.leaving.is_cancelled() {
        let problem = Problem::new(Code::Unavailable, "this hub is going away");
        return Err(Box::new(
            problem.retry_at(Some(clock::unix() + COME_BACK)).into_response(),
        ));
    }
    let offered = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok());
    offered
        .into_iter()
        .find_map(version::choose)
        .ok_or_else(|| Box::new(no_common_version()))
}

fn not_a_websocket() -> Response {
    let detail = "this is a WebSocket endpoint: send an upgrade request (RFC 6455 section 4.1, version 13)";
    let mut response = Problem::new(Code::BadFrame, detail)
        .with_status(StatusCode::UPGRADE_REQUIRED)
        .into_response();
    response
        .headers_mut()
        .insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    response
        .headers_mut()
        .insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

fn no_common_version() -> Response {
    let names: Vec<&str> = VERSIONS.iter().map(|version| version.subprotocol).collect();
    let names = names.join(", ");
    let detail = format!("ask for a subprotocol that is spoken here (Sec-WebSocket-Protocol): {names}");
    let mut response = Problem::new(Code::BadFrame, detail).into_response();
    if let Ok(names) = HeaderValue::try_from(names) {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, names);
    }
    response
}

/// A session, from the upgrade to the close.
async fn serve(hub: Arc<Hub>, upgraded: Upgraded, stranger: Stranger) -> Option<Close> {
    let Some(mut socket) = unwrap(upgraded) else {
        tracing::error!("an upgraded connection is of an unknown kind");
        return None;
    };
    // Boxed: what the first phase needs is not to weigh on the second, which lasts.
    let greeted = Box::pin(hello::greet(&hub, &mut socket)).await;
    drop(stranger);
    let ended = match greeted {
        Ok(live) => {
            metrics::session_opened(Transport::Ws);
            let ended = live.run(&mut socket).await;
            metrics::session_closed(Transport::Ws, ended.close());
            ended
        }
        Err(ended) => ended,
    };
    if let Some(close) = ended.close() {
        finish(&mut socket, close).await;
    }
    ended.close()
}

async fn finish(socket: &mut Socket, close: Close) {
    let closing = poll_fn(|cx| socket.poll_close(cx, close));
    let _ = tokio::time::timeout(CLOSE_WITHIN, closing).await;
}

/// The socket underneath, so that pushes need no task to be woken. What was read of the request ends here: kept for the
/// session's life, its buffer would be a large part of what a device costs.
fn unwrap(upgraded: Upgraded) -> Option<Socket> {
    let (wire, read) = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => (Wire::new(parts.io.into_inner(), None), parts.read_buf),
        Err(upgraded) => {
            let parts = upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>().ok()?;
            let (tcp, tls) = parts.io.into_inner().into_inner();
            (Wire::new(tcp, Some(tls)), parts.read_buf)
        }
    };
    Some(Socket::new(Arc::new(Link::new(wire)), &read))
}
