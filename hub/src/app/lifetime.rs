//! The store's lifetime: borne witness to outside of it, and noticed when it is another.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use lockstep_protocol::{Close, Epoch, limits::HELLO_WITHIN};
use tokio::time::sleep;

use super::Hub;
use crate::{
    audit::Event,
    store::{Mark, Store, StoreError, epoch_after},
};

/// What people are told of grants of a store that went back.
const REASON: &str = "the hub's store was restored from an older state";

/// Gives a store that went back in time a new lifetime, in which every grant is suspect.
pub(super) async fn doubt(store: &dyn Store, seen: Mark, found: Mark) -> Result<Mark, StoreError> {
    tracing::error!(
        seen = seen.commits,
        found = found.commits,
        "the store went back in time: all grants are suspect"
    );
    let newest = Epoch(seen.epoch.0.max(found.epoch.0));
    store.restored(epoch_after(newest), REASON).await
}

impl Hub {
    /// Looks how far the store has come, and writes it down outside the store. One that went back in time is given a new
    /// lifetime, and one that has a new lifetime is followed into it.
    pub(super) async fn look_at_lifetime(self: &Arc<Self>) {
        let seen = self.seen();
        let found = match self.store.mark().await {
            Ok(mark) => mark,
            Err(error) => {
                tracing::warn!(%error, "the store does not tell how far it has come");
                return;
            }
        };
        let mark = if found.is_behind(seen) {
            match doubt(&*self.store, seen, found).await {
                Ok(mark) => mark,
                Err(error) => {
                    tracing::error!(%error, "a store that went back in time could not be marked so yet");
                    return;
                }
            }
        } else {
            found
        };
        self.commits.store(mark.commits, Ordering::Relaxed);
        if mark.epoch != seen.epoch {
            self.begin_anew(mark.epoch);
            self.store.follow(mark);
        }
        if let Err(error) = self.spool.put_witness(mark).await {
            tracing::warn!(%error, "the witness could not be written");
        }
    }

    /// What this node last saw of the store.
    fn seen(&self) -> Mark {
        Mark {
            epoch: self.epoch(),
            commits: self.commits.load(Ordering::Relaxed),
        }
    }

    /// Nothing that is known of any user belongs to the new lifetime. Devices come back and are told everything (`reset`);
    /// what was under way goes on and lands where its version is still current.
    fn begin_anew(self: &Arc<Self>, epoch: Epoch) {
        self.epoch.store(epoch.0, Ordering::Relaxed);
        self.audit.record(Event::StoreRestored { epoch });
        let forgotten = self.users.forget();
        tracing::warn!(%epoch, users = forgotten.len(), "the store has a new lifetime: devices start over");
        for user in &forgotten {
            user.close_all(Close::GoingAway);
        }
        // Whoever was on the way in a moment ago holds a user that is forgotten now.
        self.tasks.spawn(async move {
            sleep(HELLO_WITHIN + Duration::from_secs(1)).await;
            for user in &forgotten {
                user.close_all(Close::GoingAway);
            }
        });
    }
}
