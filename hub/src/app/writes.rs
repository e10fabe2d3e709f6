//! Whether the store takes writes.

use parking_lot::Mutex;

use super::Hub;
use crate::{store::StoreError, telemetry::metrics};

/// What is known of the store's taking writes.
#[derive(Default)]
pub struct Writes(Mutex<Option<String>>);

impl Writes {
    /// What came of a write.
    pub fn note<T>(&self, answer: &Result<T, StoreError>) {
        let refused = answer.as_ref().err().map(ToString::to_string);
        if refused.is_some() {
            metrics::store_error();
        }
        let mut known = self.0.lock();
        if known.is_some() != refused.is_some() {
            metrics::store_available(refused.is_none());
            match &refused {
                Some(error) => tracing::error!(error, "the store takes no writes: nothing is redeemed until it does"),
                None => tracing::info!("the store takes writes again"),
            }
        }
        *known = refused;
    }

    /// Why writes are refused, if they are.
    pub fn refused(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

impl Hub {
    /// Looks whether a store that refused a write takes them again.
    pub(super) async fn look_at_writes(&self) {
        if self.writes.refused().is_some() {
            self.writes.note(&self.store.probe().await);
        }
    }
}
