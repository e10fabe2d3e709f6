//! Built-in alerts: what is counted here is judged every second, and told to the log, the metrics and a webhook.

mod rules;
#[cfg(test)]
mod tests;
mod webhook;

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};

pub use rules::{Alert, Change, Counts, Ratios, Rules};
use webhook::Webhook;

use super::metrics;
use crate::{clock, config::Alerts};

/// How often the counts are judged.
const EVERY: Duration = Duration::from_secs(1);
/// After how many judgements the histograms are tidied up.
const UPKEEP_EVERY: u64 = 5;

static REDEEMS: AtomicU64 = AtomicU64::new(0);
static COMMITTED: AtomicU64 = AtomicU64::new(0);
static CONFLICTS: AtomicU64 = AtomicU64::new(0);
static LEASE_WAIT_TIMEOUTS: AtomicU64 = AtomicU64::new(0);
static STORE_UNAVAILABLE: AtomicBool = AtomicBool::new(false);
static CLUSTER_UNAVAILABLE: AtomicBool = AtomicBool::new(false);
/// As many as there are providers, at most.
static MISCONFIGURED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// A redeem at `provider` ended.
pub(super) fn redeemed(provider: &str, outcome: &str) {
    REDEEMS.fetch_add(1, Ordering::Relaxed);
    match outcome {
        "committed" => {
            COMMITTED.fetch_add(1, Ordering::Relaxed);
            // It takes the hub's word again.
            MISCONFIGURED
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(provider);
        }
        "conflict" => {
            CONFLICTS.fetch_add(1, Ordering::Relaxed);
        }
        _ => {}
    }
}

/// A wait for a lease timed out.
pub(super) fn lease_wait_timeout() {
    LEASE_WAIT_TIMEOUTS.fetch_add(1, Ordering::Relaxed);
}

/// `provider` refused the hub itself.
pub(super) fn misconfigured(provider: &str) {
    let mut providers = MISCONFIGURED.lock().unwrap_or_else(PoisonError::into_inner);
    providers.insert(provider.to_owned());
}

/// Whether the store does what it is told.
pub(super) fn store_available(available: bool) {
    STORE_UNAVAILABLE.store(!available, Ordering::Relaxed);
}

/// Whether lock and bus between nodes work.
pub(super) fn cluster_available(available: bool) {
    CLUSTER_UNAVAILABLE.store(!available, Ordering::Relaxed);
}

fn counts() -> Counts {
    let misconfigured = MISCONFIGURED.lock().unwrap_or_else(PoisonError::into_inner).len();
    Counts {
        // First, so that no part is ever larger than the whole.
        committed: COMMITTED.load(Ordering::Relaxed),
        conflicts: CONFLICTS.load(Ordering::Relaxed),
        redeems: REDEEMS.load(Ordering::Relaxed),
        lease_wait_timeouts: LEASE_WAIT_TIMEOUTS.load(Ordering::Relaxed),
        misconfigured: misconfigured as u64,
        store_unavailable: STORE_UNAVAILABLE.load(Ordering::Relaxed),
        cluster_unavailable: CLUSTER_UNAVAILABLE.load(Ordering::Relaxed),
    }
}

/// Judges the counts every second, for as long as it is polled. `node` is this node's name, for the webhook.
pub async fn run(settings: Alerts, node: String) {
    let webhook = Webhook::start(&settings, &node);
    let mut rules = Rules::new(settings);
    metrics::expect_alerts();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for n in 0_u64.. {
        ticks.tick().await;
        let (changes, ratios) = rules.tick(clock::mono(), counts());
        metrics::ratios(ratios.success, ratios.conflict);
        for change in changes {
            log(&change);
            metrics::alert(change.alert.as_str(), change.level);
            if let Some(webhook) = &webhook {
                webhook.tell(&change);
            }
        }
        if n % UPKEEP_EVERY == 0 {
            metrics::upkeep();
        }
    }
}

fn log(change: &Change) {
    let Change {
        alert,
        level,
        value,
        threshold,
    } = change;
    let (alert, meaning) = (alert.as_str(), alert.meaning());
    if *level == 0 {
        tracing::info!(alert, value, threshold, "alert ended");
    } else {
        tracing::error!(alert, level, value, threshold, meaning, "alert");
    }
}
