//! What must hold, told from the providers' records and the devices' diaries alone.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    arena::{Arena, User, Wire},
    chaos::{Event, Lost, What},
};
use crate::{
    provider::{Call, Provider},
    wait::eventually,
};

/// How long after its cause a redeem may be repeated because of it: the longest fault, a lease, a late wait.
const AFTERMATH: Duration = Duration::from_secs(45);

/// What was found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Token calls.
    pub calls: usize,
    /// Refresh tokens that were sent.
    pub versions: usize,
    /// Calls that repeated one whose outcome a fault had hidden.
    pub repeats: usize,
    /// `token` and `status` frames that devices saw.
    pub frames: usize,
    /// How often devices were welcomed or polled.
    pub connects: usize,
    /// What must not be.
    pub faults: Vec<String>,
}

/// Waits until every device holds what the hubs hold, alive at the provider, and says how long that took. `meanwhile` is
/// done before each look.
///
/// # Panics
/// When it takes longer than `bound`.
pub async fn converge(arena: &Arena, bound: Duration, mut meanwhile: impl AsyncFnMut()) -> Duration {
    let began = Instant::now();
    for user in &arena.users {
        eventually(
            &format!("all devices of {} hold the newest", user.name),
            bound,
            async || {
                meanwhile().await;
                agrees(arena, user).then_some(())
            },
        )
        .await;
    }
    began.elapsed()
}

/// All devices hold one token, which the provider issued last and with a life of its own: nothing is on its way.
fn agrees(arena: &Arena, user: &User) -> bool {
    let newest = arena.provider(user).newest(&user.name);
    let soon = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
        + 600;
    user.devices.iter().all(|device| {
        device.holds(user.grant()).is_some_and(|held| {
            held["access_token"] == newest.access_token.as_str() && held["expires_at"].as_u64() > Some(soon)
        })
    })
}

/// Judges the whole run, in which `broken` was done to it.
pub fn judge(arena: &Arena, broken: &[Event]) -> Verdict {
    let mut verdict = Verdict::default();
    let events = &[broken, &arena.stalls.events()].concat();
    for provider in [&arena.graceful, &arena.strict] {
        single_flight(provider, events, &mut verdict);
    }
    for user in &arena.users {
        for device in &user.devices {
            let faults = device.faults();
            verdict.frames += device.seen().len();
            verdict.connects += device.connects();
            verdict.faults.extend(
                faults
                    .into_iter()
                    .map(|fault| format!("P3, {} of {}: {fault}", device.device.id, user.name)),
            );
            let tokens = device.tokens();
            let tokens = tokens.iter().map(|(at, token)| (*at, token.as_str()));
            let sent = |call: &Call| sent_at(call, events);
            for late in arena.provider(user).sent_after_successor(tokens, sent) {
                verdict.faults.push(format!(
                    "P1, {}: generation {} was sent by {:?} after a device had seen its successor; broken then: {}",
                    user.name,
                    late.generation,
                    node_of(&late),
                    around(&late, events)
                ));
            }
        }
    }
    verdict.faults.sort();
    verdict.faults.dedup();
    verdict
}

/// One call for each refresh token, but where a fault hid the outcome of the former.
fn single_flight(provider: &Provider, events: &[Event], verdict: &mut Verdict) {
    let mut by_token: HashMap<String, Vec<Call>> = HashMap::new();
    for call in provider.calls() {
        by_token.entry(call.refresh_token.clone()).or_default().push(call);
    }
    verdict.versions += by_token.len();
    for calls in by_token.into_values() {
        verdict.calls += calls.len();
        for pair in calls.windows(2) {
            if met_a_fault(&pair[0], &pair[1]) || events.iter().any(|event| hides(event, &pair[0], &pair[1])) {
                verdict.repeats += 1;
            } else {
                verdict.faults.push(format!(
                    "P1, {}: generation {} was sent by {} and {:?} later by {}, and nothing had happened to the former",
                    pair[0].family,
                    pair[0].generation,
                    node_of(&pair[0]).map_or(-1, |node| i64::try_from(node).unwrap_or(-1)),
                    pair[1].arrived - pair[0].arrived,
                    node_of(&pair[1]).map_or(-1, |node| i64::try_from(node).unwrap_or(-1)),
                ));
            }
        }
    }
}

