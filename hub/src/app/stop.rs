//! Going away: devices are sent off one by one, redeems under way are brought home.

use std::{sync::Arc, time::Duration};

use lockstep_protocol::{
    Close, HubFrame, encode,
    frame::{Goaway, ReconnectAfter},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep, timeout_at},
};

use super::Hub;
use crate::{cluster::Fact, session::Session, transport::text};

/// How often to look whether the last session has left.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a closed session's close frame and the answers of requests have to get out.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// How long redeems under way and their commits have after the drain; the claim keeps what is not done by then.
const LAST_REDEEMS: Duration = Duration::from_secs(20);

/// Waits until the hub is told to stop, and stops it.
pub(super) async fn wait(hub: &Arc<Hub>) {
    told().await;
    let drain = hub.config.server.drain;
    tracing::info!(?drain, sessions = sessions(hub).len(), "going away");
    hub.leaving.cancel();
    hub.bus.tell(Fact::Leaving);
    let deadline = Instant::now() + drain;
    send_off(hub, drain);
    while Instant::now() < deadline && !sessions(hub).is_empty() {
        sleep(LOOK_EVERY.min(drain)).await;
    }
    let left = sessions(hub);
    for session in &left {
        session.link.close(Close::GoingAway);
    }
    if !left.is_empty() {
        sleep(LAST_WORDS).await;
    }
    hub.tasks.close();
    if timeout_at(Instant::now() + LAST_REDEEMS, hub.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            running = hub.tasks.len(),
            "stopped while something was under way; its claims stand"
        );
    }
    if let Err(error) = hub.write_uses().await {
        tracing::warn!(%error, "use could not be written");
    }
    hub.look_at_lifetime().await;
    hub.audit.flush().await;
    tracing::info!("stopped");
}

async fn told() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be heard");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn sessions(hub: &Hub) -> Vec<Arc<Session>> {
    hub.users
        .all()
        .iter()
        .flat_map(|user| user.lock().sessions.clone())
        .collect()
}

/// Tells each device when to come back: each its own slice of the drain, so that a restart is not a stampede.
fn send_off(hub: &Hub, drain: Duration) {
    let sessions = sessions(hub);
    let slices = u64::try_from(sessions.len()).unwrap_or(u64::MAX).max(1);
    let drain = u64::try_from(drain.as_millis()).unwrap_or(u64::MAX);
    for (nth, session) in (0..).zip(&sessions) {
        let reconnect_after = ReconnectAfter {
            min_ms: drain.saturating_mul(nth) / slices,
            max_ms: drain.saturating_mul(nth + 1) / slices,
        };
        let reason = "the hub is going away".to_owned();
        let goaway = HubFrame::Goaway(Goaway {
            reason,
            reconnect_after,
        });
        session.link.say(&text::framed(&encode(&goaway)));
    }
}
