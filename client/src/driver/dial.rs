//! Opens a WebSocket to the hub: name, TCP, proxy, TLS, upgrade, each with a time-out.

use std::{error::Error as StdError, time::Duration};

use hyper_util::{
    client::legacy::connect::{
        HttpConnector,
        proxy::{SocksV4, SocksV5, Tunnel},
    },
    client::proxy::matcher::Intercept,
    rt::TokioIo,
};
use lockstep_protocol::{limits::MAX_FRAME, version::NEWEST};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error as WsError,
        client::IntoClientRequest as _,
        http::{HeaderValue, Uri, header},
        protocol::WebSocketConfig,
    },
};
use tower::Service;

use super::{
    http::{chain, retry_after},
    net::Net,
};
use crate::machine::NotOpened;

/// Whatever carries the WebSocket: TCP or TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(crate) type WsStream = WebSocketStream<Box<dyn Stream>>;

/// tungstenite's defaults (128 KiB read at once, unbounded writes) are made for file transfer.
const READ_BUFFER: usize = 4 * 1024;
const KEEPALIVE: Duration = Duration::from_secs(30);

pub(crate) async fn open(net: &Net) -> Result<WsStream, NotOpened> {
    let within = net.timing.connect;
    let stream = timeout(within, connect(net))
        .await
        .unwrap_or_else(|_| Err(NotOpened::Unreachable("no connection in time".into())))?;
    timeout(within, upgrade(net, stream))
        .await
        .unwrap_or_else(|_| Err(NotOpened::Broken("no answer to the upgrade in time".into())))
}

async fn connect(net: &Net) -> Result<Box<dyn Stream>, NotOpened> {
    let to = net.hub.origin().map_err(NotOpened::Unreachable)?;
    let mut direct = HttpConnector::new();
    direct.enforce_http(false);
    direct.set_nodelay(true);
    direct.set_connect_timeout(Some(net.timing.connect));
    direct.set_keepalive(Some(KEEPALIVE));
    let tcp = match net.proxy_to(&to) {
        None => call(direct, to).await.map_err(NotOpened::Unreachable)?,
        Some(proxy) => through(&proxy, direct, to).await?,
    };
    let tcp = tcp.into_inner();
    if !net.hub.is_tls() {
        return Ok(Box::new(tcp));
    }
    let host = net.hub.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(|error| NotOpened::Unreachable(format!("TLS: {error}")))?;
    let tls = TlsConnector::from(net.tls.clone())
        .connect(name, tcp)
        .await
        .map_err(|error| NotOpened::Unreachable(format!("TLS: {error}")))?;
    Ok(Box::new(tls))
}

/// Through the proxy, always as a tunnel: a proxy that only forwards requests would not pass an upgrade on.
async fn through(proxy: &Intercept, direct: HttpConnector, to: Uri) -> Result<TokioIo<TcpStream>, NotOpened> {
    let at = proxy.uri().clone();
    let raw = proxy.raw_auth();
    let result = match at.scheme_str() {
        Some("http") => {
            let mut tunnel = Tunnel::new(at, direct);
            if let Some(auth) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(auth.clone());
            }
            call(tunnel, to).await
        }
        Some(scheme @ ("socks5" | "socks5h")) => {
            let mut socks = SocksV5::new(at.clone(), direct).local_dns(scheme == "socks5");
            if let Some((user, password)) = raw {
                socks = socks.with_auth(user.to_owned(), password.to_owned());
            }
            call(socks, to).await
        }
        Some(scheme @ ("socks4" | "socks4a")) => {
            call(SocksV4::new(at.clone(), direct).local_dns(scheme == "socks4"), to).await
        }
        other => Err(format!(
            "proxies of the kind {:?} cannot carry a WebSocket here",
            other.unwrap_or_default()
        )),
    };
    // A proxy that does not tunnel may well pass plain requests on: long-poll is worth a try.
    result.map_err(|why| NotOpened::Broken(format!("proxy: {why}")))
}

async fn call<S>(mut connector: S, to: Uri) -> Result<S::Response, String>
where
    S: Service<Uri>,
    S::Error: StdError,
{
    std::future::poll_fn(|cx| connector.poll_ready(cx))
        .await
        .map_err(|error| chain(&error))?;
    connector.call(to).await.map_err(|error| chain(&error))
}

async fn upgrade(net: &Net, stream: Box<dyn Stream>) -> Result<WsStream, NotOpened> {
    let mut request = net
        .hub
        .ws()
        .into_client_request()
        .map_err(|error| NotOpened::Unreachable(error.to_string()))?;
    request.headers_mut().insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(NEWEST.subprotocol),
    );
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_FRAME * 4)
        .max_message_size(Some(MAX_FRAME * 2))
        .max_frame_size(Some(MAX_FRAME * 2));
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((ws, _)) => Ok(ws),
        Err(WsError::Http(response)) => Err(NotOpened::Status {
            status: response.status().as_u16(),
            retry_after: retry_after(response.headers()),
        }),
        Err(error) => Err(NotOpened::Broken(chain(&error))),
    }
}
