//! Sealing everything anew with the newest key, while the hub serves.
//!
//! In batches, each record by itself and only if it is still what was read: whoever writes meanwhile seals with the newest key
//! anyway. The identity keys come last: what they are sealed with is looked at when a hub starts, so a key that any
//! record still needs cannot be taken away unnoticed.

use std::collections::BTreeMap;

use lockstep_protocol::{GrantName, UserId};
use serde::Serialize;

use super::Hub;
use crate::{
    identity::Identity,
    store::{StoreError, StoredGrant},
    vault::{KeyId, VaultError},
};

/// How many grants are read at once.
const BATCH: usize = 256;
/// How often a record that changes under our hands is read again.
const MOST_TRIES: usize = 8;

/// Why not everything was sealed anew.
#[derive(Debug, thiserror::Error)]
pub enum ResealError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record does not open.
    #[error("{what}: {error}")]
    Vault {
        /// Which record.
        what: String,
        /// Why.
        error: VaultError,
    },
    /// A record changes too fast.
    #[error("{0} changes too fast; try again")]
    Busy(String),
}

/// How many records were sealed anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Resealed {
    /// Grants.
    pub grants: u64,
    /// Values that all nodes share.
    pub shared: u64,
}

impl Hub {
    /// Seals with the newest key what is sealed with an older one. Interrupted, it may be done again.
    ///
    /// # Errors
    /// [`ResealError`] names the record; those before it are done.
    pub async fn reseal(&self) -> Result<Resealed, ResealError> {
        let mut done = Resealed::default();
        let mut after = None;
        loop {
            let batch = self.store.scan(after, BATCH).await?;
            for (user, grant, row) in &batch {
                done.grants += u64::from(self.reseal_grant(user, grant, row.clone()).await?);
            }
            match batch.into_iter().last() {
                Some((user, grant, _)) => after = Some((user, grant)),
                None => break,
            }
        }
        let mut names = self.store.shared_names().await?;
        names.sort_by_key(|name| name == Identity::KEYS);
        for name in names {
            done.shared += u64::from(self.reseal_shared(&name).await?);
        }
        tracing::info!(
            grants = done.grants,
            shared = done.shared,
            "sealed anew with the newest key"
        );
        Ok(done)
    }

    async fn reseal_grant(&self, user: &UserId, grant: &GrantName, row: StoredGrant) -> Result<bool, ResealError> {
        let mut row = row;
        for _ in 0..MOST_TRIES {
            let anew = self.vault.reseal_record(user, grant, &row);
            let anew = anew.map_err(|error| ResealError::Vault {
                what: format!("{user} {grant}"),
                error,
            })?;
            let Some(anew) = anew else { return Ok(false) };
            if self.store.reseal(user, grant, &row, anew).await? {
                return Ok(true);
            }
            match self.store.load(user, grant).await? {
                Some(now) => row = now,
                None => return Ok(false),
            }
        }
        Err(ResealError::Busy(format!("{user} {grant}")))
    }

    async fn reseal_shared(&self, name: &str) -> Result<bool, ResealError> {
        for _ in 0..MOST_TRIES {
            let Some(sealed) = self.store.shared(name).await? else {
                return Ok(false);
            };
            let anew = self.vault.reseal(name, &sealed).map_err(|error| ResealError::Vault {
                what: name.to_owned(),
                error,
            })?;
            let Some(anew) = anew else { return Ok(false) };
            if self.store.share(name, anew.clone(), Some(sealed)).await? == anew {
                return Ok(true);
            }
        }
        Err(ResealError::Busy(name.to_owned()))
    }

    /// How many records are sealed with each key.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn sealed_with(&self) -> Result<BTreeMap<KeyId, u64>, StoreError> {
        let mut counts: BTreeMap<KeyId, u64> = self.vault.key_ids().into_iter().map(|id| (id, 0)).collect();
        let mut after = None;
        loop {
            let batch = self.store.scan(after, BATCH).await?;
            for (_, _, row) in &batch {
                for sealed in [&row.tokens, &row.alternate].into_iter().flatten() {
                    *counts.entry(KeyId(sealed.key)).or_default() += 1;
                }
            }
            match batch.into_iter().last() {
                Some((user, grant, _)) => after = Some((user, grant)),
                None => break,
            }
        }
        for name in self.store.shared_names().await? {
            if let Some(sealed) = self.store.shared(&name).await? {
                *counts.entry(KeyId(sealed.key)).or_default() += 1;
            }
        }
        Ok(counts)
    }
}
