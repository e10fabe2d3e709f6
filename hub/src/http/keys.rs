//! `/admin/v1/keys`: the sealing keys.

use std::sync::Arc;

use axum::{
    Json as Answer,
    extract::{Path, State},
    http::StatusCode,
};
use lockstep_protocol::Code;
use serde::Serialize;
use tokio::sync::MutexGuard;

use super::problem::Problem;
use crate::{
    app::{Hub, ResealError, Resealed},
    audit::Event,
    config::StoreUrl,
    vault::{KeyId, VaultError},
};

/// A sealing key; never the key itself.
#[derive(Serialize)]
pub(super) struct KeyView {
    id: String,
    /// Whether it is here; if not, its records cannot be opened.
    here: bool,
    /// Whether new records are sealed with it.
    seals: bool,
    /// How many records in the store are sealed with it.
    records: u64,
}

/// What a rotation did.
#[derive(Serialize)]
pub(super) struct Rotated {
    /// The key that seals.
    key: String,
    #[serde(flatten)]
    resealed: Resealed,
}

/// `GET /admin/v1/keys`
pub(super) async fn list(State(hub): State<Arc<Hub>>) -> Result<Answer<Vec<KeyView>>, Problem> {
    let here = hub.vault.key_ids();
    let counts = hub.sealed_with().await?;
    let view = |(id, records): (KeyId, u64)| KeyView {
        id: id.to_string(),
        here: here.contains(&id),
        seals: here.first() == Some(&id),
        records,
    };
    Ok(Answer(counts.into_iter().map(view).collect()))
}

/// `POST /admin/v1/keys/rotate`: a fresh key, and everything sealed anew with it.
pub(super) async fn rotate(State(hub): State<Arc<Hub>>) -> Result<Answer<Rotated>, Problem> {
    let _alone = alone(&hub)?;
    if matches!(hub.config.store.url, StoreUrl::Postgres(_)) {
        return Err(refused(
            "nodes that share a store have key files of their own: put the new key at the end of each, restart them one by one, \
             move it to the top of each, restart them again, and then reseal",
        ));
    }
    let vault = Arc::clone(&hub.vault);
    let added = tokio::task::spawn_blocking(move || vault.add_key()).await;
    let added = added.map_err(|error| failed(&error))?;
    let key = added.map_err(|error| key_trouble(&error))?;
    hub.audit.record(Event::KeyAdded { key: key.to_string() });
    reseal_all(&hub).await
}

/// `POST /admin/v1/keys/reseal`: everything sealed anew with the key that seals.
pub(super) async fn reseal(State(hub): State<Arc<Hub>>) -> Result<Answer<Rotated>, Problem> {
    let _alone = alone(&hub)?;
    reseal_all(&hub).await
}

async fn reseal_all(hub: &Arc<Hub>) -> Result<Answer<Rotated>, Problem> {
    // In a task of its own: whoever asked may go, and the work goes on.
    let work = {
        let hub = Arc::clone(hub);
        hub.clone().tasks.spawn(async move { hub.reseal().await })
    };
    let resealed = work.await.map_err(|error| failed(&error))?;
    let resealed = resealed.map_err(|error| match error {
        ResealError::Store(error) => error.into(),
        ResealError::Busy(_) => Problem::new(Code::Unavailable, error.to_string()),
        ResealError::Vault { .. } => refused(error.to_string()),
    })?;
    let key = hub.vault.key_ids().first().map(ToString::to_string);
    Ok(Answer(Rotated {
        key: key.unwrap_or_default(),
        resealed,
    }))
}

/// `DELETE /admin/v1/keys/{id}`: forgets a key that nothing is sealed with any more.
pub(super) async fn remove(State(hub): State<Arc<Hub>>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let _alone = alone(&hub)?;
    let id: KeyId = id.parse().map_err(|()| no_such_key())?;
    if !hub.vault.key_ids().contains(&id) {
        return Err(no_such_key());
    }
    let sealed = hub.sealed_with().await?.get(&id).copied().unwrap_or(0);
    if sealed > 0 {
        return Err(refused(format!("{sealed} records are sealed with it: reseal first")));
    }
    if hub.spool.entries() > 0 {
        return Err(refused("results wait in the spool, which may be sealed with it"));
    }
    let vault = Arc::clone(&hub.vault);
    let removed = tokio::task::spawn_blocking(move || vault.remove_key(id)).await;
    let removed = removed.map_err(|error| failed(&error))?;
    removed.map_err(|error| key_trouble(&error))?;
    hub.audit.record(Event::KeyRemoved { key: id.to_string() });
    Ok(StatusCode::NO_CONTENT)
}

/// One such piece of work at a time.
fn alone(hub: &Hub) -> Result<MutexGuard<'_, ()>, Problem> {
    hub.keys_in_work
        .try_lock()
        .map_err(|_| Problem::new(Code::Unavailable, "the keys are being worked on; try again"))
}

fn no_such_key() -> Problem {
    Problem::new(Code::UnknownGrant, "no such key")
}

fn refused(why: impl Into<String>) -> Problem {
    Problem::new(Code::Suspect, why).with_status(StatusCode::CONFLICT)
}

fn key_trouble(error: &VaultError) -> Problem {
    tracing::error!(%error, "sealing keys");
    refused(error.to_string())
}

fn failed(error: &tokio::task::JoinError) -> Problem {
    tracing::error!(%error, "sealing keys");
    Problem::new(Code::Unavailable, "the hub is going away")
}
