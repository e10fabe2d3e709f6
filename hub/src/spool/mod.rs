//! The node's spool: where a provider's answer waits, sealed and fsynced, while the store takes no writes (P5).
//!
//! One file per lease. A file is complete when it appears under its name, and is on disk before [`Spool::put`] returns.
//! The same directory holds the witness: how far the store had come when this node last looked.

mod error;
mod file;
mod room;

use std::{
    fs::{DirBuilder, File, OpenOptions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use lockstep_engine::record::TokenSet;
use lockstep_protocol::{GrantName, LeaseId, UserId, Version};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

pub use error::SpoolError;
pub use room::Reserved;
use room::Room;

use crate::{store::Mark, vault::Vault};

/// A provider's answer that is not committed yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spooled {
    /// Whose grant.
    pub user: UserId,
    /// Which.
    pub grant: GrantName,
    /// The lease it was redeemed under.
    pub lease: LeaseId,
    /// The version that was redeemed.
    pub from_version: Version,
    /// What the provider answered.
    pub tokens: TokenSet,
}

/// A directory of sealed results, used by one process at a time.
#[derive(Debug, Clone)]
pub struct Spool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    vault: Arc<Vault>,
    room: Arc<Room>,
    /// Held open: the lock goes when the process does, however it does.
    _lock: File,
}

impl Spool {
    /// Opens the spool in `dir`, made (0700) if absent, and locks it.
    ///
    /// # Errors
    /// [`SpoolError::InUse`] when another process has it, [`SpoolError::Io`] when it cannot be made or written.
    pub fn open(dir: &Path, vault: Arc<Vault>) -> Result<Self, SpoolError> {
        let fail = |error| SpoolError::io(dir, error);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(fail)?;
        let path = dir.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let lock = lock.map_err(|error| SpoolError::io(&path, error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(SpoolError::InUse(dir.to_owned())),
            locked => locked.map_err(|error| SpoolError::io(&path, error.into()))?,
        }
        file::sweep(dir).map_err(fail)?;
        let count = file::names(dir).map_err(fail)?.len();
        Ok(Self(Arc::new(Inner {
            dir: dir.to_owned(),
            vault,
            room: Arc::new(Room::new(dir, count).map_err(fail)?),
            _lock: lock,
        })))
    }

    /// Reserves room for one result. To be held from before a redeem until its result is committed or spooled.
    ///
    /// # Errors
    /// [`SpoolError::Full`]: nothing may be redeemed that could not be kept.
    pub fn reserve(&self) -> Result<Reserved, SpoolError> {
        Room::reserve(&self.0.room)
    }

    /// How many results wait.
    pub fn entries(&self) -> usize {
        self.0.room.waiting()
    }

    /// Whether [`Self::reserve`] would succeed now.
    pub fn has_room(&self) -> bool {
        self.reserve().is_ok()
    }

    /// Keeps a result. When this returns `Ok` it survives loss of power.
    ///
    /// # Errors
    /// [`SpoolError::Io`]; a disk that is full uses up the ballast first.
    pub async fn put(&self, spooled: Spooled) -> Result<(), SpoolError> {
        self.blocking(move |inner| {
            let path = file::path(&inner.dir, spooled.lease);
            let bytes = file::seal(&inner.vault, &spooled);
            let fresh = !path.exists();
            inner
                .room
                .write(&path, &bytes)
                .map_err(|error| SpoolError::io(&path, error))?;
            if fresh {
                inner.room.added();
            }
            Ok(())
        })
        .await
    }

    /// Forgets a result that is committed or refused for good. No error if it was not there.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub async fn remove(&self, lease: LeaseId) -> Result<(), SpoolError> {
        self.blocking(move |inner| {
            let path = file::path(&inner.dir, lease);
            if file::remove(&inner.dir, &path).map_err(|error| SpoolError::io(&path, error))? {
                inner.room.removed();
            }
            Ok(())
        })
        .await
    }

    /// Everything that waits, in no order. What cannot be read is logged by name and kept: renamed to `*.corrupt` if it
    /// is damaged, left in place if its key is missing.
    ///
    /// # Errors
    /// [`SpoolError::Io`] when the directory itself cannot be read.
    pub async fn pending(&self) -> Result<Vec<Spooled>, SpoolError> {
        self.blocking(|inner| {
            let names = file::names(&inner.dir).map_err(|error| SpoolError::io(&inner.dir, error))?;
            Ok(names.into_iter().filter_map(|path| inner.read(&path)).collect())
        })
        .await
    }

    /// How far the store had come when [`Self::put_witness`] was last called here; none: never.
    ///
    /// # Errors
    /// [`SpoolError::Io`], or [`SpoolError::Witness`] when the file is damaged.
    pub fn witness(&self) -> Result<Option<Mark>, SpoolError> {
        file::read_witness(&self.0.dir)
    }

    /// Remembers how far the store has come. Durable when it returns.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub async fn put_witness(&self, mark: Mark) -> Result<(), SpoolError> {
        self.blocking(move |inner| {
            let path = file::witness(&inner.dir);
            let text = file::witness_text(mark);
            inner
                .room
                .write(&path, text.as_bytes())
                .map_err(|error| SpoolError::io(&path, error))
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let inner = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(done) => done,
            // The runtime is shutting down: nothing is known to have been written.
            Err(error) => Err(SpoolError::io(&self.0.dir, std::io::Error::other(error))),
        }
    }
}

impl Inner {
    fn read(&self, path: &Path) -> Option<Spooled> {
        match file::open(&self.vault, path) {
            Ok(spooled) => Some(spooled),
            Err(file::Unreadable::Left(why)) => {
                tracing::error!(file = %path.display(), %why, "spooled result cannot be read now; left in place");
                None
            }
            Err(file::Unreadable::Damaged(why)) => {
                tracing::error!(file = %path.display(), %why, "spooled result is damaged; kept aside");
                if file::set_aside(path) {
                    self.room.removed();
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
