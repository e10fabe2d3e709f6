//! What is done now and then.

use std::{sync::Arc, time::Duration};

use super::Hub;
use crate::telemetry;

/// How often use is written, so that the scheduler knows of it.
const USES_EVERY: Duration = Duration::from_secs(1);
/// How often everything that is connected counts as used anew.
const CONNECTED_EVERY: u32 = 30;
/// How often idle users are evicted.
const EVICT_EVERY: u32 = 10;
/// How often the witness is written.
const WITNESS_EVERY: u32 = 5;

/// Does what is done now and then, until the hub stops.
pub(super) async fn run(hub: Arc<Hub>) {
    let mut every = tokio::time::interval(USES_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 0_u32.. {
        every.tick().await;
        if round % CONNECTED_EVERY == 0 {
            hub.mark_connected();
        }
        if let Err(error) = hub.write_uses().await {
            tracing::warn!(%error, "use of grants and devices could not be written");
        }
        if round % EVICT_EVERY == 0 {
            let evicted = hub.evict();
            tracing::trace!(evicted, "idle users evicted");
        }
        if round % WITNESS_EVERY == 0 {
            hub.bear_witness().await;
        }
        telemetry::metrics::users_resident(hub.users.len());
        telemetry::metrics::upkeep();
    }
}

impl Hub {
    /// Writes down outside the store how far the store has come, so that one that went back in time is noticed.
    pub(super) async fn bear_witness(&self) {
        let mark = match self.store.mark().await {
            Ok(mark) => mark,
            Err(error) => {
                tracing::warn!(%error, "the store does not tell how far it has come");
                return;
            }
        };
        if let Err(error) = self.spool.put_witness(mark).await {
            tracing::warn!(%error, "the witness could not be written");
        }
    }
}
