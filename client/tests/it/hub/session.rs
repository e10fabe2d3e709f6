//! The WebSocket side.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures::{SinkExt as _, StreamExt as _};
use hyper_util::rt::TokioIo;
use lockstep_protocol::{
    ClientFrame, Code, GrantName, HubFrame, RequestId, UnixSeconds, Version, decode_client, encode,
    frame::{Done, Error},
};
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role},
    },
};

use super::{Hub, Upgrade};

pub(super) async fn ws(State(hub): State<Hub>, mut request: Request) -> Response {
    let upgrade = hub.with(|core| {
        core.upgrades += 1;
        core.upgrade
    });
    if let Upgrade::Refuse(status) = upgrade {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    let key = request.headers()[header::SEC_WEBSOCKET_KEY].clone();
    assert_eq!(request.headers()[header::SEC_WEBSOCKET_PROTOCOL], "lockstep.v1");
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(io) = upgraded.await else { return };
        let ws = WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Server, None).await;
        match upgrade {
            Upgrade::KillAfter(after) => {
                let _ = timeout(after, session(&hub, ws)).await;
            }
            Upgrade::Mute => {
                let mut ws = ws;
                while let Some(Ok(_)) = ws.next().await {}
            }
            Upgrade::Serve | Upgrade::Refuse(_) => session(&hub, ws).await,
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))
        .header(header::SEC_WEBSOCKET_PROTOCOL, "lockstep.v1")
        .body(Body::empty())
        .unwrap()
}

type Ws = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// Counts a live session, also when it is killed.
struct Live<'a>(&'a Hub);

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.0.with(|core| core.live -= 1);
    }
}

async fn close(ws: &mut Ws, code: u16) {
    let frame = CloseFrame {
        code: code.into(),
        reason: "".into(),
    };
    let _ = ws.close(Some(frame)).await;
    while let Ok(Some(Ok(_))) = timeout(Duration::from_secs(1), ws.next()).await {}
}

async fn say(ws: &mut Ws, frame: &HubFrame) -> bool {
    ws.send(Message::text(encode(frame))).await.is_ok()
}

async fn session(hub: &Hub, mut ws: Ws) {
    let Some(Ok(Message::Text(text))) = ws.next().await else {
        return;
    };
    let Ok(ClientFrame::Hello(hello)) = decode_client(&text) else {
        return close(&mut ws, 4400).await;
    };
    let taken = hub.with(|core| {
        core.hellos.push(hello.clone());
        core.takes.as_ref().is_none_or(|takes| hello.token.expose() == takes)
    });
    if !taken {
        return close(&mut ws, 4401).await;
    }
    let (number, opening, sent) = hub.with(|core| core.begin(&hello));
    let _live = Live(hub);
    for frame in opening {
        say(&mut ws, &frame).await;
    }
    serve(hub, &mut ws, number, sent).await;
}

async fn serve(hub: &Hub, ws: &mut Ws, number: u64, mut sent: u64) {
    let mut changed = hub.changed.subscribe();
    loop {
        let Some((todo, code)) = hub.core.lock().unwrap().due(number, &mut sent) else {
            return;
        };
        for frame in &todo {
            if !say(ws, frame).await {
                return;
            }
        }
        if let Some(code) = code {
            return close(ws, code).await;
        }
        tokio::select! {
            message = ws.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    let frame = decode_client(&text).unwrap();
                    if let Some(answer) = answer(hub, frame) && !say(ws, &answer).await {
                        return;
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
            _ = changed.changed() => {}
        }
    }
}

fn answer(hub: &Hub, frame: ClientFrame) -> Option<HubFrame> {
    hub.with(|core| {
        core.frames.push(frame.clone());
        match frame {
            ClientFrame::Ack(ack) => {
                core.acked = core.acked.max(ack.seq.0);
                None
            }
            ClientFrame::Refresh(refresh) => match core.refresh(&refresh.grant, refresh.rejected_version) {
                Ok(None) => None,
                Ok(Some(version)) => Some(HubFrame::Done(Done {
                    id: refresh.id,
                    grant: refresh.grant,
                    version,
                })),
                Err((code, retry_at)) => Some(HubFrame::Error(Error {
                    id: Some(refresh.id),
                    grant: Some(refresh.grant),
                    code,
                    message: "no".into(),
                    retry_at: retry_at.map(UnixSeconds),
                })),
            },
            ClientFrame::Publish(publish) => {
                core.published.push(publish.clone());
                let took = core.takes_results?;
                Some(told(publish.id, publish.grant, publish.from_version.next(), took))
            }
            ClientFrame::Failed(failed) => {
                core.failed.push(failed.clone());
                let took = core.takes_results?;
                Some(told(failed.id, failed.grant, Version(1), took))
            }
            _ => None,
        }
    })
}

fn told(id: RequestId, grant: GrantName, version: Version, took: Result<(), Code>) -> HubFrame {
    match took {
        Ok(()) => HubFrame::Done(Done { id, grant, version }),
        Err(code) => HubFrame::Error(Error {
            id: Some(id),
            grant: Some(grant),
            code,
            message: "no".into(),
            retry_at: None,
        }),
    }
}
