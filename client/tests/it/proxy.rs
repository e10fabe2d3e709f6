//! Proxies and TLS between client and hub.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use lockstep_client::{Client, Proxy, Transport, TransportChoice};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::{device, grant, hub::Hub, quick, soon};

pub const ROOT: &[u8] = include_bytes!("tls/ca.pem");
const CERTIFICATE: &[u8] = include_bytes!("tls/server.pem");
const KEY: &[u8] = include_bytes!("tls/server.key");

/// How many connections went which way.
#[derive(Default)]
pub struct Counts {
    pub tunnels: AtomicUsize,
    pub forwards: AtomicUsize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Tunnels whatever is asked for, to whoever knows the password.
    Http,
    /// Passes plain requests on and refuses tunnels.
    ForwardOnly,
    Socks5,
}

pub async fn proxy(kind: Kind) -> (SocketAddr, Arc<Counts>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let counts = Arc::new(Counts::default());
    tokio::spawn({
        let counts = counts.clone();
        async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let counts = counts.clone();
                tokio::spawn(async move {
                    let _ = match kind {
                        Kind::Http => http(client, &counts, true).await,
                        Kind::ForwardOnly => http(client, &counts, false).await,
                        Kind::Socks5 => socks5(client, &counts).await,
                    };
                });
            }
        }
    });
    (addr, counts)
}

async fn splice(mut a: impl AsyncRead + AsyncWrite + Unpin, to: &str, first: &[u8]) -> std::io::Result<()> {
    let mut b = TcpStream::connect(to).await?;
    b.write_all(first).await?;
    copy_bidirectional(&mut a, &mut b).await.map(drop)
}

async fn http(mut client: TcpStream, counts: &Counts, tunnels: bool) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut words = text.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    if method != "CONNECT" {
        counts.forwards.fetch_add(1, Ordering::SeqCst);
        let host = target.trim_start_matches("http://").split('/').next().unwrap();
        return splice(client, host, &head).await;
    }
    // "user:password"
    let knows = text
        .to_ascii_lowercase()
        .contains("proxy-authorization: basic dxnlcjpwyxnzd29yza==");
    if !tunnels || !knows {
        return client
            .write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
            .await;
    }
    counts.tunnels.fetch_add(1, Ordering::SeqCst);
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    splice(client, target, b"").await
}

/// RFC 1928 with RFC 1929, IPv4 and names only.
async fn socks5(mut client: TcpStream, counts: &Counts) -> std::io::Result<()> {
    async fn field(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
        let length = client.read_u8().await?;
        let mut field = vec![0; length.into()];
        client.read_exact(&mut field).await?;
        Ok(field)
    }
    assert_eq!(client.read_u8().await?, 5);
    assert!(field(&mut client).await?.contains(&2), "no password offered");
    client.write_all(&[5, 2]).await?;
    assert_eq!(client.read_u8().await?, 1);
    assert_eq!(field(&mut client).await?, b"user");
    assert_eq!(field(&mut client).await?, b"password");
    client.write_all(&[1, 0]).await?;
    let mut request = [0; 4];
    client.read_exact(&mut request).await?;
    let host = if request[3] == 1 {
        let mut ip = [0; 4];
        client.read_exact(&mut ip).await?;
        std::net::Ipv4Addr::from(ip).to_string()
    } else {
        String::from_utf8(field(&mut client).await?).unwrap()
    };
    let port = client.read_u16().await?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    counts.tunnels.fetch_add(1, Ordering::SeqCst);
    splice(client, &format!("{host}:{port}"), b"").await
}

async fn through(kind: Kind, scheme: &str, choice: TransportChoice) -> (Hub, Client, Arc<Counts>) {
    let hub = Hub::start().await;
    hub.mint(&grant());
    let (addr, counts) = proxy(kind).await;
    let url = format!("{scheme}://user:password@{addr}").parse().unwrap();
    let client = quick(&hub)
        .proxy(Proxy::Url(url))
        .transport(choice)
        .connect()
        .await
        .unwrap();
    soon("sync", client.synced()).await.unwrap();
    hub.until("the ack", |core| core.acked == 1).await;
    (hub, client, counts)
}

#[tokio::test]
async fn websocket_goes_through_an_http_proxy_as_a_tunnel() {
    let (_hub, client, counts) = through(Kind::Http, "http", TransportChoice::Ws).await;
    assert_eq!(counts.tunnels.load(Ordering::SeqCst), 1);
    assert_eq!(client.connection().borrow().transport, Transport::Ws);
}

#[tokio::test]
async fn websocket_and_long_poll_go_through_a_socks_proxy() {
    for (scheme, choice) in [("socks5", TransportChoice::Ws), ("socks5h", TransportChoice::Poll)] {
        let (_hub, _client, counts) = through(Kind::Socks5, scheme, choice).await;
        assert!(counts.tunnels.load(Ordering::SeqCst) >= 1);
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_tunnels_is_passed_by_long_poll() {
    let (hub, client, counts) = through(Kind::ForwardOnly, "http", TransportChoice::Auto).await;
    assert_eq!(client.connection().borrow().transport, Transport::Poll);
    assert!(counts.forwards.load(Ordering::SeqCst) >= 1);
    hub.with(|core| assert_eq!(core.upgrades, 0));
}

/// TLS in front of the hub.
pub async fn tls(hub: &Hub) -> SocketAddr {
    let certificates = CertificateDer::pem_slice_iter(CERTIFICATE)
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let to = hub.addr.to_string();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (acceptor, to) = (acceptor.clone(), to.clone());
            tokio::spawn(async move {
                if let Ok(tls) = acceptor.accept(tcp).await {
                    let _ = splice(tls, &to, b"").await;
                }
            });
        }
    });
    addr
}

fn over_tls(at: &str, roots: &[u8], choice: TransportChoice) -> lockstep_client::Builder {
    Client::builder(at)
        .device(device(), "lsd_0".into())
        .proxy(Proxy::Direct)
        .roots(roots)
        .transport(choice)
}

#[tokio::test]
async fn wss_trusts_the_given_roots_and_no_others() {
    let hub = Hub::start().await;
    hub.mint(&grant());
    let addr = tls(&hub).await;
    for (scheme, choice) in [("wss", TransportChoice::Ws), ("https", TransportChoice::Poll)] {
        let url = format!("{scheme}://localhost:{}", addr.port());
        let client = over_tls(&url, ROOT, choice).connect().await.unwrap();
        soon("sync", client.synced()).await.unwrap();
    }
    let purchases = hub.with(|core| core.purchases);

    // The server's own certificate is no root: the handshake must fail.
    let url = format!("https://localhost:{}", addr.port());
    let client = over_tls(&url, CERTIFICATE, TransportChoice::Auto)
        .connect()
        .await
        .unwrap();
    let mut events = client.events();
    soon("a failure", async {
        while !matches!(
            events.recv().await.unwrap(),
            lockstep_client::Event::Disconnected { .. }
        ) {}
    })
    .await;
    hub.with(|core| assert_eq!(core.purchases, purchases));
}
