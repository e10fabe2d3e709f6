//! Redeems ahead of expiry: permits come before claims, and claims are taken in batches.

use std::{collections::HashMap, sync::Arc, time::Duration};

use lockstep_engine::{
    entropy,
    grant::{Ask, Asker, Input},
    preload::IN_USE,
    time::{Mono, Unix},
};
use lockstep_protocol::LeaseId;

use crate::{
    app::Hub,
    clock,
    config::{ClusterUrl, StoreUrl},
    provider::Provider,
    shell::OsEntropy,
    store::{Due, DueQuery, StoreError},
    user::Ticket,
};

/// The most that is claimed at once.
const BATCH: usize = 64;
/// How often to look for what is due.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long nodes take to hear of each other: each says once a second that it is there.
const ACQUAINTANCE: Duration = Duration::from_millis(2_500);
/// How long to leave a store alone that could not be asked.
const AFTER_TROUBLE: Duration = Duration::from_secs(2);
/// How long it is looked for what was claimed by a look whose answer was lost: a claim that is not renewed stands no longer,
/// and a server that was not heard may write it until then.
const LOST_FOR: Duration = Duration::from_secs(60);

/// Leases that may have been taken, and from when on: the answers were lost.
type Lost = HashMap<LeaseId, Mono>;

/// Redeems what is due at one provider, until the hub is leaving.
pub async fn run(hub: Arc<Hub>, name: String) {
    let Some(provider) = hub.providers.get(&name).cloned() else {
        return;
    };
    if hub.config.cluster.url != ClusterUrl::Local || matches!(hub.config.store.url, StoreUrl::Postgres(_)) {
        // Its share of the limits is known once the others were heard.
        tokio::select! {
            () = tokio::time::sleep(ACQUAINTANCE) => {}
            () = hub.leaving.cancelled() => return,
        }
    }
    let mut lost = Lost::new();
    loop {
        let pause = match round(&hub, &provider, &mut lost).await {
            Ok(claimed) if claimed == BATCH => Duration::ZERO,
            Ok(_) => LOOK_EVERY,
            Err(error) => {
                tracing::warn!(provider = name, %error, "what is due cannot be found");
                AFTER_TROUBLE
            }
        };
        tokio::select! {
            // Jittered, so that nodes do not look in step.
            () = tokio::time::sleep(pause.mul_f64(0.75 + rand::random::<f64>() / 2.0)) => {}
            () = hub.leaving.cancelled() => return,
        }
    }
}

async fn round(hub: &Arc<Hub>, provider: &Arc<Provider>, lost: &mut Lost) -> Result<usize, StoreError> {
    let mut tickets = tickets(hub, provider);
    if tickets.is_empty() {
        return Ok(0);
    }
    let leases: Vec<LeaseId> = tickets.iter().map(|_| entropy::lease_id(&mut OsEntropy)).collect();
    let asked = clock::mono();
    lost.retain(|_, taken| asked.since(*taken) < LOST_FOR);
    let settings = provider.settings();
    let now = clock::unix();
    let due = hub
        .store
        .claim_due(DueQuery {
            provider: provider.name().to_owned(),
            holder: hub.me.clone(),
            ttl_ms: u64::try_from(provider.policy().lease.as_millis()).unwrap_or(u64::MAX),
            used_since: now.minus(settings.idle_after),
            in_use_since: if settings.preload { now.minus(IN_USE) } else { Unix(0) },
            leases: leases.clone(),
            lost: lost.keys().copied().collect(),
        })
        .await;
    let due = match due {
        Ok(due) => due,
        Err(error) => {
            tickets.into_iter().for_each(Ticket::unused);
            lost.extend(leases.into_iter().map(|lease| (lease, asked)));
            return Err(error);
        }
    };
    let claimed = due.len();
    for due in due {
        if let Some(ticket) = tickets.pop() {
            let claim = due.record.claim.as_ref();
            let taken = claim.and_then(|claim| lost.remove(&claim.lease));
            hand_over(hub, due, ticket, taken.unwrap_or(asked));
        }
    }
    // Most looks find little that is due: a rate that they used up would keep those waiting who ask.
    tickets.into_iter().for_each(Ticket::unused);
    Ok(claimed)
}

fn tickets(hub: &Hub, provider: &Provider) -> Vec<Ticket> {
    let mut tickets = Vec::new();
    for permit in provider.try_permits(BATCH) {
        match hub.spool.reserve() {
            Ok(room) => tickets.push(Ticket {
                permit: Some(permit),
                room,
            }),
            Err(_) => permit.unused(),
        }
    }
    tickets
}

fn hand_over(hub: &Arc<Hub>, due: Due, ticket: Ticket, asked: Mono) {
    let Due {
        user,
        grant,
        claimed,
        record,
    } = due;
    // A claim that is not handed over here lapses, and is judged then: nothing was sent.
    let Ok(record) = hub.open_record(&user, &grant, record) else {
        return ticket.unused();
    };
    // Not read from the store first: the machine needs no more than this record, and a claim that nobody takes over would
    // have to be taken for a redeem whose outcome is unknown.
    let user = hub.users.get(&user);
    if claimed {
        hub.slot(&mut user.lock(), &grant).tickets.push(ticket);
        hub.tell(&user, &grant, Input::ClaimedAhead { record, asked });
        return;
    }
    // The permit goes back: what became of the abandoned claim comes first.
    ticket.unused();
    hub.tell(&user, &grant, Input::Seen(record));
    let ask = Ask {
        waiter: None,
        by: Asker::Scheduler,
        rejected: None,
    };
    hub.tell(&user, &grant, Input::Ask(ask));
}
