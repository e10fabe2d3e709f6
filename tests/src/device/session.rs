//! One connection, frame by frame.

use std::{net::SocketAddr, time::Duration};

use futures::{SinkExt, StreamExt};
use lockstep_protocol::decode_hub;
use serde_json::{Value, json};
use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        handshake::client::Request,
        http::{HeaderValue, header},
    },
};

use super::Enrolled;
use crate::{hub::Hub, wait::BOUND};

/// A device finds out by itself that its hub is gone without a word. For tests sooner than by the heartbeat's silence.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(5))
    .with_interval(Duration::from_secs(1));

/// What a connection brought.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A frame.
    Frame(Value),
    /// A close frame with this code; 1005 if it had none (RFC 6455 section 7.1.5).
    Closed(u16),
    /// The connection ended without a close frame.
    Lost,
}

/// A connection of a device, driven by the test.
pub struct Session {
    socket: WebSocketStream<TcpStream>,
    /// Whether `next` acks each frame that it returns.
    pub acks: bool,
    /// Every frame so far.
    pub frames: Vec<Value>,
}

/// The request that opens a session.
///
/// # Panics
/// Never for a socket address.
pub fn upgrade(listen: SocketAddr) -> Request {
    let mut request = format!("ws://{listen}/v1/ws")
        .into_client_request()
        .expect("a URL from an address");
    let subprotocol = HeaderValue::from_static("lockstep.v1");
    request
        .headers_mut()
        .insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
    request
}

impl Session {
    /// Opens a connection and says nothing.
    ///
    /// # Errors
    /// When the hub is not there, or refuses the upgrade.
    pub async fn open(listen: SocketAddr) -> Result<Self, tungstenite::Error> {
        let stream = TcpStream::connect(listen).await?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
        let (socket, _) = client_async(upgrade(listen), stream).await?;
        Ok(Self {
            socket,
            acks: false,
            frames: Vec::new(),
        })
    }

    /// Opens a connection over `stream` (for odd sockets).
    ///
    /// # Errors
    /// When the hub refuses the upgrade.
    pub async fn over(listen: SocketAddr, stream: TcpStream) -> Result<Self, tungstenite::Error> {
        let (socket, _) = client_async(upgrade(listen), stream).await?;
        Ok(Self {
            socket,
            acks: false,
            frames: Vec::new(),
        })
    }

    /// Connects, says `hello`, and reads until `synced`; acks from then on. Returns the `welcome` as well.
    ///
    /// # Panics
    /// When the hub does not welcome it.
    pub async fn connect(hub: &Hub, device: &Enrolled, cursor: Option<&str>) -> (Self, Value) {
        let mut session = Self::open(hub.listen).await.expect("the hub takes the connection");
        session.acks = true;
        session.send(&device.hello(cursor)).await;
        let welcome = session.frame("welcome").await;
        session.frame("synced").await;
        (session, welcome)
    }

    /// The same for a device that holds nothing.
    pub async fn fresh(hub: &Hub, device: &Enrolled) -> Self {
        Self::connect(hub, device, None).await.0
    }

    /// Sends a frame. That the hub has just closed is for `next` to see.
    pub async fn send(&mut self, frame: &Value) {
        self.send_message(Message::text(frame.to_string())).await;
    }

    /// Sends a text as it is.
    pub async fn send_text(&mut self, text: &str) {
        self.send_message(Message::text(text)).await;
    }

    /// Sends a WebSocket message as it is.
    pub async fn send_message(&mut self, message: Message) {
        timeout(BOUND, self.socket.send(message)).await.ok();
    }

    /// The socket itself, for what `Session` has no word for.
    pub fn socket(&mut self) -> &mut WebSocketStream<TcpStream> {
        &mut self.socket
    }

