//! One running hub: what it is made of, how it starts and how it stops.

mod calls;
mod facts;
mod landing;
mod lifetime;
mod people;
mod reseal;
mod start;
mod stop;
mod sweep;
mod uses;
mod writes;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use lockstep_engine::{grant::WaiterId, policy::Policy, record::Holder};
use lockstep_protocol::{Epoch, GrantName};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use calls::NoAnswer;
pub use reseal::{ResealError, Resealed};
pub use start::{StartError, run};

use crate::{
    audit::Audit,
    cluster::{Bus, Lock},
    config::Config,
    http::{AdminToken, Rates},
    identity::Identity,
    provider::Providers,
    shell::Timers,
    spool::Spool,
    store::Store,
    transport::doors::Doors,
    user::Registry,
    vault::Vault,
};

use people::Round;
use uses::Uses;
use writes::Writes;

/// One running hub.
pub struct Hub {
    /// The settings.
    pub config: Arc<Config>,
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The sealing keys.
    pub vault: Arc<Vault>,
    /// Results that the store refused.
    pub spool: Spool,
    /// Who is speaking.
    pub identity: Arc<Identity>,
    /// The providers.
    pub providers: Providers,
    /// The other nodes.
    pub bus: Box<dyn Bus>,
    /// What keeps this node's redeemers apart from other nodes'.
    pub lock: Box<dyn Lock>,
    /// This node, this run.
    pub me: Holder,
    /// The resident users.
    pub users: Registry,
    /// What wakes the grants' machines.
    pub timers: Timers,
    /// Effects under way: the hub waits for them before it stops.
    pub tasks: TaskTracker,
    /// The hub is going away: no new work, devices are sent off.
    pub leaving: CancellationToken,
    /// What may connect, and how many.
    pub doors: Doors,
    /// Who may call the admin API.
    pub admin: AdminToken,
    /// How often devices may ask, and addresses may fail.
    pub rates: Rates,
    /// Whether the store takes writes.
    pub writes: Writes,
    /// What happened, for those who check it.
    pub audit: Audit,
    /// Held while the sealing keys change.
    pub keys_in_work: tokio::sync::Mutex<()>,
    uses: Uses,
    round: parking_lot::Mutex<Round>,
    epoch: AtomicU64,
    commits: AtomicU64,
    waiters: AtomicU64,
}

impl Hub {
    /// The store's lifetime.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Relaxed))
    }

    /// A fresh id for one who waits.
    pub fn next_waiter(&self) -> WaiterId {
        WaiterId(self.waiters.fetch_add(1, Ordering::Relaxed))
    }

    /// What the rules need to know of a grant's provider.
    pub fn policy(&self, grant: &GrantName) -> Arc<Policy> {
        self.providers
            .get(grant.provider())
            .map_or_else(Arc::default, |provider| provider.policy())
    }
}
