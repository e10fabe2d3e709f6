//! Several nodes: how they tell each other that something changed, and how they keep out of each other's way.
//!
//! Both are only ever about time. A fact triggers a read and is never the truth: a lost one costs latency, and the sweep
//! finds what no fact told. A lock makes contention cheap: whoever ignores it still meets the claim in the store.

pub mod fact;
mod fallback;
mod nodes;
mod postgres;
mod redis;

use std::time::Duration;

use async_trait::async_trait;
use lockstep_protocol::{GrantName, LeaseId, UserId};
use tokio::sync::mpsc;

pub use fact::{Fact, Heard};

use self::{fallback::Fallback, postgres::PostgresBus};
use crate::config::ClusterUrl;

/// How many facts may wait to be taken in; above it they are dropped, and the sweep finds what they told.
const MOST_WAITING: usize = 8192;

/// Where facts go.
pub trait Bus: Send + Sync + 'static {
    /// Tells the other nodes. Must not block; a fact may be lost.
    fn tell(&self, fact: Fact);

    /// Whether other nodes are alive.
    fn others_live(&self) -> bool;

    /// Which of the living nodes this one is. Without news: as it was known last.
    fn place(&self) -> Place;

    /// What is the matter, if facts do not travel as they should. Without them everything is found by the sweep.
    fn trouble(&self) -> Option<&'static str>;
}

/// Which of how many nodes this one is: what the limits of a provider are shared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From 0; no two nodes that know each other have the same.
    pub nth: usize,
    /// How many there are, this one included.
    pub of: usize,
}

impl Place {
    /// No other node is known.
    pub const ALONE: Self = Self { nth: 0, of: 1 };

    /// Among at least so many nodes. Those that are not known may be anywhere: this one counts itself last.
    #[must_use]
    pub fn among(self, nodes: usize) -> Self {
        if nodes > self.of {
            Self {
                nth: nodes - 1,
                of: nodes,
            }
        } else {
            self
        }
    }

    /// This node's share of what all may do at once. Never nothing: a node that may not redeem serves nobody.
    pub fn share(self, whole: usize) -> usize {
        let rest = usize::from(self.nth < whole % self.of);
        (whole / self.of + rest).max(1)
    }
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

/// Joins the cluster that the settings name; `store` is the URL of the store, if that can carry facts. A bus that cannot be
/// reached now is tried again for as long as the hub runs: the hub starts without it.
///
/// # Errors
/// When a URL is not one.
pub fn join(url: &ClusterUrl, store: Option<&str>, node: &str) -> Result<Cluster, String> {
    let (hear, heard) = mpsc::channel(MOST_WAITING);
    let carried = store
        .map(|store| PostgresBus::start(store, node, hear.clone()))
        .transpose()?;
    let (bus, lock): (Box<dyn Bus>, Box<dyn Lock>) = match url {
        ClusterUrl::Local => match carried {
            None => (Box::new(Local), Box::new(Local)),
            Some(store) => (Box::new(store), Box::new(Local)),
        },
        ClusterUrl::Redis(url) => {
            let (redis, lock) = redis::join(url.expose(), node, hear)?;
            match carried {
                None => (Box::new(redis), Box::new(lock)),
                Some(store) => (Box::new(Fallback { redis, store }), Box::new(lock)),
            }
        }
    };
    Ok(Cluster { bus, lock, heard })
}

/// One node by itself: there is nobody to tell, and the claim alone keeps redeemers apart.
struct Local;

impl Bus for Local {
    fn tell(&self, _: Fact) {}

    fn others_live(&self) -> bool {
        false
    }

    fn place(&self) -> Place {
        Place::ALONE
    }

    fn trouble(&self) -> Option<&'static str> {
        None
    }
}

#[async_trait]
impl Lock for Local {
    async fn take(&self, _: &UserId, _: &GrantName, _: LeaseId, _: Duration, _: Duration) {}

    async fn renew(&self, _: &UserId, _: &GrantName, _: LeaseId, _: Duration) {}

    async fn release(&self, _: &UserId, _: &GrantName, _: LeaseId) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_whole() {
        for of in 1..=5 {
            for whole in of..=17 {
                let shares = (0..of).map(|nth| Place { nth, of }.share(whole));
                assert_eq!(shares.sum::<usize>(), whole, "{whole} among {of}");
            }
        }
        assert_eq!(Place { nth: 2, of: 3 }.share(2), 1, "never nothing");
    }

    #[test]
    fn nodes_that_are_not_known_yet_have_their_share() {
        assert_eq!(Place::ALONE.among(0), Place::ALONE);
        assert_eq!(Place::ALONE.among(3).share(16), 5);
        let known = Place { nth: 0, of: 3 };
        assert_eq!(known.among(2), known);
    }
}
