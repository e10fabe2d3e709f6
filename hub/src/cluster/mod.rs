//! Several nodes: how they tell each other that something changed, and how they keep out of each other's way.
//!
//! Both are only ever about time. A fact triggers a read and is never the truth: a lost one costs latency, and the sweep
//! finds what no fact told. A lock makes contention cheap: whoever ignores it still meets the claim in the store.

pub mod fact;
mod facts;
mod redis;

use std::time::Duration;

use async_trait::async_trait;
use lockstep_protocol::{GrantName, LeaseId, UserId};
use tokio::sync::mpsc;

pub use fact::{Fact, Heard};
pub use facts::listen;

use crate::config::ClusterUrl;

/// How many facts may wait to be taken in; above it they are dropped, and the sweep finds what they told.
const MOST_WAITING: usize = 8192;

/// Where facts go.
pub trait Bus: Send + Sync + 'static {
    /// Tells the other nodes. Must not block; a fact may be lost.
    fn tell(&self, fact: Fact);

    /// Whether other nodes are alive.
    fn others_live(&self) -> bool;

    /// Whether facts travel now. Without them everything is found by the sweep.
    fn is_up(&self) -> bool;
}

/// Keeps redeemers of one grant apart, cheaply.
#[async_trait]
pub trait Lock: Send + Sync + 'static {
    /// Waits until the lock is ours, or `wait` has passed, or the lock cannot be asked. The claim decides either way.
    async fn take(&self, user: &UserId, grant: &GrantName, lease: LeaseId, ttl: Duration, wait: Duration);

    /// Keeps it for `ttl` from now, if it is ours.
    async fn renew(&self, user: &UserId, grant: &GrantName, lease: LeaseId, ttl: Duration);

    /// Gives it back, if it is ours.
    async fn release(&self, user: &UserId, grant: &GrantName, lease: LeaseId);
}

/// One node's connection to the others.
pub struct Cluster {
    /// Where facts go.
    pub bus: Box<dyn Bus>,
    /// What keeps redeemers apart.
    pub lock: Box<dyn Lock>,
    /// What the other nodes tell.
    pub heard: mpsc::Receiver<Heard>,
}

/// Joins the cluster that the settings name. A bus that cannot be reached now is tried again for as long as the hub
/// runs: the hub starts without it.
///
/// # Errors
/// When the URL is not one.
pub fn join(url: &ClusterUrl, node: &str) -> Result<Cluster, String> {
    let (hear, heard) = mpsc::channel(MOST_WAITING);
    match url {
        ClusterUrl::Local => Ok(Cluster {
            bus: Box::new(Local),
            lock: Box::new(Local),
            heard,
        }),
        ClusterUrl::Redis(url) => {
            let (bus, lock) = redis::join(url.expose(), node, hear)?;
            Ok(Cluster {
                bus: Box::new(bus),
                lock: Box::new(lock),
                heard,
            })
        }
    }
}

/// One node by itself: there is nobody to tell, and the claim alone keeps redeemers apart.
struct Local;

impl Bus for Local {
    fn tell(&self, _: Fact) {}

    fn others_live(&self) -> bool {
        false
    }

    fn is_up(&self) -> bool {
        true
    }
}

#[async_trait]
impl Lock for Local {
    async fn take(&self, _: &UserId, _: &GrantName, _: LeaseId, _: Duration, _: Duration) {}

    async fn renew(&self, _: &UserId, _: &GrantName, _: LeaseId, _: Duration) {}

    async fn release(&self, _: &UserId, _: &GrantName, _: LeaseId) {}
}