    /// The next frame, close or loss within `bound`; none if there was only silence.
    ///
    /// # Panics
    /// When the hub sends something that is no frame of the protocol.
    pub async fn next_within(&mut self, bound: Duration) -> Option<Event> {
        let event = timeout(bound, async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        decode_hub(&text).unwrap_or_else(|error| panic!("not a frame of a hub ({error}): {text}"));
                        break Event::Frame(serde_json::from_str(&text).expect("a decoded frame is JSON"));
                    }
                    Some(Ok(Message::Close(close))) => break Event::Closed(close.map_or(1005, |c| c.code.into())),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(other)) => panic!("a hub sends text only, not {other:?}"),
                    Some(Err(_)) | None => break Event::Lost,
                }
            }
        })
        .await
        .ok()?;
        if let Event::Frame(frame) = &event {
            self.frames.push(frame.clone());
            if self.acks && is_state(frame) && frame["health"] != "refreshing" {
                self.send(&json!({"type": "ack", "seq": frame["seq"]})).await;
            }
        }
        Some(event)
    }

    /// The next event.
    ///
    /// # Panics
    /// When there is only silence.
    pub async fn next(&mut self) -> Event {
        self.next_within(BOUND).await.expect("a frame or the end")
    }

    /// Reads on to the next frame of this type.
    ///
    /// # Panics
    /// When the session ends before.
    pub async fn frame(&mut self, kind: &str) -> Value {
        self.until(kind, |frame| frame["type"] == kind).await
    }

    /// Reads on to a frame that `wanted` accepts.
    ///
    /// # Panics
    /// When the session ends, or falls silent, before.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            match self.next_within(BOUND).await {
                Some(Event::Frame(frame)) if wanted(&frame) => return frame,
                Some(Event::Frame(_)) => {}
                other => panic!("waited for {what}, got {other:?} after {:?}", types(&self.frames)),
            }
        }
    }

    /// Reads on to the end; gives the close code, none if the connection was just lost.
    ///
    /// # Panics
    /// When it has not ended within `bound`.
    pub async fn closed_within(&mut self, bound: Duration) -> Option<u16> {
        let end = async {
            loop {
                match self.next_within(bound).await {
                    Some(Event::Frame(_)) => {}
                    Some(Event::Closed(code)) => break Some(code),
                    Some(Event::Lost) => break None,
                    None => panic!("the session is still open after {bound:?}"),
                }
            }
        };
        crate::wait::within("the session ends", bound, end).await
    }

    /// Reads on to the end.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn closed(&mut self) -> Option<u16> {
        self.closed_within(BOUND).await
    }

    /// That the session is alive and has nothing more to say: asks something harmless and reads the answer. Returns the
    /// frames that came before it.
    ///
    /// # Panics
    /// When the session does not answer.
    pub async fn settle(&mut self) -> Vec<Value> {
        let before = self.frames.len();
        let id = format!("settle-{}", uuid::Uuid::new_v4().simple());
        self.send(&json!({"type": "refresh", "id": id, "grant": "nowhere/nothing", "rejected_version": 0, "reason": "expired"}))
            .await;
        self.until("an answer to a harmless question", |frame| frame["id"] == id.as_str())
            .await;
        self.frames[before..self.frames.len() - 1].to_vec()
    }

    /// Asks for a refresh and returns the one answer (`done` or `error`).
    pub async fn refresh(&mut self, grant: &str, rejected_version: u64) -> Value {
        let id = self.ask_refresh(grant, rejected_version).await;
        self.answer(&id).await
    }

    /// Asks for a refresh; returns the request's id.
    pub async fn ask_refresh(&mut self, grant: &str, rejected_version: u64) -> String {
        let id = uuid::Uuid::new_v4().simple().to_string();
        self.send(&json!({
            "type": "refresh", "id": id, "grant": grant, "rejected_version": rejected_version, "reason": "rejected",
        }))
        .await;
        id
    }

    /// The one answer to the request `id`.
    pub async fn answer(&mut self, id: &str) -> Value {
        let known = self.frames.iter().find(|frame| frame["id"] == id).cloned();
        match known {
            Some(frame) => frame,
            None => self.until("an answer", |frame| frame["id"] == id).await,
        }
    }

    /// The newest `token` frame of a grant so far.
    pub fn token(&self, grant: &str) -> Option<&Value> {
        self.frames
            .iter()
            .rev()
            .find(|frame| frame["type"] == "token" && frame["grant"] == grant)
    }

    /// The newest cursor so far.
    pub fn cursor(&self) -> Option<String> {
        self.frames
            .iter()
            .rev()
            .find_map(|frame| frame["cursor"].as_str())
            .map(str::to_owned)
    }
}

/// Whether a frame carries a grant's state: a `token` or a `status`.
pub(super) fn is_state(frame: &Value) -> bool {
    frame["type"] == "token" || frame["type"] == "status"
}

fn types(frames: &[Value]) -> Vec<&str> {
    frames.iter().filter_map(|frame| frame["type"].as_str()).collect()
}
