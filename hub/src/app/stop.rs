//! Going away: devices are sent off one by one, redeems under way are brought home.

use std::{sync::Arc, time::Duration};

use lockstep_engine::grant::Input;
use lockstep_protocol::{
    Close, HubFrame, encode,
    frame::{Goaway, ReconnectAfter},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep, timeout_at},
};

use super::Hub;
use crate::{cluster::Fact, session::Session, transport::text, user::User};

/// How often to look whether the last session has left.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the close frames and the answers of requests have to get out.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// The same for each session that is closed: with very many of them the frames themselves take a while.
const LAST_WORD: Duration = Duration::from_micros(100);
/// How long redeems under way and their commits have after the drain; the claim keeps what is not done by then.
const LAST_REDEEMS: Duration = Duration::from_secs(20);

/// Waits until the hub is told to stop, and stops it.
pub(super) async fn wait(hub: &Arc<Hub>) {
    told().await;
    let drain = hub.config.server.drain;
    tracing::info!(?drain, sessions = sessions(hub).len(), "going away");
    hub.leaving.cancel();
    hub.bus.tell(Fact::Leaving);
    send_off(hub, drain);
    see_off(hub, Instant::now() + drain).await;
    // Only now: until here there was time for whole rounds.
    wait_for_no_further_try(hub);
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
    if !hub.audit.flush().await {
        tracing::error!("stopped before the last audit records were on disk");
    }
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

/// Waits until the sessions have left, and closes those that have not by the deadline.
///
/// Where no other node takes the devices in, there is nothing that they could leave for before this hub is back: whoever
/// waits for nothing is closed at once. They still come back each at its own time.
async fn see_off(hub: &Hub, deadline: Instant) {
    let mut closed = 0;
    while !sessions(hub).is_empty() {
        let is_over = Instant::now() >= deadline;
        if is_over || is_alone(hub) {
            closed += hub.users.all().iter().map(|user| close(user, is_over)).sum::<u32>();
        }
        if is_over {
            break;
        }
        sleep(LOOK_EVERY.min(deadline - Instant::now())).await;
    }
    if closed > 0 {
        sleep(LAST_WORDS.max(LAST_WORD * closed)).await;
    }
}

/// What is with a provider comes home; what would only be sent after a pause is left to whoever is there then.
fn wait_for_no_further_try(hub: &Arc<Hub>) {
    for user in hub.users.all() {
        let grants: Vec<_> = user.lock().slots.keys().cloned().collect();
        for grant in grants {
            hub.tell(&user, &grant, Input::Leave);
        }
    }
}

/// Whether there is no other node: none is known, nor should there be one.
fn is_alone(hub: &Hub) -> bool {
    let place = hub.bus.place().among(hub.config.cluster.nodes);
    place.of == 1 && !hub.bus.others_live()
}

/// Closes a user's sessions, and tells how many. Unless `all`, those stay that have something to wait for: an answer, or
/// the end of a redeem.
fn close(user: &User, all: bool) -> u32 {
    let inner = user.lock();
    let redeeming = inner.slots.values().any(|slot| slot.machine.is_refreshing());
    let open = inner.sessions.iter().filter(|session| session.link.closing().is_none());
    let done = open.filter(|session| all || !redeeming && !session.is_waiting());
    done.map(|session| session.link.close(Close::GoingAway))
        .map(|()| 1)
        .sum()
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
