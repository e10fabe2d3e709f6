//! The first phase: a connection that has not said who it is.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64},
    },
    time::Duration,
};

use lockstep_protocol::{
    ClientFrame, Close, Cursor, HubFrame, Seq, SessionId, decode_client, encode,
    frame::{Hello, PresenceState, Resume, Synced, Welcome},
    limits::{HELLO_WITHIN, MAX_BAD_FRAMES},
};
use uuid::Uuid;

use super::{Session, live::Live, requests};
use crate::{
    app::Hub,
    clock,
    cluster::Fact,
    identity::{Denied, Principal},
    telemetry::metrics,
    transport::{
        socket::{Ended, Received, Socket},
        text,
    },
    user::{Board, Shows, User},
};

/// How long the store may take to tell who a user is before the device is asked to come back.
const LOAD_WITHIN: Duration = Duration::from_secs(10);

/// Waits for `hello`, checks it, and brings the device to the newest state.
///
/// # Errors
/// How the connection is to end.
pub async fn greet(hub: &Arc<Hub>, socket: &mut Socket) -> Result<Live, Ended> {
    let hello = tokio::time::timeout(HELLO_WITHIN, hear(socket))
        .await
        .map_err(|_| Ended::Close(Close::Timeout))??;
    let principal = check(hub, &hello).await.map_err(Ended::Close)?;
    let user = tokio::time::timeout(LOAD_WITHIN, hub.user(&principal.user))
        .await
        .ok()
        .and_then(Result::ok)
        .ok_or(Ended::Close(Close::Internal))?;
    let session = Arc::new(session(socket, &principal, &hello));
    // Registered first, read after: a change between the two is offered to a session that is not open yet, and found
    // when it opens.
    user.register(&session);
    if hub.identity.is_revoked(principal.device) {
        user.unregister(session.id);
        return Err(Ended::Close(Close::Revoked));
    }
    let cursor = hello.cursor.as_deref();
    let known = tokio::time::timeout(LOAD_WITHIN, hub.catch_up(&user, cursor)).await;
    if open(hub, &user, &session, cursor, known.unwrap_or(false)).is_err() {
        user.unregister(session.id);
        return Err(Ended::Gone);
    }
    hub.arrived(&user, principal.device);
    hub.bus.tell(Fact::Arrived {
        user: principal.user,
        device: principal.device,
        session: session.id,
        at: session.began,
    });
    Ok(Live::new(Arc::clone(hub), user, session))
}

/// The first frame that is one.
async fn hear(socket: &mut Socket) -> Result<Box<Hello>, Ended> {
    let mut bad = 0;
    loop {
        let Received::Text(text) = poll_fn(|cx| socket.poll_next(cx)).await? else {
            continue;
        };
        match decode_client(&text) {
            Ok(ClientFrame::Hello(hello)) => return Ok(Box::new(hello)),
            Ok(_) => return Err(Ended::Close(Close::Protocol)),
            Err(error) => {
                bad += 1;
                if bad >= MAX_BAD_FRAMES {
                    return Err(Ended::Close(Close::Protocol));
                }
                socket.link().say(&text::framed(&encode(&requests::bad_frame(error))));
            }
        }
    }
}

async fn check(hub: &Hub, hello: &Hello) -> Result<Principal, Close> {
    let recognised = hub
        .identity
        .recognise(&hello.token, Some(hello.device.id), clock::unix())
        .await;
    let principal = recognised.map_err(|denied| {
        tracing::info!(device = %hello.device.id, %denied, "hello refused");
        metrics::refused("token");
        match denied {
            Denied::Revoked => Close::Revoked,
            Denied::Unavailable => Close::Internal,
            _ => Close::NotAuthenticated,
        }
    })?;
    // What an identity provider says of the device goes before what the device says.
    if principal.device != hello.device.id && !principal.is_external {
        tracing::info!(device = %hello.device.id, "hello refused: the token is another device's");
        return Err(Close::NotAuthenticated);
    }
    Ok(principal)
}

fn session(socket: &Socket, principal: &Principal, hello: &Hello) -> Session {
    let session = Session {
        id: SessionId(Uuid::new_v4()),
        device: principal.device,
        began: clock::unix(),
        redeemer: principal.redeemer,
        priority: hello
            .priority
            .map_or(principal.priority, |own| own.min(principal.priority)),
        link: Arc::clone(socket.link()),
        acked: AtomicU64::new(0),
        active: AtomicBool::new(false),
        active_at: AtomicU64::new(0),
        asked: AtomicU32::new(0),
    };
    if hello.state == PresenceState::Active {
        session.set_presence(PresenceState::Active, clock::mono());
    }
    session
}

/// Sends `welcome`, what changed, and `synced`, in one write.
fn open(hub: &Hub, user: &User, session: &Session, cursor: Option<&str>, known: bool) -> std::io::Result<()> {
    let now = clock::now();
    let (board, passing) = {
        let mut inner = user.lock();
        hub.bury(&mut inner, now);
        (Arc::clone(&inner.board), inner.passing(now.mono))
    };
    let epoch = hub.epoch();
    let held = held(cursor, epoch, board.seq, known);
    let upto = board.seq.max(held.unwrap_or_default());
    let resume = match held {
        Some(seq) if seq >= board.seq => Resume::Uptodate,
        Some(_) => Resume::Delta,
        None => Resume::Reset,
    };
    let welcome = HubFrame::Welcome(Welcome {
        session: session.id,
        user: user.id.clone(),
        epoch,
        time: now.unix.seconds(),
        heartbeat: hub.config.server.heartbeat.as_secs(),
        resume,
    });
    let cursor = Cursor { epoch, seq: upto };
    let mut first = text::framed(&encode(&welcome)).to_vec();
    let mut owes = false;
    for entry in missing(&board, held) {
        first.extend_from_slice(entry.frames());
        owes = true;
    }
    first.extend_from_slice(&text::framed(&encode(&HubFrame::Synced(Synced { cursor }))));
    // Of a version that the device has left behind there is nothing to say.
    for word in passing.iter().filter(|_| upto == board.seq) {
        first.extend_from_slice(word);
    }
    let acked = if owes { held.unwrap_or(Seq(0)) } else { upto };
    session.acked.store(acked.0, std::sync::atomic::Ordering::Relaxed);
    session.link.open(&first, upto, owes, now.mono)?;
    session.link.offer(&user.board(), now.mono);
    Ok(())
}

/// What a cursor proves: everything up to this seq is held. None: nothing is. `known` is whether the store agrees that
/// there is nothing above `newest`: without its word a device that holds more is believed, and shown nothing older.
pub fn held(cursor: Option<&str>, epoch: lockstep_protocol::Epoch, newest: Seq, known: bool) -> Option<Seq> {
    let cursor: Cursor = cursor?.parse().ok()?;
    (cursor.epoch == epoch && (cursor.seq <= newest || !known)).then_some(cursor.seq)
}

/// What a device that holds `held` must be sent. One that holds nothing has no use for the news that something is gone.
pub fn missing(board: &Board, held: Option<Seq>) -> impl Iterator<Item = &crate::user::Entry> {
    let above = held.unwrap_or(Seq(0));
    board
        .since(above)
        .iter()
        .filter(move |e| held.is_some() || e.shows != Shows::Gone)
}
