//! What is done now and then.

use std::{sync::Arc, time::Duration};

use tokio::time::{Interval, MissedTickBehavior};

use super::Hub;
use crate::{clock, config::StoreUrl, telemetry::metrics};

/// How often there is a round.
const EVERY: Duration = Duration::from_secs(1);
/// In every how many rounds idle users are evicted.
const EVICT_EVERY: u32 = 10;
/// In every how many devices are counted.
const COUNT_EVERY: u32 = 3;
/// In every how many the store's lifetime is looked at and the witness written.
const WITNESS_EVERY: u32 = 5;
/// In every how many what waits in the spool is brought home, and a store that refused a write is tried.
const LAND_EVERY: u32 = 5;
/// In every how many to look for what no fact told, when other nodes share the store.
const LOOK_EVERY: u32 = 2;
/// In every how many to measure how far the store's clock is from this node's.
const CLOCK_EVERY: u32 = 30;
/// How many users are asked for at once.
const BATCH: usize = 1000;

/// Does what is done now and then, until the hub stops. Side by side: a store that does not answer holds up each of those
/// who wait for it by one time-out, and nobody else.
pub(super) async fn run(hub: Arc<Hub>) {
    let is_shared = matches!(hub.config.store.url, StoreUrl::Postgres(_));
    let look = async {
        if is_shared {
            look(&hub).await;
        }
    };
    tokio::join!(keep_house(&hub), write(&hub), witness(&hub), look);
}

/// Ticks once in so many rounds.
fn once_in(rounds: u32) -> Interval {
    let mut every = tokio::time::interval(EVERY * rounds);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    every
}

/// What needs no store.
async fn keep_house(hub: &Hub) {
    let mut every = once_in(1);
    for round in 0_u32.. {
        every.tick().await;
        hub.share_limits();
        hub.mark_connected();
        if round % EVICT_EVERY == 0 {
            hub.rates.tidy();
            hub.identity.tidy();
            let evicted = hub.evict();
            tracing::trace!(evicted, "idle users evicted");
        }
        if round % COUNT_EVERY == 0 {
            let (connected, behind) = hub.count_devices();
            metrics::devices(connected, behind);
            metrics::users_resident(hub.users.len());
            metrics::spool_entries(hub.spool.entries());
            metrics::cluster_available(hub.bus.trouble().is_none());
        }
    }
}

/// What the store is to keep.
async fn write(hub: &Arc<Hub>) {
    let mut every = once_in(1);
    for round in 0_u32.. {
        every.tick().await;
        // So that the scheduler knows of it.
        if let Err(error) = hub.write_uses().await {
            tracing::warn!(%error, "use of grants and devices could not be written");
        }
        if round % LAND_EVERY == 0 {
            hub.look_at_writes().await;
            if hub.spool.entries() > 0
                && hub.writes.refused().is_none()
                && let Err(error) = hub.land_spool().await
            {
                tracing::error!(%error, "the spool cannot be read");
            }
        }
    }
}

/// Whether it is still the same store. By a way of its own: one that went back in time is closed to everybody else.
async fn witness(hub: &Arc<Hub>) {
    let mut every = once_in(WITNESS_EVERY);
    loop {
        every.tick().await;
        hub.look_at_lifetime().await;
    }
}

/// What other nodes did.
async fn look(hub: &Arc<Hub>) {
    let mut every = once_in(1);
    for round in 0_u32.. {
        every.tick().await;
        if round % LOOK_EVERY == 0 {
            hub.look_at_all().await;
        }
        if round % CLOCK_EVERY == 0 || clock::was_set() {
            hub.set_clock().await;
        }
    }
}

impl Hub {
    /// Keeps each provider's limits over the whole cluster: every node takes its share.
    pub(super) fn share_limits(&self) {
        let place = self.bus.place().among(self.config.cluster.nodes);
        metrics::cluster_nodes(place.of);
        for provider in self.providers.iter() {
            provider.share_limits(place);
        }
    }

    /// Looks whether anything that is connected here has moved elsewhere, and who was revoked.
    pub async fn look_at_all(self: &Arc<Self>) {
        let mut users = self.users.all();
        users.retain(|user| user.loaded.initialized());
        for some in users.chunks(BATCH) {
            let ids: Vec<_> = some.iter().map(|user| user.id.clone()).collect();
            let seqs = match self.store.seqs(&ids).await {
                Ok(seqs) => seqs,
                Err(error) => {
                    tracing::warn!(%error, "what other nodes committed cannot be found now");
                    return;
                }
            };
            for (id, seq) in seqs {
                if let Some(user) = self.users.resident(&id)
                    && user.board().seq < seq
                {
                    self.reload(&user);
                }
            }
        }
        if let Err(error) = self.identity.reload_revocations().await {
            tracing::warn!(%error, "who was revoked on other nodes cannot be found now");
        }
    }

    /// Keeps this node's clock in step with the store's, so that a skewed node misjudges nothing.
    pub(super) async fn set_clock(&self) {
        let before = clock::mono();
        if let Ok(theirs) = self.store.clock().await {
            clock::follow(theirs, before, clock::mono());
        }
    }
}
