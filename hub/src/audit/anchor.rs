//! The end of each node's chain, kept in the store: what tells that the newest records of a file were cut off.

use std::{sync::Arc, time::Duration};

use super::{Audit, AuditError, Head};
use crate::{
    store::{Sealed, Store},
    vault::Vault,
};

/// The most often that an anchor is written.
const EVERY: Duration = Duration::from_secs(1);

/// One node's anchor.
pub struct Anchor {
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    name: String,
    stored: Option<Sealed>,
}

impl Anchor {
    /// Reads the anchor of `node`, and how far its chain had come when it was last written.
    ///
    /// # Errors
    /// When the store does not answer or the anchor does not open.
    pub async fn load(store: Arc<dyn Store>, vault: Arc<Vault>, node: &str) -> Result<(Self, Head), AuditError> {
        let name = format!("audit-head/{node}");
        let stored = store.shared(&name).await?;
        let head = match &stored {
            None => Head::START,
            Some(sealed) => {
                let plain = vault
                    .open_sealed(&name, sealed)
                    .map_err(|error| AuditError::Key(error.to_string()))?;
                serde_json::from_slice(&plain).map_err(|_| AuditError::Key("the anchor cannot be read".into()))?
            }
        };
        Ok((
            Self {
                store,
                vault,
                name,
                stored,
            },
            head,
        ))
    }

    /// Writes the anchor as the chain grows, at most once a second, until the log is closed. To be run as a task.
    pub async fn follow(mut self, audit: Audit) {
        let Some(mut head) = audit.head() else { return };
        // The task must not keep the log open.
        drop(audit);
        loop {
            let now = *head.borrow_and_update();
            if let Err(error) = self.write(now).await {
                tracing::warn!(%error, "the audit log's anchor cannot be written");
            }
            tokio::time::sleep(EVERY).await;
            if head.changed().await.is_err() {
                return;
            }
        }
    }

    /// Writes the anchor now.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn write(&mut self, head: Head) -> Result<(), AuditError> {
        let plain = serde_json::to_vec(&head).unwrap_or_default();
        let sealed = self.vault.seal(&self.name, &plain);
        // Whatever stands now is what the next write must replace; only this node writes this name.
        let standing = self
            .store
            .share(&self.name, sealed.clone(), self.stored.clone())
            .await?;
        self.stored = Some(standing);
        Ok(())
    }
}