/// Whether `former` met a fault of the provider's and was over before `next` was made. A fault waits for the next call,
/// however long after its event that comes.
fn met_a_fault(former: &Call, next: &Call) -> bool {
    former.faulted && former.over.is_some_and(|over| over <= next.arrived)
}

/// Whether an event can have hidden the outcome of `former` from the node that made it, before `next` was made.
fn hides(event: &Event, former: &Call, next: &Call) -> bool {
    let was_there =
        event.from <= next.arrived && event.to.is_none_or(|to| to + Duration::from_secs(1) >= former.arrived);
    let is_recent =
        next.arrived <= former.arrived + AFTERMATH || event.to.is_none_or(|to| next.arrived <= to + AFTERMATH);
    let concerns = match event.what {
        What::Kill(node) | What::Pause(node) => Some(node) == node_of(former),
        What::Cut(node, wire) | What::Silence(node, wire) => {
            Some(node) == node_of(former) && matches!(wire, Wire::Providers | Wire::Postgres)
        }
        What::PostgresStop | What::Provider(_) | What::Stall => true,
        What::RedisKill | What::RedisPause | What::RedisFlush => false,
    };
    was_there && is_recent && concerns
}

/// When a call left its node, as early as can be: what was sent over a link that had fallen silent arrives when it is
/// mended, even from a node that gave it up or died meanwhile.
fn sent_at(call: &Call, events: &[Event]) -> Instant {
    let held = events.iter().filter(|event| {
        let is_over = event.to.is_none_or(|to| to + Duration::from_secs(1) >= call.arrived);
        let holds = matches!(event.what, What::Silence(node, Wire::Providers) if Some(node) == node_of(call));
        holds && event.from <= call.arrived && is_over
    });
    held.map(|event| event.from).min().unwrap_or(call.arrived)
}

/// How a grant came to be given up: what its provider was asked and what was broken in the minutes before.
pub fn history(arena: &Arena, lost: &Lost, events: &[Event]) -> String {
    let since = lost.at - Duration::from_secs(150);
    let mut told = Vec::new();
    let providers = [&arena.graceful, &arena.strict];
    for call in providers.iter().flat_map(|provider| provider.calls_of(&lost.user)) {
        if call.arrived >= since && call.arrived <= lost.at {
            let (node, took) = (node_of(&call), call.over.map(|over| over - call.arrived));
            let what = format!(
                "generation {} by {node:?}: {:?} in {took:?}",
                call.generation, call.outcome
            );
            told.push((call.arrived, what));
        }
    }
    let then = events
        .iter()
        .filter(|event| event.from >= since && event.from <= lost.at);
    told.extend(then.map(|event| (event.from, event.to_string())));
    told.sort();
    let lines: Vec<_> = told
        .into_iter()
        .map(|(at, what)| format!("  {:?} before: {what}", lost.at - at))
        .collect();
    format!("{}: {}\n{}", lost.user, lost.reason, lines.join("\n"))
}

/// What was broken in the half minute before a call arrived.
fn around(call: &Call, events: &[Event]) -> String {
    let since = call.arrived - Duration::from_secs(30);
    let then = events
        .iter()
        .filter(|event| event.from <= call.arrived && event.to.is_none_or(|to| to >= since));
    let told: Vec<_> = then
        .map(|event| format!("{event} from {:?} before", call.arrived - event.from))
        .collect();
    told.join(", ")
}

/// Each node has a client id of its own.
fn node_of(call: &Call) -> Option<usize> {
    call.parameters.get("client_id")?.strip_prefix("node-")?.parse().ok()
}
