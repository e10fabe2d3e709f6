//! The floor under every figure: the least that a WebSocket server in this language does. Bare tokio-tungstenite with
//! 1 KiB read and no write buffer; no authentication, no state, no store, no rules.
//!
//! It speaks the hub's frames as far as the generator reads them, so that both are measured by the very same code.

use std::{cell::RefCell, fmt::Write as _, io, net::SocketAddr, rc::Rc};

use axum::http::HeaderValue;
use futures::{FutureExt as _, SinkExt as _, StreamExt as _, stream::SplitSink};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{LocalSet, spawn_local, unconstrained},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        Message, Utf8Bytes,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::WebSocketConfig,
    },
};

/// Bytes of filler in a message, so that it has the size of the hub's.
const FILLER: usize = 983;
/// The longest control request that is read.
const LONGEST_REQUEST: usize = 4096;

type Sink = SplitSink<WebSocketStream<TcpStream>, Message>;

/// The connections of each user.
#[derive(Default)]
struct Users {
    sinks: RefCell<Vec<Vec<Sink>>>,
    seq: RefCell<u64>,
}

/// Serves until it is killed; `ready` is told the addresses for devices and for control.
pub(crate) async fn serve(ready: impl FnOnce(SocketAddr, SocketAddr) -> io::Result<()>) -> io::Result<()> {
    let devices = TcpListener::bind("127.0.0.1:0").await?;
    let control = TcpListener::bind("127.0.0.1:0").await?;
    ready(devices.local_addr()?, control.local_addr()?)?;
    let users = Rc::new(Users::default());
    LocalSet::new()
        .run_until(async {
            loop {
                tokio::select! {
                    accepted = devices.accept() => {
                        spawn_local(device(accepted?.0, Rc::clone(&users)));
                    }
                    accepted = control.accept() => {
                        // Unconstrained: after 128 sends in one wake-up tokio would call every socket busy.
                        spawn_local(unconstrained(commands(accepted?.0, Rc::clone(&users))));
                    }
                }
            }
        })
        .await
}

async fn device(stream: TcpStream, users: Rc<Users>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let config = WebSocketConfig::default().read_buffer_size(1024).write_buffer_size(0);
    let socket = accept_hdr_async_with_config(stream, choose_protocol, Some(config))
        .await
        .ok()?;
    let (mut sink, mut frames) = socket.split();
    let hello = frames.next().await?.ok()?;
    let user: usize = hello
        .to_text()
        .ok()?
        .rsplit_once(':')?
        .1
        .trim_end_matches('}')
        .parse()
        .ok()?;
    sink.send(Message::text(r#"{"type":"synced"}"#)).await.ok()?;
    {
        let mut sinks = users.sinks.borrow_mut();
        if sinks.len() <= user {
            sinks.resize_with(user + 1, Vec::new);
        }
        sinks[user].push(sink);
    }
    while let Some(Ok(_ack)) = frames.next().await {}
    None
}

#[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
#[expect(clippy::unnecessary_wraps, reason = "the signature is tungstenite's")]
fn choose_protocol(_: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let protocol = HeaderValue::from_static("lockstep.v1");
    response.headers_mut().insert("sec-websocket-protocol", protocol);
    Ok(response)
}

/// Each request `PUT /USER/STAMP` pushes one message to every connection of the user.
async fn commands(mut stream: TcpStream, users: Rc<Users>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut buffer = vec![0; LONGEST_REQUEST];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await.ok().filter(|read| *read > 0)?;
        filled += read;
        if !buffer[..filled].ends_with(b"\r\n\r\n") {
            continue;
        }
        let line = std::str::from_utf8(&buffer[..filled]).ok()?;
        let mut path = line.split(' ').nth(1)?.split('/').skip(1);
        users.push(path.next()?.parse().ok()?, path.next()?);
        filled = 0;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await
            .ok()?;
    }
}

impl Users {
    fn push(&self, user: usize, stamp: &str) {
        let mut seq = self.seq.borrow_mut();
        *seq += 1;
        let message = Message::Text(message(*seq, stamp));
        if let Some(sinks) = self.sinks.borrow_mut().get_mut(user) {
            // A socket that takes nothing at once has gone: the generator always reads.
            sinks.retain_mut(|sink| matches!(sink.send(message.clone()).now_or_never(), Some(Ok(()))));
        }
    }
}

fn message(seq: u64, stamp: &str) -> Utf8Bytes {
    let mut text = String::with_capacity(1400);
    let _ = write!(
        text,
        r#"{{"type":"token","grant":"demo/main","version":{seq},"seq":{seq},"cursor":"0123456789abcdef.{seq}","access_token":"T{stamp}"#
    );
    text.extend(std::iter::repeat_n('x', FILLER));
    text.push_str(r#"","token_type":"Bearer","expires_at":1800000000,"refreshed_at":1800000000,"cause":"login"}"#);
    text.into()
}
