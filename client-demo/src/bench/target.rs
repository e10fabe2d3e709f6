//! What is measured: the hub, or the floor. Both are spoken to in the same way.

use std::{fmt::Write as _, net::SocketAddr};

use lockstep_protocol::{DeviceId, Secret};

use super::generator::ws;

/// Bytes of an access token, so that a `token` frame has 1.2 KB.
const ACCESS_TOKEN_BYTES: usize = 1000;

/// A server under measurement.
#[derive(Debug)]
pub(super) enum Target {
    /// The hub.
    Hub {
        listen: SocketAddr,
        admin: SocketAddr,
        admin_token: Secret,
    },
    /// `client-demo bench-floor`.
    Floor { listen: SocketAddr, control: SocketAddr },
}

/// A device that is to connect.
#[derive(Debug)]
pub(super) struct Enrolment {
    pub(super) user: u32,
    /// Id and device access token; the floor knows neither.
    pub(super) identity: Option<(DeviceId, Secret)>,
}

impl Target {
    /// Where devices connect.
    pub(super) fn listen(&self) -> SocketAddr {
        match self {
            Self::Hub { listen, .. } | Self::Floor { listen, .. } => *listen,
        }
    }

    /// Where updates are caused.
    pub(super) fn control(&self) -> SocketAddr {
        match self {
            Self::Hub { admin, .. } => *admin,
            Self::Floor { control, .. } => *control,
        }
    }

    /// The WebSocket handshake of a device.
    pub(super) fn upgrade(&self) -> Vec<u8> {
        format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: lockstep.v1\r\n\r\n",
            self.listen()
        )
        .into_bytes()
    }

    /// The first frame of a device.
    #[expect(clippy::unused_self, reason = "the floor may one day want another one")]
    pub(super) fn hello(&self, device: &Enrolment) -> Vec<u8> {
        let text = match &device.identity {
            Some((id, token)) => format!(
                r#"{{"type":"hello","token":"{}","device":{{"id":"{id}","app":"client-demo bench"}},"state":"idle"}}"#,
                token.expose()
            ),
            None => format!(r#"{{"type":"hello","user":{}}}"#, device.user),
        };
        let mut frame = Vec::with_capacity(text.len() + 8);
        ws::put(ws::TEXT, text.as_bytes(), &mut frame);
        frame
    }

    /// The request that causes an update of `user`: a login at the hub. `n` makes its tokens unlike all others, and
    /// `caused_at` is what devices measure the latency from.
    pub(super) fn update(&self, user: u32, n: u64, caused_at: u64, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Self::Hub { .. } => {
                let mut body = String::with_capacity(ACCESS_TOKEN_BYTES + 128);
                let _ = write!(body, r#"{{"access_token":"T{caused_at:016x}"#);
                let filler = ACCESS_TOKEN_BYTES.saturating_sub(17);
                body.extend(std::iter::repeat_n('x', filler));
                let _ = write!(body, r#"","refresh_token":"R{user}.{n}","expires_in":86400}}"#);
                *out = self.login(user, body.as_bytes());
            }
            Self::Floor { control, .. } => {
                let head = format!("PUT /{user}/{caused_at:016x} HTTP/1.1\r\nHost: {control}\r\n\r\n");
                out.extend_from_slice(head.as_bytes());
            }
        }
    }

    /// The request that gives the hub a login of `user` with the JSON `body`.
    pub(super) fn login(&self, user: u32, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        if let Self::Hub { admin, admin_token, .. } = self {
            let head = Head {
                method: "PUT",
                path: format_args!("/admin/v1/users/u{user}/grants/demo/main"),
                host: *admin,
                token: admin_token,
            };
            head.put(body, &mut out);
        }
        out
    }

    /// The request that enrols a device of `user` at the hub; the floor needs none.
    pub(super) fn enrol(&self, user: u32, out: &mut Vec<u8>) {
        out.clear();
        if let Self::Hub { admin, admin_token, .. } = self {
            let head = Head {
                method: "POST",
                path: format_args!("/admin/v1/users/u{user}/devices"),
                host: *admin,
                token: admin_token,
            };
            head.put(br#"{"kind":"server","name":"bench"}"#, out);
        }
    }
}

/// The head of an admin request.
struct Head<'a> {
    method: &'static str,
    path: std::fmt::Arguments<'a>,
    host: SocketAddr,
    token: &'a Secret,
}

impl Head<'_> {
    fn put(&self, body: &[u8], out: &mut Vec<u8>) {
        let head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            self.method,
            self.path,
            self.host,
            self.token.expose(),
            body.len()
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body);
    }
}
